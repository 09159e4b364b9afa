"""How far and how fast an autoscaler goes: windows, policies and bounds, as tables."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from knarr.api.autoscaling.v2 import HorizontalPodAutoscalerSpec
from knarr.controllers.scaling_behavior import Memory, normalized


def spec(low: int = 1, high: int = 100, **behavior: Any) -> HorizontalPodAutoscalerSpec:
    return msgspec.convert(
        {"minReplicas": low, "maxReplicas": high, **({"behavior": behavior} if behavior else {})},
        HorizontalPodAutoscalerSpec,
    )


def rules(*policies: tuple[str, int, int], **more: Any) -> dict[str, Any]:
    listed = [{"type": kind, "value": value, "periodSeconds": period_s} for kind, value, period_s in policies]
    return {"policies": listed, "stabilizationWindowSeconds": 0, **more}


@pytest.mark.parametrize(
    ("low", "high", "current", "desired", "wanted", "limit"),
    [
        (1, 100, 3, 5, 5, "DesiredWithinRange"),
        (1, 100, 3, 20, 6, "ScaleUpLimit"),
        (1, 100, 1, 20, 4, "ScaleUpLimit"),
        (1, 5, 3, 20, 5, "TooManyReplicas"),
        (2, 100, 3, 1, 2, "TooFewReplicas"),
    ],
)
def test_without_a_behavior_replicas_at_most_double(
    low: int, high: int, current: int, desired: int, wanted: int, limit: str
) -> None:
    result = normalized(spec(low, high), Memory(), current, desired, 1000.0)
    assert (result.replicas, result.limit[0]) == (wanted, limit)
    assert result.limited == (limit != "DesiredWithinRange")


def test_without_a_behavior_a_scale_down_waits_for_five_quiet_minutes() -> None:
    memory = Memory()
    assert normalized(spec(), memory, 5, 5, 0.0).replicas == 5
    held = normalized(spec(), memory, 5, 2, 299.0)
    assert (held.replicas, held.able[0]) == (5, "ScaleDownStabilized")
    gone = normalized(spec(), memory, 5, 2, 301.0)
    assert (gone.replicas, gone.able[0]) == (2, "ReadyForNewScale")


@pytest.mark.parametrize(
    ("up", "current", "wanted"),
    [
        (rules(("Pods", 2, 60)), 10, 12),
        (rules(("Percent", 50, 60)), 10, 15),
        (rules(("Percent", 10, 60)), 3, 4),
        (rules(("Pods", 2, 60), ("Percent", 50, 60)), 10, 15),
        (rules(("Pods", 2, 60), ("Percent", 50, 60), selectPolicy="Min"), 10, 12),
        (rules(("Pods", 2, 60), selectPolicy="Disabled"), 10, 10),
    ],
)
def test_policies_bound_a_scale_up(up: dict[str, Any], current: int, wanted: int) -> None:
    assert normalized(spec(scaleUp=up), Memory(), current, 50, 1000.0).replicas == wanted


@pytest.mark.parametrize(
    ("down", "current", "wanted"),
    [
        (rules(("Pods", 2, 60)), 10, 8),
        (rules(("Percent", 50, 60)), 10, 5),
        (rules(("Percent", 25, 60)), 5, 3),
        (rules(("Pods", 2, 60), ("Percent", 50, 60)), 10, 5),
        (rules(("Pods", 2, 60), ("Percent", 50, 60), selectPolicy="Min"), 10, 8),
        (rules(("Pods", 2, 60), selectPolicy="Disabled"), 10, 10),
    ],
)
def test_policies_bound_a_scale_down(down: dict[str, Any], current: int, wanted: int) -> None:
    assert normalized(spec(scaleDown=down), Memory(), current, 1, 1000.0).replicas == wanted


def test_a_policy_counts_what_was_done_within_its_period() -> None:
    memory = Memory()
    up = rules(("Pods", 4, 60))
    assert normalized(spec(scaleUp=up), memory, 10, 50, 0.0).replicas == 14
    memory.changed(10, 14, 0.0, 60)
    assert normalized(spec(scaleUp=up), memory, 14, 50, 30.0).replicas == 14
    assert normalized(spec(scaleUp=up), memory, 14, 50, 61.0).replicas == 18


def test_windows_hold_to_the_lowest_on_the_way_up_and_to_the_highest_on_the_way_down() -> None:
    memory = Memory()
    fast = [{"type": "Percent", "value": 1000, "periodSeconds": 15}]
    up = {"policies": fast, "stabilizationWindowSeconds": 60}
    down = {"policies": fast, "stabilizationWindowSeconds": 120}
    shape = spec(scaleUp=up, scaleDown=down)
    assert normalized(shape, memory, 5, 5, 0.0).replicas == 5
    held = normalized(shape, memory, 5, 9, 30.0)
    assert (held.replicas, held.able[0]) == (5, "ScaleUpStabilized")
    assert normalized(shape, memory, 5, 9, 95.0).replicas == 9
    low = normalized(shape, memory, 9, 2, 100.0)
    assert (low.replicas, low.able[0]) == (9, "ScaleDownStabilized")
    assert normalized(shape, memory, 9, 2, 216.0).replicas == 2


def test_what_no_window_sees_is_forgotten() -> None:
    memory = Memory()
    for second in range(10_000):
        normalized(spec(), memory, 3, 3, float(second))
    assert len(memory.recommendations) <= 301
