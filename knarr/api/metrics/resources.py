"""The kinds of the group metrics.k8s.io, as they are served: measured when somebody asks, and never kept."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from knarr.api.metrics import v1beta1
from knarr.api.quantity import canonical, parse_quantity
from knarr.api.resources import Column, Resource


def _total(obj: Any, name: str) -> str:
    """Of all containers of a pod, or of the node."""
    usages = [obj.usage] if isinstance(obj, v1beta1.NodeMetrics) else [each.usage for each in obj.containers]
    total = sum((parse_quantity(usage.get(name, 0)) for usage in usages), Decimal(0))
    return canonical(f"{int(total / 1024)}Ki") if name == "memory" else canonical(f"{int(total * 10**9)}n")


_COLUMNS = (
    Column("cpu", lambda obj, now_s: _total(obj, "cpu"), format="quantity", description="Cores that it used"),
    Column("memory", lambda obj, now_s: _total(obj, "memory"), format="quantity", description="Its working set"),
    Column("Window", lambda obj, now_s: obj.window, format="duration", description="The time that cpu is about"),
)
RESOURCES = tuple(
    Resource(
        kind,
        "metrics.k8s.io",
        "v1beta1",
        kind.__name__,
        plural,
        "",
        namespaced=namespaced,
        verbs=("get", "list"),
        columns=_COLUMNS,
    )
    for kind, plural, namespaced in ((v1beta1.NodeMetrics, "nodes", False), (v1beta1.PodMetrics, "pods", True))
)
