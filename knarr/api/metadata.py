"""The rules of metadata, the same for every kind: what may be set, and what may change."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from knarr.api import names
from knarr.api.errors import Cause, forbidden, invalid, required, too_long
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.resources import Resource

ANNOTATIONS_MAX_BYTES = 256 << 10
"""All keys and values of the annotations of an object."""


def validate_metadata(metadata: ObjectMeta, resource: Resource, path: str = "metadata") -> Iterable[Cause]:
    """Faults of an object's own metadata."""
    if metadata.generate_name:
        base = metadata.generate_name.removesuffix("-") if metadata.generate_name != "-" else metadata.generate_name
        for fault in resource.strategy.name_faults(base):
            yield invalid(f"{path}.generateName", metadata.generate_name, fault)
    if not metadata.name:
        yield required(f"{path}.name", "name or generateName is required")
    else:
        for fault in resource.strategy.name_faults(metadata.name):
            yield invalid(f"{path}.name", metadata.name, fault)
    if resource.namespaced:
        if not metadata.namespace:
            yield required(f"{path}.namespace")
        else:
            for fault in names.dns1123_label_faults(metadata.namespace):
                yield invalid(f"{path}.namespace", metadata.namespace, fault)
    elif metadata.namespace:
        yield forbidden(f"{path}.namespace", "not allowed on this type")
    yield from validate_labels(metadata.labels, f"{path}.labels")
    yield from validate_annotations(metadata.annotations, f"{path}.annotations")
    yield from _validate_owners(metadata, f"{path}.ownerReferences")
    for index, finalizer in enumerate(metadata.finalizers):
        faults = names.label_key_faults(finalizer)
        for fault in faults:
            yield invalid(f"{path}.finalizers[{index}]", finalizer, fault)
        if not faults and "/" not in finalizer and finalizer not in ("foregroundDeletion", "orphan", "kubernetes"):
            detail = "name is neither a standard finalizer name nor is it fully qualified"
            yield invalid(f"{path}.finalizers[{index}]", finalizer, detail)


def validate_labels(labels: dict[str, str], path: str) -> Iterable[Cause]:
    for key, value in labels.items():
        for fault in names.label_key_faults(key):
            yield invalid(path, key, fault)
        for fault in names.label_value_faults(value):
            yield invalid(path, value, fault)


def validate_annotations(annotations: dict[str, str], path: str) -> Iterable[Cause]:
    size = 0
    for key, value in annotations.items():
        for fault in names.label_key_faults(key.lower()):
            yield invalid(path, key, fault)
        size += len(key) + len(value.encode("utf-8", "surrogatepass"))
    if size > ANNOTATIONS_MAX_BYTES:
        yield too_long(path, ANNOTATIONS_MAX_BYTES)


def _validate_owners(metadata: ObjectMeta, path: str) -> Iterable[Cause]:
    controllers: list[str] = []
    for index, owner in enumerate(metadata.owner_references):
        for field, value in (
            ("apiVersion", owner.api_version),
            ("kind", owner.kind),
            ("name", owner.name),
            ("uid", owner.uid),
        ):
            if not value:
                yield invalid(f"{path}[{index}].{field}", value, f"{field} must not be empty")
        if owner.controller:
            controllers.append(f"{owner.kind}/{owner.name}")
    if len(controllers) > 1:
        detail = f"Only one reference can have Controller set to true. Found {' and '.join(controllers[:2])}"
        yield invalid(path, [{"name": owner.name} for owner in metadata.owner_references], detail)


def validate_metadata_update(new: ObjectMeta, old: ObjectMeta, path: str = "metadata") -> Iterable[Cause]:
    """Faults of a change of metadata."""
    if old.deletion_timestamp:
        added = [finalizer for finalizer in new.finalizers if finalizer not in old.finalizers]
        if added:
            detail = f"no new finalizers can be added if the object is being deleted, found new finalizers {added}"
            yield forbidden(f"{path}.finalizers", detail.replace("'", '"'))
    immutable: tuple[tuple[str, Any, Any], ...] = (
        ("name", new.name, old.name),
        ("namespace", new.namespace, old.namespace),
        ("uid", new.uid, old.uid),
        ("creationTimestamp", new.creation_timestamp, old.creation_timestamp),
        ("deletionTimestamp", new.deletion_timestamp, old.deletion_timestamp),
        (
            "deletionGracePeriodSeconds",
            new.deletion_grace_period_seconds,
            old.deletion_grace_period_seconds,
        ),
    )
    for field, value, before in immutable:
        if value != before:
            yield invalid(f"{path}.{field}", str(value) if value is not None else None, "field is immutable")
