"""Claims and volumes: a default class, protection while they are in use, and growth only where the class allows it."""

from __future__ import annotations

from knarr.api.core.v1 import PersistentVolume, PersistentVolumeClaim
from knarr.api.core.volume_matching import DEFAULT_CLASS, LOCAL, PROVISIONED_BY, asked, claim_class
from knarr.api.default_class import default_class
from knarr.api.storage.v1 import StorageClass
from knarr.apiserver.admission import Attributes, Plugin
from knarr.apiserver.admission.index import Index

OLD_CLASS = "volume.beta.kubernetes.io/storage-class"
PROTECTION: dict[type, str] = {
    PersistentVolumeClaim: "kubernetes.io/pvc-protection",
    PersistentVolume: "kubernetes.io/pv-protection",
}
THAT_GROW = (
    "aws_elastic_block_store",
    "azure_disk",
    "azure_file",
    "cinder",
    "csi",
    "flex_volume",
    "gce_persistent_disk",
    "glusterfs",
    "portworx_volume",
    "rbd",
    "vsphere_volume",
)
"""Kinds of volumes that can be made larger."""


class DefaultStorageClass(Plugin):
    """A claim that doesn't say of which class it is gets the newest of those that are marked as default."""

    kinds = (PersistentVolumeClaim,)
    operations = ("CREATE",)
    subresources = ("",)

    def __init__(self, classes: Index[StorageClass]) -> None:
        self._classes = classes

    async def mutate(self, attributes: Attributes) -> None:
        claim: PersistentVolumeClaim = attributes.obj
        if claim.spec is None or claim.spec.storage_class_name is not None or OLD_CLASS in claim.metadata.annotations:
            return
        claim.spec.storage_class_name = default_class(await self._classes.all(), *DEFAULT_CLASS)


class StorageProtection(Plugin):
    """StorageObjectInUseProtection: a finalizer, which a loop takes away when nobody uses the object any more."""

    name = "StorageObjectInUseProtection"
    kinds = (PersistentVolumeClaim, PersistentVolume)
    operations = ("CREATE",)
    subresources = ("",)

    async def mutate(self, attributes: Attributes) -> None:
        finalizers = attributes.obj.metadata.finalizers
        if (wanted := PROTECTION[attributes.resource.type]) not in finalizers:
            finalizers.append(wanted)


class ClaimResize(Plugin):
    """PersistentVolumeClaimResize: only bound claims grow, and only when their class says that its volumes can."""

    name = "PersistentVolumeClaimResize"
    kinds = (PersistentVolumeClaim,)
    operations = ("UPDATE",)
    subresources = ("",)

    def __init__(self, classes: Index[StorageClass], volumes: Index[PersistentVolume]) -> None:
        self._classes = classes
        self._volumes = volumes

    async def validate(self, attributes: Attributes) -> None:
        claim: PersistentVolumeClaim = attributes.obj
        old: PersistentVolumeClaim = attributes.old
        if asked(claim) <= asked(old):
            return
        if not old.status or old.status.phase != "Bound":
            raise attributes.refused("Only bound persistent volume claims can be expanded")
        name = claim_class(claim)
        found = await self._classes.get("", name) if name and name == claim_class(old) else None
        if found is None or not found.allow_volume_expansion:
            about = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must "
            raise attributes.refused(f"{about}support resize")
        volume = await self._volumes.get("", (claim.spec.volume_name if claim.spec else None) or "")
        if volume is None or volume.spec is None:
            about = "Error updating persistent volume claim because fetching associated persistent volume failed"
            raise attributes.refused(about)
        ours = volume.metadata.annotations.get(PROVISIONED_BY) == LOCAL
        if not ours and not any(getattr(volume.spec, source) is not None for source in THAT_GROW):
            raise attributes.refused("volume plugin does not support resize")
