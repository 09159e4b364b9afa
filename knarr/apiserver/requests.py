"""What a request is about: the parts of its path and query (upstream's RequestInfo)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from msgspec import Struct
from msgspec.structs import replace

from knarr.api.errors import BadRequest, shown
from knarr.client.transport import Request

PATHS_CACHED_MAX = 8192
NUMBER_LENGTH_MAX = 1000
WHOLE = re.compile(r"[+-]?[0-9]+")
DIGITS = re.compile(r"[0-9]+")


class ResourcePath(Struct, frozen=True):
    """/api/v1/namespaces/default/pods/web/log and its like, taken apart."""

    group: str
    version: str
    plural: str
    namespace: str
    name: str
    subresource: str
    rest: str = ""
    """What follows the subresource (of a proxy)."""


@lru_cache(maxsize=PATHS_CACHED_MAX)
def resource_path(path: str) -> ResourcePath | None:
    """The resource that a path names; None when it names none."""
    parts = path.strip("/").split("/")
    if len(parts) >= 3 and parts[0] == "api":
        group, version, parts = "", parts[1], parts[2:]
    elif len(parts) >= 4 and parts[0] == "apis":
        group, version, parts = parts[1], parts[2], parts[3:]
    else:
        return None
    namespace = ""
    if parts[0] == "namespaces" and len(parts) >= 3 and not (len(parts) == 3 and parts[2] in ("status", "finalize")):
        namespace, parts = parts[1], parts[2:]
    name = parts[1] if len(parts) > 1 else ""
    subresource = parts[2] if len(parts) > 2 else ""
    return ResourcePath(group, version, parts[0], namespace, name, subresource, "/".join(parts[3:]))


def with_watch_as_parameter(request: Request) -> Request:
    """What is asked of /api/v1/watch/… and /apis/apps/v1/watch/…, deprecated paths, as the parameter asks for it."""
    if "/watch/" not in request.path or request.method not in ("GET", "HEAD"):
        return request
    parts = request.path.split("/")
    place = {"api": 3, "apis": 4}.get(parts[1])
    if place is None or parts[place : place + 1] != ["watch"]:
        return request
    path = "/".join([*parts[:place], *parts[place + 1 :]])
    return replace(request, path=path, query={**request.query, "watch": "true"})


def flag(query: Mapping[str, str], name: str) -> bool:
    """A boolean parameter, as upstream reads it: present and not false."""
    value = query.get(name)
    return value is not None and value.lower() not in ("false", "0")


def number(query: Mapping[str, str], name: str) -> int | None:
    """A whole-number parameter of 64 bits. Raises BadRequest, as Go's parser says it."""
    value = query.get(name)
    if value is None:
        return None
    return _parsed(value, "ParseInt", -(2**63), 2**63 - 1)


def revision_of(query: Mapping[str, str]) -> int | None:
    """resourceVersion: None when absent. Raises BadRequest."""
    value = query.get("resourceVersion", "")
    if value == "":
        return None
    try:
        return _parsed(value, "ParseUint", 0, 2**64 - 1)
    except BadRequest as fault:
        detail = f"resourceVersion: Invalid value: {shown(value)}: {fault.message}"
        raise BadRequest(f"invalid resource version: {detail}") from None


def _parsed(value: str, parser: str, least: int, most: int) -> int:
    if not (WHOLE if least < 0 else DIGITS).fullmatch(value):
        raise BadRequest(f"strconv.{parser}: parsing {shown(value)}: invalid syntax")
    # Python refuses to read thousands of digits; what is too long is too large anyway.
    number = int(value) if len(value) <= NUMBER_LENGTH_MAX else most + 1
    if not least <= number <= most:
        raise BadRequest(f"strconv.{parser}: parsing {shown(value)}: value out of range")
    return number
