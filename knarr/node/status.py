"""What a pod's status says: phase, conditions and the state of each container, in upstream's words.

All of it is computed from what there is; only the moments of transition are taken from the status before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from msgspec import Struct, field

from knarr.api import types
from knarr.api.core.pod_state import IN_SERVICE
from knarr.api.core.v1 import (
    Container,
    ContainerState,
    ContainerStateRunning,
    ContainerStateTerminated,
    ContainerStateWaiting,
    ContainerStatus,
    HostIP,
    Pod,
    PodCondition,
    PodIP,
    PodSpec,
    PodStatus,
    ResourceRequirements,
    VolumeMountStatus,
)
from knarr.clock import utc
from knarr.node.ephemeral import ephemeral_containers
from knarr.node.resizing import CONDITIONS as RESIZING
from knarr.node.resources import is_sidecar, qos_class
from knarr.node.runtime import contract

CONTAINER_SCHEME = "knarr://"
READY_TO_START = "PodReadyToStartContainers"
OWN_CONDITIONS = (READY_TO_START, "Initialized", "Ready", "ContainersReady", "PodScheduled", IN_SERVICE, *RESIZING)
"""Those that the node writes; all others belong to others."""


class Waiting(Struct, frozen=True):
    """Why a container doesn't run."""

    reason: str
    message: str = ""


class Observed(Struct, frozen=True):
    """What is known of one container."""

    newest: contract.Container | None = None
    previous: contract.Container | None = None
    """The run before, if it is still known."""
    waiting: Waiting | None = None
    """Set while it waits for another try."""
    started: bool = False
    ready: bool = False
    restarts: int = 0
    messages: Mapping[str, str] = field(default_factory=dict)
    """Termination messages by container id."""
    before: ContainerStatus | None = None
    """What the API said of it last, for what the runtime no longer knows."""


class Ending(Struct, frozen=True):
    """Why the node ended a pod by itself (DeadlineExceeded, …)."""

    reason: str
    message: str


def pod_status(
    pod: Pod,
    before: PodStatus,
    observed: Mapping[str, Observed],
    *,
    ips: Sequence[str],
    host_ips: Sequence[str],
    has_sandbox: bool,
    over: bool,
    ending: Ending | None,
    now_s: float,
    resizing: Sequence[PodCondition] = (),
) -> PodStatus:
    """The status as it should be. `over`: nothing of the pod runs, or will run, any more."""
    spec = pod.spec
    assert spec
    inits = [_container_status(spec, container, observed[container.name]) for container in spec.init_containers]
    added = [_added_status(spec, container, observed[container.name]) for container in ephemeral_containers(spec)]
    mains = [_container_status(spec, container, observed[container.name]) for container in spec.containers]
    phase = pod_phase(spec, inits, mains, over=over, ended=ending is not None)
    conditions = _conditions(pod, before, phase, inits, mains, has_sandbox=has_sandbox, now_s=now_s, resizing=resizing)
    addresses = list(host_ips) if spec.host_network else list(ips)
    if not addresses and before.pod_ips:
        addresses = [each.ip for each in before.pod_ips]  # a pod that is over keeps telling which one it had
    return PodStatus(
        phase=phase,
        conditions=conditions,
        container_statuses=mains,
        init_container_statuses=inits,
        ephemeral_container_statuses=added,
        host_ip=host_ips[0] if host_ips else None,
        host_ips=[HostIP(ip=each) for each in host_ips],
        pod_ip=addresses[0] if addresses else None,
        pod_ips=[PodIP(ip=ip) for ip in addresses],
        qos_class=qos_class(spec),
        start_time=before.start_time or utc(now_s),
        observed_generation=pod.metadata.generation,
        reason=ending.reason if ending else None,
        message=ending.message if ending else None,
        nominated_node_name=before.nominated_node_name,
    )


