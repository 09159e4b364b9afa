"""autoscaling/v1 and v2: two views of one HorizontalPodAutoscaler.

v1 knows one number, the share of CPU aimed at; all else of v2 travels in annotations of the v1 object, as JSON in the
shapes that upstream gives it (pkg/apis/autoscaling/v1/conversion.go), so that nothing is lost on the way there and
back. Annotations that can't be read are passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from knarr.api import types
from knarr.api.autoscaling import v1, v2
from knarr.api.autoscaling.autoscalers import CPU_UTILIZATION, cpu_metric

METRICS = "autoscaling.alpha.kubernetes.io/metrics"
CURRENT_METRICS = "autoscaling.alpha.kubernetes.io/current-metrics"
CONDITIONS = "autoscaling.alpha.kubernetes.io/conditions"
BEHAVIOR = "autoscaling.alpha.kubernetes.io/behavior"
ANNOTATIONS = (METRICS, CURRENT_METRICS, CONDITIONS, BEHAVIOR)


def to_v2(obj: v1.HorizontalPodAutoscaler) -> v2.HorizontalPodAutoscaler:
    """A v1 object as v2. Shares parts with `obj`."""
    annotations = obj.metadata.annotations
    spec, status = obj.spec, obj.status or v1.HorizontalPodAutoscalerStatus()
    metrics = _read(annotations, METRICS, list[dict[str, Any]], _metric) or []
    if spec.target_cpu_utilization_percentage is not None:
        metrics.append(cpu_metric(spec.target_cpu_utilization_percentage))
    current = _read(annotations, CURRENT_METRICS, list[dict[str, Any]], _metric_status) or []
    if not current and status.current_cpu_utilization_percentage is not None:
        value = v2.MetricValueStatus(average_utilization=status.current_cpu_utilization_percentage)
        current.append(v2.MetricStatus(type="Resource", resource=v2.ResourceMetricStatus(name="cpu", current=value)))
    target = spec.scale_target_ref
    return v2.HorizontalPodAutoscaler(
        metadata=types.replace(obj.metadata, annotations=_without_ours(annotations)),
        spec=v2.HorizontalPodAutoscalerSpec(
            behavior=_read_one(annotations, BEHAVIOR, _behavior),
            max_replicas=spec.max_replicas,
            min_replicas=spec.min_replicas,
            metrics=metrics or [cpu_metric(CPU_UTILIZATION)],
            scale_target_ref=v2.CrossVersionObjectReference(
                api_version=target.api_version, kind=target.kind, name=target.name
            ),
        ),
        status=v2.HorizontalPodAutoscalerStatus(
            conditions=_read(annotations, CONDITIONS, list[dict[str, Any]], _condition) or [],
            current_metrics=current,
            current_replicas=status.current_replicas,
            desired_replicas=status.desired_replicas,
            last_scale_time=status.last_scale_time,
            observed_generation=status.observed_generation,
        )
        if obj.status
        else None,
    )


def to_v1(obj: v2.HorizontalPodAutoscaler) -> v1.HorizontalPodAutoscaler:
    """A v2 object as v1. Shares parts with `obj`."""
    spec, status = obj.spec, obj.status or v2.HorizontalPodAutoscalerStatus()
    annotations = _without_ours(obj.metadata.annotations)
    shares = [_share(metric) for metric in spec.metrics if _is_cpu(metric)]
    others = [metric for metric in spec.metrics if not _is_cpu(metric) or _share(metric) is None]
    for name, found in (
        (METRICS, [_written(metric, "target") for metric in others]),
        (CURRENT_METRICS, [_written(metric, "current") for metric in status.current_metrics]),
        (CONDITIONS, msgspec.to_builtins(status.conditions)),
        (BEHAVIOR, _written_behavior(spec.behavior) if spec.behavior else None),
    ):
        if found:
            annotations[name] = msgspec.json.encode(found).decode()
    target = spec.scale_target_ref
    usages = [
        metric.resource.current.average_utilization
        for metric in status.current_metrics
        if metric.type == "Resource" and metric.resource and metric.resource.name == "cpu"
    ]
    return v1.HorizontalPodAutoscaler(
        metadata=types.replace(obj.metadata, annotations=annotations),
        spec=v1.HorizontalPodAutoscalerSpec(
            max_replicas=spec.max_replicas,
            min_replicas=spec.min_replicas,
            scale_target_ref=v1.CrossVersionObjectReference(
                api_version=target.api_version, kind=target.kind, name=target.name
            ),
            target_cpu_utilization_percentage=shares[0] if shares else None,
        ),
        status=v1.HorizontalPodAutoscalerStatus(
            current_cpu_utilization_percentage=next((usage for usage in reversed(usages) if usage is not None), None),
            current_replicas=status.current_replicas or 0,
            desired_replicas=status.desired_replicas,
            last_scale_time=status.last_scale_time,
            observed_generation=status.observed_generation,
        )
        if obj.status
        else None,
    )


def _is_cpu(metric: v2.MetricSpec) -> bool:
    return metric.type == "Resource" and metric.resource is not None and metric.resource.name == "cpu"


def _share(metric: v2.MetricSpec) -> int | None:
    return metric.resource.target.average_utilization if metric.resource else None


def _without_ours(annotations: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in annotations.items() if name not in ANNOTATIONS}


def _read(annotations: Mapping[str, str], name: str, shape: Any, make: Any) -> list[Any] | None:
    """The list in an annotation, each of its items made by `make`; None when there is none, or it makes no sense."""
    if name not in annotations:
        return None
    try:
        return [make(item) for item in msgspec.json.decode(annotations[name], type=shape)]
    except (msgspec.DecodeError, AttributeError, TypeError, ValueError, RecursionError):
        return None


def _read_one(annotations: Mapping[str, str], name: str, make: Any) -> Any | None:
    try:
        return make(msgspec.json.decode(annotations[name], type=dict[str, Any])) if name in annotations else None
    except (msgspec.DecodeError, AttributeError, TypeError, ValueError, RecursionError):
        return None


# Metrics in the words of v1: the name of a metric and its target stand side by side.


def _present(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _written(metric: v2.MetricSpec | v2.MetricStatus, word: str) -> dict[str, Any]:
    """`word`: what the amounts in it are, the target or what is current."""
    found: dict[str, Any] = {"type": metric.type}
    if source := metric.object:
        amount = getattr(source, word)
        found["object"] = _present(
            target=msgspec.to_builtins(source.described_object),
            metricName=source.metric.name,
            **{f"{word}Value": "0" if amount.value is None else amount.value},
            selector=msgspec.to_builtins(source.metric.selector),
            averageValue=amount.average_value,
        )
    if pods := metric.pods:
        found["pods"] = _present(
            metricName=pods.metric.name,
            **{f"{word}AverageValue": getattr(pods, word).average_value},
            selector=msgspec.to_builtins(pods.metric.selector),
        )
    if resource := metric.resource:
        found["resource"] = _usage(word, resource.name, getattr(resource, word))
    if contained := metric.container_resource:
        usage = _usage(word, contained.name, getattr(contained, word))
        found["containerResource"] = usage | {"container": contained.container}
    if external := metric.external:
        amount = getattr(external, word)
        value = "0" if amount.value is None and word == "current" else amount.value
        found["external"] = _present(
            metricName=external.metric.name,
            metricSelector=msgspec.to_builtins(external.metric.selector),
            **{f"{word}Value": value, f"{word}AverageValue": amount.average_value},
        )
    return found


def _usage(word: str, name: str, amount: v2.MetricTarget | v2.MetricValueStatus) -> dict[str, Any]:
    return _present(
        **{
            "name": name,
            f"{word}AverageUtilization": amount.average_utilization,
            f"{word}AverageValue": amount.average_value,
        }
    )


def _metric(data: dict[str, Any]) -> v2.MetricSpec:
    metric: dict[str, Any] = {"type": data.get("type", "")}
    if source := data.get("object"):
        average = source.get("averageValue")
        target = _present(averageValue=average, value=source.get("targetValue") if average is None else None)
        metric["object"] = {
            "describedObject": source.get("target") or {},
            "metric": _identifier(source, "selector"),
            "target": target | {"type": "Value" if average is None else "AverageValue"},
        }
    if source := data.get("pods"):
        target = _present(type="AverageValue", averageValue=source.get("targetAverageValue"))
        metric["pods"] = {"metric": _identifier(source, "selector"), "target": target}
    if source := data.get("resource"):
        metric["resource"] = {"name": source.get("name", ""), "target": _usage_target(source)}
    if source := data.get("containerResource"):
        metric["containerResource"] = {
            "name": source.get("name", ""),
            "container": source.get("container", ""),
            "target": _usage_target(source),
        }
    if source := data.get("external"):
        average = source.get("targetAverageValue")
        metric["external"] = {
            "metric": _identifier(source, "metricSelector"),
            "target": _present(
                type="Value" if average is None else "AverageValue",
                value=source.get("targetValue"),
                averageValue=average,
            ),
        }
    return msgspec.convert(metric, v2.MetricSpec)


def _metric_status(data: dict[str, Any]) -> v2.MetricStatus:
    metric: dict[str, Any] = {"type": data.get("type", "")}
    if source := data.get("object"):
        metric["object"] = {
            "describedObject": source.get("target") or {},
            "metric": _identifier(source, "selector"),
            "current": _present(value=source.get("currentValue"), averageValue=source.get("averageValue")),
        }
    if source := data.get("pods"):
        current = _present(averageValue=source.get("currentAverageValue"))
        metric["pods"] = {"metric": _identifier(source, "selector"), "current": current}
    if source := data.get("resource"):
        metric["resource"] = {"name": source.get("name", ""), "current": _usage_value(source)}
    if source := data.get("containerResource"):
        metric["containerResource"] = {
            "name": source.get("name", ""),
            "container": source.get("container", ""),
            "current": _usage_value(source),
        }
    if source := data.get("external"):
        current = _present(value=source.get("currentValue"), averageValue=source.get("currentAverageValue"))
        metric["external"] = {"metric": _identifier(source, "metricSelector"), "current": current}
    return msgspec.convert(metric, v2.MetricStatus)


def _identifier(source: dict[str, Any], selector: str) -> dict[str, Any]:
    return _present(name=source.get("metricName", ""), selector=source.get(selector))


def _usage_target(source: dict[str, Any]) -> dict[str, Any]:
    share = source.get("targetAverageUtilization")
    kind = "AverageValue" if share is None else "Utilization"
    return _present(type=kind, averageUtilization=share, averageValue=source.get("targetAverageValue"))


def _usage_value(source: dict[str, Any]) -> dict[str, Any]:
    share, amount = source.get("currentAverageUtilization"), source.get("currentAverageValue")
    return _present(averageUtilization=share, averageValue=amount)


def _condition(data: dict[str, Any]) -> v2.HorizontalPodAutoscalerCondition:
    return msgspec.convert(
        {name: value for name, value in data.items() if value is not None}, v2.HorizontalPodAutoscalerCondition
    )


# The behavior is written in the names of upstream's Go fields, and read in any case.


def _written_behavior(behavior: v2.HorizontalPodAutoscalerBehavior) -> dict[str, Any]:
    return {"ScaleUp": _written_rules(behavior.scale_up), "ScaleDown": _written_rules(behavior.scale_down)}


def _written_rules(rules: v2.HPAScalingRules | None) -> dict[str, Any] | None:
    if rules is None:
        return None
    policies = [
        {"Type": policy.type, "Value": policy.value, "PeriodSeconds": policy.period_seconds}
        for policy in rules.policies
    ]
    return {
        "StabilizationWindowSeconds": rules.stabilization_window_seconds,
        "SelectPolicy": rules.select_policy,
        "Policies": policies,
        "Tolerance": rules.tolerance,
    }


def _behavior(data: dict[str, Any]) -> v2.HorizontalPodAutoscalerBehavior:
    return msgspec.convert(_small(data), v2.HorizontalPodAutoscalerBehavior)


def _small(data: Any) -> Any:
    """Field names as the API spells them, without nulls."""
    if isinstance(data, dict):
        return {name[:1].lower() + name[1:]: _small(value) for name, value in data.items() if value is not None}
    return [_small(item) for item in data] if isinstance(data, list) else data
