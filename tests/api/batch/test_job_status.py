"""The status of Jobs: what it may say, and how it may change."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.batch.made_jobs import indexed, job
from tests.api.made import status_faults

START, LATER = "2026-01-02T03:04:05Z", "2026-01-02T03:05:05Z"


def conditions(*kinds: str) -> dict[str, Any]:
    return {"conditions": [{"type": kind, "status": "True"} for kind in kinds]}


COMPLETE = conditions("SuccessCriteriaMet", "Complete") | {"startTime": START, "completionTime": LATER}
FAILED = conditions("FailureTarget", "Failed") | {"startTime": START}


@pytest.mark.parametrize("status", [{}, COMPLETE, FAILED, {"active": 2, "ready": 1, "startTime": START}])
def test_what_it_may_say(status: dict[str, Any]) -> None:
    assert status_faults("Job", status, spec=job()) == []


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        ({"active": -1}, "active: Invalid value: -1: must be greater than or equal to 0"),
        ({"terminating": -1}, "terminating: Invalid value: -1: must be greater than or equal to 0"),
        ({"ready": 1}, "ready: Invalid value: 1: cannot set more ready pods than active"),
        (
            {"uncountedTerminatedPods": {"succeeded": [""]}},
            'uncountedTerminatedPods.succeeded[0]: Invalid value: "": must not be empty',
        ),
        (
            {"uncountedTerminatedPods": {"succeeded": ["a"], "failed": ["a"]}},
            'uncountedTerminatedPods.failed[0]: Duplicate value: "a"',
        ),
        (
            conditions("Complete") | {"startTime": START, "completionTime": LATER},
            "conditions: Invalid value: cannot set Complete=True condition without the SuccessCriteriaMet=true "
            "condition",
        ),
        (
            conditions("Failed") | {"startTime": START},
            "conditions: Invalid value: cannot set Failed=True condition without the FailureTarget=true condition",
        ),
        (
            conditions("SuccessCriteriaMet", "FailureTarget"),
            "conditions: Invalid value: cannot set SuccessCriteriaMet=True and FailureTarget=true conditions",
        ),
        (
            {"startTime": START, "completionTime": LATER},
            f'completionTime: Invalid value: "{LATER}": cannot set completionTime when there is no '
            "Complete=True condition",
        ),
        (
            conditions("SuccessCriteriaMet", "Complete") | {"startTime": START},
            "completionTime: Required value: completionTime is required for Complete jobs",
        ),
        (
            COMPLETE | {"startTime": LATER, "completionTime": START},
            f'completionTime: Invalid value: "{START}": completionTime cannot be set before startTime',
        ),
        (FAILED | {"active": 1}, "active: Invalid value: 1: active>0 is invalid for finished job"),
        (FAILED | {"terminating": 1}, "terminating: Invalid value: 1: terminating>0 is invalid for finished job"),
        (
            conditions("FailureTarget", "Failed"),
            "startTime: Required value: startTime is required for finished job",
        ),
        (
            FAILED | {"uncountedTerminatedPods": {"failed": ["a"]}},
            'uncountedTerminatedPods: Invalid value: {"failed":["a"]}: '
            "uncountedTerminatedPods needs to be empty for finished job",
        ),
        (
            {"completedIndexes": "0"},
            'completedIndexes: Invalid value: "0": cannot set non-empty completedIndexes when non-indexed '
            "completion mode",
        ),
        (
            {"failedIndexes": "0"},
            'failedIndexes: Invalid value: "0": cannot set non-null failedIndexes when backoffLimitPerIndex is null',
        ),
    ],
)
def test_what_it_may_not_say(status: dict[str, Any], fault: str) -> None:
    assert status_faults("Job", status, spec=job()) == [f"status.{fault}"]


def test_a_job_does_not_end_twice() -> None:
    both = conditions("SuccessCriteriaMet", "Complete", "FailureTarget", "Failed")
    found = status_faults("Job", both | {"startTime": START, "completionTime": LATER}, spec=job())
    assert found[0] == "status.conditions: Invalid value: cannot set Complete=True and Failed=true conditions"


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        (
            {"completedIndexes": "7"},
            'completedIndexes: Invalid value: "7": error parsing completedIndexes: too large index: "7"',
        ),
        (
            {"failedIndexes": "x"},
            'failedIndexes: Invalid value: "x": error parsing failedIndexes: cannot convert string to integer '
            'for index: "x"',
        ),
        (
            {"completedIndexes": "0-2", "failedIndexes": "2"},
            'failedIndexes: Invalid value: "2": failedIndexes and completedIndexes overlap at index: 2',
        ),
    ],
)
def test_what_that_of_an_indexed_job_may_not_say(status: dict[str, Any], fault: str) -> None:
    assert status_faults("Job", status, spec=indexed(backoffLimitPerIndex=1)) == [f"status.{fault}"]


@pytest.mark.parametrize(
    ("before", "status", "fault"),
    [
        (FAILED, {"startTime": START}, "conditions: Invalid value: cannot disable the terminal Failed=True condition"),
        ({}, {"failed": -1}, "failed: Invalid value: -1: must be greater than or equal to 0"),
        ({"failed": 2}, {"failed": 1}, "failed: Invalid value: 1: cannot decrease the failed counter"),
        ({"succeeded": 2}, {"succeeded": 1}, "succeeded: Invalid value: 1: cannot decrease the succeeded counter"),
        (
            COMPLETE,
            COMPLETE | {"completionTime": "2026-01-02T03:06:05Z"},
            'completionTime: Invalid value: "2026-01-02T03:06:05Z": completionTime cannot be mutated',
        ),
        (
            {"startTime": START},
            {"startTime": LATER},
            "startTime: Required value: startTime cannot be removed for unsuspended job",
        ),
        (
            conditions("SuccessCriteriaMet"),
            {},
            "conditions: Invalid value: cannot disable the SuccessCriteriaMet=True condition",
        ),
    ],
)
def test_how_it_may_not_change(before: dict[str, Any], status: dict[str, Any], fault: str) -> None:
    assert f"status.{fault}" in status_faults("Job", status, before, spec=job())


def test_a_suspended_job_starts_anew() -> None:
    assert status_faults("Job", {}, {"startTime": START}, spec=job(suspend=True)) == []


def test_a_job_that_is_resumed_starts_anew() -> None:
    suspended = {"startTime": START, "conditions": [{"type": "Suspended", "status": "True"}]}
    resumed = {"startTime": LATER, "conditions": [{"type": "Suspended", "status": "False"}]}
    assert status_faults("Job", resumed, suspended, spec=job()) == []


def test_a_suspended_job_that_has_nothing_to_do_need_not_have_started() -> None:
    done = {key: value for key, value in COMPLETE.items() if key != "startTime"}
    assert status_faults("Job", done, spec=job(suspend=True, completions=0)) == []


def test_an_indexed_job_that_has_shrunk_loses_successes() -> None:
    fewer = {"succeeded": 1}, {"succeeded": 2}
    assert status_faults("Job", *fewer, spec=indexed(completions=3, parallelism=3)) == []
    assert status_faults("Job", *fewer, spec=indexed(completions=3, parallelism=2)) != []


def test_what_is_wrong_already_keeps_nothing_else_from_changing() -> None:
    wrong = {"active": 1, "ready": 2}
    assert status_faults("Job", wrong | {"succeeded": 1}, wrong, spec=job()) == []
