"""How many volumes of a CSI driver a node can have attached: what its CSINode says (KEP-554)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from knarr.api.core.v1 import Node, PersistentVolume, PersistentVolumeClaim, Pod
from knarr.api.core.volume_matching import claim_class, claim_spec, claims_of, volume_spec
from knarr.api.storage.v1 import CSINode, StorageClass
from knarr.client.informer import Informer, key_of
from knarr.scheduler.cache import NodeInfo, PodInfo
from knarr.scheduler.framework import Connections, Outside, Refusal
from knarr.scheduler.happenings import Happening, Hint, What

NAME = "NodeVolumeLimits"
REFUSAL = Refusal(NAME, ("node(s) exceed max volume count",))

Attached = tuple[str, str]
"""A driver, and what it calls the volume (or the claim that it will make one for)."""


class NodeVolumeLimits(Outside):
    name = NAME
    helped_by: ClassVar = {
        Node: What.ADDED,
        CSINode: What.ADDED | What.CHANGED,
        Pod: What.LEFT,
        PersistentVolumeClaim: What.ADDED | What.CHANGED,
    }

    def connect(self, to: Connections) -> Sequence[Informer[Any]]:
        self._claims = to.informers.of(PersistentVolumeClaim)
        self._volumes = to.informers.of(PersistentVolume)
        self._classes = to.informers.of(StorageClass)
        self._nodes = to.informers.of(CSINode)
        return self._claims, self._volumes, self._classes, self._nodes

    def hint(self, pod: PodInfo, happening: Happening) -> Hint:
        """The pod would do on the node now; or it has other volumes now."""
        if happening.kind is PersistentVolumeClaim:
            return Hint.QUEUE if key_of(happening.new) in claims_of(pod.pod) else Hint.SKIP
        node = happening.node
        if happening.kind is CSINode:
            node = self.cache.get(happening.new.metadata.name or "")
        prepared = self.prepare(pod)
        return Hint.SKIP if node is None or (prepared and self.filter(prepared, node)) else Hint.QUEUE

    def prepare(self, pod: PodInfo) -> set[Attached] | None:
        return set(self._attached(pod.pod)) or None

    def filter(self, prepared: set[Attached], node: NodeInfo) -> Refusal | None:
        of_node = self._nodes.get(node.name)
        limits = (
            {each.name: each.allocatable.count for each in of_node.spec.drivers if each.allocatable} if of_node else {}
        )
        for driver, limit in limits.items():
            new = {each for each in prepared if each[0] == driver}
            if limit is None or not new:
                continue
            there = {each for pod in node.pods.values() for each in self._attached(pod.pod) if each[0] == driver}
            if len(there | new) > limit and new - there:
                return REFUSAL
        return None

    def _attached(self, pod: Pod) -> Iterable[Attached]:
        for volume in pod.spec.volumes if pod.spec else ():
            if volume.csi:
                yield volume.csi.driver, f"{pod.metadata.uid}/{volume.name}"
        for key in claims_of(pod):
            claim = self._claims.get(key)
            if claim is None:
                continue
            bound = self._volumes.get(claim_spec(claim).volume_name or "")
            if bound is not None:
                csi = volume_spec(bound).csi
                if csi is not None:
                    yield csi.driver, csi.volume_handle
            elif (storage_class := self._classes.get(claim_class(claim))) is not None:
                yield storage_class.provisioner, key
