"""Pods: how they are born, what of them may change, how they end, and how `kubectl get pods` shows them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from knarr.api.core.podspec import default_pod_spec, quality_of_service, validate_pod_spec
from knarr.api.core.v1 import Container, ContainerStatus, Pod, PodSpec, PodStatus
from knarr.api.errors import Cause, forbidden
from knarr.api.printing import NONE, age
from knarr.api.resources import Column, Strategy
from knarr.api.types import replace


class PodStrategy(Strategy[Pod]):
    has_status = True
    has_generation = True
    returns_deleted = True
    field_names = (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    )

    def default(self, obj: Pod) -> None:
        obj.spec = obj.spec or PodSpec()
        default_pod_spec(obj.spec)

    def prepare_for_create(self, obj: Pod) -> None:
        assert obj.spec
        obj.status = PodStatus(phase="Pending", qos_class=quality_of_service(obj.spec))

    def prepare_for_status_update(self, obj: Pod, old: Pod) -> None:
        if obj.status and not obj.status.qos_class and old.status:
            obj.status.qos_class = old.status.qos_class

    def validate(self, obj: Pod) -> Iterable[Cause]:
        return validate_pod_spec(obj.spec, "spec")

    def validate_update(self, obj: Pod, old: Pod) -> Iterable[Cause]:
        """Only images, some deadlines and additional tolerations may change."""
        assert obj.spec
        assert old.spec
        allowed = replace(
            obj.spec,
            containers=_with_images(obj.spec.containers, old.spec.containers),
            init_containers=_with_images(obj.spec.init_containers, old.spec.init_containers),
            active_deadline_seconds=old.spec.active_deadline_seconds,
            termination_grace_period_seconds=old.spec.termination_grace_period_seconds,
            scheduling_gates=old.spec.scheduling_gates,
            tolerations=old.spec.tolerations,
        )
        kept = all(toleration in obj.spec.tolerations for toleration in old.spec.tolerations)
        if allowed != old.spec or not kept:
            yield forbidden(
                "spec",
                "pod updates may not change fields other than `spec.containers[*].image`,"
                "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to "
                "existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was "
                "previously negative)",
            )

    def fields(self, obj: Pod) -> Mapping[str, str]:
        spec, status = obj.spec or PodSpec(), obj.status or PodStatus()
        return {
            "spec.nodeName": spec.node_name or "",
            "spec.restartPolicy": spec.restart_policy or "",
            "spec.schedulerName": spec.scheduler_name or "",
            "spec.serviceAccountName": spec.service_account_name or "",
            "spec.hostNetwork": str(bool(spec.host_network)).lower(),
            "status.phase": status.phase or "",
            "status.podIP": status.pod_ip or "",
            "status.nominatedNodeName": status.nominated_node_name or "",
        }

    def graceful_period_s(self, obj: Pod, asked: int | None) -> int:
        spec, status = obj.spec or PodSpec(), obj.status or PodStatus()
        period_s = asked if asked is not None else spec.termination_grace_period_seconds
        if period_s is None:
            period_s = 30
        never_ran = not spec.node_name
        ended = status.phase in ("Succeeded", "Failed")
        return 0 if never_ran or ended else max(period_s, 0)


def _with_images(new: list[Container], old: list[Container]) -> list[Container]:
    """`new` with the images of `old`, to see what else differs."""
    if len(new) != len(old):
        return new
    return [replace(container, image=before.image) for container, before in zip(new, old, strict=True)]


def _statuses(pod: Pod) -> list[ContainerStatus]:
    return pod.status.container_statuses if pod.status else []


def is_ready(pod: Pod) -> bool:
    """Its condition Ready is True."""
    conditions = pod.status.conditions if pod.status else []
    return any(condition.type == "Ready" and condition.status == "True" for condition in conditions)


def _ready(pod: Pod, now_s: float) -> str:
    spec = pod.spec or PodSpec()
    sidecars = {container.name for container in spec.init_containers if container.restart_policy == "Always"}
    status = pod.status or PodStatus()
    ready = sum(each.ready for each in _statuses(pod))
    ready += sum(each.ready for each in status.init_container_statuses if each.name in sidecars)
    return f"{ready}/{len(spec.containers) + len(sidecars)}"


def status_word(pod: Pod) -> str:
    """The STATUS column: the first thing that is in the way, or the phase (printers.printPod)."""
    status, spec = pod.status or PodStatus(), pod.spec or PodSpec()
    word = status.reason or status.phase or "Unknown"
    if any(
        condition.type == "PodScheduled" and condition.reason == "SchedulingGated" for condition in status.conditions
    ):
        word = "SchedulingGated"
    initializing = False
    sidecars = {container.name for container in spec.init_containers if container.restart_policy == "Always"}
    for index, each in enumerate(status.init_container_statuses):
        state = each.state
        if state and state.terminated and state.terminated.exit_code == 0:
            continue
        if each.name in sidecars and each.started:
            continue
        if state and state.terminated:
            if state.terminated.reason:
                word = f"Init:{state.terminated.reason}"
            elif state.terminated.signal:
                word = f"Init:Signal:{state.terminated.signal}"
            else:
                word = f"Init:ExitCode:{state.terminated.exit_code}"
        elif state and state.waiting and state.waiting.reason not in (None, "", "PodInitializing"):
            word = f"Init:{state.waiting.reason}"
        else:
            word = f"Init:{index}/{len(spec.init_containers)}"
        initializing = True
        break
    if not initializing:
        word = _container_word(pod, word)
    if pod.metadata.deletion_timestamp and status.reason == "NodeLost":
        return "Unknown"
    if pod.metadata.deletion_timestamp and status.phase not in ("Succeeded", "Failed"):
        return "Terminating"
    return word


def _container_word(pod: Pod, word: str) -> str:
    running = False
    for each in reversed(_statuses(pod)):
        state = each.state
        if state and state.waiting and state.waiting.reason:
            word = state.waiting.reason
        elif state and state.terminated:
            if state.terminated.reason:
                word = state.terminated.reason
            elif state.terminated.signal:
                word = f"Signal:{state.terminated.signal}"
            else:
                word = f"ExitCode:{state.terminated.exit_code}"
        elif each.ready and state and state.running:
            running = True
    if word == "Completed" and running:
        return "Running" if is_ready(pod) else "NotReady"
    return word


def _restarts(pod: Pod, now_s: float) -> str:
    count, last = 0, None
    for each in (*(pod.status.init_container_statuses if pod.status else ()), *_statuses(pod)):
        count += each.restart_count
        ended = each.last_state.terminated.finished_at if each.last_state and each.last_state.terminated else None
        if ended and (last is None or ended > last):
            last = ended
    return f"{count} ({age(last, now_s)} ago)" if count and last else str(count)


def _gates(pod: Pod, now_s: float) -> str:
    gates = [gate.condition_type for gate in (pod.spec.readiness_gates if pod.spec else ())]
    if not gates:
        return NONE
    conditions = {each.type: each.status for each in (pod.status.conditions if pod.status else ())}
    return f"{sum(conditions.get(gate) == 'True' for gate in gates)}/{len(gates)}"


def _status(pod: Pod) -> Any:
    return pod.status or PodStatus()


COLUMNS = (
    Column("Ready", _ready),
    Column("Status", lambda pod, now_s: status_word(pod)),
    Column("Restarts", _restarts),
    Column("Age", lambda pod, now_s: age(pod.metadata.creation_timestamp, now_s)),
    Column("IP", lambda pod, now_s: _status(pod).pod_ip or NONE, priority=1),
    Column("Node", lambda pod, now_s: (pod.spec and pod.spec.node_name) or NONE, priority=1),
    Column("Nominated Node", lambda pod, now_s: _status(pod).nominated_node_name or NONE, priority=1),
    Column("Readiness Gates", _gates, priority=1),
)
