"""The work queue, in virtual time."""

from __future__ import annotations

import asyncio

from knarr.client.workqueue import BACKOFF_MIN_S, WorkQueue, queue_figures
from knarr.simulate.clock import VirtualClock, run


async def taken(queue: WorkQueue, clock: VirtualClock, until_s: float) -> list[tuple[float, str]]:
    """All keys handed out until then, each done at once."""
    found: list[tuple[float, str]] = []
    async with asyncio.TaskGroup() as group:
        timers = group.create_task(queue.run_timers())
        try:
            async with clock.timeout(until_s):
                while True:
                    key = await queue.take()
                    found.append((round(clock.monotonic_s(), 3), key))
                    queue.done(key)
        except TimeoutError:
            timers.cancel()
    return found


def test_a_key_is_queued_once_and_order_is_kept() -> None:
    async def scenario(clock: VirtualClock) -> list[tuple[float, str]]:
        queue = WorkQueue(clock)
        for key in "abacab":
            queue.add(key)
        return await taken(queue, clock, 1)

    assert run(scenario) == [(0, "a"), (0, "b"), (0, "c")]


def test_a_key_added_while_worked_on_comes_again_afterwards() -> None:
    async def scenario(clock: VirtualClock) -> None:
        queue = WorkQueue(clock)
        queue.add("a")
        assert await queue.take() == "a"
        queue.add("a")
        assert queue._ready.empty()
        queue.done("a")
        assert await queue.take() == "a"
        assert not queue.idle
        queue.done("a")
        assert queue.idle

    run(scenario)


def test_the_earlier_of_two_times_holds() -> None:
    async def scenario(clock: VirtualClock) -> list[tuple[float, str]]:
        queue = WorkQueue(clock)
        queue.add_after("a", 20)
        queue.add_after("a", 10)
        queue.add_after("a", 30)
        queue.add_after("b", 5)
        return await taken(queue, clock, 60)

    assert run(scenario) == [(5, "b"), (10, "a")]


def test_failures_double_the_wait_and_success_resets_it() -> None:
    async def scenario(clock: VirtualClock) -> list[float]:
        queue = WorkQueue(clock)
        waits: list[float] = []
        async with asyncio.TaskGroup() as group:
            timers = group.create_task(queue.run_timers())
            for _ in range(4):
                before = clock.monotonic_s()
                queue.retry("a")
                queue.done(await queue.take())
                waits.append(round(clock.monotonic_s() - before, 6))
            queue.forget("a")
            assert queue.failures("a") == 0
            timers.cancel()
        return waits

    assert run(scenario) == [BACKOFF_MIN_S * factor for factor in (1, 2, 4, 8)]


def test_bursts_are_taken_together_but_the_first_is_not_delayed() -> None:
    async def scenario(clock: VirtualClock) -> list[tuple[float, str]]:
        queue = WorkQueue(clock, min_interval_s=1.0)

        async def burst() -> None:
            for _ in range(25):
                queue.add("a")
                await clock.sleep(0.1)

        async with asyncio.TaskGroup() as group:
            group.create_task(burst())
            found = await taken(queue, clock, 10)
        assert len(queue._taken_s) == 1
        return found

    assert run(scenario) == [(0, "a"), (1, "a"), (2, "a"), (3, "a")]


def test_a_cancelled_taker_loses_no_key() -> None:
    async def scenario(clock: VirtualClock) -> str:
        queue = WorkQueue(clock)
        taker = asyncio.create_task(queue.take())
        await asyncio.sleep(0)
        queue.add("a")
        taker.cancel()
        await asyncio.gather(taker, return_exceptions=True)
        return await queue.take()

    assert run(scenario) == "a"


def test_a_dear_key_is_held_back_longer() -> None:
    async def scenario(clock: VirtualClock) -> list[float]:
        queue = WorkQueue(clock, min_interval_s=0.1)
        async with asyncio.TaskGroup() as group:
            timers = group.create_task(queue.run_timers())
            taken: list[float] = []
            queue.add("a")
            for _ in range(3):
                key = await queue.take()
                taken.append(round(clock.monotonic_s(), 3))
                queue.hold(key, 5.0)
                queue.add(key)
                queue.done(key)
            timers.cancel()
        return taken

    assert run(scenario) == [0, 5, 10]


def test_what_goes_through_a_queue_is_counted() -> None:
    async def scenario(clock: VirtualClock) -> None:
        queue = WorkQueue(clock)
        for key in "aabc":
            queue.add(key)
        await clock.sleep(2)
        assert [await queue.take(), await queue.take()] == ["a", "b"]
        await clock.sleep(3)
        queue.done("a")
        queue.retry("a")
        found = {figure.name.removeprefix("workqueue_"): figure.values["q",] for figure in queue_figures({"q": queue})}
        assert (found["adds_total"], found["depth"], found["retries_total"]) == (3, 1, 1)
        assert (found["unfinished_work_seconds"], found["longest_running_processor_seconds"]) == (3, 3)
        assert (sum(queue.waits.counts), queue.waits.total) == (2, 4)
        assert (sum(queue.works.counts), queue.works.total) == (1, 3)

    run(scenario)
