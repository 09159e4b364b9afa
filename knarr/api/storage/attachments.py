"""VolumeAttachment: a volume that is to be attached to a node (storage/v1)."""

from __future__ import annotations

from collections.abc import Iterable

from knarr.api import names
from knarr.api.errors import Cause, forbidden, invalid, required, too_long
from knarr.api.printing import age
from knarr.api.resources import Column, Strategy
from knarr.api.storage.classes import validate_driver_name
from knarr.api.storage.v1 import VolumeAttachment, VolumeAttachmentStatus

METADATA_MAX_BYTES = 256 << 10
MESSAGE_MAX_BYTES = 1024


class VolumeAttachmentRules(Strategy[VolumeAttachment]):
    allow_unconditional_update = False
    has_status = True
    returns_deleted = True

    def default(self, obj: VolumeAttachment) -> None:
        obj.status = obj.status or VolumeAttachmentStatus()

    def validate(self, obj: VolumeAttachment) -> Iterable[Cause]:
        source, path = obj.spec.source, "spec.source"
        one_of = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
        yield from validate_driver_name(obj.spec.attacher, "spec.attacher")
        if source.inline_volume_spec is None and source.persistent_volume_name is None:
            yield required(path, one_of)
        elif source.inline_volume_spec is not None and source.persistent_volume_name is not None:
            yield forbidden(path, one_of)
        elif source.persistent_volume_name == "":
            yield required(f"{path}.persistentVolumeName", "must specify non empty persistentVolumeName")
        elif source.persistent_volume_name:
            for fault in names.dns1123_subdomain_faults(source.persistent_volume_name):
                yield invalid(f"{path}.persistentVolumeName", source.persistent_volume_name, fault)
        for fault in names.dns1123_subdomain_faults(obj.spec.node_name):
            yield invalid("spec.nodeName", obj.spec.node_name, fault)

    def validate_status_update(self, obj: VolumeAttachment, old: VolumeAttachment) -> Iterable[Cause]:
        status = obj.status or VolumeAttachmentStatus()
        size = sum(len(key) + len(value) for key, value in status.attachment_metadata.items())
        if size > METADATA_MAX_BYTES:
            yield too_long("status.attachmentMetadata", METADATA_MAX_BYTES)
        for field, error in (("attachError", status.attach_error), ("detachError", status.detach_error)):
            if error and len((error.message or "").encode()) > MESSAGE_MAX_BYTES:
                yield too_long(f"status.{field}.message", MESSAGE_MAX_BYTES)

    def validate_update(self, obj: VolumeAttachment, old: VolumeAttachment) -> Iterable[Cause]:
        if obj.spec != old.spec:
            yield invalid("spec", obj.spec, "field is immutable")


COLUMNS = (
    Column("Attacher", lambda obj, now_s: obj.spec.attacher),
    Column("PV", lambda obj, now_s: obj.spec.source.persistent_volume_name or ""),
    Column("Node", lambda obj, now_s: obj.spec.node_name),
    Column("Attached", lambda obj, now_s: bool(obj.status and obj.status.attached), type="boolean"),
    Column("Age", lambda obj, now_s: age(obj.metadata.creation_timestamp, now_s)),
)
