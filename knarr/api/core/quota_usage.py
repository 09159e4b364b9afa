"""What an object takes of its namespace's quotas, and which quotas it comes under.

Each kind counts as `count/<resource>.<group>`. Some of the core group have shorter names too; pods also take cpu,
memory and so on while they can run, services node ports and load balancers, claims storage, in all and of their class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from knarr.api.core.pod_amounts import Amounts, added, of_pods, pod_limits, pod_requests
from knarr.api.core.quotas import COMPUTE, COUNTED, EPHEMERAL, is_huge_page
from knarr.api.core.v1 import (
    PersistentVolumeClaim,
    Pod,
    PodSpec,
    ResourceQuotaSpec,
    ResourceRequirements,
    ScopedResourceSelectorRequirement,
    Service,
    ServiceSpec,
)
from knarr.api.quantity import parse_quantity
from knarr.api.resources import Resource

CLASS_SUFFIX = ".storageclass.storage.k8s.io/"
OLD_CLASS = "volume.beta.kubernetes.io/storage-class"
UNCOUNTED = (("", "events"), ("events.k8s.io", "events"))
"""They come and go by themselves."""


def is_counted(resource: Resource) -> bool:
    """Whether quotas can be about a kind at all."""
    return resource.namespaced and (resource.group, resource.plural) not in UNCOUNTED


def counts(resource: Resource, name: str) -> bool:
    """Whether objects of a kind take of what a quota calls `name`."""
    if name == f"count/{resource.qualified}":
        return True
    if resource.type is Pod:
        if name in ("pods", *COMPUTE, *EPHEMERAL) or is_huge_page(name):
            return True
        return name.startswith("requests.") and "/" in name
    if resource.type is Service:
        return name in ("services", "services.nodeports", "services.loadbalancers")
    if resource.type is PersistentVolumeClaim:
        return name in ("persistentvolumeclaims", "requests.storage") or CLASS_SUFFIX in name
    return not resource.group and name == resource.plural and name in COUNTED


def usage(resource: Resource, obj: Any, now_s: float) -> Amounts:
    """All that an object takes."""
    taken: Amounts = {f"count/{resource.qualified}": "1"}
    if resource.type is Pod:
        if _can_run(obj, now_s):
            taken |= _of_pod(obj.spec or PodSpec())
    elif resource.type is Service:
        taken |= _of_service(obj.spec or ServiceSpec())
    elif resource.type is PersistentVolumeClaim:
        taken |= _of_claim(obj)
    elif not resource.group and resource.plural in COUNTED:
        taken[resource.plural] = "1"
    return taken


def _can_run(pod: Pod, now_s: float) -> bool:
    """Not when it has come to its end, or should have long ago."""
    if pod.status and pod.status.phase in ("Succeeded", "Failed"):
        return False
    metadata = pod.metadata
    if metadata.deletion_timestamp and metadata.deletion_grace_period_seconds is not None:
        return now_s <= metadata.deletion_timestamp.timestamp() + metadata.deletion_grace_period_seconds
    return True


def _of_pod(spec: PodSpec) -> Amounts:
    return {"pods": "1"} | _compute(pod_requests(spec), pod_limits(spec))


def _compute(requests: Amounts, limits: Amounts) -> Amounts:
    taken: Amounts = {}
    for name, amount in requests.items():
        if name in ("cpu", "memory", "ephemeral-storage") or name.startswith("hugepages-"):
            taken[name] = amount
        if "/" in name or name in taken:
            taken[f"requests.{name}"] = amount
    for name in ("cpu", "memory", "ephemeral-storage"):
        if name in limits:
            taken[f"limits.{name}"] = limits[name]
    return taken


def _of_service(spec: ServiceSpec) -> Amounts:
    taken: Amounts = {"services": "1"}
    balanced = spec.type == "LoadBalancer"
    if spec.type == "NodePort" or (balanced and spec.allocate_load_balancer_node_ports is not False):
        taken["services.nodeports"] = str(len(spec.ports))
    elif balanced:
        taken["services.nodeports"] = str(sum(bool(port.node_port) for port in spec.ports))
    if balanced:
        taken["services.loadbalancers"] = "1"
    return taken


def _of_claim(claim: PersistentVolumeClaim) -> Amounts:
    taken: Amounts = {"persistentvolumeclaims": "1"}
    spec = claim.spec
    size = spec.resources.requests.get("storage") if spec and spec.resources else None
    allocated = claim.status.allocated_resources.get("storage") if claim.status else None
    if allocated is not None and (size is None or parse_quantity(allocated) > parse_quantity(size)):
        size = allocated
    name = claim.metadata.annotations.get(OLD_CLASS) or (spec.storage_class_name if spec else None)
    if name:
        taken[f"{name}{CLASS_SUFFIX}persistentvolumeclaims"] = "1"
    if size is not None:
        taken["requests.storage"] = size
        if name:
            taken[f"{name}{CLASS_SUFFIX}requests.storage"] = size
    return taken


def unsaid(pod: Pod, names: Iterable[str]) -> str:
    """What a pod's containers must say because a quota is about it: "cpu for: a,b; memory for: a", or nothing."""
    required = {name for name in names if name in COMPUTE}
    spec = pod.spec or PodSpec()
    whole = spec.resources
    if not required or (whole and any(of_pods(name) for name in (*whole.requests, *whole.limits))):
        return ""  # What is said for the pod as a whole (KEP-2837) need not be said of each container.
    silent: dict[str, set[str]] = {}
    empty = ResourceRequirements()
    for container in (*spec.containers, *spec.init_containers):
        resources = container.resources or empty
        for name in required - _compute(resources.requests, resources.limits).keys():
            silent.setdefault(name, set()).add(container.name)
    return "; ".join(f"{name} for: {','.join(sorted(silent[name]))}" for name in sorted(silent))


