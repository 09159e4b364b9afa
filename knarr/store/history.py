"""The state and recent history of a store, in memory: what reads and watches are served from.

Everything that is stored now, as its encoded bytes, and the last EVENTS_KEPT_MAX events with the values before them, so
that a read at an older revision is the present with the later events undone. Engines call `apply` once a commit is
durable, never before.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable, Sequence
from operator import attrgetter

from msgspec import Struct

from knarr.store.contract import (
    Compacted,
    Event,
    FutureRevision,
    Kind,
    Mismatch,
    Overrun,
    Part,
    Range,
    Record,
    StoreFailure,
    Write,
    stamp,
)

EVENTS_KEPT_MAX = 10_000
"""Events kept for watches that resume and for reads at a revision; older ones are compacted away."""

EVENTS_SLACK = 1_000
"""Compaction runs when this many more have come, so that its cost is shared."""

MEMOS_KEPT_MAX = 1_000
"""Events whose encoded lines are kept; who is told of older ones is far behind, and rare. Half of an event's memory."""

WATCH_BACKLOG_MAX = 10_000
"""Events that wait for one watcher before it is ended with Overrun."""

_revision_of = attrgetter("revision")


class Dead(Struct, frozen=True):
    """A stored write that no read and no watch can ask for any more."""

    revision: int
    key: str


