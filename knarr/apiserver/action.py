"""What somebody wants to do, as authorizers see it: from method, path and query, as upstream's RequestInfo."""

from __future__ import annotations

from functools import lru_cache

from msgspec import Struct

from knarr.api import names
from knarr.api.selectors import parse_field_selector
from knarr.apiserver.requests import ResourcePath, flag, resource_path
from knarr.client.transport import Request

ACTIONS_CACHED_MAX = 8192
VERBS = {"POST": "create", "GET": "get", "HEAD": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class Action(Struct):
    """One thing to be allowed. Either `path` is set (a URL that is no resource), or the fields of a resource."""

    verb: str
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""
    field_selector: str = ""
    full_resource: str = ""
    """With the subresource: pods/log."""
    key: tuple[str, ...] = ()
    """All that rules look at but the name, for remembering what was decided."""

    def __post_init__(self) -> None:
        self.full_resource = f"{self.resource}/{self.subresource}" if self.subresource else self.resource
        self.key = (self.verb, self.path) if self.path else (self.verb, self.group, self.full_resource, self.namespace)


def action_of(request: Request, path: ResourcePath | None) -> Action:
    """What a request asks for."""
    if path is None:
        return _url(request.method, request.path)
    query = request.query
    watching = bool(query) and flag(query, "watch")
    selector = query.get("fieldSelector", "") if query else ""
    return _resource(request.method, request.path, watching, selector)


@lru_cache(maxsize=ACTIONS_CACHED_MAX)
def _url(method: str, path: str) -> Action:
    return Action(method.lower(), path=path)


@lru_cache(maxsize=ACTIONS_CACHED_MAX)
def _resource(method: str, written: str, watching: bool, selector: str) -> Action:
    path = resource_path(written)
    assert path is not None
    verb, name = VERBS.get(method, method.lower()), path.name
    if verb == "get" and watching and not path.subresource:
        verb = "watch"
    elif not name and verb in ("get", "delete"):
        verb = "list" if verb == "get" else "deletecollection"
    if not name and selector and verb in ("list", "watch", "deletecollection"):
        name = _selected_name(selector)
    # A namespace is inside itself, so that rights on it can be given there.
    namespace = path.name if path.plural == "namespaces" and not path.group else path.namespace
    return Action(
        verb, path.group, path.version, path.plural, path.subresource, namespace, name, field_selector=selector
    )


def _selected_name(selector: str) -> str:
    """The one name that a field selector leaves."""
    try:
        name = parse_field_selector(selector).exact("metadata.name") or ""
    except ValueError:
        return ""
    return "" if names.path_segment_faults(name) else name
