"""Watches: the changes of a selection, as lines of JSON, from any revision that history still holds.

An event is encoded once for all its watchers. A change that moves an object into or out of a selection is told as ADDED
or DELETED. Bookmarks say how far a quiet watch has come. A watch that can't go on ends with an ERROR event (410).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import aclosing
from typing import Any, cast

import msgspec

from knarr.api.errors import APIError, Cause, Expired, Timeout
from knarr.api.resources import Resource
from knarr.apiserver import forms
from knarr.apiserver.calls import presented
from knarr.apiserver.forms import Accepted, Form
from knarr.apiserver.list_options import WatchOptions
from knarr.apiserver.selection import Selection
from knarr.client.transport import Socket
from knarr.clock import Clock, until_one_ends
from knarr.figures import Distribution, Figure, exponential
from knarr.store.contract import (
    Compacted,
    Event,
    FutureRevision,
    Kind,
    Overrun,
    Store,
    StoreFailure,
    Watch,
)

BOOKMARK_PERIOD_S = 60.0
CHUNK_BYTES = 256 << 10
"""What is told at once when much has come; then the client is waited for, if it reads slowly."""
TIMEOUT_MIN_S = 1800
"""A watch without timeoutSeconds ends after this, and up to as much more (upstream's min-request-timeout)."""
FUTURE_WAIT_S = 3.0
"""How long a revision that has not happened yet is waited for."""
INITIAL_EVENTS_END = "k8s.io/initial-events-end"


EVENT_SIZE_BOUNDS_BYTES = exponential(1024, 2, 8)


class WatchCounts:
    """The events that watches were told, by kind."""

    def __init__(self) -> None:
        self._sizes: dict[tuple[str, str, str], Distribution] = {}

    def of(self, resource: Resource) -> Distribution:
        key = resource.group, resource.version, resource.plural
        if key not in self._sizes:
            self._sizes[key] = Distribution(EVENT_SIZE_BOUNDS_BYTES)
        return self._sizes[key]

    def figures(self) -> Iterator[Figure]:
        labels = "group", "version", "resource"
        counts = {key: sum(each.counts) for key, each in self._sizes.items()}
        yield Figure("counter", "apiserver_watch_events_total", "Events that watches were told.", labels, counts)
        yield Figure("histogram", "apiserver_watch_events_sizes", "Their sizes in bytes.", labels, self._sizes)


class Watcher:
    """One watch of one client."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        selection: Selection,
        options: WatchOptions,
        accepted: Accepted,
        include: str,
        told: Distribution,
    ) -> None:
        """`told` counts the events by their size."""
        self._store = store
        self._clock = clock
        self._selection = selection
        self._options = options
        self._form = accepted.form
        self._version = accepted.version
        self._include = include
        self._sizes = told
        resource = selection.resource
        self._key = f"{accepted.form.value} {accepted.version} {include} {resource.group_version} {resource.kind}"
        """Watches with the same one are told the same lines."""
        self._headers = accepted.form is Form.TABLE
        """Whether the columns of the table have still to be told: once a watch is enough."""

    async def stream(self) -> AsyncIterator[bytes]:
        """Begin, so that faults are raised now; the answer yields chunks of whole lines."""
        wanted, initial_events = self._options.revision, self._options.initial_events
        initial: Sequence[bytes] = ()
        if wanted and wanted > self._store.revision and not await self._store.wait_for(wanted, FUTURE_WAIT_S):
            raise too_large(wanted, self._store.revision)
        if initial_events or (initial_events is None and not wanted):
            listed = await self._store.range(self._selection.prefix)
            initial = [record.value for record in listed.records if self._selection.holds(record.value)]
            wanted = listed.revision
        wanted = wanted or self._store.revision
        try:
            watch = self._store.watch(self._selection.prefix, after=wanted, part=self._selection.part)
        except Compacted as gone:
            expired = Expired(f"too old resource version: {wanted} ({gone.oldest})")
            return _single(_line("ERROR", msgspec.json.encode(expired.status())))
        except FutureRevision as early:
            raise too_large(wanted, early.current) from None
        return self._chunks(watch, initial, wanted)

    async def _chunks(self, watch: Watch, initial: Sequence[bytes], revision: int) -> AsyncIterator[bytes]:
        timeout_s = self._options.timeout_s or TIMEOUT_MIN_S * (1 + self._clock.random.random())
        deadline_s = self._clock.monotonic_s() + timeout_s
        async with watch:
            for piece in _pieces((self._line(Kind.ADDED, value) for value in initial), self._sizes):
                yield piece
            if self._options.initial_events and self._options.bookmarks:
                yield self._bookmark(revision, end=True)
            period_s = min(timeout_s, BOOKMARK_PERIOD_S)
            timer = asyncio.get_running_loop().call_later(period_s, watch.nudge)
            try:
                while True:
                    events = await watch.next()
                    if not events:  # a period is over
                        period_s = min(deadline_s - self._clock.monotonic_s(), BOOKMARK_PERIOD_S)
                        if period_s <= 0:
                            return
                        timer = asyncio.get_running_loop().call_later(period_s, watch.nudge)
                        if self._options.bookmarks:
                            yield self._bookmark(watch.revision)
                    for piece in _pieces(map(self._told, events), self._sizes):
                        yield piece
            except Overrun as slow:
                yield _line("ERROR", msgspec.json.encode(Expired(f"too old resource version: {slow}").status()))
            except StoreFailure:
                return
            finally:
                timer.cancel()

    def _told(self, event: Event) -> bytes:
        """The line for an event; empty when it doesn't concern this watch."""
        if self._selection.everything:
            return self._shared(event)
        holds = self._selection.holds
        was = event.previous is not None and holds(event.previous, event.memo, "old")
        now = event.kind is not Kind.DELETED and holds(event.value, event.memo, "new")
        if now and was:
            return self._shared(event)
        if now:
            return self._shared(event) if event.kind is Kind.ADDED else self._line(Kind.ADDED, event.value)
        if was and event.kind is Kind.DELETED:
            return self._shared(event)
        if was and event.previous is not None:
            return self._line(Kind.DELETED, _as_of(event.previous, event.revision))
        return b""

    def _shared(self, event: Event) -> bytes:
        if self._headers:
            return self._line(event.kind, event.value)
        line = event.memo.get(self._key)
        if line is None:
            line = event.memo[self._key] = self._line(event.kind, event.value)
        assert isinstance(line, bytes)
        return line

    def _line(self, kind: Kind, value: bytes) -> bytes:
        resource = self._selection.resource
        value = presented(resource, value)
        if self._form is Form.TABLE:
            headers, self._headers = self._headers, False
            value = forms.table_of_one(
                resource, value, self._clock.time_s(), self._include, version=self._version, headers=headers
            )
        elif self._form is Form.METADATA:
            value = forms.metadata_only(value, self._version)
        return _line(kind, value)

    def _bookmark(self, revision: int, *, end: bool = False) -> bytes:
        resource = self._selection.resource
        metadata: dict[str, object] = {"resourceVersion": str(revision), "creationTimestamp": None}
        if end:
            metadata["annotations"] = {INITIAL_EVENTS_END: "true"}
        bookmark = {"kind": resource.kind, "apiVersion": resource.group_version, "metadata": metadata}
        if self._form is Form.METADATA:
            bookmark |= {"kind": "PartialObjectMetadata", "apiVersion": f"meta.k8s.io/{self._version}"}
        elif self._form is Form.TABLE:
            headers, self._headers = self._headers, False
            value = msgspec.json.encode(bookmark)
            return _line(
                "BOOKMARK",
                forms.table_of_bookmark(resource, value, self._include, version=self._version, headers=headers),
            )
        return _line("BOOKMARK", msgspec.json.encode(bookmark))


def _pieces(lines: Iterable[bytes], sizes: Distribution) -> Iterator[bytes]:
    """Lines joined to pieces of about CHUNK_BYTES; none that is empty."""
    held: list[bytes] = []
    size = 0
    for line in lines:
        if not line:
            continue
        held.append(line)
        size += len(line)
        sizes.observe(len(line))
        if size >= CHUNK_BYTES:
            yield b"".join(held)
            held, size = [], 0
    if size:
        yield b"".join(held)


async def over_socket(stream: AsyncIterator[bytes], socket: Socket) -> None:
    """Carry a watch over a WebSocket, a message an event, until it ends or the client goes; nothing is read of it."""

    async def carry() -> None:
        async with aclosing(cast(Any, stream)):
            async for chunk in stream:
                for line in chunk.splitlines(keepends=True):
                    await socket.send(line)

    async def ignore() -> None:
        while await socket.receive() is not None:
            pass

    await until_one_ends(carry(), ignore())


def too_large(wanted: int, current: int) -> APIError:
    """A revision from the future (504)."""
    return Timeout(
        f"Timeout: Too large resource version: {wanted}, current: {current}",
        causes=[Cause("ResourceVersionTooLarge", "", "Too large resource version")],
        retry_after_s=1,
    )


def _line(kind: str, value: bytes) -> bytes:
    return b'{"type":"%b","object":%b}\n' % (kind.encode(), value)


def _as_of(value: bytes, revision: int) -> bytes:
    """An object's bytes with another resourceVersion."""
    start = value.index(b'"resourceVersion":"') + 19
    return value[:start] + str(revision).encode() + value[value.index(b'"', start) :]


async def _single(line: bytes) -> AsyncIterator[bytes]:
    yield line
