"""How far and how fast an autoscaler may go: stabilization windows, policies, and its bounds (KEP-853).

Plain functions over what was recommended and done before. Without a `behavior`, upstream's older rules hold:
scale-downs wait for five minutes without a higher recommendation, scale-ups at most double the replicas (or reach 4).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from msgspec import Struct, field

from knarr.api.autoscaling.v2 import HorizontalPodAutoscalerSpec, HPAScalingRules

DOWNSCALE_WINDOW_S = 300
SCALE_UP_FACTOR = 2
SCALE_UP_FLOOR = 4
MEMORY_MAX = 4096
"""Recommendations and changes remembered of one autoscaler."""


class Memory(Struct):
    """What was recommended and done before, as (when, how many)."""

    recommendations: list[tuple[float, int]] = field(default_factory=list)
    ups: list[tuple[float, int]] = field(default_factory=list)
    downs: list[tuple[float, int]] = field(default_factory=list)

    def recommend(self, replicas: int, now_s: float, window_s: float) -> None:
        """Note a recommendation; forget those that no window sees any more."""
        kept = [one for one in self.recommendations if one[0] > now_s - window_s]
        self.recommendations = [*kept[-MEMORY_MAX:], (now_s, replicas)]

    def changed(self, before: int, after: int, now_s: float, window_s: float) -> None:
        """Note that the target was scaled."""
        done = self.ups if after > before else self.downs
        kept = [one for one in done if one[0] > now_s - window_s]
        done[:] = [*kept[-MEMORY_MAX:], (now_s, abs(after - before))]


class Normalized(Struct, frozen=True):
    """The replicas that are allowed now, and what the conditions AbleToScale and ScalingLimited say of them."""

    replicas: int
    able: tuple[str, str]
    """Reason and message."""
    limited: bool
    limit: tuple[str, str]


READY = ("ReadyForNewScale", "recommended size matches current size")
HIGHER_BEFORE = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
)
LOWER_BEFORE = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
)
WITHIN = ("DesiredWithinRange", "the desired count is within the acceptable range")
TOO_FEW = ("TooFewReplicas", "the desired replica count is less than the minimum replica count")
TOO_MANY = ("TooManyReplicas", "the desired replica count is more than the maximum replica count")
TOO_FAST_UP = ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate")
TOO_FAST_DOWN = ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate")


def normalized(
    spec: HorizontalPodAutoscalerSpec, memory: Memory, current: int, desired: int, now_s: float
) -> Normalized:
    """The desired replicas, held to what went before and to the bounds. Notes the recommendation in `memory`."""
    behavior = spec.behavior
    if behavior is None:
        stable = max([desired, *_recent(memory.recommendations, now_s, DOWNSCALE_WINDOW_S)])
        able = HIGHER_BEFORE if stable != desired else READY
        memory.recommend(desired, now_s, DOWNSCALE_WINDOW_S)
        replicas, limit = _within_default_bounds(spec, current, stable)
    else:
        up, down = behavior.scale_up or HPAScalingRules(), behavior.scale_down or HPAScalingRules()
        up_window_s = up.stabilization_window_seconds or 0
        down_window_s = _down_window_s(down)
        lowest = min([desired, *_recent(memory.recommendations, now_s, up_window_s)])
        highest = max([desired, *_recent(memory.recommendations, now_s, down_window_s)])
        stable = min(max(current, lowest), highest)
        able = READY if stable == desired else LOWER_BEFORE if desired >= current else HIGHER_BEFORE
        memory.recommend(desired, now_s, max(up_window_s, down_window_s))
        replicas, limit = _within_policies(spec, memory, current, stable, now_s)
    return Normalized(replicas, able, replicas != stable, limit)


def longest_period_s(rules: HPAScalingRules | None) -> float:
    """How long a change has to be remembered for the policies."""
    return max((policy.period_seconds for policy in rules.policies), default=0) if rules else 0


def _down_window_s(rules: HPAScalingRules) -> int:
    window_s = rules.stabilization_window_seconds
    return DOWNSCALE_WINDOW_S if window_s is None else window_s


def _recent(remembered: Sequence[tuple[float, int]], now_s: float, window_s: float) -> list[int]:
    return [count for when, count in remembered if when > now_s - window_s]


def _within_default_bounds(
    spec: HorizontalPodAutoscalerSpec, current: int, desired: int
) -> tuple[int, tuple[str, str]]:
    fastest = max(SCALE_UP_FACTOR * current, SCALE_UP_FLOOR)
    most, limit = (fastest, TOO_FAST_UP) if spec.max_replicas > fastest else (spec.max_replicas, TOO_MANY)
    fewest = _fewest(spec)
    if desired < fewest:
        return fewest, TOO_FEW
    return (most, limit) if desired > most else (desired, WITHIN)


def _within_policies(
    spec: HorizontalPodAutoscalerSpec, memory: Memory, current: int, desired: int, now_s: float
) -> tuple[int, tuple[str, str]]:
    assert spec.behavior is not None
    if desired > current:
        fastest = max(current, _up_limit(spec.behavior.scale_up, memory, current, now_s))
        most, limit = (fastest, TOO_FAST_UP) if spec.max_replicas > fastest else (spec.max_replicas, TOO_MANY)
        return (most, limit) if desired > most else (desired, WITHIN)
    if desired < current:
        fastest = min(current, _down_limit(spec.behavior.scale_down, memory, current, now_s))
        fewest = _fewest(spec)
        least, limit = (fastest, TOO_FAST_DOWN) if fewest < fastest else (fewest, TOO_FEW)
        return (least, limit) if desired < least else (desired, WITHIN)
    return desired, WITHIN


def _up_limit(rules: HPAScalingRules | None, memory: Memory, current: int, now_s: float) -> int:
    """The most replicas that the policies allow now."""

    def limit(start: int, kind: str, value: int) -> int:
        return start + value if kind == "Pods" else math.ceil(start * (1 + value / 100))

    return _limit(rules, memory, current, now_s, limit, max, min)


def _down_limit(rules: HPAScalingRules | None, memory: Memory, current: int, now_s: float) -> int:
    """The fewest replicas that the policies allow now."""

    def limit(start: int, kind: str, value: int) -> int:
        return start - value if kind == "Pods" else int(start * (1 - value / 100))

    return _limit(rules, memory, current, now_s, limit, min, max)


def _limit(
    rules: HPAScalingRules | None,
    memory: Memory,
    current: int,
    now_s: float,
    limit: Callable[[int, str, int], int],
    by_default: Callable[[Sequence[int]], int],
    most_careful: Callable[[Sequence[int]], int],
) -> int:
    """What the policies come to; each counts from the replicas at the start of its period."""
    if rules is None or rules.select_policy == "Disabled" or not rules.policies:
        return current
    limits = []
    for policy in rules.policies:
        added = sum(_recent(memory.ups, now_s, policy.period_seconds))
        removed = sum(_recent(memory.downs, now_s, policy.period_seconds))
        limits.append(limit(current - added + removed, policy.type, policy.value))
    return most_careful(limits) if rules.select_policy == "Min" else by_default(limits)


def _fewest(spec: HorizontalPodAutoscalerSpec) -> int:
    return 1 if spec.min_replicas is None else spec.min_replicas
