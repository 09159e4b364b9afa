"""A taint keeps pods off a node unless they tolerate it; PreferNoSchedule only makes the node less liked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from knarr.api.core.taints import tolerates
from knarr.api.core.v1 import Node, Toleration
from knarr.scheduler.cache import NodeInfo, PodInfo
from knarr.scheduler.framework import Plugin, Refusal, reversed_by_most
from knarr.scheduler.happenings import What

REFUSAL = Refusal("TaintToleration", ("node(s) had untolerated taint(s)",), curable=False)


class TaintToleration(Plugin):
    name = "TaintToleration"
    weight = 3
    comparing = True
    helped_by: ClassVar = {Node: What.ADDED | What.TAINTS}

    def prepare(self, pod: PodInfo) -> list[Toleration]:
        assert pod.pod.spec is not None
        return pod.pod.spec.tolerations

    def filter(self, prepared: list[Toleration], node: NodeInfo) -> Refusal | None:
        for taint in node.hard_taints:
            if not any(tolerates(toleration, taint) for toleration in prepared):
                return REFUSAL
        return None

    def prepare_score(self, pod: PodInfo) -> list[Toleration]:
        assert pod.pod.spec is not None
        return [t for t in pod.pod.spec.tolerations if t.effect in (None, "", "PreferNoSchedule")]

    def score(self, prepared: list[Toleration], node: NodeInfo) -> float:
        """How many of the node's soft taints it doesn't tolerate."""
        return sum(not any(tolerates(toleration, taint) for toleration in prepared) for taint in node.soft_taints)

    def normalize(self, prepared: list[Toleration], scores: Sequence[float]) -> Sequence[float]:
        return reversed_by_most(scores)
