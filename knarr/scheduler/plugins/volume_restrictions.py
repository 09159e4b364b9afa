"""Volumes that only one may use: claims of access mode ReadWriteOncePod (KEP-2485), and disks that attach once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from knarr.api.core.v1 import Node, PersistentVolumeClaim, Pod, Volume
from knarr.api.core.volume_matching import claim_spec, claims_of
from knarr.client.informer import Informer, key_of
from knarr.scheduler.cache import Cache, NodeInfo, PodInfo
from knarr.scheduler.framework import Connections, Outside, Refusal
from knarr.scheduler.happenings import Happening, Hint, What

NAME = "VolumeRestrictions"
IN_USE = Refusal(
    NAME, ("node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode",)
)
DISK_TAKEN = Refusal(NAME, ("node(s) had no available disk",))

Disk = tuple[str, ...]
"""Kind and identity."""


class VolumeRestrictions(Outside):
    name = NAME
    helped_by: ClassVar = {Node: What.ADDED, Pod: What.LEFT, PersistentVolumeClaim: What.ADDED | What.CHANGED}

    def __init__(self, cache: Cache) -> None:
        super().__init__(cache)
        self._users: Counter[str] = Counter()
        """How many pods on nodes use each claim."""
        cache.listen(self._moved)

    def connect(self, to: Connections) -> Sequence[Informer[Any]]:
        self._claims = to.informers.of(PersistentVolumeClaim)
        return (self._claims,)

    def hint(self, pod: PodInfo, happening: Happening) -> Hint:
        """Nobody else has the claim or the disk any more."""
        claims = set(claims_of(pod.pod))
        if happening.kind is PersistentVolumeClaim:
            return Hint.AT_ONCE if key_of(happening.new) in claims else Hint.SKIP
        if happening.kind is Pod:
            shared = not claims.isdisjoint(claims_of(happening.old.pod)) or any(
                _conflict(disk, other) for disk in disks_of(pod.pod) for other in disks_of(happening.old.pod)
            )
            return Hint.QUEUE if shared else Hint.SKIP
        return Hint.QUEUE

    def _moved(self, pod: PodInfo, node_name: str, change: int) -> None:
        for claim in claims_of(pod.pod):
            self._users[claim] += change
            if not self._users[claim]:
                del self._users[claim]

    def prepare(self, pod: PodInfo) -> tuple[list[str], list[tuple[Disk, bool]]] | None:
        alone = [key for key in claims_of(pod.pod) if _is_for_one(self._claims.get(key))]
        disks = list(disks_of(pod.pod))
        return (alone, disks) if alone or disks else None

    def filter(self, prepared: tuple[list[str], list[tuple[Disk, bool]]], node: NodeInfo) -> Refusal | None:
        alone, disks = prepared
        if any(self._users[claim] for claim in alone):
            return IN_USE
        if disks:
            there = [disk for pod in node.pods.values() for disk in disks_of(pod.pod)]
            if any(_conflict(disk, other) for disk in disks for other in there):
                return DISK_TAKEN
        return None


def disks_of(pod: Pod) -> Iterable[tuple[Disk, bool]]:
    """The disks that a pod names itself, and whether it only reads them."""
    for volume in pod.spec.volumes if pod.spec else ():
        yield from _disks(volume)


def _disks(volume: Volume) -> Iterable[tuple[Disk, bool]]:
    if volume.gce_persistent_disk:
        yield ("gce", volume.gce_persistent_disk.pd_name), bool(volume.gce_persistent_disk.read_only)
    elif volume.aws_elastic_block_store:
        yield ("aws", volume.aws_elastic_block_store.volume_id), False
    elif volume.iscsi:
        yield ("iscsi", volume.iscsi.iqn), bool(volume.iscsi.read_only)
    elif volume.rbd:
        for monitor in volume.rbd.monitors:
            yield ("rbd", monitor, volume.rbd.pool or "", volume.rbd.image), bool(volume.rbd.read_only)


def _conflict(one: tuple[Disk, bool], other: tuple[Disk, bool]) -> bool:
    """The same disk, unless both only read it."""
    return one[0] == other[0] and not (one[1] and other[1])


def _is_for_one(claim: PersistentVolumeClaim | None) -> bool:
    return claim is not None and "ReadWriteOncePod" in claim_spec(claim).access_modes
