"""Nodes whose CPU and memory would be taken up to similar parts are liked better: neither is left over alone."""

from __future__ import annotations

from knarr.scheduler.cache import NodeInfo, PodInfo
from knarr.scheduler.framework import SCORE_MAX, Plugin
from knarr.scheduler.requests import CPU, MEMORY


class Balance(Plugin):
    name = "NodeResourcesBalancedAllocation"
    weight = 1
    filters = False

    def prepare_score(self, pod: PodInfo) -> PodInfo | None:
        """A pod that requests nothing unbalances nothing."""
        return pod if pod.requests else None

    def score(self, prepared: PodInfo, node: NodeInfo) -> float:
        cpu = _part(node.requested.get(CPU, 0) + prepared.requests.get(CPU, 0), node.allocatable.get(CPU, 0))
        memory = _part(
            node.requested.get(MEMORY, 0) + prepared.requests.get(MEMORY, 0), node.allocatable.get(MEMORY, 0)
        )
        return int((1 - abs(cpu - memory) / 2) * SCORE_MAX)  # half the difference is the deviation of two


def _part(taken: int, allocatable: int) -> float:
    return min(1.0, taken / allocatable) if allocatable else 1.0
