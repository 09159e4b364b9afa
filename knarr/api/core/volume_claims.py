"""PersistentVolumeClaim: what is filled in, refused and shown (core/v1)."""

from __future__ import annotations

from collections.abc import Iterable

from knarr.api import names
from knarr.api.core.amounts import default_requirements
from knarr.api.core.persistent_volumes import (
    AGE,
    VOLUME_MODES,
    access,
    validate_access,
    validate_class_name,
    validate_storage,
)
from knarr.api.core.v1 import (
    PersistentVolumeClaim,
    PersistentVolumeClaimSpec,
    PersistentVolumeClaimStatus,
    TypedLocalObjectReference,
    TypedObjectReference,
)
from knarr.api.core.validate_values import validate_choice, validate_selector
from knarr.api.errors import Cause, forbidden, invalid, required
from knarr.api.printing import UNSET
from knarr.api.quantity import parse_quantity
from knarr.api.resources import Column, Strategy
from knarr.api.types import Quantity, replace

CLAIM_FIXED = (
    "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
)
CLASS_ANNOTATION = "volume.beta.kubernetes.io/storage-class"
CLONED = (
    (None, "PersistentVolumeClaim"),
    ("", "PersistentVolumeClaim"),
    ("snapshot.storage.k8s.io", "VolumeSnapshot"),
)
"""Group and kind of what `dataSource` may name."""


class PersistentVolumeClaimRules(Strategy[PersistentVolumeClaim]):
    has_status = True
    returns_deleted = True

    def default(self, obj: PersistentVolumeClaim) -> None:
        spec = obj.spec = obj.spec or PersistentVolumeClaimSpec()
        spec.volume_mode = spec.volume_mode or "Filesystem"
        if spec.resources:
            default_requirements(spec.resources)

    def prepare_for_create(self, obj: PersistentVolumeClaim) -> None:
        obj.status = PersistentVolumeClaimStatus(phase="Pending")
        spec = obj.spec = obj.spec or PersistentVolumeClaimSpec()
        old = spec.data_source
        if old and (old.api_group, old.kind) not in CLONED:
            spec.data_source = old = None  # The older field takes these only, and drops others without a word.
        _mirror_data_source(spec)

    def prepare_for_update(self, obj: PersistentVolumeClaim, old: PersistentVolumeClaim) -> None:
        if obj.spec:
            _mirror_data_source(obj.spec)

    def validate(self, obj: PersistentVolumeClaim) -> Iterable[Cause]:
        spec = obj.spec or PersistentVolumeClaimSpec()
        if not spec.access_modes:
            yield required("spec.accessModes", "at least 1 access mode is required")
        yield from validate_selector(spec.selector, "spec.selector")
        yield from validate_access(spec.access_modes, "spec.accessModes")
        yield from validate_storage(_asked(spec), "spec.resources[storage]")
        yield from validate_class_name(spec.storage_class_name, "spec.storageClassName")
        yield from validate_choice(spec.volume_mode, VOLUME_MODES, "spec.volumeMode")
        yield from _validate_data_sources(spec)
        yield from validate_class_name(spec.volume_attributes_class_name, "spec.volumeAttributesClassName")

    def validate_update(self, obj: PersistentVolumeClaim, old: PersistentVolumeClaim) -> Iterable[Cause]:
        new, before = obj.spec or PersistentVolumeClaimSpec(), old.spec or PersistentVolumeClaimSpec()
        if _may_change(new, before, obj, old) != before:
            yield forbidden("spec", CLAIM_FIXED)
        asked, was = _asked(new), _asked(before)
        if asked is not None and was is not None and parse_quantity(asked) < parse_quantity(was):
            has = old.status.capacity.get("storage") if old.status else None
            if has is not None and parse_quantity(asked) <= parse_quantity(has):
                yield forbidden("spec.resources.requests.storage", "field can not be less than status.capacity")
        if new.volume_mode != before.volume_mode:
            yield invalid("volumeMode", new.volume_mode, "field is immutable")
        if before.volume_attributes_class_name is not None and not new.volume_attributes_class_name:
            to = "nil" if new.volume_attributes_class_name is None else "an empty string"
            yield forbidden("spec.volumeAttributesClassName", f"update from non-nil value to {to} is forbidden")


