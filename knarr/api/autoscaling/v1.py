"""The types of the API group autoscaling, v1; knarr.api.types tells how to read a field."""

from __future__ import annotations

from knarr.api.meta.v1 import ObjectMeta
from knarr.api.types import Int32, Int64, Struct, Time, always, named


class CrossVersionObjectReference(Struct):
    atomic = True

    api_version: str | None = None
    kind: str = always("")
    name: str = always("")


class HorizontalPodAutoscalerSpec(Struct):
    max_replicas: Int32 = always(0)
    min_replicas: Int32 | None = None
    scale_target_ref: CrossVersionObjectReference = always(CrossVersionObjectReference)
    target_cpu_utilization_percentage: Int32 | None = named("targetCPUUtilizationPercentage", None)


class HorizontalPodAutoscaler(Struct):
    api_version: str = always("autoscaling/v1")
    kind: str = always("HorizontalPodAutoscaler")
    metadata: ObjectMeta = always(ObjectMeta)
    spec: HorizontalPodAutoscalerSpec = always(HorizontalPodAutoscalerSpec)
    status: HorizontalPodAutoscalerStatus | None = None


class HorizontalPodAutoscalerStatus(Struct):
    current_cpu_utilization_percentage: Int32 | None = named("currentCPUUtilizationPercentage", None)
    current_replicas: Int32 = always(0)
    desired_replicas: Int32 = always(0)
    last_scale_time: Time | None = None
    observed_generation: Int64 | None = None


class Scale(Struct):
    api_version: str = always("autoscaling/v1")
    kind: str = always("Scale")
    metadata: ObjectMeta = always(ObjectMeta)
    spec: ScaleSpec | None = None
    status: ScaleStatus | None = None


class ScaleSpec(Struct):
    replicas: Int32 | None = None


class ScaleStatus(Struct):
    replicas: Int32 = always(0)
    selector: str | None = None
