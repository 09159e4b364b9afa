"""The types of the API group scheduling, v1; knarr.api.types tells how to read a field."""

from __future__ import annotations

from knarr.api.meta.v1 import ObjectMeta
from knarr.api.types import Int32, Struct, always


class PriorityClass(Struct):
    api_version: str = always("scheduling.k8s.io/v1")
    kind: str = always("PriorityClass")
    metadata: ObjectMeta = always(ObjectMeta)
    description: str | None = None
    global_default: bool | None = None
    preemption_policy: str | None = None
    value: Int32 | None = None
