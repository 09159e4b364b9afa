"""One pod on its node: from the moment that it is given to the node until nothing of it is left.

A worker looks at what there is, lets `plan` say what is next, starts that, publishes the status, and waits until
something changes: the pod, an exit, a probe's verdict, a referenced object, a back-off that is over. It keeps nothing
that it can't find again: after a restart of the agent a new worker goes on with the containers that still run.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from msgspec.structs import replace

from knarr.api import types
from knarr.api.core.v1 import Container, LifecycleHandler, Pod, PodCondition, PodSpec, PodStatus
from knarr.api.errors import APIError, Conflict, NotFound
from knarr.node import pod_files
from knarr.node.back_off import BackOff, shown
from knarr.node.containers import sandbox_config
from knarr.node.environment import ConfigurationError
from knarr.node.ephemeral import all_containers, field_path
from knarr.node.in_service import InService
from knarr.node.node_services import NodeServices
from knarr.node.plan import Plan, Seen, done, plan, restarts
from knarr.node.pod_health import PodHealth
from knarr.node.pulls import ImageProblem
from knarr.node.resizing import AGAIN_S, Resizing, change_bounds, needs_restart, resizable
from knarr.node.resizing import CONDITIONS as RESIZING
from knarr.node.resources import container_resources, pod_bounds
from knarr.node.runtime import contract
from knarr.node.runtime.contract import ContainerState, Resources, RuntimeFailure, Sandbox
from knarr.node.starting import start_container
from knarr.node.status import OWN_CONDITIONS, Ending, Observed, Waiting, pod_status
from knarr.node.status_writer import StatusWriter
from knarr.node.stopping import GRACE_MIN_S, Stopping
from knarr.node.volume_failure import VolumeFailure

log = logging.getLogger(__name__)

GRACE_S = 30
"""terminationGracePeriodSeconds where nothing says otherwise."""
HOOK_S_MAX = 3600.0
"""A postStart hook has no bound of its own; the pod's end cancels it."""
RETRY_S = 2.0
"""Before a sandbox, a volume or a container that could not be made is tried again; doubles up to 5 minutes."""
RUNS_KEPT = 2
"""Runs of each container that are kept: the newest, and the one before it for `kubectl logs --previous`."""


