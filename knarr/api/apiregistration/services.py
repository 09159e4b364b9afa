"""APIService: what is filled in, refused and shown (apiregistration/v1)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from knarr.api import names
from knarr.api.apiregistration.priorities import group_priority, version_priority
from knarr.api.apiregistration.v1 import APIService, APIServiceCondition, APIServiceSpec, APIServiceStatus
from knarr.api.errors import Cause, invalid, not_supported, required
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.printing import age
from knarr.api.resources import Column, Strategy
from knarr.api.types import replace

AVAILABLE = "Available"
METRICS = "metrics.k8s.io"
PORT = 443
GROUP_PRIORITY_MAX, VERSION_PRIORITY_MAX = 20000, 1000
STATUSES = ("False", "True", "Unknown")
MANAGED, AT_START = "kube-aggregator.kubernetes.io/automanaged", "onstart"
"""The label of those that the API server itself makes when it starts, and its value."""


class APIServiceRules(Strategy[APIService]):
    name_faults = staticmethod(names.path_segment_faults)
    has_status = True
    allow_unconditional_update = False

    def default(self, obj: APIService) -> None:
        spec = obj.spec = obj.spec or APIServiceSpec()
        if spec.service is not None and spec.service.port is None:
            spec.service.port = PORT

    def prepare_for_create(self, obj: APIService) -> None:
        obj.status = APIServiceStatus()
        if obj.spec is None or obj.spec.service is None:
            obj.status.conditions = [local_condition(obj.metadata.creation_timestamp)]

    def validate(self, obj: APIService) -> Iterable[Cause]:
        spec, name = obj.spec or APIServiceSpec(), obj.metadata.name or ""
        group, version = spec.group or "", spec.version or ""
        wanted = f"{version}.{group}"
        if name != wanted and not names.path_segment_faults(name):
            yield invalid("metadata.name", name, f'must be `spec.version+"."+spec.group`: "{wanted}"')
        if not group and version != "v1":
            yield required("spec.group", "only v1 may have an empty group and it better be legacy kube")
        for fault in names.dns1123_subdomain_faults(group) if group else ():
            yield invalid("spec.group", group, fault)
        for fault in names.dns1035_label_faults(version):
            yield invalid("spec.version", version, fault)
        if not 0 < spec.group_priority_minimum <= GROUP_PRIORITY_MAX:
            detail = "must be positive and less than 20000"
            yield invalid("spec.groupPriorityMinimum", spec.group_priority_minimum, detail)
        if not 0 < spec.version_priority <= VERSION_PRIORITY_MAX:
            yield invalid("spec.versionPriority", spec.version_priority, "must be positive and less than 1000")
        yield from _validate_backend(spec)

    def validate_status_update(self, obj: APIService, old: APIService) -> Iterable[Cause]:
        for index, condition in enumerate(obj.status.conditions if obj.status else ()):
            if condition.status not in STATUSES:
                yield not_supported(f"status.conditions[{index}].status", condition.status, STATUSES)


def _validate_backend(spec: APIServiceSpec) -> Iterable[Cause]:
    """Who serves it, and how he is known."""
    path = "spec.insecureSkipTLSVerify"
    if spec.service is None:
        if spec.ca_bundle:
            detail = "local APIServices may not have a caBundle"
            yield invalid("spec.caBundle", f"{len(spec.ca_bundle)} bytes", detail)
        if spec.insecure_skip_tls_verify:
            yield invalid(path, True, "local APIServices may not have insecureSkipTLSVerify")
        return
    if not spec.service.namespace:
        yield required("spec.service.namespace")
    if not spec.service.name:
        yield required("spec.service.name")
    if spec.insecure_skip_tls_verify and spec.ca_bundle:
        yield invalid(path, True, "may not be true if caBundle is present")


def local_service(group: str, version: str) -> APIService:
    """Of a version that the API server answers for itself. Metrics may be taken over for good by upstream's
    metrics-server, and so are not put right at each start."""
    labels = {} if group == METRICS else {MANAGED: AT_START}
    spec = APIServiceSpec(
        group=group or None,
        version=version,
        group_priority_minimum=group_priority(group),
        version_priority=version_priority(group, version),
    )
    return APIService(metadata=ObjectMeta(name=f"{version}.{group}", labels=labels), spec=spec)


def local_condition(since: datetime | None) -> APIServiceCondition:
    """What is served by the API server itself needs nobody else."""
    return APIServiceCondition(
        type=AVAILABLE,
        status="True",
        reason="Local",
        message="Local APIServices are always available",
        last_transition_time=since,
    )


def availability(service: APIService) -> APIServiceCondition | None:
    """The condition that says whether it can be used."""
    conditions = service.status.conditions if service.status else ()
    return next((condition for condition in conditions if condition.type == AVAILABLE), None)


def is_available(service: APIService) -> bool:
    condition = availability(service)
    return condition is not None and condition.status == "True"


def with_condition(service: APIService, condition: APIServiceCondition) -> APIService:
    """The same, with this condition; the time of its last transition stays where its status does."""
    status = service.status or APIServiceStatus()
    before = next((each for each in status.conditions if each.type == condition.type), None)
    if before is None:
        return replace(service, status=replace(status, conditions=[*status.conditions, condition]))
    if before.status == condition.status:
        condition = replace(condition, last_transition_time=before.last_transition_time)
    conditions = [condition if each is before else each for each in status.conditions]
    return replace(service, status=replace(status, conditions=conditions))


def _backend(service: APIService, now_s: float) -> str:
    reference = service.spec.service if service.spec else None
    return f"{reference.namespace}/{reference.name}" if reference else "Local"


def _available(service: APIService, now_s: float) -> str:
    condition = availability(service)
    if condition is None:
        return "Unknown"
    if condition.status == "True" or not condition.reason:
        return condition.status
    return f"{condition.status} ({condition.reason})"


COLUMNS = (
    Column("Service", _backend, description="The Service that serves this version, or Local."),
    Column("Available", _available, description="Whether it can be used now."),
    Column("Age", lambda service, now_s: age(service.metadata.creation_timestamp, now_s)),
)