def _may_change(
    new: PersistentVolumeClaimSpec,
    before: PersistentVolumeClaimSpec,
    obj: PersistentVolumeClaim,
    old: PersistentVolumeClaim,
) -> PersistentVolumeClaimSpec:
    """The new spec, with what may change set back: what is left must be as it was."""
    kept = replace(new, volume_attributes_class_name=before.volume_attributes_class_name)
    if not before.volume_name:
        kept = replace(kept, volume_name=before.volume_name)  # The one who binds says which volume it is.
    if before.storage_class_name is None and new.storage_class_name is not None:
        annotation = old.metadata.annotations.get(CLASS_ANNOTATION)
        if annotation in (None, new.storage_class_name):
            kept = replace(kept, storage_class_name=None)  # A default class may come later.
    if old.status and old.status.phase == "Bound" and kept.resources and (was := _asked(before)) is not None:
        kept = replace(kept, resources=replace(kept.resources, requests={**kept.resources.requests, "storage": was}))
    return kept


def _asked(spec: PersistentVolumeClaimSpec) -> Quantity | None:
    return spec.resources.requests.get("storage") if spec.resources else None


def _mirror_data_source(spec: PersistentVolumeClaimSpec) -> None:
    """`dataSource` and the newer `dataSourceRef` say the same, as far as the older one can say it."""
    old, new = spec.data_source, spec.data_source_ref
    if old and new is None:
        spec.data_source_ref = TypedObjectReference(api_group=old.api_group, kind=old.kind, name=old.name)
    elif new and old is None and not new.namespace:
        spec.data_source = TypedLocalObjectReference(api_group=new.api_group, kind=new.kind, name=new.name)


def _validate_data_sources(spec: PersistentVolumeClaimSpec) -> Iterable[Cause]:
    old, new = spec.data_source, spec.data_source_ref
    for source, path in ((old, "spec.dataSource"), (new, "spec.dataSourceRef")):
        if source is None:
            continue
        for field in ("name", "kind"):
            if not getattr(source, field):
                yield required(f"{path}.{field}")
        if not source.api_group and source.kind != "PersistentVolumeClaim":
            yield invalid(path, source.kind, "must be 'PersistentVolumeClaim' when referencing the default apiGroup")
        for fault in names.dns1123_subdomain_faults(source.api_group) if source.api_group else ():
            yield invalid(f"{path}.apiGroup", source.api_group, fault)
    if new and new.namespace:
        for fault in names.dns1123_label_faults(new.namespace):
            yield invalid("spec.dataSourceRef.namespace", new.namespace, fault)
    if old is None or new is None:
        return
    if new.namespace:
        yield invalid("spec", "spec.dataSource", "may not be specified when dataSourceRef.namespace is specified")
    elif (old.api_group, old.kind, old.name) != (new.api_group, new.kind, new.name):
        yield invalid("spec", "spec.dataSource", "must match dataSourceRef")


def _claim_status(obj: PersistentVolumeClaim) -> str:
    return "Terminating" if obj.metadata.deletion_timestamp else (obj.status.phase if obj.status else None) or ""


def _bound_capacity(obj: PersistentVolumeClaim) -> str:
    if not (obj.spec and obj.spec.volume_name and obj.status):
        return ""
    return str(obj.status.capacity.get("storage", ""))


CLAIM_COLUMNS = (
    Column("Status", lambda obj, now_s: _claim_status(obj)),
    Column("Volume", lambda obj, now_s: (obj.spec.volume_name if obj.spec else None) or ""),
    Column("Capacity", lambda obj, now_s: _bound_capacity(obj)),
    Column(
        "Access Modes",
        lambda obj, now_s: access(obj.status.access_modes) if obj.status and obj.spec and obj.spec.volume_name else "",
    ),
    Column("StorageClass", lambda obj, now_s: (obj.spec.storage_class_name if obj.spec else None) or ""),
    Column(
        "VolumeAttributesClass",
        lambda obj, now_s: (obj.spec.volume_attributes_class_name if obj.spec else None) or UNSET,
    ),
    AGE,
    Column("VolumeMode", lambda obj, now_s: (obj.spec.volume_mode if obj.spec else None) or UNSET, priority=1),
)
