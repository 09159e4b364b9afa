"""HorizontalPodAutoscalers: defaults, each rule of what they may say, and how they are shown."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.made import cells, faults, made, plain, status_faults, update_faults

CPU = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}
AVERAGE = {"type": "AverageValue", "averageValue": "10"}
VALUE = {"type": "Value", "value": "10"}
QUEUE = {"type": "External", "external": {"metric": {"name": "queue"}, "target": VALUE}}
POLICY = {"type": "Pods", "value": 1, "periodSeconds": 15}


def scaler(**spec: Any) -> dict[str, Any]:
    return {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "maxReplicas": 5} | spec


def test_the_cpu_is_what_is_aimed_at() -> None:
    spec = plain(made("HorizontalPodAutoscaler", spec=scaler()))["spec"]
    assert (spec["minReplicas"], spec["metrics"]) == (1, [CPU])
    assert "behavior" not in spec


def test_how_fast_it_goes() -> None:
    spec = plain(made("HorizontalPodAutoscaler", spec=scaler(behavior={})))["spec"]
    assert spec["behavior"] == {
        "scaleUp": {
            "stabilizationWindowSeconds": 0,
            "selectPolicy": "Max",
            "policies": [
                {"type": "Pods", "value": 4, "periodSeconds": 15},
                {"type": "Percent", "value": 100, "periodSeconds": 15},
            ],
        },
        "scaleDown": {"selectPolicy": "Max", "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]},
    }


def test_what_is_said_goes_before() -> None:
    said = {"scaleDown": {"stabilizationWindowSeconds": 60, "selectPolicy": "Disabled", "tolerance": "0.050"}}
    rules = plain(made("HorizontalPodAutoscaler", spec=scaler(behavior=said)))["spec"]["behavior"]["scaleDown"]
    assert (rules["stabilizationWindowSeconds"], rules["selectPolicy"], rules["tolerance"]) == (60, "Disabled", "50m")


def test_amounts_are_canonical() -> None:
    target = {"type": "Value", "value": "1000m"}
    queue = {"type": "External", "external": {"metric": {"name": "queue"}, "target": target}}
    spec = plain(made("HorizontalPodAutoscaler", spec=scaler(metrics=[queue])))["spec"]
    assert spec["metrics"][0]["external"]["target"]["value"] == "1"


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ({"maxReplicas": 0, "minReplicas": None}, "spec.maxReplicas: Invalid value: 0: must be greater than 0"),
        (
            {"minReplicas": 6},
            "spec.maxReplicas: Invalid value: 5: must be greater than or equal to `minReplicas`",
        ),
        (
            {"minReplicas": 0, "metrics": [QUEUE]},
            "spec.minReplicas: Invalid value: 0: must be greater than or equal to 1",
        ),
        ({"scaleTargetRef": {"kind": "", "name": "web"}}, "spec.scaleTargetRef.kind: Required value"),
        ({"scaleTargetRef": {"kind": "Deployment", "name": ""}}, "spec.scaleTargetRef.name: Required value"),
        (
            {"scaleTargetRef": {"kind": "Deployment", "name": "a/b"}},
            "spec.scaleTargetRef.name: Invalid value: \"a/b\": may not contain '/'",
        ),
    ],
)
def test_what_it_may_not_say(spec: dict[str, Any], fault: str) -> None:
    assert fault in faults("HorizontalPodAutoscaler", spec=scaler(**spec))


def test_zero_stays_where_it_is() -> None:
    before = {"spec": scaler(minReplicas=0, metrics=[QUEUE])}
    assert update_faults("HorizontalPodAutoscaler", before, before) == []
    assert update_faults("HorizontalPodAutoscaler", before, {"spec": scaler(minReplicas=0)}) == [
        "spec.metrics: Forbidden: must specify at least one Object or External metric to support scaling to "
        "zero replicas"
    ]


KINDS = '"ContainerResource", "External", "Object", "Pods", "Resource"'


@pytest.mark.parametrize(
    ("metric", "found"),
    [
        ({"type": "Resource"}, ["resource: Required value: must populate information for the given metric source"]),
        ({"type": "Pods"}, ["pods: Required value: must populate information for the given metric source"]),
        (
            {"type": "Weather"},
            [f'type: Unsupported value: "Weather": supported values: {KINDS}'] * 2,
        ),
        (
            CPU | {"pods": {"metric": {"name": "a"}, "target": AVERAGE}},
            ["pods: Forbidden: must populate the given metric source only"],
        ),
        (
            {"type": "Resource", "resource": {"name": "", "target": AVERAGE}},
            ["resource.name: Required value: must specify a resource name"],
        ),
        (
            {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization"}}},
            [
                "resource.target.averageUtilization: Required value: must set either a target raw value or a "
                "target utilization"
            ],
        ),
        (
            {
                "type": "Resource",
                "resource": {"name": "cpu", "target": AVERAGE | {"averageUtilization": 5}},
            },
            ["resource.target.averageValue: Forbidden: may not set both a target raw value and a target utilization"],
        ),
        (
            {"type": "Resource", "resource": {"name": "cpu", "target": AVERAGE | {"type": "Much"}}},
            ['resource.target.type: Invalid value: "Much": must be either Utilization, Value, or AverageValue'],
        ),
        (
            {
                "type": "Resource",
                "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 0}},
            },
            ["resource.target.averageUtilization: Invalid value: 0: must be greater than 0"],
        ),
        (
            {"type": "Pods", "pods": {"metric": {"name": "a"}, "target": AVERAGE | {"averageValue": "-1"}}},
            ['pods.target.averageValue: Invalid value: "-1": must be positive'],
        ),
        (
            {"type": "Pods", "pods": {"metric": {"name": "a"}, "target": VALUE}},
            ["pods.target.averageValue: Required value: must specify a positive target averageValue"],
        ),
        (
            {"type": "Pods", "pods": {"metric": {"name": ""}, "target": AVERAGE}},
            ["pods.metric.name: Required value: must specify a metric name"],
        ),
        (
            {
                "type": "Object",
                "object": {
                    "describedObject": {"kind": "Ingress", "name": "main"},
                    "metric": {"name": "hits"},
                    "target": {"type": "Value"},
                },
            },
            ["object.target.averageValue: Required value: must set either a target value or averageValue"],
        ),
        (
            {"type": "External", "external": {"metric": {"name": "queue"}, "target": {"type": "Value"}}},
            [
                "external.target.averageValue: Required value: "
                "must set either a target value for metric or a per-pod target"
            ],
        ),
        (
            {"type": "External", "external": {"metric": {"name": "queue"}, "target": VALUE | {"averageValue": "1"}}},
            ["external.target.value: Forbidden: may not set both a target value for metric and a per-pod target"],
        ),
        (
            {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "", "target": AVERAGE}},
            ["containerResource.container: Required value: must specify a container"],
        ),
    ],
)
def test_what_a_metric_may_not_say(metric: dict[str, Any], found: list[str]) -> None:
    wanted = [f"spec.metrics[0].{fault}" for fault in found]
    assert faults("HorizontalPodAutoscaler", spec=scaler(metrics=[metric])) == wanted


@pytest.mark.parametrize(
    ("rules", "fault"),
    [
        (
            {"stabilizationWindowSeconds": -1},
            "stabilizationWindowSeconds: Invalid value: -1: must be greater than or equal to zero",
        ),
        (
            {"stabilizationWindowSeconds": 3601},
            "stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600",
        ),
        (
            {"selectPolicy": "Most"},
            'selectPolicy: Unsupported value: "Most": supported values: "Disabled", "Max", "Min"',
        ),
        (
            {"policies": [POLICY | {"type": "Nodes"}]},
            'policies[0].type: Unsupported value: "Nodes": supported values: "Percent", "Pods"',
        ),
        ({"policies": [POLICY | {"value": 0}]}, "policies[0].value: Invalid value: 0: must be greater than zero"),
        (
            {"policies": [POLICY | {"periodSeconds": 0}]},
            "policies[0].periodSeconds: Invalid value: 0: must be greater than zero",
        ),
        (
            {"policies": [POLICY | {"periodSeconds": 1801}]},
            "policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800",
        ),
        ({"tolerance": "-0.1"}, 'tolerance: Invalid value: "-100m": must be greater than or equal to 0'),
    ],
)
def test_what_rules_of_scaling_may_not_say(rules: dict[str, Any], fault: str) -> None:
    assert faults("HorizontalPodAutoscaler", spec=scaler(behavior={"scaleUp": rules})) == [
        f"spec.behavior.scaleUp.{fault}"
    ]


def test_what_its_status_may_not_say() -> None:
    assert status_faults("HorizontalPodAutoscaler", {"desiredReplicas": -1, "currentReplicas": -1}, spec=scaler()) == [
        "status.currentReplicas: Invalid value: -1: must be greater than or equal to 0",
        "status.desiredReplicas: Invalid value: -1: must be greater than or equal to 0",
    ]


def test_how_it_is_shown() -> None:
    current = {
        "type": "Resource",
        "resource": {"name": "cpu", "current": {"averageUtilization": 43, "averageValue": "1"}},
    }
    status = {"currentReplicas": 2, "desiredReplicas": 3, "currentMetrics": [current]}
    assert cells("HorizontalPodAutoscaler", 0, spec=scaler(), status=status) == {
        "Reference": "Deployment/web",
        "Targets": "cpu: 43%/80%",
        "MinPods": "1",
        "MaxPods": 5,
        "Replicas": 2,
        "Age": "<unknown>",
    }


@pytest.mark.parametrize(
    ("metrics", "shown"),
    [
        ([CPU], "cpu: <unknown>/80%"),
        ([{"type": "Resource", "resource": {"name": "memory", "target": AVERAGE}}], "memory: <unknown>/10"),
        ([QUEUE], "<unknown>/10"),
        ([{"type": "External", "external": {"metric": {"name": "queue"}, "target": AVERAGE}}], "<unknown>/10 (avg)"),
        ([{"type": "Pods", "pods": {"metric": {"name": "a"}, "target": AVERAGE}}], "<unknown>/10"),
        (
            [
                {
                    "type": "ContainerResource",
                    "containerResource": {"name": "cpu", "container": "web", "target": AVERAGE},
                }
            ],
            "cpu: <unknown>/10",
        ),
        ([CPU, QUEUE, CPU, CPU], "cpu: <unknown>/80%, <unknown>/10 + 2 more..."),
    ],
)
def test_targets(metrics: list[Any], shown: str) -> None:
    assert cells("HorizontalPodAutoscaler", 0, spec=scaler(metrics=metrics))["Targets"] == shown
