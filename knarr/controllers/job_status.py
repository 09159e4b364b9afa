"""What a Job's status becomes: pure decisions over a Job and its pods.

Counting takes three steps, so that a pod is counted exactly once whatever fails between them (KEP-2307): the uid of a
pod that has ended is put into status.uncountedTerminatedPods; then the pod's finalizer goes; then the uid becomes one
in a counter. An index of an indexed Job counts once by itself. A Job ends in two steps as well: FailureTarget or
SuccessCriteriaMet as soon as it is decided, Failed or Complete when all its pods have ended and are counted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import msgspec
from msgspec import Struct, field

from knarr.api.batch.indexes import Intervals, count_indexes, has_index, read_indexes, with_indexes, write_indexes
from knarr.api.batch.job_spec import is_indexed
from knarr.api.batch.v1 import Job, JobCondition, JobSpec, JobStatus, UncountedTerminatedPods
from knarr.api.core.pod_state import is_active, is_ready, is_terminal, phase
from knarr.api.core.v1 import Pod
from knarr.api.types import replace
from knarr.clock import utc
from knarr.controllers.job_failure import judge, met_criteria
from knarr.controllers.job_pods import (
    Backoff,
    all_failures_of_index,
    backoff_of_index,
    failures_of_index,
    finished_s,
    index_of,
    is_failed,
    is_tracked,
    replaces_only_failed,
    to_remove,
    valid_index,
)

BURST_MAX = 500
"""Pods created or deleted by one look at a Job."""
UNCOUNTED_MAX = 500
"""Pods counted by one look: so the uids in the status stay below 20 KB."""
FAILURE_TARGET, SUCCESS_CRITERIA_MET = "FailureTarget", "SuccessCriteriaMet"
FINAL = {FAILURE_TARGET: "Failed", SUCCESS_CRITERIA_MET: "Complete"}


class Seen(Struct, frozen=True):
    """A Job and its pods, counted together with what its status doesn't show yet."""

    job: Job
    spec: JobSpec
    status: JobStatus
    pods: Sequence[Pod]
    tracked: frozenset[str]
    """Uids of the pods that have the finalizer."""
    active: Sequence[Pod]
    new_succeeded: Sequence[Pod]
    new_failed: Sequence[Pod]
    succeeded: int
    failed: int
    completed_before: Intervals = field(default_factory=list)
    completed: Intervals = field(default_factory=list)
    failed_indexes: Intervals | None = None
    """None without limits per index."""
    replaced: dict[int, Pod] = field(default_factory=dict)
    """The last failed pod of each index that waits for another. It stays uncounted until that one is there, as the
    number of failures is handed on from it."""

    @property
    def terminating(self) -> int:
        return sum(pod.metadata.deletion_timestamp is not None and not is_terminal(pod) for pod in self.pods)

    @property
    def ready(self) -> int:
        return sum(map(is_ready, self.active))


def look(job: Job, pods: Iterable[Pod], let_go: Collection[str] = ()) -> Seen:
    """`let_go` are uids of pods whose finalizer is gone although they are still shown with it."""
    spec, status = job.spec or JobSpec(), job.status or JobStatus()
    pods = sorted(pods, key=lambda pod: -1 if (index := index_of(pod)) is None else index)
    tracked = frozenset(pod.metadata.uid or "" for pod in pods if is_tracked(pod)).difference(let_go)
    uncounted = status.uncounted_terminated_pods or UncountedTerminatedPods()
    candidates = [pod for pod in pods if pod.metadata.uid in tracked and _is_valid(pod, spec)]
    succeeded = [pod for pod in candidates if phase(pod) == "Succeeded" and pod.metadata.uid not in uncounted.succeeded]
    failed = [pod for pod in candidates if is_failed(pod, spec) and pod.metadata.uid not in uncounted.failed]
    counted = sum(judge(spec.pod_failure_policy, pod).counts for pod in failed)
    seen = Seen(
        job=job,
        spec=spec,
        status=status,
        pods=pods,
        tracked=tracked,
        active=[pod for pod in pods if is_active(pod)],
        new_succeeded=succeeded,
        new_failed=failed,
        succeeded=(status.succeeded or 0) + len(succeeded) + len(uncounted.succeeded),
        failed=(status.failed or 0) + counted + len(uncounted.failed),
    )
    return _with_indexes(seen, candidates) if is_indexed(spec) else seen


def _is_valid(pod: Pod, spec: JobSpec) -> bool:
    return not is_indexed(spec) or valid_index(pod, spec) is not None


