"""A pod's sandbox: made before all else, anew when it is lost, with the host ports that lead to it."""

from __future__ import annotations

import asyncio
import logging

from knarr.node.back_off import Retry
from knarr.node.containers import sandbox_config
from knarr.node.runtime.contract import RuntimeFailure, Sandbox
from knarr.node.this_pod import ThisPod

log = logging.getLogger(__name__)


class PodSandbox:
    """The sandboxes of one pod: the one of now, and those before it of which something is left."""

    def __init__(self, this: ThisPod, retry: Retry) -> None:
        self._this = this
        self._runtime = this.node.runtime
        self._retry = retry
        self.all: list[Sandbox] = []
        self.now: Sandbox | None = None
        """The one in which containers can be started."""
        self._making: asyncio.Task[None] | None = None

    async def look(self) -> None:
        """See what the runtime has."""
        if self._making is not None and self._making.done():
            # Not sooner: a look that began before the sandbox was there must not lead to a second one.
            self._making = None
        self.all = sorted(
            (sandbox for sandbox in await self._runtime.sandboxes() if sandbox.config.pod_uid == self._this.uid),
            key=lambda sandbox: sandbox.config.attempt,
        )
        ready = (sandbox for sandbox in reversed(self.all) if sandbox.ready)
        # One that is still being made has no host ports yet, and may not get them.
        self.now = next(ready, None) if self._making is None else None

    @property
    def ips(self) -> tuple[str, ...]:
        """The pod's addresses."""
        if self._this.spec.host_network:
            return self._this.node.config.internal_ips
        return self.now.ips if self.now is not None else ()

    @property
    def address(self) -> str:
        """The first of them, or the last one known."""
        return self.ips[0] if self.ips else self._this.status.pod_ip or ""

    def make(self, now_s: float) -> None:
        """Begin to make one, unless that is under way or has to wait."""
        if self.now is None and self._making is None and self._retry.at_s <= now_s:
            self._making = self._this.spawn(self._make(self.all))

    async def made(self) -> None:
        """Making one can't be broken off: wait for its end."""
        if self._making is not None:
            await asyncio.wait([self._making])

    def close(self) -> None:
        if self._making is not None:
            self._making.cancel()

    async def _make(self, before: list[Sandbox]) -> None:
        """In place of those before, and only those: the next look already sees the new one."""
        this = self._this
        try:
            attempt = max((sandbox.config.attempt for sandbox in before), default=-1) + 1
            for old in before:
                await self._stop(old)
            async with this.node.sandbox_starts:
                fresh = await self._runtime.run_sandbox(sandbox_config(this.pod, attempt, this.node.config))
            await self._map_ports(fresh)
            for old in before:
                await self._runtime.remove_sandbox(old.id)
            self._retry.anew()
        except RuntimeFailure as failure:
            this.tell("Warning", "FailedCreatePodSandBox", failure.message)
            self._retry.later(this.clock.time_s())
        finally:
            this.changed.set()

    async def _map_ports(self, sandbox: Sandbox) -> None:
        """hostPorts, or no sandbox: a pod without its ports would look well and not be reached."""
        mappings, ports = sandbox.config.port_mappings, self._this.node.host_ports
        if ports is None or not mappings or not sandbox.ips:
            return
        try:
            await ports.map_ports(sandbox.id, sandbox.ips, mappings)
        except Exception as error:
            await self._runtime.remove_sandbox(sandbox.id)
            raise RuntimeFailure("FailedCreatePodSandBox", f"failed to map host ports: {error}") from error

    async def stop(self) -> None:
        """Nothing runs in any of them afterwards. Raises RuntimeFailure."""
        for sandbox in self.all:
            await self._stop(sandbox)

    async def _stop(self, sandbox: Sandbox) -> None:
        ports = self._this.node.host_ports
        if ports is not None and sandbox.config.port_mappings:
            try:
                await ports.unmap_ports(sandbox.id)
            except Exception as error:
                log.warning("pod %s: host ports: %s", self._this.name, error)
        await self._runtime.stop_sandbox(sandbox.id)

    async def remove(self) -> None:
        """Nothing is left of them afterwards. Raises RuntimeFailure."""
        for sandbox in self.all:
            await self._runtime.remove_sandbox(sandbox.id)
