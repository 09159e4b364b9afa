"""Events of the core group: what a client of old may write, and what a newer one has to say."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.made import cells, faults, made, plain

AT = "2026-01-02T03:04:05.000000Z"
NOW_S = 1767323045.0
ABOUT = {"kind": "Pod", "name": "web", "namespace": "default"}
NEW: dict[str, Any] = {
    "involvedObject": ABOUT,
    "eventTime": AT,
    "reportingComponent": "example.com/loop",
    "reportingInstance": "loop-1",
    "action": "Start",
    "reason": "Started",
}


def test_what_is_written_even_when_nobody_said_it() -> None:
    event = plain(made("Event", involvedObject=ABOUT))
    assert (event["source"], event["reportingComponent"], event["reportingInstance"]) == ({}, "", "")


@pytest.mark.parametrize(
    ("namespace", "about", "allowed"),
    [
        ("default", "", True),
        ("default", "default", True),
        ("default", "kube-system", False),
        ("kube-system", "", False),
    ],
)
def test_an_event_without_event_time_stands_beside_what_it_is_about(namespace: str, about: str, allowed: bool) -> None:
    found = faults("Event", metadata={"namespace": namespace}, involvedObject={"kind": "Pod", "namespace": about})
    fault = f'involvedObject.namespace: Invalid value: "{about}": does not match event.namespace'
    assert found == ([] if allowed else [fault])


@pytest.mark.parametrize(("namespace", "allowed"), [("default", True), ("kube-system", True), ("shop", False)])
def test_an_event_about_the_cluster_stands_in_a_namespace_of_the_system(namespace: str, allowed: bool) -> None:
    found = faults("Event", metadata={"namespace": namespace}, **NEW | {"involvedObject": {"kind": "Node"}})
    fault = 'involvedObject.namespace: Invalid value: "": does not match event.namespace'
    assert found == ([] if allowed else [fault])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"reportingComponent": ""},
            [
                "reportingController: Required value",
                'reportingController: Invalid value: "": name part must be non-empty',
            ],
        ),
        ({"reportingInstance": ""}, ["reportingInstance: Required value"]),
        (
            {"reportingInstance": "i" * 129},
            ['reportingInstance: Invalid value: "": can have at most 128 characters'],
        ),
        ({"action": ""}, ["action: Required value"]),
        ({"action": "a" * 129}, ['action: Invalid value: "": can have at most 128 characters']),
        ({"reason": ""}, ["reason: Required value"]),
        ({"reason": "r" * 129}, ['reason: Invalid value: "": can have at most 128 characters']),
        ({"message": "m" * 1025}, ['message: Invalid value: "": can have at most 1024 characters']),
        ({"message": "m" * 1024}, []),
    ],
)
def test_an_event_with_event_time_says_who_and_what_for(change: dict[str, Any], expected: list[str]) -> None:
    assert faults("Event", **NEW | change)[: len(expected) or None] == expected


def test_how_events_are_shown() -> None:
    event = {
        "involvedObject": ABOUT | {"fieldPath": "spec.containers{web}"},
        "type": "Normal",
        "reason": "Pulled",
        "message": " Pulled it\n",
        "source": {"component": "kubelet", "host": "one"},
        "firstTimestamp": "2026-01-02T03:02:05Z",
        "lastTimestamp": "2026-01-02T03:03:55Z",
        "count": 3,
    }
    assert cells("Event", NOW_S, wide=True, **event) == {
        "Last Seen": "10s",
        "Type": "Normal",
        "Reason": "Pulled",
        "Object": "pod/web",
        "Subobject": "spec.containers{web}",
        "Source": "kubelet, one",
        "Message": "Pulled it",
        "First Seen": "2m",
        "Count": 3,
        "Name": "web",
    }
