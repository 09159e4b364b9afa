"""TaintNodesByCondition: a new node takes no pods until it has been seen to be ready."""

from __future__ import annotations

from knarr.api.core.v1 import Node, NodeSpec, Taint
from knarr.apiserver.admission import Attributes, Plugin

NOT_READY = Taint(key="node.kubernetes.io/not-ready", effect="NoSchedule")


class TaintNodesByCondition(Plugin):
    kinds = (Node,)
    operations = ("CREATE",)
    subresources = ("",)

    async def mutate(self, attributes: Attributes) -> None:
        node: Node = attributes.obj
        spec = node.spec = node.spec or NodeSpec()
        if not any((taint.key, taint.effect) == (NOT_READY.key, NOT_READY.effect) for taint in spec.taints):
            spec.taints.append(Taint(key=NOT_READY.key, effect=NOT_READY.effect))
