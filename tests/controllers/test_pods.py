"""Which pods are spared first, in upstream's order."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from knarr.api.core.pod_state import is_active
from knarr.api.core.v1 import Pod
from knarr.controllers.pods import available_in_s, deletion_cost, seconds, spare

NOW_S = 1_767_225_600.0
YEAR_BEFORE = "2025-01-01T00:00:00Z"
HOUR_BEFORE = "2025-12-31T23:00:00Z"
MINUTE_BEFORE = "2025-12-31T23:59:00Z"


def pod(
    name: str,
    *,
    node: str = "n1",
    phase: str = "Running",
    ready: str | None = HOUR_BEFORE,
    cost: str | None = None,
    restarts: int = 0,
    sidecar_restarts: int = 0,
    created: str = HOUR_BEFORE,
    **metadata: Any,
) -> Pod:
    annotations = {} if cost is None else {"controller.kubernetes.io/pod-deletion-cost": cost}
    conditions = [{"type": "Ready", "status": "True", "lastTransitionTime": ready}] if ready else []
    return msgspec.convert(
        {
            "metadata": {
                "name": name,
                "uid": name,
                "creationTimestamp": created,
                "annotations": annotations,
                **metadata,
            },
            "spec": {
                "nodeName": node,
                "containers": [{"name": "c"}],
                "initContainers": [{"name": "s", "restartPolicy": "Always"}],
            },
            "status": {
                "phase": phase,
                "conditions": conditions,
                "containerStatuses": [{"name": "c", "restartCount": restarts}],
                "initContainerStatuses": [{"name": "s", "restartCount": sidecar_restarts}],
            },
        },
        Pod,
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (pod("b", node="", phase="Pending", ready=None), pod("a", phase="Pending", ready=None)),
        (pod("b", phase="Pending", ready=None), pod("a", phase="Unknown", ready=None)),
        (pod("b", phase="Unknown", ready=None), pod("a", ready=None)),
        (pod("b", ready=None), pod("a")),
        (pod("b", cost="-5"), pod("a")),
        (pod("b"), pod("a", cost="5")),
        (pod("b", ready=MINUTE_BEFORE), pod("a", ready=YEAR_BEFORE)),
        (pod("b", restarts=3), pod("a", restarts=1)),
        (pod("b", sidecar_restarts=3), pod("a", sidecar_restarts=1)),
        (pod("b", created=MINUTE_BEFORE), pod("a", created=YEAR_BEFORE)),
        (pod("a", ready="2025-12-31T23:00:05Z"), pod("b", ready="2025-12-31T23:00:00Z")),
        (pod("a", ready="2025-12-31T23:00:00Z"), pod("b", ready="2025-12-31T23:00:05Z")),
    ],
    ids=[
        "unassigned before assigned",
        "pending before unknown",
        "unknown before running",
        "not ready before ready",
        "negative cost first",
        "higher cost last",
        "ready for a shorter time first",
        "more restarts first",
        "more restarts of a sidecar first",
        "younger first",
        "of about the same age: by uid",
        "of about the same age: by uid, whichever is older",
    ],
)
def test_ranking(first: Pod, second: Pod) -> None:
    assert spare([second, first], [], 1, NOW_S) == [first]
    assert spare([first, second], [], 1, NOW_S) == [first]


def test_pods_that_share_a_node_go_first() -> None:
    alone, one, other = pod("a", node="n1"), pod("b", node="n2"), pod("c", node="n2")
    assert spare([alone, one, other], [alone, one, other], 2, NOW_S) == [one, other]


def test_earlier_criteria_outweigh_later_ones() -> None:
    cheap = pod("a", cost="-1", ready=YEAR_BEFORE)
    young = pod("b", ready=MINUTE_BEFORE, restarts=9)
    unready = pod("c", ready=None, cost="100")
    assert spare([cheap, young, unready], [], 2, NOW_S) == [unready, cheap]


@pytest.mark.parametrize(
    ("written", "cost"),
    [("10", 10), ("-10", -10), ("0", 0), ("", 0), ("1.5", 0), ("+1", 0), ("01", 0), ("2147483648", 0), ("x", 0)],
)
def test_deletion_cost(written: str, cost: int) -> None:
    assert deletion_cost(pod("a", cost=written)) == cost


def test_availability_comes_after_min_ready_seconds() -> None:
    one = pod("a", ready=MINUTE_BEFORE)
    ready_s = seconds(one.status.conditions[0].last_transition_time)  # type: ignore[union-attr,arg-type]
    assert available_in_s(one, 0, ready_s) == 0
    assert available_in_s(one, 10, ready_s + 4) == 6
    assert available_in_s(one, 10, ready_s + 10) == 0
    assert available_in_s(pod("b", ready=None), 0, ready_s) is None


def test_pods_that_ended_or_are_being_deleted_are_not_active() -> None:
    assert is_active(pod("a"))
    assert not is_active(pod("a", phase="Failed"))
    assert not is_active(pod("a", phase="Succeeded"))
    assert not is_active(pod("a", deletionTimestamp=MINUTE_BEFORE))
