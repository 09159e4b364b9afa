"""Room for a critical pod: who gives way to it on a node that has too little left, as upstream's kubelet decides.

A pod of the priority of the system classes isn't rejected for want of room. Those that give way are less important:
guaranteed ones only where burstable ones don't suffice, and these only where best-effort ones don't; of each class as
few as possible, and then those that ask for little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from knarr.api.core.pod_amounts import pod_requests
from knarr.api.core.v1 import Pod, PodSpec
from knarr.api.quantity import milli, whole
from knarr.node.resources import qos_class

CRITICAL_MIN = 2_000_000_000
"""Priority of the class system-cluster-critical; no user's class has as much."""
MIRROR_ANNOTATION = "kubernetes.io/config.mirror"

Amounts = Mapping[str, int]
"""By resource; of cpu in thousandths."""


class NoRoom(Exception):
    """Whoever ended, it would not do."""

    def __init__(self, lacking: Amounts) -> None:
        listed = "".join(f"(res: {name}, q: {amount}), " for name, amount in lacking.items())
        super().__init__(f"no set of running pods found to reclaim resources: [{listed}]")


def is_critical(pod: Pod) -> bool:
    return MIRROR_ANNOTATION in pod.metadata.annotations or _priority(pod) >= CRITICAL_MIN


def gives_way(pod: Pod, to: Pod) -> bool:
    return (is_critical(to) and not is_critical(pod)) or _priority(pod) < _priority(to)


def who_gives_way(to: Pod, others: Sequence[Pod], lacking: Amounts) -> list[Pod]:
    """Enough of `others` for what is lacking. Raises NoRoom."""
    classes: dict[str, list[Pod]] = {"BestEffort": [], "Burstable": [], "Guaranteed": []}
    for pod in others:
        if gives_way(pod, to):
            classes[qos_class(pod.spec or PodSpec())].append(pod)
    best_effort, burstable, guaranteed = classes.values()
    if missing := _less(lacking, [*best_effort, *burstable, *guaranteed]):
        raise NoRoom(missing)
    last = _nearest(guaranteed, _less(lacking, [*best_effort, *burstable]))
    then = _nearest(burstable, _less(lacking, [*best_effort, *last]))
    first = _nearest(best_effort, _less(lacking, [*then, *last]))
    return [*first, *then, *last]


def requested(pod: Pod, resource: str) -> int:
    if resource == "pods":
        return 1
    amount = pod_requests(pod.spec or PodSpec()).get(resource, 0)
    return milli(amount) if resource == "cpu" else whole(amount)


def _priority(pod: Pod) -> int:
    return (pod.spec.priority if pod.spec else None) or 0


def _less(lacking: Amounts, pods: Sequence[Pod]) -> dict[str, int]:
    """What is still lacking when these have ended."""
    rest = {name: amount - sum(requested(pod, name) for pod in pods) for name, amount in lacking.items()}
    return {name: amount for name, amount in rest.items() if amount > 0}


def _nearest(pods: Sequence[Pod], lacking: Amounts) -> list[Pod]:
    """One after the other, each time that which leaves least lacking; of equals that which asks for less. There are
    enough."""
    left, chosen = list(pods), []
    while lacking:
        best = min(left, key=lambda pod: (_distance(pod, lacking), requested(pod, "memory"), requested(pod, "cpu")))
        left.remove(best)
        chosen.append(best)
        lacking = _less(lacking, [best])
    return chosen


def _distance(pod: Pod, lacking: Amounts) -> float:
    """Each resource counts the same, whatever its unit."""
    return sum((max(amount - requested(pod, name), 0) / amount) ** 2 for name, amount in lacking.items())