def pod_phase(
    spec: PodSpec, inits: Sequence[ContainerStatus], mains: Sequence[ContainerStatus], *, over: bool, ended: bool
) -> str:
    """Pending, Running, Succeeded or Failed."""
    if over:
        codes = [_exit_code(status) for status in (*_one_shot(spec, inits), *mains)]
        return "Succeeded" if not ended and all(code == 0 for code in codes) else "Failed"
    if any(_begun(status) for status in mains) and not any(_never_ran(status) for status in mains):
        return "Running"
    return "Pending"


def _container_status(spec: PodSpec, container: Container, one: Observed) -> ContainerStatus:
    newest, before = one.newest, one.before
    waiting, state, last = one.waiting, ContainerState(), ContainerState()
    terminated = newest is not None and newest.state is contract.ContainerState.EXITED
    if newest is not None and newest.state is contract.ContainerState.RUNNING:
        state = ContainerState(running=ContainerStateRunning(started_at=_moment(newest.started_at_s)))
        last = _last(one, one.previous)
    elif newest is not None and terminated and waiting is None:
        state = ContainerState(terminated=_terminated(newest, one.messages))
        last = _last(one, one.previous)
    else:
        waiting = waiting or Waiting("PodInitializing" if spec.init_containers else "ContainerCreating")
        state = ContainerState(waiting=ContainerStateWaiting(reason=waiting.reason, message=waiting.message or None))
        last = _last(one, newest if terminated else one.previous)
    if newest is None and before is not None and before.state is not None and before.state.terminated is not None:
        # Its run is over and swept away (an init container after the start of the others).
        if one.waiting is None:
            return before
        last = before.state
    image_id = newest.image_id if newest is not None else ""
    return ContainerStatus(
        name=container.name,
        state=state,
        last_state=last,
        ready=one.ready,
        started=one.started,
        restart_count=one.restarts,
        # What runs, not what shall run: they differ until a container of another image has been replaced.
        image=(newest.image if newest is not None else container.image) or "",
        image_id=image_id,
        container_id=f"{CONTAINER_SCHEME}{newest.id}" if newest is not None else None,
        allocated_resources=container.resources.requests if container.resources else {},
        resources=container.resources or ResourceRequirements(),
        volume_mounts=[
            VolumeMountStatus(
                name=mount.name,
                mount_path=mount.mount_path,
                read_only=mount.read_only,
                recursive_read_only="Disabled" if mount.read_only else None,
            )
            for mount in container.volume_mounts
        ],
    )


def _added_status(spec: PodSpec, container: Container, one: Observed) -> ContainerStatus:
    """Of an ephemeral container: it has no probes, and nobody waits for it to be ready."""
    status = _container_status(spec, container, one)
    return types.replace(status, ready=False, started=None)


def _last(one: Observed, run: contract.Container | None) -> ContainerState:
    if run is not None and run.state is contract.ContainerState.EXITED:
        return ContainerState(terminated=_terminated(run, one.messages))
    if one.before is not None and one.before.last_state is not None:
        return one.before.last_state
    return ContainerState()


def _terminated(run: contract.Container, messages: Mapping[str, str]) -> ContainerStateTerminated:
    code = run.exit_code or 0
    if run.oom_killed:
        reason = "OOMKilled"
    elif run.started_at_s is None:
        reason = "StartError"
    else:
        reason = "Completed" if code == 0 else "Error"
    return ContainerStateTerminated(
        exit_code=code,
        reason=reason,
        message=messages.get(run.id) or run.message or None,
        started_at=_moment(run.started_at_s if run.started_at_s is not None else run.created_at_s),
        finished_at=_moment(run.finished_at_s),
        container_id=f"{CONTAINER_SCHEME}{run.id}",
    )


# -- conditions


