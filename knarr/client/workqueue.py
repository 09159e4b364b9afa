"""The work queue of the loops: each key once, one worker a key at a time, retries with backoff.

A key that is added while it is worked on is worked on again afterwards. `add_after` is for what must be looked at again
at a known time; the earlier of two times holds. With `min_interval_s` a key that was handed out a moment ago is held
back until that much time has passed: the first change is acted on at once, a burst of them together.
"""

from __future__ import annotations

import asyncio
import heapq

from knarr.clock import Clock

BACKOFF_MIN_S = 0.005
BACKOFF_MAX_S = 60.0
"""Retry n of a key that fails waits BACKOFF_MIN_S * 2^n, at most BACKOFF_MAX_S."""


class WorkQueue:
    """Keys to be reconciled."""

    def __init__(self, clock: Clock, min_interval_s: float = 0.0) -> None:
        self._clock = clock
        self._min_interval_s = min_interval_s
        self._ready: asyncio.Queue[str] = asyncio.Queue()
        self._queued: set[str] = set()
        self._working: set[str] = set()
        self._again: set[str] = set()
        self._failures: dict[str, int] = {}
        self._due: dict[str, float] = {}
        self._timers: list[tuple[float, str]] = []
        self._sooner = asyncio.Event()
        self._taken_s: dict[str, float] = {}
        """When keys were handed out last, the oldest first; only those of the last min_interval_s matter."""

    def add(self, key: str) -> None:
        """`key` needs a look, now."""
        if key in self._working:
            self._again.add(key)
        elif key not in self._queued:
            if self._min_interval_s:
                taken_s = self._taken_s.get(key)
                wait_s = 0.0 if taken_s is None else taken_s + self._min_interval_s - self._clock.monotonic_s()
                if wait_s > 0:
                    self.add_after(key, wait_s)
                    return
            self._enqueue(key)

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
        if self._timers[0][0] == due:
            self._sooner.set()

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
        key = await self._ready.get()
        self._queued.discard(key)
        self._working.add(key)
        if self._min_interval_s:
            self._note_taken(key)
        return key

    def hold(self, key: str, delay_s: float) -> None:
        """`key`, that is worked on, is not to be handed out again before so much time: its next look is dear."""
        if self._min_interval_s:
            self._taken_s[key] = self._clock.monotonic_s() + max(0.0, delay_s - self._min_interval_s)

    def done(self, key: str) -> None:
        self._working.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    @property
    def idle(self) -> bool:
        """Nothing is queued or worked on (timers may be pending)."""
        return not self._queued and not self._working

    async def run_timers(self) -> None:
        """Move keys whose time has come into the queue, until cancelled."""
        while True:
            now = self._clock.monotonic_s()
            while self._timers and self._timers[0][0] <= now:
                due, key = heapq.heappop(self._timers)
                if self._due.get(key) == due:
                    del self._due[key]
                    self._wake(key)
            self._sooner.clear()
            if not self._timers:
                await self._sooner.wait()
                continue
            try:
                async with self._clock.timeout(self._timers[0][0] - now):
                    await self._sooner.wait()
            except TimeoutError:
                pass

    def _wake(self, key: str) -> None:
        """A key's time has come: it is not held back once more."""
        if key in self._working:
            self._again.add(key)
        elif key not in self._queued:
            self._enqueue(key)

    def _enqueue(self, key: str) -> None:
        self._queued.add(key)
        self._ready.put_nowait(key)

    def _note_taken(self, key: str) -> None:
        now = self._clock.monotonic_s()
        self._taken_s.pop(key, None)
        self._taken_s[key] = now
        while True:
            oldest = next(iter(self._taken_s))
            if self._taken_s[oldest] + self._min_interval_s > now:
                break
            del self._taken_s[oldest]
