"""The pods that wait for a node.

*Active* ones are tried next, in the order that the queueSort plugin says. One that fits nowhere is *parked* until
something happens that could help it, and longer after each failure (BACKOFF_MIN_S, doubled, at most BACKOFF_MAX_S), or
until PARKED_MAX_S have passed in case something was missed. One that a preEnqueue plugin doesn't admit is *gated*: it
is parked too, and is not tried before it is admitted.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from msgspec import Struct

from knarr.client.workqueue import WorkQueue
from knarr.clock import Clock
from knarr.scheduler.cache import PodInfo

BACKOFF_MIN_S = 1.0
BACKOFF_MAX_S = 10.0
PARKED_MAX_S = 300.0


class Waiting(Struct):
    """A pod that waits."""

    pod: PodInfo
    order: tuple[Any, int]
    failures: int = 0
    failed_s: float = 0.0
    parked: bool = False
    gated: bool = False
    plugins: frozenset[str] = frozenset()
    """Those that refused it."""
    message: str = ""


class SchedulingQueue:
    """Waiting pods by key."""

    def __init__(self, clock: Clock, order: Callable[[PodInfo, float], Any], gate: Callable[[PodInfo], str]) -> None:
        """`gate` names the plugin that doesn't admit a pod, if there is one."""
        self._clock = clock
        self._order = order
        self._gate = gate
        self._waiting: dict[str, Waiting] = {}
        self._parked: dict[str, Waiting] = {}
        self._refused: defaultdict[str, dict[str, Waiting]] = defaultdict(dict)
        """The parked ones by the plugins that refused them."""
        self._active: list[tuple[tuple[Any, int], str]] = []
        self._timers = WorkQueue(clock)
        self._added = asyncio.Event()
        self._number = 0

    def add(self, pod: PodInfo) -> None:
        """A new pod, or one that changed so that it may fit now."""
        self._number += 1
        waiting = Waiting(pod, (self._order(pod, self._clock.monotonic_s()), self._number))
        self._waiting[pod.key] = waiting
        self._activate(waiting)

    def remove(self, key: str) -> None:
        self._waiting.pop(key, None)
        self._unpark(key)

    def get(self, key: str) -> Waiting | None:
        return self._waiting.get(key)

    async def take(self) -> Waiting:
        """The next pod to try; it stays known until it is removed."""
        while True:
            while self._active:
                order, key = heapq.heappop(self._active)
                waiting = self._waiting.get(key)
                if waiting is not None and waiting.order == order and not waiting.parked:
                    return waiting
            self._added.clear()
            await self._added.wait()

    def park(self, waiting: Waiting, plugins: frozenset[str] = frozenset()) -> None:
        """It fits nowhere now. Without plugins to blame, it is tried again after its backoff."""
        if self._waiting.get(waiting.pod.key) is not waiting:
            return
        waiting.failures += 1
        waiting.failed_s = self._clock.monotonic_s()
        self._park(waiting, plugins)
        self._timers.add_after(waiting.pod.key, PARKED_MAX_S if plugins else self._backoff_s(waiting))

    def refused_by(self, plugins: Iterable[str]) -> list[Waiting]:
        """Those parked that one of these plugins refused."""
        found = [refused for plugin in plugins if (refused := self._refused.get(plugin))]
        if len(found) == 1:
            return list(found[0].values())
        together: dict[str, Waiting] = {}
        for refused in found:
            together |= refused
        return list(together.values())

    def wake(self, waiting: Waiting, *, sure: bool) -> None:
        """Something happened that helps it; unless that is `sure`, its backoff is waited for."""
        left_s = 0.0 if sure else waiting.failed_s + self._backoff_s(waiting) - self._clock.monotonic_s()
        if left_s > 0:
            self._timers.add_after(waiting.pod.key, left_s)
        else:
            self._activate(waiting)

    def counts(self) -> dict[str, int]:
        """How many are to be tried next, wait for their backoff, and wait for something to happen."""
        parked = self._parked.values()
        gated = sum(1 for each in parked if each.gated)
        unschedulable = sum(1 for each in parked if each.plugins) - gated
        return {
            "active": len(self._waiting) - len(parked),
            "backoff": len(parked) - unschedulable - gated,
            "gated": gated,
            "unschedulable": unschedulable,
        }

    async def run_timers(self) -> None:
        """Wake pods whose time has come, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._timers.run_timers())
            while True:
                key = await self._timers.take()
                self._timers.done(key)
                waiting = self._waiting.get(key)
                if waiting is not None and waiting.parked:
                    self._activate(waiting)

    def _activate(self, waiting: Waiting) -> None:
        gate = self._gate(waiting.pod)
        self._unpark(waiting.pod.key)
        waiting.gated = bool(gate)
        if gate:
            self._park(waiting, frozenset((gate,)))
            return
        waiting.parked = False
        heapq.heappush(self._active, (waiting.order, waiting.pod.key))
        self._added.set()

    def _park(self, waiting: Waiting, plugins: frozenset[str]) -> None:
        self._unpark(waiting.pod.key)
        waiting.parked, waiting.plugins = True, plugins
        self._parked[waiting.pod.key] = waiting
        for plugin in plugins:
            self._refused[plugin][waiting.pod.key] = waiting

    def _unpark(self, key: str) -> None:
        waiting = self._parked.pop(key, None)
        for plugin in waiting.plugins if waiting else ():
            self._refused[plugin].pop(key, None)

    def _backoff_s(self, waiting: Waiting) -> float:
        return min(BACKOFF_MIN_S * 2.0 ** min(waiting.failures - 1, 10), BACKOFF_MAX_S)
