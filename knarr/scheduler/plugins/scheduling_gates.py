"""Gates hold a pod back until whoever put them there has taken the last one away (KEP-3521)."""

from __future__ import annotations

from knarr.scheduler.cache import PodInfo
from knarr.scheduler.framework import Step


class SchedulingGates(Step):
    name = "SchedulingGates"

    def admit(self, pod: PodInfo) -> str:
        gates = [gate.name for gate in pod.pod.spec.scheduling_gates] if pod.pod.spec else []
        return f"waiting for scheduling gates: [{' '.join(gates)}]" if gates else ""
