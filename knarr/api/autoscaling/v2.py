"""The types of the API group autoscaling, v2; knarr.api.types tells how to read a field."""

from __future__ import annotations

from typing import Annotated

from knarr.api.meta.v1 import LabelSelector, ObjectMeta
from knarr.api.types import Int32, Int64, Merge, Quantity, Struct, Time, always


class MetricTarget(Struct):
    average_utilization: Int32 | None = None
    average_value: Quantity | None = None
    type: str = always("")
    value: Quantity | None = None


class ContainerResourceMetricSource(Struct):
    container: str = always("")
    name: str = always("")
    target: MetricTarget = always(MetricTarget)


class MetricValueStatus(Struct):
    average_utilization: Int32 | None = None
    average_value: Quantity | None = None
    value: Quantity | None = None


class ContainerResourceMetricStatus(Struct):
    container: str = always("")
    current: MetricValueStatus = always(MetricValueStatus)
    name: str = always("")


class CrossVersionObjectReference(Struct):
    api_version: str | None = None
    kind: str = always("")
    name: str = always("")


class MetricIdentifier(Struct):
    name: str = always("")
    selector: LabelSelector | None = None


class ExternalMetricSource(Struct):
    metric: MetricIdentifier = always(MetricIdentifier)
    target: MetricTarget = always(MetricTarget)


class ExternalMetricStatus(Struct):
    current: MetricValueStatus = always(MetricValueStatus)
    metric: MetricIdentifier = always(MetricIdentifier)


class HPAScalingPolicy(Struct):
    period_seconds: Int32 = always(0)
    type: str = always("")
    value: Int32 = always(0)


class HPAScalingRules(Struct):
    policies: list[HPAScalingPolicy] = []
    select_policy: str | None = None
    stabilization_window_seconds: Int32 | None = None
    tolerance: Quantity | None = None


class HorizontalPodAutoscalerSpec(Struct):
    behavior: HorizontalPodAutoscalerBehavior | None = None
    max_replicas: Int32 = always(0)
    metrics: list[MetricSpec] = []
    min_replicas: Int32 | None = None
    scale_target_ref: CrossVersionObjectReference = always(CrossVersionObjectReference)


class HorizontalPodAutoscaler(Struct):
    api_version: str = always("autoscaling/v2")
    kind: str = always("HorizontalPodAutoscaler")
    metadata: ObjectMeta = always(ObjectMeta)
    spec: HorizontalPodAutoscalerSpec = always(HorizontalPodAutoscalerSpec)
    status: HorizontalPodAutoscalerStatus | None = None


class HorizontalPodAutoscalerBehavior(Struct):
    scale_down: HPAScalingRules | None = None
    scale_up: HPAScalingRules | None = None


class HorizontalPodAutoscalerCondition(Struct):
    last_transition_time: Time | None = None
    message: str | None = None
    reason: str | None = None
    status: str = always("")
    type: str = always("")


class HorizontalPodAutoscalerStatus(Struct):
    conditions: Annotated[
        list[HorizontalPodAutoscalerCondition], Merge("map", keys=("type",), patch_key="type", strategy=("merge",))
    ] = []
    current_metrics: list[MetricStatus] = []
    current_replicas: Int32 | None = None
    desired_replicas: Int32 = always(0)
    last_scale_time: Time | None = None
    observed_generation: Int64 | None = None


class MetricSpec(Struct):
    container_resource: ContainerResourceMetricSource | None = None
    external: ExternalMetricSource | None = None
    object: ObjectMetricSource | None = None
    pods: PodsMetricSource | None = None
    resource: ResourceMetricSource | None = None
    type: str = always("")


class MetricStatus(Struct):
    container_resource: ContainerResourceMetricStatus | None = None
    external: ExternalMetricStatus | None = None
    object: ObjectMetricStatus | None = None
    pods: PodsMetricStatus | None = None
    resource: ResourceMetricStatus | None = None
    type: str = always("")


class ObjectMetricSource(Struct):
    described_object: CrossVersionObjectReference = always(CrossVersionObjectReference)
    metric: MetricIdentifier = always(MetricIdentifier)
    target: MetricTarget = always(MetricTarget)


class ObjectMetricStatus(Struct):
    current: MetricValueStatus = always(MetricValueStatus)
    described_object: CrossVersionObjectReference = always(CrossVersionObjectReference)
    metric: MetricIdentifier = always(MetricIdentifier)


class PodsMetricSource(Struct):
    metric: MetricIdentifier = always(MetricIdentifier)
    target: MetricTarget = always(MetricTarget)


class PodsMetricStatus(Struct):
    current: MetricValueStatus = always(MetricValueStatus)
    metric: MetricIdentifier = always(MetricIdentifier)


class ResourceMetricSource(Struct):
    name: str = always("")
    target: MetricTarget = always(MetricTarget)


class ResourceMetricStatus(Struct):
    current: MetricValueStatus = always(MetricValueStatus)
    name: str = always("")
