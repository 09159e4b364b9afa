"""What a pod's status means: has it ended, is it active, is it ready (upstream's pkg/api/v1/pod)."""

from __future__ import annotations

from knarr.api.core.v1 import Pod, PodCondition

IN_SERVICE = "knarr.dev/InService"
"""Condition of a pod that a Service selects: whether new connections are led to it. Ours beyond upstream's."""
WAITING = "WaitingForDataPlanes"
"""Its reason while the pod is ready, but not led to from everywhere yet."""


def phase(pod: Pod) -> str:
    return (pod.status.phase if pod.status else None) or "Pending"


def is_terminal(pod: Pod) -> bool:
    """All its containers have ended, and none starts again."""
    return pod.status is not None and pod.status.phase in ("Succeeded", "Failed")


def is_active(pod: Pod) -> bool:
    """It runs or will run, and nobody is deleting it."""
    return pod.metadata.deletion_timestamp is None and not is_terminal(pod)


def condition_of(pod: Pod, kind: str) -> PodCondition | None:
    if pod.status is not None:
        for condition in pod.status.conditions:
            if condition.type == kind:
                return condition
    return None


def ready_condition(pod: Pod) -> PodCondition | None:
    return condition_of(pod, "Ready")


def is_ready(pod: Pod) -> bool:
    condition = ready_condition(pod)
    return condition is not None and condition.status == "True"


def is_entering(pod: Pod) -> bool:
    """It is on its way into service: ready, but not every data plane leads connections to it yet."""
    condition = condition_of(pod, IN_SERVICE)
    return condition is not None and condition.status == "False" and condition.reason == WAITING
