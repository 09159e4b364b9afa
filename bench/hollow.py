"""A control plane in this process, on the disk and by the real clock, with hollow nodes: for figures of many nodes.

Its parts are those of `knarr up`, less TLS: everything, the loops included, speaks to the API server in the process.
"""

from __future__ import annotations

import asyncio
import gc
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import uvloop

from bench.clusters import DISK
from knarr.api.apps.v1 import Deployment
from knarr.api.core.v1 import Node, Pod, ServiceAccount
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.registry import built_in
from knarr.apiserver.bootstrap import bootstrap
from knarr.apiserver.server import APIServer, InProcessTransport
from knarr.cli.up import COLLECTION_THRESHOLDS
from knarr.client.client import Client
from knarr.client.informer import Informers
from knarr.client.transport import User
from knarr.clock import SystemClock
from knarr.controllers import controllers
from knarr.scheduler import Scheduler
from knarr.simulate.nodes import HollowNodes
from knarr.store.sqlite import SQLiteStore

T = TypeVar("T")
AT_ONCE = 64
"""Requests of the bench that wait together."""
WITHIN_S = 600.0


@dataclass(slots=True)
class Spent:
    """What passed between two moments."""

    seconds: float = 0.0
    processor_s: float = 0.0

    def rate(self, count: int) -> str:
        return (
            f"{count / self.seconds:,.0f}/s; by processor time {count / self.processor_s:,.0f}/s "
            f"({self.processor_s / count * 1e6:,.0f} µs each)"
        )

    def __str__(self) -> str:
        return f"{self.seconds:.2f} s; {self.processor_s:.2f} s of processor time"


class Hollow:
    """The control plane, its caches, and what runs in it."""

    def __init__(self, store: SQLiteStore, nodes: int, **hollow: Any) -> None:
        self.clock = clock = SystemClock()
        self.server = APIServer(store, built_in(), clock)
        self.client = self._as("bench", "system:masters")
        manager = self._as("system:kube-controller-manager")
        self.informers = Informers(manager, clock)
        self.pods = self.informers.of(Pod)
        self.deployments = self.informers.of(Deployment)
        self.node_cache = self.informers.of(Node)
        self.hollow = HollowNodes(self.client, self.informers, clock, nodes, **hollow)
        self.loops = controllers(
            manager, self.informers, clock, root_ca="-----BEGIN CERTIFICATE-----\n", client_of=self._account
        )
        self.scheduler = Scheduler(self._as("system:kube-scheduler"), self.informers, clock)
        self._group = asyncio.TaskGroup()
        self._tasks: list[asyncio.Task[None]] = []

    def _as(self, name: str, *groups: str) -> Client:
        user = User(name, (*groups, "system:authenticated"))
        return Client(InProcessTransport(self.server), built_in(), user)

    def _account(self, name: str) -> Client:
        groups = "system:serviceaccounts", "system:serviceaccounts:kube-system"
        return self._as(f"system:serviceaccount:kube-system:{name}", *groups)

    def start(self, *parts: Coroutine[Any, Any, None]) -> list[asyncio.Task[None]]:
        started = [self._group.create_task(part) for part in parts]
        self._tasks += started
        return started

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Hollow]:
        """With its first objects and its nodes, and nothing at work but the caches."""
        nodes = len(self.hollow.names)
        async with self._group:
            await bootstrap(self.client, ["10.96.0.0/16"], ["10.96.0.10"], "127.0.0.1", 6443)
            await self.client.create(ServiceAccount(metadata=ObjectMeta(name="default", namespace="default")))
            self.start(self.informers.run())
            await self.hollow.register()
            await self.each(self.hollow.names, lambda name: self.client.patch(Node, name, {"spec": {"taints": None}}))
            await until(lambda: len([each for each in self.node_cache.all() if _is_untainted(each)]) == nodes)
            _settle()
            yield self
            for task in self._tasks:
                task.cancel()

    async def create_all(self, objects: Iterable[Any]) -> None:
        await self.each(objects, self.client.create)

    async def each(self, things: Iterable[T], ask: Callable[[T], Awaitable[Any]]) -> None:
        """Ask for each of them, AT_ONCE at a time."""
        waiting = iter(things)

        async def work() -> None:
            for thing in waiting:
                await ask(thing)

        await asyncio.gather(*(work() for _ in range(AT_ONCE)))

    @asynccontextmanager
    async def measured(self) -> AsyncIterator[Spent]:
        spent, began_s, processor_s = Spent(), time.perf_counter(), time.process_time()
        yield spent
        spent.seconds, spent.processor_s = time.perf_counter() - began_s, time.process_time() - processor_s


def run(nodes: int, scenario: Callable[[Hollow], Awaitable[T]], **hollow: Any) -> T:
    """A scenario on a control plane of its own."""

    async def main() -> T:
        folder = Path(tempfile.mkdtemp(prefix="knarr-bench-", dir=DISK))
        store = await SQLiteStore.open(folder / "store.db")
        try:
            async with Hollow(store, nodes, **hollow).running() as cluster:
                return await scenario(cluster)
        finally:
            await store.close()
            shutil.rmtree(folder, ignore_errors=True)

    gc.set_threshold(*COLLECTION_THRESHOLDS)
    return uvloop.run(main())


async def until(holds: Callable[[], bool], every_s: float = 0.01) -> None:
    until_s = time.monotonic() + WITHIN_S
    while not holds():
        if time.monotonic() > until_s:
            raise RuntimeError(f"not within {WITHIN_S:.0f} s")
        await asyncio.sleep(every_s)


def typed(kind: type[T], thing: dict[str, Any]) -> T:
    return msgspec.convert(thing, kind)


def _is_untainted(node: Node) -> bool:
    """As the node lifecycle loop leaves a node that is ready."""
    return node.spec is None or not node.spec.taints


def _settle() -> None:
    gc.collect()
    gc.freeze()
