"""The containers of a pod that is to run: each started when it is its turn, ended when it has to begin anew.

What can't be started waits, with a reason that the status shows, and is tried again after its back-off.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from msgspec.structs import replace

from knarr.api.core.v1 import Container, LifecycleHandler
from knarr.node.back_off import BackOff, shown
from knarr.node.environment import ConfigurationError
from knarr.node.ephemeral import all_containers
from knarr.node.plan import Plan, Seen, done, restarts
from knarr.node.pod_health import PodHealth
from knarr.node.pod_runs import PodRuns
from knarr.node.pod_sandbox import PodSandbox
from knarr.node.pulls import ImageProblem
from knarr.node.resizing import sizes_by_restart
from knarr.node.runtime import contract
from knarr.node.runtime.contract import ContainerState, RuntimeFailure, Sandbox
from knarr.node.starting import start_container
from knarr.node.status import Waiting
from knarr.node.stopping import Stopping, grace_s
from knarr.node.this_pod import ThisPod
from knarr.node.volume_failure import VolumeFailure

log = logging.getLogger(__name__)

HOOK_S_MAX = 3600.0
"""A postStart hook has no bound of its own; the pod's end cancels it."""


class PodContainers:
    """Starts and ends the containers of one pod, one by one."""

    def __init__(self, this: ThisPod, sandbox: PodSandbox, runs: PodRuns, health: PodHealth) -> None:
        self._this = this
        self._sandbox = sandbox
        self._runs = runs
        self._health = health
        self.busy: set[str] = set()
        """Containers that are just being started or ended."""
        self.waiting: dict[str, Waiting] = {}
        """Why those that should run don't."""
        self._back_offs: dict[str, BackOff] = {}
        self._not_before_s: dict[str, float] = {}
        self._starts: dict[str, asyncio.Task[None]] = {}
        """The last start of each."""

    # -- what is to be done

    def seen(self) -> dict[str, Seen]:
        """Each container of the spec as the plan wants to know it."""
        return {container.name: self._seen(container) for container in all_containers(self._this.spec)}

    def _seen(self, container: Container) -> Seen:
        name, newest, sandbox = container.name, self._runs.newest(container.name), self._sandbox.now
        here = newest is not None and sandbox is not None and newest.sandbox_id == sandbox.id
        health = self._health.of(newest)
        one = Seen(
            newest=newest,
            here=here,
            started=health is not None and health.started,
            kill=self._why_to_end(container, newest, here=here) if newest is not None else "",
            busy=name in self.busy,
            starting=name in self._starts and not self._starts[name].done(),
            not_before_s=self._not_before_s.get(name, 0.0),
        )
        back_off = self._back_offs.get(name)
        if back_off is None or newest is None or not done(one) or not restarts(self._this.spec, container, one):
            return one
        due_s = back_off.until_s(newest.finished_at_s or 0.0, self._this.clock.time_s())
        return replace(one, not_before_s=max(one.not_before_s, due_s))

    def _why_to_end(self, container: Container, run: contract.Container, *, here: bool) -> str:
        """Why a run must end and begin anew; empty when it needn't."""
        health = self._health.of(run)
        if health is not None and health.kill:
            return health.kill
        if run.image != (container.image or ""):
            return f"Container {container.name} definition changed, will be restarted"
        if here and sizes_by_restart(self._this.spec, container, run):
            return f"Container {container.name} resize requires restart"
        return ""

    def carry_out(self, steps: Plan, seen: Mapping[str, Seen]) -> None:
        """Begin what the plan says of containers."""
        for name, why in steps.kill.items():
            self._this.spawn(self._kill(name, why))
        for name in (*([steps.start] if steps.start else []), *steps.ephemeral):
            if self._sandbox.now is not None:
                self.busy.add(name)
                self._starts[name] = self._this.spawn(self._start(name, self._sandbox.now))
        for name in steps.wait_until_s:
            if done(seen[name]) and name not in self.waiting:
                self._note_back_off(name)

    def _note_back_off(self, name: str) -> None:
        """CrashLoopBackOff of one that has to wait after an exit."""
        delay = shown(self._back_offs[name].delay_s) if name in self._back_offs else shown(0)
        metadata = self._this.pod.metadata
        pod = f"{metadata.name}_{metadata.namespace}({self._this.uid})"
        text = f"back-off {delay} restarting failed container={name} pod={pod}"
        self.waiting[name] = Waiting("CrashLoopBackOff", text)
        self._this.tell("Warning", "BackOff", f"Back-off restarting failed container {name} in pod {pod}", name)

    def configuration_changed(self) -> None:
        """A ConfigMap or Secret that the pod names has changed: those that could not be made for it may be by now."""
        for name, waiting in self.waiting.items():
            if waiting.reason == "CreateContainerConfigError":
                self._not_before_s.pop(name, None)

    def begun(self) -> list[asyncio.Task[None]]:
        """Starts, under way or over."""
        return list(self._starts.values())

    # -- starting one

    async def _start(self, name: str, sandbox: Sandbox) -> None:
        this = self._this
        container, newest = this.container(name), self._runs.newest(name)
        assert container is not None

        def tell(kind: str, reason: str, message: str) -> None:
            this.tell(kind, reason, message, name)

        try:
            await this.node.pulls.ensure(this.pod, container, tell)
            if newest is not None:
                self._back_offs.setdefault(name, BackOff()).tried(this.clock.time_s())
            await self._create(container, sandbox, newest)
            self._not_before_s.pop(name, None)
        except ImageProblem as problem:
            self._refuse(name, problem.reason, problem.message, problem.again_s)
        except (ConfigurationError, VolumeFailure) as error:
            tell("Warning", "Failed", f"Error: {error}")
            self._refuse(name, "CreateContainerConfigError", str(error), self._later_s(name))
        except RuntimeFailure as failure:
            tell("Warning", "Failed", f"Error: {failure.message}")
            self._refuse(name, failure.reason, failure.message, self._later_s(name))
        except OSError as error:
            self._refuse(name, "CreateContainerError", str(error), self._later_s(name))
        finally:
            self.busy.discard(name)
            this.changed.set()

    async def _create(self, container: Container, sandbox: Sandbox, newest: contract.Container | None) -> None:
        this, name = self._this, container.name
        attempt = self._next_attempt(name, newest)
        if newest is not None and newest.state is ContainerState.CREATED:
            await this.node.runtime.remove_container(newest.id)
        container_id = await start_container(this, container, attempt, sandbox, self._sandbox.ips)
        self.waiting.pop(name, None)
        if container.lifecycle is not None and container.lifecycle.post_start is not None:
            await self._post_start(container, container.lifecycle.post_start, container_id)

    async def _post_start(self, container: Container, hook: LifecycleHandler, container_id: str) -> None:
        this = self._this
        outcome = await this.node.handlers.run(hook, container, container_id, self._sandbox.address, HOOK_S_MAX)
        if not outcome.success:
            this.tell("Warning", "FailedPostStartHook", f"PostStartHook failed: {outcome.message}", container.name)
            this.tell("Normal", "Killing", "FailedPostStartHook", container.name)
            run = await this.node.runtime.container(container_id)
            if run is not None:
                await self.stopping().stop(container, run, grace_s(this.pod), hook=False)

    def _next_attempt(self, name: str, newest: contract.Container | None) -> int:
        if newest is not None:
            return newest.attempt + (newest.state is not ContainerState.CREATED)
        before = self._this.before.get(name)
        return before.restart_count + 1 if before is not None and before.container_id else 0

    def _refuse(self, name: str, reason: str, message: str, again_s: float) -> None:
        self.waiting[name] = Waiting(reason, message)
        self._not_before_s[name] = again_s

    def _later_s(self, name: str) -> float:
        """When a container that could not be made is tried again."""
        now_s = self._this.clock.time_s()
        back_off = self._back_offs.setdefault(name, BackOff())
        back_off.tried(now_s)
        return now_s + back_off.delay_s

    # -- ending one

    def stopping(self) -> Stopping:
        """How they are ended."""
        return Stopping(self._this, self._health, self._sandbox.address)

    async def _kill(self, name: str, why: str) -> None:
        """End one container, which will be started again."""
        this = self._this
        container, run = this.container(name), self._runs.newest(name)
        if container is None or run is None or name in self.busy:
            return
        self.busy.add(name)
        try:
            this.tell("Normal", "Killing", why, name)
            health = self._health.of(run)
            own_s = health.grace_s if health is not None else None
            await self.stopping().stop(container, run, float(own_s) if own_s is not None else grace_s(this.pod))
        except RuntimeFailure as failure:
            log.warning("pod %s: container %s: %s", this.name, name, failure)
        finally:
            self.busy.discard(name)
            this.changed.set()
