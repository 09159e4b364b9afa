"""The embedded store: a log of writes in SQLite, durable to the disk, with one fsync shared by all who wait for it.

The log is one table: every write with its revision. Reads never touch it: state and recent history live in memory
(`History`) and are rebuilt from the log at start. A write goes

    commit()  checks preconditions, takes a revision           (event loop)
    writer    one transaction for all that has queued up, fsync (its own thread)
    apply     becomes visible, watchers are told, commit returns (event loop)

WAL with synchronous=FULL: a returned commit survives power loss (https://sqlite.org/pragma.html#pragma_synchronous).
Writes that nobody can ask for any more are deleted from the log in the same transactions.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path

from msgspec import Struct

from knarr.store.contract import FutureRevision, StoreFailure, Write
from knarr.store.history import Dead
from knarr.store.local import LocalStore

BATCH_MAX = 512
"""Commits in one transaction: bounds how long the first of them waits for the last."""

QUEUE_MAX = 10_000
"""Commits that wait for the disk; more are refused."""

ROWS_MAX = 1_000
"""Rows of one INSERT."""

WAL_PAGES_MAX = 4_000
"""The WAL is folded into the database when it has grown to this many pages of 4 KiB."""

FORMAT = 1
"""Version of the table layout (PRAGMA user_version)."""


class _Commit(Struct):
    revision: int
    writes: Sequence[Write]
    done: asyncio.Future[int]


class SQLiteStore(LocalStore):
    """A store in the file `path`. Open it with `await SQLiteStore.open(path)`; one process at a time."""

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self._path = str(path)
        self._next = 0
        self._pending: dict[str, asyncio.Future[int]] = {}
        """The write of each key that is on its way to the disk."""
        self._queue: list[_Commit] = []
        self._dead: list[Dead] = []
        self._left: list[Dead] = []
        """Of the writer: what a failed transaction was to erase; the next one does."""
        self._wanted = threading.Condition()
        self._closing = False
        self._writer: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @classmethod
    async def open(cls, path: str | Path) -> SQLiteStore:
        """Open or make the store. Raises StoreFailure when the file is no store, or is held by another process."""
        store = cls(path)
        store._loop = asyncio.get_running_loop()
        opened: asyncio.Future[None] = store._loop.create_future()
        store._writer = threading.Thread(target=store._run_writer, args=(opened,), name="store writer", daemon=True)
        store._writer.start()
        await opened
        store._next = store.history.revision + 1
        return store

    async def commit(self, *writes: Write) -> int:
        while busy := [self._pending[write.key] for write in writes if write.key in self._pending]:
            await asyncio.wait(busy)
        if self._closing:
            raise StoreFailure("the store is closed")
        if len(self._queue) >= QUEUE_MAX:
            raise StoreFailure(f"more than {QUEUE_MAX} commits wait for the disk")
        self.history.check(writes)
        assert self._loop is not None
        done: asyncio.Future[int] = self._loop.create_future()
        done.add_done_callback(_retrieve)
        commit = _Commit(self._next, writes, done)
        self._next += 1
        for write in writes:
            self._pending[write.key] = done
        with self._wanted:
            self._queue.append(commit)
            self._wanted.notify()
        return await asyncio.shield(done)

    async def compact(self, revision: int) -> None:
        if revision > self.history.revision:
            raise FutureRevision(revision, self.history.revision)
        dead = self.history.compact(revision)
        with self._wanted:
            self._dead += dead
            self._wanted.notify()

    def size_bytes(self) -> int:
        found = 0
        for path in (self._path, f"{self._path}-wal"):
            with suppress(FileNotFoundError):
                found += os.stat(path).st_size
        return found

    async def close(self) -> None:
        """Finish what is queued, fold the WAL into the database, let go of the file."""
        self._closing = True
        with self._wanted:
            self._wanted.notify()
        if self._writer:
            await asyncio.to_thread(self._writer.join)
        # The writer's last reports are on their way to this loop.
        await asyncio.sleep(0)
        self.history.close()

    def _committed(self, commits: Sequence[_Commit]) -> None:
        for commit in commits:
            dead = self.history.apply(commit.revision, commit.writes)
            if dead:
                with self._wanted:
                    self._dead += dead
            self._settle(commit)
            if not commit.done.done():
                commit.done.set_result(commit.revision)

    def _failed(self, commits: Sequence[_Commit], reason: str) -> None:
        for commit in commits:
            self._settle(commit)
            if not commit.done.done():
                commit.done.set_exception(StoreFailure(reason))

    def _settle(self, commit: _Commit) -> None:
        for write in commit.writes:
            if self._pending.get(write.key) is commit.done:
                del self._pending[write.key]

    # What follows runs in the writer's thread.

    def _run_writer(self, opened: asyncio.Future[None]) -> None:
        assert self._loop is not None
        try:
            database = self._connect()
            self._load(database)
        except (sqlite3.Error, ValueError) as error:
            self._loop.call_soon_threadsafe(opened.set_exception, StoreFailure(f"{self._path}: {error}"))
            return
        self._loop.call_soon_threadsafe(opened.set_result, None)
        try:
            while self._write_batch(database):
                pass
        finally:
            database.close()

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path, isolation_level=None)
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES_MAX}")
        (found,) = database.execute("PRAGMA user_version").fetchone()
        if found not in (0, FORMAT):
            raise ValueError(f"written by another version of knarr (format {found}, this one reads {FORMAT})")
        database.execute("BEGIN IMMEDIATE")
        database.execute(
            "CREATE TABLE IF NOT EXISTS log"
            " (revision INTEGER NOT NULL, key TEXT NOT NULL, value BLOB, PRIMARY KEY (revision, key)) WITHOUT ROWID"
        )
        database.execute("CREATE TABLE IF NOT EXISTS mark (name TEXT PRIMARY KEY, revision INTEGER NOT NULL)")
        database.execute(f"PRAGMA user_version = {FORMAT}")
        database.execute("COMMIT")
        return database

    def _load(self, database: sqlite3.Connection) -> None:
        marks = dict(database.execute("SELECT name, revision FROM mark"))
        self.history.oldest = marks.get("compacted", 0)
        for revision, key, value in database.execute("SELECT revision, key, value FROM log ORDER BY revision, key"):
            self._dead += self.history.restore(revision, Write(key, value))
        self.history.revision = max(self.history.revision, marks.get("newest", 0))

    def _write_batch(self, database: sqlite3.Connection) -> bool:
        """Wait for commits, write them in one transaction. False when the store closes and nothing is left."""
        with self._wanted:
            while not self._queue and not self._dead and not self._closing:
                self._wanted.wait()
            commits = self._queue[:BATCH_MAX]
            del self._queue[:BATCH_MAX]
            dead, self._dead = self._dead, []
        if not commits and not dead:
            return False
        dead, self._left = [*self._left, *dead], []
        assert self._loop is not None
        try:
            self._transact(database, commits, dead)
        except sqlite3.Error as error:
            if database.in_transaction:
                database.execute("ROLLBACK")
            self._loop.call_soon_threadsafe(self._failed, commits, f"{self._path}: {error}")
            self._left = dead
        else:
            if commits:
                self._loop.call_soon_threadsafe(self._committed, commits)
        return True

    def _transact(self, database: sqlite3.Connection, commits: Sequence[_Commit], dead: Sequence[Dead]) -> None:
        """All or nothing. Commits alone are one statement, which is a transaction by itself.

        Between statements this thread has to wait for the event loop's, which is busy when there is much to write.
        """
        rows = [(commit.revision, write.key, write.value) for commit in commits for write in commit.writes]
        if not dead and len(rows) <= ROWS_MAX:
            self._insert(database, rows)
            return
        database.execute("BEGIN IMMEDIATE")
        for start in range(0, len(rows), ROWS_MAX):
            self._insert(database, rows[start : start + ROWS_MAX])
        if dead:
            self._erase(database, dead)
        database.execute("COMMIT")

    def _insert(self, database: sqlite3.Connection, rows: Sequence[tuple[int, str, bytes | None]]) -> None:
        places = ",".join(["(?,?,?)"] * len(rows))
        database.execute(f"INSERT INTO log (revision, key, value) VALUES {places}", list(chain.from_iterable(rows)))

    def _erase(self, database: sqlite3.Connection, dead: Sequence[Dead]) -> None:
        database.executemany(
            "DELETE FROM log WHERE revision = ? AND key = ?", [(row.revision, row.key) for row in dead]
        )
        marks = (("compacted", self.history.oldest), ("newest", self.history.revision))
        database.executemany("INSERT OR REPLACE INTO mark (name, revision) VALUES (?, ?)", marks)


def _retrieve(future: asyncio.Future[int]) -> None:
    """A caller that was cancelled leaves its commit's failure unread: that is no fault."""
    if not future.cancelled():
        future.exception()
