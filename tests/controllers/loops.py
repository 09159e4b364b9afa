"""A few loops over an API server of their own, in virtual time, with the roles that every cluster has."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from knarr.api.core.v1 import Namespace
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.registry import built_in
from knarr.apiserver.reconcile_roles import reconcile_roles
from knarr.apiserver.server import APIServer, InProcessTransport
from knarr.client.client import Client
from knarr.client.controller import Controller
from knarr.client.informer import Informers
from knarr.client.transport import User
from knarr.clock import Clock
from knarr.simulate.clock import VirtualClock, run
from knarr.store.memory import MemoryStore

T = TypeVar("T")
MASTERS = ("system:masters", "system:authenticated")
ACCOUNTS = ("system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated")
STEP_S, UNTIL_MAX_S = 0.1, 300.0


class Loops:
    """The server, clients of it, and the loops."""

    def __init__(self, clock: Clock, make: Callable[[Loops], Sequence[Controller]]) -> None:
        self.clock = clock
        self.server = APIServer(MemoryStore(), built_in(), clock)
        self.client = self.client_as("admin", *MASTERS)
        self.informers = Informers(self.client_as("system:kube-controller-manager", "system:authenticated"), clock)
        self._make = make

    def client_as(self, name: str, *groups: str) -> Client:
        return Client(InProcessTransport(self.server), built_in(), User(name, groups))

    def account(self, name: str) -> Client:
        """As upstream's controller of that name: with its rights and no more."""
        return self.client_as(f"system:serviceaccount:kube-system:{name}", *ACCOUNTS)

    async def run(self, scenario: Callable[[Loops], Awaitable[T]]) -> T:
        for name in ("default", "kube-system", "kube-public"):
            await self.client.create(Namespace(metadata=ObjectMeta(name=name)))
        await reconcile_roles(self.client)
        async with asyncio.TaskGroup() as group:
            loops = self._make(self)
            tasks = [group.create_task(part.run()) for part in (*loops, self.informers)]
            try:
                return await scenario(self)
            finally:
                for task in tasks:
                    task.cancel()

    async def until(self, holds: Callable[[], Awaitable[Any]], within_s: float = UNTIL_MAX_S) -> Any:
        """Wait until `holds` answers something true, and answer that."""
        end_s = self.clock.monotonic_s() + within_s
        while not (found := await holds()):
            assert self.clock.monotonic_s() < end_s, f"not within {within_s} s"
            await self.clock.sleep(STEP_S)
        return found


def play(make: Callable[[Loops], Sequence[Controller]], scenario: Callable[[Loops], Awaitable[T]]) -> T:
    async def main(clock: VirtualClock) -> T:
        return await Loops(clock, make).run(scenario)

    return run(main, 0)
