"""The kinds of the group storage.k8s.io, as they are served."""

from __future__ import annotations

from knarr.api.resources import served
from knarr.api.storage import attachments, classes, v1

RESOURCES = (
    served(
        v1.CSIDriver,
        "csidrivers",
        namespaced=False,
        strategy=classes.CSIDriverRules(),
        columns=classes.CSI_DRIVER_COLUMNS,
    ),
    served(
        v1.CSINode,
        "csinodes",
        namespaced=False,
        strategy=classes.CSINodeRules(),
        columns=classes.CSI_NODE_COLUMNS,
    ),
    served(
        v1.CSIStorageCapacity,
        "csistoragecapacities",
        strategy=classes.CSIStorageCapacityRules(),
        columns=classes.CAPACITY_COLUMNS,
    ),
    served(
        v1.StorageClass,
        "storageclasses",
        namespaced=False,
        short_names=("sc",),
        strategy=classes.StorageClassRules(),
        columns=classes.STORAGE_CLASS_COLUMNS,
    ),
    served(
        v1.VolumeAttachment,
        "volumeattachments",
        namespaced=False,
        subresources=("status",),
        strategy=attachments.VolumeAttachmentRules(),
        columns=attachments.COLUMNS,
    ),
    served(
        v1.VolumeAttributesClass,
        "volumeattributesclasses",
        namespaced=False,
        short_names=("vac",),
        strategy=classes.VolumeAttributesClassRules(),
        columns=classes.ATTRIBUTES_CLASS_COLUMNS,
    ),
)
