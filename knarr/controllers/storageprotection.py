"""Claims and volumes in use stay: their finalizer goes when they are being deleted and nobody uses them any more.

A claim is in use by a pod that has been put on a node and can still run there; a volume by the claim that it is bound
to.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from knarr.api.core.v1 import PersistentVolume, PersistentVolumeClaim, Pod
from knarr.api.core.volume_matching import claims_of
from knarr.api.types import replace
from knarr.client.controller import Controller
from knarr.client.informer import Informer, key_of

CLAIM_FINALIZER = "kubernetes.io/pvc-protection"
VOLUME_FINALIZER = "kubernetes.io/pv-protection"


def _may_run(pod: Pod) -> bool:
    placed = bool(pod.spec and pod.spec.node_name)
    return placed and not (pod.status and pod.status.phase in ("Succeeded", "Failed"))


class ClaimProtection(Controller):
    """The finalizer of v1 PersistentVolumeClaims."""

    name = "persistentvolumeclaim-protection-controller"
    needs = (PersistentVolumeClaim,)

    def watch(self) -> None:
        self.claims = self.informer(PersistentVolumeClaim)
        self.pods = self.informer(Pod)
        self.pods.add_index("claim", claims_of)
        self.on(self.claims, key_of)
        self.on_change(self.pods, self._freed)

    def _freed(self, old: Pod | None, new: Pod | None) -> Iterable[str]:
        if old is None or (new is not None and _may_run(new)):
            return ()
        return claims_of(old)

    async def reconcile(self, key: str) -> None:
        claim = self.claims.get(key)
        if claim is None:
            return
        if claim.metadata.deletion_timestamp is None:
            await _add(self, claim, CLAIM_FINALIZER)
        elif not any(_may_run(pod) for pod in self.pods.by_index("claim", key)):
            await _remove(self, claim, CLAIM_FINALIZER, self.pods)


class VolumeProtection(Controller):
    """The finalizer of v1 PersistentVolumes."""

    name = "persistentvolume-protection-controller"
    needs = (PersistentVolume,)

    def watch(self) -> None:
        self.volumes = self.informer(PersistentVolume)
        self.on(self.volumes, key_of)

    async def reconcile(self, key: str) -> None:
        volume = self.volumes.get(key)
        if volume is None:
            return
        if volume.metadata.deletion_timestamp is None:
            await _add(self, volume, VOLUME_FINALIZER)
        elif not (volume.status and volume.status.phase == "Bound"):
            await _remove(self, volume, VOLUME_FINALIZER, None)


async def _add(loop: Controller, obj: Any, finalizer: str) -> None:
    """Objects from before there was protection."""
    metadata = obj.metadata
    if finalizer not in metadata.finalizers:
        await loop.client.update(replace(obj, metadata=replace(metadata, finalizers=[*metadata.finalizers, finalizer])))


async def _remove(loop: Controller, obj: Any, finalizer: str, pods: Informer[Pod] | None) -> None:
    """Let go; first asked of the server whether a pod came in between, which the cache may not show yet."""
    metadata = obj.metadata
    if finalizer not in metadata.finalizers:
        return
    if pods is not None:
        key = key_of(obj)
        now = (await loop.client.list(Pod, metadata.namespace)).items
        if any(_may_run(pod) and key in claims_of(pod) for pod in now):
            return
    kept = [each for each in metadata.finalizers if each != finalizer]
    await loop.client.update(replace(obj, metadata=replace(metadata, finalizers=kept)))
