"""autoscaling/v1 and v2 of one object: nothing is lost from either to the other and back."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from knarr.api.autoscaling import v1, v2
from knarr.api.autoscaling.conversion import BEHAVIOR, CONDITIONS, CURRENT_METRICS, METRICS, to_v1, to_v2
from knarr.api.decode import convert
from tests.api.autoscaling.test_autoscalers import AVERAGE, CPU, QUEUE, VALUE, scaler
from tests.api.made import made, plain

SELECTOR = {"matchLabels": {"a": "b"}}
EVERY_METRIC = [
    CPU,
    {"type": "Resource", "resource": {"name": "memory", "target": AVERAGE}},
    {"type": "Resource", "resource": {"name": "cpu", "target": AVERAGE}},
    QUEUE,
    {"type": "External", "external": {"metric": {"name": "queue", "selector": SELECTOR}, "target": AVERAGE}},
    {"type": "Pods", "pods": {"metric": {"name": "hits", "selector": SELECTOR}, "target": AVERAGE}},
    {
        "type": "ContainerResource",
        "containerResource": {
            "name": "cpu",
            "container": "web",
            "target": {"type": "Utilization", "averageUtilization": 50},
        },
    },
    {
        "type": "Object",
        "object": {
            "describedObject": {"kind": "Ingress", "name": "main", "apiVersion": "networking.k8s.io/v1"},
            "metric": {"name": "hits"},
            "target": VALUE,
        },
    },
    {
        "type": "Object",
        "object": {
            "describedObject": {"kind": "Ingress", "name": "main"},
            "metric": {"name": "hits"},
            "target": AVERAGE,
        },
    },
]
STATUS = {
    "currentReplicas": 2,
    "desiredReplicas": 3,
    "observedGeneration": 4,
    "lastScaleTime": "2026-01-02T03:04:05Z",
    "conditions": [{"type": "AbleToScale", "status": "True", "reason": "Ready", "message": "so"}],
    "currentMetrics": [
        {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 43, "averageValue": "1"}}},
        {"type": "External", "external": {"metric": {"name": "queue"}, "current": {"value": "3"}}},
        {"type": "Pods", "pods": {"metric": {"name": "hits"}, "current": {"averageValue": "3"}}},
        {
            "type": "ContainerResource",
            "containerResource": {"name": "cpu", "container": "web", "current": {"averageValue": "2"}},
        },
        {
            "type": "Object",
            "object": {
                "describedObject": {"kind": "Ingress", "name": "main"},
                "metric": {"name": "hits"},
                "current": {"value": "3"},
            },
        },
    ],
}


def old(annotations: dict[str, Any] | None = None, status: dict[str, Any] | None = None, **spec: Any) -> Any:
    written = {
        name: value if isinstance(value, str) else msgspec.json.encode(value).decode()
        for name, value in (annotations or {}).items()
    }
    data = {"metadata": {"name": "web", "annotations": written}, "spec": scaler(**spec), "status": status}
    return convert(v1.HorizontalPodAutoscaler, data, validation="Strict")[0]


def test_there_and_back() -> None:
    behavior = {"scaleUp": {"tolerance": "50m"}, "scaleDown": {"selectPolicy": "Disabled"}}
    obj = made(
        "HorizontalPodAutoscaler",
        metadata={"annotations": {"mine": "1"}},
        spec=scaler(minReplicas=2, metrics=EVERY_METRIC, behavior=behavior),
        status=STATUS,
    )
    back = plain(to_v2(to_v1(obj)))
    wanted = plain(obj)
    # The share of CPU comes last: v1 keeps it in a field of its own.
    wanted["spec"]["metrics"] = [*wanted["spec"]["metrics"][1:], wanted["spec"]["metrics"][0]]
    assert back == wanted


def test_what_v1_shows() -> None:
    obj = to_v1(made("HorizontalPodAutoscaler", spec=scaler(metrics=[CPU, QUEUE], behavior={}), status=STATUS))
    assert (obj.spec.target_cpu_utilization_percentage, obj.status.current_cpu_utilization_percentage) == (80, 43)
    annotations = obj.metadata.annotations
    assert sorted(annotations) == sorted([BEHAVIOR, CONDITIONS, CURRENT_METRICS, METRICS])
    assert msgspec.json.decode(annotations[METRICS]) == [
        {"type": "External", "external": {"metricName": "queue", "targetValue": "10"}}
    ]
    assert msgspec.json.decode(annotations[CURRENT_METRICS])[0] == {
        "type": "Resource",
        "resource": {"name": "cpu", "currentAverageUtilization": 43, "currentAverageValue": "1"},
    }
    assert msgspec.json.decode(annotations[BEHAVIOR])["ScaleDown"] == {
        "StabilizationWindowSeconds": None,
        "SelectPolicy": "Max",
        "Policies": [{"Type": "Percent", "Value": 100, "PeriodSeconds": 15}],
        "Tolerance": None,
    }


def test_a_plain_v1_object() -> None:
    obj = to_v2(old(targetCPUUtilizationPercentage=60))
    assert plain(obj)["spec"]["metrics"][0]["resource"]["target"] == {"type": "Utilization", "averageUtilization": 60}
    assert plain(to_v2(old()))["spec"]["metrics"] == [CPU]
    assert to_v1(to_v2(old())).spec.target_cpu_utilization_percentage == 80


def test_its_status() -> None:
    obj = to_v2(old(status={"currentReplicas": 1, "desiredReplicas": 2, "currentCPUUtilizationPercentage": 7}))
    assert plain(obj)["status"]["currentMetrics"] == [
        {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 7}}}
    ]


def test_the_behavior_is_read_in_any_case() -> None:
    obj = to_v2(old({BEHAVIOR: {"scaleup": None, "ScaleDown": {"SelectPolicy": "Min"}}}))
    assert isinstance(obj.spec.behavior, v2.HorizontalPodAutoscalerBehavior | None)
    obj = to_v2(old({BEHAVIOR: {"ScaleDown": {"SelectPolicy": "Min", "Policies": None}}}))
    assert plain(obj)["spec"]["behavior"] == {"scaleDown": {"selectPolicy": "Min"}}


@pytest.mark.parametrize("name", [METRICS, CURRENT_METRICS, CONDITIONS, BEHAVIOR])
@pytest.mark.parametrize("nonsense", ["", "{", "[1]", "7", '[{"resource":7}]', '{"ScaleUp":7}'])
def test_nonsense_is_passed_over(name: str, nonsense: str) -> None:
    obj = to_v2(old({name: nonsense}))
    assert plain(obj)["spec"]["metrics"] == [CPU]
    assert "behavior" not in plain(obj)["spec"]
    assert plain(obj)["metadata"] == {"name": "web"}
