"""An API server of a few lines for tests of what only watches: LIST and WATCH of objects that the test puts in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from knarr.api.errors import APIError
from knarr.api.registry import built_in
from knarr.client.client import Client
from knarr.client.transport import Answer, Request

REGISTRY = built_in()


class Feed:
    """The transport and its objects."""

    def __init__(self) -> None:
        self.revision = 1
        self._objects: dict[str, dict[str, Any]] = {}
        self._watchers: dict[str, list[tuple[asyncio.Queue[bytes], str]]] = {}
        """With the name that a field selector asks for."""
        self.client = Client(self, REGISTRY)

    def put(self, obj: Any) -> int:
        """Create or replace; answers the revision of the write."""
        return self._change("MODIFIED", obj)

    def delete(self, obj: Any) -> int:
        return self._change("DELETED", obj)

    def _change(self, event: str, obj: Any) -> int:
        self.revision += 1
        data = msgspec.json.decode(msgspec.json.encode(obj))
        data["metadata"]["resourceVersion"] = str(self.revision)
        key = f"{obj.metadata.namespace}/{obj.metadata.name}"
        line = json.dumps({"type": event, "object": data}).encode() + b"\n"
        resource = REGISTRY.of(type(obj))
        for path in {resource.path(None), resource.path(obj.metadata.namespace)}:
            objects = self._objects.setdefault(path, {})
            if event == "DELETED":
                objects.pop(key, None)
            else:
                objects[key] = data
            for queue, name in self._watchers.get(path, []):
                if name in ("", obj.metadata.name):
                    queue.put_nowait(line)
        return self.revision

    async def send(self, request: Request) -> Answer:
        if request.method != "GET":
            raise APIError("this server only lists and watches")
        name = request.query.get("fieldSelector", "").removeprefix("metadata.name=")
        shown = [
            each for each in self._objects.get(request.path, {}).values() if name in ("", each["metadata"]["name"])
        ]
        if request.query.get("watch"):
            queue: asyncio.Queue[bytes] = asyncio.Queue()
            since = int(request.query["resourceVersion"])
            for data in shown:
                if int(data["metadata"]["resourceVersion"]) > since:
                    queue.put_nowait(json.dumps({"type": "MODIFIED", "object": data}).encode() + b"\n")
            self._watchers.setdefault(request.path, []).append((queue, name))
            return Answer(200, {}, stream=self._stream(request.path, (queue, name)))
        body = {"items": shown, "metadata": {"resourceVersion": str(self.revision)}}
        return Answer(200, {}, json.dumps(body).encode())

    async def _stream(self, path: str, watcher: tuple[asyncio.Queue[bytes], str]) -> AsyncIterator[bytes]:
        try:
            while True:
                yield await watcher[0].get()
        finally:
            self._watchers[path].remove(watcher)

    async def close(self) -> None:
        return None
