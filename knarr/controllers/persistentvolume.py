"""The binder of v1 PersistentVolumeClaims and PersistentVolumes (upstream's pkg/controller/volume/persistentvolume).

A claim without a volume gets the one that suits it best, or waits: for its first pod, for whoever makes volumes of its
class, or for a volume. A volume whose claim is gone is released, and then reclaimed as its policy says. Both sides say
whose they are, the volume first, so a binder that dies between the two goes on where it was.

Volumes are made and removed by provisioners, such as the nodes of this cluster (knarr/node/local_volumes.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from knarr.api.core.pod_state import is_terminal
from knarr.api.core.v1 import (
    PersistentVolume,
    PersistentVolumeClaim,
    PersistentVolumeClaimStatus,
    PersistentVolumeStatus,
    Pod,
)
from knarr.api.core.volume_claims import CLASS_ANNOTATION
from knarr.api.core.volume_matching import (
    BIND_COMPLETED,
    BOUND_BY_CONTROLLER,
    DEFAULT_CLASS,
    PROVISIONED_BY,
    PROVISIONERS,
    SELECTED_NODE,
    best_for,
    claim_class,
    claim_spec,
    claims_of,
    has_mode_of,
    is_kept_for,
    kept_for,
    mismatch,
    volume_class,
    volume_spec,
)
from knarr.api.default_class import default_class
from knarr.api.errors import NotFound
from knarr.api.storage.v1 import StorageClass
from knarr.api.types import replace
from knarr.client.controller import Controller
from knarr.client.informer import key_of
from knarr.clock import utc

CLAIM, VOLUME = "claim ", "volume "
"""What a key is about; the rest is the object's own key."""
IN_TREE = "kubernetes.io/"
"""Provisioners of this name would be the binder's own; it has none."""
EXTERNAL = (
    "Waiting for a volume to be created either by the external provisioner '{}' or manually by the system "
    "administrator. If volume creation is delayed, please verify that the provisioner is running and correctly "
    "registered."
)
TOLD_AGAIN_S = 15.0
"""What a claim waits for is told so often, as it may be something else by then (--pvclaimbinder-sync-period)."""


