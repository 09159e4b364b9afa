"""The types of the API group policy, v1; knarr.api.types tells how to read a field."""

from __future__ import annotations

from typing import Annotated

from knarr.api.meta.v1 import Condition, DeleteOptions, LabelSelector, ObjectMeta
from knarr.api.types import Int32, Int64, IntOrString, Merge, Struct, Time, always


class Eviction(Struct):
    api_version: str = always("policy/v1")
    kind: str = always("Eviction")
    metadata: ObjectMeta = always(ObjectMeta)
    delete_options: DeleteOptions | None = None


class PodDisruptionBudget(Struct):
    api_version: str = always("policy/v1")
    kind: str = always("PodDisruptionBudget")
    metadata: ObjectMeta = always(ObjectMeta)
    spec: PodDisruptionBudgetSpec | None = None
    status: PodDisruptionBudgetStatus | None = None


class PodDisruptionBudgetSpec(Struct):
    max_unavailable: IntOrString | None = None
    min_available: IntOrString | None = None
    selector: Annotated[LabelSelector, Merge(strategy=("replace",))] | None = None
    unhealthy_pod_eviction_policy: str | None = None


class PodDisruptionBudgetStatus(Struct):
    conditions: Annotated[list[Condition], Merge("map", keys=("type",), patch_key="type", strategy=("merge",))] = []
    current_healthy: Int32 | None = None
    desired_healthy: Int32 | None = None
    disrupted_pods: dict[str, Time | None] = {}
    disruptions_allowed: Int32 | None = None
    expected_pods: Int32 | None = None
    observed_generation: Int64 | None = None
