"""Cordoned nodes take no new pods, but those that tolerate the taint unschedulable."""

from __future__ import annotations

from typing import ClassVar

from knarr.api.core.taints import UNSCHEDULABLE, tolerates
from knarr.api.core.v1 import Node, Taint
from knarr.scheduler.cache import NodeInfo, PodInfo
from knarr.scheduler.framework import Plugin, Refusal
from knarr.scheduler.happenings import What

TAINT = Taint(key=UNSCHEDULABLE, effect="NoSchedule")
REFUSAL = Refusal("NodeUnschedulable", ("node(s) were unschedulable",), curable=False)


class NodeUnschedulable(Plugin):
    name = "NodeUnschedulable"
    helped_by: ClassVar = {Node: What.ADDED | What.TAINTS}

    def prepare(self, pod: PodInfo) -> bool | None:
        assert pod.pod.spec is not None
        return None if any(tolerates(toleration, TAINT) for toleration in pod.pod.spec.tolerations) else True

    def filter(self, prepared: bool, node: NodeInfo) -> Refusal | None:
        return REFUSAL if node.unschedulable else None