def _conditions(
    pod: Pod,
    before: PodStatus,
    phase: str,
    inits: Sequence[ContainerStatus],
    mains: Sequence[ContainerStatus],
    *,
    has_sandbox: bool,
    now_s: float,
    resizing: Sequence[PodCondition],
) -> list[PodCondition]:
    spec = pod.spec
    assert spec
    containers_ready = _containers_ready(spec, phase, inits, mains)
    found = {condition.type: condition for condition in before.conditions}
    others = {kind: condition for kind, condition in found.items() if kind not in OWN_CONDITIONS}
    fresh = (
        *resizing,
        PodCondition(type=READY_TO_START, status="True" if has_sandbox else "False"),
        _initialized(spec, phase, inits, mains),
        _ready(spec, containers_ready, others),
        containers_ready,
        PodCondition(type="PodScheduled", status="True"),
    )
    answer = []
    for condition in fresh:
        old = found.get(condition.type)
        same = old is not None and old.status == condition.status and old.last_transition_time is not None
        condition.last_transition_time = old.last_transition_time if same and old is not None else utc(now_s)
        condition.observed_generation = pod.metadata.generation
        answer.append(condition)
    return [*answer, *others.values()]


def _initialized(
    spec: PodSpec, phase: str, inits: Sequence[ContainerStatus], mains: Sequence[ContainerStatus]
) -> PodCondition:
    begun = any(_begun(status) for status in mains)
    missing = [
        status.name
        for container, status in zip(spec.init_containers, inits, strict=True)
        if not (begun or (status.started if is_sidecar(container) else _exit_code(status) == 0))
    ]
    if phase == "Succeeded":
        return PodCondition(type="Initialized", status="True", reason="PodCompleted")
    if missing:
        message = f"containers with incomplete status: [{' '.join(missing)}]"
        return PodCondition(type="Initialized", status="False", reason="ContainersNotInitialized", message=message)
    return PodCondition(type="Initialized", status="True")


def _containers_ready(
    spec: PodSpec, phase: str, inits: Sequence[ContainerStatus], mains: Sequence[ContainerStatus]
) -> PodCondition:
    if phase == "Succeeded":
        return PodCondition(type="ContainersReady", status="False", reason="PodCompleted")
    if phase == "Failed":
        return PodCondition(type="ContainersReady", status="False", reason="PodFailed")
    sidecars = [status for container, status in zip(spec.init_containers, inits, strict=True) if is_sidecar(container)]
    unready = [status.name for status in (*sidecars, *mains) if not status.ready]
    if unready:
        message = f"containers with unready status: [{' '.join(unready)}]"
        return PodCondition(type="ContainersReady", status="False", reason="ContainersNotReady", message=message)
    return PodCondition(type="ContainersReady", status="True")


def _ready(spec: PodSpec, containers_ready: PodCondition, others: Mapping[str, PodCondition]) -> PodCondition:
    if containers_ready.status != "True":
        return PodCondition(
            type="Ready", status="False", reason=containers_ready.reason, message=containers_ready.message
        )
    problems = []
    for gate in spec.readiness_gates:
        condition = others.get(gate.condition_type)
        if condition is None:
            problems.append(f'corresponding condition of pod readiness gate "{gate.condition_type}" does not exist.')
        elif condition.status != "True":
            problems.append(
                f'the status of pod readiness gate "{gate.condition_type}" is not "True", but {condition.status}'
            )
    if problems:
        return PodCondition(type="Ready", status="False", reason="ReadinessGatesNotReady", message=", ".join(problems))
    return PodCondition(type="Ready", status="True")


def _one_shot(spec: PodSpec, inits: Iterable[ContainerStatus]) -> list[ContainerStatus]:
    return [status for container, status in zip(spec.init_containers, inits, strict=True) if not is_sidecar(container)]


def _exit_code(status: ContainerStatus) -> int | None:
    return status.state.terminated.exit_code if status.state and status.state.terminated else None


def _begun(status: ContainerStatus) -> bool:
    """It runs or has run."""
    state, last = status.state, status.last_state
    if state is None:
        return False
    return bool(state.running or state.terminated or (last is not None and last.terminated))


def _never_ran(status: ContainerStatus) -> bool:
    return not _begun(status)


def _moment(at_s: float | None) -> datetime | None:
    return utc(at_s) if at_s is not None else None
