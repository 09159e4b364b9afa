"""The one loop shape: what a controller watches, and `async def reconcile(key)`.

A controller is level-triggered: `reconcile` looks at the caches, decides, and acts; it may be called at any time, any
number of times. The base gives it the queue, workers, retries with backoff, read-your-writes, and events:

    class ReplicaSets(Controller):
        name = "replicaset-controller"

        def watch(self) -> None:
            self.replica_sets = self.informer(ReplicaSet)
            self.pods = self.informer(Pod)
            self.on(self.replica_sets, key_of)
            self.on(self.pods, self.owner_key)

        async def reconcile(self, key: str) -> None: ...

Read-your-writes: before a key is reconciled again, every cache that the controller reads shows what it wrote for that
key last time. Caches that are cut by a selector can't promise it: what is written outside them never shows.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any, TypeVar

from msgspec import Struct, field
from msgspec.structs import replace

from knarr.api.errors import APIError, Conflict, NotFound
from knarr.api.resources import Resource
from knarr.client.client import Client
from knarr.client.events import EventRecorder
from knarr.client.informer import Informer, Informers, version_of
from knarr.client.workqueue import WorkQueue
from knarr.clock import Clock
from knarr.figures import Figure

T = TypeVar("T")

CATCH_UP_MAX_S = 30.0
"""A cache that doesn't show a write for so long is broken off from the server: its own retries come first."""


class _Written(Struct):
    """What a reconcile has written, and so must be able to read."""

    revisions: dict[type[Any], int] = field(default_factory=dict)
    """The newest for each kind."""
    deleted: list[tuple[type[Any], str, str]] = field(default_factory=list)
    """Kind, key and uid of what is gone for good."""


_written: ContextVar[_Written | None] = ContextVar("written", default=None)
"""What the running reconcile has written so far."""


class Controller:
    """Base of every control loop."""

    name: str = ""
    """Upstream's name of the controller: field manager, event source, metric label."""
    event_source: str = ""
    """Where upstream's events come from another name."""
    needs: tuple[type[Any], ...] = ()
    """Kinds without which it has nothing to do; it does not run where one of them isn't served."""
    workers: int = 8
    """Keys reconciled at once; one key is never reconciled twice at once."""
    min_interval_s: float = 0.0
    """A key is looked at no more often than that: bursts of changes are taken together, the first is not delayed."""

    def __init__(self, client: Client, informers: Informers, clock: Clock) -> None:
        self.clock = clock
        self.client = replace(client, on_write=self._note_write, on_delete=self._note_delete, field_manager=self.name)
        self.events = EventRecorder(client, clock, self.event_source or self.name)
        self.queue = WorkQueue(clock, self.min_interval_s)
        self.log = logging.getLogger(f"knarr.{self.name}")
        self._informers = informers
        self._reads: list[Informer[Any]] = []
        self._read: dict[type[Any], Informer[Any]] = {}
        self._must_show: dict[str, _Written] = {}
        self.watch()

    def watch(self) -> None:
        """Declare what is read (`informer`) and what wakes which key (`on`)."""
        raise NotImplementedError

    async def reconcile(self, key: str) -> float | None:
        """Make the world match. A number asks for another look after so many seconds."""
        raise NotImplementedError

    def figures(self) -> Iterable[Figure]:
        """What it counts for /metrics, besides its queue."""
        return ()

    def informer(self, kind: type[T], **scope: str) -> Informer[T]:
        informer = self._informers.of(kind, **scope)
        self._reads.append(informer)
        if not scope:
            self._read[kind] = informer
        return informer

    def on(self, informer: Informer[T], keys: Callable[[T], str | Iterable[str] | None]) -> None:
        """A change of an object wakes the key (or keys) that `keys` gives for it, in its old and in its new form."""

        def handler(old: T | None, new: T | None) -> None:
            if old is not None and (woken := keys(old)):
                self._wake(woken)
            if new is not None and (woken := keys(new)):
                self._wake(woken)

        informer.add_handler(handler)

    def on_change(
        self, informer: Informer[T], keys: Callable[[T | None, T | None], str | Iterable[str] | None]
    ) -> None:
        """As `on`, for those who must see both forms to tell whether a change matters."""

        def handler(old: T | None, new: T | None) -> None:
            if woken := keys(old, new):
                self._wake(woken)

        informer.add_handler(handler)

    def _wake(self, keys: str | Iterable[str]) -> None:
        for key in (keys,) if isinstance(keys, str) else keys:
            self.queue.add(key)

    async def run(self) -> None:
        """Work until cancelled."""
        for informer in self._reads:
            await informer.synced.wait()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.events.run(), name=f"{self.name} events")
            group.create_task(self.queue.run_timers(), name=f"{self.name} timers")
            for number in range(self.workers):
                group.create_task(self._work(), name=f"{self.name} worker {number}")

    async def _work(self) -> None:
        while True:
            key = await self.queue.take()
            try:
                await self._reconcile(key)
            finally:
                self.queue.done(key)

    async def _reconcile(self, key: str) -> None:
        await self._catch_up(key)
        written = _Written()
        token = _written.set(written)
        try:
            again_s = await self.reconcile(key)
        except (Conflict, NotFound) as error:
            self.log.debug("%s: %s", key, error)  # the cache will show what came in between
            self.queue.retry(key)
        except APIError as error:
            if is_namespace_terminating(error):
                self.log.debug("%s: %s", key, error)  # nothing can be made there any more
                self.queue.forget(key)
            else:
                self.log.warning("%s: %s", key, error)
                self.queue.retry(key)
        except Exception:
            self.log.exception("%s: reconcile failed", key)
            self.queue.retry(key)
        else:
            self.queue.forget(key)
            if again_s is not None:
                self.queue.add_after(key, again_s)
        finally:
            _written.reset(token)
            if written.revisions or written.deleted:
                self._must_show[key] = written

    async def _catch_up(self, key: str) -> None:
        """Wait until the caches show what the last reconcile of `key` wrote."""
        written = self._must_show.pop(key, None)
        if written is None:
            return
        try:
            async with self.clock.timeout(CATCH_UP_MAX_S):
                for kind, revision in written.revisions.items():
                    await self._read[kind].reached(revision)
                for kind, gone, uid in written.deleted:
                    await self._read[kind].parted(gone, uid)
        except TimeoutError:
            self.log.warning("%s: a cache has not shown a write for %.0f s", key, CATCH_UP_MAX_S)

    def _note_write(self, resource: Resource, obj: Any) -> None:
        written = _written.get()
        if written is not None and resource.type in self._read:
            written.revisions[resource.type] = max(written.revisions.get(resource.type, 0), version_of(obj))

    def _note_delete(self, resource: Resource, key: str, uid: str) -> None:
        written = _written.get()
        if written is not None and uid and resource.type in self._read:
            written.deleted.append((resource.type, key, uid))


def is_namespace_terminating(error: APIError) -> bool:
    """It was refused because its namespace is being deleted."""
    return any(cause.reason == "NamespaceTerminating" for cause in error.causes)
