"""Virtual time jumps, keeps order, waits for threads, and says when nothing can happen any more."""

from __future__ import annotations

import asyncio
import time

import pytest

from knarr.simulate.clock import START_S, Stalled, VirtualClock, run


def test_a_day_passes_in_no_time() -> None:
    async def scenario(clock: VirtualClock) -> tuple[float, float]:
        await clock.sleep(24 * 3600)
        return clock.time_s(), clock.monotonic_s()

    began = time.monotonic()
    wall, monotonic = run(scenario)
    assert wall == pytest.approx(START_S + 24 * 3600)
    assert monotonic == pytest.approx(24 * 3600)
    assert time.monotonic() - began < 5


def test_timers_fire_in_the_order_of_their_times() -> None:
    async def scenario(clock: VirtualClock) -> list[int]:
        fired: list[int] = []

        async def fire(after: int) -> None:
            await clock.sleep(after)
            fired.append(after)

        await asyncio.gather(*(fire(after) for after in (30, 10, 20)))
        return fired

    assert run(scenario) == [10, 20, 30]


def test_time_stands_still_while_work_is_ready() -> None:
    async def scenario(clock: VirtualClock) -> float:
        for _ in range(1000):
            await asyncio.sleep(0)
        return clock.monotonic_s()

    assert run(scenario) == 0


def test_a_timeout_is_virtual_too() -> None:
    async def scenario(clock: VirtualClock) -> float:
        with pytest.raises(TimeoutError):
            async with clock.timeout(100):
                await asyncio.Event().wait()
        return clock.monotonic_s()

    assert run(scenario) == pytest.approx(100)


def test_a_thread_is_waited_for_without_a_jump() -> None:
    async def scenario(clock: VirtualClock) -> float:
        timer = asyncio.create_task(clock.sleep(3600))
        await asyncio.to_thread(lambda: sum(range(100_000)))
        at = clock.monotonic_s()
        timer.cancel()
        return at

    assert run(scenario) == 0


def test_waiting_for_nothing_is_an_error_not_a_hang() -> None:
    async def scenario(clock: VirtualClock) -> None:
        await asyncio.Event().wait()

    with pytest.raises(Stalled):
        run(scenario)


def test_a_seed_replays_its_chances() -> None:
    async def scenario(clock: VirtualClock) -> list[float]:
        return [clock.random.random() for _ in range(5)]

    assert run(scenario, seed=3) == run(scenario, seed=3)
    assert run(scenario, seed=3) != run(scenario, seed=4)


def test_a_rest_too_small_for_floats_still_passes() -> None:
    """Waiting for `deadline - now` again and again comes to an end."""

    async def scenario(clock: VirtualClock) -> int:
        deadline_s, rounds = 0.1 + 0.2 + 1e6 / 3, 0
        while clock.monotonic_s() < deadline_s:
            await clock.sleep(deadline_s - clock.monotonic_s())
            rounds += 1
        return rounds

    assert run(scenario) < 10
