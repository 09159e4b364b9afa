"""Event: what is filled in, refused and shown (core/v1; the strict rules of events.k8s.io/v1 build on these)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from knarr.api import names
from knarr.api.core.v1 import Event, EventSource
from knarr.api.errors import Cause, invalid, required
from knarr.api.printing import age
from knarr.api.resources import Column, Strategy

WORD_LENGTH_MAX = 128
"""Of the reason, the action and the reporting instance."""
MESSAGE_LENGTH_MAX = 1024
ABOUT_CLUSTER = ("default", "kube-system")
"""Where events about things without a namespace may stand."""


class EventStrategy(Strategy[Event]):
    name_faults = staticmethod(names.path_segment_faults)
    allow_create_on_update = True
    field_names = (
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    )

    def default(self, obj: Event) -> None:
        obj.source = obj.source or EventSource()
        obj.reporting_component = obj.reporting_component or ""
        obj.reporting_instance = obj.reporting_instance or ""

    def validate(self, obj: Event) -> Iterable[Cause]:
        about, namespace = obj.involved_object.namespace or "", obj.metadata.namespace or ""
        if obj.event_time is None:
            # A client of old: its event stands beside what it is about.
            if namespace not in ((about,) if about else ("", "default")):
                yield invalid("involvedObject.namespace", about, "does not match event.namespace")
            return
        if not about and namespace not in ABOUT_CLUSTER:
            yield invalid("involvedObject.namespace", about, "does not match event.namespace")
        controller = obj.reporting_component or ""
        if not controller:
            yield required("reportingController")
        for fault in names.label_key_faults(controller):
            yield invalid("reportingController", controller, fault)
        for field, word in (
            ("reportingInstance", obj.reporting_instance),
            ("action", obj.action),
            ("reason", obj.reason),
        ):
            if not word:
                yield required(field)
            else:
                yield from _validate_length(word, WORD_LENGTH_MAX, field)
        yield from _validate_length(obj.message or "", MESSAGE_LENGTH_MAX, "message")

    def fields(self, obj: Event) -> Mapping[str, str]:
        about = obj.involved_object
        return {
            "involvedObject.kind": about.kind or "",
            "involvedObject.namespace": about.namespace or "",
            "involvedObject.name": about.name or "",
            "involvedObject.uid": about.uid or "",
            "involvedObject.apiVersion": about.api_version or "",
            "involvedObject.resourceVersion": about.resource_version or "",
            "involvedObject.fieldPath": about.field_path or "",
            "reason": obj.reason or "",
            "reportingComponent": obj.reporting_component or "",
            "source": (obj.source.component if obj.source else None) or obj.reporting_component or "",
            "type": obj.type or "",
        }


def _validate_length(text: str, limit: int, path: str) -> Iterable[Cause]:
    if len(text.encode()) > limit:
        yield invalid(path, "", f"can have at most {limit} characters")


def _moment(written: str | None) -> datetime | None:
    """A MicroTime, read."""
    try:
        return datetime.fromisoformat(written) if written else None
    except ValueError:
        return None


def _first_seen(event: Event, now_s: float) -> str:
    return age(event.first_timestamp or _moment(event.event_time), now_s)


def _last_seen(event: Event, now_s: float) -> str:
    if event.series:
        return age(_moment(event.series.last_observed_time), now_s)
    return age(event.last_timestamp, now_s) if event.last_timestamp else _first_seen(event, now_s)


def _event_object(event: Event, now_s: float) -> str:
    about = event.involved_object
    kind = (about.kind or "").lower()
    return f"{kind}/{about.name}" if about.name else kind


def _source(event: Event, now_s: float) -> str:
    source = event.source or EventSource()
    component = source.component or event.reporting_component
    host = source.host or event.reporting_instance
    return ", ".join(part for part in (component, host) if part)


def _event_count(event: Event, now_s: float) -> int:
    return (event.series.count if event.series else event.count or 1) or 0


COLUMNS = (
    Column("Last Seen", _last_seen),
    Column("Type", lambda event, now_s: event.type),
    Column("Reason", lambda event, now_s: event.reason),
    Column("Object", _event_object),
    Column("Subobject", lambda event, now_s: event.involved_object.field_path or "", priority=1),
    Column("Source", _source, priority=1),
    Column("Message", lambda event, now_s: (event.message or "").strip()),
    Column("First Seen", _first_seen, priority=1),
    Column("Count", _event_count, priority=1),
    Column("Name", lambda event, now_s: event.metadata.name, priority=1),
)
