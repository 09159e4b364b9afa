"""HorizontalPodAutoscalers: how many pods, by what is measured. Defaults, rules, and how they are shown (v2).

Follows upstream's SetDefaults_HorizontalPodAutoscaler and ValidateHorizontalPodAutoscaler (pkg/apis/autoscaling);
tolerances are KEP-4951. The older version v1 is kept as v2: knarr/api/autoscaling/conversion.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from knarr.api import names
from knarr.api.autoscaling.v2 import (
    ContainerResourceMetricSource,
    CrossVersionObjectReference,
    ExternalMetricSource,
    HorizontalPodAutoscaler,
    HorizontalPodAutoscalerSpec,
    HorizontalPodAutoscalerStatus,
    HPAScalingPolicy,
    HPAScalingRules,
    MetricIdentifier,
    MetricSpec,
    MetricTarget,
    ObjectMetricSource,
    PodsMetricSource,
    ResourceMetricSource,
)
from knarr.api.core.amounts import canonical_amount
from knarr.api.core.validate_values import validate_not_negative
from knarr.api.errors import Cause, forbidden, invalid, not_supported, required
from knarr.api.quantity import parse_quantity
from knarr.api.resources import Strategy
from knarr.api.types import Quantity

CPU_UTILIZATION = 80
"""Percent of what the pods request: what is aimed at when nothing is said."""
PERIOD_MAX_S = 1800
WINDOW_MAX_S = 3600
SELECT_POLICIES = ("Disabled", "Max", "Min")
POLICY_TYPES = ("Percent", "Pods")
SOURCES = {
    "Object": "object",
    "External": "external",
    "Pods": "pods",
    "Resource": "resource",
    "ContainerResource": "containerResource",
}
"""Type of a metric → the field that says more of it, in the order in which they are looked at."""
TARGET_TYPES = ("Utilization", "Value", "AverageValue")


def cpu_metric(utilization: int) -> MetricSpec:
    """A share of the CPU that the pods request."""
    target = MetricTarget(type="Utilization", average_utilization=utilization)
    return MetricSpec(type="Resource", resource=ResourceMetricSource(name="cpu", target=target))


class HorizontalPodAutoscalerRules(Strategy[HorizontalPodAutoscaler]):
    has_status = True

    def default(self, obj: HorizontalPodAutoscaler) -> None:
        spec = obj.spec
        spec.min_replicas = 1 if spec.min_replicas is None else spec.min_replicas
        spec.metrics = spec.metrics or [cpu_metric(CPU_UTILIZATION)]
        for metric in spec.metrics:
            for _, source in _sources(metric):
                _default_target(source.target)
        if spec.behavior:
            spec.behavior.scale_up = _default_rules(spec.behavior.scale_up, _scale_up())
            spec.behavior.scale_down = _default_rules(spec.behavior.scale_down, _scale_down())
        for status in obj.status.current_metrics if obj.status else ():
            for _, found in _sources(status):
                _default_target(found.current)

    def prepare_for_create(self, obj: HorizontalPodAutoscaler) -> None:
        obj.status = HorizontalPodAutoscalerStatus(current_replicas=0)

    def prepare_for_status_update(self, obj: HorizontalPodAutoscaler, old: HorizontalPodAutoscaler) -> None:
        if obj.status:
            obj.status.current_replicas = obj.status.current_replicas or 0

    def validate_create(self, obj: HorizontalPodAutoscaler) -> Iterable[Cause]:
        return _validate(obj.spec, 1)

    def validate_update(self, obj: HorizontalPodAutoscaler, old: HorizontalPodAutoscaler) -> Iterable[Cause]:
        return _validate(obj.spec, 0 if old.spec.min_replicas == 0 else 1)

    def validate_status_update(self, obj: HorizontalPodAutoscaler, old: HorizontalPodAutoscaler) -> Iterable[Cause]:
        status = obj.status or HorizontalPodAutoscalerStatus()
        yield from validate_not_negative(status.current_replicas, "status.currentReplicas")
        yield from validate_not_negative(status.desired_replicas, "status.desiredReplicas")


def _sources(metric: Any) -> Iterator[tuple[str, Any]]:
    """The sources (or measured values) that are given, with the names of their fields."""
    for field in SOURCES.values():
        source = getattr(metric, "container_resource" if field == "containerResource" else field)
        if source is not None:
            yield field, source


def _default_target(target: Any) -> None:
    if target.value is not None:
        target.value = canonical_amount(target.value)
    if target.average_value is not None:
        target.average_value = canonical_amount(target.average_value)


def _scale_up() -> HPAScalingRules:
    """At once, by four pods or to twice as many in 15 s, whichever is more."""
    policies = [
        HPAScalingPolicy(type="Pods", value=4, period_seconds=15),
        HPAScalingPolicy(type="Percent", value=100, period_seconds=15),
    ]
    return HPAScalingRules(stabilization_window_seconds=0, select_policy="Max", policies=policies)


def _scale_down() -> HPAScalingRules:
    """To the fewest that may be; how long before is for the controller to know."""
    policies = [HPAScalingPolicy(type="Percent", value=100, period_seconds=15)]
    return HPAScalingRules(select_policy="Max", policies=policies)


def _default_rules(said: HPAScalingRules | None, rules: HPAScalingRules) -> HPAScalingRules:
    """The usual rules, with what was said in their places."""
    if said is None:
        return rules
    rules.select_policy = said.select_policy or rules.select_policy
    if said.stabilization_window_seconds is not None:
        rules.stabilization_window_seconds = said.stabilization_window_seconds
    rules.policies = said.policies or rules.policies
    if said.tolerance is not None:
        rules.tolerance = canonical_amount(said.tolerance)
    return rules


def _validate(spec: HorizontalPodAutoscalerSpec, lowest: int) -> Iterable[Cause]:
    fewest, most = spec.min_replicas, spec.max_replicas
    if fewest is not None and fewest < lowest:
        yield invalid("spec.minReplicas", fewest, f"must be greater than or equal to {lowest}")
    if most < 1:
        yield invalid("spec.maxReplicas", most, "must be greater than 0")
    if fewest is not None and most < fewest:
        yield invalid("spec.maxReplicas", most, "must be greater than or equal to `minReplicas`")
    yield from _validate_reference(spec.scale_target_ref, "spec.scaleTargetRef")
    yield from _validate_metrics(spec.metrics, fewest)
    if spec.behavior:
        yield from _validate_rules(spec.behavior.scale_up, "spec.behavior.scaleUp")
        yield from _validate_rules(spec.behavior.scale_down, "spec.behavior.scaleDown")


def _validate_reference(reference: CrossVersionObjectReference, path: str) -> Iterable[Cause]:
    for field, value in (("kind", reference.kind), ("name", reference.name)):
        if not value:
            yield required(f"{path}.{field}")
        else:
            for fault in names.path_segment_faults(value):
                yield invalid(f"{path}.{field}", value, fault)


def _validate_metrics(metrics: Sequence[MetricSpec], fewest: int | None) -> Iterable[Cause]:
    for index, metric in enumerate(metrics):
        yield from _validate_metric(metric, f"spec.metrics[{index}]")
    if fewest == 0 and not any(metric.type in ("Object", "External") for metric in metrics):
        detail = "must specify at least one Object or External metric to support scaling to zero replicas"
        yield forbidden("spec.metrics", detail)


def _validate_metric(metric: MetricSpec, path: str) -> Iterable[Cause]:
    if not metric.type:
        yield required(f"{path}.type", "must specify a metric source type")
    if metric.type not in SOURCES:
        yield not_supported(f"{path}.type", metric.type, tuple(SOURCES))
    given = dict(_sources(metric))
    for field, source in given.items():
        yield from _VALIDATE_SOURCE[field](source, f"{path}.{field}")
        break  # Of several, only the first is looked at: the others may not be there at all.
    expected = SOURCES.get(metric.type)
    if expected and expected not in given:
        yield required(f"{path}.{expected}", "must populate information for the given metric source")
    if expected is None:
        yield not_supported(f"{path}.type", metric.type, tuple(SOURCES))
    if len(given) != 1:
        for field in given:
            if field != expected:
                yield forbidden(f"{path}.{field}", "must populate the given metric source only")


def _validate_object(source: ObjectMetricSource, path: str) -> Iterable[Cause]:
    yield from _validate_reference(source.described_object, f"{path}.describedObject")
    yield from _validate_identifier(source.metric, f"{path}.metric")
    yield from _validate_target(source.target, f"{path}.target")
    if source.target.value is None and source.target.average_value is None:
        yield required(f"{path}.target.averageValue", "must set either a target value or averageValue")


def _validate_external(source: ExternalMetricSource, path: str) -> Iterable[Cause]:
    yield from _validate_identifier(source.metric, f"{path}.metric")
    yield from _validate_target(source.target, f"{path}.target")
    value, average = source.target.value, source.target.average_value
    if value is None and average is None:
        detail = "must set either a target value for metric or a per-pod target"
        yield required(f"{path}.target.averageValue", detail)
    if value is not None and average is not None:
        detail = "may not set both a target value for metric and a per-pod target"
        yield forbidden(f"{path}.target.value", detail)


def _validate_pods(source: PodsMetricSource, path: str) -> Iterable[Cause]:
    yield from _validate_identifier(source.metric, f"{path}.metric")
    yield from _validate_target(source.target, f"{path}.target")
    if source.target.average_value is None:
        yield required(f"{path}.target.averageValue", "must specify a positive target averageValue")


def _validate_resource(source: ResourceMetricSource, path: str) -> Iterable[Cause]:
    if not source.name:
        yield required(f"{path}.name", "must specify a resource name")
    yield from _validate_usage(source.target, f"{path}.target")


def _validate_container_resource(source: ContainerResourceMetricSource, path: str) -> Iterable[Cause]:
    if not source.name:
        yield required(f"{path}.name", "must specify a resource name")
    else:
        for fault in names.label_key_faults(source.name):
            yield invalid(f"{path}.name", source.name, fault)
    if not source.container:
        yield required(f"{path}.container", "must specify a container")
    else:
        for fault in names.dns1123_label_faults(source.container):
            yield invalid(f"{path}.container", source.container, fault)
    yield from _validate_usage(source.target, f"{path}.target")


_VALIDATE_SOURCE: dict[str, Any] = {
    "object": _validate_object,
    "external": _validate_external,
    "pods": _validate_pods,
    "resource": _validate_resource,
    "containerResource": _validate_container_resource,
}


def _validate_usage(target: MetricTarget, path: str) -> Iterable[Cause]:
    """Of a resource: a share of what is requested, or an amount."""
    yield from _validate_target(target, path)
    if target.average_utilization is None and target.average_value is None:
        yield required(f"{path}.averageUtilization", "must set either a target raw value or a target utilization")
    if target.average_utilization is not None and target.average_value is not None:
        detail = "may not set both a target raw value and a target utilization"
        yield forbidden(f"{path}.averageValue", detail)


def _validate_target(target: MetricTarget, path: str) -> Iterable[Cause]:
    if not target.type:
        yield required(f"{path}.type", "must specify a metric target type")
    if target.type not in TARGET_TYPES:
        yield invalid(f"{path}.type", target.type, "must be either Utilization, Value, or AverageValue")
    for field, amount in (("value", target.value), ("averageValue", target.average_value)):
        if amount is not None and parse_quantity(amount) <= 0:
            yield invalid(f"{path}.{field}", str(amount), "must be positive")
    share = target.average_utilization
    if share is not None and share < 1:
        yield invalid(f"{path}.averageUtilization", share, "must be greater than 0")


def _validate_identifier(metric: MetricIdentifier, path: str) -> Iterable[Cause]:
    if not metric.name:
        yield required(f"{path}.name", "must specify a metric name")
    else:
        for fault in names.path_segment_faults(metric.name):
            yield invalid(f"{path}.name", metric.name, fault)


def _validate_rules(rules: HPAScalingRules | None, path: str) -> Iterable[Cause]:
    if rules is None:
        return
    window_s = rules.stabilization_window_seconds
    if window_s is not None and window_s < 0:
        yield invalid(f"{path}.stabilizationWindowSeconds", window_s, "must be greater than or equal to zero")
    if window_s is not None and window_s > WINDOW_MAX_S:
        detail = f"must be less than or equal to {WINDOW_MAX_S}"
        yield invalid(f"{path}.stabilizationWindowSeconds", window_s, detail)
    if rules.select_policy is not None and rules.select_policy not in SELECT_POLICIES:
        yield not_supported(f"{path}.selectPolicy", rules.select_policy, SELECT_POLICIES)
    if not rules.policies:
        yield required(f"{path}.policies", "must specify at least one Policy")
    for index, policy in enumerate(rules.policies):
        yield from _validate_policy(policy, f"{path}.policies[{index}]")
    if rules.tolerance is not None and _negative(rules.tolerance):
        yield invalid(f"{path}.tolerance", str(rules.tolerance), "must be greater than or equal to 0")


def _negative(amount: Quantity) -> bool:
    return parse_quantity(amount) < 0


def _validate_policy(policy: HPAScalingPolicy, path: str) -> Iterable[Cause]:
    if policy.type not in POLICY_TYPES:
        yield not_supported(f"{path}.type", policy.type, POLICY_TYPES)
    if policy.value <= 0:
        yield invalid(f"{path}.value", policy.value, "must be greater than zero")
    if policy.period_seconds <= 0:
        yield invalid(f"{path}.periodSeconds", policy.period_seconds, "must be greater than zero")
    if policy.period_seconds > PERIOD_MAX_S:
        yield invalid(f"{path}.periodSeconds", policy.period_seconds, f"must be less than or equal to {PERIOD_MAX_S}")
