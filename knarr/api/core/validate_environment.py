"""What the environment of a container may not hold, and which fields of a pod it may refer to (the downward API)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from knarr.api import names
from knarr.api.core.v1 import EnvFromSource, EnvVar, EnvVarSource, ObjectFieldSelector, ResourceFieldSelector
from knarr.api.core.validate_values import config_key_faults
from knarr.api.errors import Cause, invalid, not_supported, required
from knarr.api.faultless import remembered

ENV_FIELDS = (
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
)
"""Fields of a pod that its environment variables may hold, besides single labels and annotations."""
AMOUNT_FIELDS = tuple(
    f"{kind}.{name}" for kind in ("limits", "requests") for name in ("cpu", "ephemeral-storage", "memory")
)
_ENV_NAME = re.compile(r"[\x20-\x3c\x3e-\x7e]+")
_SUBSCRIPT = re.compile(r"(metadata\.(?:labels|annotations))\['(.*)'\]")


@remembered
def validate_env(variables: Sequence[EnvVar], path: str) -> Iterable[Cause]:
    for index, variable in enumerate(variables):
        place = f"{path}[{index}]"
        if not variable.name:
            yield required(f"{place}.name")
        else:
            yield from _validate_env_name(variable.name, f"{place}.name")
        if variable.value_from:
            yield from _validate_env_source(variable, variable.value_from, f"{place}.valueFrom")


def _validate_env_name(name: str, path: str) -> Iterable[Cause]:
    """KEP-4369: any printable ASCII character but the equals sign."""
    if not _ENV_NAME.fullmatch(name):
        detail = "a valid environment variable name must consist only of printable ASCII characters other than '='"
        yield invalid(path, name, detail)


def _validate_env_source(variable: EnvVar, source: EnvVarSource, path: str) -> Iterable[Cause]:
    given = 0
    if source.field_ref:
        given += 1
        yield from validate_field_reference(source.field_ref, ENV_FIELDS, f"{path}.fieldRef")
    if source.resource_field_ref:
        given += 1
        yield from validate_amount_reference(source.resource_field_ref, f"{path}.resourceFieldRef")
    for field, reference in (("configMapKeyRef", source.config_map_key_ref), ("secretKeyRef", source.secret_key_ref)):
        if reference is None:
            continue
        given += 1
        if not reference.name:
            yield required(f"{path}.{field}.name")
        if not reference.key:
            yield required(f"{path}.{field}.key")
        else:
            for fault in config_key_faults(reference.key):
                yield invalid(f"{path}.{field}.key", reference.key, fault)
    given += source.file_key_ref is not None
    if not given:
        detail = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`"
        yield invalid(path, "", detail)
    elif variable.value:
        yield invalid(path, "", "may not be specified when `value` is not empty")
    elif given > 1:
        yield invalid(path, "", "may not have more than one field specified at a time")


def validate_field_reference(reference: ObjectFieldSelector, allowed: Sequence[str], path: str) -> Iterable[Cause]:
    """A field of the pod itself (the downward API)."""
    if not reference.api_version:
        yield required(f"{path}.apiVersion")
        return
    if not reference.field_path:
        yield required(f"{path}.fieldPath")
        return
    where = reference.field_path
    found = _SUBSCRIPT.fullmatch(where)
    if found:
        key = found.group(2)
        for fault in names.label_key_faults(key if found.group(1) == "metadata.labels" else key.lower()):
            yield invalid(path, key, fault)
    elif where not in allowed:
        if where in ENV_FIELDS or where in ("metadata.labels", "metadata.annotations"):
            yield not_supported(f"{path}.fieldPath", where, allowed)
        else:
            detail = f"error converting fieldPath: field label not supported: {where}"
            yield invalid(f"{path}.fieldPath", where, detail)


def validate_amount_reference(reference: ResourceFieldSelector, path: str, *, volume: bool = False) -> Iterable[Cause]:
    """An amount that one of the pod's containers requests or is limited to."""
    if volume and not reference.container_name:
        yield required(f"{path}.containerName")
    elif not reference.resource:
        yield required(f"{path}.resource")
    elif reference.resource not in AMOUNT_FIELDS and not re.match(r"(limits|requests)\.hugepages-", reference.resource):
        yield not_supported(f"{path}.resource", reference.resource, AMOUNT_FIELDS)


def validate_env_from(sources: Sequence[EnvFromSource], path: str) -> Iterable[Cause]:
    for index, source in enumerate(sources):
        place = f"{path}[{index}]"
        if source.prefix:
            yield from _validate_env_name(source.prefix, f"{place}.prefix")
        for field, reference in (("configMapRef", source.config_map_ref), ("secretRef", source.secret_ref)):
            if reference and not reference.name:
                yield required(f"{place}.{field}.name")
        if source.config_map_ref and source.secret_ref:
            yield invalid(place, "", "may not have more than one field specified at a time")
        elif not source.config_map_ref and not source.secret_ref:
            yield invalid(place, "", "must specify one of: `configMapRef` or `secretRef`")
