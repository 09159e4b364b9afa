"""The types of the API group storage, v1; knarr.api.types tells how to read a field."""

from __future__ import annotations

from typing import Annotated

from knarr.api.core.v1 import PersistentVolumeSpec, TopologySelectorTerm
from knarr.api.meta.v1 import LabelSelector, ObjectMeta
from knarr.api.types import Int32, Int64, Merge, Quantity, Struct, Time, always


class CSIDriverSpec(Struct):
    attach_required: bool | None = None
    fs_group_policy: str | None = None
    node_allocatable_update_period_seconds: Int64 | None = None
    pod_info_on_mount: bool | None = None
    prevent_pod_scheduling_if_missing: bool | None = None
    requires_republish: bool | None = None
    se_linux_mount: bool | None = None
    service_account_token_in_secrets: bool | None = None
    storage_capacity: bool | None = None
    token_requests: list[TokenRequest] = []
    volume_lifecycle_modes: Annotated[list[str], Merge("set")] = []


class CSIDriver(Struct):
    api_version: str = always("storage.k8s.io/v1")
    kind: str = always("CSIDriver")
    metadata: ObjectMeta = always(ObjectMeta)
    spec: CSIDriverSpec = always(CSIDriverSpec)


class CSINodeSpec(Struct):
    drivers: Annotated[list[CSINodeDriver], Merge("map", keys=("name",), patch_key="name", strategy=("merge",))] = (
        always([])
    )


class CSINode(Struct):
    api_version: str = always("storage.k8s.io/v1")
    kind: str = always("CSINode")
    metadata: ObjectMeta = always(ObjectMeta)
    spec: CSINodeSpec = always(CSINodeSpec)


class CSINodeDriver(Struct):
    allocatable: VolumeNodeResources | None = None
    name: str = always("")
    node_id: str = always("", name="nodeID")
    topology_keys: list[str] = []


class CSIStorageCapacity(Struct):
    api_version: str = always("storage.k8s.io/v1")
    kind: str = always("CSIStorageCapacity")
    metadata: ObjectMeta = always(ObjectMeta)
    capacity: Quantity | None = None
    maximum_volume_size: Quantity | None = None
    node_topology: LabelSelector | None = None
    storage_class_name: str = always("")


class StorageClass(Struct):
    api_version: str = always("storage.k8s.io/v1")
    kind: str = always("StorageClass")
    metadata: ObjectMeta = always(ObjectMeta)
    allow_volume_expansion: bool | None = None
    allowed_topologies: list[TopologySelectorTerm] = []
    mount_options: list[str] = []
    parameters: dict[str, str] = {}
    provisioner: str = always("")
    reclaim_policy: str | None = None
    volume_binding_mode: str | None = None


class TokenRequest(Struct):
    audience: str = always("")
    expiration_seconds: Int64 | None = None


class VolumeAttachmentSource(Struct):
    inline_volume_spec: PersistentVolumeSpec | None = None
    persistent_volume_name: str | None = None


class VolumeAttachmentSpec(Struct):
    attacher: str = always("")
    node_name: str = always("")
    source: VolumeAttachmentSource = always(VolumeAttachmentSource)


class VolumeAttachment(Struct):
    api_version: str = always("storage.k8s.io/v1")
    kind: str = always("VolumeAttachment")
    metadata: ObjectMeta = always(ObjectMeta)
    spec: VolumeAttachmentSpec = always(VolumeAttachmentSpec)
    status: VolumeAttachmentStatus | None = None


class VolumeAttachmentStatus(Struct):
    attach_error: VolumeError | None = None
    attached: bool = always(False)
    attachment_metadata: dict[str, str] = {}
    detach_error: VolumeError | None = None


class VolumeAttributesClass(Struct):
    api_version: str = always("storage.k8s.io/v1")
    kind: str = always("VolumeAttributesClass")
    metadata: ObjectMeta = always(ObjectMeta)
    driver_name: str = always("")
    parameters: dict[str, str] = {}


class VolumeError(Struct):
    error_code: Int32 | None = None
    message: str | None = None
    time: Time | None = None


class VolumeNodeResources(Struct):
    count: Int32 | None = None
