"""Startup, liveness and readiness of one running container.

The startup probe comes first, and while it has not succeeded nothing else is asked. A liveness or startup probe that
fails failureThreshold times in a row has the container killed; a readiness probe only says whether it gets traffic.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec import Struct

from knarr.api.core.v1 import Container, Probe
from knarr.clock import Clock
from knarr.node.handlers import Handlers, Outcome

PERIOD_S = 10
TIMEOUT_S = 1
FAILURES = 3


class Health(Struct):
    """What the probes of one run of a container have found."""

    started: bool = False
    ready: bool = False
    kill: str = ""
    """Set when the container is to be ended: the event's text."""
    grace_s: int | None = None
    """The failed probe's own grace period."""
    ending: bool = False
    """The container is being ended: only readiness still matters."""


class Tally(Struct):
    """Results in a row: what the thresholds are held against."""

    success_threshold: int
    failure_threshold: int
    verdict: bool | None = None
    """What the probe is held to say; None before either threshold is reached."""
    _last: bool | None = None
    _count: int = 0

    def add(self, success: bool) -> bool | None:
        """Count a result; answers the verdict."""
        self._count = self._count + 1 if success is self._last else 1
        self._last = success
        if self._count >= (self.success_threshold if success else self.failure_threshold):
            self.verdict = success
        return self.verdict


class Probes:
    """The probes of one run of one container."""

    def __init__(
        self,
        container: Container,
        container_id: str,
        started_at_s: float,
        pod_ip: str,
        health: Health,
        clock: Clock,
        handlers: Handlers,
        changed: Callable[[], None],
        unhealthy: Callable[[str], None],
    ) -> None:
        """`changed` is called when `health` has changed, `unhealthy` with the text of each failure."""
        self._container = container
        self._container_id = container_id
        self._started_at_s = started_at_s
        self._pod_ip = pod_ip
        self.health = health
        self._clock = clock
        self._handlers = handlers
        self._changed = changed
        self._unhealthy = unhealthy

    async def run(self) -> None:
        """Until the container has failed or the task is cancelled."""
        container = self._container
        probe = container.startup_probe
        if probe is not None and not self.health.started and not await self._start_up(probe):
            return
        self.health.started = True
        if container.readiness_probe is None:
            self.health.ready = True
        self._changed()
        async with asyncio.TaskGroup() as group:
            if container.liveness_probe is not None:
                group.create_task(self._keep_alive(container.liveness_probe))
            if container.readiness_probe is not None:
                group.create_task(self._keep_ready(container.readiness_probe))

    async def _start_up(self, probe: Probe) -> bool:
        tally = await self._begin(probe)
        while not self.health.ending:
            verdict = tally.add((await self._ask(probe, "Startup")).success)
            if verdict is not None:
                if not verdict:
                    self._fail(probe, "startup")
                return verdict
            await self._clock.sleep(probe.period_seconds or PERIOD_S)
        return False

    async def _keep_alive(self, probe: Probe) -> None:
        tally = await self._begin(probe)
        while not self.health.ending:
            if tally.add((await self._ask(probe, "Liveness")).success) is False:
                self._fail(probe, "liveness")
                return
            await self._clock.sleep(probe.period_seconds or PERIOD_S)

    async def _keep_ready(self, probe: Probe) -> None:
        tally = await self._begin(probe)
        while True:
            verdict = tally.add((await self._ask(probe, "Readiness")).success)
            if verdict is not None and verdict is not self.health.ready:
                self.health.ready = verdict
                self._changed()
            await self._clock.sleep(probe.period_seconds or PERIOD_S)

    async def _begin(self, probe: Probe) -> Tally:
        delay_s = self._started_at_s + (probe.initial_delay_seconds or 0) - self._clock.time_s()
        if delay_s > 0:
            await self._clock.sleep(delay_s)
        return Tally(probe.success_threshold or 1, probe.failure_threshold or FAILURES)

    async def _ask(self, probe: Probe, kind: str) -> Outcome:
        timeout_s = float(probe.timeout_seconds or TIMEOUT_S)
        outcome = await self._handlers.run(probe, self._container, self._container_id, self._pod_ip, timeout_s)
        if not outcome.success and not self.health.ending:
            self._unhealthy(f"{kind} probe failed: {outcome.message}")
        return outcome

    def _fail(self, probe: Probe, kind: str) -> None:
        self.health.kill = f"Container {self._container.name} failed {kind} probe, will be restarted"
        self.health.grace_s = probe.termination_grace_period_seconds
        self._changed()
