"""A node must have room for what the pod requests; the one with more room left is liked better (LeastAllocated)."""

from __future__ import annotations

from knarr.scheduler.cache import NodeInfo, PodInfo
from knarr.scheduler.framework import SCORE_MAX, Plugin, Refusal
from knarr.scheduler.requests import CPU, MEMORY


class ResourcesFit(Plugin):
    name = "NodeResourcesFit"
    weight = 1

    def prepare(self, pod: PodInfo) -> PodInfo:
        return pod

    def filter(self, prepared: PodInfo, node: NodeInfo) -> Refusal | None:
        allocatable, requested = node.allocatable, node.requested
        for resource, count in prepared.requests.items():
            if count > allocatable.get(resource, 0) - requested.get(resource, 0):
                return self._refusal(prepared, node)
        return None if len(node.pods) < node.pods_max else self._refusal(prepared, node)

    def prepare_score(self, pod: PodInfo) -> PodInfo:
        return pod

    def score(self, prepared: PodInfo, node: NodeInfo) -> float:
        return (
            _left(node.allocatable.get(CPU, 0), node.cpu + prepared.cpu)
            + _left(node.allocatable.get(MEMORY, 0), node.memory + prepared.memory)
        ) // 2

    def _refusal(self, pod: PodInfo, node: NodeInfo) -> Refusal:
        """All that is short."""
        short = [resource for resource, count in pod.requests.items() if count > node.free(resource)]
        reasons = tuple(f"Insufficient {resource}" for resource in short)
        if len(node.pods) >= node.pods_max:
            reasons = ("Too many pods", *reasons)
        curable = all(pod.requests[resource] <= node.allocatable.get(resource, 0) for resource in short)
        return Refusal(self.name, reasons, curable)


def _left(allocatable: int, taken: int) -> int:
    return (allocatable - taken) * SCORE_MAX // allocatable if allocatable >= taken and allocatable else 0
