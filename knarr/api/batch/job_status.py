"""What the status of a Job may say, and how it may change: whoever runs the Job keeps to it (KEP-4368).

A Job ends once: what is counted never shrinks, a final condition stays, and Complete and Failed exclude each other.
"""

from __future__ import annotations

from collections.abc import Iterable

from knarr.api.batch.indexes import first_overlap, parse_indexes
from knarr.api.batch.job_spec import is_indexed
from knarr.api.batch.v1 import Job, JobSpec, JobStatus, UncountedTerminatedPods
from knarr.api.core.validate_values import validate_not_negative
from knarr.api.errors import Cause, duplicate, invalid, required

EXCLUSIVE = (
    ("Complete", "Failed", "Complete=True and Failed=true"),
    ("Complete", "FailureTarget", "Complete=True and FailureTarget=true"),
    ("SuccessCriteriaMet", "Failed", "SuccessCriteriaMet=True and Failed=true"),
    ("SuccessCriteriaMet", "FailureTarget", "SuccessCriteriaMet=True and FailureTarget=true"),
)


def condition_is_true(status: JobStatus, kind: str) -> bool:
    return any(condition.type == kind and condition.status == "True" for condition in status.conditions)


def is_finished(status: JobStatus) -> bool:
    return condition_is_true(status, "Complete") or condition_is_true(status, "Failed")


def validate_job_status(job: Job) -> Iterable[Cause]:
    """Faults of a status in itself."""
    status, spec = job.status or JobStatus(), job.spec or JobSpec()
    for field, count in (
        ("active", status.active),
        ("succeeded", status.succeeded),
        ("failed", status.failed),
        ("ready", status.ready),
        ("terminating", status.terminating),
    ):
        yield from validate_not_negative(count, f"status.{field}")
    uncounted = status.uncounted_terminated_pods or UncountedTerminatedPods()
    yield from _validate_uncounted(uncounted)
    yield from _validate_conditions(status)
    yield from _validate_times(status)
    if is_finished(status):
        if status.active:
            yield invalid("status.active", status.active, "active>0 is invalid for finished job")
        if status.start_time is None and not spec.suspend:
            yield required("status.startTime", "startTime is required for finished job")
        if uncounted.failed or uncounted.succeeded:
            detail = "uncountedTerminatedPods needs to be empty for finished job"
            yield invalid("status.uncountedTerminatedPods", uncounted, detail)
        if status.terminating:
            yield invalid("status.terminating", status.terminating, "terminating>0 is invalid for finished job")
    yield from _validate_indexes(status, spec)
    if status.ready is not None and status.ready > (status.active or 0):
        yield invalid("status.ready", status.ready, "cannot set more ready pods than active")


def validate_job_status_change(job: Job, old: Job) -> Iterable[Cause]:
    """Faults of how a status follows another."""
    status, before = job.status or JobStatus(), old.status or JobStatus()
    for kind in ("Failed", "Complete", "FailureTarget"):
        if condition_is_true(before, kind) and not condition_is_true(status, kind):
            yield _conditions(f"cannot disable the terminal {kind}=True condition")
    if (status.failed or 0) < (before.failed or 0):
        yield invalid("status.failed", status.failed or 0, "cannot decrease the failed counter")
    spec = job.spec or JobSpec()
    scalable = is_indexed(spec) and spec.completions == spec.parallelism
    if (status.succeeded or 0) < (before.succeeded or 0) and not scalable:
        yield invalid("status.succeeded", status.succeeded or 0, "cannot decrease the succeeded counter")
    if status.completion_time and before.completion_time and status.completion_time != before.completion_time:
        yield invalid("status.completionTime", status.completion_time, "completionTime cannot be mutated")
    suspended = bool(job.spec and job.spec.suspend)
    resumed = condition_is_true(before, "Suspended") and not condition_is_true(status, "Suspended")
    if before.start_time and status.start_time != before.start_time and not (suspended or resumed):
        yield required("status.startTime", "startTime cannot be removed for unsuspended job")
    met = condition_is_true(status, "SuccessCriteriaMet")
    if condition_is_true(before, "SuccessCriteriaMet") and not met:
        yield _conditions("cannot disable the SuccessCriteriaMet=True condition")
    elif met and condition_is_true(before, "Complete") and not condition_is_true(before, "SuccessCriteriaMet"):
        yield _conditions("cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions")


def _conditions(detail: str) -> Cause:
    """Upstream names no value here."""
    return Cause("FieldValueInvalid", "status.conditions", f"Invalid value: {detail}")


def _validate_uncounted(uncounted: UncountedTerminatedPods) -> Iterable[Cause]:
    seen: set[str] = set()
    for field, uids in (("succeeded", uncounted.succeeded), ("failed", uncounted.failed)):
        for index, uid in enumerate(uids):
            path = f"status.uncountedTerminatedPods.{field}[{index}]"
            if not uid:
                yield invalid(path, uid, "must not be empty")
            elif uid in seen:
                yield duplicate(path, uid)
            seen.add(uid)


def _validate_conditions(status: JobStatus) -> Iterable[Cause]:
    for one, other, both in EXCLUSIVE:
        if condition_is_true(status, one) and condition_is_true(status, other):
            yield _conditions(f"cannot set {both} conditions")
    if condition_is_true(status, "Failed") and not condition_is_true(status, "FailureTarget"):
        yield _conditions("cannot set Failed=True condition without the FailureTarget=true condition")
    if condition_is_true(status, "Complete") and not condition_is_true(status, "SuccessCriteriaMet"):
        yield _conditions("cannot set Complete=True condition without the SuccessCriteriaMet=true condition")


def _validate_times(status: JobStatus) -> Iterable[Cause]:
    path, complete = "status.completionTime", condition_is_true(status, "Complete")
    if status.completion_time and not complete:
        detail = "cannot set completionTime when there is no Complete=True condition"
        yield invalid(path, status.completion_time, detail)
    if complete and status.completion_time is None:
        yield required(path, "completionTime is required for Complete jobs")
    if status.start_time and status.completion_time and status.completion_time < status.start_time:
        yield invalid(path, status.completion_time, "completionTime cannot be set before startTime")


def _validate_indexes(status: JobStatus, spec: JobSpec) -> Iterable[Cause]:
    parsed: dict[str, list[tuple[int, int]]] = {}
    completed, failed, completions = status.completed_indexes or "", status.failed_indexes, spec.completions
    for field, written in (("completedIndexes", completed), ("failedIndexes", failed)):
        if completions is None or written is None:
            continue
        if field == "failedIndexes" and spec.backoff_limit_per_index is None:
            continue
        try:
            parsed[field] = parse_indexes(written, completions)
        except ValueError as fault:
            yield invalid(f"status.{field}", written, f"error parsing {field}: {fault}")
    if completed and not is_indexed(spec):
        detail = "cannot set non-empty completedIndexes when non-indexed completion mode"
        yield invalid("status.completedIndexes", completed, detail)
    if failed is not None and spec.backoff_limit_per_index is None:
        detail = "cannot set non-null failedIndexes when backoffLimitPerIndex is null"
        yield invalid("status.failedIndexes", failed, detail)
    if len(parsed) == 2:
        overlap = first_overlap(parsed["completedIndexes"], parsed["failedIndexes"])
        if overlap is not None:
            detail = f"failedIndexes and completedIndexes overlap at index: {overlap}"
            yield invalid("status.failedIndexes", failed, detail)
