"""The work queue of the loops: each key once, one worker a key at a time, retries with backoff.

A key that is added while it is worked on is worked on again afterwards. `add_after` is for what must be looked at again
at a known time; the earlier of two times holds.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque

from knarr.clock import Clock

BACKOFF_MIN_S = 0.005
BACKOFF_MAX_S = 60.0
"""Retry n of a key that fails waits BACKOFF_MIN_S * 2^n, at most BACKOFF_MAX_S."""


class WorkQueue:
    """Keys to be reconciled."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ready: deque[str] = deque()
        self._queued: set[str] = set()
        self._working: set[str] = set()
        self._again: set[str] = set()
        self._failures: dict[str, int] = {}
        self._due: dict[str, float] = {}
        self._timers: list[tuple[float, str]] = []
        self._ready_event = asyncio.Event()
        self._timer_event = asyncio.Event()

    def add(self, key: str) -> None:
        """`key` needs a look, now."""
        if key in self._working:
            self._again.add(key)
        elif key not in self._queued:
            self._queued.add(key)
            self._ready.append(key)
            self._ready_event.set()

    def add_after(self, key: str, delay_s: float) -> None:
        """`key` needs a look in `delay_s` seconds."""
        if delay_s <= 0:
            self.add(key)
            return
        due = self._clock.monotonic_s() + delay_s
        if self._due.get(key, float("inf")) <= due:
            return
        self._due[key] = due
        heapq.heappush(self._timers, (due, key))
        self._timer_event.set()

    def retry(self, key: str) -> None:
        """`key` failed: look again after its backoff."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        self.add_after(key, min(BACKOFF_MIN_S * 2 ** min(failures, 30), BACKOFF_MAX_S))

    def forget(self, key: str) -> None:
        """`key` went well: its backoff begins anew."""
        self._failures.pop(key, None)

    def failures(self, key: str) -> int:
        return self._failures.get(key, 0)

    async def take(self) -> str:
        """The next key; the caller must call `done` for it."""
        while not self._ready:
            self._ready_event.clear()
            await self._ready_event.wait()
        key = self._ready.popleft()
        self._queued.discard(key)
        self._working.add(key)
        return key

    def done(self, key: str) -> None:
        self._working.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    @property
    def idle(self) -> bool:
        """Nothing is queued or worked on (timers may be pending)."""
        return not self._ready and not self._working

    async def run_timers(self) -> None:
        """Move keys whose time has come into the queue, until cancelled."""
        while True:
            now = self._clock.monotonic_s()
            while self._timers and self._timers[0][0] <= now:
                due, key = heapq.heappop(self._timers)
                if self._due.get(key) == due:
                    del self._due[key]
                    self.add(key)
            self._timer_event.clear()
            if not self._timers:
                await self._timer_event.wait()
                continue
            wait_s = self._timers[0][0] - now
            try:
                async with self._clock.timeout(wait_s):
                    await self._timer_event.wait()
            except TimeoutError:
                pass