class VolumeBinder(Controller):
    """Claims and volumes, one queue for both."""

    name = "persistentvolume-controller"
    needs = (PersistentVolume, PersistentVolumeClaim, StorageClass)

    def watch(self) -> None:
        self.claims = self.informer(PersistentVolumeClaim)
        self.claims.add_index("volume", lambda claim: [claim_spec(claim).volume_name or ""])
        self.claims.add_index("waiting for class", _waits_for)
        self.volumes = self.informer(PersistentVolume)
        self.volumes.add_index("claim", _claim_of)
        self.classes = self.informer(StorageClass)
        self.pods = self.informer(Pod)
        self.pods.add_index("claim", claims_of)
        self.on(self.claims, self._about_claim)
        self.on(self.volumes, self._about_volume)
        self.on(self.classes, self._about_class)

    def _about_claim(self, claim: PersistentVolumeClaim) -> Iterable[str]:
        key = key_of(claim)
        yield CLAIM + key
        named = claim_spec(claim).volume_name
        if named:
            yield VOLUME + named
        for volume in self.volumes.by_index("claim", key):
            yield VOLUME + (volume.metadata.name or "")

    def _about_volume(self, volume: PersistentVolume) -> Iterable[str]:
        name = volume.metadata.name or ""
        yield VOLUME + name
        for claim in _claim_of(volume):
            yield CLAIM + claim
        waiting = self.claims.by_index("waiting for class", volume_class(volume)) if not _claim_of(volume) else []
        for each in (*self.claims.by_index("volume", name), *waiting):
            yield CLAIM + key_of(each)

    def _about_class(self, storage_class: StorageClass) -> Iterable[str]:
        for name in {storage_class.metadata.name or "", ""}:
            for claim in self.claims.by_index("waiting for class", name):
                yield CLAIM + key_of(claim)

    async def reconcile(self, key: str) -> float | None:
        if key.startswith(CLAIM):
            claim = self.claims.get(key.removeprefix(CLAIM))
            if claim is not None and BIND_COMPLETED in claim.metadata.annotations:
                await self._keep(claim)
            elif claim is not None and claim.metadata.deletion_timestamp is None:
                await self._find(claim)
                return TOLD_AGAIN_S
        else:
            volume = self.volumes.get(key.removeprefix(VOLUME))
            if volume is not None:
                await self._settle(volume)
        return None

    # -- claims

    async def _find(self, claim: PersistentVolumeClaim) -> None:
        """A volume for a claim that has none for certain."""
        named = claim_spec(claim).volume_name
        if not named:
            delayed = SELECTED_NODE not in claim.metadata.annotations and self._is_delayed(claim)
            volume = best_for(claim, self.volumes.all(), only_kept=delayed)
            if volume is not None:
                await self._bind(volume, claim)
            elif not await self._take_default_class(claim):
                await self._wait(claim, delayed=delayed)
            return
        volume = self.volumes.get(named)
        reference = volume_spec(volume).claim_ref if volume else None
        if volume is None:
            await self._phase(claim, "Pending", None)
        elif reference is None and (why := mismatch(volume, claim)):
            self.events.warning(claim, "VolumeMismatch", f'Cannot bind to requested volume "{named}": {why}')
            await self._phase(claim, "Pending", None)
        elif reference is None or is_kept_for(volume, claim):
            await self._bind(volume, claim)
        else:
            if BOUND_BY_CONTROLLER not in claim.metadata.annotations:
                about = f'volume "{named}" already bound to a different claim.'
                self.events.warning(claim, "FailedBinding", about)
            await self._phase(claim, "Pending", None)

    async def _keep(self, claim: PersistentVolumeClaim) -> None:
        """A claim that was bound completely: is its volume still its own?"""
        named = claim_spec(claim).volume_name
        volume = self.volumes.get(named) if named else None
        reference = volume_spec(volume).claim_ref if volume else None
        if not named:
            about = "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!"
            await self._lose(claim, "ClaimLost", about)
        elif volume is None:
            if not await self._is_gone(PersistentVolume, named):
                return  # The cache is behind; its next change wakes the claim.
            about = "Bound claim has lost its PersistentVolume. Data on the volume is lost!"
            await self._lose(claim, "ClaimLost", about)
        elif (
            reference is None
            or reference.uid == claim.metadata.uid
            or (not reference.uid and is_kept_for(volume, claim))
        ):
            await self._bind(volume, claim)
        else:
            about = "Two claims are bound to the same volume, this one is bound incorrectly"
            await self._lose(claim, "ClaimMisbound", about)

    async def _wait(self, claim: PersistentVolumeClaim, *, delayed: bool) -> None:
        """There is no volume for it: say what it waits for."""
        name = claim_class(claim)
        storage_class = self.classes.get(name) if name else None
        provisioner = storage_class.provisioner if storage_class else ""
        if delayed:
            self.events.normal(claim, *waiting_for(self.pods.by_index("claim", key_of(claim))))
        elif not name:
            about = "no persistent volumes available for this claim and no storage class is set"
            self.events.normal(claim, "FailedBinding", about)
        elif storage_class is None:
            self.events.warning(claim, "ProvisioningFailed", f'storageclass.storage.k8s.io "{name}" not found')
        elif provisioner.startswith(IN_TREE):
            self.events.warning(claim, "ProvisioningFailed", f"no volume plugin matched name: {provisioner}")
        else:
            annotations = claim.metadata.annotations | dict.fromkeys(PROVISIONERS, provisioner)
            if annotations != claim.metadata.annotations:
                claim = replace(claim, metadata=replace(claim.metadata, annotations=annotations))
                claim = await self.client.update(claim)
            self.events.normal(claim, "ExternalProvisioning", EXTERNAL.format(provisioner))
        await self._phase(claim, "Pending", None)

    def _is_delayed(self, claim: PersistentVolumeClaim) -> bool:
        """It is to wait for its first pod."""
        storage_class = self.classes.get(claim_class(claim))
        return storage_class is not None and storage_class.volume_binding_mode == "WaitForFirstConsumer"

    async def _take_default_class(self, claim: PersistentVolumeClaim) -> bool:
        """A claim that named no class when there was no default one takes that which came since (KEP-3333)."""
        spec = claim_spec(claim)
        if spec.storage_class_name is not None or CLASS_ANNOTATION in claim.metadata.annotations:
            return False
        classes = sorted(self.classes.all(), key=lambda each: each.metadata.name or "")
        name = default_class(classes, *DEFAULT_CLASS)
        if name is None:
            return False
        await self.client.update(replace(claim, spec=replace(spec, storage_class_name=name)))
        return True

    async def _bind(self, volume: PersistentVolume, claim: PersistentVolumeClaim) -> None:
        """Write on both sides what isn't there yet: the volume's, then the claim's."""
        kept = kept_for(volume, claim)
        if kept is not volume:
            volume = await self.client.update(kept)
        volume = await self._volume_phase(volume, "Bound")
        bound = bound_to(claim, volume)
        if bound is not claim:
            claim = await self.client.update(bound)
        await self._phase(claim, "Bound", volume)

    async def _lose(self, claim: PersistentVolumeClaim, reason: str, message: str) -> None:
        if await self._phase(claim, "Lost", None):
            self.events.warning(claim, reason, message)

    async def _phase(self, claim: PersistentVolumeClaim, phase: str, volume: PersistentVolume | None) -> bool:
        status = claim_status(claim, phase, volume)
        if status == claim.status:
            return False
        await self.client.update_status(replace(claim, status=status))
        return True

    # -- volumes

    async def _settle(self, volume: PersistentVolume) -> None:
        reference = volume_spec(volume).claim_ref
        if reference is None or not reference.uid:
            await self._volume_phase(volume, "Available")
            return
        claim = self.claims.get(f"{reference.namespace}/{reference.name}")
        if claim is None or claim.metadata.uid != reference.uid:
            if await self._is_gone(PersistentVolumeClaim, reference.name, reference.namespace, reference.uid):
                await self._reclaim(volume)
            return
        bound = claim_spec(claim).volume_name
        if not bound:
            if not has_mode_of(volume, claim):
                self._say_modes_differ(volume, claim)
        elif bound == volume.metadata.name:
            await self._volume_phase(volume, "Bound")
        elif PROVISIONED_BY in volume.metadata.annotations and _policy(volume) == "Delete":
            await self._reclaim(volume)
        else:
            await self._let_go(volume)

    def _say_modes_differ(self, volume: PersistentVolume, claim: PersistentVolumeClaim) -> None:
        of_volume, of_claim = volume.metadata.name, claim.metadata.name
        self.events.warning(
            volume,
            "VolumeMismatch",
            f'Cannot bind PersistentVolume to requested PersistentVolumeClaim "{of_claim}" due to incompatible '
            "volumeMode.",
        )
        self.events.warning(
            claim,
            "VolumeMismatch",
            f'Cannot bind PersistentVolume "{of_volume}" to requested PersistentVolumeClaim "{of_claim}" due to '
            "incompatible volumeMode.",
        )

    async def _reclaim(self, volume: PersistentVolume) -> None:
        """The claim is gone."""
        phase = volume.status.phase if volume.status else None
        if phase not in ("Released", "Failed"):
            volume = await self._volume_phase(volume, "Released")
        failure = reclaim_failure(volume)
        if failure is not None:
            reason, message = failure
            if not (volume.status and (volume.status.phase, volume.status.message) == ("Failed", message)):
                await self._volume_phase(volume, "Failed", message)
                self.events.warning(volume, reason, message)

    async def _let_go(self, volume: PersistentVolume) -> None:
        """Its claim is bound to another volume; what a user wrote into this one stays."""
        spec, annotations = volume_spec(volume), dict(volume.metadata.annotations)
        reference = spec.claim_ref
        assert reference
        by_controller = annotations.pop(BOUND_BY_CONTROLLER, None) is not None
        spec = replace(spec, claim_ref=None if by_controller else replace(reference, uid=None))
        metadata = replace(volume.metadata, annotations=annotations)
        volume = await self.client.update(replace(volume, metadata=metadata, spec=spec))
        await self._volume_phase(volume, "Available")

    async def _volume_phase(self, volume: PersistentVolume, phase: str, message: str | None = None) -> PersistentVolume:
        before = volume.status or PersistentVolumeStatus()
        if (before.phase, before.message) == (phase, message):
            return volume
        since = before.last_phase_transition_time if before.phase == phase else utc(self.clock.time_s())
        status = PersistentVolumeStatus(phase=phase, message=message, last_phase_transition_time=since)
        return await self.client.update_status(replace(volume, status=status))

    async def _is_gone(self, kind: type[Any], name: str | None, namespace: str | None = None, uid: str = "") -> bool:
        """Asked of the server: a cache may be behind, and what follows can't be undone."""
        try:
            found = await self.client.get(kind, name or "", namespace)
        except NotFound:
            return True
        return bool(uid) and found.metadata.uid != uid


