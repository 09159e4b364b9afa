"""The scale subresource: the number of replicas of a workload, in one shape for all (autoscaling/v1 Scale)."""

from __future__ import annotations

from typing import Any

import msgspec

from knarr.api import types
from knarr.api.autoscaling.v1 import Scale, ScaleSpec, ScaleStatus
from knarr.api.errors import BadRequest, Invalid, invalid
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.printing import age
from knarr.api.resources import Column, served
from knarr.api.selectors import selector_of, selector_of_labels

SCALE_VERSION = "autoscaling/v1"
SHOWN = served(
    Scale,
    "scales",
    columns=(
        Column("Desired", lambda obj, now_s: obj.spec.replicas or 0, "integer", description="Replicas asked for"),
        Column("Available", lambda obj, now_s: obj.status.replicas or 0, "integer", description="Replicas there are"),
        Column("Age", lambda obj, now_s: age(obj.metadata.creation_timestamp, now_s), description="How old it is"),
    ),
)
"""How `kubectl get --subresource=scale` shows it."""


def scale_of(obj: Any) -> Scale:
    """The Scale of a workload."""
    metadata = obj.metadata
    chosen = obj.spec.selector
    selector = selector_of_labels(chosen) if isinstance(chosen, dict) else selector_of(chosen)
    return Scale(
        metadata=ObjectMeta(
            name=metadata.name,
            namespace=metadata.namespace,
            uid=metadata.uid,
            resource_version=metadata.resource_version,
            creation_timestamp=metadata.creation_timestamp,
        ),
        spec=ScaleSpec(replicas=obj.spec.replicas or 0),
        status=ScaleStatus(
            replicas=(obj.status.replicas if obj.status else 0) or 0, selector=str(selector) if selector else None
        ),
    )


def with_scale(obj: Any, scale: Scale) -> Any:
    """A changed copy of a workload, with the replicas that a Scale asks for."""
    if scale.metadata.name and scale.metadata.name != obj.metadata.name:
        raise BadRequest(
            f"the name of the object ({scale.metadata.name}) does not match the name on the URL ({obj.metadata.name})"
        )
    replicas = (scale.spec.replicas if scale.spec else None) or 0
    if replicas < 0:
        cause = invalid("spec.replicas", replicas, "must be greater than or equal to 0")
        raise Invalid.of("autoscaling", "Scale", obj.metadata.name, [cause])
    changed = types.copy(obj)
    changed.spec.replicas = replicas
    changed.metadata.resource_version = scale.metadata.resource_version
    return changed


def encoded(value: bytes, kind: type[Any]) -> bytes:
    """The Scale of a stored workload, encoded."""
    return msgspec.json.encode(scale_of(msgspec.json.decode(value, type=kind)))
