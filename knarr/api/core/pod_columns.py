"""How `kubectl get pods` shows a pod (upstream's printPod): how many containers are ready, and one word for it all."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from knarr.api.core.pod_state import is_ready
from knarr.api.core.v1 import ContainerStateTerminated, ContainerStatus, Pod, PodSpec, PodStatus
from knarr.api.printing import NONE, age
from knarr.api.resources import Column


class _Summary(Struct):
    """What is counted over the containers of a pod."""

    word: str
    ready: int = 0
    total: int = 0
    restarts: int = 0
    restarted: datetime | None = None

    def count_restarts(self, container: ContainerStatus) -> None:
        self.restarts += container.restart_count
        ended = container.last_state and container.last_state.terminated
        if ended and ended.finished_at and (self.restarted is None or ended.finished_at > self.restarted):
            self.restarted = ended.finished_at


def status_word(pod: Pod) -> str:
    """The STATUS column: the first thing that is in the way, or the phase."""
    return _summary(pod).word


def _summary(pod: Pod) -> _Summary:
    spec, status = pod.spec or PodSpec(), pod.status or PodStatus()
    sidecars = {container.name for container in spec.init_containers if container.restart_policy == "Always"}
    summary = _Summary(status.reason or status.phase or "", total=len(spec.containers) + len(sidecars))
    for condition in status.conditions:
        if condition.type == "PodScheduled" and condition.reason == "SchedulingGated":
            summary.word = "SchedulingGated"
    initializing = _look_at_init_containers(summary, spec, status, sidecars)
    if not initializing or _initialized(status):
        _look_at_containers(summary, pod, status, sidecars)
    if pod.metadata.deletion_timestamp is not None:
        if status.reason == "NodeLost":
            summary.word = "Unknown"
        elif status.phase not in ("Succeeded", "Failed"):
            summary.word = "Terminating"
    return summary


def _initialized(status: PodStatus) -> bool:
    return any(condition.type == "Initialized" and condition.status == "True" for condition in status.conditions)


def _look_at_init_containers(summary: _Summary, spec: PodSpec, status: PodStatus, sidecars: set[str]) -> bool:
    """Whether one of them is still in the way."""
    for index, container in enumerate(status.init_container_statuses):
        summary.count_restarts(container)
        terminated = container.state.terminated if container.state else None
        waiting = container.state.waiting if container.state else None
        if terminated and terminated.exit_code == 0:
            continue
        if container.name in sidecars and container.started:
            summary.ready += container.ready
            continue
        if terminated:
            summary.word = f"Init:{_ending(terminated)}"
        elif waiting and waiting.reason not in (None, "", "PodInitializing"):
            summary.word = f"Init:{waiting.reason}"
        else:
            summary.word = f"Init:{index}/{len(spec.init_containers)}"
        return True
    return False


def _look_at_containers(summary: _Summary, pod: Pod, status: PodStatus, sidecars: set[str]) -> None:
    summary.restarts, summary.restarted = 0, None
    for container in status.init_container_statuses:
        if container.name in sidecars:
            summary.count_restarts(container)
    running = False
    for container in reversed(status.container_statuses):
        summary.count_restarts(container)
        state = container.state
        if state is None:
            continue
        if state.waiting and state.waiting.reason:
            summary.word = state.waiting.reason
        elif state.terminated:
            summary.word = _ending(state.terminated)
        elif container.ready and state.running:
            running = True
            summary.ready += 1
    if summary.word == "Completed" and running:
        summary.word = "Running" if is_ready(pod) else "NotReady"


def _ending(terminated: ContainerStateTerminated) -> str:
    if terminated.reason:
        return terminated.reason
    return f"Signal:{terminated.signal}" if terminated.signal else f"ExitCode:{terminated.exit_code}"


def _ready(pod: Pod, now_s: float) -> str:
    summary = _summary(pod)
    return f"{summary.ready}/{summary.total}"


def _restarts(pod: Pod, now_s: float) -> str:
    summary = _summary(pod)
    if summary.restarts and summary.restarted:
        return f"{summary.restarts} ({age(summary.restarted, now_s)} ago)"
    return str(summary.restarts)


def _address(pod: Pod, now_s: float) -> str:
    status = pod.status or PodStatus()
    return (status.pod_ips[0].ip if status.pod_ips else status.pod_ip) or NONE


def _gates(pod: Pod, now_s: float) -> str:
    gates = pod.spec.readiness_gates if pod.spec else []
    if not gates:
        return NONE
    states = {each.type: each.status for each in (pod.status.conditions if pod.status else ())}
    return f"{sum(states.get(gate.condition_type) == 'True' for gate in gates)}/{len(gates)}"


COLUMNS = (
    Column("Ready", _ready, description="The aggregate readiness state of this pod for accepting traffic."),
    Column("Status", lambda pod, now_s: status_word(pod), description="The aggregate status of the containers."),
    Column("Restarts", _restarts, description="How often the containers restarted, and when the last did."),
    Column("Age", lambda pod, now_s: age(pod.metadata.creation_timestamp, now_s)),
    Column("IP", _address, priority=1),
    Column("Node", lambda pod, now_s: (pod.spec.node_name if pod.spec else None) or NONE, priority=1),
    Column(
        "Nominated Node",
        lambda pod, now_s: (pod.status.nominated_node_name if pod.status else None) or NONE,
        priority=1,
    ),
    Column("Readiness Gates", _gates, priority=1),
)
