"""The types of the API group events, v1; knarr.api.types tells how to read a field."""

from __future__ import annotations

from knarr.api.core.v1 import EventSource, ObjectReference
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.types import Int32, MicroTime, Struct, Time, always


class Event(Struct):
    api_version: str = always("events.k8s.io/v1")
    kind: str = always("Event")
    metadata: ObjectMeta = always(ObjectMeta)
    action: str | None = None
    deprecated_count: Int32 | None = None
    deprecated_first_timestamp: Time | None = None
    deprecated_last_timestamp: Time | None = None
    deprecated_source: EventSource | None = None
    event_time: MicroTime | None = always(None)
    note: str | None = None
    reason: str | None = None
    regarding: ObjectReference | None = None
    related: ObjectReference | None = None
    reporting_controller: str | None = None
    reporting_instance: str | None = None
    series: EventSeries | None = None
    type: str | None = None


class EventSeries(Struct):
    count: Int32 = always(0)
    last_observed_time: MicroTime | None = always(None)
