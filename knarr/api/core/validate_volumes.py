"""What a pod's volumes may not say (upstream's ValidateVolumes)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from knarr.api import names
from knarr.api.core.v1 import (
    DownwardAPIVolumeFile,
    EmptyDirVolumeSource,
    HostPathVolumeSource,
    KeyToPath,
    ProjectedVolumeSource,
    Volume,
)
from knarr.api.core.validate_environment import ENV_FIELDS, validate_amount_reference, validate_field_reference
from knarr.api.core.validate_values import validate_descending_path, validate_no_backsteps
from knarr.api.errors import Cause, duplicate, forbidden, invalid, not_supported, required
from knarr.api.faultless import remembered
from knarr.api.quantity import parse_quantity
from knarr.api.types import replace

MODE_MAX = 0o777
MODE_DETAIL = "must be a number between 0 and 0777 (octal), both inclusive"
HOST_PATH_TYPES = (
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
)
FILE_FIELDS = (*ENV_FIELDS[:3], "metadata.annotations", "metadata.labels")
"""Fields of a pod that a file may hold."""
TOKEN_LIFETIME_MIN_S, TOKEN_LIFETIME_MAX_S = 600, 1 << 32

_SOURCES = tuple(
    (field, name)
    for field, name in zip(Volume.__struct_fields__, Volume.__struct_encode_fields__, strict=True)
    if field != "name"
)


def validate_volumes(volumes: Sequence[Volume], path: str, right: set[str]) -> Iterable[Cause]:
    """The names of volumes without a fault are added to `right`: only those can be mounted."""
    for index, volume in enumerate(volumes):
        place = f"{path}[{index}]"
        faults = list(_validate_source(replace(volume, name=""), place))
        if not volume.name:
            faults.append(required(f"{place}.name"))
        else:
            faults += [
                invalid(f"{place}.name", volume.name, fault) for fault in names.dns1123_label_faults(volume.name)
            ]
        if volume.name in right:
            faults.append(duplicate(f"{place}.name", volume.name))
        if not faults:
            right.add(volume.name)
        yield from faults


@remembered
def _validate_source(volume: Volume, path: str) -> Iterable[Cause]:
    """Of a volume without its name: that of the token's is another in each pod."""
    found = False
    for field, name in _SOURCES:
        source = getattr(volume, field)
        if source is None:
            continue
        if found:
            yield forbidden(f"{path}.{name}", "may not specify more than 1 volume type")
            continue
        found = True
        yield from _validate_one(source, name, f"{path}.{name}")
    if not found:
        yield required(path, "must specify a volume type")


def _validate_one(source: Any, name: str, path: str) -> Iterable[Cause]:
    match name:
        case "emptyDir":
            yield from _validate_empty_dir(source, path)
        case "hostPath":
            yield from validate_host_path(source, path)
        case "secret":
            if not source.secret_name:
                yield required(f"{path}.secretName")
            yield from _validate_files(source.default_mode, source.items, path)
        case "configMap":
            if not source.name:
                yield required(f"{path}.name")
            yield from _validate_files(source.default_mode, source.items, path)
        case "downwardAPI":
            yield from _validate_mode(source.default_mode, f"{path}.defaultMode")
            yield from _validate_downward_files(source.items, path)
        case "projected":
            yield from _validate_projected(source, path)
        case "persistentVolumeClaim":
            if not source.claim_name:
                yield required(f"{path}.claimName")
        case "nfs":
            if not source.server:
                yield required(f"{path}.server")
            if not source.path:
                yield required(f"{path}.path")
            elif not source.path.startswith("/"):
                yield invalid(f"{path}.path", source.path, "must be an absolute path")
        case "csi":
            if not source.driver:
                yield required(f"{path}.driver")
        case "ephemeral":
            if source.volume_claim_template is None:
                yield required(f"{path}.volumeClaimTemplate")
        case "image":
            if not source.reference:
                yield required(f"{path}.reference")


def _validate_empty_dir(source: EmptyDirVolumeSource, path: str) -> Iterable[Cause]:
    if source.size_limit is not None and parse_quantity(source.size_limit) < 0:
        yield forbidden(f"{path}.sizeLimit", "SizeLimit field must be a valid resource quantity")


