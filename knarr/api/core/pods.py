"""Pods: how they are born, what of them may change, how they end, and how `kubectl get pods` shows them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from knarr.api.core.amounts import default_amounts, default_requirements
from knarr.api.core.pod_parts import keep_all_but, validate_added_containers, validate_resize
from knarr.api.core.pod_warnings import pod_warnings
from knarr.api.core.podspec import default_host_ports, default_pod_spec, default_requests
from knarr.api.core.v1 import (
    ContainerState,
    ContainerStatus,
    Pod,
    PodCondition,
    PodSpec,
    PodStatus,
    ResourceRequirements,
)
from knarr.api.core.validate_pod_update import validate_pod_update
from knarr.api.core.validate_podspec import validate_pod_spec
from knarr.api.errors import Cause, forbidden
from knarr.api.quantity import parse_quantity
from knarr.api.resources import Strategy


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
    divided_by = "spec.nodeName"

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
        spec = obj.spec or PodSpec()
        obj.status = PodStatus(phase="Pending", qos_class=qos_class(spec))
        if spec.scheduling_gates:
            why = "Scheduling is blocked due to non-empty scheduling gates"
            gated = PodCondition(type="PodScheduled", status="False", reason="SchedulingGated", message=why)
            obj.status.conditions = [gated]

    def prepare_for_status_update(self, obj: Pod, old: Pod) -> None:
        """The class of service follows from the spec: a node need not know it."""
        if obj.status and not obj.status.qos_class:
            obj.status.qos_class = qos_class(obj.spec or PodSpec())

    def prepare_for_part_update(self, part: str, obj: Pod, old: Pod) -> None:
        keep_all_but(part, obj, old)

    def validate_part_update(self, part: str, obj: Pod, old: Pod) -> Iterable[Cause]:
        if part == "ephemeralcontainers":
            return validate_added_containers(obj, old)
        before, after = old.spec or PodSpec(), obj.spec or PodSpec()
        known = old.status.qos_class if old.status else None
        return validate_resize(obj, old, known or qos_class(before), qos_class(after))

    def validate(self, obj: Pod) -> Iterable[Cause]:
        return validate_pod_spec(obj.spec, "spec")

    def validate_create(self, obj: Pod) -> Iterable[Cause]:
        """What may only come later."""
        spec = obj.spec or PodSpec()
        if spec.ephemeral_containers:
            yield forbidden("spec.ephemeralContainers", "cannot be set on create")
        if spec.node_name and spec.scheduling_gates:
            yield forbidden("spec.nodeName", "cannot be set until all schedulingGates have been cleared")

    def validate_update(self, obj: Pod, old: Pod) -> Iterable[Cause]:
        return validate_pod_update(obj.spec or PodSpec(), old.spec or PodSpec())

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

    def warnings(self, obj: Pod, old: Pod | None) -> Iterable[str]:
        """Told once: updates of pods are frequent, and seldom a person's."""
        return pod_warnings(obj.spec, obj.metadata) if obj.spec and old is None else ()

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
