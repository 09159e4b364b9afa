"""Plain functions about the pods of a Job: which can be spared, when one ended, how long the next waits."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from knarr.api.batch.v1 import JobSpec
from knarr.api.core.v1 import Pod
from knarr.controllers.job_pods import Backoff, backoff_of_index, finished_s, new_pod, to_remove
from tests.controllers.jobs import INDEX, TRACKING, indexed, job

NOON = "2026-01-01T12:00:00Z"
NOON_S = 1_767_268_800.0


def at(minute: int) -> str:
    return f"2026-01-01T12:{minute:02}:00Z"


def pod(name: str = "p", *, index: int | None = None, node: str = "", ready: str = "", **status: Any) -> Pod:
    """`ready` is since when, if it is."""
    conditions = [{"type": "Ready", "status": "True", "lastTransitionTime": ready}] if ready else []
    annotations = {} if index is None else {INDEX: str(index)}
    return msgspec.convert(
        {
            "metadata": {"name": name, "creationTimestamp": NOON, "annotations": annotations},
            "spec": {"containers": [{"name": "c"}], **({"nodeName": node} if node else {})},
            "status": {"phase": "Running", "conditions": conditions, **status},
        },
        Pod,
    )


def names(pods: list[Pod]) -> list[str]:
    return [one.metadata.name or "" for one in pods]


def test_the_least_advanced_goes_first() -> None:
    restarted = [{"name": "c", "image": "", "imageID": "", "ready": True, "restartCount": 3}]
    pods = [
        pod("old", node="n", ready=at(0)),
        pod("fresh", node="n", ready=at(5)),
        pod("restarted", node="n", ready=at(0), containerStatuses=restarted),
        pod("unready", node="n"),
        pod("pending", node="n", phase="Pending"),
        pod("nowhere", phase="Pending"),
    ]
    expected = ["nowhere", "pending", "unready", "fresh", "restarted", "old"]
    assert names(to_remove(JobSpec(), pods, 6)) == expected
    assert names(to_remove(JobSpec(), pods, 2)) == expected[:2]
    assert to_remove(JobSpec(), pods, 0) == []


def test_of_an_indexed_job_those_go_that_no_index_needs() -> None:
    spec = JobSpec(completion_mode="Indexed", completions=3)
    pods = [
        pod("zero", index=0, node="n", ready=at(0)),
        pod("zero-too", index=0, node="n"),
        pod("one", index=1),
        pod("three", index=3, node="n", ready=at(0)),
        pod("none", node="n", ready=at(0)),
    ]
    assert sorted(names(to_remove(spec, pods, 0))) == ["none", "three", "zero-too"]
    assert sorted(names(to_remove(spec, pods, 4))) == ["none", "one", "three", "zero-too"]


def test_a_pod_ended_when_its_last_container_did_or_as_near_as_is_known() -> None:
    def ended(*minutes: int | None) -> list[dict[str, Any]]:
        states = [{"terminated": {"exitCode": 0, "finishedAt": at(m)}} if m is not None else {} for m in minutes]
        common = {"image": "", "imageID": "", "ready": False, "restartCount": 0}
        return [common | {"name": f"c{number}", "state": state} for number, state in enumerate(states)]

    unready = {"type": "Ready", "status": "False", "lastTransitionTime": at(7)}
    assert finished_s(pod(containerStatuses=ended(3, 5, 4))) == NOON_S + 300
    assert finished_s(pod(containerStatuses=ended(3, None), conditions=[unready])) == NOON_S + 420
    deleted = pod()
    deleted.metadata = msgspec.structs.replace(
        deleted.metadata,
        deletion_timestamp=msgspec.convert(at(2), type=type(deleted.metadata.creation_timestamp)),
        deletion_grace_period_seconds=30,
    )
    assert finished_s(deleted) == NOON_S + 90
    assert finished_s(pod()) == NOON_S


def failed(minute: int) -> Pod:
    unready = {"type": "Ready", "status": "False", "lastTransitionTime": at(minute)}
    return pod(phase="Failed", conditions=[unready])


@pytest.mark.parametrize(
    ("failures", "waits_s"), [(0, 0), (1, 10), (2, 20), (3, 40), (6, 320), (7, 600), (8, 600), (500, 600)]
)
def test_each_failure_doubles_the_wait_up_to_ten_minutes(failures: int, waits_s: float) -> None:
    assert Backoff(failures, NOON_S).left_s(NOON_S) == waits_s
    assert Backoff(failures, NOON_S).left_s(NOON_S + waits_s) == 0


def test_only_failures_after_the_last_success_hold_the_next_pod_back() -> None:
    two = Backoff().after([], [failed(1), failed(3)])
    assert two == Backoff(2, NOON_S + 180)
    assert two.after([], []) == two
    assert two.after([], [failed(4)]) == Backoff(3, NOON_S + 240)
    assert two.after([failed(5)], [failed(4), failed(6)]) == Backoff(1, NOON_S + 360)
    assert two.after([failed(5)], [failed(4)]) == Backoff()


def test_the_pod_of_an_index_hands_its_failures_on() -> None:
    wanted = indexed(5, backoffLimitPerIndex=3)
    wanted.metadata.uid = "u"
    first = new_pod(wanted, 4, None)
    counts = {key: value for key, value in first.metadata.annotations.items() if "failure" in key}
    assert counts == {"batch.kubernetes.io/job-index-failure-count": "0"}
    assert backoff_of_index(None).left_s(NOON_S) == 0
    first.metadata.creation_timestamp = pod().metadata.creation_timestamp
    assert backoff_of_index(first).left_s(NOON_S) == 10
    second = new_pod(wanted, 4, first)
    assert second.metadata.annotations["batch.kubernetes.io/job-index-failure-count"] == "1"


def test_a_long_name_is_cut_before_the_index() -> None:
    wanted = indexed(200)
    wanted.metadata.name, wanted.metadata.uid = "n" * 59, "u"
    made = new_pod(wanted, 123, None)
    assert made.metadata.generate_name == "n" * 53 + "-123-"
    assert made.metadata.finalizers == [TRACKING]


def test_the_template_stays_as_it_is() -> None:
    wanted = indexed(2)
    wanted.metadata.uid = "u"
    before = msgspec.json.encode(wanted)
    new_pod(wanted, 1, None)
    new_pod(job(), None, None)
    assert msgspec.json.encode(wanted) == before
