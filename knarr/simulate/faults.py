"""A bad way to the API server: writes that fail, answers that are lost, watches that lag, loops that crash.

`Weather` says how bad it is and for whom, `FaultyTransport` is what one part of a cluster goes through: it wraps the
true transport. All chance comes from the clock, so a run replays from its seed. What a transport does:

* a write fails before the server has it (503), or after it took effect: then its answer is lost;
* an update or a patch is told that somebody else was quicker (409), though nobody was;
* a request is on its way for some time, and so is its answer;
* a watch tells its events late (the cache behind it is stale), tells one twice, breaks off (its informer resumes), or
  says that history is gone (its informer lists again);
* its owner crashes, before or after a write: the call never returns, and `crash` is to take the owner down.

A request that has reached the server is carried out whatever becomes of the one who asked, as over a real network.
Events are not written at all: they tell of what happens, nothing depends on them, and they would be half of all writes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any, cast

import msgspec

from knarr.api.errors import APIError, Conflict, Expired, ServiceUnavailable
from knarr.client.transport import Answer, Request, Transport
from knarr.clock import Clock

WRITES = ("POST", "PUT", "PATCH", "DELETE")
TRAVEL_S = 0.002
"""Every write takes so long, that loops that work against each other don't do so for ever at one moment."""
PUNCTUAL_S = 3.0
"""After it was late, a watch is not late again for so long: so a cache is never older than one delay."""

asking: ContextVar[str] = ContextVar("asking", default="")
"""On whose behalf the server works: the part of the cluster, as its transport is named."""


class Odds(msgspec.Struct, frozen=True):
    """How likely each fault is, by write or by watch event; the longest delays in seconds."""

    refused: float = 0.0
    lost: float = 0.0
    conflict: float = 0.0
    slow: float = 0.0
    slow_max_s: float = 0.4
    crash: float = 0.0
    late: float = 0.0
    late_max_s: float = 2.0
    repeated: float = 0.0
    dropped: float = 0.0
    expired: float = 0.0

    @property
    def uncertain(self) -> bool:
        """Whether a part may not know what has become of its own writes."""
        return bool(self.lost or self.crash)


CALM = Odds()


class Weather(msgspec.Struct):
    """The odds that hold now, for all parts of a cluster."""

    clock: Clock
    crash: Callable[[str], None]
    """Take down the part of this name, and start it anew."""
    odds: Odds = CALM

    def strikes(self, chance: float) -> bool:
        return chance > 0 and self.clock.random.random() < chance


class FaultyTransport:
    """The way of one part of a cluster to the API server (see knarr.client.transport)."""

    def __init__(self, inner: Transport, part: str, weather: Weather, *, crashes: bool = True) -> None:
        self._inner = inner
        self._part = part
        self._weather = weather
        self._crashes = crashes

    async def send(self, request: Request) -> Answer:
        if request.method in WRITES:
            return await self._write(request)
        answer = await self._inner.send(request)
        if answer.stream is not None:
            answer.stream = self._watched(answer.stream)
        return answer

    async def close(self) -> None:
        await self._inner.close()

    async def _write(self, request: Request) -> Answer:
        if request.method == "POST" and request.path.endswith("/events"):
            raise ServiceUnavailable("events are not kept in this simulation")
        weather, odds = self._weather, self._weather.odds
        if odds is CALM:
            return await self._carried_out(request)
        if weather.strikes(odds.slow):
            await self._linger(odds.slow_max_s)
        if self._crashes and weather.strikes(odds.crash):
            await self._crash()
        if weather.strikes(odds.refused):
            raise ServiceUnavailable("connection refused")
        if request.method in ("PUT", "PATCH") and weather.strikes(odds.conflict):
            return _failed(Conflict("the object has been modified; please apply your changes to the latest version"))
        await weather.clock.sleep(TRAVEL_S)
        answer = await asyncio.shield(asyncio.ensure_future(self._carried_out(request)))
        if self._crashes and weather.strikes(odds.crash):
            await self._crash()
        if weather.strikes(odds.slow):
            await self._linger(odds.slow_max_s)
        if weather.strikes(odds.lost):
            raise ServiceUnavailable("connection lost")
        return answer

    async def _carried_out(self, request: Request) -> Answer:
        token = asking.set(self._part)
        try:
            return await self._inner.send(request)
        finally:
            asking.reset(token)

    async def _crash(self) -> None:
        self._weather.crash(self._part)
        await asyncio.Event().wait()

    async def _linger(self, most_s: float) -> None:
        await self._weather.clock.sleep(self._weather.clock.random.uniform(0, most_s))

    async def _watched(self, stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        weather, punctual_s = self._weather, 0.0
        async with aclosing(cast(Any, stream)) as chunks:
            async for chunk in chunks:
                odds, now_s = weather.odds, weather.clock.monotonic_s()
                if odds is not CALM:
                    if now_s >= punctual_s and weather.strikes(odds.late):
                        punctual_s = now_s + PUNCTUAL_S
                        await self._linger(odds.late_max_s)
                    if weather.strikes(odds.dropped):
                        return
                    if weather.strikes(odds.expired):
                        status = msgspec.json.encode(Expired("too old resource version").status())
                        yield b'{"type":"ERROR","object":%b}\n' % status
                        return
                    if weather.strikes(odds.repeated):
                        yield chunk
                yield chunk


def _failed(error: APIError) -> Answer:
    return Answer(error.code, {"content-type": "application/json"}, msgspec.json.encode(error.status()))
