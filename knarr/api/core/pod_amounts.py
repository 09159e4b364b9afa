"""What a pod as a whole requests and is limited to: its containers together, or what starting up takes if that is more.

Init containers run one after another, so the largest of them counts; sidecars (KEP-753) stay, and count beside all that
starts after them. What the pod says for itself (KEP-2837) goes before its containers. The runtime's overhead is added.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from knarr.api.core.v1 import PodSpec, ResourceRequirements
from knarr.api.quantity import canonical, parse_quantity
from knarr.api.types import Quantity

Amounts = dict[str, Quantity]


def plus(one: Quantity, other: Quantity) -> str:
    """Their sum, written in the way of the first (of the other when the first is nothing)."""
    first = parse_quantity(one)
    return written(first + parse_quantity(other), one if first else other)


def minus(one: Quantity, other: Quantity) -> str:
    return written(parse_quantity(one) - parse_quantity(other), one)


def written(value: Decimal, like: Quantity) -> str:
    """A value in canonical form: binary (Ki, Mi, …) when `like` is, else decimal."""
    if isinstance(like, str) and like.endswith("i"):
        return canonical(f"{value / 1024:f}Ki")
    return canonical(f"{value:f}")


def added(one: Mapping[str, Quantity], other: Mapping[str, Quantity]) -> Amounts:
    total: Amounts = dict(one)
    for name, amount in other.items():
        total[name] = plus(total[name], amount) if name in total else amount
    return total


def largest(one: Mapping[str, Quantity], other: Mapping[str, Quantity]) -> Amounts:
    total: Amounts = dict(one)
    for name, amount in other.items():
        if name not in total or parse_quantity(amount) > parse_quantity(total[name]):
            total[name] = amount
    return total


def pod_requests(spec: PodSpec, *, overhead: bool = True) -> Amounts:
    total = _together(spec, "requests")
    if spec.resources and spec.resources.requests:
        total |= {name: amount for name, amount in spec.resources.requests.items() if of_pods(name)}
    return added(total, spec.overhead) if overhead and spec.overhead else total


def pod_limits(spec: PodSpec, *, overhead: bool = True) -> Amounts:
    total = _together(spec, "limits")
    if spec.resources and spec.resources.limits:
        total |= {name: amount for name, amount in spec.resources.limits.items() if of_pods(name)}
    if overhead and spec.overhead:
        # What is not limited stays so.
        total = added(total, {name: amount for name, amount in spec.overhead.items() if name in total})
    return total


def of_pods(name: str) -> bool:
    """Whether a pod as a whole may name it."""
    return name in ("cpu", "memory") or name.startswith("hugepages-")


_NOTHING = ResourceRequirements()


def _together(spec: PodSpec, what: str) -> Amounts:
    total: Amounts = {}
    for container in spec.containers:
        if container.resources:
            total = added(total, getattr(container.resources, what))
    if not spec.init_containers:
        return total
    sidecars: Amounts = {}
    starting: Amounts = {}
    for container in spec.init_containers:
        own = getattr(container.resources or _NOTHING, what)
        if container.restart_policy == "Always":
            total = added(total, own)
            sidecars = added(sidecars, own)
            own = sidecars
        else:
            own = added(own, sidecars)
        starting = largest(starting, own)
    return largest(total, starting)