def waiting_for(pods: Iterable[Pod]) -> tuple[str, str]:
    """Reason and message for a claim whose first pod decides where its volume is to be."""
    names = [pod.metadata.name or "" for pod in pods if pod.spec and not pod.spec.node_name and not is_terminal(pod)]
    if not names:
        return "WaitForFirstConsumer", "waiting for first consumer to be created before binding"
    pods_named = f"pod {names[0]}" if len(names) == 1 else f"pods {','.join(names)}"
    return "WaitForPodScheduled", f"waiting for {pods_named} to be scheduled"


def bound_to(claim: PersistentVolumeClaim, volume: PersistentVolume) -> PersistentVolumeClaim:
    """The claim, naming its volume; the same object when it does already."""
    spec, annotations = claim_spec(claim), dict(claim.metadata.annotations)
    if spec.volume_name != volume.metadata.name:
        annotations[BOUND_BY_CONTROLLER] = "yes"
        spec = replace(spec, volume_name=volume.metadata.name)
    annotations.setdefault(BIND_COMPLETED, "yes")
    if spec is claim.spec and annotations == claim.metadata.annotations:
        return claim
    return replace(claim, metadata=replace(claim.metadata, annotations=annotations), spec=spec)


def claim_status(
    claim: PersistentVolumeClaim, phase: str, volume: PersistentVolume | None
) -> PersistentVolumeClaimStatus:
    """What a claim says of itself. A volume that grew later is not the binder's to tell."""
    before = claim.status or PersistentVolumeClaimStatus()
    if volume is None:
        return replace(before, phase=phase, access_modes=[], capacity={})
    spec = volume_spec(volume)
    size = dict(spec.capacity) if before.phase != phase else before.capacity
    return replace(
        before,
        phase=phase,
        access_modes=list(spec.access_modes),
        capacity=size,
        current_volume_attributes_class_name=spec.volume_attributes_class_name
        if before.phase != phase
        else before.current_volume_attributes_class_name,
    )


