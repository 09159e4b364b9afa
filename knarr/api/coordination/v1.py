"""The types of the API group coordination, v1; knarr.api.types tells how to read a field."""

from __future__ import annotations

from knarr.api.meta.v1 import ObjectMeta
from knarr.api.types import Int32, MicroTime, Struct, always


class Lease(Struct):
    api_version: str = always("coordination.k8s.io/v1")
    kind: str = always("Lease")
    metadata: ObjectMeta = always(ObjectMeta)
    spec: LeaseSpec | None = None


class LeaseSpec(Struct):
    acquire_time: MicroTime | None = None
    holder_identity: str | None = None
    lease_duration_seconds: Int32 | None = None
    lease_transitions: Int32 | None = None
    preferred_holder: str | None = None
    renew_time: MicroTime | None = None
    strategy: str | None = None
