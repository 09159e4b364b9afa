"""PodDisruptionBudgets: each rule of what they may say, and how they are shown."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from knarr.api.decode import decode
from knarr.api.policy.v1 import PodDisruptionBudget
from tests.api.made import cells, faults, made, plain, resource, status_faults

CONDITION = {
    "type": "DisruptionAllowed",
    "status": "True",
    "reason": "SufficientPods",
    "message": "",
    "lastTransitionTime": "2026-01-02T03:04:05Z",
}


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        (
            {"minAvailable": 1, "maxUnavailable": 1},
            'spec: Invalid value: {"maxUnavailable":1,"minAvailable":1}: '
            "minAvailable and maxUnavailable cannot be both set",
        ),
        ({"minAvailable": -1}, "spec.minAvailable: Invalid value: -1: must be greater than or equal to 0"),
        (
            {"minAvailable": "some"},
            'spec.minAvailable: Invalid value: "some": a valid percent string must be a numeric string '
            "followed by an "
            "ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
        ),
        ({"maxUnavailable": "101%"}, 'spec.maxUnavailable: Invalid value: "101%": must not be greater than 100%'),
        (
            {"unhealthyPodEvictionPolicy": "Maybe"},
            'spec.unhealthyPodEvictionPolicy: Unsupported value: "Maybe": '
            'supported values: "AlwaysAllow", "IfHealthyBudget"',
        ),
        (
            {"selector": {"matchExpressions": [{"key": "app", "operator": "Is"}]}},
            'spec.selector.matchExpressions[0].operator: Invalid value: "Is": not a valid selector operator',
        ),
    ],
)
def test_what_it_may_not_say(spec: dict[str, Any], fault: str) -> None:
    assert faults("PodDisruptionBudget", spec=spec) == [fault]


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        ({"disruptionsAllowed": -1}, "disruptionsAllowed: Invalid value: -1: must be greater than or equal to 0"),
        ({"currentHealthy": -1}, "currentHealthy: Invalid value: -1: must be greater than or equal to 0"),
        ({"desiredHealthy": -1}, "desiredHealthy: Invalid value: -1: must be greater than or equal to 0"),
        ({"expectedPods": -1}, "expectedPods: Invalid value: -1: must be greater than or equal to 0"),
        ({"conditions": [CONDITION | {"reason": ""}]}, "conditions[0].reason: Required value: must be set"),
        (
            {"conditions": [CONDITION | {"status": "Yes"}]},
            'conditions[0].status: Unsupported value: "Yes": supported values: "False", "True", "Unknown"',
        ),
        (
            {"conditions": [CONDITION | {"lastTransitionTime": None}]},
            "conditions[0].lastTransitionTime: Required value: must be set",
        ),
        ({"conditions": [CONDITION, CONDITION]}, 'conditions[1].type: Duplicate value: "DisruptionAllowed"'),
        (
            {"conditions": [CONDITION | {"observedGeneration": -1}]},
            "conditions[0].observedGeneration: Invalid value: -1: must be greater than or equal to zero",
        ),
    ],
)
def test_what_its_status_may_not_say(status: dict[str, Any], fault: str) -> None:
    assert status_faults("PodDisruptionBudget", status, spec={}) == [f"status.{fault}"]


def test_its_counts_are_always_written() -> None:
    budget = made("PodDisruptionBudget", spec={"minAvailable": 1})
    resource("PodDisruptionBudget").strategy.prepare_for_create(budget)
    assert plain(budget)["status"] == {
        "currentHealthy": 0,
        "desiredHealthy": 0,
        "disruptionsAllowed": 0,
        "expectedPods": 0,
    }


def test_a_pod_without_a_time_stays_known() -> None:
    body = b'{"apiVersion":"policy/v1","kind":"PodDisruptionBudget","status":{"disruptedPods":{"web-1":null}}}'
    budget, warnings = decode(PodDisruptionBudget, body, validation="Strict")
    assert warnings == []
    assert msgspec.json.decode(msgspec.json.encode(budget))["status"]["disruptedPods"] == {"web-1": None}


def test_how_it_is_shown() -> None:
    assert cells("PodDisruptionBudget", 0, spec={"minAvailable": "50%"}, status={"disruptionsAllowed": 2}) == {
        "Min Available": "50%",
        "Max Unavailable": "N/A",
        "Allowed Disruptions": 2,
        "Age": "<unknown>",
    }
    assert cells("PodDisruptionBudget", 0, spec={"maxUnavailable": 1})["Max Unavailable"] == "1"
