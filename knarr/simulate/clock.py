"""Virtual time: a whole cluster, days of it, in a second, the same from the same seed.

    def test_deadline():
        async def scenario(clock: VirtualClock) -> None:
            await clock.sleep(600)          # takes no time at all
        run(scenario, seed=7)

The event loop's clock stands still while anything is ready to run, and jumps to the next timer when nothing is. Work
handed to threads is waited for in real time, without a jump. When nothing is ready, no timer is set and no thread
works, nothing can ever happen again: that is `Stalled`, not a hang.
"""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import Any, TypeVar, TypeVarTuple, Unpack

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")

START_S = 1_767_225_600.0
"""Every run begins on 2026-01-01T00:00:00Z."""
THREAD_POLL_S = 0.05
"""Real time between two looks at whether a thread has finished."""
STEP_MIN_S = 1e-6
"""A timer that is not due yet moves the time by at least so much: waiting for a rest that is smaller than what floats
can tell apart would never end."""
RUN_LIMIT_S = 30 * 24 * 3600.0
"""A scenario that isn't over after so much virtual time never will be."""


class Stalled(RuntimeError):
    """Nothing is ready, no timer is set: the scenario waits for something that never comes."""


class _JumpingSelector(selectors.DefaultSelector):
    """Never waits while the loop has only timers: moves the loop's time instead."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if self.loop.threads:
            return super().select(THREAD_POLL_S)
        if timeout is None:
            raise Stalled("nothing is ready and no timer is set")
        self.loop.advance(timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop with a clock of its own."""

    def __init__(self) -> None:
        self._now_s = 0.0
        self.threads = 0
        """Calls that run in threads now."""
        selector = _JumpingSelector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self._now_s

    def advance(self, delay_s: float) -> None:
        self._now_s += delay_s
        if self._now_s > RUN_LIMIT_S:
            raise Stalled(f"{RUN_LIMIT_S:.0f} virtual seconds have passed")

    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Arguments]], object],
        *args: *Arguments,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        if when > self._now_s:
            when = max(when, self._now_s + STEP_MIN_S)
        return super().call_at(when, callback, *args, context=context)

    def run_in_executor(
        self, executor: Any, func: Callable[[Unpack[Arguments]], T], *args: *Arguments
    ) -> asyncio.Future[T]:
        future = super().run_in_executor(executor, func, *args)
        self.threads += 1
        future.add_done_callback(self._thread_done)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        self.threads += 1
        try:
            await super().shutdown_default_executor()
        finally:
            self.threads -= 1

    def _thread_done(self, _: asyncio.Future[Any]) -> None:
        self.threads -= 1


class VirtualClock:
    """`knarr.clock.Clock` over a VirtualLoop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seed: int = 0) -> None:
        self._loop = loop
        self.random = random.Random(seed)

    def time_s(self) -> float:
        return START_S + self._loop.time()

    def monotonic_s(self) -> float:
        return self._loop.time()

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)

    def timeout(self, delay_s: float | None) -> asyncio.Timeout:
        return asyncio.timeout(delay_s)


def run(scenario: Callable[[VirtualClock], Awaitable[T]], seed: int = 0) -> T:
    """Run `scenario` to its end in virtual time; the same seed gives the same run."""

    async def main() -> T:
        return await scenario(VirtualClock(asyncio.get_running_loop(), seed))

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main())
