"""A node must have room for what the pod requests: CPU, memory, storage, and whatever else nodes offer.

How well it fits is a matter of the strategy (upstream's NodeResourcesFitArgs): LeastAllocated likes empty nodes,
MostAllocated full ones, RequestedToCapacityRatio what its shape says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from msgspec import Struct, field

from knarr.api.core.v1 import Node, Pod
from knarr.scheduler.cache import Cache, NodeInfo, PodInfo
from knarr.scheduler.framework import SCORE_MAX, Plugin, Refusal
from knarr.scheduler.happenings import What
from knarr.scheduler.requests import CPU, MEMORY

UTILIZATION_MAX = 100
ALWAYS_COUNTED = (CPU, MEMORY, "ephemeral-storage")
"""Resources that matter to how a pod fits even when it doesn't ask for them."""


class Strategy(Struct, frozen=True):
    """What makes a node liked."""

    type: Literal["LeastAllocated", "MostAllocated", "RequestedToCapacityRatio"] = "LeastAllocated"
    resources: Mapping[str, int] = field(default_factory=lambda: {CPU: 1, MEMORY: 1})
    """The weight of each."""
    shape: Sequence[tuple[int, int]] = ()
    """Of RequestedToCapacityRatio: utilization in percent, and the score there; straight lines between them."""


class ResourcesFit(Plugin):
    name = "NodeResourcesFit"
    weight = 1
    helped_by: ClassVar = {Node: What.ADDED | What.ALLOCATABLE, Pod: What.LEFT | What.SHRUNK}

    def __init__(self, cache: Cache) -> None:
        super().__init__(cache)
        self.strategy = Strategy()
        self.ignored: frozenset[str] = frozenset()
        """Resources that others look after."""
        self.ignored_groups: frozenset[str] = frozenset()
        """So for all resources of these groups, the part of a name before the slash."""

    def prepare(self, pod: PodInfo) -> Mapping[str, int]:
        return {resource: count for resource, count in pod.requests.items() if not self._is_ignored(resource)}

    def filter(self, prepared: Mapping[str, int], node: NodeInfo) -> Refusal | None:
        allocatable, requested = node.allocatable, node.requested
        for resource, count in prepared.items():
            if count > allocatable.get(resource, 0) - requested.get(resource, 0):
                return self._refusal(prepared, node)
        return None if len(node.pods) < node.pods_max else self._refusal(prepared, node)

    def prepare_score(self, pod: PodInfo) -> PodInfo:
        return pod

    def score(self, prepared: PodInfo, node: NodeInfo) -> float:
        total = weights = 0
        ratio = self.strategy.type == "RequestedToCapacityRatio"
        for resource, weight in self.strategy.resources.items():
            allocatable = node.allocatable.get(resource, 0)
            if not allocatable or not (resource in ALWAYS_COUNTED or resource in prepared.requests):
                continue
            score = self._score_of(_taken(resource, prepared, node), allocatable)
            if ratio and not score:
                continue
            total += score * weight
            weights += weight
        if not weights:
            return 0
        return round(total / weights) if ratio else total // weights

    def _score_of(self, taken: int, allocatable: int) -> int:
        match self.strategy.type:
            case "LeastAllocated":
                return max(0, (allocatable - taken) * SCORE_MAX // allocatable)
            case "MostAllocated":
                return min(taken, allocatable) * SCORE_MAX // allocatable
        return _on_lines(self.strategy.shape, min(taken * UTILIZATION_MAX // allocatable, UTILIZATION_MAX))

    def _is_ignored(self, resource: str) -> bool:
        return resource in self.ignored or resource.partition("/")[0] in self.ignored_groups

    def _refusal(self, requests: Mapping[str, int], node: NodeInfo) -> Refusal:
        """All that is short."""
        short = [resource for resource, count in requests.items() if count > node.free(resource)]
        reasons = tuple(f"Insufficient {resource}" for resource in short)
        if len(node.pods) >= node.pods_max:
            reasons = ("Too many pods", *reasons)
        curable = all(requests[resource] <= node.allocatable.get(resource, 0) for resource in short)
        return Refusal(self.name, reasons, curable)


def _taken(resource: str, pod: PodInfo, node: NodeInfo) -> int:
    """With the pod, and with a guess for containers that don't say."""
    if resource == CPU:
        return node.cpu + pod.cpu
    if resource == MEMORY:
        return node.memory + pod.memory
    return node.requested.get(resource, 0) + pod.requests.get(resource, 0)


def _on_lines(shape: Sequence[tuple[int, int]], utilization: int) -> int:
    """The score at a utilization, as whole numbers divide in Go."""
    before = shape[0]
    for point in shape:
        if utilization <= point[0]:
            if point is before:
                return point[1]
            rise = (point[1] - before[1]) * (utilization - before[0])
            return before[1] + int(rise / (point[0] - before[0]))
        before = point
    return before[1]
