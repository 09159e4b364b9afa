"""The pods of a Job: how one is made, which index it has, when it failed, which can be spared, when the next may come.

Indexed Jobs are KEP-2214, limits per index KEP-3850, the finalizer by which pods are counted KEP-2307, their
replacement KEP-3939.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

from knarr.api.batch.job_spec import is_indexed
from knarr.api.batch.v1 import Job, JobSpec
from knarr.api.core.pod_state import is_ready, phase, ready_condition
from knarr.api.core.v1 import Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod, PodSpec
from knarr.api.types import replace
from knarr.controllers import pods as of_pods
from knarr.controllers.job_failure import judge

TRACKING = "batch.kubernetes.io/job-tracking"
"""The finalizer that keeps a pod until its Job has counted it."""
COMPLETION_INDEX = "batch.kubernetes.io/job-completion-index"
INDEX_FAILURES = "batch.kubernetes.io/job-index-failure-count"
INDEX_FAILURES_IGNORED = "batch.kubernetes.io/job-index-ignored-failure-count"
INDEX_VARIABLE = "JOB_COMPLETION_INDEX"
GENERATED_NAME_LENGTH_MAX = 58
"""Of a generated name, without its five characters of chance."""
COUNT_MAX = 2**31 - 1
BACKOFF_S, BACKOFF_MAX_S = 10.0, 600.0
"""After the first failure, and at most; each failure doubles it."""


def is_tracked(pod: Pod) -> bool:
    """Its Job has not counted it yet."""
    return TRACKING in pod.metadata.finalizers


def index_of(pod: Pod) -> int | None:
    return _number(pod, COMPLETION_INDEX)


def valid_index(pod: Pod, spec: JobSpec) -> int | None:
    """The index of a pod, if the Job (still) has it."""
    index = index_of(pod)
    return index if index is not None and index < (spec.completions or 0) else None


def replaces_only_failed(spec: JobSpec) -> bool:
    """A pod is replaced once it has failed, not as soon as it is being deleted."""
    return spec.pod_replacement_policy == "Failed" or spec.pod_failure_policy is not None


def is_failed(pod: Pod, spec: JobSpec) -> bool:
    """A pod that is being deleted counts as failed too: it may never come to say so itself."""
    if phase(pod) == "Failed":
        return True
    return pod.metadata.deletion_timestamp is not None and phase(pod) != "Succeeded" and not replaces_only_failed(spec)


def finished_s(pod: Pod) -> float:
    """When a pod ended: its last container's end, or the nearest that is known to it."""
    states = [status.state for status in pod.status.container_statuses] if pod.status else []
    ends = [state.terminated.finished_at if state and state.terminated else None for state in states]
    known = [of_pods.seconds(end) for end in ends if end]
    if known and len(known) == len(ends):
        return max(known)
    condition = ready_condition(pod)
    if condition and condition.status == "False" and condition.last_transition_time:
        return of_pods.seconds(condition.last_transition_time)
    metadata = pod.metadata
    if metadata.deletion_timestamp:
        return of_pods.seconds(metadata.deletion_timestamp) - (metadata.deletion_grace_period_seconds or 0)
    return of_pods.seconds(metadata.creation_timestamp) if metadata.creation_timestamp else 0.0


def failures_of_index(pod: Pod) -> int:
    """Of the pods of its index that came before it, those that counted."""
    return min(_number(pod, INDEX_FAILURES) or 0, COUNT_MAX)


def all_failures_of_index(pod: Pod) -> int:
    """Of the pods of its index that came before it, all that failed."""
    return failures_of_index(pod) + min(_number(pod, INDEX_FAILURES_IGNORED) or 0, COUNT_MAX)


def _number(pod: Pod, annotation: str) -> int | None:
    written = pod.metadata.annotations.get(annotation, "")
    return int(written) if written.isascii() and written.isdigit() and len(written) <= 10 else None


# Made


