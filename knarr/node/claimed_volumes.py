"""The volumes of claims on this node: which folder of the host a pod gets for each.

The claim and its volume are asked for when the pod comes (nodes may read those of their pods, one by one); what they
say does not change while the pod lives. Folders are served, hostPath and local; other kinds are refused by name.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from msgspec import Struct

from knarr.api.core.persistent_volumes import SOURCES
from knarr.api.core.v1 import (
    HostPathVolumeSource,
    PersistentVolume,
    PersistentVolumeClaim,
    PersistentVolumeSpec,
    Pod,
    Volume,
)
from knarr.api.core.volume_matching import is_made_for, not_made_for, volume_spec
from knarr.api.errors import APIError
from knarr.api.types import json_name
from knarr.client.client import Client
from knarr.node.ephemeral import all_containers
from knarr.node.volume_failure import VolumeFailure

FOLDER_BITS = 0o2770
FILE_BITS = 0o660
"""What the pod's group may do with what is its own (upstream's SetVolumeOwnership)."""


class Claimed(Struct, frozen=True):
    """What a pod's volume is on this host."""

    path: str
    read_only: bool
    host_path: HostPathVolumeSource | None
    """None: a local volume, which the pod's group may own."""


class ClaimedVolumes:
    """Looks up claims, once a pod."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._known: dict[tuple[str, str], Claimed] = {}

    async def of(self, pod: Pod, volume: Volume) -> Claimed:
        """Raises VolumeFailure."""
        uid = pod.metadata.uid or ""
        found = self._known.get((uid, volume.name))
        if found is None:
            found = self._known[uid, volume.name] = await self._look_up(pod, volume)
        return found

    def forget(self, uid: str) -> None:
        """The pod is gone."""
        for key in [key for key in self._known if key[0] == uid]:
            del self._known[key]

    async def _look_up(self, pod: Pod, volume: Volume) -> Claimed:
        source, namespace = volume.persistent_volume_claim, pod.metadata.namespace
        name = source.claim_name if source else f"{pod.metadata.name}-{volume.name}"
        try:
            claim = await self._client.get(PersistentVolumeClaim, name, namespace)
        except APIError as error:
            about = f"failed to fetch PVC from API server: {error}"
            raise _unprocessed(volume, f"{namespace}/{name}", about) from error
        why = _unusable(pod, claim, made_for_pod=source is None)
        if why:
            raise _unprocessed(volume, f"{namespace}/{name}", why)
        bound = (claim.spec.volume_name if claim.spec else None) or ""
        try:
            found = await self._client.get(PersistentVolume, bound)
        except APIError as error:
            about = f'failed to fetch PV "{bound}" from API server: {error}'
            raise _unprocessed(volume, f"{namespace}/{name}", about) from error
        reference = volume_spec(found).claim_ref
        if reference is None or reference.uid != claim.metadata.uid:
            raise _unprocessed(volume, f"{namespace}/{name}", f'PV "{bound}" is not bound to the PVC')
        return claimed(pod, volume, found)


def claimed(pod: Pod, volume: Volume, found: PersistentVolume) -> Claimed:
    """How a PersistentVolume is had on this host. Raises VolumeFailure."""
    spec, name = volume_spec(found), found.metadata.name or ""
    if spec.volume_mode == "Block":
        about = f'MapVolume.SetUp failed for volume "{name}" : volumes of mode "Block" are not served by this node'
        raise VolumeFailure(name, about, event=about)
    containers = all_containers(pod.spec) if pod.spec else []
    if any(device.name == volume.name for container in containers for device in container.volume_devices):
        about = f"volume {volume.name} has volumeMode Filesystem, but is specified in volumeDevices"
        raise _unprocessed(volume, "", about)
    asked = volume.persistent_volume_claim
    read_only = bool(asked and asked.read_only)
    if spec.host_path is not None:
        return Claimed(spec.host_path.path, read_only, spec.host_path)
    if spec.local is None:
        kind = next((each for each in SOURCES if getattr(spec, each) is not None), "")
        shown = json_name(PersistentVolumeSpec, kind) if kind else "unknown"
        raise VolumeFailure(name, f'volumes of kind "{shown}" are not served by this node')
    if not os.path.isdir(spec.local.path):
        why = "is not a folder" if os.path.exists(spec.local.path) else "does not exist"
        about = f'path "{spec.local.path}" {why}'
        event = f'MountVolume.NewMounter initialization failed for volume "{name}" : {about}'
        raise VolumeFailure(name, about, event=event)
    return Claimed(spec.local.path, read_only, None)


def _unusable(pod: Pod, claim: PersistentVolumeClaim, *, made_for_pod: bool) -> str:
    if made_for_pod and not is_made_for(claim, pod):
        return not_made_for(claim, pod)
    if claim.metadata.deletion_timestamp is not None:
        return "PVC is being deleted"
    phase = claim.status.phase if claim.status else None
    return "" if phase == "Bound" and claim.spec and claim.spec.volume_name else "PVC is not bound"


def _unprocessed(volume: Volume, claim: str, why: str) -> VolumeFailure:
    """The claim isn't ready for the pod; that may come at any time."""
    text = f"error processing PVC {claim}: {why}" if claim else why
    about = f"unmounted volumes=[{volume.name}], unattached volumes=[], failed to process volumes=[{volume.name}]"
    event = f"Unable to attach or mount volumes: {about}: {text}"
    return VolumeFailure(volume.name, text, event=event, waits=True)


def give_to_group(path: str, group: int, policy: str | None) -> None:
    """Let the pod's group own a volume with all that is in it; links are not followed. Meant for a thread."""
    root = os.stat(path)
    if policy == "OnRootMismatch" and root.st_gid == group and root.st_mode & FOLDER_BITS == FOLDER_BITS:
        return
    for folder, folders, files in os.walk(path, topdown=False):
        for name in (*files, *folders):
            with suppress(FileNotFoundError):
                _give(os.path.join(folder, name), group)
    _give(path, group)  # Last, so that an attempt that was cut off is seen to be.


def _give(path: str, group: int) -> None:
    before = os.lstat(path)
    os.chown(path, -1, group, follow_symlinks=False)
    if stat.S_ISDIR(before.st_mode):
        os.chmod(path, stat.S_IMODE(before.st_mode) | FOLDER_BITS)
    elif stat.S_ISREG(before.st_mode):
        os.chmod(path, stat.S_IMODE(before.st_mode) | FILE_BITS)
