"""The work queue of the loops: each key once, one worker a key at a time, retries with backoff.

A key that is added while it is worked on is worked on again afterwards. `add_after` is for what must be looked at again
at a known time; the earlier of two times holds. With `min_interval_s` a key that was handed out a moment ago is held
back until that much time has passed: the first change is acted on at once, a burst of them together.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

from knarr.clock import Clock
from knarr.figures import Distribution, Figure, exponential

BACKOFF_MIN_S = 0.005
BACKOFF_MAX_S = 60.0
"""Retry n of a key that fails waits BACKOFF_MIN_S * 2^n, at most BACKOFF_MAX_S."""


DURATION_BOUNDS_S = exponential(1e-8, 10, 10)
"""Of the times that are counted; as upstream's."""
_Value = Callable[["WorkQueue"], float | Distribution]


class WorkQueue:
    """Keys to be reconciled."""

    def __init__(self, clock: Clock, min_interval_s: float = 0.0) -> None:
        self._clock = clock
        self._min_interval_s = min_interval_s
        self._ready: asyncio.Queue[str] = asyncio.Queue()
        self._queued: dict[str, float] = {}
        """Since when (s)."""
        self._working: dict[str, float] = {}
        """Since when (s)."""
        self._again: set[str] = set()
        self._failures: dict[str, int] = {}
        self._due: dict[str, float] = {}
        self._timers: list[tuple[float, str]] = []
        self._sooner = asyncio.Event()
        self._taken_s: dict[str, float] = {}
        """When keys were handed out last, the oldest first; only those of the last min_interval_s matter."""
        self.adds = self.retries = 0
        self.waits, self.works = Distribution(DURATION_BOUNDS_S), Distribution(DURATION_BOUNDS_S)
        """How long keys were in the queue, and how long they were worked on (s)."""

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
        self.retries += 1
        self.add_after(key, min(BACKOFF_MIN_S * 2 ** min(failures, 30), BACKOFF_MAX_S))

    def forget(self, key: str) -> None:
        """`key` went well: its backoff begins anew."""
        self._failures.pop(key, None)

    def failures(self, key: str) -> int:
        return self._failures.get(key, 0)

    async def take(self) -> str:
        """The next key; the caller must call `done` for it."""
        key = await self._ready.get()
        now_s = self._clock.monotonic_s()
        self.waits.observe(now_s - self._queued.pop(key))
        self._working[key] = now_s
        if self._min_interval_s:
            self._note_taken(key)
        return key

    def hold(self, key: str, delay_s: float) -> None:
        """`key`, that is worked on, is not to be handed out again before so much time: its next look is dear."""
        if self._min_interval_s:
            self._taken_s[key] = self._clock.monotonic_s() + max(0.0, delay_s - self._min_interval_s)

    def done(self, key: str) -> None:
        self.works.observe(self._clock.monotonic_s() - self._working.pop(key))
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    @property
    def idle(self) -> bool:
        """Nothing is queued or worked on (timers may be pending)."""
        return not self._queued and not self._working

    @property
    def depth(self) -> int:
        """Keys that wait for a worker."""
        return len(self._queued)

    def working_s(self) -> list[float]:
        """How long each key that is worked on has been so far."""
        now_s = self._clock.monotonic_s()
        return [now_s - since_s for since_s in self._working.values()]

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
        self.adds += 1
        self._queued[key] = self._clock.monotonic_s()
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


def queue_figures(queues: Mapping[str, WorkQueue]) -> Iterator[Figure]:
    """What upstream's work queues count, by the name of the queue."""

    def of(kind: Literal["counter", "gauge", "histogram"], name: str, text: str, value: _Value) -> Figure:
        return Figure(kind, f"workqueue_{name}", text, ("name",), {(key,): value(q) for key, q in queues.items()})

    yield of("counter", "adds_total", "Keys that were queued.", lambda queue: queue.adds)
    yield of("gauge", "depth", "Keys that wait now.", lambda queue: queue.depth)
    yield of("counter", "retries_total", "Keys that were queued anew because they failed.", lambda queue: queue.retries)
    yield of("histogram", "queue_duration_seconds", "How long keys waited.", lambda queue: queue.waits)
    yield of("histogram", "work_duration_seconds", "How long keys were worked on.", lambda queue: queue.works)
    working_s = {name: queue.working_s() for name, queue in queues.items()}
    for name, text, seconds in (
        ("unfinished_work_seconds", "Time spent so far on keys that are worked on now.", sum),
        ("longest_running_processor_seconds", "The longest time spent so far on such a key.", _longest),
    ):
        values = {(queue,): float(seconds(each)) for queue, each in working_s.items()}
        yield Figure("gauge", f"workqueue_{name}", text, ("name",), values)


def _longest(seconds: list[float]) -> float:
    return max(seconds, default=0.0)