class History:
    """State, history and watchers of one store. Used from one event loop only."""

    def __init__(self) -> None:
        self.revision = 0
        self.oldest = 0
        """The compacted revision: history begins above it, and reads are possible from it on."""
        self._records: dict[str, Record] = {}
        self._keys: dict[str, list[str]] = {}
        """The keys of each resource, in order."""
        self._events: list[Event] = []
        self._before: dict[Event, int] = {}
        """The revision of the write that an event replaced."""
        self._watches: dict[str, dict[LiveWatch, None]] = {}
        """By resource, in the order of their coming: a run must be the same each time that it is played."""
        self._parts: dict[str, dict[Callable[[bytes], str], dict[str, dict[LiveWatch, None]]]] = {}
        """Those of one place only, by resource, division and place."""
        self._waiting: list[tuple[int, asyncio.Future[bool]]] = []
        self._closed = False

    @property
    def closed(self) -> bool:
        return self._closed

    def get(self, key: str) -> Record | None:
        return self._records.get(key)

    def range(self, prefix: str, *, revision: int = 0, after: str = "", limit: int = 0) -> Range:
        if revision and revision != self.revision:
            self._check_window(revision)
            records = self._records_at(prefix, revision)
            keys = sorted(key for key in records if key > after)
        else:
            revision, records = self.revision, self._records
            keys = self._keys_of(prefix, after)
        shown = keys[:limit] if limit else keys
        remaining = len(keys) - len(shown)
        return Range([records[key] for key in shown], revision, remaining > 0, remaining)

    def check(self, writes: Sequence[Write]) -> None:
        """Raise Mismatch unless every precondition holds."""
        for write in writes:
            record = self._records.get(write.key)
            current = record.revision if record else 0
            if (write.expect is not None and write.expect != current) or (write.value is None and not record):
                raise Mismatch(write.key, record)

    def apply(self, revision: int, writes: Sequence[Write]) -> list[Dead]:
        """Make a durable commit visible, tell the watchers, and answer what its coming has made unreachable."""
        assert revision > self.revision, f"revision {revision} after {self.revision}"
        self.revision = revision
        for write in writes:
            event = self._change(revision, write)
            for watch in self._concerned(event):
                watch.offer(event)
        self._wake()
        if len(self._events) >= EVENTS_KEPT_MAX + EVENTS_SLACK:
            return self.compact(self._events[len(self._events) - EVENTS_KEPT_MAX - 1].revision)
        return []

    def restore(self, revision: int, write: Write) -> list[Dead]:
        """Take over a write from an engine's log at start, in order; those above `oldest` become history.

        Answers what is in the log for no use, because a crash came before it was erased.
        """
        self.revision = max(self.revision, revision)
        if revision > self.oldest:
            self._change(revision, write)
            return []
        before = self._records.get(write.key)
        dead = [Dead(before.revision, before.key)] if before else []
        if write.value is None:
            self._drop(write.key)
            dead.append(Dead(revision, write.key))
        else:
            self._put(Record(write.key, stamp(write.value, revision), revision))
        return dead

    def compact(self, revision: int) -> list[Dead]:
        """Forget history up to `revision`; answers the stored writes that nobody can ask for any more."""
        if revision > self.revision:
            raise FutureRevision(revision, self.revision)
        end = bisect_right(self._events, revision, key=_revision_of)
        dead = []
        for event in self._events[:end]:
            replaced = self._before.pop(event, 0)
            if replaced:
                dead.append(Dead(replaced, event.key))
            if event.kind is Kind.DELETED:
                dead.append(Dead(event.revision, event.key))
        del self._events[:end]
        self.oldest = max(self.oldest, revision)
        return dead

    def watch(self, prefix: str, after: int, part: Part | None = None) -> LiveWatch:
        self._check_window(after)
        if self._closed:
            raise StoreFailure("the store is closed")
        watch = LiveWatch(self, prefix, part)
        start = bisect_right(self._events, after, key=_revision_of)
        watch.backlog.extend(event for event in self._events[start:] if event.key.startswith(prefix))
        watch.handed_out = after
        return watch

    async def wait_for(self, revision: int, timeout_s: float) -> bool:
        if self.revision >= revision:
            return True
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((revision, future))
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            return False

    def close(self) -> None:
        """End every watch and every wait."""
        self._closed = True
        divided = (
            watches for divisions in self._parts.values() for at in divisions.values() for watches in at.values()
        )
        for watch in [watch for watches in (*self._watches.values(), *divided) for watch in watches]:
            watch.fail(StoreFailure("the store is closed"))
        for _, future in self._waiting:
            if not future.done():
                future.set_result(False)

    def _check_window(self, revision: int) -> None:
        if revision < self.oldest:
            raise Compacted(revision, self.oldest)
        if revision > self.revision:
            raise FutureRevision(revision, self.revision)

    def _change(self, revision: int, write: Write) -> Event:
        before = self._records.get(write.key)
        previous = before.value if before else None
        if write.value is None:
            assert before is not None, f"deletion of the absent {write.key}"
            self._drop(write.key)
            event = Event(Kind.DELETED, write.key, revision, _restamp(before, revision), previous, {})
        else:
            record = Record(write.key, stamp(write.value, revision), revision)
            self._put(record)
            kind = Kind.MODIFIED if before else Kind.ADDED
            event = Event(kind, write.key, revision, record.value, previous, {})
        if before:
            self._before[event] = before.revision
        self._events.append(event)
        if len(self._events) > MEMOS_KEPT_MAX:
            self._events[-MEMOS_KEPT_MAX - 1].memo.clear()
        return event

    def _put(self, record: Record) -> None:
        if record.key not in self._records:
            insort(self._keys.setdefault(_resource_of(record.key), []), record.key)
        self._records[record.key] = record

    def _drop(self, key: str) -> None:
        if self._records.pop(key, None):
            keys = self._keys[_resource_of(key)]
            del keys[bisect_left(keys, key)]

    def _keys_of(self, prefix: str, after: str) -> list[str]:
        keys = self._keys.get(_resource_of(prefix), [])
        start = bisect_left(keys, prefix)
        if after >= prefix:
            start = max(start, bisect_right(keys, after))
        return keys[start : bisect_left(keys, _end_of(prefix), lo=start)]

    def _records_at(self, prefix: str, revision: int) -> dict[str, Record]:
        """The records of a prefix as they were: the present with what came later undone, newest first."""
        records = {key: self._records[key] for key in self._keys_of(prefix, "")}
        for event in reversed(self._events):
            if event.revision <= revision:
                break
            if not event.key.startswith(prefix):
                continue
            if event.previous is None:
                records.pop(event.key, None)
            else:
                records[event.key] = Record(event.key, event.previous, self._before[event])
        return records

    def _wake(self) -> None:
        if not self._waiting:
            return
        for wanted, future in self._waiting:
            if wanted <= self.revision and not future.done():
                future.set_result(True)
        self._waiting = [(wanted, future) for wanted, future in self._waiting if not future.done()]

    def _concerned(self, event: Event) -> list[LiveWatch]:
        """The watches that an event of their resource may be about."""
        resource = _resource_of(event.key)
        found = list(self._watches.get(resource, ()))
        for place_of, places in self._parts.get(resource, {}).items():
            values = (event.value,) if event.previous is None else (event.previous, event.value)
            for place in dict.fromkeys(map(place_of, values)):
                found += places.get(place, ())
        return found

    def _join(self, watch: LiveWatch) -> None:
        resource, part = _resource_of(watch.prefix), watch.part
        if part is None:
            self._watches.setdefault(resource, {})[watch] = None
        else:
            places = self._parts.setdefault(resource, {}).setdefault(part.place_of, {})
            places.setdefault(part.place, {})[watch] = None

    def _leave(self, watch: LiveWatch) -> None:
        resource, part = _resource_of(watch.prefix), watch.part
        if part is None:
            self._watches.get(resource, {}).pop(watch, None)
            return
        places = self._parts[resource][part.place_of]
        if watch in places.get(part.place, ()):
            del places[part.place][watch]
            if not places[part.place]:
                del places[part.place]


