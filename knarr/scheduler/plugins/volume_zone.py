"""Volumes that say by labels in which zone and region they are: the pod's node must be there too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from knarr.api.core.v1 import Node, PersistentVolume, PersistentVolumeClaim
from knarr.api.core.volume_matching import claim_spec, claims_of
from knarr.client.informer import Informer, key_of
from knarr.scheduler.cache import NodeInfo, PodInfo
from knarr.scheduler.framework import Connections, Outside, Refusal
from knarr.scheduler.happenings import Happening, Hint, What

NAME = "VolumeZone"
REFUSAL = Refusal(NAME, ("node(s) had no available volume zone",), curable=False)
ZONES = {
    "failure-domain.beta.kubernetes.io/zone": "topology.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region": "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone": "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region": "topology.kubernetes.io/region",
}
"""The labels, old and new, and what each is called now."""
BETWEEN = "__"
"""What separates the zones of a volume that is in several."""


class VolumeZone(Outside):
    name = NAME
    helped_by: ClassVar = {
        Node: What.ADDED | What.LABELS,
        PersistentVolumeClaim: What.ADDED | What.CHANGED,
        PersistentVolume: What.ADDED | What.CHANGED,
    }

    def hint(self, pod: PodInfo, happening: Happening) -> Hint:
        if happening.kind is PersistentVolumeClaim:
            return Hint.QUEUE if key_of(happening.new) in claims_of(pod.pod) else Hint.SKIP
        return Hint.QUEUE

    def connect(self, to: Connections) -> Sequence[Informer[Any]]:
        self._claims = to.informers.of(PersistentVolumeClaim)
        self._volumes = to.informers.of(PersistentVolume)
        return self._claims, self._volumes

    def prepare(self, pod: PodInfo) -> list[tuple[str, frozenset[str]]] | None:
        """Labels, and the values that will do."""
        wanted = []
        for key in claims_of(pod.pod):
            claim = self._claims.get(key)
            volume = self._volumes.get(claim_spec(claim).volume_name or "") if claim else None
            for label, zones in volume.metadata.labels.items() if volume else ():
                if label in ZONES:
                    wanted.append((label, frozenset(zones.split(BETWEEN))))
        return wanted or None

    def filter(self, prepared: list[tuple[str, frozenset[str]]], node: NodeInfo) -> Refusal | None:
        assert node.node is not None
        labels = node.node.metadata.labels
        if not any(label in labels for label in ZONES):
            return None  # A node that is in no zone may have them all.
        for label, zones in prepared:
            if labels.get(label, labels.get(ZONES[label])) not in zones:
                return REFUSAL
        return None