def _with_indexes(seen: Seen, candidates: Sequence[Pod]) -> Seen:
    spec, completions = seen.spec, seen.spec.completions or 0
    before = read_indexes(seen.status.completed_indexes, completions)
    completed = with_indexes(before, _indexes(pod for pod in candidates if phase(pod) == "Succeeded"))
    failed_indexes: Intervals | None = None
    replaced: dict[int, Pod] = {}
    if spec.backoff_limit_per_index is not None:
        failed = [pod for pod in candidates if is_failed(pod, spec)]
        known = read_indexes(seen.status.failed_indexes, completions)
        failed_indexes = with_indexes(known, _indexes(pod for pod in failed if _fails_index(pod, spec)))
        active = set(_indexes(seen.active))
        for pod in failed:
            index = index_of(pod) or 0
            over = index in active or has_index(completed, index) or has_index(failed_indexes, index)
            if not over and (index not in replaced or _age(replaced[index]) <= _age(pod)):
                replaced[index] = pod
    return msgspec.structs.replace(
        seen,
        succeeded=count_indexes(completed),
        completed_before=before,
        completed=completed,
        failed_indexes=failed_indexes,
        replaced=replaced,
    )


def _indexes(pods: Iterable[Pod]) -> Iterable[int]:
    return (index for pod in pods if (index := index_of(pod)) is not None)


def _fails_index(pod: Pod, spec: JobSpec) -> bool:
    """Whether this failed pod was the last that its index could have."""
    judgement = judge(spec.pod_failure_policy, pod)
    limit = spec.backoff_limit_per_index or 0
    return judgement.action == "FailIndex" or (judgement.counts and failures_of_index(pod) >= limit)


def _age(pod: Pod) -> tuple[int, float]:
    return all_failures_of_index(pod), finished_s(pod)


# Whether the Job ends


def why_it_ends(seen: Seen, status: JobStatus, now_s: float) -> JobCondition | None:
    """The condition FailureTarget or SuccessCriteriaMet, as it stands or as it is to be set."""
    spec = seen.spec
    for kind in (SUCCESS_CRITERIA_MET, FAILURE_TARGET):
        if standing := _true_condition(status, kind):
            return standing
    failed = (judge(spec.pod_failure_policy, pod) for pod in seen.pods if is_failed(pod, spec))
    if message := next((judgement.message for judgement in failed if judgement.action == "FailJob"), ""):
        return _true(FAILURE_TARGET, "PodFailurePolicy", message, now_s)
    if seen.failed > (spec.backoff_limit or 0) or _restarts_exceed(seen):
        return _true(FAILURE_TARGET, "BackoffLimitExceeded", "Job has reached the specified backoff limit", now_s)
    deadline_in_s = until_deadline_s(spec, status, now_s)
    if deadline_in_s is not None and deadline_in_s <= 0:
        return _true(FAILURE_TARGET, "DeadlineExceeded", "Job was active longer than specified deadline", now_s)
    if seen.failed_indexes is not None:
        failures = count_indexes(seen.failed_indexes)
        if spec.max_failed_indexes is not None and failures > spec.max_failed_indexes:
            message = "Job has exceeded the specified maximal number of failed indexes"
            return _true(FAILURE_TARGET, "MaxFailedIndexesExceeded", message, now_s)
        if failures and failures + seen.succeeded >= (spec.completions or 0):
            return _true(FAILURE_TARGET, "FailedIndexes", "Job has failed indexes", now_s)
    if is_indexed(spec) and (met := met_criteria(spec.success_policy, spec.completions or 0, seen.completed)):
        return _true(SUCCESS_CRITERIA_MET, "SuccessPolicy", met, now_s)
    return None


def why_it_is_complete(seen: Seen, active: int, now_s: float) -> JobCondition | None:
    """Enough have succeeded; without a number of completions one is enough. No pod may be active any more."""
    enough = 1 if seen.spec.completions is None else seen.spec.completions
    if active or seen.succeeded < enough:
        return None
    return _true(SUCCESS_CRITERIA_MET, "CompletionsReached", "Reached expected number of succeeded pods", now_s)


def until_deadline_s(spec: JobSpec, status: JobStatus, now_s: float) -> float | None:
    """Seconds until the Job has been active for too long; None if that can't be. One that is about to be resumed begins
    anew."""
    suspended = spec.suspend or _true_condition(status, "Suspended")
    if spec.active_deadline_seconds is None or status.start_time is None or suspended:
        return None
    return status.start_time.timestamp() + spec.active_deadline_seconds - now_s


