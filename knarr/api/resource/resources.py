"""The kinds of the group resource.k8s.io, as they are served."""

from __future__ import annotations

from knarr.api.resource import claims, slices, v1
from knarr.api.resources import served

RESOURCES = (
    served(
        v1.DeviceClass,
        "deviceclasses",
        namespaced=False,
        strategy=claims.DeviceClassRules(),
        columns=claims.CLASS_COLUMNS,
    ),
    served(
        v1.ResourceClaim,
        "resourceclaims",
        subresources=("status",),
        strategy=claims.ResourceClaimRules(),
        columns=claims.CLAIM_COLUMNS,
    ),
    served(
        v1.ResourceClaimTemplate,
        "resourceclaimtemplates",
        strategy=claims.ResourceClaimTemplateRules(),
        columns=claims.TEMPLATE_COLUMNS,
    ),
    served(
        v1.ResourceSlice,
        "resourceslices",
        namespaced=False,
        strategy=slices.ResourceSliceRules(),
        columns=slices.SLICE_COLUMNS,
    ),
)
