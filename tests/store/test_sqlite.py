"""Durability of the SQLite engine: what a crash, a restart and a full disk leave behind."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from knarr.store import history
from knarr.store.contract import Compacted, StoreFailure, Write
from knarr.store.sqlite import SQLiteStore
from tests.store.writer import CLIENTS, written_until_killed

CRASHES = 100


def value(text: str) -> bytes:
    return b'{"metadata":{"name":"%b"}}' % text.encode()


async def test_a_restart_brings_back_state_and_history(tmp_path: Path) -> None:
    store = await SQLiteStore.open(tmp_path / "store.db")
    first = await store.commit(Write("pods/default/a", value("1")))
    await store.commit(Write("pods/default/a", value("2")))
    await store.commit(Write("pods/default/b", value("1")))
    last = await store.commit(Write("pods/default/b", None))
    before = await store.range("pods/")
    await store.close()
    store = await SQLiteStore.open(tmp_path / "store.db")
    assert await store.range("pods/") == before
    assert store.revision == last
    async with store.watch("pods/", after=first) as watch:
        assert [(event.key, event.revision - first) for event in await watch.next()] == [
            ("pods/default/a", 1),
            ("pods/default/b", 2),
            ("pods/default/b", 3),
        ]
    assert await store.commit(Write("pods/default/c", value("1"))) == last + 1
    await store.close()


async def test_compaction_shrinks_the_log_and_survives_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "EVENTS_KEPT_MAX", 10)
    monkeypatch.setattr(history, "EVENTS_SLACK", 5)
    store = await SQLiteStore.open(tmp_path / "store.db")
    await store.commit(Write("pods/default/still", value("1")))
    for number in range(50):
        await store.commit(Write("pods/default/a", value(str(number))))
        await store.commit(Write("pods/default/gone", value(str(number))))
        await store.commit(Write("pods/default/gone", None))
    before, revision, oldest = await store.range("pods/"), store.revision, store.history.oldest
    await store.close()
    with sqlite3.connect(tmp_path / "store.db") as database:
        (rows,) = database.execute("SELECT count(*) FROM log").fetchone()
    database.close()
    assert rows <= 10 + 5 + 2 + 2
    store = await SQLiteStore.open(tmp_path / "store.db")
    assert (await store.range("pods/"), store.revision, store.history.oldest) == (before, revision, oldest)
    with pytest.raises(Compacted):
        store.watch("pods/", after=oldest - 1)
    await store.close()


async def test_revisions_never_go_back_even_when_all_is_deleted_and_compacted(tmp_path: Path) -> None:
    store = await SQLiteStore.open(tmp_path / "store.db")
    await store.commit(Write("pods/default/a", value("1")))
    last = await store.commit(Write("pods/default/a", None))
    await store.compact(last)
    await store.close()
    store = await SQLiteStore.open(tmp_path / "store.db")
    assert store.revision == last
    await store.close()


async def test_a_second_process_is_told_that_the_store_is_held(tmp_path: Path) -> None:
    store = await SQLiteStore.open(tmp_path / "store.db")
    script = (
        "import asyncio, functools, sqlite3, sys\n"
        "from knarr.store.sqlite import SQLiteStore\n"
        "sqlite3.connect = functools.partial(sqlite3.connect, timeout=0.1)  # it would wait 5 s\n"
        "asyncio.run(SQLiteStore.open(sys.argv[1]))\n"
    )
    result = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", script, str(tmp_path / "store.db")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "database is locked" in result.stderr
    await store.close()


async def test_a_file_that_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_bytes(b"not a database at all, but long enough to look like one" * 30)
    with pytest.raises(StoreFailure, match=r"store\.db"):
        await SQLiteStore.open(tmp_path / "store.db")


async def test_a_full_disk_fails_the_write_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = SQLiteStore._connect

    def small(self: SQLiteStore) -> sqlite3.Connection:
        database = connect(self)
        database.execute("PRAGMA max_page_count = 20")
        return database

    monkeypatch.setattr(SQLiteStore, "_connect", small)
    store = await SQLiteStore.open(tmp_path / "store.db")
    kept = await store.commit(Write("pods/default/a", value("1")))
    with pytest.raises(StoreFailure, match="full"):
        await store.commit(Write("pods/default/a", value("x" * 200_000)))
    record = await store.get("pods/default/a")
    assert record
    assert record.revision == kept
    assert await store.commit(Write("pods/default/a", value("2"), kept)) > kept
    await store.close()


async def rows_of(path: Path) -> list[tuple[int, str]]:
    with sqlite3.connect(path) as database:
        rows = database.execute("SELECT revision, key FROM log ORDER BY revision, key").fetchall()
    database.close()
    return rows


async def test_what_a_failed_transaction_did_not_erase_the_next_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await SQLiteStore.open(tmp_path / "store.db")
    await store.commit(Write("pods/default/a", value("1")))
    last = await store.commit(Write("pods/default/a", value("2")))
    erase = SQLiteStore._erase
    failed = asyncio.Event()
    loop = asyncio.get_running_loop()

    def fail(self: SQLiteStore, database: sqlite3.Connection, dead: object) -> None:
        loop.call_soon_threadsafe(failed.set)
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(SQLiteStore, "_erase", fail)
    await store.compact(last)
    await failed.wait()
    monkeypatch.setattr(SQLiteStore, "_erase", erase)
    other = await store.commit(Write("pods/default/b", value("1")))
    await store.close()
    assert await rows_of(tmp_path / "store.db") == [(last, "pods/default/a"), (other, "pods/default/b")]


async def test_what_a_crash_left_in_the_log_for_no_use_is_erased_after_the_start(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = await SQLiteStore.open(path)
    await store.commit(Write("pods/default/a", value("1")))
    await store.commit(Write("pods/default/gone", value("1")))
    await store.commit(Write("pods/default/gone", None))
    last = await store.commit(Write("pods/default/a", value("2")))
    await store.close()
    with sqlite3.connect(path) as database:
        database.execute("INSERT INTO mark (name, revision) VALUES ('compacted', ?)", (last,))
    database.close()
    store = await SQLiteStore.open(path)
    assert [record.key for record in (await store.range("pods/")).records] == ["pods/default/a"]
    await store.close()
    assert await rows_of(path) == [(last, "pods/default/a")]


async def test_a_commit_of_more_rows_than_a_statement_takes_is_one_transaction(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = await SQLiteStore.open(path)
    revision = await store.commit(*(Write(f"pods/default/{number:04}", value("1")) for number in range(2_500)))
    await store.close()
    assert {row[0] for row in await rows_of(path)} == {revision}
    assert len(await rows_of(path)) == 2_500


async def test_kill_minus_9_loses_no_acknowledged_write_and_halves_none(tmp_path: Path) -> None:
    """Each of CRASHES rounds: clients write pairs of keys, the process is killed, the store is opened and checked."""
    path = tmp_path / "store.db"
    for round_number in range(CRASHES):
        acknowledged = await asyncio.to_thread(written_until_killed, path, 1 + round_number % 37)
        store = await SQLiteStore.open(path)
        for client, (_, revision) in acknowledged.items():
            left, right = await store.get(f"pods/{client}/left"), await store.get(f"pods/{client}/right")
            assert left
            assert right
            assert left.revision == right.revision >= revision
        for client in range(CLIENTS):
            left, right = await store.get(f"pods/{client}/left"), await store.get(f"pods/{client}/right")
            assert (left and left.value) == (right and right.value)
        await store.close()
