"""The one clock: every component gets its time, its waiting and its chance from here.

Nothing in knarr calls `time.time`, `asyncio.sleep` or the `random` module itself. With a `VirtualClock`
(see `knarr.simulate.clock`) in place of `SystemClock`, the whole control plane runs in virtual time, and a
run replays from its seed.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Coroutine
from datetime import UTC, datetime
from functools import lru_cache, partial
from typing import Any, Protocol


class Clock(Protocol):
    """Time, waiting and randomness."""

    random: random.Random
    """The only source of chance for jitter, generated names and choices."""

    def time_s(self) -> float:
        """Wall-clock time, seconds since the epoch."""

    def monotonic_s(self) -> float:
        """A clock that never goes back, in seconds; only differences mean anything."""

    async def sleep(self, delay_s: float) -> None:
        """Wait for `delay_s` seconds of this clock."""

    def timeout(self, delay_s: float | None) -> asyncio.Timeout:
        """An async context manager that raises TimeoutError after `delay_s` seconds of this clock."""


class SystemClock:
    """The machine's own clock."""

    def __init__(self, seed: int | None = None) -> None:
        self.random = random.Random(seed)

    time_s = staticmethod(time.time)
    monotonic_s = staticmethod(time.monotonic)

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)

    def timeout(self, delay_s: float | None) -> asyncio.Timeout:
        return asyncio.timeout(delay_s)


async def until_one_ends(*works: Coroutine[Any, Any, Any]) -> None:
    """Work on all of these until one of them is through, or fails; the others end with it."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def utc(time_s: float) -> datetime:
    """The moment `time_s` as metav1.Time holds it: UTC, whole seconds."""
    return _second(int(time_s))


_second = lru_cache(maxsize=16)(partial(datetime.fromtimestamp, tz=UTC))
"""Much happens in one second."""


def micro_time(time_s: float) -> str:
    """The moment `time_s` as metav1.MicroTime is written: RFC 3339 with exactly six decimals."""
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
