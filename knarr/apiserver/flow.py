"""How much the door takes on at once: limits on requests in flight, a time limit for each, and the count of both.

All requests together have a limit (the sum of upstream's --max-requests-inflight and --max-mutating-requests-inflight),
of which each priority level has a share (see knarr.apiserver.priority). What is over it gets 429 and when to come back,
but for administrators, who must be able to mend an overloaded server. Watches, logs and what else lasts as long as its
client likes take no place. Only requests from outside pass here: the parts of this process don't compete with users.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from types import TracebackType
from typing import TypeVar

from knarr.api.durations import duration_s
from knarr.api.errors import APIError, BadRequest, Timeout, TooManyRequests
from knarr.apiserver.action import Action
from knarr.apiserver.metrics import Metrics
from knarr.apiserver.priority import Flow as Assigned
from knarr.apiserver.priority import Priorities
from knarr.apiserver.requests import ResourcePath, flag
from knarr.client.transport import FlowHeaders, Request, User
from knarr.clock import Clock
from knarr.store.contract import Store

T = TypeVar("T")

IN_FLIGHT_MAX = 600
"""At once, of all levels: upstream's 400 reads and 200 writes."""
TIMEOUT_S = 60.0
"""For a request that doesn't last by nature; a client may ask for less with ?timeout."""
LOOK_EVERY_S = 1.0
"""How often requests are looked through for those that take too long."""
OWN_TIMER_BELOW_S = 10.0
"""A shorter limit is kept to the moment, by a timer of its own. One for each request cost a tenth of a GET."""
READING = frozenset({"GET", "HEAD", "OPTIONS"})
LASTING = frozenset({"attach", "exec", "log", "portforward", "proxy"})


class Flow:
    """The requests of one server that are in flight."""

    def __init__(self, metrics: Metrics, store: Store, clock: Clock, in_flight_max: int = IN_FLIGHT_MAX) -> None:
        self._reads, self._writes = Count("readOnly"), Count("mutating")
        self._metrics = metrics
        self._clock = clock
        self._limits: dict[Limit, None] = {}
        self._looking = False
        self._priorities = Priorities(store, in_flight_max)
        self.follower = self._priorities.follower
        """Is to be fresh before a place is asked for."""
        self.figures = self._priorities.figures
        for kind in (self._reads, self._writes):
            metrics.in_flight(kind.name, kind.now)

    def place(self, request: Request, user: User, path: ResourcePath | None, action: Action) -> Place:
        """A place to hold while the request is worked on: to enter it (`with`) raises TooManyRequests when there is
        none."""
        if lasting(request, path):
            watching = action.verb == "watch"
            return Place(self._priorities.of(user, action).headers) if watching else NO_PLACE
        flow = self._priorities.of(user, action)
        count = self._reads if request.method in READING else self._writes
        return LevelPlace(flow, count, self._metrics)

    async def within(self, limit_s: float | None, work: Awaitable[T]) -> T:
        """What `work` answers. Raises TimeoutError when it takes longer."""
        if limit_s is None:
            return await work
        if limit_s < OWN_TIMER_BELOW_S:
            async with self._clock.timeout(limit_s):
                return await work
        limit = Limit(self._clock.monotonic_s() + limit_s)
        self._limits[limit] = None
        if not self._looking:
            self._look_later()
        try:
            return await work
        except asyncio.CancelledError:
            if limit.is_why():
                raise TimeoutError from None
            raise
        finally:
            del self._limits[limit]
            limit.end()

    def _look_later(self) -> None:
        self._looking = True
        asyncio.get_running_loop().call_later(LOOK_EVERY_S, self._look)

    def _look(self) -> None:
        """End what takes too long, and look again as long as there is anything to look at."""
        self._looking = False
        now_s = self._clock.monotonic_s()
        for limit in self._limits:
            limit.look(now_s)
        if self._limits:
            self._look_later()


class Limit:
    """The time limit of what the current task does: as asyncio.Timeout, but looked after by somebody else."""

    __slots__ = ("_before", "_end_s", "_over", "_task")

    def __init__(self, end_s: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._before = task.cancelling()
        self._end_s = end_s
        self._over = False

    def look(self, now_s: float) -> None:
        """Cancel the task when its time is over."""
        if now_s >= self._end_s and not self._over:
            self._over = True
            self._task.cancel()

    def is_why(self) -> bool:
        """Whether it is for this limit alone that the task was cancelled."""
        return self._over and self._task.cancelling() == self._before + 1

    def end(self) -> None:
        if self._over:
            self._task.uncancel()


class Count:
    """How many requests of a kind are in flight."""

    __slots__ = ("name", "taken")

    def __init__(self, name: str) -> None:
        self.name = name
        self.taken = 0

    def now(self) -> int:
        return self.taken


class Place:
    """Held by `with`; this one is no place at all."""

    __slots__ = ("headers",)

    def __init__(self, headers: FlowHeaders | None = None) -> None:
        self.headers = headers

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


NO_PLACE = Place()


class LevelPlace(Place):
    """A place of a priority level."""

    __slots__ = ("_count", "_held", "_level", "_metrics", "_tally")

    def __init__(self, flow: Assigned, count: Count, metrics: Metrics) -> None:
        self.headers = flow.headers
        self._level = flow.level
        self._tally = flow.tally
        self._count = count
        self._metrics = metrics

    def __enter__(self) -> None:
        try:
            self._held = self._level.take()
        except TooManyRequests:
            self._metrics.refused(self._count.name)
            self._tally.rejected += 1
            raise
        self._tally.dispatched += 1
        self._tally.executing += 1
        self._count.taken += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._count.taken -= 1
        self._tally.executing -= 1
        if self._held:
            self._level.give_back()


def lasting(request: Request, path: ResourcePath | None) -> bool:
    """Whether a request goes on as long as its client likes."""
    return path is not None and (path.subresource in LASTING or flag(request.query, "watch"))


def time_limit_s(request: Request, path: ResourcePath | None) -> float | None:
    """How long a request may take; None for those that last. Raises BadRequest."""
    if lasting(request, path):
        return None
    asked = request.query.get("timeout")
    if not asked:
        return TIMEOUT_S
    seconds = duration_s(asked)
    if seconds is None:
        raise BadRequest(f'invalid timeout specified in the request URL: "{asked}" is no duration such as 10s or 1m30s')
    return min(seconds, TIMEOUT_S) or TIMEOUT_S


def timed_out() -> APIError:
    return Timeout("Timeout: request did not complete within requested timeout - context deadline exceeded")
