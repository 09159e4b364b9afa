"""Watches: the changes of a selection, as lines of JSON, from any revision that history still holds.

An event is encoded once for all its watchers. A change that moves an object into or out of a selection is told as ADDED
or DELETED. Bookmarks say how far a quiet watch has come. A watch that can't go on ends with an ERROR event (410).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from knarr.api.errors import APIError, Cause, Expired, Invalid, Timeout
from knarr.apiserver import forms
from knarr.apiserver.calls import presented
from knarr.apiserver.forms import Form
from knarr.apiserver.requests import flag, number, revision_of
from knarr.apiserver.selection import Selection
from knarr.clock import Clock
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
TIMEOUT_MIN_S = 1800
"""A watch without timeoutSeconds ends after this, and up to as much more (upstream's min-request-timeout)."""
FUTURE_WAIT_S = 3.0
"""How long a revision that has not happened yet is waited for."""
INITIAL_EVENTS_END = "k8s.io/initial-events-end"


@dataclass(slots=True)
class WatchOptions:
    """What the query asks for."""

    revision: int | None
    bookmarks: bool
    initial_events: bool
    timeout_s: float

    @classmethod
    def of(cls, query: Mapping[str, str], clock: Clock) -> WatchOptions:
        timeout_s = number(query, "timeoutSeconds")
        initial = query.get("sendInitialEvents")
        match = query.get("resourceVersionMatch")
        if initial is not None and match != "NotOlderThan":
            cause = Cause(
                "FieldValueForbidden",
                "resourceVersionMatch",
                "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            )
            raise Invalid.of("meta.k8s.io", "ListOptions", "", [cause])
        if initial is None and match:
            cause = Cause(
                "FieldValueForbidden", "resourceVersionMatch", "Forbidden: resourceVersionMatch is forbidden for watch"
            )
            raise Invalid.of("meta.k8s.io", "ListOptions", "", [cause])
        return cls(
            revision_of(query),
            flag(query, "allowWatchBookmarks"),
            initial is not None and initial.lower() == "true",
            timeout_s or TIMEOUT_MIN_S * (1 + clock.random.random()),
        )


class Watcher:
    """One watch of one client."""

    def __init__(
        self, store: Store, clock: Clock, selection: Selection, options: WatchOptions, form: Form, include: str
    ) -> None:
        self._store = store
        self._clock = clock
        self._selection = selection
        self._options = options
        self._form = form
        self._include = include

    async def stream(self) -> AsyncIterator[bytes]:
        """Begin, so that faults are raised now; the answer yields chunks of whole lines."""
        wanted = self._options.revision
        initial: Sequence[bytes] = ()
        if wanted and wanted > self._store.revision and not await self._store.wait_for(wanted, FUTURE_WAIT_S):
            raise too_large(wanted, self._store.revision)
        if not wanted or self._options.initial_events:
            listed = await self._store.range(self._selection.prefix)
            initial = [record.value for record in listed.records if self._selection.holds(record.value)]
            wanted = listed.revision
        try:
            watch = self._store.watch(self._selection.prefix, after=wanted)
        except Compacted as gone:
            return _single(_line("ERROR", msgspec.json.encode(_expired(gone).status())))
        except FutureRevision as early:
            raise too_large(wanted, early.current) from None
        return self._chunks(watch, initial, wanted)

    async def _chunks(self, watch: Watch, initial: Sequence[bytes], revision: int) -> AsyncIterator[bytes]:
        deadline_s = self._clock.monotonic_s() + self._options.timeout_s
        async with watch:
            if initial:
                yield b"".join(self._line(Kind.ADDED, value) for value in initial)
            if self._options.initial_events and self._options.bookmarks:
                yield self._bookmark(revision, end=True)
            try:
                while (left_s := deadline_s - self._clock.monotonic_s()) > 0:
                    try:
                        async with self._clock.timeout(min(left_s, BOOKMARK_PERIOD_S)):
                            events = await watch.next()
                    except TimeoutError:
                        if self._options.bookmarks:
                            yield self._bookmark(watch.revision)
                        continue
                    if chunk := b"".join(filter(None, map(self._told, events))):
                        yield chunk
            except Overrun as slow:
                yield _line("ERROR", msgspec.json.encode(Expired(f"too old resource version: {slow}").status()))
            except StoreFailure:
                return

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
        key = (self._form, self._include, self._selection.resource.type)
        line = event.memo.get(key)
        if line is None:
            line = event.memo[key] = self._line(event.kind, event.value)
        assert isinstance(line, bytes)
        return line

    def _line(self, kind: Kind, value: bytes) -> bytes:
        value = presented(self._selection.resource, value)
        if self._form is not Form.OBJECT:
            value = forms.shown(self._selection.resource, value, self._form, self._clock.time_s(), self._include)
        return _line(kind, value)

    def _bookmark(self, revision: int, *, end: bool = False) -> bytes:
        resource = self._selection.resource
        metadata: dict[str, object] = {"resourceVersion": str(revision), "creationTimestamp": None}
        if end:
            metadata["annotations"] = {INITIAL_EVENTS_END: "true"}
        kind, version = resource.kind, resource.group_version
        if self._form is Form.METADATA:
            kind, version = "PartialObjectMetadata", "meta.k8s.io/v1"
        elif self._form is Form.TABLE:
            kind, version = "Table", "meta.k8s.io/v1"
        bookmark = {"kind": kind, "apiVersion": version, "metadata": metadata}
        return _line("BOOKMARK", msgspec.json.encode(bookmark))


def too_large(wanted: int, current: int) -> APIError:
    """A revision from the future (504)."""
    return Timeout(
        f"Too large resource version: {wanted}, current: {current}",
        causes=[Cause("ResourceVersionTooLarge", "", "Too large resource version")],
        retry_after_s=1,
    )


def _expired(gone: Compacted) -> Expired:
    return Expired(f"too old resource version: {gone}")


def _line(kind: str, value: bytes) -> bytes:
    return b'{"type":"%b","object":%b}\n' % (kind.encode(), value)


def _as_of(value: bytes, revision: int) -> bytes:
    """An object's bytes with another resourceVersion."""
    start = value.index(b'"resourceVersion":"') + 19
    return value[:start] + str(revision).encode() + value[value.index(b'"', start) :]


async def _single(line: bytes) -> AsyncIterator[bytes]:
    yield line
