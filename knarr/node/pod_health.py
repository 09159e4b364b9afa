"""The health of a pod's running containers: each has its probes for as long as it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from knarr.api.core.v1 import Container
from knarr.node.probes import Health, Probes
from knarr.node.runtime import contract
from knarr.node.status import CONTAINER_SCHEME
from knarr.node.this_pod import ThisPod


class PodHealth:
    """What the probes of one pod say, by container id."""

    def __init__(self, this: ThisPod) -> None:
        self._this = this
        self._health: dict[str, Health] = {}
        self._probing: dict[str, asyncio.Task[None]] = {}

    def of(self, run: contract.Container | None) -> Health | None:
        return self._health.get(run.id) if run is not None else None

    def watch(self, running: Iterable[tuple[Container, contract.Container, bool]], address: str) -> None:
        """Have probes for just these; the third value says that the container is still being started or ended."""
        alive = set()
        for container, run, busy in running:
            alive.add(run.id)
            if run.id not in self._health:
                self._health[run.id] = self._found(container.name, run)
            if run.id not in self._probing and not busy:
                self._probe(container, run, address)
        for container_id in [each for each in self._probing if each not in alive]:
            self._probing.pop(container_id).cancel()
        for container_id in [each for each in self._health if each not in alive]:
            del self._health[container_id]

    def close(self) -> None:
        for task in self._probing.values():
            task.cancel()

    def _found(self, name: str, run: contract.Container) -> Health:
        before = self._this.before.get(name)
        if before is not None and before.container_id == f"{CONTAINER_SCHEME}{run.id}":
            return Health(started=bool(before.started), ready=before.ready)
        return Health()

    def _probe(self, container: Container, run: contract.Container, address: str) -> None:
        this, health, name = self._this, self._health[run.id], container.name
        if not (container.startup_probe or container.liveness_probe or container.readiness_probe):
            health.started = health.ready = True
            return
        probes = Probes(
            container,
            run.id,
            run.started_at_s or 0.0,
            address,
            health,
            this.clock,
            this.node.handlers,
            this.changed.set,
            lambda text: this.tell("Warning", "Unhealthy", text, name),
        )
        self._probing[run.id] = this.spawn(probes.run())
