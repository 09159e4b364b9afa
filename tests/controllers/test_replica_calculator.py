"""How many replicas a metric asks for: pods that start, that are missing, that are going."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from knarr.api.core.v1 import Pod
from knarr.clock import utc
from knarr.controllers.replica_calculator import (
    NoAnswer,
    Sample,
    Tolerances,
    by_average,
    by_utilization,
    by_value,
    by_value_per_pod,
)

NOW_S = 1_000_000.0


def pod(
    name: str, *, phase: str = "Running", ready: bool = True, request: str = "1", age_s: float = 3600, **more: Any
) -> Pod:
    """Ready (or unready) since ten minutes ago, or since its start if that was later."""
    since_s = NOW_S - min(age_s, 600)
    condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": utc(since_s)}
    return msgspec.convert(
        {
            "metadata": {"name": name, **more},
            "spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "1"}}}]},
            "status": {"phase": phase, "startTime": utc(NOW_S - age_s), "conditions": [condition]},
        },
        Pod,
    )


def samples(*values: int) -> dict[str, Sample]:
    return {f"p{number}": Sample(value, NOW_S - 5, 30) for number, value in enumerate(values)}


def wanted(pods: Sequence[Pod], measured: dict[str, Sample], target: int = 50, current: int | None = None) -> int:
    count = len(pods) if current is None else current
    return by_utilization(pods, measured, "cpu", "", target, count, Tolerances(), NOW_S).replicas


def pods(count: int, **more: Any) -> list[Pod]:
    return [pod(f"p{number}", **more) for number in range(count)]


@pytest.mark.parametrize(
    ("used", "replicas"),
    [((1000, 1000), 4), ((500, 500), 2), ((540, 540), 2), ((560, 560), 3), ((250, 250), 1), ((460, 460), 2)],
)
def test_replicas_follow_utilization_beyond_the_tolerance(used: tuple[int, ...], replicas: int) -> None:
    assert wanted(pods(2), samples(*used)) == replicas


def test_what_was_found_is_told() -> None:
    found = by_utilization(pods(2), samples(300, 500), "cpu", "", 50, 2, Tolerances(), NOW_S)
    assert (found.utilization, found.average_value) == (40, 400)


def test_pods_without_a_sample_count_as_idle_for_more_and_as_busy_for_fewer() -> None:
    assert wanted(pods(3), samples(1000, 1000)) == 4  # 2,000 of 3,000, not of 2,000
    assert wanted(pods(3), samples(100, 100)) == 3  # 200 + 1,000 of 3,000: the direction would turn
    assert wanted(pods(4), samples(0, 0, 0), target=90) == 2


def test_pods_that_start_count_as_idle_for_more_and_not_at_all_for_fewer() -> None:
    starting = [*pods(2), pod("p2", ready=False, age_s=20)]
    assert wanted(starting, samples(1000, 1000, 1000)) == 4  # the third counts as idle
    assert wanted(starting, samples(100, 100, 1000)) == 1
    pending = [*pods(2), pod("p2", phase="Pending")]
    assert wanted(pending, samples(1000, 1000)) == 4


def test_cpu_of_the_start_is_left_out_until_a_sample_lies_wholly_after_it_became_ready() -> None:
    young = [pod("p0"), pod("p1", age_s=20)]
    assert wanted(young, samples(500, 1000)) == 2  # a window of 30 s reaches back behind its start
    fresh = {"p0": Sample(500, NOW_S, 10), "p1": Sample(1000, NOW_S, 10)}
    assert wanted(young, fresh) == 3


def test_a_pod_that_has_lost_its_readiness_later_still_counts() -> None:
    old = [pod("p0"), pod("p1", ready=False)]
    assert wanted(old, samples(500, 1000)) == 3
    never = [pod("p0"), pod("p1", ready=False, age_s=590)]
    assert wanted(never, samples(500, 1000)) == 2


def test_pods_that_go_or_have_failed_are_left_out() -> None:
    going = [*pods(2), pod("p2", deletionTimestamp=utc(NOW_S)), pod("p3", phase="Failed")]
    assert wanted(going, samples(500, 500, 1000, 1000)) == 4  # current; within tolerance
    assert wanted(going, samples(500, 500, 1000, 1000), current=2) == 2


@pytest.mark.parametrize(
    ("given", "measured", "message"),
    [
        ([], {}, "no pods returned by selector while calculating replica count"),
        (pods(1), {}, "did not receive metrics for targeted pods (pods might be unready)"),
        (pods(1), {"other": Sample(1, NOW_S, 30)}, "no metrics returned matched known pods"),
    ],
)
def test_without_measurements_nothing_is_said(given: list[Pod], measured: dict[str, Sample], message: str) -> None:
    with pytest.raises(NoAnswer) as refused:
        wanted(given, measured)
    assert str(refused.value) == message


def test_a_pod_must_request_what_is_measured_as_a_share() -> None:
    bare = pod("p0")
    assert bare.spec
    bare.spec.containers[0].resources = None
    with pytest.raises(NoAnswer, match="missing request for cpu in container c of Pod p0"):
        wanted([bare], samples(1))


def test_an_average_value_needs_no_requests() -> None:
    found = by_average(pods(2), samples(300, 500), "cpu", 200, 2, Tolerances(), NOW_S)
    assert (found.replicas, found.average_value) == (4, 400)


def test_one_value_for_all() -> None:
    assert by_value(pods(3), 20_000, 10_000, 3, Tolerances()).replicas == 6
    assert by_value(pods(3), 10_500, 10_000, 3, Tolerances()).replicas == 3
    assert by_value([], 20_000, 10_000, 0, Tolerances()).replicas == 2
    shared = by_value_per_pod(20_000, 4_000, 3, Tolerances())
    assert (shared.replicas, shared.average_value) == (5, 6667)
    assert by_value_per_pod(12_500, 4_000, 3, Tolerances()).replicas == 3


def test_tolerances_of_ones_own() -> None:
    exact = Tolerances(up=0.0, down=0.5)
    assert by_value(pods(3), 10_100, 10_000, 3, exact).replicas == 4
    assert by_value(pods(3), 6_000, 10_000, 3, exact).replicas == 3
