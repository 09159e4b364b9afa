"""One event, two names: what is written as events.k8s.io is there in the core group, and the other way round."""

from __future__ import annotations

from typing import Any

from tests.apiserver.pipeline.door import Door, causes

CORE = "/api/v1/namespaces/default/events"
EVENTS = "/apis/events.k8s.io/v1/namespaces/default/events"
EVENT: dict[str, Any] = {
    "metadata": {"name": "web.1"},
    "regarding": {"kind": "Pod", "name": "web", "namespace": "default"},
    "eventTime": "2026-01-02T03:04:05.000000Z",
    "reportingController": "example.com/loop",
    "reportingInstance": "loop-1",
    "action": "Start",
    "reason": "Started",
    "type": "Normal",
    "note": "it runs",
}


async def test_both_names_show_one_object(door: Door) -> None:
    made = await door.done("POST", EVENTS, EVENT)
    assert (made["apiVersion"], made["note"]) == ("events.k8s.io/v1", "it runs")
    core = await door.done("GET", f"{CORE}/web.1")
    assert (core["apiVersion"], core["message"], core["metadata"]) == ("v1", "it runs", made["metadata"])
    selected = await door.done("GET", EVENTS, fieldSelector="regarding.name=web,reportingController=example.com/loop")
    assert [each["metadata"]["name"] for each in selected["items"]] == ["web.1"]
    selected = await door.done("GET", CORE, fieldSelector="involvedObject.name=web,source=example.com/loop")
    assert [each["metadata"]["name"] for each in selected["items"]] == ["web.1"]
    async with door.watch(EVENTS, resourceVersion="0") as events:
        assert await events.take(1) == [("ADDED", "web.1")]
    await door.done("DELETE", f"{EVENTS}/web.1")
    assert (await door("GET", f"{CORE}/web.1"))[0] == 404


async def test_the_strict_rules_hold_for_the_newer_name_only(door: Door) -> None:
    status, refused = await door("POST", EVENTS, EVENT | {"eventTime": None, "type": "Loud"})
    assert (status, causes(refused)) == (422, ["eventTime", "type"])
    assert refused["message"].startswith('Event "web.1" is invalid: [eventTime: Required value, ')
    about = EVENT["regarding"]
    await door.done("POST", CORE, {"metadata": {"name": "Old_Name"}, "involvedObject": about, "count": 1})
    await door.done("PUT", f"{CORE}/Old_Name", {"involvedObject": about, "count": 2})
    patch = {"content_type": "application/merge-patch+json"}
    status, refused = await door("PATCH", f"{EVENTS}/Old_Name", {"deprecatedCount": 3}, **patch)
    assert (status, causes(refused)) == (422, ["count"])
    labelled = await door.done("PATCH", f"{EVENTS}/Old_Name", {"metadata": {"labels": {"a": "b"}}}, **patch)
    assert (labelled["deprecatedCount"], labelled["metadata"]["labels"]) == (2, {"a": "b"})


async def test_a_series_grows(door: Door) -> None:
    await door.done("POST", EVENTS, EVENT)
    series = {"count": 2, "lastObservedTime": "2026-01-02T03:05:05.000000Z"}
    patch = {"content_type": "application/merge-patch+json"}
    assert (await door.done("PATCH", f"{EVENTS}/web.1", {"series": series}, **patch))["series"] == series
    status, refused = await door("PUT", f"{EVENTS}/web.1", EVENT | {"note": "other"})
    assert (status, causes(refused)) == (422, ["message"])


async def test_an_update_of_an_event_that_is_gone_makes_it(door: Door) -> None:
    about = EVENT["regarding"]
    answer = await door.ask("PUT", f"{CORE}/web.2", {"metadata": {"name": "web.2"}, "involvedObject": about})
    assert answer.status == 201
