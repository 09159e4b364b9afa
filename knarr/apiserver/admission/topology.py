"""PodTopologyLabels: a pod learns by its own labels in which zone and region it runs (KEP-4742)."""

from __future__ import annotations

from knarr.api.core.v1 import Binding, Node, Pod
from knarr.api.decode import decoder
from knarr.apiserver.admission import Attributes, Plugin
from knarr.store.contract import Store

LABELS = ("topology.kubernetes.io/zone", "topology.kubernetes.io/region")


class PodTopologyLabels(Plugin):
    kinds = (Pod,)
    operations = ("CREATE",)
    subresources = ("", "binding")

    def __init__(self, store: Store) -> None:
        self._store = store

    async def mutate(self, attributes: Attributes) -> None:
        obj: Pod | Binding = attributes.obj
        name = obj.target.name if isinstance(obj, Binding) else (obj.spec.node_name if obj.spec else None)
        record = await self._store.get(f"nodes//{name}") if name else None
        if record is None or b"topology.kubernetes.io/" not in record.value:
            return
        node: Node = decoder(Node).decode(record.value)
        obj.metadata.labels |= {key: node.metadata.labels[key] for key in LABELS if key in node.metadata.labels}
