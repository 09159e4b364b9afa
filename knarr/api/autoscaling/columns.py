"""How `kubectl get hpa` shows what is measured, against what is aimed at: `cpu: 43%/80%`."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from knarr.api.autoscaling.conversion import to_v2
from knarr.api.autoscaling.v2 import HorizontalPodAutoscaler, MetricSpec, MetricStatus
from knarr.api.core.templates import age_column
from knarr.api.printing import NONE, UNKNOWN, UNSET
from knarr.api.resources import Column

SHOWN_MAX = 2
"""Metrics in the table; of more, the number is given."""


def _targets(obj: HorizontalPodAutoscaler, now_s: float) -> str:
    metrics = obj.spec.metrics
    if not metrics:
        return NONE
    statuses = obj.status.current_metrics if obj.status else []
    shown = [
        _target(metric, statuses[index] if index < len(statuses) else MetricStatus())
        for index, metric in enumerate(metrics[:SHOWN_MAX])
    ]
    more = len(metrics) - SHOWN_MAX
    return ", ".join(shown) + (f" + {more} more..." if more > 0 else "")


def _target(metric: MetricSpec, status: MetricStatus) -> str:
    if metric.type == "Resource" and metric.resource:
        return _usage(metric.resource, status.resource)
    if metric.type == "ContainerResource" and metric.container_resource:
        return _usage(metric.container_resource, status.container_resource)
    if metric.type == "Pods" and metric.pods:
        current = status.pods.current.average_value if status.pods else None
        return f"{_or_unknown(current)}/{metric.pods.target.average_value}"
    if metric.type == "Object" and metric.object:
        return _value(metric.object, status.object)
    if metric.type == "External" and metric.external:
        return _value(metric.external, status.external)
    return "<unknown type>"


def _usage(source: Any, status: Any) -> str:
    target, current = source.target, status.current if status else None
    if target.average_value is not None:
        return f"{source.name}: {_or_unknown(current and current.average_value)}/{target.average_value}"
    share = current.average_utilization if current else None
    now = UNKNOWN if share is None else f"{share}%"
    wanted = "<auto>" if target.average_utilization is None else f"{target.average_utilization}%"
    return f"{source.name}: {now}/{wanted}"


def _value(source: Any, status: Any) -> str:
    target, current = source.target, status.current if status else None
    if target.average_value is not None:
        return f"{_or_unknown(current and current.average_value)}/{target.average_value} (avg)"
    return f"{_or_unknown(current and current.value)}/{target.value}"


def _or_unknown(amount: Any) -> str:
    return UNKNOWN if amount is None else str(amount)


def _reference(obj: HorizontalPodAutoscaler, now_s: float) -> str:
    return f"{obj.spec.scale_target_ref.kind}/{obj.spec.scale_target_ref.name}"


def _fewest(obj: HorizontalPodAutoscaler, now_s: float) -> str:
    return UNSET if obj.spec.min_replicas is None else str(obj.spec.min_replicas)


COLUMNS = (
    Column("Reference", _reference),
    Column("Targets", _targets),
    Column("MinPods", _fewest),
    Column("MaxPods", lambda obj, now_s: obj.spec.max_replicas),
    Column("Replicas", lambda obj, now_s: (obj.status.current_replicas if obj.status else 0) or 0),
    age_column(),
)


def _of_v1(column: Column) -> Column:
    """Both versions are shown alike."""
    return replace(column, cell=lambda obj, now_s: column.cell(to_v2(obj), now_s))


V1_COLUMNS = tuple(_of_v1(column) for column in COLUMNS)