class PodWorker:
    """The worker of one pod. `run` ends when nothing of the pod is left."""

    def __init__(self, pod: Pod, node: NodeServices) -> None:
        self.pod = pod
        """With the amounts that the node grants (see resizing.py)."""
        self._asked = pod
        self.uid = pod.metadata.uid or ""
        self._node = node
        self._clock = node.clock
        self._status = pod.status or PodStatus()
        known = self._status
        self._before = {
            status.name: status
            for group in (known.init_container_statuses, known.container_statuses, known.ephemeral_container_statuses)
            for status in group
        }
        self._writer = StatusWriter(node.client, node.clock, pod)
        self._resizing = Resizing(self._before, node.allocatable, lambda: node.requested(self.uid), self._tell)
        self.pod = self._resizing.granted(pod)
        self._resizes: set[str] = set()
        """Containers whose bounds are being changed."""
        self._changed = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None
        self._sandbox: Sandbox | None = None
        self._sandboxes: list[Sandbox] = []
        self._runs: dict[str, list[contract.Container]] = {}
        self._last: dict[str, contract.Container] = {}
        """The last run of each container that has ended: outlives its sandbox."""
        self._messages: dict[str, str] = {}
        self._health = PodHealth(node, self._before, self._spawn, self._changed.set, self._tell)
        self._service = InService(node.traffic, pod, self._tell)
        self._waiting: dict[str, Waiting] = {}
        self._back_offs: dict[str, BackOff] = {}
        self._not_before_s: dict[str, float] = {}
        self._busy: set[str] = set()
        self._making: asyncio.Task[None] | None = None
        self._starting: asyncio.Task[None] | None = None
        self._adding: dict[str, asyncio.Task[None]] = {}
        """Starts of ephemeral containers, the last of each."""
        self._publishing: asyncio.Task[None] | None = None
        self._published = False
        self._publish_again = False
        self._retry_at_s = 0.0
        self._retry_delay_s = RETRY_S
        self._resize_again_s = 0.0
        self._ending: Ending | None = None
        self._end_grace_s: float | None = None
        """The grace period that the running end was begun with."""
        self._ended = False
        self._removing: asyncio.Task[None] | None = None
        self._gone = False
        """The API no longer has the pod."""
        self._removed = asyncio.Event()
        self._onlookers: set[asyncio.Event] = set()

    # -- what others tell

    def update(self, pod: Pod) -> None:
        """The pod has changed in the API."""
        before, self._asked = self._asked, pod
        self.pod = self._resizing.granted(pod)
        self._writer.found(pod)
        if before.metadata.labels != pod.metadata.labels or before.metadata.annotations != pod.metadata.annotations:
            self._publish_again = True
        if before.spec != pod.spec:
            self._node.references.hold(pod)
        self._changed.set()

    def vanish(self) -> None:
        """The pod is no longer in the API."""
        self._gone = True
        self._writer.give_up()
        self._changed.set()

    def wake(self) -> None:
        """Look again: a container has exited, or time has passed."""
        self._changed.set()

    def references_changed(self) -> None:
        """A ConfigMap or Secret that the pod names has changed."""
        self._publish_again = True
        self._retry_at_s = 0.0
        for name, waiting in self._waiting.items():
            if waiting.reason == "CreateContainerConfigError":
                self._not_before_s.pop(name, None)
        self._changed.set()

    def room(self) -> None:
        """Another pod has left the node."""
        if self._resizing.pending is not None:
            self._changed.set()

    @property
    def is_over(self) -> bool:
        """It holds nothing of the node any more."""
        return self._ended or self._is_terminal()

    @property
    def is_gone(self) -> bool:
        return self._gone

    @property
    def status(self) -> PodStatus:
        """The newest status, written already or not."""
        return self._status

    def run_of(self, container: str, *, previous: bool) -> contract.Container | None:
        """The newest run of a container, or the one before it: for one that backs off, that which has ended."""
        runs = self._runs.get(container, [])
        backs_off = bool(runs) and runs[-1].state is ContainerState.EXITED and container in self._waiting
        at = -2 if previous and not backs_off else -1
        return runs[at] if len(runs) >= -at else None

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
                self._group = group
                writer = group.create_task(self._writer.run(), name=f"status {self._name}")
                await self._work()
                self._health.close()
                for task in (writer, self._starting, self._making, self._publishing, *self._adding.values()):
                    if task is not None:
                        task.cancel()
        finally:
            self._node.references.release(self.uid)
            self._node.tokens.forget(self.uid)
            self._node.pulls.forget(self.uid)
            self._service.close()

    async def _work(self) -> None:
        while not self._removed.is_set():
            self._changed.clear()
            await self._look()
            for onlooker in self._onlookers:
                onlooker.set()
            again_s = _sooner(self._step(), self._publish_status())
            with suppress(TimeoutError):
                async with self._clock.timeout(again_s):
                    await self._changed.wait()

    async def _look(self) -> None:
        """See what the runtime has of this pod."""
        runtime = self._node.runtime
        if self._making is not None and self._making.done():
            # Not sooner: a look that began before the sandbox was there must not lead to a second one.
            self._making = None
        self._sandboxes = sorted(
            (sandbox for sandbox in await runtime.sandboxes() if sandbox.config.pod_uid == self.uid),
            key=lambda sandbox: sandbox.config.attempt,
        )
        ready = (sandbox for sandbox in reversed(self._sandboxes) if sandbox.ready)
        # One that is still being made has no host ports yet, and may not get them.
        self._sandbox = next(ready, None) if self._making is None else None
        ours = {sandbox.id for sandbox in self._sandboxes}
        runs: dict[str, list[contract.Container]] = {}
        for container in await runtime.containers():
            if container.sandbox_id in ours:
                runs.setdefault(container.name, []).append(container)
        self._runs = runs
        for name, of_one in runs.items():
            of_one.sort(key=lambda run: (run.attempt, run.created_at_s))
            for run in of_one:
                if run.state is ContainerState.EXITED:
                    self._last[name] = run
                    await self._read_message(name, run)
        newest = [(self._container(name), of_one[-1], name in self._busy) for name, of_one in runs.items()]
        running = [
            (container, run, busy)
            for container, run, busy in newest
            if container is not None and run.state is ContainerState.RUNNING
        ]
        self._health.watch(running, self._address())

    async def _read_message(self, name: str, run: contract.Container) -> None:
        if run.id in self._messages or self._node.config.hollow:
            return
        container = self._container(name)
        if container is not None:
            self._messages[run.id] = await asyncio.to_thread(
                pod_files.termination_message, self.pod, container, run, self._node.config
            )

    def _step(self) -> float | None:
        """Begin what is next; answers in how many seconds to look again if nothing happens."""
        spec, now_s = self._spec, self._clock.time_s()
        deadline_s = self._check_deadline(now_s)
        if self._is_to_end():
            return self._end()
        resize_s = self._resize(now_s)
        seen = self._seen()
        steps = plan(spec, seen, has_sandbox=self._sandbox is not None and self._published, now_s=now_s)
        if steps.over:
            return self._end()
        self._refresh_volumes(now_s)
        if steps.sandbox:
            self._make(now_s)
        for name, why in steps.kill.items():
            self._spawn(self._kill(name, why))
        if steps.start and self._sandbox is not None:
            self._busy.add(steps.start)
            self._starting = self._spawn(self._start(steps.start, self._sandbox))
        for name in steps.ephemeral:
            if self._sandbox is not None:
                self._busy.add(name)
                self._adding[name] = self._spawn(self._start(name, self._sandbox))
        self._note_back_offs(steps, seen, now_s)
        self._sweep()
        times_s = [*steps.wait_until_s.values(), *(time_s for time_s in (deadline_s, resize_s) if time_s)]
        if self._retry_at_s > now_s:
            times_s.append(self._retry_at_s)
        renewal_s = self._node.tokens.renewal_s(self.uid)
        if renewal_s is not None and renewal_s > now_s and self._published:
            times_s.append(renewal_s)
        return max(min(times_s) - now_s, 0.01) if times_s else None

    def _seen(self) -> dict[str, Seen]:
        spec, answer = self._spec, {}
        for container in all_containers(spec):
            name = container.name
            newest = self._newest(name)
            here = newest is not None and self._sandbox is not None and newest.sandbox_id == self._sandbox.id
            health = self._health.of(newest)
            kill = health.kill if health is not None else ""
            if newest is not None and newest.image != (container.image or ""):
                kill = kill or f"Container {name} definition changed, will be restarted"
            if here and newest is not None and self._sizes_by_restart(container, newest):
                kill = kill or f"Container {name} resize requires restart"
            one = Seen(
                newest=newest,
                here=here,
                started=health is not None and health.started,
                kill=kill,
                busy=name in self._busy,
                not_before_s=self._not_before_s.get(name, 0.0),
            )
            if done(one) and restarts(spec, container, one) and newest is not None:
                back_off = self._back_offs.get(name)
                if back_off is not None:
                    due_s = back_off.until_s(newest.finished_at_s or 0.0, self._clock.time_s())
                    one = replace(one, not_before_s=max(one.not_before_s, due_s))
            answer[name] = one
        return answer

    # -- resizing

    def _resize(self, now_s: float) -> float | None:
        """Begin to change the bounds of those that run; answers when to try again."""
        if self._resizing.pending is not None:
            self.pod = self._resizing.granted(self._asked)
        actual: dict[str, Resources] = {}
        for container in resizable(self._spec):
            run = self._newest(container.name)
            if run is None or run.state is not ContainerState.RUNNING or self._sandbox is None:
                continue
            if run.sandbox_id != self._sandbox.id or container.name in self._busy:
                continue
            actual[container.name] = run.resources
            wanted = container_resources(container)
            if wanted == run.resources or self._sizes_by_restart(container, run) or container.name in self._resizes:
                continue
            if now_s >= self._resize_again_s:
                self._resizes.add(container.name)
                self._spawn(self._change_bounds(container.name, run, wanted, self._sandbox))
        self._resizing.progressed(self.pod, actual)
        if self._resizing.pending is not None or self._resizing.error:
            return max(self._resize_again_s, now_s + AGAIN_S)
        return None

    def _sizes_by_restart(self, container: Container, run: contract.Container) -> bool:
        sizes = any(container.name == each.name for each in resizable(self._spec))
        return sizes and run.state is ContainerState.RUNNING and needs_restart(container, run.resources)

    async def _change_bounds(self, name: str, run: contract.Container, wanted: Resources, sandbox: Sandbox) -> None:
        try:
            await change_bounds(self._node.runtime, sandbox, run.id, wanted, pod_bounds(self._spec))
            self._resizing.error = ""
        except RuntimeFailure as failure:
            self._resizing.error = failure.message
            self._resize_again_s = self._clock.time_s() + AGAIN_S
            self._tell("Warning", "ResizeError", f"Pod resize error: {failure.message}", name)
        finally:
            self._resizes.discard(name)
            self._changed.set()

    def _newest(self, name: str) -> contract.Container | None:
        runs = self._runs.get(name)
        return runs[-1] if runs else self._last.get(name)

    def _note_back_offs(self, steps: Plan, seen: dict[str, Seen], now_s: float) -> None:
        """CrashLoopBackOff of those that have to wait after an exit."""
        for name in steps.wait_until_s:
            one = seen[name]
            if not done(one) or name in self._waiting:
                continue
            delay = shown(self._back_offs[name].delay_s) if name in self._back_offs else shown(0)
            metadata = self.pod.metadata
            pod = f"{metadata.name}_{metadata.namespace}({self.uid})"
            self._waiting[name] = Waiting(
                "CrashLoopBackOff", f"back-off {delay} restarting failed container={name} pod={pod}"
            )
            self._tell("Warning", "BackOff", f"Back-off restarting failed container {name} in pod {pod}", name)

    # -- sandbox and volumes

    def _make(self, now_s: float) -> None:
        """A sandbox and the volumes, side by side."""
        if self._sandbox is None and self._making is None and self._retry_at_s <= now_s:
            self._making = self._spawn(self._make_sandbox(self._sandboxes))
        if not self._published:
            self._publish(now_s)

    async def _make_sandbox(self, before: list[Sandbox]) -> None:
        """In place of those before, and only those: the next look already sees the new one."""
        try:
            attempt = max((sandbox.config.attempt for sandbox in before), default=-1) + 1
            for old in before:
                await self._stop_sandbox(old)
            async with self._node.sandbox_starts:
                fresh = await self._node.runtime.run_sandbox(sandbox_config(self.pod, attempt, self._node.config))
            await self._map_ports(fresh)
            for old in before:
                await self._node.runtime.remove_sandbox(old.id)
            self._retry_delay_s = RETRY_S
        except RuntimeFailure as failure:
            self._tell("Warning", "FailedCreatePodSandBox", failure.message)
            self._retry_later()
        finally:
            self._changed.set()

    async def _map_ports(self, sandbox: Sandbox) -> None:
        """hostPorts, or no sandbox: a pod without its ports would look well and not be reached."""
        mappings, ports = sandbox.config.port_mappings, self._node.host_ports
        if ports is None or not mappings or not sandbox.ips:
            return
        try:
            await ports.map_ports(sandbox.id, sandbox.ips, mappings)
        except Exception as error:
            await self._node.runtime.remove_sandbox(sandbox.id)
            raise RuntimeFailure("FailedCreatePodSandBox", f"failed to map host ports: {error}") from error

    async def _stop_sandbox(self, sandbox: Sandbox) -> None:
        if self._node.host_ports is not None and sandbox.config.port_mappings:
            try:
                await self._node.host_ports.unmap_ports(sandbox.id)
            except Exception as error:
                log.warning("pod %s: host ports: %s", self._name, error)
        await self._node.runtime.stop_sandbox(sandbox.id)

    def _refresh_volumes(self, now_s: float) -> None:
        """Publish again what has changed."""
        renewal_s = self._node.tokens.renewal_s(self.uid)
        if self._published and (self._publish_again or (renewal_s is not None and renewal_s <= now_s)):
            self._publish(now_s)

    def _publish(self, now_s: float) -> None:
        if self._publishing is None and self._retry_at_s <= now_s:
            self._publish_again = False
            self._publishing = self._spawn(self._publish_volumes())

    async def _publish_volumes(self) -> None:
        try:
            await self._node.references.known(self.pod)
            if not self._published and not self._node.config.hollow:
                await asyncio.to_thread(pod_files.write_resolver_configuration, self.pod, self._node.config)
            await self._node.volumes.publish(self.pod, self._node.surroundings(self.pod, self._ips()))
            self._published = True
            self._retry_delay_s = RETRY_S
        except VolumeFailure as failure:
            self._tell("Warning", "FailedMount", failure.event)
            if failure.waits:
                self._retry_delay_s = RETRY_S
            self._publish_later()
        except OSError as error:
            self._tell("Warning", "FailedMount", str(error))
            self._publish_later()
        finally:
            self._publishing = None
            self._changed.set()

    def _publish_later(self) -> None:
        """What runs already keeps the files that it has, and gets the new ones when they can be had."""
        self._publish_again = True
        self._retry_later()

    def _retry_later(self) -> None:
        self._retry_at_s = self._clock.time_s() + self._retry_delay_s
        self._retry_delay_s = min(self._retry_delay_s * 2, 300.0)

    # -- starting a container

    async def _start(self, name: str, sandbox: Sandbox) -> None:
        container = self._container(name)
        assert container is not None
        newest = self._newest(name)
        try:
            await self._node.pulls.ensure(self.pod, container, lambda *event: self._tell_of(name, *event))
            if newest is not None:
                self._back_offs.setdefault(name, BackOff()).tried(self._clock.time_s())
            await self._create(container, sandbox, newest)
            self._not_before_s.pop(name, None)
        except ImageProblem as problem:
            self._refuse(name, problem.reason, problem.message, problem.again_s)
        except (ConfigurationError, VolumeFailure) as error:
            self._tell("Warning", "Failed", f"Error: {error}", name)
            self._refuse(name, "CreateContainerConfigError", str(error), self._later_s(name))
        except RuntimeFailure as failure:
            self._tell("Warning", "Failed", f"Error: {failure.message}", name)
            self._refuse(name, failure.reason, failure.message, self._later_s(name))
        except OSError as error:
            self._refuse(name, "CreateContainerError", str(error), self._later_s(name))
        finally:
            self._busy.discard(name)
            self._changed.set()

    async def _create(self, container: Container, sandbox: Sandbox, newest: contract.Container | None) -> None:
        name = container.name
        attempt = self._next_attempt(name, newest)
        if newest is not None and newest.state is ContainerState.CREATED:
            await self._node.runtime.remove_container(newest.id)
        container_id = await start_container(self._node, self.pod, container, attempt, sandbox, self._ips(), self._tell)
        self._waiting.pop(name, None)
        if container.lifecycle is not None and container.lifecycle.post_start is not None:
            await self._post_start(container, container.lifecycle.post_start, container_id)

    async def _post_start(self, container: Container, hook: LifecycleHandler, container_id: str) -> None:
        outcome = await self._node.handlers.run(hook, container, container_id, self._address(), HOOK_S_MAX)
        if not outcome.success:
            self._tell("Warning", "FailedPostStartHook", f"PostStartHook failed: {outcome.message}", container.name)
            self._tell("Normal", "Killing", "FailedPostStartHook", container.name)
            run = await self._node.runtime.container(container_id)
            if run is not None:
                await self._stopping().stop(container, run, self._grace_s(), hook=False)

    def _next_attempt(self, name: str, newest: contract.Container | None) -> int:
        if newest is not None:
            return newest.attempt + (newest.state is not ContainerState.CREATED)
        before = self._before.get(name)
        return before.restart_count + 1 if before is not None and before.container_id else 0

    def _refuse(self, name: str, reason: str, message: str, again_s: float) -> None:
        self._waiting[name] = Waiting(reason, message)
        self._not_before_s[name] = again_s

    def _later_s(self, name: str) -> float:
        """When a container that could not be made is tried again."""
        now_s = self._clock.time_s()
        back_off = self._back_offs.setdefault(name, BackOff())
        back_off.tried(now_s)
        return now_s + back_off.delay_s

    # -- ending containers

    async def _kill(self, name: str, why: str) -> None:
        """End one container, which will be started again."""
        container, run = self._container(name), self._newest(name)
        if container is None or run is None or name in self._busy:
            return
        self._busy.add(name)
        try:
            self._tell("Normal", "Killing", why, name)
            health = self._health.of(run)
            grace_s = float(health.grace_s) if health is not None and health.grace_s is not None else self._grace_s()
            await self._stopping().stop(container, run, grace_s)
        except RuntimeFailure as failure:
            log.warning("pod %s: container %s: %s", self._name, name, failure)
        finally:
            self._busy.discard(name)
            self._changed.set()

    def _sweep(self) -> None:
        """Remove runs that nobody can ask for any more."""
        for name, runs in self._runs.items():
            for run in runs[:-RUNS_KEPT]:
                if run.state is ContainerState.EXITED and f"sweep {run.id}" not in self._busy:
                    self._busy.add(f"sweep {run.id}")
                    self._spawn(self._remove_run(name, run))

    async def _remove_run(self, name: str, run: contract.Container) -> None:
        try:
            await self._node.runtime.remove_container(run.id)
            self._messages.pop(run.id, None)
            if not self._node.config.hollow:
                await asyncio.to_thread(pod_files.forget_run, self.uid, name, run, self._node.config)
        except RuntimeFailure as failure:
            log.warning("pod %s: %s", self._name, failure)
        finally:
            self._busy.discard(f"sweep {run.id}")

    # -- ending the pod

    def _check_deadline(self, now_s: float) -> float | None:
        """When the pod's time is over; ends it when that is now."""
        allowed_s, began = self._spec.active_deadline_seconds, self._status.start_time
        if allowed_s is None or began is None or self._ending is not None or self._ended or self._is_terminal():
            return None
        deadline_s = began.timestamp() + allowed_s
        if now_s < deadline_s:
            return deadline_s
        text = "Pod was active on the node longer than the specified deadline"
        self._ending = Ending("DeadlineExceeded", text)
        self._tell("Normal", "DeadlineExceeded", text)
        return None

    def _is_terminal(self) -> bool:
        """The pod is over already, says its status, and nothing can change that."""
        return self._status.phase in ("Succeeded", "Failed")

    def _is_to_end(self) -> bool:
        return (
            self._gone
            or self.pod.metadata.deletion_timestamp is not None
            or self._ending is not None
            or self._is_terminal()
            or self._ended
        )

    def _end(self) -> float | None:
        """End all containers and the sandbox; when the pod is deleted, remove everything.

        Answers in how many seconds to look again, while new connections may still come to it.
        """
        grace_s = self._grace_s()
        if not self._ended and (self._end_grace_s is None or grace_s < self._end_grace_s):
            begun = self._end_grace_s is not None
            if not begun and self._serves() and (wait_s := self._service.leave(self.pod, grace_s)):
                return wait_s
            self._end_grace_s = grace_s
            left_s = max(grace_s - self._service.spent_s(), min(grace_s, GRACE_MIN_S))
            self._spawn(self._shorten(grace_s) if begun else self._end_all(left_s))
        deleted = self._gone or self.pod.metadata.deletion_timestamp is not None
        if self._ended and deleted and self._removing is None:
            self._removing = self._spawn(self._remove())
        return None

    def _serves(self) -> bool:
        """Whether it is to end by being deleted, with anything that runs: only then it matters who still comes."""
        deleted = self.pod.metadata.deletion_timestamp is not None and not self._gone and self._ending is None
        running = any(runs[-1].state is ContainerState.RUNNING for runs in self._runs.values())
        return deleted and running and not self._is_terminal()

    async def _end_all(self, grace_s: float) -> None:
        try:
            await self._stop_beginnings()
            await self._look()
            live = {name: runs[-1] for name, runs in self._runs.items() if not _has_exited(runs[-1])}
            await self._stopping().stop_all(self._spec, live, grace_s)
            for sandbox in self._sandboxes:
                await self._stop_sandbox(sandbox)
            await self._look()
            self._ended = True
        except RuntimeFailure as failure:
            log.warning("pod %s: %s; trying again", self._name, failure)
            await self._clock.sleep(RETRY_S)
            self._end_grace_s = None
        finally:
            self._changed.set()

    async def _shorten(self, grace_s: float) -> None:
        """A second request to delete, with less time: it holds from now on."""
        runs = [runs[-1] for runs in self._runs.values() if runs[-1].state is ContainerState.RUNNING]
        await asyncio.gather(*(self._node.runtime.stop_container(run.id, grace_s) for run in runs))

    async def _stop_beginnings(self) -> None:
        """Nothing more is started; what can't be broken off is waited for."""
        for task in (self._starting, self._publishing, *self._adding.values()):
            if task is not None and not task.done():
                task.cancel()
                await asyncio.wait([task])
        if self._making is not None:
            await asyncio.wait([self._making])

    async def _remove(self) -> None:
        """The last of it: sandbox, folders, and the object in the API."""
        node = self._node
        try:
            await self._writer.settled()
            for sandbox in self._sandboxes:
                await node.runtime.remove_sandbox(sandbox.id)
            await node.volumes.remove(self.uid)
            if not node.config.hollow:
                await asyncio.to_thread(pod_files.remove_logs, self.pod, node.config)
            if not self._gone:
                await self._delete()
            self._removed.set()
        except (RuntimeFailure, OSError) as failure:
            log.warning("pod %s: %s; trying again", self._name, failure)
            await self._clock.sleep(RETRY_S)
            self._removing = None
        finally:
            self._changed.set()

    async def _delete(self) -> None:
        metadata, delay_s = self.pod.metadata, 0.1
        while not self._gone:
            try:
                await self._node.client.delete(
                    Pod, metadata.name or "", metadata.namespace, grace_period_s=0, uid=self.uid
                )
            except (NotFound, Conflict):
                return
            except APIError as error:
                log.warning("deleting pod %s: %s; trying again", self._name, error)
                await self._clock.sleep(delay_s)
                delay_s = min(delay_s * 2, 10.0)
            else:
                return

    def _grace_s(self) -> float:
        """What the pod's containers get to end by themselves."""
        metadata = self.pod.metadata
        if metadata.deletion_grace_period_seconds is not None:
            return float(max(metadata.deletion_grace_period_seconds, 1))
        given = self._spec.termination_grace_period_seconds
        return float(given if given is not None else GRACE_S)

    # -- status

    def _publish_status(self) -> float | None:
        """Answers in how many seconds to look again, if the pod is on its way into service."""
        if self._gone:
            return None
        if self._is_terminal() and not self._runs and self._ended:
            return None  # it was over before this agent came; there is nothing to add
        spec = self._spec
        observed = {container.name: self._observe(container) for container in all_containers(spec)}
        terminal = self._is_terminal()
        base = types.replace(self._status, conditions=self._conditions())
        status = pod_status(
            self.pod,
            base,
            observed,
            ips=self._ips(),
            host_ips=self._node.config.internal_ips,
            has_sandbox=self._sandbox is not None,
            over=self._ended,
            ending=self._ending,
            now_s=self._clock.time_s(),
            resizing=[] if terminal else self._resizing.conditions(),
        )
        if terminal:
            status.phase, status.reason, status.message = base.phase, base.reason, base.message
        again_s = self._service.enter(self.pod, self._ips(), ready=_is_ready(status))
        if self._service.condition is not None:
            status.conditions = [*status.conditions, self._service.condition]
        self._status = status
        quiet = not self._runs and not self._waiting and not self._is_to_end()
        # Most have left, and ended, before anybody could have read that they wait.
        quiet = quiet or (self._service.is_leaving and self._serves())
        self._writer.write(status, urgent=not quiet)
        return again_s

    def _observe(self, container: Container) -> Observed:
        name = container.name
        runs = self._runs.get(name, [])
        newest = self._newest(name)
        previous = runs[-2] if len(runs) > 1 else None
        if previous is None and newest is not None and self._last.get(name) is not newest:
            previous = self._last.get(name)
        if previous is not None and newest is not None and previous.id == newest.id:
            previous = None
        health = self._health.of(newest)
        is_running = newest is not None and newest.state is ContainerState.RUNNING
        before = self._before.get(name)
        return Observed(
            newest=newest,
            previous=previous,
            waiting=None if is_running or self._is_to_end() else self._waiting.get(name),
            started=is_running and health is not None and health.started,
            ready=is_running and health is not None and health.started and health.ready,
            restarts=newest.attempt if newest is not None else before.restart_count if before is not None else 0,
            messages=self._messages,
            before=before,
        )

    def _conditions(self) -> list[PodCondition]:
        """Our conditions as we know them, others' as the API has them."""
        known = self.pod.status.conditions if self.pod.status is not None else []
        ours = {each.type: each for each in self._status.conditions if each.type in OWN_CONDITIONS}
        theirs = [each for each in known if each.type not in OWN_CONDITIONS]
        missing = {each.type: each for each in known if each.type in OWN_CONDITIONS and each.type not in RESIZING}
        return [*{**missing, **ours}.values(), *theirs]

    # -- small things

    def _tell_of(self, container: str, kind: str, reason: str, message: str) -> None:
        self._tell(kind, reason, message, container)

    def _tell(self, kind: str, reason: str, message: str, container: str = "") -> None:
        path = field_path(self._spec, container) if container else ""
        record = self._node.events.normal if kind == "Normal" else self._node.events.warning
        record(self.pod, reason, message, field_path=path)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        assert self._group is not None
        return self._group.create_task(work, name=f"pod {self._name}")

    def _stopping(self) -> Stopping:
        return Stopping(self._node, self._health, self._address(), self._tell)

    def _container(self, name: str) -> Container | None:
        return next((container for container in all_containers(self._spec) if container.name == name), None)

    def _ips(self) -> tuple[str, ...]:
        if self._spec.host_network:
            return self._node.config.internal_ips
        return self._sandbox.ips if self._sandbox is not None else ()

    def _address(self) -> str:
        ips = self._ips()
        return ips[0] if ips else self._status.pod_ip or ""

    @property
    def _spec(self) -> PodSpec:
        assert self.pod.spec
        return self.pod.spec

    @property
    def _name(self) -> str:
        return f"{self.pod.metadata.namespace}/{self.pod.metadata.name}"


def _is_ready(status: PodStatus) -> bool:
    return any(each.type == "Ready" and each.status == "True" for each in status.conditions)


def _has_exited(run: contract.Container) -> bool:
    return run.state is ContainerState.EXITED


def _sooner(one_s: float | None, other_s: float | None) -> float | None:
    return min((each for each in (one_s, other_s) if each is not None), default=None)
