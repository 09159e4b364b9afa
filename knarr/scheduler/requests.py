"""What a pod asks of a node: its resource requests and host ports, as numbers.

CPU counts in thousandths, everything else in whole units. A pod needs the larger of what its containers (with its
sidecars) need together and what each init container needs (with the sidecars started before it), and its overhead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

from knarr.api.core.v1 import Container, PodSpec
from knarr.api.quantity import milli, whole
from knarr.api.types import Quantity

CPU = "cpu"
MEMORY = "memory"
PODS = "pods"

UNSAID_CPU_MILLI = 100
UNSAID_MEMORY_BYTES = 200 * 1024 * 1024
"""What a container that doesn't say counts for when nodes are compared (never when they are filtered)."""
QUANTITIES_REMEMBERED = 4096
"""Parsing is dear, and clusters write the same few quantities again and again."""

Amounts = dict[str, int]
Port = tuple[str, str, int]
"""A host port: address ("0.0.0.0" for all), protocol, number."""


@lru_cache(QUANTITIES_REMEMBERED)
def amount(resource: str, written: Quantity) -> int:
    return milli(written) if resource == CPU else whole(written)


def amounts(written: Mapping[str, Quantity]) -> Amounts:
    return {resource: amount(resource, quantity) for resource, quantity in written.items()}


def pod_requests(spec: PodSpec) -> Amounts:
    """What must be free on its node."""
    total = _combine(spec, _container_requests)
    if spec.resources and spec.resources.requests:
        total |= amounts(spec.resources.requests)  # KEP-2837: said for the pod as a whole
    for resource, quantity in spec.overhead.items():
        total[resource] = total.get(resource, 0) + amount(resource, quantity)
    return {resource: count for resource, count in total.items() if count}


def pod_weight(spec: PodSpec) -> tuple[int, int]:
    """CPU and memory as they count when nodes are compared: with a guess for containers that don't say."""
    total = _combine(spec, _container_weight)
    if spec.resources and spec.resources.requests:
        said = amounts(spec.resources.requests)
        total |= {resource: said[resource] for resource in (CPU, MEMORY) if resource in said}
    for resource, quantity in spec.overhead.items():
        total[resource] = total.get(resource, 0) + amount(resource, quantity)
    return total.get(CPU, 0), total.get(MEMORY, 0)


def host_ports(spec: PodSpec) -> tuple[Port, ...]:
    """The ports of the node itself that it wants."""
    sidecars = [container for container in spec.init_containers if container.restart_policy == "Always"]
    return tuple(
        (port.host_ip or "0.0.0.0", port.protocol or "TCP", port.host_port)
        for container in (*spec.containers, *sidecars)
        for port in container.ports
        if port.host_port
    )


def _container_requests(container: Container) -> Amounts:
    return amounts(container.resources.requests) if container.resources else {}


def _container_weight(container: Container) -> Amounts:
    said = _container_requests(container)
    return {CPU: said.get(CPU, UNSAID_CPU_MILLI), MEMORY: said.get(MEMORY, UNSAID_MEMORY_BYTES)}


def _combine(spec: PodSpec, of: Callable[[Container], Amounts]) -> Amounts:
    if len(spec.containers) == 1 and not spec.init_containers:
        return of(spec.containers[0])
    together: Amounts = {}
    for container in spec.containers:
        _add(together, of(container))
    sidecars: Amounts = {}
    peak: Amounts = {}
    for container in spec.init_containers:
        needs = of(container)
        if container.restart_policy == "Always":
            _add(together, needs)
            _add(sidecars, needs)
            _raise(peak, sidecars)
        else:
            with_sidecars = dict(sidecars)
            _add(with_sidecars, needs)
            _raise(peak, with_sidecars)
    _raise(together, peak)
    return together


def _add(total: Amounts, more: Amounts) -> None:
    for resource, count in more.items():
        total[resource] = total.get(resource, 0) + count


def _raise(total: Amounts, least: Amounts) -> None:
    for resource, count in least.items():
        total[resource] = max(total.get(resource, 0), count)
