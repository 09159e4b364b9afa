"""Pods that have their node and wait for permission to be bound there (upstream's Permit and WaitOnPermit).

A permit plugin that can't say yet has the pod wait; later it allows or rejects it, and when it does neither in time,
the pod is rejected. Who waits keeps its place on the node.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping

from knarr.api.durations import go_duration
from knarr.clock import Clock
from knarr.scheduler.cache import PodInfo
from knarr.scheduler.framework import PERMIT_MAX_S, Rejected, Wait


class HeldPod:
    """One that waits."""

    def __init__(self, pod: PodInfo, node_name: str, waits: Mapping[str, Wait], now_s: float) -> None:
        self.pod = pod
        self.node_name = node_name
        self.rejected: Rejected | None = None
        self.answered = asyncio.Event()
        self.asked = frozenset(waits)
        self.missed = False
        """Something happened meanwhile that could help it if it is rejected."""
        timeouts_s = {plugin: min(wait.timeout_s, PERMIT_MAX_S) for plugin, wait in waits.items()}
        self._pending = {plugin: (now_s + timeout_s, timeout_s) for plugin, timeout_s in timeouts_s.items()}

    @property
    def pending(self) -> Collection[str]:
        """The plugins that it waits for."""
        return self._pending.keys()

    def allow(self, plugin: str) -> None:
        self._pending.pop(plugin, None)
        if not self._pending:
            self.answered.set()

    def reject(self, plugin: str, message: str) -> None:
        if not self.answered.is_set():
            self.rejected = Rejected(plugin, message)
            self.answered.set()

    async def wait(self, clock: Clock) -> None:
        """Until all plugins allow it. Raises Rejected."""
        while not self.answered.is_set():
            plugin, (due_s, timeout_s) = min(self._pending.items(), key=lambda item: item[1])
            try:
                async with clock.timeout(max(0.0, due_s - clock.monotonic_s())):
                    await self.answered.wait()
            except TimeoutError:
                if plugin in self._pending:
                    message = f"rejected due to timeout after waiting {go_duration(timeout_s)} at plugin {plugin}"
                    self.reject(plugin, message)
        if self.rejected is not None:
            raise self.rejected


class HeldPods:
    """All that wait, by uid."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._held: dict[str, HeldPod] = {}

    def get(self, uid: str) -> HeldPod | None:
        return self._held.get(uid)

    def all(self) -> list[HeldPod]:
        return list(self._held.values())

    def hold(self, pod: PodInfo, node_name: str, waits: Mapping[str, Wait]) -> HeldPod:
        held = self._held[pod.pod.metadata.uid or ""] = HeldPod(pod, node_name, waits, self._clock.monotonic_s())
        return held

    def let_go(self, held: HeldPod) -> None:
        self._held.pop(held.pod.pod.metadata.uid or "", None)
