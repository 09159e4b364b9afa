"""sig-instrumentation: events are objects like others, in the core group and, the same ones, in events.k8s.io."""

from __future__ import annotations

from typing import Any

from tests.apiserver.pipeline.door import Door

CORE, ALL_CORE = "/api/v1/namespaces/default/events", "/api/v1/events"
NEW, ALL_NEW = "/apis/events.k8s.io/v1/namespaces/default/events", "/apis/events.k8s.io/v1/events"
STRATEGIC = "application/strategic-merge-patch+json"
SERIES = {"count": 100, "lastObservedTime": "2017-09-19T13:49:16.000000Z"}


def core_event(name: str, label: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "labels": {label: "true"}},
        "message": "This is a test event",
        "reason": "Test",
        "type": "Normal",
        "count": 1,
        "involvedObject": {"namespace": "default"},
    }


def new_event(name: str, label: str) -> dict[str, Any]:
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": name, "labels": {label: "true"}},
        "regarding": {"namespace": "default"},
        "eventTime": "2017-09-19T13:49:16.000000Z",
        "note": f"This is {name}",
        "action": "Do",
        "reason": "Test",
        "type": "Normal",
        "reportingController": "test-controller",
        "reportingInstance": "test-node",
    }


async def listed(door: Door, path: str, **selector: str) -> list[str]:
    return [each["metadata"]["name"] for each in (await door.done("GET", path, **selector))["items"]]


def without_marks(event: dict[str, Any]) -> dict[str, Any]:
    """Without what the server writes anew with every change."""
    metadata = {
        key: value for key, value in event["metadata"].items() if key not in ("resourceVersion", "managedFields")
    }
    return event | {"metadata": metadata}


async def test_an_event_is_made_found_patched_updated_and_deleted(door: Door) -> None:
    """[sig-instrumentation] Events should manage the lifecycle of an event"""
    selector = {"labelSelector": "testevent-constant=true"}
    await door.done("POST", CORE, core_event("event-test", "testevent-constant"))
    assert await listed(door, ALL_CORE, **selector) == ["event-test"]
    await door.done("PATCH", f"{CORE}/event-test", {"message": "patched"}, content_type=STRATEGIC)
    found = await door.done("GET", f"{CORE}/event-test")
    assert found["message"] == "patched"
    wanted = without_marks(found) | {"series": SERIES}
    await door.done("PUT", f"{CORE}/event-test", wanted)
    assert without_marks(await door.done("GET", f"{CORE}/event-test")) == wanted
    await door.done("DELETE", f"{CORE}/event-test")
    assert await listed(door, ALL_CORE, **selector) == []


async def test_events_are_deleted_together(door: Door) -> None:
    """[sig-instrumentation] Events should delete a collection of events"""
    await all_at_once(door, CORE, core_event)


async def test_an_event_of_the_new_group_is_made_found_patched_updated_and_deleted(door: Door) -> None:
    """[sig-instrumentation] Events API should ensure that an event can be fetched, patched, deleted, and listed"""
    selector = {"labelSelector": "testevent-constant=true"}
    await door.done("POST", NEW, new_event("event-test", "testevent-constant"))
    for path in (ALL_NEW, NEW):
        assert await listed(door, path, **selector) == ["event-test"]
    assert await listed(door, CORE, fieldSelector="source=test-controller") == ["event-test"]
    assert await listed(door, NEW, fieldSelector="reportingController=test-controller") == ["event-test"]
    assert await listed(door, NEW, fieldSelector="reportingController=another") == []
    before = await door.done("GET", f"{NEW}/event-test")
    status, refused = await door("PATCH", f"{NEW}/event-test", {"note": "patched"}, content_type=STRATEGIC)
    assert (status, refused["details"]["causes"][0]["field"]) == (422, "message"), "what was seen is not changed here"
    series = SERIES | {"count": 2}
    await door.done("PATCH", f"{NEW}/event-test", {"series": series}, content_type=STRATEGIC)
    patched = await door.done("GET", f"{NEW}/event-test")
    assert without_marks(patched) == without_marks(before) | {"series": series}
    wanted = patched | {"series": SERIES}
    await door.done("PUT", f"{NEW}/event-test", wanted)
    updated = await door.done("GET", f"{NEW}/event-test")
    assert without_marks(updated) == without_marks(wanted)
    seen = await door.done("GET", f"{CORE}/event-test")
    assert (seen["message"], seen["series"]) == ("This is event-test", SERIES)
    assert (seen["reportingComponent"], seen["reportingInstance"]) == ("test-controller", "test-node")
    await door.done("DELETE", f"{NEW}/event-test")
    for path in (ALL_NEW, NEW, CORE):
        assert await listed(door, path, **selector) == []


async def test_events_of_the_new_group_are_deleted_together(door: Door) -> None:
    """[sig-instrumentation] Events API should delete a collection of events"""
    await all_at_once(door, NEW, new_event)


async def all_at_once(door: Door, path: str, make: Any) -> None:
    names, selector = ["test-event-1", "test-event-2", "test-event-3"], {"labelSelector": "testevent-set=true"}
    await door.done("POST", path, make("bystander", "another"))
    for name in names:
        await door.done("POST", path, make(name, "testevent-set"))
    assert await listed(door, path, **selector) == names
    await door.done("DELETE", path, **selector)
    assert await listed(door, path, **selector) == []
    assert await listed(door, path) == ["bystander"]
