"""What a pod's worker says of it: its status (status.py), put together at each look and handed to the writer."""

from __future__ import annotations

from knarr.api import types
from knarr.api.core.v1 import Container, PodCondition, PodStatus
from knarr.node.ephemeral import all_containers
from knarr.node.in_service import InService
from knarr.node.pod_containers import PodContainers
from knarr.node.pod_ending import PodEnding
from knarr.node.pod_health import PodHealth
from knarr.node.pod_resizing import PodResizing
from knarr.node.pod_runs import PodRuns
from knarr.node.pod_sandbox import PodSandbox
from knarr.node.resizing import CONDITIONS as RESIZING
from knarr.node.runtime.contract import ContainerState
from knarr.node.status import OWN_CONDITIONS, Observed, pod_status
from knarr.node.status_writer import StatusWriter
from knarr.node.this_pod import ThisPod

QUIET_S = 0.5
"""What a pod says while it begins, or ends by being deleted, is written so much later: most run, or have ended, before
that, which is told at once."""


class PodReport:
    """The status of one pod."""

    def __init__(
        self,
        this: ThisPod,
        sandbox: PodSandbox,
        runs: PodRuns,
        health: PodHealth,
        containers: PodContainers,
        resizing: PodResizing,
        ending: PodEnding,
        service: InService,
        writer: StatusWriter,
    ) -> None:
        self._this = this
        self._sandbox = sandbox
        self._runs = runs
        self._health = health
        self._containers = containers
        self._resizing = resizing
        self._ending = ending
        self._service = service
        self._writer = writer

    def publish(self) -> float | None:
        """Answers in how many seconds to look again, if the pod is on its way into service."""
        this, ending, runs = self._this, self._ending, self._runs.current()
        terminal = this.is_terminal
        if ending.gone:
            return None
        if terminal and not runs and (ending.ended or this.never_begun):
            return None  # it was over before this agent came; there is nothing to add
        status = self._status(terminal=terminal)
        again_s = self._service.enter(this.pod, self._sandbox.ips, ready=_is_ready(status))
        if self._service.condition is not None:
            status.conditions = [*status.conditions, self._service.condition]
        this.status = status
        begins = not runs and not self._containers.waiting and not ending.is_due
        quiet = begins or (ending.is_deleted and not ending.ended)
        self._writer.write(status, within_s=QUIET_S if quiet else 0.0)
        return again_s

    def _status(self, *, terminal: bool) -> PodStatus:
        this, before = self._this, self._this.status
        status = pod_status(
            this.pod,
            types.replace(before, conditions=self._conditions()),
            {container.name: self._observe(container) for container in all_containers(this.spec)},
            ips=self._sandbox.ips,
            host_ips=this.node.config.internal_ips,
            has_sandbox=self._sandbox.now is not None,
            over=self._ending.ended,
            ending=self._ending.why,
            now_s=this.clock.time_s(),
            resizing=[] if terminal else self._resizing.conditions(),
        )
        if terminal:
            status.phase, status.reason, status.message = before.phase, before.reason, before.message
        return status

    def _observe(self, container: Container) -> Observed:
        name = container.name
        newest, before = self._runs.newest(name), self._this.before.get(name)
        is_running = newest is not None and newest.state is ContainerState.RUNNING
        health = self._health.of(newest) if is_running else None
        return Observed(
            newest=newest,
            previous=self._runs.previous(name),
            waiting=None if is_running or self._ending.is_due else self._containers.waiting.get(name),
            started=health is not None and health.started,
            ready=health is not None and health.started and health.ready,
            restarts=newest.attempt if newest is not None else before.restart_count if before is not None else 0,
            messages=self._runs.messages,
            before=before,
        )

    def _conditions(self) -> list[PodCondition]:
        """Our conditions as we know them, others' as the API has them."""
        known = self._this.pod.status.conditions if self._this.pod.status is not None else []
        ours = {each.type: each for each in self._this.status.conditions if each.type in OWN_CONDITIONS}
        theirs = [each for each in known if each.type not in OWN_CONDITIONS]
        missing = {each.type: each for each in known if each.type in OWN_CONDITIONS and each.type not in RESIZING}
        return [*{**missing, **ours}.values(), *theirs]


def _is_ready(status: PodStatus) -> bool:
    return any(each.type == "Ready" and each.status == "True" for each in status.conditions)
