"""From the amounts of a pod to the kernel's numbers, and the class that a pod is in (quality of service).

CPU: 1 core is 1024 shares and a quota of 100 ms in each 100 ms. Memory limits are bytes. Classes: Guaranteed when
every container's limits equal its requests, BestEffort when there are neither, Burstable otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from knarr.api.core.v1 import Container, Pod, PodSpec
from knarr.api.quantity import milli, parse_quantity, whole
from knarr.node.runtime.contract import Resources

SHARES_MIN = 2
SHARES_MAX = 262144
CPU_PERIOD_US = 100_000
QUOTA_MIN_US = 1000
"""The kernel's least."""


def qos_class(spec: PodSpec) -> str:
    """Guaranteed, Burstable or BestEffort, by upstream's rule (only cpu and memory count)."""
    containers = [*spec.init_containers, *spec.containers]
    any_amount, guaranteed = False, True
    for container in containers:
        requests, limits = _amounts(container)
        for name in ("cpu", "memory"):
            request, limit = requests.get(name, 0), limits.get(name, 0)
            any_amount |= bool(request or limit)
            guaranteed &= bool(limit) and (request or limit) == limit
    if not any_amount:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def cgroup_parent(pod: Pod) -> str:
    """The pod's group below the runtime's root: guaranteed pods directly, others under their class."""
    assert pod.spec
    uid = f"pod{pod.metadata.uid}"
    level = qos_class(pod.spec)
    return uid if level == "Guaranteed" else f"{level.lower()}/{uid}"


def container_resources(container: Container) -> Resources:
    """Bounds of one container."""
    given = container.resources
    requests, limits = (given.requests, given.limits) if given else ({}, {})
    cpu_request, cpu_limit, memory = requests.get("cpu"), limits.get("cpu"), limits.get("memory")
    if cpu_request is None:
        cpu_request = cpu_limit
    return Resources(
        cpu_shares=shares(milli(cpu_request) if cpu_request is not None else 0),
        cpu_quota_us=quota_us(milli(cpu_limit)) if cpu_limit is not None else None,
        cpu_period_us=CPU_PERIOD_US,
        memory_limit_bytes=(whole(memory) or None) if memory is not None else None,
    )


class PodBounds(Struct, frozen=True):
    """Bounds of the pod's whole group."""

    cpu_shares: int
    cpu_quota_us: int | None
    memory_limit_bytes: int | None


def pod_bounds(spec: PodSpec) -> PodBounds:
    """Sums over what runs at once; a limit only where every container has one."""
    cpu = _at_once(spec, "cpu", limits=False) or 0
    cpu_limit, memory = _at_once(spec, "cpu", limits=True), _at_once(spec, "memory", limits=True)
    return PodBounds(
        shares(int(cpu * 1000)) if qos_class(spec) != "BestEffort" else SHARES_MIN,
        quota_us(int(cpu_limit * 1000)) if cpu_limit else None,
        int(memory) if memory else None,
    )


def oom_score_adj(spec: PodSpec, container: Container, node_memory_bytes: int) -> int:
    """Who is killed first when memory runs out: best effort 1000, burstable by its share of the node, else -997."""
    level = qos_class(spec)
    if level == "Guaranteed":
        return -997
    if level == "BestEffort":
        return 1000
    requests = container.resources.requests if container.resources else {}
    request = whole(requests.get("memory", 0))
    return min(max(1000 - 1000 * request // max(node_memory_bytes, 1), 3), 999)


def shares(milli_cpu: int) -> int:
    return min(max(milli_cpu * 1024 // 1000, SHARES_MIN), SHARES_MAX)


def quota_us(milli_cpu: int) -> int | None:
    return max(milli_cpu * CPU_PERIOD_US // 1000, QUOTA_MIN_US) if milli_cpu else None


def is_sidecar(container: Container) -> bool:
    """An init container that goes on running beside the others (KEP-753)."""
    return container.restart_policy == "Always"


def _amounts(container: Container) -> tuple[dict[str, int], dict[str, int]]:
    given = container.resources
    if given is None:
        return {}, {}
    return (
        {name: milli(amount) for name, amount in given.requests.items()},
        {name: milli(amount) for name, amount in given.limits.items()},
    )


def _at_once(spec: PodSpec, name: str, *, limits: bool) -> float | None:
    """The most that is asked for at one time; for limits None when some container has none."""
    sidecars = 0.0
    peak = 0.0
    for container in spec.init_containers:
        amount = _amount(container, name, limits=limits)
        if amount is None:
            return None
        if is_sidecar(container):
            sidecars += amount
            peak = max(peak, sidecars)
        else:
            peak = max(peak, sidecars + amount)
    together = _sum(_amount(container, name, limits=limits) for container in spec.containers)
    return None if together is None else max(peak, sidecars + together)


def _amount(container: Container, name: str, *, limits: bool) -> float | None:
    given = container.resources
    if given is None:
        return None if limits else 0.0
    amount = given.limits.get(name) if limits else given.requests.get(name, given.limits.get(name, 0))
    return None if amount is None else float(parse_quantity(amount))


def _sum(amounts: Iterable[float | None]) -> float | None:
    total = 0.0
    for amount in amounts:
        if amount is None:
            return None
        total += amount
    return total
