"""Pods of higher priority are tried first; among equals, who waits longer."""

from __future__ import annotations

from knarr.scheduler.cache import PodInfo
from knarr.scheduler.framework import Step


class PrioritySort(Step):
    name = "PrioritySort"

    def order(self, pod: PodInfo, since_s: float) -> tuple[int, float]:
        return -pod.priority, since_s
