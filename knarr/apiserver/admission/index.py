"""A copy of the objects of one kind, for plugins that decide by them: read from memory, never behind the store.

There is no task that follows the store: whoever asks takes in first what has happened since the last question. For a
store in this process that costs nothing when nothing has happened, and what has been written is always seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeVar

from msgspec import Struct

from knarr.api.decode import decoder
from knarr.api.errors import ServiceUnavailable
from knarr.store.contract import Kind, Overrun, Store, StoreFailure, Watch

T = TypeVar("T")


class Entry(Struct, Generic[T]):
    """An object and the revision that its next change must expect."""

    key: str
    revision: int
    obj: T


_NONE: Mapping[str, Any] = {}


class Index(Generic[T]):
    """All objects of a kind, by namespace and name. What it hands out is shared and never changed."""

    def __init__(self, store: Store, qualified: str, kind: type[T]) -> None:
        self._store = store
        self._prefix = f"{qualified}/"
        self._kind = kind
        self._entries: dict[str, dict[str, Entry[T]]] = {}
        self._watch: Watch | None = None
        self._busy = asyncio.Lock()

    async def get(self, namespace: str, name: str) -> T | None:
        entry = (await self.entries(namespace)).get(name)
        return entry.obj if entry else None

    async def all(self, namespace: str = "") -> Iterable[T]:
        """Of a namespace, in the order of names; for kinds without namespaces all there are."""
        found = await self.entries(namespace)
        return [found[name].obj for name in sorted(found)] if found else ()

    async def entries(self, namespace: str = "") -> Mapping[str, Entry[T]]:
        """By name, as of now."""
        watch = self._watch
        if watch is None or watch.revision < self._store.revision:
            await self._catch_up()
        return self._entries.get(namespace, _NONE)

    async def _catch_up(self) -> None:
        async with self._busy:
            wanted = self._store.revision
            try:
                while self._watch is None or self._watch.revision < wanted:
                    if self._watch is None:
                        await self._begin()
                        continue
                    try:
                        events = await self._watch.next()
                    except Overrun:
                        self._watch = None
                        continue
                    for event in events:
                        if event.kind is Kind.DELETED:
                            self._forget(event.key)
                        else:
                            self._keep(event.key, event.value, event.revision)
            except StoreFailure as failure:
                raise ServiceUnavailable(f"the store could not be read: {failure}") from failure

    async def _begin(self) -> None:
        found = await self._store.range(self._prefix)
        self._entries = {}
        for record in found.records:
            self._keep(record.key, record.value, record.revision)
        self._watch = self._store.watch(self._prefix, after=found.revision)

    def _keep(self, key: str, value: bytes, revision: int) -> None:
        _, namespace, name = key.split("/", 2)
        self._entries.setdefault(namespace, {})[name] = Entry(key, revision, decoder(self._kind).decode(value))

    def _forget(self, key: str) -> None:
        _, namespace, name = key.split("/", 2)
        entries = self._entries.get(namespace, {})
        entries.pop(name, None)
        if not entries:
            self._entries.pop(namespace, None)
