"""A pod that names its node goes nowhere else."""

from __future__ import annotations

from typing import ClassVar

from knarr.api.core.v1 import Node
from knarr.scheduler.cache import NodeInfo, PodInfo
from knarr.scheduler.framework import Plugin, Refusal
from knarr.scheduler.happenings import What

REFUSAL = Refusal("NodeName", ("node(s) didn't match the requested node name",), curable=False)


class NodeName(Plugin):
    name = "NodeName"
    helped_by: ClassVar = {Node: What.ADDED}

    def prepare(self, pod: PodInfo) -> str | None:
        assert pod.pod.spec is not None
        return pod.pod.spec.node_name or None

    def filter(self, prepared: str, node: NodeInfo) -> Refusal | None:
        return None if node.name == prepared else REFUSAL
