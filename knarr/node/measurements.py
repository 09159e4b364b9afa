"""What the containers of a node use, and the node itself: the numbers of `kubectl top` and of autoscalers.

CPU use is a difference over time, so all is measured every 15 s (metrics-server's resolution), and every 2 s while
somebody asks, as an autoscaler does: it sees a change of load within seconds. An answer is about the last 4 s, or the
time between the last two measurements if that is longer. A container that has been measured once at most is measured
when somebody asks, and the answer is about its life so far, as soon as that is a second. The second measurement leaves
its start out: autoscalers count no CPU from before a pod was ready.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path

from knarr.client.nodes import NodeUsage, PodUsage, Usage
from knarr.clock import Clock
from knarr.node.runtime.contract import Container, ContainerState, ContainerUsage, Runtime, RuntimeFailure

log = logging.getLogger(__name__)

RESOLUTION_S = 15.0
ASKED_RESOLUTION_S = 2.0
ASKED_FOR_S = 60.0
"""For so long after a question measurements come quickly."""
WINDOW_S = 4.0
"""What an answer is about, at least, once there are measurements for it."""
WINDOW_S_MIN = 1.0
"""Over less, the rate of a few clock ticks says nothing."""
TICK_NS = 10_000_000
"""/proc/stat counts in hundredths of a second."""


class Measurements:
    """The last measurements of one node. `run` goes on measuring; hollow nodes are measured when they are asked."""

    def __init__(self, runtime: Runtime, clock: Clock, *, hollow: bool) -> None:
        self._runtime = runtime
        self._clock = clock
        self._hollow = hollow
        self._points: dict[str, list[ContainerUsage]] = {}
        """By container: its start, or the last measurement from before the window, then those in the window."""
        self._node: list[ContainerUsage] = []
        """The same of the node."""
        self._asked = asyncio.Event()
        self._asked_s = -ASKED_FOR_S
        self._booted_s = 0.0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self._measure(await self._running(), known=True)
            except (RuntimeFailure, OSError) as failure:
                log.warning("measuring: %s", failure)
            if self._clock.monotonic_s() - self._asked_s < ASKED_FOR_S:
                await self._clock.sleep(ASKED_RESOLUTION_S)
                continue
            self._asked.clear()
            try:
                async with self._clock.timeout(RESOLUTION_S):
                    await self._asked.wait()
            except TimeoutError:
                pass

    async def usage(self) -> NodeUsage:
        """What is used now."""
        self._asked_s = self._clock.monotonic_s()
        self._asked.set()
        running = await self._running()
        await self._measure(running, known=False)
        sandboxes = {each.id: each for each in await self._runtime.sandboxes() if each.ready}
        found: dict[str, dict[str, Usage]] = {}
        for container in running:
            if container.id in self._points and container.sandbox_id in sandboxes:
                points = self._points[container.id]
                usage = between(points[0], points[-1], container.started_at_s or container.created_at_s)
                found.setdefault(container.sandbox_id, {})[container.name] = usage
        pods = tuple(
            PodUsage(one.config.pod_namespace, one.config.pod_name, one.config.pod_uid, one.created_at_s, of_pod)
            for id_, of_pod in found.items()
            for one in (sandboxes[id_],)
        )
        if self._hollow:
            return NodeUsage(
                _sum(self._clock.time_s(), [each for pod in pods for each in pod.containers.values()]), pods
            )
        if len(self._node) < 2:
            return NodeUsage(None, pods)
        return NodeUsage(between(self._node[0], self._node[-1], self._booted_s), pods)

    async def _running(self) -> list[Container]:
        return [each for each in await self._runtime.containers() if each.state is ContainerState.RUNNING]

    async def _measure(self, running: list[Container], *, known: bool) -> None:
        """Measure those that are new, with `known` all of them."""
        for container in running:
            points = self._points.get(container.id, [])
            began_s = container.started_at_s or container.created_at_s
            at_start = ContainerUsage(began_s, 0, 0)
            is_new = not points or (points[0] == at_start and points[-1].at_s - began_s < WINDOW_S_MIN)
            is_due = known and not self._is_fresh(points)
            if is_new or is_due or self._hollow:
                usage = await self._runtime.usage(container.id)
                if usage is not None:
                    points = _with([at_start] if is_new else points, usage)
                    has_later = len(points) > 2 and usage.at_s - points[1].at_s >= WINDOW_S_MIN
                    self._points[container.id] = points[1:] if has_later and points[0] == at_start else points
        for gone in self._points.keys() - {each.id for each in running}:
            del self._points[gone]
        is_due = known and not self._is_fresh(self._node)
        if not self._hollow and (is_due or len(self._node) < 2):
            fresh = await asyncio.to_thread(machine_usage, self._clock.time_s())
            self._booted_s = self._booted_s or fresh.at_s - await asyncio.to_thread(_up_s)
            if not self._node or fresh.at_s - self._node[0].at_s >= WINDOW_S_MIN:
                self._node = _with(self._node, fresh)

    def _is_fresh(self, points: list[ContainerUsage]) -> bool:
        """Measured so lately that another measurement would say nothing."""
        return bool(points) and self._clock.time_s() - points[-1].at_s < WINDOW_S_MIN


def _with(points: list[ContainerUsage], fresh: ContainerUsage) -> list[ContainerUsage]:
    """Measurements and a new one, without those that are no longer needed: the window begins with the first."""
    points = [*points, fresh]
    while len(points) > 2 and points[1].at_s <= fresh.at_s - WINDOW_S:
        points.pop(0)
    return points


def between(before: ContainerUsage, last: ContainerUsage, since_s: float) -> Usage:
    """What was used from one measurement to the next."""
    window_s = last.at_s - before.at_s
    if window_s < WINDOW_S_MIN:
        window_s = 0.0
    rate = max(last.cpu_ns - before.cpu_ns, 0) / window_s if window_s else 0.0
    return Usage(
        last.at_s, window_s, int(rate), last.cpu_ns, last.memory_bytes, last.total_bytes, last.rss_bytes, since_s
    )


def machine_usage(at_s: float) -> ContainerUsage:
    """Of this whole machine, as cadvisor reckons its root: memory that isn't free, less inactive file pages."""
    with open("/proc/stat", encoding="ascii") as file:
        fields = [int(field) for field in file.readline().split()[1:]]
    user, nice, system, _, _, interrupts, soft, *_ = fields
    memory = _memory_bytes()
    total = memory["MemTotal"] - memory["MemFree"]
    working = max(0, total - memory.get("Inactive(file)", 0))
    ticks = user + nice + system + interrupts + soft
    return ContainerUsage(at_s, ticks * TICK_NS, working, total, memory.get("AnonPages", 0))


def _memory_bytes() -> dict[str, int]:
    lines = (line.partition(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return {name: int(value.split()[0]) * 1024 for name, _, value in lines if value.endswith("kB")}


def _up_s() -> float:
    return float(Path("/proc/uptime").read_text().split()[0])


def _sum(at_s: float, usages: Iterable[Usage]) -> Usage:
    """A hollow node uses what its containers do."""
    total = Usage(at_s, RESOLUTION_S, 0, 0, 0)
    for each in usages:
        total = Usage(
            at_s,
            RESOLUTION_S,
            total.cpu_nano_cores + each.cpu_nano_cores,
            total.cpu_ns + each.cpu_ns,
            total.working_set_bytes + each.working_set_bytes,
            total.memory_bytes + each.memory_bytes,
            total.rss_bytes + each.rss_bytes,
        )
    return total