def new_pod(job: Job, index: int | None, replaced: Pod | None) -> Pod:
    """The pod to create; `replaced` is the failed one of the same index."""
    assert job.spec is not None
    pod = of_pods.from_template(job.spec.template, job)
    metadata = pod.metadata
    if TRACKING not in metadata.finalizers:
        metadata.finalizers = [*metadata.finalizers, TRACKING]
    if index is None:
        return pod
    metadata.labels = {**metadata.labels, COMPLETION_INDEX: str(index)}
    metadata.annotations = {**metadata.annotations, COMPLETION_INDEX: str(index)}
    if job.spec.backoff_limit_per_index is not None:
        metadata.annotations |= _failure_counts(job.spec, replaced)
    suffix = f"-{index}-"
    metadata.generate_name = f"{(job.metadata.name or '')[: GENERATED_NAME_LENGTH_MAX - len(suffix)]}{suffix}"
    spec = pod.spec or PodSpec()
    pod.spec = replace(
        spec,
        hostname=f"{job.metadata.name}-{index}",
        containers=_with_index(spec.containers),
        init_containers=_with_index(spec.init_containers),
    )
    return pod


def _failure_counts(spec: JobSpec, replaced: Pod | None) -> dict[str, str]:
    if replaced is None:
        return {INDEX_FAILURES: "0"}
    counted = judge(spec.pod_failure_policy, replaced).counts
    failures = failures_of_index(replaced) + counted
    ignored = all_failures_of_index(replaced) - failures_of_index(replaced) + (not counted)
    return {INDEX_FAILURES: str(failures)} | ({INDEX_FAILURES_IGNORED: str(ignored)} if ignored else {})


def _with_index(containers: Sequence[Container]) -> list[Container]:
    field = ObjectFieldSelector(field_path=f"metadata.labels['{COMPLETION_INDEX}']")
    variable = EnvVar(name=INDEX_VARIABLE, value_from=EnvVarSource(field_ref=field))
    return [
        container
        if any(other.name == INDEX_VARIABLE for other in container.env)
        else replace(container, env=[*container.env, variable])
        for container in containers
    ]


# Spared


def to_remove(spec: JobSpec, active: Sequence[Pod], at_least: int) -> list[Pod]:
    """The active pods that are too many: doubles of an index, those without a valid one, then the least advanced."""
    ranked = sorted(active, key=_rank)
    removed: list[Pod] = []
    if is_indexed(spec):
        kept: dict[int, Pod] = {}
        for pod in reversed(ranked):
            index = valid_index(pod, spec)
            if index is None or index in kept:
                removed.append(pod)
            else:
                kept[index] = pod
        ranked = list(reversed(kept.values()))
    return removed + ranked[: max(0, at_least - len(removed))]


def _rank(pod: Pod) -> tuple[float, ...]:
    """Not on a node, pending, not ready, ready for a shorter time, restarted more often, younger: these go first."""
    condition = ready_condition(pod)
    since = condition.last_transition_time if condition and is_ready(pod) else None
    created = pod.metadata.creation_timestamp
    return (
        bool(pod.spec and pod.spec.node_name),
        {"Pending": 0, "Unknown": 1}.get(phase(pod), 2),
        is_ready(pod),
        -of_pods.seconds(since) if since else float("-inf"),
        *of_pods.restarts(pod),
        -of_pods.seconds(created) if created else float("-inf"),
    )


# Held back


class Backoff(Struct, frozen=True):
    """Failures since the last success, and when the last of them was."""

    failures: int = 0
    last_s: float = 0.0

    def after(self, succeeded: Iterable[Pod], failed: Iterable[Pod]) -> Backoff:
        """With pods that have ended since."""
        ends = sorted(map(finished_s, failed))
        last_success_s = max(map(finished_s, succeeded), default=None)
        if last_success_s is not None:
            ends = [end_s for end_s in ends if end_s > last_success_s]
            return Backoff(len(ends), ends[-1]) if ends else Backoff()
        return Backoff(self.failures + len(ends), ends[-1]) if ends else self

    def left_s(self, now_s: float) -> float:
        """How long the next pod has to wait."""
        if not self.failures:
            return 0.0
        backoff_s = min(BACKOFF_S * 2.0 ** min(self.failures - 1, 30), BACKOFF_MAX_S)
        return max(0.0, self.last_s + backoff_s - now_s)


def backoff_of_index(replaced: Pod | None) -> Backoff:
    """Of the pod that is to replace a failed one of its index."""
    return Backoff(all_failures_of_index(replaced) + 1, finished_s(replaced)) if replaced else Backoff()
