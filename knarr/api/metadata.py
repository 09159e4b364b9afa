"""The rules of metadata, the same for every kind: what may be set, and what may change (ValidateObjectMeta)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from knarr.api import names
from knarr.api.errors import Cause, forbidden, invalid, required, too_long
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.resources import Resource

ANNOTATIONS_MAX_BYTES = 256 << 10
"""All keys and values of the annotations of an object."""
STANDARD_FINALIZERS = ("foregroundDeletion", "kubernetes", "orphan")


def validate_metadata(metadata: ObjectMeta, resource: Resource, path: str = "metadata") -> Iterable[Cause]:
    """Faults of an object's own metadata."""
    name_faults = resource.strategy.name_faults
    if metadata.generate_name:
        for fault in name_faults(_without_last_dash(metadata.generate_name)):
            yield invalid(f"{path}.generateName", metadata.generate_name, fault)
    if not metadata.name:
        yield required(f"{path}.name", "name or generateName is required")
    else:
        for fault in name_faults(metadata.name):
            yield invalid(f"{path}.name", metadata.name, fault)
    if resource.namespaced:
        if not metadata.namespace:
            yield required(f"{path}.namespace")
        else:
            for fault in names.dns1123_label_faults(metadata.namespace):
                yield invalid(f"{path}.namespace", metadata.namespace, fault)
    elif metadata.namespace:
        yield forbidden(f"{path}.namespace", "not allowed on this type")
    if metadata.labels:
        yield from validate_labels(metadata.labels, f"{path}.labels")
    if metadata.annotations:
        yield from validate_annotations(metadata.annotations, f"{path}.annotations")
    if metadata.owner_references:
        yield from _validate_owners(metadata, f"{path}.ownerReferences")
    if metadata.finalizers:
        yield from _validate_finalizers(metadata.finalizers, f"{path}.finalizers")


def _without_last_dash(base: str) -> str:
    """The start of a name may end in a dash: what is put behind it makes it whole."""
    return base[:-2] + "a" if len(base) > 1 and base.endswith("-") else base


def validate_labels(labels: Mapping[str, str], path: str) -> Iterable[Cause]:
    for key, value in labels.items():
        for fault in names.label_key_faults(key):
            yield invalid(path, key, fault)
        for fault in names.label_value_faults(value):
            yield invalid(path, value, fault)


def validate_annotations(annotations: Mapping[str, str], path: str) -> Iterable[Cause]:
    size = 0
    for key, value in annotations.items():
        for fault in names.label_key_faults(key.lower()):
            yield invalid(path, key, fault)
        size += len(key.encode()) + len(value.encode())
    if size > ANNOTATIONS_MAX_BYTES:
        yield too_long(path, ANNOTATIONS_MAX_BYTES)


def _validate_owners(metadata: ObjectMeta, path: str) -> Iterable[Cause]:
    first_controller = ""
    for owner in metadata.owner_references:
        for field, what, value in (
            ("apiVersion", "version", owner.api_version.rpartition("/")[2]),
            ("kind", "kind", owner.kind),
            ("name", "name", owner.name),
            ("uid", "uid", owner.uid),
        ):
            if not value:
                yield invalid(f"{path}.{field}", value, f"{what} must not be empty")
        if (owner.api_version, owner.kind) == ("v1", "Event"):
            yield invalid(path, owner, "/v1, Kind=Event is disallowed from being an owner")
    for owner in metadata.owner_references:
        if not owner.controller:
            continue
        this = f"{owner.kind}/{owner.name}"
        if first_controller:
            detail = (
                'Only one reference can have Controller set to true. Found "true" in references for '
                f"{first_controller} and {this}"
            )
            yield invalid(path, metadata.owner_references, detail)
        else:
            first_controller = this


def _validate_finalizers(finalizers: list[str], path: str) -> Iterable[Cause]:
    for finalizer in finalizers:
        for fault in names.label_key_faults(finalizer):
            yield invalid(path, finalizer, fault)
    if "orphan" in finalizers and "foregroundDeletion" in finalizers:
        detail = "finalizer orphan and foregroundDeletion cannot be both set"
        yield invalid(path, finalizers, detail)
    for index, finalizer in enumerate(finalizers):
        if "/" not in finalizer and finalizer not in STANDARD_FINALIZERS:
            detail = "name is neither a standard finalizer name nor is it fully qualified"
            yield invalid(f"{path}[{index}]", finalizer, detail)


def validate_metadata_update(new: ObjectMeta, old: ObjectMeta, path: str = "metadata") -> Iterable[Cause]:
    """Faults of a change of metadata."""
    if old.deletion_timestamp:
        added = sorted(set(new.finalizers) - set(old.finalizers))
        if added:
            listed = ", ".join(f'"{finalizer}"' for finalizer in added)
            detail = "no new finalizers can be added if the object is being deleted, found new finalizers "
            yield forbidden(f"{path}.finalizers", f"{detail}[]string{{{listed}}}")
    immutable: tuple[tuple[str, Any, Any], ...] = (
        ("name", new.name, old.name),
        ("namespace", new.namespace, old.namespace),
        ("uid", new.uid, old.uid),
        ("creationTimestamp", new.creation_timestamp, old.creation_timestamp),
        ("deletionTimestamp", new.deletion_timestamp, old.deletion_timestamp),
        ("deletionGracePeriodSeconds", new.deletion_grace_period_seconds, old.deletion_grace_period_seconds),
    )
    for field, value, before in immutable:
        if value != before:
            yield invalid(f"{path}.{field}", value, "field is immutable")
