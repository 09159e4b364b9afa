"""events.k8s.io: the events of the core group under stricter rules."""

from __future__ import annotations

from typing import Any

import pytest

from knarr.api.events.conversion import from_core, to_core
from tests.api.made import cells, faults, made, plain, resource, shown

KIND = "Event.events.k8s.io"
AT = "2026-01-02T03:04:05.000000Z"
EVENT: dict[str, Any] = {
    "regarding": {"kind": "Pod", "name": "web", "namespace": "default"},
    "eventTime": AT,
    "reportingController": "example.com/loop",
    "reportingInstance": "loop-1",
    "action": "Start",
    "reason": "Started",
    "type": "Normal",
    "note": "it runs",
}


def change_faults(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """As a server compares: the old one as it was kept."""
    old = from_core(to_core(made(KIND, **before)))
    return shown(resource(KIND).strategy.validate_update(made(KIND, **after), old))


def test_nothing_is_lost_between_both_views() -> None:
    event = made(
        KIND,
        **EVENT,
        series={"count": 2, "lastObservedTime": AT},
        related={"kind": "Node", "name": "one"},
        deprecatedSource={"component": "kubelet"},
        deprecatedCount=3,
        deprecatedFirstTimestamp="2026-01-02T03:04:05Z",
        deprecatedLastTimestamp="2026-01-02T03:04:06Z",
    )
    core = plain(to_core(event))
    assert (core["message"], core["reportingComponent"], core["involvedObject"]["name"]) == (
        "it runs",
        "example.com/loop",
        "web",
    )
    assert plain(from_core(to_core(event))) == plain(event)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"eventTime": None}, ["eventTime: Required value"]),
        ({"type": "Loud"}, ['type: Invalid value: "": has invalid value: Loud']),
        ({"deprecatedCount": 1}, ['count: Invalid value: "": needs to be unset']),
        ({"deprecatedSource": {"host": "one"}}, ['source: Invalid value: "": needs to be unset']),
        (
            {"deprecatedFirstTimestamp": "2026-01-02T03:04:05Z", "deprecatedLastTimestamp": "2026-01-02T03:04:05Z"},
            [
                'firstTimestamp: Invalid value: "": needs to be unset',
                'lastTimestamp: Invalid value: "": needs to be unset',
            ],
        ),
        (
            {"series": {"count": 1, "lastObservedTime": None}},
            [
                'series.count: Invalid value: "": should be at least 2',
                "series.lastObservedTime: Required value",
            ],
        ),
        ({"series": {"count": 2, "lastObservedTime": AT}}, []),
        ({"action": ""}, ["action: Required value"]),
    ],
)
def test_a_new_event_says_when_and_leaves_the_deprecated_fields_alone(
    change: dict[str, Any], expected: list[str]
) -> None:
    assert faults(KIND, **EVENT | change) == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"series": {"count": 2, "lastObservedTime": AT}}, []),
        (
            {"series": {"count": 0, "lastObservedTime": AT}},
            ['series.count: Invalid value: "": should be at least 2'],
        ),
        ({"note": "other"}, ['message: Invalid value: "other": field is immutable']),
        ({"type": "Warning"}, ['type: Invalid value: "Warning": field is immutable']),
        (
            {"reason": "Stopped"},
            ['reason: Invalid value: "Stopped": field is immutable'] * 2,
        ),
        ({"deprecatedCount": 4}, ["count: Invalid value: 4: field is immutable"]),
        (
            {"reportingController": "example.com/other"},
            ['reportingController: Invalid value: "example.com/other": field is immutable'],
        ),
    ],
)
def test_an_event_never_changes_but_for_its_series(change: dict[str, Any], expected: list[str]) -> None:
    assert change_faults(EVENT, EVENT | change) == expected


def test_an_event_of_old_may_get_a_label() -> None:
    old = {"regarding": EVENT["regarding"], "deprecatedCount": 3}
    assert change_faults(old, old | {"metadata": {"labels": {"seen": "yes"}}}) == []


def test_it_is_shown_as_an_event_of_the_core_group() -> None:
    row = cells(KIND, 1767323055.0, **EVENT)
    assert row == {
        "Last Seen": "10s",
        "Type": "Normal",
        "Reason": "Started",
        "Object": "pod/web",
        "Message": "it runs",
    }
