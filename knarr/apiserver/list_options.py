"""What a list or a watch is asked for, and which questions make no sense (metav1.ListOptions).

The table of resourceVersion, resourceVersionMatch, limit and continue is upstream's:
https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions. A list without a match but with a limit
and a version means just that version, as it did before there were matches. Streaming lists are KEP-3157.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from posixpath import normpath

import msgspec

from knarr.api.errors import BadRequest, Cause, Invalid, forbidden, not_supported
from knarr.apiserver.requests import flag, number, revision_of

EXACT, NOT_OLDER_THAN = "Exact", "NotOlderThan"
INCONSISTENT = -1
"""The revision in a continue token that goes on with whatever is there now."""
TOKEN_VERSION = "meta.k8s.io/v1"


class ListOptions(msgspec.Struct, frozen=True):
    """Of a list."""

    revision: int | None
    """What the client has seen; None when it does not say."""
    exact: bool
    """Just this revision, not a newer one."""
    limit: int
    """0: all."""
    token: str

    @classmethod
    def of(cls, query: Mapping[str, str]) -> ListOptions:
        """From a query. Raises BadRequest, Invalid."""
        limit, _ = _numbers(query)
        _refuse([*_list_faults(query)])
        revision = revision_of(query)
        token = query.get("continue", "")
        if token and revision:
            raise BadRequest("specifying resource version is not allowed when using continue")
        match = query.get("resourceVersionMatch", "")
        exact = match == EXACT or (not match and bool(revision) and limit > 0)
        return cls(revision, exact, limit, token)


class WatchOptions(msgspec.Struct, frozen=True):
    """Of a watch."""

    revision: int | None
    bookmarks: bool
    initial_events: bool | None
    """Whether the watch begins with all that is there; None when the client leaves it to the revision."""
    timeout_s: int
    """0: as long as the server likes."""

    @classmethod
    def of(cls, query: Mapping[str, str]) -> WatchOptions:
        """From a query. Raises BadRequest, Invalid."""
        _, timeout_s = _numbers(query)
        _refuse([*_watch_faults(query)])
        initial = flag(query, "sendInitialEvents") if "sendInitialEvents" in query else None
        return cls(revision_of(query), flag(query, "allowWatchBookmarks"), initial, timeout_s)


def _numbers(query: Mapping[str, str]) -> tuple[int, int]:
    """limit and timeoutSeconds: both must be numbers, also where they say nothing. Raises BadRequest."""
    return max(number(query, "limit") or 0, 0), max(number(query, "timeoutSeconds") or 0, 0)


def _list_faults(query: Mapping[str, str]) -> Iterator[Cause]:
    if match := query.get("resourceVersionMatch", ""):
        field = "resourceVersionMatch"
        if not query.get("resourceVersion"):
            yield forbidden(field, "resourceVersionMatch is forbidden unless resourceVersion is provided")
        if query.get("continue"):
            yield forbidden(field, "resourceVersionMatch is forbidden when continue is provided")
        if match not in (EXACT, NOT_OLDER_THAN):
            yield not_supported(field, match, (EXACT, NOT_OLDER_THAN, ""), in_order=True)
        if match == EXACT and query.get("resourceVersion") == "0":
            yield forbidden(field, 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"')
    if "sendInitialEvents" in query:
        yield forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list")


def _watch_faults(query: Mapping[str, str]) -> Iterator[Cause]:
    match, field = query.get("resourceVersionMatch", ""), "resourceVersionMatch"
    initial = "sendInitialEvents" in query
    if initial and match != NOT_OLDER_THAN:
        yield forbidden(field, f"sendInitialEvents requires setting resourceVersionMatch to {NOT_OLDER_THAN}")
    if not match:
        return
    if not initial:
        yield forbidden(field, "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided")
    if match != NOT_OLDER_THAN:
        yield not_supported(field, match, (NOT_OLDER_THAN,))
    if query.get("continue"):
        yield forbidden(field, "resourceVersionMatch is forbidden when continue is provided")


def _refuse(causes: list[Cause]) -> None:
    if causes:
        raise Invalid.of("meta.k8s.io", "ListOptions", "", causes)


def continue_token(revision: int, key: str) -> str:
    """Where the next page begins: behind `key`, as of `revision`."""
    data = msgspec.json.encode({"v": TOKEN_VERSION, "rv": revision, "start": key})
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class _Token(msgspec.Struct):
    v: str = ""
    rv: int = 0
    start: str = ""


def read_continue_token(token: str, prefix: str, current: int) -> tuple[int, str]:
    """Revision and key of a token that this server gave out for a list of what begins with `prefix`, up to the
    revision `current`. Raises BadRequest."""
    try:
        data = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        read = msgspec.json.decode(data, type=_Token)
    except (ValueError, msgspec.DecodeError):
        raise _bad_token("continue key is not valid") from None
    if read.v != TOKEN_VERSION:
        raise _bad_token(f"continue key is not valid: server does not recognize this encoded version {read.v}")
    if read.rv == 0 or read.rv < INCONSISTENT or read.rv > current:
        raise _bad_token(
            f"continue key is not valid: incorrect encoded start resourceVersion (version {TOKEN_VERSION})"
        )
    if not read.start:
        raise _bad_token(f"continue key is not valid: encoded start key empty (version {TOKEN_VERSION})")
    if not read.start.startswith(prefix) or normpath(read.start) != read.start:
        raise _bad_token(f"continue key is not valid: {read.start}")
    return read.rv, read.start


def _bad_token(fault: str) -> BadRequest:
    return BadRequest(f"invalid continue token: {fault}")
