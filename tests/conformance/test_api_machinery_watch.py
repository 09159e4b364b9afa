"""sig-api-machinery: watches tell every change of what they select, from where they are asked to, all in one order."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.apiserver.pipeline.door import CONFIG_MAPS, Door, config_map

LABEL = "watch-this-configmap"


async def change(door: Door, name: str, **data: Any) -> Any:
    body = {"data": {key: str(value) for key, value in data.items()}}
    return await door.done("PATCH", f"{CONFIG_MAPS}/{name}", body, content_type="application/merge-patch+json")


async def relabel(door: Door, name: str, value: str) -> Any:
    body = {"metadata": {"labels": {LABEL: value}}}
    return await door.done("PATCH", f"{CONFIG_MAPS}/{name}", body, content_type="application/merge-patch+json")


async def test_watchers_see_what_their_selectors_match_and_nothing_else(door: Door) -> None:
    """[sig-api-machinery] Watchers should observe add, update, and delete watch notifications on configmaps"""
    async with (
        door.watch(CONFIG_MAPS, labelSelector=f"{LABEL}=A") as a,
        door.watch(CONFIG_MAPS, labelSelector=f"{LABEL}=B") as b,
        door.watch(CONFIG_MAPS, labelSelector=f"{LABEL} in (A,B)") as both,
    ):
        for label, alone in (("A", a), ("B", b)):
            name = f"of-{label.lower()}"
            await door.done("POST", CONFIG_MAPS, config_map(name, {LABEL: label}))
            await change(door, name, mutation=1)
            await change(door, name, mutation=2)
            await door.done("DELETE", f"{CONFIG_MAPS}/{name}")
            for events in (alone, both):
                told = [await events.next() for _ in range(4)]
                assert [kind for kind, _ in told] == ["ADDED", "MODIFIED", "MODIFIED", "DELETED"]
                assert {obj["metadata"]["name"] for _, obj in told} == {name}
                assert [obj.get("data") for _, obj in told] == [
                    None,
                    {"mutation": "1"},
                    {"mutation": "2"},
                    {"mutation": "2"},
                ]
        await door.done("POST", CONFIG_MAPS, config_map("of-nobody", {LABEL: "C"}))
        await door.done("POST", CONFIG_MAPS, config_map("last", {LABEL: "A"}))
        assert await a.take(1) == [("ADDED", "last")]
        assert await both.take(1) == [("ADDED", "last")]
        await door.done("POST", CONFIG_MAPS, config_map("last-b", {LABEL: "B"}))
        assert await b.take(1) == [("ADDED", "last-b")]


async def test_a_watch_from_a_revision_tells_what_came_after_it(door: Door) -> None:
    """[sig-api-machinery] Watchers should be able to start watching from a specific resource version"""
    await door.done("POST", CONFIG_MAPS, config_map("a", {LABEL: "from"}))
    first = await change(door, "a", mutation=1)
    await change(door, "a", mutation=2)
    await door.done("DELETE", f"{CONFIG_MAPS}/a")
    revision = first["metadata"]["resourceVersion"]
    async with door.watch(CONFIG_MAPS, resourceVersion=revision, labelSelector=f"{LABEL}=from") as events:
        kind, obj = await events.next()
        assert (kind, obj["data"]) == ("MODIFIED", {"mutation": "2"})
        kind, obj = await events.next()
        assert (kind, obj["data"]) == ("DELETED", {"mutation": "2"})
        assert int(obj["metadata"]["resourceVersion"]) == door.store.revision, "of its deletion"


async def test_a_watch_goes_on_where_the_one_before_it_ended(door: Door) -> None:
    """[sig-api-machinery] Watchers should be able to restart watching from the last resource version observed by the
    previous watch"""
    async with door.watch(CONFIG_MAPS, labelSelector=f"{LABEL}=again") as events:
        await door.done("POST", CONFIG_MAPS, config_map("a", {LABEL: "again"}))
        await change(door, "a", mutation=1)
        assert await events.take(2) == [("ADDED", "a"), ("MODIFIED", "a")]
        await change(door, "a", mutation=2)
        _, last = await events.next()
    await change(door, "a", mutation=3)
    await door.done("DELETE", f"{CONFIG_MAPS}/a")
    revision = last["metadata"]["resourceVersion"]
    async with door.watch(CONFIG_MAPS, labelSelector=f"{LABEL}=again", resourceVersion=revision) as events:
        kind, obj = await events.next()
        assert (kind, obj["data"]) == ("MODIFIED", {"mutation": "3"})
        assert await events.take(1) == [("DELETED", "a")]


async def test_what_stops_matching_is_told_as_deleted_and_as_added_when_it_matches_again(door: Door) -> None:
    """[sig-api-machinery] Watchers should observe an object deletion if it stops meeting the requirements of the
    selector"""
    async with door.watch(CONFIG_MAPS, labelSelector=f"{LABEL}=mine") as events:
        await door.done("POST", CONFIG_MAPS, config_map("a", {LABEL: "mine"}))
        await change(door, "a", mutation=1)
        assert await events.take(2) == [("ADDED", "a"), ("MODIFIED", "a")]
        left = await relabel(door, "a", "theirs")
        kind, obj = await events.next()
        assert (kind, obj["data"]) == ("DELETED", {"mutation": "1"})
        assert obj["metadata"]["labels"] == {LABEL: "mine"}, "as it was when it matched last"
        assert obj["metadata"]["resourceVersion"] == left["metadata"]["resourceVersion"]
        await change(door, "a", mutation=2)
        await relabel(door, "a", "mine")
        kind, obj = await events.next()
        assert (kind, obj["data"]) == ("ADDED", {"mutation": "2"})
        await change(door, "a", mutation=3)
        await door.done("DELETE", f"{CONFIG_MAPS}/a")
        assert await events.take(2) == [("MODIFIED", "a"), ("DELETED", "a")]


async def test_all_watches_tell_the_changes_in_one_order(door: Door) -> None:
    """[sig-api-machinery] Watchers should receive events on concurrent watches in same order

    While something is written all the time, each event that a first watch tells begins another watch at its revision:
    all of them must tell the events that follow in the same order.
    """
    count = 60

    async def write() -> None:
        for number in range(count):
            name = f"cm-{number // 4}"
            if number % 4 == 0:
                await door.done("POST", CONFIG_MAPS, config_map(name))
            elif number % 4 == 3:
                await door.done("DELETE", f"{CONFIG_MAPS}/{name}")
            else:
                await change(door, name, mutation=number)
            await asyncio.sleep(0)

    start = str(door.store.revision)
    expected: list[tuple[str, int]] = []
    async with asyncio.TaskGroup() as group:
        group.create_task(write())
        async with door.watch(CONFIG_MAPS, resourceVersion=start) as first:
            followers = []
            for _ in range(count):
                kind, obj = await first.next()
                revision = obj["metadata"]["resourceVersion"]
                expected.append((kind, int(revision)))
                followers.append(group.create_task(follow(door, revision, count - len(expected))))
    revisions = [revision for _, revision in expected]
    assert revisions == sorted(set(revisions))
    for place, follower in enumerate(followers):
        assert follower.result() == expected[place + 1 :]


async def follow(door: Door, revision: str, count: int) -> list[tuple[str, int]]:
    async with door.watch(CONFIG_MAPS, resourceVersion=revision) as events:
        told = [await events.next() for _ in range(count)]
    return [(kind, int(obj["metadata"]["resourceVersion"])) for kind, obj in told]
