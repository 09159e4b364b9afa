"""PersistentVolume: what is filled in, refused and shown (core/v1)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from knarr.api import names
from knarr.api.core.amounts import default_amounts
from knarr.api.core.v1 import (
    PersistentVolume,
    PersistentVolumeSpec,
    PersistentVolumeStatus,
)
from knarr.api.core.validate_podspec import validate_node_selector
from knarr.api.core.validate_values import validate_choice, validate_no_backsteps
from knarr.api.core.validate_volumes import validate_host_path
from knarr.api.errors import Cause, forbidden, invalid, not_supported, required
from knarr.api.printing import UNSET, age
from knarr.api.quantity import parse_quantity
from knarr.api.resources import Column, Strategy
from knarr.api.storage.classes import validate_driver_name
from knarr.api.types import Quantity, Struct, json_name, replace

ACCESS_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
SHORT = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}
RECLAIM_POLICIES = ("Delete", "Recycle", "Retain")
VOLUME_MODES = ("Block", "Filesystem")
SOURCES = (
    *("host_path", "gce_persistent_disk", "aws_elastic_block_store", "glusterfs", "flocker", "nfs", "rbd", "quobyte"),
    *("cephfs", "iscsi", "cinder", "fc", "flex_volume", "azure_file", "vsphere_volume", "photon_persistent_disk"),
    *("portworx_volume", "azure_disk", "scale_io", "local", "storageos", "csi"),
)
"""In the order in which they are looked at: of two, the second is one too many."""
AGE = Column("Age", lambda obj, now_s: age(obj.metadata.creation_timestamp, now_s))


def validate_access(modes: Sequence[str], path: str) -> Iterable[Cause]:
    """What a volume may be used as: ReadWriteOncePod goes with no other."""
    for mode in modes:
        if mode not in ACCESS_MODES:
            yield not_supported(path, mode, ACCESS_MODES)
    if "ReadWriteOncePod" in modes and len(set(modes) & set(ACCESS_MODES)) > 1:
        yield forbidden(path, "may not use ReadWriteOncePod with other access modes")


def validate_storage(amount: Quantity | None, path: str) -> Iterable[Cause]:
    """A size: there, and more than nothing."""
    if amount is None:
        yield required(path)
    elif parse_quantity(amount) <= 0:
        yield invalid(path, str(amount), "must be greater than zero")


def validate_class_name(name: str | None, path: str) -> Iterable[Cause]:
    for fault in names.dns1123_subdomain_faults(name) if name else ():
        yield invalid(path, name, fault)


class PersistentVolumeRules(Strategy[PersistentVolume]):
    has_status = True
    returns_deleted = True

    def default(self, obj: PersistentVolume) -> None:
        spec = obj.spec = obj.spec or PersistentVolumeSpec()
        spec.persistent_volume_reclaim_policy = spec.persistent_volume_reclaim_policy or "Retain"
        spec.volume_mode = spec.volume_mode or "Filesystem"
        default_amounts(spec.capacity)
        if spec.host_path and spec.host_path.type is None:
            spec.host_path.type = ""

    def prepare_for_create(self, obj: PersistentVolume) -> None:
        obj.status = PersistentVolumeStatus(phase="Pending")

    def validate(self, obj: PersistentVolume) -> Iterable[Cause]:
        return _validate_spec(obj.spec or PersistentVolumeSpec())

    def validate_update(self, obj: PersistentVolume, old: PersistentVolume) -> Iterable[Cause]:
        new, before = obj.spec or PersistentVolumeSpec(), old.spec or PersistentVolumeSpec()
        if any(_fixed(new, before, name) != getattr(before, name) for name in SOURCES):
            yield forbidden("spec.persistentvolumesource", "spec.persistentvolumesource is immutable after creation")
        if new.volume_mode != before.volume_mode:
            yield invalid("volumeMode", new.volume_mode, "field is immutable")
        if before.node_affinity is not None and new.node_affinity != before.node_affinity:
            yield invalid("nodeAffinity", new.node_affinity, "field is immutable")
        if before.volume_attributes_class_name is not None and new.volume_attributes_class_name is None:
            yield forbidden("spec.volumeAttributesClassName", "update from non-nil value to nil is forbidden")


def _fixed(new: PersistentVolumeSpec, before: PersistentVolumeSpec, name: str) -> Struct | None:
    """A source without what may still come: the secret that a driver needs to expand the volume."""
    source: Struct | None = getattr(new, name)
    if name == "csi" and new.csi and before.csi and before.csi.controller_expand_secret_ref is None:
        return replace(new.csi, controller_expand_secret_ref=None)
    return source


def _validate_spec(spec: PersistentVolumeSpec) -> Iterable[Cause]:
    if not spec.access_modes:
        yield required("spec.accessModes")
    yield from validate_access(spec.access_modes, "spec.accessModes")
    if not spec.capacity:
        yield required("spec.capacity")
    elif set(spec.capacity) != {"storage"}:
        yield not_supported("spec.capacity", spec.capacity, ("storage",))
    else:
        yield from validate_storage(spec.capacity["storage"], "spec.capacity[storage]")
    yield from validate_choice(
        spec.persistent_volume_reclaim_policy, RECLAIM_POLICIES, "spec.persistentVolumeReclaimPolicy"
    )
    if spec.node_affinity:
        if spec.node_affinity.required is None:
            yield required("spec.nodeAffinity.required", "must specify required node constraints")
        else:
            yield from validate_node_selector(spec.node_affinity.required, "spec.nodeAffinity.required")
    yield from _validate_source(spec)
    root = spec.host_path is not None and not spec.host_path.path.strip("/.")
    if root and spec.persistent_volume_reclaim_policy == "Recycle":
        yield forbidden("spec.persistentVolumeReclaimPolicy", "may not be 'recycle' for a hostPath mount of '/'")
    yield from validate_class_name(spec.storage_class_name, "spec.storageClassName")
    yield from validate_choice(spec.volume_mode, VOLUME_MODES, "spec.volumeMode")
    if spec.volume_attributes_class_name is not None:
        if not spec.volume_attributes_class_name:
            yield required("spec.volumeAttributesClassName", "an empty string is disallowed")
        yield from validate_class_name(spec.volume_attributes_class_name, "spec.volumeAttributesClassName")
        if spec.csi is None:
            yield required("spec.csi", "has to be specified when using volumeAttributesClassName")


def _validate_source(spec: PersistentVolumeSpec) -> Iterable[Cause]:
    named = [name for name in SOURCES if getattr(spec, name) is not None]
    if not named:
        yield required("spec", "must specify a volume type")
    for name in named[1:]:
        field = json_name(PersistentVolumeSpec, name)
        yield forbidden(f"spec.{field}", "may not specify more than 1 volume type")
    if spec.host_path:
        yield from validate_host_path(spec.host_path, "spec.hostPath")
    if spec.local:
        if not spec.local.path:
            yield required("spec.local.path")
        yield from validate_no_backsteps(spec.local.path, "spec.local.path")
        if spec.node_affinity is None:
            yield required("spec.nodeAffinity", "Local volume requires node affinity")
    if spec.nfs:
        if not spec.nfs.server:
            yield required("spec.nfs.server")
        if not spec.nfs.path:
            yield required("spec.nfs.path")
        elif not spec.nfs.path.startswith("/"):
            yield invalid("spec.nfs.path", spec.nfs.path, "must be an absolute path")
    if spec.csi:
        yield from validate_driver_name(spec.csi.driver, "spec.csi.driver")
        if not spec.csi.volume_handle:
            yield required("spec.csi.volumeHandle")


def access(modes: Sequence[str]) -> str:
    return ",".join(SHORT[mode] for mode in SHORT if mode in modes)


def _volume_status(obj: PersistentVolume) -> str:
    return "Terminating" if obj.metadata.deletion_timestamp else (obj.status.phase if obj.status else None) or ""


def _claim(obj: PersistentVolume) -> str:
    claim = obj.spec.claim_ref if obj.spec else None
    return f"{claim.namespace}/{claim.name}" if claim else ""


VOLUME_COLUMNS = (
    Column("Capacity", lambda obj, now_s: str(obj.spec.capacity.get("storage", "")) if obj.spec else ""),
    Column("Access Modes", lambda obj, now_s: access(obj.spec.access_modes) if obj.spec else ""),
    Column("Reclaim Policy", lambda obj, now_s: (obj.spec.persistent_volume_reclaim_policy if obj.spec else "") or ""),
    Column("Status", lambda obj, now_s: _volume_status(obj)),
    Column("Claim", lambda obj, now_s: _claim(obj)),
    Column("StorageClass", lambda obj, now_s: (obj.spec.storage_class_name if obj.spec else "") or ""),
    Column(
        "VolumeAttributesClass",
        lambda obj, now_s: (obj.spec.volume_attributes_class_name if obj.spec else None) or UNSET,
    ),
    Column("Reason", lambda obj, now_s: (obj.status.reason if obj.status else None) or ""),
    AGE,
    Column("VolumeMode", lambda obj, now_s: (obj.spec.volume_mode if obj.spec else None) or UNSET, priority=1),
)