def in_scopes(spec: ResourceQuotaSpec | None, obj: Any) -> bool:
    """Whether a quota is about an object at all."""
    if spec is None or (not spec.scopes and not spec.scope_selector):
        return True
    wanted = [ScopedResourceSelectorRequirement(scope_name=scope, operator="Exists") for scope in spec.scopes]
    if spec.scope_selector:
        wanted += spec.scope_selector.match_expressions
    if isinstance(obj, Pod):
        return all(_pod_in(each, obj) for each in wanted)
    if isinstance(obj, PersistentVolumeClaim):
        return all(_claim_in(each, obj) for each in wanted)
    return False


def _pod_in(wanted: ScopedResourceSelectorRequirement, pod: Pod) -> bool:
    spec = pod.spec or PodSpec()
    match wanted.scope_name:
        case "Terminating":
            return spec.active_deadline_seconds is not None and spec.active_deadline_seconds >= 0
        case "NotTerminating":
            return spec.active_deadline_seconds is None
        case "BestEffort":
            return _best_effort(spec)
        case "NotBestEffort":
            return not _best_effort(spec)
        case "PriorityClass":
            return _selected(wanted, {spec.priority_class_name} - {None, ""})
        case "CrossNamespacePodAffinity":
            return any(term.namespaces or term.namespace_selector is not None for term in _affinity_terms(spec))
    return False


def _best_effort(spec: PodSpec) -> bool:
    from knarr.api.core.pods import qos_class

    return qos_class(spec) == "BestEffort"


def _affinity_terms(spec: PodSpec) -> Iterable[Any]:
    affinity = spec.affinity
    for part in (affinity.pod_affinity, affinity.pod_anti_affinity) if affinity else ():
        if part:
            yield from part.required_during_scheduling_ignored_during_execution
            preferred = part.preferred_during_scheduling_ignored_during_execution
            yield from (each.pod_affinity_term for each in preferred)


def _claim_in(wanted: ScopedResourceSelectorRequirement, claim: PersistentVolumeClaim) -> bool:
    if wanted.scope_name != "VolumeAttributesClass":
        return False
    status = claim.status
    found = {claim.spec.volume_attributes_class_name if claim.spec else None}
    if status:
        found.add(status.current_volume_attributes_class_name)
        if status.modify_volume_status:
            found.add(status.modify_volume_status.target_volume_attributes_class_name)
    return _selected(wanted, found - {None, ""})


def _selected(wanted: ScopedResourceSelectorRequirement, names: set[str | None]) -> bool:
    decide: dict[str, Callable[[], bool]] = {
        "Exists": lambda: bool(names),
        "DoesNotExist": lambda: not names,
        "In": lambda: bool(names & set(wanted.values)),
        "NotIn": lambda: not names & set(wanted.values),
    }
    return decide.get(wanted.operator, lambda: False)()


def total(resource: Resource, objs: Iterable[Any], spec: ResourceQuotaSpec, now_s: float) -> Amounts:
    """What all objects of a kind take of what a quota names; 0 is said too."""
    names = [name for name in spec.hard if counts(resource, name)]
    taken: Amounts = dict.fromkeys(names, "0")
    for obj in objs:
        if in_scopes(spec, obj):
            own = usage(resource, obj, now_s)
            taken = added(taken, {name: own[name] for name in names if name in own})
    return taken
