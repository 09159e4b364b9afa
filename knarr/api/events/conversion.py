"""events.k8s.io/v1: the same events as those of the core group, under newer names and stricter rules (KEP-383).

Kept are the core group's. What is written by this version must say when, by whom and what for (`eventTime`,
`reportingController`, `action`), leaves the deprecated fields alone, and never changes but for its series.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from knarr.api.core import events, v1
from knarr.api.errors import Cause, invalid, required
from knarr.api.events.v1 import Event, EventSeries
from knarr.api.resources import Column, Strategy

CORE = events.EventStrategy()
TYPES = ("Normal", "Warning")
FIELDS = {
    "reason": "reason",
    "regarding.kind": "involvedObject.kind",
    "regarding.namespace": "involvedObject.namespace",
    "regarding.name": "involvedObject.name",
    "regarding.uid": "involvedObject.uid",
    "regarding.apiVersion": "involvedObject.apiVersion",
    "regarding.resourceVersion": "involvedObject.resourceVersion",
    "regarding.fieldPath": "involvedObject.fieldPath",
    "reportingController": "reportingComponent",
    "type": "type",
}
"""What a field selector may name → what the core group calls it."""
IMMUTABLE = (
    ("involvedObject", "involved_object"),
    ("reason", "reason"),
    ("message", "message"),
    ("source", "source"),
    ("firstTimestamp", "first_timestamp"),
    ("lastTimestamp", "last_timestamp"),
    ("count", "count"),
    ("reason", "reason"),
    ("type", "type"),
    ("eventTime", "event_time"),
    ("action", "action"),
    ("related", "related"),
    ("reportingController", "reporting_component"),
    ("reportingInstance", "reporting_instance"),
)
"""The field as it is named in a fault, and in the type. The reason is looked at twice, as upstream does."""


def to_core(event: Event) -> v1.Event:
    series = event.series
    return v1.Event(
        metadata=event.metadata,
        action=event.action,
        count=event.deprecated_count,
        event_time=event.event_time,
        first_timestamp=event.deprecated_first_timestamp,
        involved_object=event.regarding or v1.ObjectReference(),
        last_timestamp=event.deprecated_last_timestamp,
        message=event.note,
        reason=event.reason,
        related=event.related,
        reporting_component=event.reporting_controller,
        reporting_instance=event.reporting_instance,
        series=v1.EventSeries(count=series.count, last_observed_time=series.last_observed_time) if series else None,
        source=event.deprecated_source,
        type=event.type,
    )


def from_core(event: v1.Event) -> Event:
    series = event.series
    return Event(
        metadata=event.metadata,
        action=event.action or None,
        deprecated_count=event.count or None,
        deprecated_first_timestamp=event.first_timestamp,
        deprecated_last_timestamp=event.last_timestamp,
        deprecated_source=event.source or v1.EventSource(),
        event_time=event.event_time,
        note=event.message or None,
        reason=event.reason or None,
        regarding=event.involved_object,
        related=event.related,
        reporting_controller=event.reporting_component or None,
        reporting_instance=event.reporting_instance or None,
        series=EventSeries(count=series.count or 0, last_observed_time=series.last_observed_time) if series else None,
        type=event.type or None,
    )


class EventRules(Strategy[Event]):
    """The faults name the fields as the core group does, and as upstream does."""

    field_names = tuple(FIELDS)

    def validate_create(self, obj: Event) -> Iterable[Cause]:
        event = to_core(obj)
        yield from CORE.validate(event)
        yield from _validate_series(event)
        if event.event_time is None:
            yield required("eventTime")
        if event.type not in TYPES:
            yield invalid("type", "", f"has invalid value: {event.type or ''}")
        source = event.source or v1.EventSource()
        for field, value in (
            ("firstTimestamp", event.first_timestamp),
            ("lastTimestamp", event.last_timestamp),
            ("count", event.count),
            ("source", source.component or source.host),
        ):
            if value:
                yield invalid(field, "", "needs to be unset")

    def validate_update(self, obj: Event, old: Event) -> Iterable[Cause]:
        event, before = to_core(obj), to_core(old)
        CORE.default(event)
        CORE.default(before)
        yield from CORE.validate(event)
        if event.series != before.series:
            yield from _validate_series(event)
        for field, name in IMMUTABLE:
            value = getattr(event, name)
            if (value or None) != (getattr(before, name) or None):
                yield invalid(field, value, "field is immutable")

    def fields(self, obj: Event) -> Mapping[str, str]:
        known = CORE.fields(to_core(obj))
        return {field: known[of] for field, of in FIELDS.items()}


def _validate_series(event: v1.Event) -> Iterable[Cause]:
    series = event.series
    if series is None:
        return
    if (series.count or 0) < 2:
        yield invalid("series.count", "", "should be at least 2")
    if series.last_observed_time is None:
        yield required("series.lastObservedTime")


def _shown(column: Column) -> Column:
    return Column(
        column.name,
        lambda event, now_s: column.cell(to_core(event), now_s),
        column.type,
        column.format,
        column.priority,
        column.description,
    )


COLUMNS = tuple(_shown(column) for column in events.COLUMNS)
