"""The types of the API group node, v1; knarr.api.types tells how to read a field."""

from __future__ import annotations

from typing import Annotated

from knarr.api.core.v1 import Toleration
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.types import Merge, Quantity, Struct, always


class Overhead(Struct):
    pod_fixed: dict[str, Quantity] = {}


class RuntimeClass(Struct):
    api_version: str = always("node.k8s.io/v1")
    kind: str = always("RuntimeClass")
    metadata: ObjectMeta = always(ObjectMeta)
    handler: str = always("")
    overhead: Overhead | None = None
    scheduling: Scheduling | None = None


class Scheduling(Struct):
    node_selector: Annotated[dict[str, str], Merge(map_type="atomic")] = {}
    tolerations: list[Toleration] = []