def reclaim_failure(volume: PersistentVolume) -> tuple[str, str] | None:
    """Reason and message why a volume can't be reclaimed as it says; None when there is nothing (more) to do."""
    spec, policy = volume_spec(volume), _policy(volume)
    if policy == "Recycle":
        return "VolumeFailedRecycle", "No recycler plugin found for the volume!"
    if policy != "Delete":
        return None
    provisioner = volume.metadata.annotations.get(PROVISIONED_BY)
    if provisioner and not provisioner.startswith(IN_TREE):
        return None  # who made it removes it
    if spec.host_path and not spec.host_path.path.startswith("/tmp/"):
        about = f"host_path deleter only supports /tmp/.+ but received provided {spec.host_path.path}"
        return "VolumeFailedDelete", about
    about = (
        f'error getting deleter volume plugin for volume "{volume.metadata.name}": no deletable volume plugin matched'
    )
    return "VolumeFailedDelete", about


def _policy(volume: PersistentVolume) -> str:
    return volume_spec(volume).persistent_volume_reclaim_policy or "Retain"


def _claim_of(volume: PersistentVolume) -> list[str]:
    reference = volume_spec(volume).claim_ref
    return [f"{reference.namespace}/{reference.name}"] if reference else []


def _waits_for(claim: PersistentVolumeClaim) -> list[str]:
    """The class of a claim that has no volume."""
    return [] if claim_spec(claim).volume_name else [claim_class(claim)]
