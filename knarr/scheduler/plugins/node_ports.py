"""Two pods can't have the same host port of one node. The address 0.0.0.0 stands for all."""

from __future__ import annotations

from typing import ClassVar

from knarr.api.core.v1 import Node, Pod
from knarr.scheduler.cache import NodeInfo, PodInfo
from knarr.scheduler.framework import Plugin, Refusal
from knarr.scheduler.happenings import What
from knarr.scheduler.requests import Port

REFUSAL = Refusal("NodePorts", ("node(s) didn't have free ports for the requested pod ports",))
EVERY_ADDRESS = "0.0.0.0"


class NodePorts(Plugin):
    name = "NodePorts"
    helped_by: ClassVar = {Node: What.ADDED, Pod: What.LEFT}

    def prepare(self, pod: PodInfo) -> tuple[Port, ...] | None:
        return pod.ports or None

    def filter(self, prepared: tuple[Port, ...], node: NodeInfo) -> Refusal | None:
        return REFUSAL if any(_conflict(wanted, used) for used in node.ports for wanted in prepared) else None


def _conflict(left: Port, right: Port) -> bool:
    return left[1:] == right[1:] and (left[0] == right[0] or EVERY_ADDRESS in (left[0], right[0]))
