"""Informers: a local copy of a kind that follows the server, shared by all who need it.

An informer lists, then watches from the list's revision. When the watch breaks it goes on from where it was, and lists
again when history is gone (410). Its objects are shared and never changed. Handlers are told of each change after the
copy has it. `reached(revision)` waits until the copy shows at least a given write: the base of read-your-writes.

Objects are kept without metadata.managedFields: no loop reads them, and they are the larger part of small objects. (An
update that doesn't name them leaves them as they are.) Equal labels are one dict: thousands of pods have the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing
from typing import Any, Generic, TypeVar, cast

import msgspec

from knarr.api.errors import APIError, Expired
from knarr.client.client import Client
from knarr.clock import Clock

T = TypeVar("T")
log = logging.getLogger(__name__)

RETRY_DELAY_MAX_S = 5.0
"""Between two attempts to reach the server; doubles from RETRY_DELAY_MIN_S, with jitter."""
RETRY_DELAY_MIN_S = 0.05

LABELS_MAX = 4096
"""Different sets of labels that are shared; then sharing begins anew."""

Handler = Callable[[T | None, T | None], None]
"""handler(old, new): old None for a new object, new None for a deleted one."""
Index = Callable[[T], Iterable[str]]


class Informer(Generic[T]):
    """The copy of one kind, whole or cut by selectors. Keys are "namespace/name", or "name" without a namespace."""

    def __init__(
        self,
        client: Client,
        kind: type[T],
        clock: Clock,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
    ) -> None:
        self.kind = kind
        self._client = client
        self._clock = clock
        self._scope: dict[str, Any] = {
            "namespace": namespace,
            "label_selector": label_selector,
            "field_selector": field_selector,
        }
        self._objects: dict[str, T] = {}
        self._indices: dict[str, tuple[Index[T], dict[str, dict[str, T]]]] = {}
        self._handlers: list[Handler[T]] = []
        self._revision = 0
        self._expired = False
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._parting: dict[str, list[asyncio.Future[None]]] = {}
        self.synced = asyncio.Event()
        self.add_index("namespace", lambda obj: (cast(Any, obj).metadata.namespace or "",))

    def add_handler(self, handler: Handler[T]) -> None:
        """Call `handler` for every object now there, and for each change. It must not block, nor raise."""
        self._handlers.append(handler)
        for obj in list(self._objects.values()):
            handler(None, obj)

    def add_index(self, name: str, index: Index[T]) -> None:
        """Keep objects found under each string that `index` answers. Adding the same one twice is one index; another
        under the same name would be asked for what it doesn't know, so that is a mistake."""
        if name in self._indices:
            known = self._indices[name][0]
            assert _origin(known) == _origin(index), f"{name}: {_origin(index)} is not {_origin(known)}"
            return
        places: dict[str, dict[str, T]] = {}
        self._indices[name] = (index, places)
        for key, obj in self._objects.items():
            for place in index(obj):
                places.setdefault(place, {})[key] = obj

    def get(self, key: str) -> T | None:
        return self._objects.get(key)

    def all(self, namespace: str | None = None) -> list[T]:
        if namespace is None:
            return list(self._objects.values())
        return self.by_index("namespace", namespace)

    def count(self, name: str, place: str) -> int:
        """How many `by_index` would answer."""
        return len(self._indices[name][1].get(place, ()))

    def by_index(self, name: str, place: str) -> list[T]:
        return list(self._indices[name][1].get(place, {}).values())

    @property
    def revision(self) -> int:
        """The newest revision that the copy is known to show."""
        return self._revision

    async def reached(self, revision: int) -> None:
        """Wait until the copy shows everything up to `revision`."""
        if self._revision >= revision:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((revision, future))
        await future

    async def parted(self, key: str, uid: str) -> None:
        """Wait until the copy no longer shows the object that was deleted."""
        while (obj := self._objects.get(key)) is not None and cast(Any, obj).metadata.uid == uid:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._parting.setdefault(key, []).append(future)
            await future

    async def run(self) -> None:
        """Follow the server until cancelled."""
        delay_s = RETRY_DELAY_MIN_S
        while True:
            began_s = self._clock.monotonic_s()
            try:
                if not self.synced.is_set() or self._expired:
                    await self._list()
                await self._follow()
            except Expired:
                log.info("%s: history is gone, listing again", self.kind.__name__)
                self._expired = True
            except APIError as error:
                log.warning("%s: %s; trying again", self.kind.__name__, error)
            except msgspec.MsgspecError as error:
                log.error("%s: the server sent what can't be read: %s; listing again", self.kind.__name__, error)
                self._expired = True
            if self._clock.monotonic_s() - began_s > RETRY_DELAY_MAX_S:
                delay_s = RETRY_DELAY_MIN_S
            await self._clock.sleep(delay_s * (0.5 + self._clock.random.random()))
            delay_s = min(delay_s * 2, RETRY_DELAY_MAX_S)

    async def _list(self) -> None:
        result = await self._client.list(self.kind, **self._scope)
        listed = {key_of(obj): obj for obj in result.items}
        for key in [key for key in self._objects if key not in listed]:
            self._remove(key)
        for key, obj in listed.items():
            self._put(key, obj)
        self._advance(int(result.resource_version))
        self._expired = False
        self.synced.set()

    async def _follow(self) -> None:
        events = self._client.watch(self.kind, resource_version=str(self._revision), **self._scope)
        async with aclosing(events):
            async for event in events:
                if event.type == "DELETED":
                    self._remove(key_of(event.object), event.object)
                elif event.type != "BOOKMARK":
                    self._put(key_of(event.object), event.object)
                self._advance(int(event.resource_version))

    def _put(self, key: str, obj: T) -> None:
        old = self._objects.get(key)
        if old is not None and version_of(old) >= version_of(obj):
            return
        metadata: Any = cast(Any, obj).metadata
        if metadata.managed_fields:
            metadata.managed_fields = []
        if metadata.labels:
            metadata.labels = _shared(metadata.labels)
        self._objects[key] = obj
        self._reindex(key, old, obj)
        self._tell(old, obj)
        if self._parting:
            self._part(key)

    def _remove(self, key: str, last: T | None = None) -> None:
        old = self._objects.pop(key, None)
        if old is None:
            return
        self._reindex(key, old, None)
        self._tell(last if last is not None else old, None)
        if self._parting:
            self._part(key)

    def _reindex(self, key: str, old: T | None, new: T | None) -> None:
        for index, places in self._indices.values():
            after = tuple(index(new)) if new is not None else ()
            for place in index(old) if old is not None else ():
                if place not in after and place in places:
                    places[place].pop(key, None)
                    if not places[place]:
                        del places[place]
            if new is not None:
                for place in after:
                    places.setdefault(place, {})[key] = new

    def _part(self, key: str) -> None:
        for future in self._parting.pop(key, ()):
            if not future.done():
                future.set_result(None)

    def _tell(self, old: T | None, new: T | None) -> None:
        for handler in self._handlers:
            try:
                handler(old, new)
            except Exception:  # one loop's mistake about one object must not stop all loops
                log.exception("%s: a handler failed", self.kind.__name__)

    def _advance(self, revision: int) -> None:
        self._revision = max(self._revision, revision)
        if not self._waiting:
            return
        still = []
        for wanted, future in self._waiting:
            if wanted > self._revision:
                still.append((wanted, future))
            elif not future.done():
                future.set_result(None)
        self._waiting = still


