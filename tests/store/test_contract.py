"""The promises of knarr/store/contract.py, checked on every engine."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from knarr.store import history
from knarr.store.contract import (
    Compacted,
    FutureRevision,
    Kind,
    Mismatch,
    Overrun,
    Part,
    Record,
    Store,
    StoreFailure,
    Write,
)
from knarr.store.memory import MemoryStore
from knarr.store.sqlite import SQLiteStore


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    made: Store = MemoryStore() if request.param == "memory" else await SQLiteStore.open(tmp_path / "store.db")
    yield made
    await made.close()


def value(text: str) -> bytes:
    return b'{"metadata":{"name":"%b"}}' % text.encode()


async def put(store: Store, key: str, text: str = "x", expect: int | None = None) -> int:
    return await store.commit(Write(key, value(text), expect))


async def test_a_value_goes_out_stamped_with_its_revision(store: Store) -> None:
    revision = await put(store, "pods/default/web")
    record = await store.get("pods/default/web")
    assert record == Record(
        "pods/default/web", b'{"metadata":{"resourceVersion":"%d","name":"x"}}' % revision, revision
    )
    assert store.revision == revision


async def test_revisions_rise_strictly_over_all_keys(store: Store) -> None:
    revisions = [await put(store, f"pods/default/{number}") for number in range(5)]
    assert revisions == sorted(set(revisions))


async def test_a_commit_is_all_or_nothing(store: Store) -> None:
    await put(store, "pods/default/a")
    with pytest.raises(Mismatch):
        await store.commit(Write("pods/default/b", value("b"), 0), Write("pods/default/a", value("a"), 0))
    assert await store.get("pods/default/b") is None
    revision = await store.commit(Write("pods/default/b", value("b"), 0), Write("services/default/a", value("a"), 0))
    for key in ("pods/default/b", "services/default/a"):
        record = await store.get(key)
        assert record
        assert record.revision == revision


@pytest.mark.parametrize("expect", [0, 999])
async def test_a_failed_precondition_says_what_is_there(store: Store, expect: int) -> None:
    revision = await put(store, "pods/default/web", "old")
    with pytest.raises(Mismatch) as failure:
        await put(store, "pods/default/web", "new", expect)
    assert failure.value.record
    assert failure.value.record.revision == revision


async def test_deleting_what_is_absent_is_a_mismatch(store: Store) -> None:
    with pytest.raises(Mismatch):
        await store.commit(Write("pods/default/web", None))


async def test_of_concurrent_writes_with_one_expectation_one_wins(store: Store) -> None:
    revision = await put(store, "pods/default/web")
    results = await asyncio.gather(
        *(put(store, "pods/default/web", str(n), revision) for n in range(10)), return_exceptions=True
    )
    assert sum(isinstance(result, int) for result in results) == 1
    assert sum(isinstance(result, Mismatch) for result in results) == 9


async def test_range_is_ordered_paged_and_cut_by_prefix(store: Store) -> None:
    for name in ("b", "a", "c", "ab"):
        await put(store, f"pods/default/{name}")
    await put(store, "pods/default2/z")
    await put(store, "podtemplates/default/z")
    whole = await store.range("pods/default/")
    assert [record.key for record in whole.records] == [f"pods/default/{name}" for name in ("a", "ab", "b", "c")]
    page = await store.range("pods/", after="pods/default/ab", limit=2)
    assert [record.key for record in page.records] == ["pods/default/b", "pods/default/c"]
    assert (page.more, page.remaining) == (True, 1)


async def test_range_at_a_revision_shows_the_past(store: Store) -> None:
    await put(store, "pods/default/a", "1")
    then = await put(store, "pods/default/b", "1")
    await put(store, "pods/default/a", "2")
    await store.commit(Write("pods/default/b", None))
    await put(store, "pods/default/c", "1")
    past = await store.range("pods/", revision=then)
    assert {record.key: record.revision for record in past.records} == {
        "pods/default/a": then - 1,
        "pods/default/b": then,
    }
    assert past.revision == then
    with pytest.raises(FutureRevision):
        await store.range("pods/", revision=store.revision + 1)


async def test_watch_gives_history_then_what_happens_once_and_in_order(store: Store) -> None:
    start = await put(store, "pods/default/a", "1")
    await put(store, "pods/default/a", "2")
    async with store.watch("pods/", after=start) as watch:
        await put(store, "services/default/a")
        await store.commit(Write("pods/default/a", None))
        await put(store, "pods/default/b")
        seen = []
        while len(seen) < 3:
            seen += await watch.next()
        assert [(event.kind, event.key) for event in seen] == [
            (Kind.MODIFIED, "pods/default/a"),
            (Kind.DELETED, "pods/default/a"),
            (Kind.ADDED, "pods/default/b"),
        ]
        assert b'"resourceVersion":"%d","name":"2"' % seen[1].revision in seen[1].value
        assert watch.revision == store.revision


async def test_compaction_ends_reads_and_watches_of_the_past(store: Store) -> None:
    first = await put(store, "pods/default/a", "1")
    last = await put(store, "pods/default/a", "2")
    await store.compact(last)
    with pytest.raises(Compacted):
        store.watch("pods/", after=first)
    with pytest.raises(Compacted):
        await store.range("pods/", revision=first)
    assert len((await store.range("pods/", revision=last)).records) == 1
    with pytest.raises(FutureRevision):
        await store.compact(last + 1)


async def test_a_watch_of_the_future_is_refused(store: Store) -> None:
    with pytest.raises(FutureRevision):
        store.watch("pods/", after=1)


async def test_a_watcher_that_does_not_keep_up_is_ended(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "WATCH_BACKLOG_MAX", 3)
    async with store.watch("pods/", after=0) as watch:
        for number in range(4):
            await put(store, f"pods/default/{number}")
        with pytest.raises(Overrun):
            await watch.next()


async def test_a_watch_that_is_nudged_answers_nothing_and_misses_nothing(store: Store) -> None:
    async with store.watch("pods/", after=0) as watch:
        waiting = asyncio.ensure_future(watch.next())
        await asyncio.sleep(0)
        watch.nudge()
        assert await waiting == ()
        await put(store, "pods/default/a")
        watch.nudge()
        assert await watch.next() == ()
        assert [event.key for event in await watch.next()] == ["pods/default/a"]


async def test_history_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "EVENTS_KEPT_MAX", 10)
    monkeypatch.setattr(history, "EVENTS_SLACK", 5)
    for number in range(40):
        await put(store, "pods/default/a", str(number))
    with pytest.raises(Compacted):
        store.watch("pods/", after=10)
    store.watch("pods/", after=store.revision - 5)


async def test_what_was_encoded_for_old_events_is_not_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MEMOS_KEPT_MAX", 2)
    async with store.watch("pods/", after=0) as watch:
        events = []
        for number in range(4):
            await put(store, f"pods/default/{number}")
            for event in await watch.next():
                event.memo["line"] = event.value
                events.append(event)
        assert [bool(event.memo) for event in events] == [False, False, True, True]


async def test_wait_for_a_revision(store: Store) -> None:
    assert await store.wait_for(store.revision, 0)
    assert not await store.wait_for(store.revision + 1, 0.01)
    waiting = asyncio.create_task(store.wait_for(store.revision + 1, 5))
    await put(store, "pods/default/a")
    assert await waiting


def floor(value: bytes) -> str:
    return value[-4:-3].decode()


async def test_a_watch_of_a_part_is_told_of_what_begins_or_ends_there_and_of_nothing_else(store: Store) -> None:
    async with store.watch("pods/", after=0, part=Part(floor, "2")) as watch:
        for text in ("1", "2", "3", "1"):
            await put(store, "pods/default/a", text)
        await put(store, "pods/default/b", "1")
        await put(store, "pods/default/c", "2")
        await store.commit(Write("pods/default/c", None))
        told = [(event.kind, event.key, event.revision) for event in watch.take()]
        assert told == [
            (Kind.MODIFIED, "pods/default/a", 2),
            (Kind.MODIFIED, "pods/default/a", 3),
            (Kind.ADDED, "pods/default/c", 6),
            (Kind.DELETED, "pods/default/c", 7),
        ]
        await put(store, "pods/default/b", "3")
        assert watch.take() == ()
        assert watch.revision == store.revision
    await put(store, "pods/default/d", "2")
    assert watch.take() == ()


@pytest.mark.parametrize("part", [None, Part(floor, "2")])
async def test_closing_ends_watches(store: Store, part: Part | None) -> None:
    async with store.watch("pods/", after=0, part=part) as watch:
        waiting = asyncio.create_task(watch.next())  # type: ignore[arg-type]
        await asyncio.sleep(0)
        await store.close()
        with pytest.raises(StoreFailure):
            await waiting


async def test_any_order_of_writes_agrees_with_a_model(store: Store) -> None:
    chance = random.Random(36)
    model: dict[str, int] = {}
    states: dict[int, dict[str, int]] = {0: {}}
    async with store.watch("pods/", after=0) as watch:
        for _ in range(300):
            key = f"pods/ns{chance.randrange(3)}/{chance.randrange(8)}"
            expect = chance.choice((None, model.get(key, 0), 1))
            erase = chance.random() < 0.3
            right = (expect is None or expect == model.get(key, 0)) and not (erase and key not in model)
            write = Write(key, None if erase else value("x"), expect)
            if not right:
                with pytest.raises(Mismatch):
                    await store.commit(write)
                continue
            revision = await store.commit(write)
            model.pop(key, None)
            if not erase:
                model[key] = revision
            states[revision] = dict(model)
        replayed: dict[str, int] = {}
        while watch.revision < store.revision or replayed != model:
            for event in await watch.next():
                replayed.pop(event.key, None)
                if event.kind is not Kind.DELETED:
                    replayed[event.key] = event.revision
                assert replayed == states[event.revision]
    for revision, state in list(states.items())[1:]:
        seen = await store.range("pods/", revision=revision)
        assert [(record.key, record.revision) for record in seen.records] == sorted(state.items())
