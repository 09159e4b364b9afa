"""A way to the API server on which writes go wrong, and those who use it die.

Writes are refused, or done and their answer lost; what a cache is told comes late; and before or after a write the loop
may be at its end, to begin anew with empty caches.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from knarr.api.registry import built_in
from knarr.apiserver.server import APIServer
from knarr.client.client import Client
from knarr.client.transport import Answer, Request, User
from knarr.clock import Clock

ACCOUNTS = ("system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated")
WRITES = ("POST", "PUT", "PATCH", "DELETE")


@dataclass
class Trouble:
    """A way to the API server on which writes go wrong."""

    server: APIServer
    clock: Clock
    chance: random.Random
    lossy: bool
    quiet: bool = False
    died: asyncio.Event = field(default_factory=asyncio.Event)
    deaths: int = 0

    async def send(self, request: Request) -> Answer:
        if "watch" in request.query:
            answer = await self.server.handle(request)
            answer.stream = self._late(answer.stream) if answer.stream else None
            return answer
        if request.method not in WRITES or "/events" in request.path or self.quiet:
            return await self.server.handle(request)
        fate = self.chance.random()
        if fate < 0.08:
            await self._die()
        if fate < 0.16:
            return refusal(409, "Conflict")
        answer = await self.server.handle(request)
        if fate < 0.24:
            await self._die()
        return refusal(500, "InternalError") if self.lossy and fate < 0.32 else answer

    async def _late(self, stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """What caches show is old."""
        async for chunk in stream:
            await self.clock.sleep(self.chance.choice((0.0, 0.1, 1.0)))
            yield chunk

    async def _die(self) -> None:
        self.deaths += 1
        self.died.set()
        await asyncio.Event().wait()

    async def close(self) -> None:
        pass

    def client(self, account: str) -> Client:
        """As upstream's controller of that name: with its rights and no more."""
        return Client(self, built_in(), User(f"system:serviceaccount:kube-system:{account}", ACCOUNTS))

    async def until_death(self, parts: Sequence[Any]) -> None:
        """Run all parts until one of them dies; then none is left."""
        self.died = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(part.run()) for part in parts]
            await self.died.wait()
            for task in tasks:
                task.cancel()


def refusal(code: int, reason: str) -> Answer:
    return Answer(code, {}, msgspec.json.encode({"kind": "Status", "code": code, "reason": reason, "message": reason}))