class LiveWatch:
    """One running watch (see contract.Watch)."""

    def __init__(self, history: History, prefix: str, part: Part | None = None) -> None:
        self.prefix = prefix
        self.part = part
        self.backlog: deque[Event] = deque()
        self.handed_out = 0
        self._history = history
        self._failure: StoreFailure | None = None
        self._nudged = False
        self._wake: asyncio.Future[None] | None = None
        history._join(self)

    async def __aenter__(self) -> LiveWatch:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._history._leave(self)

    @property
    def revision(self) -> int:
        if self.backlog or self._failure:
            return self.handed_out  # A watch that has ended missed what came after.
        return max(self.handed_out, self._history.revision)

    async def next(self) -> Sequence[Event]:
        while not self.backlog and not self._nudged:
            if self._failure:
                raise self._failure
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake
        if self._nudged:
            self._nudged = False
            return ()
        return self.take()

    def nudge(self) -> None:
        self._nudged = True
        self._rouse()

    def take(self) -> Sequence[Event]:
        if not self.backlog:
            if self._failure:
                raise self._failure
            return ()
        batch = tuple(self.backlog)
        self.backlog.clear()
        self.handed_out = batch[-1].revision
        return batch

    def offer(self, event: Event) -> None:
        """A new event of this watch's resource, and of its part."""
        if not event.key.startswith(self.prefix) or self._failure:
            return
        if len(self.backlog) >= WATCH_BACKLOG_MAX:
            self.backlog.clear()
            self.fail(Overrun(f"more than {WATCH_BACKLOG_MAX} events wait for this watcher"))
            return
        self.backlog.append(event)
        self._rouse()

    def fail(self, failure: StoreFailure) -> None:
        self._failure = failure
        self._history._leave(self)
        self._rouse()

    def _rouse(self) -> None:
        if self._wake and not self._wake.done():
            self._wake.set_result(None)


def _resource_of(key: str) -> str:
    """pods in pods/default/web."""
    return key.partition("/")[0]


def _end_of(prefix: str) -> str:
    """The first string behind all that begin with `prefix`."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


def _restamp(record: Record, revision: int) -> bytes:
    """The value of a record, as of its deletion."""
    old = b'"resourceVersion":"%d"' % record.revision
    return record.value.replace(old, b'"resourceVersion":"%d"' % revision, 1)
