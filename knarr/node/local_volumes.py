"""The volumes of the provisioner `knarr.dev/local`: each is a folder on one node, <data-dir>/volumes/<name>.

A claim whose class names this provisioner gets a folder on the node that the scheduler has chosen for its first pod
(or, where the class doesn't wait for a pod, on the first node by name); only pods on that node can have it. When the
claim is gone, the folder is removed if the class says Delete, and left with its volume if it says Retain. A volume
grows by saying so: how much is in a folder is not limited. A folder whose volume could not be written before its claim
went is removed a minute later, or when its node is next heard of, if nothing is in it.

One loop serves all nodes: those of its process, whose folders it makes and removes itself, and those of other machines,
which it asks to. Where a node keeps them is said by the annotation knarr.dev/volumes of its Node.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Protocol

from knarr.api.core.v1 import (
    LocalVolumeSource,
    Node,
    NodeSelector,
    NodeSelectorRequirement,
    NodeSelectorTerm,
    ObjectReference,
    PersistentVolume,
    PersistentVolumeClaim,
    PersistentVolumeClaimStatus,
    PersistentVolumeSpec,
    VolumeNodeAffinity,
)
from knarr.api.core.volume_matching import (
    LOCAL,
    PROVISIONED_BY,
    PROVISIONERS,
    SELECTED_NODE,
    asked,
    capacity,
    claim_class,
    claim_spec,
    is_completely_bound,
    volume_spec,
)
from knarr.api.errors import AlreadyExists, APIError, NotFound
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.quantity import parse_quantity
from knarr.api.storage.v1 import StorageClass
from knarr.api.types import Quantity, replace
from knarr.client.client import Client
from knarr.client.controller import Controller
from knarr.client.informer import Informers, key_of
from knarr.clock import Clock

FOLDER_ANNOTATION = "knarr.dev/volumes"
"""Of a Node on another machine: the folder in which its volumes are."""
ACCOUNT = "local-volume-provisioner"
"""As whom it writes, in kube-system."""
FINALIZER = "external-provisioner.volume.kubernetes.io/finalizer"
"""Upstream's: a volume is not gone before what it stands for is (KEP-2644)."""
HOST_NAME = "kubernetes.io/hostname"
CLAIM, VOLUME, LEFT = "claim ", "volume ", "left "
"""What a key is about; the rest is the object's own key, or the node's whose folders may be left over."""
LEFT_S = 60.0
"""The writing of a volume may still be under way when its claim goes."""
ASKED_AGAIN_S = 300.0
"""A node that can't be asked what it has is asked again."""


class Folders(Protocol):
    """Where the volumes are."""

    def path(self, name: str) -> str: ...

    async def make(self, name: str) -> None:
        """Idempotent. Raises OSError."""

    async def remove(self, name: str) -> None:
        """With all that is in it. Idempotent. Raises OSError."""

    async def empty(self) -> list[str]:
        """Those with nothing in them. Raises OSError."""