def validate_host_path(source: HostPathVolumeSource, path: str) -> Iterable[Cause]:
    """A path of the node: named, without steps back, of a known type."""
    if not source.path:
        yield required(f"{path}.path")
        return
    yield from validate_no_backsteps(source.path, f"{path}.path")
    if source.type is not None and source.type not in HOST_PATH_TYPES:
        yield not_supported(f"{path}.type", source.type, HOST_PATH_TYPES)


def _validate_files(default_mode: int | None, items: Sequence[KeyToPath], path: str) -> Iterable[Cause]:
    yield from _validate_mode(default_mode, f"{path}.defaultMode")
    for index, item in enumerate(items):
        yield from _validate_item(item, f"{path}.items[{index}]")


def _validate_item(item: KeyToPath, path: str) -> Iterable[Cause]:
    if not item.key:
        yield required(f"{path}.key")
    if not item.path:
        yield required(f"{path}.path")
    yield from _validate_file_path(item.path, f"{path}.path")
    yield from _validate_mode(item.mode, f"{path}.mode")


def _validate_file_path(value: str, path: str) -> Iterable[Cause]:
    """Names that begin with two dots belong to the atomic writer of volumes."""
    yield from validate_descending_path(value, path)
    if value.startswith("..") and not value.startswith("../"):
        yield invalid(path, value, "must not start with '..'")


def _validate_mode(mode: int | None, path: str) -> Iterable[Cause]:
    if mode is not None and not 0 <= mode <= MODE_MAX:
        yield invalid(path, mode, MODE_DETAIL)


def _validate_downward_files(files: Sequence[DownwardAPIVolumeFile], path: str) -> Iterable[Cause]:
    for file in files:
        if not file.path:
            yield required(f"{path}.path")
        yield from _validate_file_path(file.path, f"{path}.path")
        if file.field_ref:
            yield from validate_field_reference(file.field_ref, FILE_FIELDS, f"{path}.fieldRef")
            if file.resource_field_ref:
                yield invalid(path, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously")
        elif file.resource_field_ref:
            yield from validate_amount_reference(file.resource_field_ref, f"{path}.resourceFieldRef", volume=True)
        else:
            yield required(path, "one of fieldRef and resourceFieldRef is required")
        yield from _validate_mode(file.mode, f"{path}.mode")


_PROJECTIONS = (
    ("secret", "secret"),
    ("config_map", "configMap"),
    ("downward_api", "downwardAPI"),
    ("service_account_token", "serviceAccountToken"),
    ("cluster_trust_bundle", "clusterTrustBundle"),
    ("pod_certificate", "podCertificate"),
)


def _validate_projected(projected: ProjectedVolumeSource, path: str) -> Iterable[Cause]:
    yield from _validate_mode(projected.default_mode, f"{path}.defaultMode")
    for index, projection in enumerate(projected.sources):
        place = f"{path}.sources[{index}]"
        found = False
        for field, name in _PROJECTIONS:
            source = getattr(projection, field)
            if source is None:
                continue
            if found:
                yield forbidden(f"{place}.{name}", "may not specify more than 1 volume type")
                continue
            found = True
            yield from _validate_projection(source, name, f"{place}.{name}")
        if not found:
            yield required(place, "one of the projected volume types must be specified")


def _validate_projection(source: Any, name: str, path: str) -> Iterable[Cause]:
    if name in ("secret", "configMap"):
        if not source.name:
            yield required(f"{path}.name")
        yield from _validate_files(None, source.items, path)
    elif name == "downwardAPI":
        yield from _validate_downward_files(source.items, path)
    elif name == "serviceAccountToken":
        lifetime_s = source.expiration_seconds
        if lifetime_s is not None and lifetime_s < TOKEN_LIFETIME_MIN_S:
            yield invalid(f"{path}.expirationSeconds", lifetime_s, "may not specify a duration less than 10 minutes")
        if lifetime_s is not None and lifetime_s > TOKEN_LIFETIME_MAX_S:
            yield invalid(
                f"{path}.expirationSeconds", lifetime_s, "may not specify a duration larger than 2^32 seconds"
            )
        if not source.path:
            yield required(f"{path}.path")
        else:
            yield from _validate_file_path(source.path, f"{path}.path")
