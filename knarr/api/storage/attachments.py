"""VolumeAttachment: a volume that is to be attached to a node (storage/v1)."""

from __future__ import annotations

from collections.abc import Iterable

from knarr.api.errors import Cause, invalid, required
from knarr.api.printing import age
from knarr.api.resources import Column, Strategy
from knarr.api.storage.classes import validate_driver_name
from knarr.api.storage.v1 import VolumeAttachment, VolumeAttachmentStatus


class VolumeAttachmentRules(Strategy[VolumeAttachment]):
    has_status = True
    returns_deleted = True

    def default(self, obj: VolumeAttachment) -> None:
        obj.status = obj.status or VolumeAttachmentStatus()

    def validate(self, obj: VolumeAttachment) -> Iterable[Cause]:
        source = obj.spec.source
        yield from validate_driver_name(obj.spec.attacher, "spec.attacher")
        if not obj.spec.node_name:
            yield required("spec.nodeName")
        if source.inline_volume_spec is None and source.persistent_volume_name is None:
            yield required("spec.source", "must specify exactly one of inlineVolumeSpec and persistentVolumeName")
        elif source.inline_volume_spec is not None and source.persistent_volume_name is not None:
            detail = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
            yield invalid("spec.source", source, detail)

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