class HostFolders:
    """Folders of this machine."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, name: str) -> str:
        return str(self._root / name)

    async def make(self, name: str) -> None:
        await asyncio.to_thread(_make, self._root / name)

    async def remove(self, name: str) -> None:
        await asyncio.to_thread(_remove, self._root / name)

    async def empty(self) -> list[str]:
        return await asyncio.to_thread(_empty, self._root)


class HollowFolders:
    """None at all, for nodes on which nothing runs."""

    def path(self, name: str) -> str:
        return f"/hollow/{name}"

    async def make(self, name: str) -> None:
        return None

    async def remove(self, name: str) -> None:
        return None

    async def empty(self) -> list[str]:
        return []


class LocalVolumes(Controller):
    """Makes, enlarges and removes the local volumes of some nodes."""

    name = LOCAL

    def __init__(
        self,
        client: Client,
        informers: Informers,
        clock: Clock,
        nodes: Collection[str],
        folders: Folders,
        elsewhere: Callable[[str], Folders | None] = lambda node: None,
    ) -> None:
        """`folders` are those of `nodes`; `elsewhere` answers those of another node, None where it has none."""
        self._here = frozenset(nodes)
        self._folders = folders
        self._elsewhere = elsewhere
        super().__init__(client, informers, clock)

    def watch(self) -> None:
        self.claims = self.informer(PersistentVolumeClaim)
        self.volumes = self.informer(PersistentVolume)
        self.classes = self.informer(StorageClass)
        self.nodes = self.informer(Node)
        self.on(self.claims, self._of_claim)
        self.claims.add_handler(self._note_gone)
        self.on_change(self.volumes, self._with_volume)
        self.on(self.classes, lambda _: self._waiting())
        self.on_change(self.nodes, lambda old, new: self._waiting() if old is None or new is None else ())
        self.on_change(self.nodes, lambda old, new: LEFT + (new.metadata.name or "") if new and not old else None)
        self.on(self.volumes, lambda volume: VOLUME + (volume.metadata.name or "") if self._is_ours(volume) else None)

    def _of_claim(self, claim: PersistentVolumeClaim) -> str | None:
        return CLAIM + key_of(claim) if claim.metadata.annotations.get(PROVISIONERS[1]) == LOCAL else None

    def _note_gone(self, old: PersistentVolumeClaim | None, new: PersistentVolumeClaim | None) -> None:
        """A claim that goes without a volume may have a folder all the same."""
        if new is None and old is not None and not claim_spec(old).volume_name and self._of_claim(old):
            self.queue.add_after(LEFT + (old.metadata.annotations.get(SELECTED_NODE) or self._first_node()), LEFT_S)

    def _with_volume(self, old: PersistentVolume | None, new: PersistentVolume | None) -> str | None:
        """One that comes may have to grow already; if one goes whose claim isn't bound to it yet, it gets another."""
        one = old if new is None else new if old is None else None
        reference = volume_spec(one).claim_ref if one is not None else None
        return f"{CLAIM}{reference.namespace}/{reference.name}" if reference else None

    def _waiting(self) -> Iterable[str]:
        """Claims that may have come before their class or their node was known here."""
        for claim in self.claims.all():
            if not claim_spec(claim).volume_name and (key := self._of_claim(claim)):
                yield key

    def _is_ours(self, volume: PersistentVolume) -> bool:
        """It was made by this provisioner, on a node that it serves, and is where such volumes are."""
        local, folders = volume_spec(volume).local, self._folders_of(node_of(volume))
        return (
            volume.metadata.annotations.get(PROVISIONED_BY) == LOCAL
            and folders is not None
            and local is not None
            and local.path == folders.path(volume.metadata.name or "")
        )

    def _folders_of(self, node: str) -> Folders | None:
        return self._folders if node in self._here else self._elsewhere(node)

    async def reconcile(self, key: str) -> float | None:
        if key.startswith(LEFT):
            return await self._clear(key.removeprefix(LEFT))
        if key.startswith(VOLUME):
            volume = self.volumes.get(key.removeprefix(VOLUME))
            if volume is not None and self._is_ours(volume):
                await self._reclaim(volume)
            return None
        claim = self.claims.get(key.removeprefix(CLAIM))
        if claim is None or claim.metadata.deletion_timestamp is not None:
            return None
        if is_completely_bound(claim):
            await self._grow(claim)
        elif not claim_spec(claim).volume_name:
            await self._provision(claim)
        return None

    async def _provision(self, claim: PersistentVolumeClaim) -> None:
        storage_class = self.classes.get(claim_class(claim))
        if storage_class is None or storage_class.provisioner != LOCAL:
            return
        node = self._node_for(claim, storage_class)
        name, folders = f"pvc-{claim.metadata.uid}", self._folders_of(node)
        if folders is None or self.volumes.get(name) is not None:
            return
        if not await self._still_waits(claim):
            return
        why = unsupported(claim)
        if not why:
            about = f'External provisioner is provisioning volume for claim "{key_of(claim)}"'
            self.events.normal(claim, "Provisioning", about)
            try:
                await folders.make(name)
            except OSError as error:
                why = str(error)
        if why:
            about = f'failed to provision volume with StorageClass "{storage_class.metadata.name}": {why}'
            self.events.warning(claim, "ProvisioningFailed", about)
            return
        try:
            await self.client.create(volume_for(claim, storage_class, node, name, folders.path(name)))
        except AlreadyExists:
            return
        self.events.normal(claim, "ProvisioningSucceeded", f"Successfully provisioned volume {name}")

    async def _still_waits(self, claim: PersistentVolumeClaim) -> bool:
        """Asked of the server: while the cache is behind, one for a claim that is gone would come again and again."""
        try:
            now = await self.client.get(PersistentVolumeClaim, claim.metadata.name or "", claim.metadata.namespace)
        except NotFound:
            return False
        same = now.metadata.uid == claim.metadata.uid
        return same and now.metadata.deletion_timestamp is None and not claim_spec(now).volume_name

    def _node_for(self, claim: PersistentVolumeClaim, storage_class: StorageClass) -> str:
        """Empty while it is not decided."""
        if storage_class.volume_binding_mode == "WaitForFirstConsumer":
            return claim.metadata.annotations.get(SELECTED_NODE, "")
        return self._first_node()

    def _first_node(self) -> str:
        return min((node.metadata.name or "" for node in self.nodes.all()), default="")

    async def _clear(self, node: str) -> float | None:
        """Remove empty folders that are nobody's: no claim waits for its volume, and the server knows of none."""
        folders = self._folders_of(node)
        if folders is None:
            return None
        try:
            names = await folders.empty()
        except (APIError, OSError):
            return ASKED_AGAIN_S
        waiting = {f"pvc-{claim.metadata.uid}" for claim in self.claims.all()}
        for name in names:
            if name in waiting or not name.startswith("pvc-"):
                continue
            try:
                await self.client.get(PersistentVolume, name)
            except NotFound:
                await folders.remove(name)
        return None

    async def _grow(self, claim: PersistentVolumeClaim) -> None:
        volume = self.volumes.get(claim_spec(claim).volume_name or "")
        if volume is None or not self._is_ours(volume) or not wants_more(claim):
            return
        size = {"storage": asked_as_written(claim)}
        if capacity(volume) < asked(claim):
            await self.client.update(replace(volume, spec=replace(volume_spec(volume), capacity=dict(size))))
        status = replace(claim.status or PersistentVolumeClaimStatus(), capacity=dict(size))
        await self.client.update_status(replace(claim, status=status))
        self.events.normal(claim, "VolumeResizeSuccessful", "Resize volume succeeded")

    async def _reclaim(self, volume: PersistentVolume) -> None:
        """Remove the folder of a volume whose claim is gone, or that is being deleted itself."""
        phase = volume.status.phase if volume.status else None
        deleting = volume.metadata.deletion_timestamp is not None
        deletes = volume_spec(volume).persistent_volume_reclaim_policy == "Delete"
        name = volume.metadata.name or ""
        if phase == "Bound" or not (deleting or (deletes and phase in ("Released", "Failed"))):
            return
        if deletes:
            try:
                folders = self._folders_of(node_of(volume))
                if folders is not None:
                    await folders.remove(name)
            except OSError as error:
                self.events.warning(volume, "VolumeFailedDelete", str(error))
                raise
        if not deleting:
            await self.client.delete(PersistentVolume, name, uid=volume.metadata.uid)
            return  # That wakes it again.
        kept = [each for each in volume.metadata.finalizers if each != FINALIZER]
        if kept != volume.metadata.finalizers:
            try:
                await self.client.update(replace(volume, metadata=replace(volume.metadata, finalizers=kept)))
            except NotFound:
                return


