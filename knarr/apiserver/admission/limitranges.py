"""LimitRanger: containers that say nothing get the namespace's defaults, and nothing is outside of its limits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from knarr.api.core.pod_amounts import pod_limits, pod_requests
from knarr.api.core.v1 import Container, LimitRange, PersistentVolumeClaim, Pod, PodSpec, ResourceRequirements
from knarr.api.quantity import parse_quantity
from knarr.api.resources import Resource
from knarr.api.types import Quantity
from knarr.apiserver.admission import Attributes, Plugin
from knarr.apiserver.admission.index import Index

ANNOTATION = "kubernetes.io/limit-ranger"
Amounts = Mapping[str, Quantity]
_NOTHING = ResourceRequirements()


class LimitRanger(Plugin):
    def __init__(self, limit_ranges: Index[LimitRange]) -> None:
        self._limit_ranges = limit_ranges

    def concerns(self, resource: Resource, operation: str, subresource: str) -> bool:
        """New pods, pods that are resized (KEP-1287), and claims."""
        if resource.type is Pod:
            return (operation, subresource) in (("CREATE", ""), ("UPDATE", "resize"))
        return resource.type is PersistentVolumeClaim and operation in ("CREATE", "UPDATE") and not subresource

    async def mutate(self, attributes: Attributes) -> None:
        if attributes.resource.type is not Pod or attributes.obj.spec is None:
            return
        for limit_range in await self._limit_ranges.all(attributes.namespace):
            _default(attributes.obj, limit_range)

    async def validate(self, attributes: Attributes) -> None:
        obj = attributes.obj
        if attributes.operation == "UPDATE" and obj.metadata.deletion_timestamp:
            return
        for limit_range in await self._limit_ranges.all(attributes.namespace):
            faults = list(dict.fromkeys(_faults(obj, limit_range)))
            if faults:
                raise attributes.refused(faults[0] if len(faults) == 1 else f"[{', '.join(faults)}]")


def _default(pod: Pod, limit_range: LimitRange) -> None:
    requests: dict[str, Quantity] = {}
    limits: dict[str, Quantity] = {}
    for item in limit_range.spec.limits if limit_range.spec else ():
        if item.type == "Container":
            requests |= item.default_request
            limits |= item.default
    if not requests and not limits:
        return
    assert pod.spec
    done: list[str] = []
    for what, containers in (("container", pod.spec.containers), ("init container", pod.spec.init_containers)):
        for container in containers:
            done += _default_container(container, what, requests, limits)
    if done:
        pod.metadata.annotations[ANNOTATION] = "LimitRanger plugin set: " + "; ".join(done)


def _default_container(container: Container, what: str, requests: Amounts, limits: Amounts) -> Iterable[str]:
    """Fills in what is missing; tells what that was."""
    resources = container.resources = container.resources or ResourceRequirements()
    for word, own, default in (("request", resources.requests, requests), ("limit", resources.limits, limits)):
        missing = sorted(default.keys() - own.keys())
        if missing:
            own.update({name: default[name] for name in missing})
            yield f"{', '.join(missing)} {word} for {what} {container.name}"


def _faults(obj: Pod | PersistentVolumeClaim, limit_range: LimitRange) -> Iterable[str]:
    for item in limit_range.spec.limits if limit_range.spec else ():
        if isinstance(obj, PersistentVolumeClaim):
            if item.type != "PersistentVolumeClaim":
                continue
            resources = obj.spec.resources if obj.spec else None
            requests: Amounts = resources.requests if resources else {}
            for name in sorted(item.min):
                yield from _below(item.type, name, item.min[name], requests, {})
            for name in sorted(item.max):
                yield from _claim_above(item.type, name, item.max[name], requests)
        elif item.type in ("Container", "Pod"):
            for requests, limits in _parts(item.type, obj.spec or PodSpec()):
                for name in sorted(item.min):
                    yield from _below(item.type, name, item.min[name], requests, limits)
                for name in sorted(item.max):
                    yield from _above(item.type, name, item.max[name], requests, limits)
                for name in sorted(item.max_limit_request_ratio):
                    yield from _stretched(item.type, name, item.max_limit_request_ratio[name], requests, limits)


def _parts(kind: str, spec: PodSpec) -> Iterable[tuple[Amounts, Amounts]]:
    """Requests and limits of all that an item of a kind is about."""
    if kind == "Pod":
        yield pod_requests(spec, overhead=False), pod_limits(spec, overhead=False)
        return
    for container in (*spec.containers, *spec.init_containers):
        resources = container.resources or _NOTHING
        yield resources.requests, resources.limits


def _below(kind: str, name: str, least: Quantity, requests: Amounts, limits: Amounts) -> Iterable[str]:
    about = f"minimum {name} usage per {kind} is {least}"
    if name not in requests:
        yield f"{about}.  No request is specified"
    elif parse_quantity(requests[name]) < parse_quantity(least):
        yield f"{about}, but request is {requests[name]}"
    elif name in limits and parse_quantity(limits[name]) < parse_quantity(least):
        yield f"{about}, but limit is {limits[name]}"


def _above(kind: str, name: str, most: Quantity, requests: Amounts, limits: Amounts) -> Iterable[str]:
    about = f"maximum {name} usage per {kind} is {most}"
    if name not in limits:
        yield f"{about}.  No limit is specified"
    elif parse_quantity(limits[name]) > parse_quantity(most):
        yield f"{about}, but limit is {limits[name]}"
    elif name in requests and parse_quantity(requests[name]) > parse_quantity(most):
        yield f"{about}, but request is {requests[name]}"


def _claim_above(kind: str, name: str, most: Quantity, requests: Amounts) -> Iterable[str]:
    about = f"maximum {name} usage per {kind} is {most}"
    if name not in requests:
        yield f"{about}.  No request is specified"
    elif parse_quantity(requests[name]) > parse_quantity(most):
        yield f"{about}, but request is {requests[name]}"


def _stretched(kind: str, name: str, most: Quantity, requests: Amounts, limits: Amounts) -> Iterable[str]:
    """How far the limit lies above the request."""
    about = f"{name} max limit to request ratio per {kind} is {most}, but"
    request, limit = parse_quantity(requests.get(name, 0)), parse_quantity(limits.get(name, 0))
    if not request:
        yield f"{about} no request is specified or request is 0"
    elif not limit:
        yield f"{about} no limit is specified or limit is 0"
    elif limit / request > parse_quantity(most):
        yield f"{about} provided ratio is {float(limit / request):f}"
