"""Reading: one object, lists with their pages, watches."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import msgspec

from knarr.api.errors import Expired
from knarr.api.resources import Resource
from knarr.apiserver import answers, forms
from knarr.apiserver.calls import Call
from knarr.apiserver.forms import Form
from knarr.apiserver.labels import Labels
from knarr.apiserver.list_options import INCONSISTENT, ListOptions, WatchOptions, continue_token, read_continue_token
from knarr.apiserver.objects import Objects
from knarr.apiserver.requests import revision_of
from knarr.apiserver.selection import Selection
from knarr.apiserver.watch import FUTURE_WAIT_S, WatchCounts, Watcher, over_socket, too_large
from knarr.client.transport import Answer, Socket, Upgrade
from knarr.clock import Clock
from knarr.store.contract import Compacted, FutureRevision, Store

CONTINUE_EXPIRED = (
    "The provided continue parameter is too old to display a consistent list result. Start a new list without the "
    "continue parameter, or use the continue token in this response to retrieve the remainder of the results. Going on "
    "with it makes an inconsistent list: objects created, modified or deleted since the first page may be in it."
)
PAGES_LIVE_S = 300.0
"""So long a list may be continued as of its first page's moment, as upstream, which forgets after 5 to 10 minutes."""
MOMENTS_APART_S = 1.0
"""Moments of first pages are remembered so far apart, and so no more than PAGES_LIVE_S of them."""


