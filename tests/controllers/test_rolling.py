"""The arithmetic of rollouts, as tables."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from knarr.api.apps.v1 import Deployment, ReplicaSet
from knarr.controllers.rolling import (
    fenceposts,
    is_scaling,
    max_unavailable,
    proportionally,
    scale_all,
    scale_new,
    scale_old,
)


def deployment(replicas: int, surge: Any = "25%", unavailable: Any = "25%", **spec: Any) -> Deployment:
    rolling = {"maxSurge": surge, "maxUnavailable": unavailable}
    return msgspec.convert(
        {
            "metadata": {"name": "web", "namespace": "default", "uid": "d"},
            "spec": {"replicas": replicas, "strategy": {"type": "RollingUpdate", "rollingUpdate": rolling}, **spec},
        },
        Deployment,
    )


def replica_set(
    name: str, replicas: int, available: int | None = None, *, age: int = 0, annotations: dict[str, str] | None = None
) -> ReplicaSet:
    return msgspec.convert(
        {
            "metadata": {
                "name": name,
                "uid": name,
                "creationTimestamp": f"2026-01-01T00:00:{59 - age:02}Z",
                "annotations": annotations or {},
            },
            "spec": {"replicas": replicas},
            "status": {"replicas": replicas, "availableReplicas": replicas if available is None else available},
        },
        ReplicaSet,
    )


def sizes(scales: Any) -> dict[str, int]:
    return {scale.replica_set.metadata.name: scale.replicas for scale in scales}


@pytest.mark.parametrize(
    ("replicas", "surge", "unavailable", "expected"),
    [
        (10, "25%", "25%", (3, 2)),
        (1, "25%", "25%", (1, 0)),
        (3, "0%", "0%", (0, 1)),
        (4, 0, 1, (0, 1)),
        (2, "50%", "50%", (1, 1)),
        (1, 0, "25%", (0, 1)),
        (100, 7, "3%", (7, 3)),
    ],
)
def test_surge_is_rounded_up_and_unavailable_down(
    replicas: int, surge: Any, unavailable: Any, expected: tuple[int, int]
) -> None:
    assert fenceposts(deployment(replicas, surge, unavailable)) == expected


def test_max_unavailable_is_never_more_than_all() -> None:
    assert max_unavailable(deployment(2, 0, 5)) == 2
    assert max_unavailable(deployment(0, 0, 5)) == 0


@pytest.mark.parametrize(
    ("replicas", "surge", "old", "new", "expected"),
    [
        (10, 0, 10, 0, None),
        (10, 2, 10, 0, 2),
        (10, 2, 5, 0, 7),
        (10, 2, 10, 2, None),
        (10, 2, 0, 9, 10),
        (10, 2, 0, 12, 10),
    ],
)
def test_the_new_one_grows_into_the_room_there_is(
    replicas: int, surge: int, old: int, new: int, expected: int | None
) -> None:
    step = scale_new(deployment(replicas, surge, 0), replica_set("new", new), [replica_set("old", old)])
    assert (step.replicas if step else None) == expected


@pytest.mark.parametrize(
    ("unavailable", "old", "old_available", "new", "new_available", "expected"),
    [
        (0, 10, 10, 0, 0, {}),
        (2, 10, 10, 0, 0, {"old": 8}),
        (2, 10, 8, 0, 0, {"old": 8}),  # those that serve nobody go first
        (2, 10, 9, 0, 0, {"old": 8}),
        (2, 10, 0, 0, 0, {"old": 8}),
        (2, 10, 10, 2, 0, {"old": 8}),
        (2, 10, 10, 2, 2, {"old": 6}),
        (0, 10, 10, 1, 1, {"old": 9}),
        (0, 10, 10, 1, 0, {}),
    ],
)
def test_old_ones_shrink_as_far_as_availability_allows(
    unavailable: int, old: int, old_available: int, new: int, new_available: int, expected: dict[str, int]
) -> None:
    steps = scale_old(
        deployment(10, 1, unavailable), replica_set("new", new, new_available), [replica_set("old", old, old_available)]
    )
    assert sizes(steps) == expected


def test_the_oldest_shrinks_first() -> None:
    old = [replica_set("older", 3, age=20), replica_set("old", 4, age=10)]
    assert sizes(scale_old(deployment(8, 0, 4), replica_set("new", 1), old)) == {"older": 0, "old": 3}


def with_max(number: int) -> dict[str, str]:
    return {"deployment.kubernetes.io/max-replicas": str(number)}


@pytest.mark.parametrize(
    ("before", "after", "old", "new", "expected"),
    [
        (10, 20, 5, 5, {"old": 10, "new": 10}),
        (10, 5, 5, 5, {"old": 2, "new": 3}),  # what rounding leaves over is the largest's, of equals the older
        (10, 15, 8, 2, {"old": 12, "new": 3}),
        (10, 0, 8, 2, {"old": 0, "new": 0}),
        (10, 11, 5, 5, {"old": 5, "new": 6}),
    ],
)
def test_scaling_in_the_middle_keeps_the_proportions(
    before: int, after: int, old: int, new: int, expected: dict[str, int]
) -> None:
    steps = proportionally(
        deployment(after, 0, 1),
        replica_set("new", new, annotations=with_max(before)),
        [replica_set("old", old, age=30, annotations=with_max(before))],
    )
    found = sizes(steps)
    assert sum(found.values()) == after
    assert found == expected or set(found.values()) == set(expected.values())


@given(
    after=st.integers(0, 50),
    parts=st.lists(st.integers(1, 20), min_size=2, max_size=5),
    surge=st.integers(0, 5),
)
def test_proportional_scaling_always_comes_to_the_allowed_size(after: int, parts: list[int], surge: int) -> None:
    before = sum(parts)
    sets = [replica_set(f"r{place}", size, age=place, annotations=with_max(before)) for place, size in enumerate(parts)]
    found = sizes(proportionally(deployment(after, surge, 1), sets[0], sets[1:]))
    assert sum(found.values()) == (after + surge if after else 0)
    assert all(size >= 0 for size in found.values())


def test_scaling_alone_touches_the_one_with_pods() -> None:
    new, old = replica_set("new", 3), replica_set("old", 0, age=10)
    assert sizes(scale_all(deployment(5), new, [old])) == {"new": 5}
    assert sizes(scale_all(deployment(3), new, [old])) == {}


def test_one_that_has_the_size_already_is_told_of_it_so_that_scaling_ends() -> None:
    """Scaled in the middle of a rollout to the size that the only one with pods has: the rollout would never go on."""
    only = replica_set("old", 1, annotations={"deployment.kubernetes.io/desired-replicas": "2"})
    assert is_scaling(deployment(1), [only])
    assert sizes(scale_all(deployment(1), replica_set("new", 0), [only])) == {"old": 1}


def test_a_recreate_with_two_that_have_pods_is_told_of_a_new_size_so_that_scaling_ends() -> None:
    """As after a change of strategy in mid-rollout, or after adopting the ReplicaSets of another Deployment."""
    assert sizes(
        scale_all(deployment(4, strategy={"type": "Recreate"}), replica_set("new", 1), [replica_set("old", 2)])
    ) == {"new": 1, "old": 2}


def test_a_saturated_new_one_takes_the_rest_away_from_the_old() -> None:
    new = replica_set("new", 3, annotations={"deployment.kubernetes.io/desired-replicas": "3"})
    assert sizes(scale_all(deployment(3), new, [replica_set("old", 2, age=10)])) == {"old": 0}


def test_scaling_is_seen_by_the_desired_annotation() -> None:
    annotated = replica_set("new", 3, annotations={"deployment.kubernetes.io/desired-replicas": "3"})
    assert not is_scaling(deployment(3), [annotated])
    assert is_scaling(deployment(4), [annotated])
    assert not is_scaling(deployment(4), [replica_set("bare", 3)])


@given(
    replicas=st.integers(1, 30),
    surge=st.integers(0, 10),
    unavailable=st.integers(0, 10),
    data=st.data(),
)
def test_no_step_breaks_the_bounds(replicas: int, surge: int, unavailable: int, data: st.DataObject) -> None:
    """From any state within the bounds, a step stays within them, whatever the pods that go are."""
    one = deployment(replicas, surge, unavailable)
    surge, unavailable = fenceposts(one)
    old = data.draw(st.integers(0, replicas + surge), "old")
    new = data.draw(st.integers(0, min(replicas, replicas + surge - old)), "new")
    old_available = data.draw(st.integers(0, old), "old available")
    new_available = data.draw(st.integers(0, new), "new available")
    new_set, old_set = replica_set("new", new, new_available), replica_set("old", old, old_available, age=9)
    up = scale_new(one, new_set, [old_set])
    assert old + (up.replicas if up else new) <= max(replicas + surge, old + new)
    for step in scale_old(one, new_set, [old_set]):
        gone = old - step.replicas
        gone_available = max(0, gone - (old - old_available))
        if gone_available:
            assert old_available - gone_available + new_available >= replicas - min(unavailable, replicas)
