"""Ending containers: preStop, SIGTERM, SIGKILL, all inside of the grace period; sidecars after the others (KEP-753)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from msgspec import Struct

from knarr.api.core.v1 import Container, Pod
from knarr.node.ephemeral import all_containers
from knarr.node.pod_health import PodHealth
from knarr.node.resources import is_sidecar
from knarr.node.runtime import contract
from knarr.node.this_pod import ThisPod

GRACE_S = 30
"""terminationGracePeriodSeconds where nothing says otherwise."""
GRACE_MIN_S = 2.0
"""That a container always gets between SIGTERM and SIGKILL, however long its preStop hook took (upstream's rule)."""

Turn = Callable[[float], Awaitable[None]]
"""Waits, at most so many seconds, until it is a container's turn to end."""


class Stopping(Struct, frozen=True):
    """How the containers of one pod are ended."""

    this: ThisPod
    health: PodHealth
    address: str
    """The pod's, for hooks by HTTP."""

    async def stop(
        self,
        container: Container,
        run: contract.Container,
        grace_s: float,
        *,
        hook: bool = True,
        turn: Turn | None = None,
    ) -> None:
        """End one container. RuntimeFailure when it can't be ended."""
        clock = self.this.clock
        ends_s = clock.monotonic_s() + grace_s
        health = self.health.of(run)
        if health is not None:
            health.ending = True
        if hook and grace_s > 0:
            await self._pre_stop(container, run, grace_s)
        if turn is not None:
            await turn(ends_s - clock.monotonic_s())
        left_s = max(ends_s - clock.monotonic_s(), GRACE_MIN_S) if grace_s > 0 else 0.0
        await self.this.node.runtime.stop_container(run.id, left_s)

    async def stop_all(self, live: Mapping[str, contract.Container], grace_s: float) -> None:
        """End all at once; but a sidecar stays until those after it have ended."""
        every = [each for each in all_containers(self.this.spec) if each.name in live]
        ended = {each.name: asyncio.Event() for each in every}

        async def stop(number: int, container: Container) -> None:
            later = [each.name for each in every[number + 1 :]] if is_sidecar(container) else []
            self.this.tell("Normal", "Killing", f"Stopping container {container.name}", container.name)
            try:
                turn = self._after([ended[name] for name in later])
                await self.stop(container, live[container.name], grace_s, turn=turn)
            finally:
                ended[container.name].set()

        stops = [stop(number, container) for number, container in enumerate(every)]
        for result in await asyncio.gather(*stops, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result

    def _after(self, events: list[asyncio.Event]) -> Turn:
        async def turn(left_s: float) -> None:
            with suppress(TimeoutError):
                async with self.this.clock.timeout(max(left_s, 0.0)):
                    for event in events:
                        await event.wait()

        return turn

    async def _pre_stop(self, container: Container, run: contract.Container, grace_s: float) -> None:
        hook = container.lifecycle.pre_stop if container.lifecycle is not None else None
        if hook is None:
            return
        with suppress(TimeoutError):
            async with self.this.clock.timeout(grace_s):
                outcome = await self.this.node.handlers.run(hook, container, run.id, self.address, grace_s)
                if not outcome.success:
                    text = f"PreStopHook failed: {outcome.message}"
                    self.this.tell("Warning", "FailedPreStopHook", text, container.name)


def grace_s(pod: Pod) -> float:
    """What the pod's containers get to end by themselves."""
    if pod.metadata.deletion_grace_period_seconds is not None:
        return float(max(pod.metadata.deletion_grace_period_seconds, 1))
    given = pod.spec.termination_grace_period_seconds if pod.spec is not None else None
    return float(given if given is not None else GRACE_S)
