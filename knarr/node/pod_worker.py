"""One pod on its node: from the moment that it is given to the node until nothing of it is left.

A worker looks at what there is, lets `plan` say what is next, starts that, publishes the status, and waits until
something changes: the pod, an exit, a probe's verdict, a referenced object, a back-off that is over. It keeps nothing
that it can't find again: after a restart of the agent a new worker goes on with the containers that still run.

    what they share           this_pod.py
    sandbox, volumes          pod_sandbox.py, pod_volumes.py
    what has run              pod_runs.py
    starting, restarting      pod_containers.py
    probes                    pod_health.py
    amounts                   pod_resizing.py
    into service, out of it   in_service.py
    the end                   pod_ending.py
    status                    pod_report.py
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from knarr.api.core.v1 import Pod, PodCondition, PodStatus
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.types import replace
from knarr.node.back_off import Retry
from knarr.node.in_service import InService
from knarr.node.node_services import NodeServices
from knarr.node.plan import plan
from knarr.node.pod_containers import PodContainers
from knarr.node.pod_ending import PodEnding
from knarr.node.pod_health import PodHealth
from knarr.node.pod_report import PodReport
from knarr.node.pod_resizing import PodResizing
from knarr.node.pod_runs import PodRuns
from knarr.node.pod_sandbox import PodSandbox
from knarr.node.pod_volumes import PodVolumes
from knarr.node.runtime import contract
from knarr.node.status import OWN_CONDITIONS, Ending
from knarr.node.status_writer import StatusWriter
from knarr.node.this_pod import ThisPod


class PodWorker:
    """The worker of one pod. `run` ends when nothing of the pod is left."""

    def __init__(self, pod: Pod, node: NodeServices) -> None:
        self.uid = pod.metadata.uid or ""
        self._node = node
        self._this = this = ThisPod(pod, node)
        self._retry = Retry()
        self._sandbox = PodSandbox(this, self._retry)
        self._volumes = PodVolumes(this, self._sandbox, self._retry)
        self._runs = PodRuns(this)
        self._health = PodHealth(this)
        self._containers = PodContainers(this, self._sandbox, self._runs, self._health)
        self._resizing = PodResizing(this, self._sandbox, self._runs, self._containers)
        self._service = InService(node.traffic, pod, this.tell)
        self._writer = StatusWriter(node.client, node.clock, pod)
        self._ending = PodEnding(
            this,
            self._sandbox,
            self._volumes,
            self._runs,
            self._containers,
            self._service,
            self._writer,
            self._look,
        )
        self._report = PodReport(
            this,
            self._sandbox,
            self._runs,
            self._health,
            self._containers,
            self._resizing,
            self._ending,
            self._service,
            self._writer,
        )
        self._onlookers: set[asyncio.Event] = set()

    # -- what others tell

    def update(self, pod: Pod) -> None:
        """The pod has changed in the API."""
        before = self._resizing.asked
        self._resizing.grant(pod)
        self._writer.found(pod)
        if before.metadata.labels != pod.metadata.labels or before.metadata.annotations != pod.metadata.annotations:
            self._volumes.stale()
        if before.spec != pod.spec:
            self._node.references.hold(pod)
        if not is_told_by_us(before, pod):
            self.wake()

    def vanish(self) -> None:
        """The pod is no longer in the API."""
        self._ending.gone = True
        self._writer.give_up()
        self.wake()

    def wake(self) -> None:
        """Look again: a container has exited, or time has passed."""
        self._this.changed.set()

    def references_changed(self) -> None:
        """A ConfigMap or Secret that the pod names has changed."""
        self._volumes.stale()
        self._retry.at_s = 0.0
        self._containers.configuration_changed()
        self.wake()

    async def give_way(self, why: Ending) -> None:
        """End for a pod that is more important; back when nothing runs any more."""
        self._ending.give_way(why)
        seen = asyncio.Event()
        with self.told(seen):
            self.wake()
            while not (self.is_over or self.is_gone):
                await seen.wait()
                seen.clear()

    def room(self) -> None:
        """Another pod has left the node."""
        if self._resizing.is_pending:
            self.wake()

    # -- what others ask

    @property
    def pod(self) -> Pod:
        """With the amounts that the node grants."""
        return self._this.pod

    @property
    def is_over(self) -> bool:
        """It holds nothing of the node any more."""
        return self._ending.ended or self._this.is_terminal

    @property
    def is_gone(self) -> bool:
        return self._ending.gone

    @property
    def status(self) -> PodStatus:
        """The newest status, written already or not."""
        return self._this.status

    def run_of(self, container: str, *, previous: bool) -> contract.Container | None:
        """The newest run of a container, or the one before it: for one that backs off, that which has ended."""
        return self._runs.logged(container, previous=previous, waits=container in self._containers.waiting)

    @contextmanager
    def told(self, seen: asyncio.Event) -> Iterator[None]:
        """Have `seen` set each time that the worker has looked at its containers."""
        self._onlookers.add(seen)
        try:
            yield
        finally:
            self._onlookers.discard(seen)

    # -- the loop

    async def run(self) -> None:
        """Until nothing of the pod is left."""
        self._node.references.hold(self.pod)
        try:
            async with asyncio.TaskGroup() as group:
                self._this.group = group
                writer = group.create_task(self._writer.run(), name=f"status {self._this.name}")
                await self._work()
                self._health.close()
                self._sandbox.close()
                for task in (writer, *self._containers.begun(), *self._volumes.begun()):
                    task.cancel()
        finally:
            self._node.references.release(self.uid)
            self._node.tokens.forget(self.uid)
            self._node.pulls.forget(self.uid)
            self._service.close()

    async def _work(self) -> None:
        changed, clock = self._this.changed, self._this.clock
        while not self._ending.removed.is_set():
            changed.clear()
            await self._look()
            for onlooker in self._onlookers:
                onlooker.set()
            again_s = _soonest(self._step(), self._report.publish())
            with suppress(TimeoutError):
                async with clock.timeout(again_s):
                    await changed.wait()

    async def _look(self) -> None:
        """See what the runtime has of this pod."""
        await self._sandbox.look()
        await self._runs.look(self._sandbox.all)
        running = [
            (container, run, name in self._containers.busy)
            for name, run in self._runs.running().items()
            if (container := self._this.container(name)) is not None
        ]
        self._health.watch(running, self._sandbox.address)

    def _step(self) -> float | None:
        """Begin what is next; answers in how many seconds to look again if nothing happens."""
        now_s = self._this.clock.time_s()
        deadline_s = self._ending.check_deadline(now_s)
        if self._ending.is_due:
            return self._ending.step()
        resize_s = self._resizing.step(now_s)
        seen = self._containers.seen()
        has_sandbox = self._sandbox.now is not None and self._volumes.published
        steps = plan(self._this.spec, seen, has_sandbox=has_sandbox, now_s=now_s)
        if steps.over:
            return self._ending.step()
        renewal_s = self._volumes.refresh(now_s)
        if steps.sandbox:  # and the volumes, side by side
            self._sandbox.make(now_s)
            self._volumes.make(now_s)
        self._containers.carry_out(steps, seen)
        self._runs.sweep()
        retry_s = self._retry.at_s if self._retry.at_s > now_s else None
        due_s = _soonest(*steps.wait_until_s.values(), deadline_s, resize_s, retry_s, renewal_s)
        return max(due_s - now_s, 0.01) if due_s is not None else None


def is_told_by_us(before: Pod, after: Pod) -> bool:
    """Whether a change of a pod in the API is of nothing but what its node says of it."""
    return before.spec == after.spec and _others(before) == _others(after)


def _others(pod: Pod) -> tuple[ObjectMeta, list[PodCondition]]:
    conditions = pod.status.conditions if pod.status is not None else []
    theirs = [each for each in conditions if each.type not in OWN_CONDITIONS]
    return replace(pod.metadata, resource_version=None, managed_fields=[]), theirs


def _soonest(*times_s: float | None) -> float | None:
    return min((each for each in times_s if each is not None), default=None)
