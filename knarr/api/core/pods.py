"""Pods: how they are born, what of them may change, how they end, and how `kubectl get pods` shows them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from knarr.api.core.amounts import default_amounts, default_requirements
from knarr.api.core.podspec import default_host_ports, default_pod_spec, default_requests
from knarr.api.core.v1 import (
    Container,
    ContainerState,
    ContainerStatus,
    Pod,
    PodSpec,
    PodStatus,
    ResourceRequirements,
)
from knarr.api.core.validate_podspec import validate_pod_spec
from knarr.api.errors import Cause, forbidden
from knarr.api.printing import NONE, age
from knarr.api.quantity import parse_quantity
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
        if obj.spec is None:
            obj.spec = PodSpec()
        spec = obj.spec
        default_pod_spec(spec)
        default_requests(spec)
        if spec.enable_service_links is None:
            spec.enable_service_links = True
        if spec.host_network:
            default_host_ports(spec)
        if obj.status:
            _default_status(obj.status)

    def prepare_for_create(self, obj: Pod) -> None:
        obj.status = PodStatus(phase="Pending", qos_class=qos_class(obj.spec or PodSpec()))

    def prepare_for_status_update(self, obj: Pod, old: Pod) -> None:
        """The class of service follows from the spec: a node need not know it."""
        if obj.status is None:
            obj.status = PodStatus()
        if not obj.status.qos_class:
            obj.status.qos_class = qos_class(obj.spec or PodSpec())

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
            "spec.hostNetwork": "true" if spec.host_network else "false",
            "status.phase": status.phase or "",
            "status.podIP": status.pod_ips[0].ip if status.pod_ips else status.pod_ip or "",
            "status.nominatedNodeName": status.nominated_node_name or "",
        }

    def graceful_period_s(self, obj: Pod, asked: int | None) -> int | None:
        """At once when nothing can run any more, or nothing ever ran."""
        spec, status = obj.spec or PodSpec(), obj.status or PodStatus()
        if not spec.node_name or status.phase in ("Succeeded", "Failed"):
            return 0
        period_s = asked if asked is not None else spec.termination_grace_period_seconds or 0
        return period_s if period_s >= 0 else 1


def qos_class(spec: PodSpec) -> str:
    """Guaranteed: cpu and memory are limited everywhere, and requested as limited. BestEffort: nothing is said at all.

    Upstream's GetPodQOS; what the pod says as a whole (KEP-2837) goes before what its containers say.
    """
    if spec.resources and (spec.resources.requests or spec.resources.limits):
        parts = [spec.resources]
    else:
        empty = ResourceRequirements()
        parts = [container.resources or empty for container in (*spec.containers, *spec.init_containers)]
    said = False
    guaranteed = bool(parts)
    for part in parts:
        if not part.requests and not part.limits:
            guaranteed = False
            continue
        for name in ("cpu", "memory"):
            limit, request = part.limits.get(name, 0), part.requests.get(name, 0)
            said = said or _positive(limit) or _positive(request)
            if not _positive(limit) or parse_quantity(request or limit) != parse_quantity(limit):
                guaranteed = False
    if not said:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def _positive(written: str | int | float) -> bool:
    return parse_quantity(written) > 0


def _default_status(status: PodStatus) -> None:
    for group in (status.container_statuses, status.init_container_statuses, status.ephemeral_container_statuses):
        for container in group:
            _default_container_status(container)


def _default_container_status(status: ContainerStatus) -> None:
    """Upstream writes both states even when there is nothing in them."""
    if status.state is None:
        status.state = ContainerState()
    if status.last_state is None:
        status.last_state = ContainerState()
    if status.allocated_resources:
        default_amounts(status.allocated_resources)
    if status.resources:
        default_requirements(status.resources)


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
