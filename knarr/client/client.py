"""The one client: typed requests to the API server.

    pods = await client.list(Pod, namespace="default")
    pod = await client.create(Pod(metadata=ObjectMeta(name="web", namespace="default"), spec=...))

Errors are the exceptions of `knarr.api.errors`, just those that the server raised.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any, Generic, TypeVar, cast

import msgspec

from knarr.api.decode import decoder
from knarr.api.errors import APIError, Expired
from knarr.api.resources import Registry, Resource
from knarr.client.transport import Request, Transport, User

T = TypeVar("T")

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_MERGE_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"


GENERIC = {503: "the server is currently unable to handle the request"}
"""What an error without a Status means, in upstream's words: a backend that is not there is told of in plain text."""


class ListResult(msgspec.Struct, Generic[T], frozen=True):
    """The objects of a list, and the revision that it shows."""

    items: list[T]
    resource_version: str


class WatchEvent(msgspec.Struct, Generic[T], frozen=True):
    """ADDED, MODIFIED, DELETED with the object; BOOKMARK with only its resource_version right."""

    type: str
    object: T
    resource_version: str


class Client(msgspec.Struct):
    """Requests as `user` (or as whom the transport's certificate says), through `transport`."""

    transport: Transport
    registry: Registry
    user: User | None = None
    field_manager: str = "knarr"
    on_write: Callable[[Resource, Any], None] | None = None
    """Told of each object that a write answered: the loop's way to read its own writes."""
    on_delete: Callable[[Resource, str, str], None] | None = None
    """Told of each object that was deleted for good, where the server doesn't answer its last form: key and uid."""
    _headers: Mapping[str, str] = msgspec.field(default_factory=lambda: {"accept": "application/json"})

    async def get(self, kind: type[T], name: str, namespace: str | None = None) -> T:
        """Raises NotFound."""
        resource = self.registry.of(kind)
        return _decode(kind, await self._send("GET", resource.path(namespace, name)))

    async def list(
        self,
        kind: type[T],
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
    ) -> ListResult[T]:
        """All of a kind, in one namespace or in all."""
        query = _present(labelSelector=label_selector, fieldSelector=field_selector)
        body = await self._send("GET", self.registry.of(kind).path(namespace), query)
        found = msgspec.json.decode(body, type=_RawList)
        return ListResult([_decode(kind, item) for item in found.items], found.metadata.resourceVersion)

    async def create(self, obj: T, *, namespace: str | None = None) -> T:
        """Raises AlreadyExists, Invalid, Forbidden. `obj` is not changed."""
        metadata = cast(Any, obj).metadata
        resource = self.registry.of(type(obj))
        path = resource.path(namespace or metadata.namespace)
        return self._wrote(
            resource, type(obj), await self._send("POST", path, self._manager(), msgspec.json.encode(obj))
        )

    async def update(self, obj: T, *, subresource: str | None = None) -> T:
        """Replace. Raises Conflict when metadata.resource_version is no longer the newest."""
        metadata = cast(Any, obj).metadata
        resource = self.registry.of(type(obj))
        path = resource.path(metadata.namespace, metadata.name, subresource)
        return self._wrote(
            resource, type(obj), await self._send("PUT", path, self._manager(), msgspec.json.encode(obj))
        )

    async def update_status(self, obj: T) -> T:
        return await self.update(obj, subresource="status")

    async def patch(
        self,
        kind: type[T],
        name: str,
        patch: Any,
        namespace: str | None = None,
        *,
        content_type: str = STRATEGIC_MERGE_PATCH,
        subresource: str | None = None,
    ) -> T:
        """`patch` is plain JSON data (a dict; for JSON_PATCH a list)."""
        resource = self.registry.of(kind)
        path = resource.path(namespace, name, subresource)
        body = msgspec.json.encode(patch)
        return self._wrote(resource, kind, await self._send("PATCH", path, self._manager(), body, content_type))

    async def delete(
        self,
        kind: type[Any],
        name: str,
        namespace: str | None = None,
        *,
        grace_period_s: int | None = None,
        propagation_policy: str | None = None,
        uid: str | None = None,
        resource_version: str | None = None,
    ) -> None:
        """Raises NotFound, and Conflict when `uid` or `resource_version` is not what is there."""
        preconditions = _present(uid=uid, resourceVersion=resource_version)
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if grace_period_s is not None:
            options["gracePeriodSeconds"] = grace_period_s
        if propagation_policy:
            options["propagationPolicy"] = propagation_policy
        if preconditions:
            options["preconditions"] = preconditions
        resource = self.registry.of(kind)
        body = await self._send("DELETE", resource.path(namespace, name), None, json.dumps(options).encode())
        if self.on_write is None and self.on_delete is None:
            return
        answered = msgspec.json.decode(body, type=_Deleted)
        if answered.kind == resource.kind and self.on_write:
            self.on_write(resource, _decode(kind, body))
        elif answered.kind == "Status" and self.on_delete:
            gone = str(answered.details.get("uid") or "")
            self.on_delete(resource, f"{namespace}/{name}" if namespace else name, gone)

    async def delete_collection(
        self, kind: type[Any], namespace: str | None = None, *, label_selector: str = "", field_selector: str = ""
    ) -> None:
        """Delete all that match, each as `delete` would."""
        query = _present(labelSelector=label_selector, fieldSelector=field_selector)
        await self._send("DELETE", self.registry.of(kind).path(namespace), query)

    async def post(self, kind: type[Any], name: str, namespace: str | None, subresource: str, body: Any) -> Any:
        """POST to a subresource (binding, eviction, token); answers plain JSON data."""
        path = self.registry.of(kind).path(namespace, name, subresource)
        return msgspec.json.decode(await self._send("POST", path, self._manager(), msgspec.json.encode(body)))

    async def get_plain(self, path: str, **query: str) -> Any:
        """GET of what may be no kind of the registry (metrics, scale); answers plain JSON data."""
        return msgspec.json.decode(await self._send("GET", path, query))

    async def get_text(self, path: str) -> bytes:
        """GET of what is no JSON (what a pod answers through its proxy)."""
        return await self._send("GET", path)

    async def delete_plain(self, path: str) -> None:
        """DELETE of what may be no kind of the registry."""
        await self._send("DELETE", path)

    async def put_plain(self, path: str, obj: Any) -> Any:
        """PUT of plain JSON data."""
        return msgspec.json.decode(await self._send("PUT", path, self._manager(), msgspec.json.encode(obj)))

    async def watch(
        self,
        kind: type[T],
        namespace: str | None = None,
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
    ) -> AsyncGenerator[WatchEvent[T], None]:
        """Changes after `resource_version`, until the server ends it. Raises Expired when that is gone."""
        query = _present(labelSelector=label_selector, fieldSelector=field_selector)
        query |= {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": resource_version}
        path = self.registry.of(kind).path(namespace)
        async with aclosing(self.lines(path, query)) as pieces:
            async for lines in pieces:
                for line in lines:
                    yield _event(kind, line)

    async def lines(self, path: str, query: Mapping[str, str]) -> AsyncGenerator[tuple[bytes, ...], None]:
        """GET of what lasts: its lines, as they come, until the server ends it."""
        answer = await self.transport.send(Request("GET", path, query, self._headers, user=self.user))
        if answer.stream is None or answer.status != 200:
            raise _error(answer.status, answer.body)
        async with aclosing(cast(Any, answer.stream)) as stream:
            pending = b""
            async for chunk in stream:
                *lines, pending = (pending + chunk).split(b"\n")
                yield tuple(line for line in lines if line)

    def _manager(self) -> dict[str, str]:
        return {"fieldManager": self.field_manager}

    def _wrote(self, resource: Resource, kind: type[T], body: bytes) -> T:
        obj = _decode(kind, body)
        if self.on_write:
            self.on_write(resource, obj)
        return obj

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        content_type: str = "application/json",
    ) -> bytes:
        headers = {**self._headers, "content-type": content_type} if body else self._headers
        answer = await self.transport.send(Request(method, path, query or {}, headers, body, self.user))
        if answer.status >= 300:
            raise _error(answer.status, answer.body)
        return answer.body