def _origin(index: Any) -> str:
    """Where a function is written."""
    return f"{index.__module__}.{index.__qualname__}"


_labels: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}


def _shared(labels: dict[str, str]) -> dict[str, str]:
    if len(_labels) >= LABELS_MAX:
        _labels.clear()
    return _labels.setdefault(tuple(labels.items()), labels)


class Informers:
    """The shared informers of a process: one for each kind (and scope), started on demand."""

    def __init__(self, client: Client, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._informers: dict[tuple[Any, ...], Informer[Any]] = {}
        self._group: asyncio.TaskGroup | None = None

    def of(self, kind: type[T], **scope: str) -> Informer[T]:
        """The informer of a kind; `scope` as for Informer (namespace, label_selector, field_selector)."""
        key = (kind, *sorted(scope.items()))
        if key not in self._informers:
            self._informers[key] = Informer(self._client, kind, self._clock, **scope)
            if self._group:
                self._group.create_task(self._informers[key].run(), name=f"informer {kind.__name__}")
        return self._informers[key]

    async def run(self) -> None:
        """Run all informers, those asked for later too, until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for (kind, *_), informer in list(self._informers.items()):
                group.create_task(informer.run(), name=f"informer {kind.__name__}")
            await asyncio.Event().wait()

    async def synced(self) -> None:
        """Wait until every informer asked for so far has its first list."""
        for informer in list(self._informers.values()):
            await informer.synced.wait()

    def informers(self) -> Mapping[tuple[Any, ...], Informer[Any]]:
        return self._informers


def key_of(obj: Any) -> str:
    """namespace/name, or name."""
    metadata = obj.metadata
    return f"{metadata.namespace}/{metadata.name}" if metadata.namespace else metadata.name


def version_of(obj: Any) -> int:
    return int(obj.metadata.resource_version or 0)
