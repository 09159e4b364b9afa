"""Reading: one object, lists with their pages, watches."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from knarr.api.errors import BadRequest, Cause, Expired, Invalid, not_supported
from knarr.api.resources import Resource
from knarr.apiserver import answers, forms
from knarr.apiserver.calls import Call
from knarr.apiserver.forms import Form
from knarr.apiserver.labels import Labels
from knarr.apiserver.objects import Objects
from knarr.apiserver.requests import number, revision_of
from knarr.apiserver.selection import Selection
from knarr.apiserver.watch import FUTURE_WAIT_S, Watcher, WatchOptions, too_large
from knarr.client.transport import Answer
from knarr.clock import Clock
from knarr.store.contract import Compacted, FutureRevision, Store

PAGE_WITHOUT_LIMIT = 0
INCONSISTENT = -1
"""The revision in a continue token that goes on with whatever is there now."""
CONTINUE_EXPIRED = (
    "The provided continue parameter is too old to display a consistent list result. Start a new list without the "
    "continue parameter, or use the continue token in this response to retrieve the remainder of the results. Going on "
    "with it makes an inconsistent list: objects created, modified or deleted since the first page may be in it."
)


class Reads:
    """The handlers of GET."""

    def __init__(self, store: Store, objects: Objects, clock: Clock) -> None:
        self._store = store
        self._objects = objects
        self._clock = clock
        self._labels = Labels(store)

    async def close(self) -> None:
        """Let go of the indexes."""
        await self._labels.close()

    async def get(self, call: Call) -> Answer:
        """One object. Raises NotFound."""
        await self._reach(revision_of(call.query))
        record = await self._objects.record(call.kept, call.path.namespace, call.path.name)
        return answers.shown(call, record.value, self._clock)

    async def list(self, call: Call) -> Answer:
        query = call.query
        selection = Selection.of(call.resource, call.kept, call.path.namespace, "", query)
        limit = max(number(query, "limit") or 0, PAGE_WITHOUT_LIMIT)
        revision, after, token = await self._list_from(query)
        accepted = forms.accepted(call.request.headers.get("accept", ""))
        try:
            found = await self._store.range(
                selection.prefix, revision=revision, after=after, limit=limit if selection.everything else 0
            )
        except Compacted as gone:
            if not token:
                raise Expired(f"The resourceVersion for the provided list is too old: {gone}") from None
            expired = Expired(CONTINUE_EXPIRED)
            expired.continue_token = _continue_token(INCONSISTENT, after)
            raise expired from None
        except FutureRevision as early:
            raise too_large(revision, early.current) from None
        records, more, remaining = list(found.records), found.more, found.remaining
        if not selection.everything:
            records = list(await self._labels.select(selection, records, found.revision))
            if limit and len(records) > limit:
                records, more, remaining = records[:limit], True, 0
        metadata: dict[str, Any] = {"resourceVersion": str(found.revision)}
        if more:
            metadata["continue"] = _continue_token(found.revision, records[-1].key)
            if remaining:
                metadata["remainingItemCount"] = remaining
        values = [record.value for record in records]
        return self.listed(call, values, metadata, accepted)

    async def _list_from(self, query: Mapping[str, str]) -> tuple[int, str, bool]:
        """Revision (0: now), key to go on after, and whether a continue token said so."""
        revision = revision_of(query)
        match = query.get("resourceVersionMatch", "")
        if token := query.get("continue"):
            if revision:
                raise BadRequest("specifying resource version is not allowed when using continue")
            since, after = _read_continue_token(token)
            return (0 if since == INCONSISTENT else since), after, True
        if match and revision is None:
            cause = Cause(
                "FieldValueForbidden",
                "resourceVersionMatch",
                "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
            )
            raise Invalid.of("meta.k8s.io", "ListOptions", "", [cause])
        if match not in ("", "Exact", "NotOlderThan"):
            cause = not_supported("resourceVersionMatch", match, ("Exact", "NotOlderThan"))
            raise Invalid.of("meta.k8s.io", "ListOptions", "", [cause])
        if match == "Exact" and revision == 0:
            cause = Cause(
                "FieldValueForbidden",
                "resourceVersionMatch",
                'Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0"',
            )
            raise Invalid.of("meta.k8s.io", "ListOptions", "", [cause])
        await self._reach(revision)
        return (revision or 0) if match == "Exact" else 0, "", False

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
            include = call.query.get("includeObject", "Metadata")
            body = forms.table(resource, values, self._clock.time_s(), include, metadata)
            return answers.pretty(Answer(200, dict(answers.JSON_HEADERS), body), call.request)
        if accepted.form is Form.METADATA:
            head = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}
            items = [forms.metadata_only(value) for value in values]
        else:
            head = {"kind": f"{resource.kind}List", "apiVersion": resource.group_version, "metadata": metadata}
            start = len(_type_prefix(resource))
            items = [b"{" + value[start:] for value in values] if len(values) < 2 else []
            if not items and values:
                # The usual long list: its bytes are copied twice and no more.
                parts = [value[start:] for value in values]
                parts[0] = msgspec.json.encode(head)[:-1] + b',"items":[{' + parts[0]
                parts[-1] += b"]}"
                return answers.encoded(b",{".join(parts), call.request, accepted)
        body = msgspec.json.encode(head)[:-1] + b',"items":[' + b",".join(items) + b"]}"
        return answers.encoded(body, call.request, accepted)

    async def watch(self, call: Call) -> Answer:
        query = call.query
        accepted = forms.accepted(call.request.headers.get("accept", ""))
        selection = Selection.of(call.resource, call.kept, call.path.namespace, call.path.name, query)
        options = WatchOptions.of(query, self._clock)
        include = query.get("includeObject", "Metadata")
        watcher = Watcher(self._store, self._clock, selection, options, accepted.form, include)
        return Answer(200, dict(answers.JSON_HEADERS), stream=await watcher.stream())


def _continue_token(revision: int, key: str) -> str:
    data = msgspec.json.encode({"v": "meta.k8s.io/v1", "rv": revision, "start": key})
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _read_continue_token(token: str) -> tuple[int, str]:
    try:
        data = msgspec.json.decode(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        if data["v"] == "meta.k8s.io/v1" and isinstance(data["rv"], int) and isinstance(data["start"], str):
            return data["rv"], data["start"]
    except (ValueError, KeyError, TypeError, msgspec.DecodeError):
        pass
    raise BadRequest("continue key is not valid")


def _type_prefix(resource: Resource) -> bytes:
    """How the bytes of every stored object of a resource begin; left out of items of a list, as upstream does."""
    return b'{"apiVersion":"%b","kind":"%b",' % (resource.group_version.encode(), resource.kind.encode())