def _error(status: int, body: bytes) -> APIError:
    try:
        data = msgspec.json.decode(body)
    except msgspec.DecodeError:
        data = {"message": GENERIC.get(status) or body.decode(errors="replace").strip()}
    return APIError.from_status(data if isinstance(data, dict) else {}, status)


def _event(kind: type[T], line: bytes) -> WatchEvent[T]:
    head = msgspec.json.decode(line, type=_RawEvent)
    if head.type == "ERROR":
        error = APIError.from_status(msgspec.json.decode(head.object))
        raise Expired(error.message) if error.code == 410 else error
    if head.type == "BOOKMARK":
        version = msgspec.json.decode(head.object)["metadata"]["resourceVersion"]
        return WatchEvent(head.type, cast(T, None), version)
    obj = _decode(kind, head.object)
    return WatchEvent(head.type, obj, cast(Any, obj).metadata.resource_version)


class _RawEvent(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Deleted(msgspec.Struct):
    """Of what a DELETE answers: a Status, or the object as it was or still is."""

    kind: str = ""
    details: dict[str, Any] = {}


class _ListMeta(msgspec.Struct):
    resourceVersion: str = ""


class _RawList(msgspec.Struct):
    """Items are decoded one by one: a type is learnt when there is one of it, which spares the start most of them."""

    metadata: _ListMeta
    items: list[msgspec.Raw]


def _decode(kind: type[T], body: bytes | msgspec.Raw) -> T:
    return decoder(kind).decode(body)


def _present(**values: str | None) -> dict[str, str]:
    return {name: value for name, value in values.items() if value}