def wants_more(claim: PersistentVolumeClaim) -> bool:
    """It asks for more than it has, and what it has is known: the binder tells that first."""
    status = claim.status or PersistentVolumeClaimStatus()
    return status.phase == "Bound" and parse_quantity(status.capacity.get("storage", 0)) < asked(claim)


def asked_as_written(claim: PersistentVolumeClaim) -> Quantity:
    resources = claim_spec(claim).resources
    return resources.requests["storage"] if resources else 0


def unsupported(claim: PersistentVolumeClaim) -> str:
    """What a claim asks for that a folder can't be; empty when nothing."""
    spec = claim_spec(claim)
    if spec.selector is not None:
        return "claim.Spec.Selector is not supported"
    if spec.volume_mode == "Block":
        return "block volumes are not supported"
    return "data sources are not supported" if spec.data_source or spec.data_source_ref else ""


def volume_for(
    claim: PersistentVolumeClaim, storage_class: StorageClass, node: str, name: str, path: str
) -> PersistentVolume:
    """The volume as it is to be created: the claim's, and nobody else's."""
    spec, policy = claim_spec(claim), storage_class.reclaim_policy or "Delete"
    on_node = NodeSelectorRequirement(key=HOST_NAME, operator="In", values=[node])
    terms = [NodeSelectorTerm(match_expressions=[on_node])]
    return PersistentVolume(
        metadata=ObjectMeta(
            name=name,
            annotations={PROVISIONED_BY: LOCAL},
            finalizers=[FINALIZER] if policy == "Delete" else [],
        ),
        spec=PersistentVolumeSpec(
            access_modes=spec.access_modes,
            capacity={"storage": asked_as_written(claim)},
            claim_ref=ObjectReference(
                api_version="v1",
                kind="PersistentVolumeClaim",
                name=claim.metadata.name,
                namespace=claim.metadata.namespace,
                uid=claim.metadata.uid,
                resource_version=claim.metadata.resource_version,
            ),
            local=LocalVolumeSource(path=path),
            mount_options=storage_class.mount_options,
            node_affinity=VolumeNodeAffinity(required=NodeSelector(node_selector_terms=terms)),
            persistent_volume_reclaim_policy=policy,
            storage_class_name=storage_class.metadata.name,
            volume_mode=spec.volume_mode,
        ),
    )


def node_of(volume: PersistentVolume) -> str:
    """The node whose folder it is; empty when it doesn't name just one."""
    affinity = volume_spec(volume).node_affinity
    names = list(_hosts(affinity.required)) if affinity and affinity.required else []
    return names[0] if len(names) == 1 else ""


def _hosts(selector: NodeSelector) -> Iterable[str]:
    for term in selector.node_selector_terms:
        for each in term.match_expressions:
            if each.key == HOST_NAME and each.operator == "In":
                yield from each.values


def _make(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    os.chmod(folder, 0o777)  # Containers write as whoever they run as.


def _remove(folder: Path) -> None:
    if folder.is_dir():
        shutil.rmtree(folder)


def _empty(root: Path) -> list[str]:
    if not root.is_dir():
        return []
    return sorted(each.name for each in root.iterdir() if each.is_dir() and not any(each.iterdir()))