class Reads:
    """The handlers of GET."""

    def __init__(self, store: Store, objects: Objects, clock: Clock) -> None:
        self._store = store
        self._objects = objects
        self._clock = clock
        self._labels = Labels(store)
        self.watched = WatchCounts()
        self._moments: deque[tuple[float, int]] = deque()
        """When pages of which revision were first given."""
        self._forgotten = 0
        """Lists as of this revision and earlier ones are not continued any more."""

    async def close(self) -> None:
        """Let go of the indexes."""
        await self._labels.close()

    async def get(self, call: Call) -> Answer:
        """One object. Raises NotFound."""
        await self._reach(revision_of(call.query))
        record = await self._objects.record(call.kept, call.path.namespace, call.path.name)
        return answers.shown(call, record.value, self._clock)

    async def list(self, call: Call) -> Answer:
        accepted = forms.accepted(call.request.headers.get("accept", ""))
        forms.check(accepted, call.query, many=True)
        options = ListOptions.of(call.query)
        selection = Selection.of(call.resource, call.kept, call.path.namespace, "", call.query)
        revision, after = await self._list_from(options, selection.prefix)
        limit = options.limit
        try:
            if options.token and revision and self._is_over(revision):
                raise Compacted(revision, self._forgotten)
            found = await self._store.range(
                selection.prefix, revision=revision, after=after, limit=limit if selection.everything else 0
            )
        except Compacted:
            if not options.token:
                raise Expired("The resourceVersion for the provided list is too old.") from None
            expired = Expired(CONTINUE_EXPIRED)
            expired.continue_token = continue_token(INCONSISTENT, after)
            raise expired from None
        except FutureRevision as early:
            raise too_large(revision, early.current) from None
        records, more, remaining = list(found.records), found.more, found.remaining
        if not selection.everything:
            records = list(await self._labels.select(selection, records, found.revision))
            if limit and len(records) > limit:
                # How many of those that follow are selected is not told, as upstream: nobody has counted them there.
                records, more, remaining = records[:limit], True, 0
        metadata: dict[str, Any] = {"resourceVersion": str(found.revision)}
        if more:
            metadata["continue"] = continue_token(found.revision, records[-1].key)
            self._note_page(found.revision)
            if remaining:
                metadata["remainingItemCount"] = remaining
        values = [record.value for record in records]
        return self.listed(call, values, metadata, accepted)

    def _note_page(self, revision: int) -> None:
        now_s = self._clock.monotonic_s()
        last_s, last = self._moments[-1] if self._moments else (-MOMENTS_APART_S, 0)
        if revision > last and now_s >= last_s + MOMENTS_APART_S:
            self._moments.append((now_s, revision))
        self._forget(now_s)

    def _is_over(self, revision: int) -> bool:
        """Whether a list began too long ago: unless nothing at all has changed since."""
        self._forget(self._clock.monotonic_s())
        return revision <= self._forgotten and revision < self._store.revision

    def _forget(self, now_s: float) -> None:
        while self._moments and self._moments[0][0] + PAGES_LIVE_S <= now_s:
            _, self._forgotten = self._moments.popleft()

    async def _list_from(self, options: ListOptions, prefix: str) -> tuple[int, str]:
        """The revision to be shown (0: now), and the key to go on after."""
        if options.token:
            since, after = read_continue_token(options.token, prefix, self._store.revision)
            return (0 if since == INCONSISTENT else since), after
        await self._reach(options.revision)
        return (options.revision or 0) if options.exact else 0, ""

    async def _reach(self, revision: int | None) -> None:
        """Wait a little for a revision that a client has seen elsewhere. Raises Timeout."""
        if revision and revision > self._store.revision and not await self._store.wait_for(revision, FUTURE_WAIT_S):
            raise too_large(revision, self._store.revision)

    def listed(self, call: Call, values: Sequence[bytes], metadata: dict[str, Any], accepted: forms.Accepted) -> Answer:
        """A list of kept objects in the form that the client asked for."""
        resource = call.resource
        if resource.conversion:
            values = [call.presented(value) for value in values]
        if accepted.form is Form.TABLE:
            include = call.query.get("includeObject", "")
            body = forms.table(resource, values, self._clock.time_s(), include, metadata, version=accepted.version)
            return answers.encoded(body, call.request, accepted)
        if accepted.form is Form.METADATA:
            version = f"meta.k8s.io/{accepted.version}"
            head = {"kind": "PartialObjectMetadataList", "apiVersion": version, "metadata": metadata}
            items = [forms.metadata_only(value, accepted.version) for value in values]
        else:
            head = {"kind": f"{resource.kind}List", "apiVersion": resource.group_version, "metadata": metadata}
            start = len(_type_prefix(resource))
            items = [b"{" + value[start:] for value in values] if len(values) < 2 else []
            if not items and values:
                # The usual long list: its bytes are copied once. To hold each part on the way cost more than all else.
                parts: list[bytes | memoryview] = [memoryview(value)[start:] for value in values]
                parts[0] = msgspec.json.encode(head)[:-1] + b',"items":[{' + parts[0]
                parts[-1] = bytes(parts[-1]) + b"]}"
                return answers.encoded(b",{".join(parts), call.request, accepted)
        body = msgspec.json.encode(head)[:-1] + b',"items":[' + b",".join(items) + b"]}"
        return answers.encoded(body, call.request, accepted)

    async def watch(self, call: Call) -> Answer:
        """The changes of a selection; over a WebSocket when the client asks for one, a message an event."""
        query = call.query
        accepted = forms.accepted(call.request.headers.get("accept", ""), watching=True)
        forms.check(accepted, query)
        options = WatchOptions.of(query)
        selection = Selection.of(call.resource, call.kept, call.path.namespace, call.path.name, query)
        include, told = query.get("includeObject", ""), self.watched.of(call.resource)
        watcher = Watcher(self._store, self._clock, selection, options, accepted, include, told)
        stream = await watcher.stream()
        if call.request.headers.get("upgrade", "").lower() != "websocket":
            return Answer(200, dict(answers.JSON_HEADERS), stream=stream)

        async def serve(socket: Socket) -> None:
            await over_socket(stream, socket)

        return Answer(101, {}, upgrade=Upgrade((), serve, text=True))


def _type_prefix(resource: Resource) -> bytes:
    """How the bytes of every stored object of a resource begin; left out of items of a list, as upstream does."""
    return b'{"apiVersion":"%b","kind":"%b",' % (resource.group_version.encode(), resource.kind.encode())
