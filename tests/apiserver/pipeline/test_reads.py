"""Lists, pages, selectors, tables and watches: what a reader sees, and in which order."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from knarr.api.registry import built_in
from knarr.apiserver.server import APIServer
from knarr.client.client import MERGE_PATCH
from knarr.client.transport import Request
from knarr.simulate.clock import VirtualClock, run
from knarr.store.memory import MemoryStore
from tests.apiserver.pipeline.door import ADMINISTRATOR, CONFIG_MAPS, PODS, Door, config_map, namespace, pod

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
PARTIAL_LIST = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"


def names(data: object) -> list[str]:
    assert isinstance(data, dict)
    return [item["metadata"]["name"] for item in data["items"]]


async def fill(door: Door, *wanted: str) -> None:
    for name in wanted:
        await door.done("POST", CONFIG_MAPS, config_map(name, {"name": name}, x="1"))


@pytest.mark.parametrize("count", [0, 1, 2, 3])
async def test_a_list_is_whole_and_its_items_carry_no_kind(door: Door, count: int) -> None:
    await fill(door, *"abc"[:count])
    listed = await door.done("GET", CONFIG_MAPS)
    assert (listed["kind"], listed["apiVersion"]) == ("ConfigMapList", "v1")
    assert listed["metadata"] == {"resourceVersion": str(door.store.revision)}
    assert names(listed) == list("abc"[:count])
    assert all("kind" not in item and "apiVersion" not in item for item in listed["items"])


async def test_pages_show_one_moment_whatever_happens_between(door: Door) -> None:
    await fill(door, "a", "b", "c", "d", "e")
    page = await door.done("GET", CONFIG_MAPS, limit="2")
    assert names(page) == ["a", "b"]
    assert page["metadata"]["remainingItemCount"] == 3
    await fill(door, "bb", "z")
    await door.done("DELETE", f"{CONFIG_MAPS}/c")
    seen, revisions = names(page), {page["metadata"]["resourceVersion"]}
    while token := page["metadata"].get("continue"):
        page = await door.done("GET", CONFIG_MAPS, limit="2", **{"continue": token})
        seen += names(page)
        revisions.add(page["metadata"]["resourceVersion"])
    assert seen == ["a", "b", "c", "d", "e"]
    assert len(revisions) == 1


async def test_pages_of_a_selection_are_full(door: Door) -> None:
    await fill(door, "a", "b", "c", "d")
    page = await door.done("GET", CONFIG_MAPS, limit="1", labelSelector="name in (b,d)")
    assert names(page) == ["b"]
    page = await door.done(
        "GET", CONFIG_MAPS, limit="1", labelSelector="name in (b,d)", **{"continue": page["metadata"]["continue"]}
    )
    assert names(page) == ["d"]
    assert "continue" not in page["metadata"]


async def test_a_page_whose_history_is_gone_is_expired_and_a_forged_one_is_bad(door: Door) -> None:
    await fill(door, "a", "b")
    token = (await door.done("GET", CONFIG_MAPS, limit="1"))["metadata"]["continue"]
    await fill(door, "c")
    await door.store.compact(door.store.revision)
    status, refused = await door("GET", CONFIG_MAPS, limit="1", **{"continue": token})
    assert (status, refused["reason"]) == (410, "Expired")
    assert (await door("GET", CONFIG_MAPS, **{"continue": "forged"}))[0] == 400


async def test_an_expired_page_says_how_to_go_on_without_consistency(door: Door) -> None:
    for name in "abcdef":
        await door.done("POST", CONFIG_MAPS, config_map(name))
    token = (await door.done("GET", CONFIG_MAPS, limit="2"))["metadata"]["continue"]
    await door.done("DELETE", f"{CONFIG_MAPS}/c")
    await door.store.compact(door.store.revision)
    status, refused = await door("GET", CONFIG_MAPS, limit="2", **{"continue": token})
    assert (status, refused["reason"]) == (410, "Expired")
    names, token = [], refused["metadata"]["continue"]
    while token:
        page = await door.done("GET", CONFIG_MAPS, limit="2", **{"continue": token})
        names += [item["metadata"]["name"] for item in page["items"]]
        token = page["metadata"].get("continue")
    assert names == ["d", "e", "f"]
    assert page["metadata"]["resourceVersion"] == str(door.store.revision)


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ("name=a", ["a"]),
        ("name!=a", ["b", "c", "plain"]),
        ("name in (a,c)", ["a", "c"]),
        ("name notin (a,c)", ["b", "plain"]),
        ("name", ["a", "b", "c"]),
        ("!name", ["plain"]),
        ("name,name!=b", ["a", "c"]),
    ],
)
async def test_label_selectors(door: Door, selector: str, found: list[str]) -> None:
    await fill(door, "a", "b", "c")
    await door.done("POST", CONFIG_MAPS, config_map("plain"))
    assert names(await door.done("GET", CONFIG_MAPS, labelSelector=selector)) == found


async def test_field_selectors_know_names_and_what_the_kind_offers(door: Door) -> None:
    await door.done("POST", PODS, pod("a", nodeName="n1"))
    await door.done("POST", PODS, pod("b"))
    assert names(await door.done("GET", PODS, fieldSelector="spec.nodeName=n1")) == ["a"]
    assert names(await door.done("GET", "/api/v1/pods", fieldSelector="spec.nodeName=")) == ["b"]
    assert names(await door.done("GET", "/api/v1/pods", fieldSelector="metadata.name=b")) == ["b"]
    assert names(await door.done("GET", PODS, fieldSelector="status.phase!=Pending")) == []
    status, refused = await door("GET", PODS, fieldSelector="spec.color=red")
    assert (status, refused["reason"]) == (400, "BadRequest")


async def test_a_table_has_a_row_an_object_and_its_metadata(door: Door) -> None:
    await door.done("POST", PODS, pod("a"))
    table = await door.done("GET", PODS, accept=TABLE)
    assert [column["name"] for column in table["columnDefinitions"]][:5] == [
        "Name",
        "Ready",
        "Status",
        "Restarts",
        "Age",
    ]
    (row,) = table["rows"]
    assert row["cells"][:3] == ["a", "0/1", "Pending"]
    assert row["object"]["kind"] == "PartialObjectMetadata"
    whole = await door.done("GET", f"{PODS}/a", accept=TABLE, includeObject="Object")
    assert whole["rows"][0]["object"]["spec"]["containers"]
    bare = await door.done("GET", PODS, accept=TABLE, includeObject="None")
    assert "object" not in bare["rows"][0]


async def test_metadata_alone_can_be_asked_for(door: Door) -> None:
    await fill(door, "a")
    one = await door.done("GET", f"{CONFIG_MAPS}/a", accept=PARTIAL)
    assert (one["kind"], one["metadata"]["name"], "data" in one) == ("PartialObjectMetadata", "a", False)
    listed = await door.done("GET", CONFIG_MAPS, accept=PARTIAL_LIST)
    assert (listed["kind"], names(listed)) == ("PartialObjectMetadataList", ["a"])


async def test_a_watch_tells_every_change_in_order_and_once(door: Door) -> None:
    listed = await door.done("GET", CONFIG_MAPS)
    async with door.watch(CONFIG_MAPS, resourceVersion=listed["metadata"]["resourceVersion"]) as events:
        await fill(door, "a", "b")
        await door.done("PATCH", f"{CONFIG_MAPS}/a", {"data": {"x": "2"}}, content_type=MERGE_PATCH)
        await door.done("DELETE", f"{CONFIG_MAPS}/b")
        seen = [await events.next() for _ in range(4)]
    assert [(kind, obj["metadata"]["name"]) for kind, obj in seen] == [
        ("ADDED", "a"),
        ("ADDED", "b"),
        ("MODIFIED", "a"),
        ("DELETED", "b"),
    ]
    revisions = [int(obj["metadata"]["resourceVersion"]) for _, obj in seen]
    assert revisions == sorted(set(revisions))
    assert revisions[-1] == door.store.revision
    assert seen[0][1]["kind"] == "ConfigMap"


async def test_a_watch_from_the_past_misses_nothing(door: Door) -> None:
    start = str(door.store.revision)
    await fill(door, "a", "b")
    async with door.watch(CONFIG_MAPS, resourceVersion=start) as events:
        assert await events.take(2) == [("ADDED", "a"), ("ADDED", "b")]
        await fill(door, "c")
        assert await events.take(1) == [("ADDED", "c")]


@pytest.mark.parametrize("revision", ["", "0"])
async def test_a_watch_without_a_revision_begins_with_what_is_there(door: Door, revision: str) -> None:
    await fill(door, "a", "b")
    async with door.watch(CONFIG_MAPS, resourceVersion=revision) as events:
        await fill(door, "c")
        assert await events.take(3) == [("ADDED", "a"), ("ADDED", "b"), ("ADDED", "c")]


async def test_a_streaming_list_marks_its_end(door: Door) -> None:
    await fill(door, "a", "b")
    query = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}
    async with door.watch(CONFIG_MAPS, **query) as events:
        assert await events.take(2) == [("ADDED", "a"), ("ADDED", "b")]
        kind, mark = await events.next()
        assert kind == "BOOKMARK"
        assert mark["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        assert mark["metadata"]["resourceVersion"] == str(door.store.revision)
    status, _ = await door("GET", CONFIG_MAPS, watch="true", sendInitialEvents="true")
    assert status == 422


async def test_an_object_that_leaves_a_selection_is_deleted_for_its_watchers(door: Door) -> None:
    await fill(door, "a")
    start = str(door.store.revision)
    async with door.watch(CONFIG_MAPS, resourceVersion=start, labelSelector="name=a") as events:
        for label in ("b", "c", "a"):
            patch = {"metadata": {"labels": {"name": label}}}
            await door.done("PATCH", f"{CONFIG_MAPS}/a", patch, content_type=MERGE_PATCH)
        kind, gone = await events.next()
        assert (kind, gone["metadata"]["labels"], int(gone["metadata"]["resourceVersion"])) == (
            "DELETED",
            {"name": "a"},
            int(start) + 1,
        )
        kind, back = await events.next()
        assert (kind, back["metadata"]["labels"]) == ("ADDED", {"name": "a"})


async def test_a_watch_of_one_name_sees_only_that(door: Door) -> None:
    start = str(door.store.revision)
    async with door.watch(CONFIG_MAPS, resourceVersion=start, fieldSelector="metadata.name=a") as events:
        await fill(door, "aa", "b", "a")
        assert await events.take(1) == [("ADDED", "a")]


async def test_a_node_watches_pods_that_become_its_own(door: Door) -> None:
    start = str(door.store.revision)
    async with (
        door.watch("/api/v1/pods", resourceVersion=start, fieldSelector="spec.nodeName=here") as here,
        door.watch("/api/v1/pods", resourceVersion=start, fieldSelector="spec.nodeName=") as nowhere,
    ):
        for name, node in (("a", "there"), ("b", None), ("c", "here")):
            given = pod(name)
            given["spec"]["nodeName"] = node
            await door.done("POST", PODS, given)
        assert await nowhere.take(1) == [("ADDED", "b")]
        target = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "b"}, "target": {"name": "here"}}
        await door.done("POST", f"{PODS}/b/binding", target)
        for name in ("a", "b", "c"):
            await door.done("DELETE", f"{PODS}/{name}", {"gracePeriodSeconds": 0})
        assert await nowhere.take(1) == [("DELETED", "b")]
        assert await here.take(4) == [("ADDED", "c"), ("ADDED", "b"), ("DELETED", "b"), ("DELETED", "c")]


async def test_a_watch_of_all_namespaces_and_of_one(door: Door) -> None:
    await door.done("POST", "/api/v1/namespaces", namespace("other"))
    start = str(door.store.revision)
    async with (
        door.watch("/api/v1/configmaps", resourceVersion=start) as everywhere,
        door.watch(CONFIG_MAPS, resourceVersion=start) as here,
    ):
        await door.done("POST", "/api/v1/namespaces/other/configmaps", config_map("far"))
        await fill(door, "near")
        assert await everywhere.take(2) == [("ADDED", "far"), ("ADDED", "near")]
        assert await here.take(1) == [("ADDED", "near")]


async def test_a_watch_from_compacted_history_says_so_in_an_event(door: Door) -> None:
    await fill(door, "a", "b")
    await door.store.compact(door.store.revision)
    async with door.watch(CONFIG_MAPS, resourceVersion="1") as events:
        kind, status = await events.next()
    assert (kind, status["code"], status["reason"]) == ("ERROR", 410, "Expired")


async def test_a_watch_ends_when_its_time_is_over(door: Door) -> None:
    async with door.watch(CONFIG_MAPS, resourceVersion="0", timeoutSeconds="1") as events:
        with pytest.raises(StopAsyncIteration):
            async with asyncio.timeout(30):
                await events.next()


async def test_watchers_share_the_bytes_of_an_event(door: Door) -> None:
    start = str(door.store.revision)
    answers = [await door.ask("GET", CONFIG_MAPS, watch="true", resourceVersion=start) for _ in range(2)]
    await fill(door, "a")
    first, second = [await anext(answer.stream) for answer in answers if answer.stream]
    assert first == second
    for answer in answers:
        await answer.stream.aclose()  # type: ignore[union-attr]


async def test_a_table_can_be_watched(door: Door) -> None:
    start = str(door.store.revision)
    async with door.watch(PODS, resourceVersion=start, accept=TABLE) as events:
        await door.done("POST", PODS, pod("a"))
        kind, table = await events.next()
    assert (kind, table["kind"], table["rows"][0]["cells"][0]) == ("ADDED", "Table", "a")


async def test_a_revision_from_the_future_is_a_timeout(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("knarr.apiserver.reads.FUTURE_WAIT_S", 0.01)
    status, refused = await door("GET", CONFIG_MAPS, resourceVersion=str(door.store.revision + 100))
    assert (status, refused["reason"]) == (504, "Timeout")
    assert [cause["reason"] for cause in refused["details"]["causes"]] == ["ResourceVersionTooLarge"]


async def test_a_list_can_show_an_exact_moment(door: Door) -> None:
    await fill(door, "a")
    then = str(door.store.revision)
    await fill(door, "b")
    listed = await door.done("GET", CONFIG_MAPS, resourceVersion=then, resourceVersionMatch="Exact")
    assert (names(listed), listed["metadata"]["resourceVersion"]) == (["a"], then)
    newer = await door.done("GET", CONFIG_MAPS, resourceVersion=then)
    assert names(newer) == ["a", "b"]


async def test_pretty_is_indented(door: Door) -> None:
    await fill(door, "a")
    plain = await door.ask("GET", f"{CONFIG_MAPS}/a")
    pretty = await door.ask("GET", f"{CONFIG_MAPS}/a", pretty="true")
    assert b"\n  " in pretty.body
    assert msgspec.json.decode(pretty.body) == msgspec.json.decode(plain.body)


def test_a_quiet_watch_says_every_minute_how_far_it_has_come() -> None:
    async def main(clock: VirtualClock) -> None:
        store = MemoryStore()
        server = APIServer(store, built_in(), clock)
        query = {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": "0"}
        answer = await server.handle(Request("GET", "/api/v1/nodes", query, user=ADMINISTRATOR))
        assert answer.stream is not None
        body = msgspec.json.encode(namespace("elsewhere"))
        made = await server.handle(Request("POST", "/api/v1/namespaces", body=body, user=ADMINISTRATOR))
        assert made.status == 201
        began_s = clock.monotonic_s()
        event = msgspec.json.decode(await anext(answer.stream))
        assert clock.monotonic_s() - began_s == 60
        assert (event["type"], event["object"]["kind"]) == ("BOOKMARK", "Node")
        assert event["object"]["metadata"]["resourceVersion"] == str(store.revision)
        await answer.stream.aclose()  # type: ignore[attr-defined]
        await store.close()

    run(main, 0)