def _restarts_exceed(seen: Seen) -> bool:
    """Containers restarted in place count against the limit as pods do."""
    pod_spec, limit = seen.spec.template.spec, seen.spec.backoff_limit or 0
    if pod_spec is None or pod_spec.restart_policy != "OnFailure":
        return False
    restarts = sum(
        container.restart_count
        for pod in seen.pods
        if pod.status and pod.status.phase in ("Running", "Pending")
        for container in (*pod.status.init_container_statuses, *pod.status.container_statuses)
    )
    return restarts >= max(limit, 1)


# What to do about the number of pods


class Step(Struct, frozen=True):
    """Pods to create (of which index, None without), or to delete; or to look again."""

    create: Sequence[int | None] = ()
    delete: Sequence[Pod] = ()
    again_s: float | None = None


def plan(seen: Seen, backoff: Backoff, now_s: float) -> Step:
    """How to come from the active pods to the wanted number."""
    spec, active = seen.spec, len(seen.active)
    wanted = 0 if spec.suspend else _wanted(seen)
    if removed := to_remove(spec, seen.active, max(0, active - wanted)):
        return Step(delete=removed[:BURST_MAX])
    missing = min(wanted - active - (seen.terminating if replaces_only_failed(spec) else 0), BURST_MAX)
    if missing <= 0:
        return Step()
    if spec.backoff_limit_per_index is not None:
        return _per_index(seen, _pending(seen, missing), now_s)
    if wait_s := backoff.left_s(now_s):
        return Step(again_s=wait_s)
    return Step(create=_pending(seen, missing) if is_indexed(spec) else [None] * missing)


def _wanted(seen: Seen) -> int:
    parallelism = 1 if seen.spec.parallelism is None else seen.spec.parallelism
    if seen.spec.completions is None:
        return len(seen.active) if seen.succeeded else parallelism
    return max(0, min(seen.spec.completions - seen.succeeded, parallelism))


def _pending(seen: Seen, count: int) -> list[int]:
    """The first indexes that have neither ended nor a pod."""
    taken = list(_indexes(seen.active))
    if replaces_only_failed(seen.spec):
        going = (pod for pod in seen.pods if pod.metadata.deletion_timestamp is not None and not is_terminal(pod))
        taken += _indexes(going)
    over = with_indexes([*seen.completed, *(seen.failed_indexes or ())], taken)
    completions = seen.spec.completions or 0
    found: list[int] = []
    begin = 0
    for first, last in [*over, (completions, completions)]:
        found += range(begin, min(first, completions, begin + count - len(found)))
        begin = last + 1
        if len(found) >= count:
            break
    return found


def _per_index(seen: Seen, indexes: Iterable[int], now_s: float) -> Step:
    """Each index waits for itself."""
    waits_s = {index: backoff_of_index(seen.replaced.get(index)).left_s(now_s) for index in indexes}
    later = [wait_s for wait_s in waits_s.values() if wait_s]
    now = [index for index, wait_s in waits_s.items() if not wait_s]
    return Step(create=now, again_s=min(later, default=None))


# The status


def started(seen: Seen, now_s: float) -> JobStatus:
    """The status as it stands, begun if the Job may run."""
    status = replace(
        seen.status,
        uncounted_terminated_pods=seen.status.uncounted_terminated_pods or UncountedTerminatedPods(),
    )
    if status.start_time is None and not seen.spec.suspend:
        status = replace(status, start_time=utc(now_s))
    return status


def suspended_or_resumed(status: JobStatus, spec: JobSpec, now_s: float) -> JobStatus:
    """The condition Suspended as spec.suspend has it. A Job that is resumed begins anew to be active."""
    if spec.suspend:
        return with_condition(status, _condition("Suspended", "True", "JobSuspended", "Job suspended", now_s))
    if all(condition.type != "Suspended" for condition in status.conditions):
        return status
    resumed = with_condition(status, _condition("Suspended", "False", "JobResumed", "Job resumed", now_s))
    return resumed if resumed is status else replace(resumed, start_time=utc(now_s))


class Tally(Struct, frozen=True):
    """The status to write before the finalizers of `release` go; `whole` if no pod has to wait for the next look."""

    status: JobStatus
    release: Sequence[Pod]
    whole: bool


