"""The types of the API group metrics.k8s.io, v1beta1; knarr.api.types tells how to read a field.

Upstream's clusters have this group from an add-on (metrics-server); `kubectl top` and autoscalers read it.
"""

from __future__ import annotations

from knarr.api.meta.v1 import ObjectMeta
from knarr.api.types import Quantity, Struct, Time, always


class ContainerMetrics(Struct):
    name: str = always("")
    usage: dict[str, Quantity] = always(dict)


class NodeMetrics(Struct):
    api_version: str = always("metrics.k8s.io/v1beta1")
    kind: str = always("NodeMetrics")
    metadata: ObjectMeta = always(ObjectMeta)
    timestamp: Time | None = None
    window: str = always("0s")
    """A duration as Go writes it."""
    usage: dict[str, Quantity] = always(dict)


class PodMetrics(Struct):
    api_version: str = always("metrics.k8s.io/v1beta1")
    kind: str = always("PodMetrics")
    metadata: ObjectMeta = always(ObjectMeta)
    timestamp: Time | None = None
    window: str = always("0s")
    containers: list[ContainerMetrics] = always(list)
