"""Which nodes a pod wants by their labels: nodeSelector, required and preferred node affinity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from knarr.api.core.node_affinity import matches, term_matches
from knarr.api.core.v1 import Node, PodSpec, PreferredSchedulingTerm
from knarr.scheduler.cache import NodeInfo, PodInfo
from knarr.scheduler.framework import Plugin, Refusal, by_most
from knarr.scheduler.happenings import What

REFUSAL = Refusal("NodeAffinity", ("node(s) didn't match Pod's node affinity/selector",), curable=False)


class NodeAffinity(Plugin):
    name = "NodeAffinity"
    weight = 2
    comparing = True
    helped_by: ClassVar = {Node: What.ADDED | What.LABELS}

    def prepare(self, pod: PodInfo) -> PodSpec | None:
        assert pod.pod.spec is not None
        return pod.pod.spec if asks(pod.pod.spec) else None

    def filter(self, prepared: PodSpec, node: NodeInfo) -> Refusal | None:
        assert node.node is not None
        return None if matches(prepared, node.node) else REFUSAL

    def prepare_score(self, pod: PodInfo) -> list[PreferredSchedulingTerm] | None:
        assert pod.pod.spec is not None
        affinity = pod.pod.spec.affinity and pod.pod.spec.affinity.node_affinity
        preferred = affinity.preferred_during_scheduling_ignored_during_execution if affinity else None
        return preferred or None

    def score(self, prepared: list[PreferredSchedulingTerm], node: NodeInfo) -> float:
        assert node.node is not None
        return sum(term.weight for term in prepared if term.weight and term_matches(term.preference, node.node))

    def normalize(self, prepared: list[PreferredSchedulingTerm], scores: Sequence[float]) -> Sequence[float]:
        return by_most(scores)


def asks(spec: PodSpec) -> bool:
    """Whether the pod cares at all."""
    affinity = spec.affinity and spec.affinity.node_affinity
    return bool(spec.node_selector or (affinity and affinity.required_during_scheduling_ignored_during_execution))