def tally(seen: Seen, status: JobStatus, end: JobCondition | None) -> Tally:
    """Put those that have ended among the uncounted. When the Job fails, all its pods have failed."""
    status = settle(status, seen.tracked)
    known = status.uncounted_terminated_pods or UncountedTerminatedPods()
    before = seen.status.uncounted_terminated_pods or UncountedTerminatedPods()
    succeeded, failed = list(known.succeeded), list(known.failed)
    indexed, new_indexes = is_indexed(seen.spec), 0
    release: list[Pod] = []
    whole = True
    for pod in seen.pods:
        uid = pod.metadata.uid or ""
        if uid not in seen.tracked or not _may_go(seen, pod, end):
            continue
        release.append(pod)
        if phase(pod) == "Succeeded" and uid not in before.failed:
            if not indexed:
                succeeded += [uid] if uid not in before.succeeded else []
            elif (index := valid_index(pod, seen.spec)) is not None and not has_index(seen.completed_before, index):
                new_indexes += 1
        elif is_failed(pod, seen.spec) or (end is not None and end.type == FAILURE_TARGET):
            new = uid not in before.failed and _is_valid(pod, seen.spec)
            if new and judge(seen.spec.pod_failure_policy, pod).counts:
                failed.append(uid)
        if len(succeeded) + len(failed) + new_indexes >= UNCOUNTED_MAX:
            whole = False
            break
    status = replace(status, uncounted_terminated_pods=UncountedTerminatedPods(succeeded=succeeded, failed=failed))
    if indexed:
        status = replace(
            status,
            succeeded=count_indexes(seen.completed) or None,
            completed_indexes=write_indexes(seen.completed) or None,
            failed_indexes=None if seen.failed_indexes is None else write_indexes(seen.failed_indexes),
        )
    if end is not None and _true_condition(status, end.type) is None:
        status = with_condition(status, end)
    return Tally(status, release, whole)


def _may_go(seen: Seen, pod: Pod, end: JobCondition | None) -> bool:
    """Whether a pod need not be kept any longer."""
    if seen.job.metadata.deletion_timestamp is not None or end is not None or phase(pod) == "Succeeded":
        return True
    index = index_of(pod)
    waits = index is not None and index in seen.replaced and seen.replaced[index].metadata.uid == pod.metadata.uid
    return is_failed(pod, seen.spec) and not waits


def settle(status: JobStatus, tracked: Collection[str]) -> JobStatus:
    """Count the uncounted whose finalizer is gone."""
    uncounted = status.uncounted_terminated_pods or UncountedTerminatedPods()
    succeeded = [uid for uid in uncounted.succeeded if uid in tracked]
    failed = [uid for uid in uncounted.failed if uid in tracked]
    return replace(
        status,
        succeeded=(status.succeeded or 0) + len(uncounted.succeeded) - len(succeeded) or None,
        failed=(status.failed or 0) + len(uncounted.failed) - len(failed) or None,
        uncounted_terminated_pods=UncountedTerminatedPods(succeeded=succeeded, failed=failed),
    )


def finished(status: JobStatus, end: JobCondition, now_s: float) -> JobStatus:
    """Complete or Failed, if nothing is left to be counted and no pod is on its way out."""
    uncounted = status.uncounted_terminated_pods or UncountedTerminatedPods()
    if uncounted.succeeded or uncounted.failed or status.terminating:
        return status
    final = _true(FINAL[end.type], end.reason, end.message, now_s)
    if final.type == "Complete":
        status = replace(status, completion_time=final.last_transition_time)
    return with_condition(status, final)


# Conditions


def with_condition(status: JobStatus, condition: JobCondition) -> JobStatus:
    """With a condition in place of the one of its type; the same status if it says the same already."""
    for number, old in enumerate(status.conditions):
        if old.type == condition.type:
            if (old.status, old.reason, old.message) == (condition.status, condition.reason, condition.message):
                return status
            changed = [*status.conditions[:number], condition, *status.conditions[number + 1 :]]
            return replace(status, conditions=changed)
    return replace(status, conditions=[*status.conditions, condition])


def _true_condition(status: JobStatus, kind: str) -> JobCondition | None:
    return next((one for one in status.conditions if one.type == kind and one.status == "True"), None)


def _true(kind: str, reason: str | None, message: str | None, now_s: float) -> JobCondition:
    return _condition(kind, "True", reason, message, now_s)


def _condition(kind: str, status: str, reason: str | None, message: str | None, now_s: float) -> JobCondition:
    now = utc(now_s)
    return JobCondition(
        type=kind, status=status, reason=reason, message=message, last_probe_time=now, last_transition_time=now
    )
