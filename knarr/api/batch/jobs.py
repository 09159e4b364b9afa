"""Jobs: pods that run until enough of them have succeeded. Defaults, what may change, and how they are shown.

Follows upstream's SetDefaults_Job, its strategy (pkg/registry/batch/job) and ValidateJob. A Job finds its pods by a
selector that is made of its own UID, unless its author insists on one of his own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from knarr.api import names
from knarr.api.batch.job_spec import default_failure_policy, is_indexed, validate_job_spec
from knarr.api.batch.job_status import condition_is_true, validate_job_status, validate_job_status_change
from knarr.api.batch.v1 import Job, JobSpec, JobStatus
from knarr.api.core.pod_warnings import template_warnings
from knarr.api.core.podspec import default_template
from knarr.api.core.templates import (
    age_column,
    labels_of,
    selector_column,
    template_columns,
    validate_selected,
)
from knarr.api.core.v1 import Affinity, PodSpec, PodTemplateSpec
from knarr.api.core.validate_values import validate_selector
from knarr.api.errors import Cause, invalid, required
from knarr.api.meta.owners import selector_for
from knarr.api.meta.v1 import LabelSelector, ObjectMeta
from knarr.api.printing import human_duration
from knarr.api.resources import Column, Strategy
from knarr.api.types import replace

JOB_NAME = "batch.kubernetes.io/job-name"
CONTROLLER_UID = "batch.kubernetes.io/controller-uid"
NAME_LABELS = ("job-name", JOB_NAME)
UID_LABELS = ("controller-uid", CONTROLLER_UID)
"""Set on the pods: the older spelling first."""
BACKOFF_LIMIT = 6
BACKOFF_LIMIT_MAX = 2**31 - 1
MANY_COMPLETIONS, MUCH_PARALLELISM = 100_000, 10_000
"""Above both, status.completedIndexes may grow too long to be kept."""


class JobRules(Strategy[Job]):
    has_status = True
    has_generation = True
    field_names = ("status.successful",)

    def default(self, obj: Job) -> None:
        spec = obj.spec = obj.spec or JobSpec()
        default_template(spec.template)
        if spec.completions is None and spec.parallelism is None:
            spec.completions = 1
        spec.parallelism = 1 if spec.parallelism is None else spec.parallelism
        if spec.backoff_limit is None:
            spec.backoff_limit = BACKOFF_LIMIT if spec.backoff_limit_per_index is None else BACKOFF_LIMIT_MAX
        spec.completion_mode = spec.completion_mode or "NonIndexed"
        spec.suspend = bool(spec.suspend)
        spec.manual_selector = bool(spec.manual_selector)
        default_failure_policy(spec)
        if spec.pod_replacement_policy is None:
            spec.pod_replacement_policy = "Failed" if spec.pod_failure_policy else "TerminatingOrFailed"
        obj.metadata.labels = obj.metadata.labels or dict(labels_of(spec.template))

    def prepare_for_create(self, obj: Job) -> None:
        _generate_selector(obj)

    def renamed(self, obj: Job, before: str) -> None:
        for labels in (labels_of(obj.spec.template if obj.spec else None), obj.metadata.labels):
            for label in NAME_LABELS:
                if labels.get(label) == before:
                    labels[label] = obj.metadata.name or ""

    def validate(self, obj: Job) -> Iterable[Cause]:
        spec = obj.spec or JobSpec()
        yield from _validate_generated_selector(obj, spec)
        yield from validate_job_spec(spec, "spec")
        if spec.selector is None:
            yield required("spec.selector")
        else:
            yield from validate_selector(spec.selector, "spec.selector")
            yield from validate_selected(spec.template, spec.selector, "spec.template")

    def validate_create(self, obj: Job) -> Iterable[Cause]:
        """The index is put behind the Job's name to name the host of each pod."""
        spec, name = obj.spec or JobSpec(), obj.metadata.name or ""
        if is_indexed(spec) and spec.completions and spec.completions > 0:
            longest = f"{name}-{spec.completions - 1}"
            if names.dns1123_label_faults(longest):
                yield invalid("metadata.name", name, f"will not able to create pod with invalid DNS label: {longest}")

    def validate_update(self, obj: Job, old: Job) -> Iterable[Cause]:
        spec, before = obj.spec or JobSpec(), old.spec or JobSpec()
        yield from _validate_completions(spec, before)
        if spec.selector != before.selector:
            yield invalid("spec.selector", spec.selector, "field is immutable")
        if _compared(spec.template) != _compared(_changeable(spec.template, old)):
            yield invalid("spec.template", spec.template, "field is immutable")
        for field, value, kept in (
            ("completionMode", spec.completion_mode, before.completion_mode),
            ("podFailurePolicy", spec.pod_failure_policy, before.pod_failure_policy),
            ("backoffLimitPerIndex", spec.backoff_limit_per_index, before.backoff_limit_per_index),
            ("managedBy", spec.managed_by, before.managed_by),
            ("successPolicy", spec.success_policy, before.success_policy),
        ):
            if value != kept:
                yield invalid(f"spec.{field}", value, "field is immutable")

    def validate_status_update(self, obj: Job, old: Job) -> Iterable[Cause]:
        """What is wrong already may stay so: older servers let it in."""
        standing = set(validate_job_status(old))
        yield from (fault for fault in validate_job_status(obj) if fault not in standing)
        yield from validate_job_status_change(obj, old)

    def fields(self, obj: Job) -> Mapping[str, str]:
        return {"status.successful": str((obj.status.succeeded if obj.status else 0) or 0)}

    def warnings(self, obj: Job, old: Job | None) -> Iterable[str]:
        if old is None:
            yield from name_warnings(obj.metadata.name or "")
        yield from job_spec_warnings(obj.spec or JobSpec(), "spec")
        if old is None or obj.metadata.generation != old.metadata.generation:
            yield from template_warnings(obj.spec.template if obj.spec else None, "spec.template")


def name_warnings(name: str) -> Iterable[str]:
    """A name that may be, but is too long, or has dots, for a host."""
    if faults := names.dns1123_label_faults(name):
        yield (
            "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS "
            f"label is recommended: [{' '.join(faults)}]"
        )


def job_spec_warnings(spec: JobSpec, path: str) -> Iterable[str]:
    if (
        is_indexed(spec)
        and (spec.completions or 0) > MANY_COMPLETIONS
        and (spec.parallelism or 0) > MUCH_PARALLELISM
        and spec.backoff_limit_per_index is None
    ):
        yield (
            f"{path}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4,"
            " Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
        )


def _generate_selector(job: Job) -> None:
    """Labels that no other Job's pods have, and a selector for them. What the user set stands, to be refused later."""
    spec, metadata = job.spec, job.metadata
    if spec is None or spec.manual_selector:
        return
    template = spec.template.metadata = spec.template.metadata or ObjectMeta()
    for label in NAME_LABELS:
        template.labels.setdefault(label, metadata.name or "")
    for label in UID_LABELS:
        template.labels.setdefault(label, metadata.uid or "")
    selector = spec.selector = spec.selector or LabelSelector()
    selector.match_labels.setdefault(CONTROLLER_UID, metadata.uid or "")
    # Upstream lets a Job without labels share those of its template, the generated ones as well.
    before = {key: value for key, value in template.labels.items() if key not in (*NAME_LABELS, *UID_LABELS)}
    if not metadata.labels or metadata.labels == before:
        metadata.labels = dict(template.labels)


def _validate_generated_selector(job: Job, spec: JobSpec) -> Iterable[Cause]:
    if spec.manual_selector or spec.selector is None:
        return
    labels = labels_of(spec.template)
    expected = dict.fromkeys(UID_LABELS, job.metadata.uid or "") | dict.fromkeys(NAME_LABELS, job.metadata.name or "")
    for label in (*UID_LABELS[:1], *NAME_LABELS[:1], *UID_LABELS[1:], *NAME_LABELS[1:]):
        path = "spec.template.metadata.labels"
        if label not in labels:
            yield required(f"{path}[{label}]", f'must be "{expected[label]}"')
        elif labels[label] != expected[label]:
            yield invalid(f"{path}[{label}]", labels, f'must be "{expected[label]}"')
    parsed = selector_for(spec.selector)
    if parsed is not None and not parsed.matches(expected):
        yield invalid("spec.selector", spec.selector, "`selector` not auto-generated")


def _validate_completions(spec: JobSpec, before: JobSpec) -> Iterable[Cause]:
    """They grow and shrink with the parallelism of an indexed Job (KEP-3715), else never."""
    if spec.completions == before.completions:
        return
    if not is_indexed(spec):
        yield invalid("spec.completions", spec.completions, "field is immutable")
    elif spec.completions is not None and spec.completions != spec.parallelism:
        detail = "can only be modified in tandem with spec.parallelism"
        yield invalid("spec.completions", spec.completions, detail)


def _changeable(template: PodTemplateSpec, old: Job) -> PodTemplateSpec:
    """The old template with what of the new one may differ.

    While a Job is suspended, where its pods may go can change before it has ever started (KEP-2926), and what they
    take once none of them runs any more (KEP-5440).
    """
    before = (old.spec or JobSpec()).template
    status = old.status or JobStatus()
    if not (old.spec and old.spec.suspend):
        return before
    new, spec = template.spec or PodSpec(), before.spec or PodSpec()
    stopped = condition_is_true(status, "Suspended") and not status.active
    if status.start_time is None or stopped:
        metadata, kept = template.metadata or ObjectMeta(), before.metadata or ObjectMeta()
        spec = replace(
            spec,
            affinity=_with_node_affinity(spec.affinity, new.affinity),
            node_selector=new.node_selector,
            tolerations=new.tolerations,
            scheduling_gates=new.scheduling_gates,
        )
        before = replace(before, metadata=replace(kept, annotations=metadata.annotations, labels=metadata.labels))
        for field in ("containers", "init_containers"):
            containers, theirs = getattr(spec, field), getattr(new, field)
            if len(containers) == len(theirs):
                changed = [
                    replace(one, resources=other.resources) for one, other in zip(containers, theirs, strict=True)
                ]
                spec = replace(spec, **{field: changed})
    return replace(before, spec=spec)


def _with_node_affinity(old: Affinity | None, new: Affinity | None) -> Affinity | None:
    if new is None:
        rest = replace(old, node_affinity=None) if old else None
        return None if rest == Affinity() else rest
    return replace(old or Affinity(), node_affinity=new.node_affinity)


def _compared(template: PodTemplateSpec) -> PodTemplateSpec:
    return replace(template, metadata=template.metadata or ObjectMeta())


# How it is shown


def _status(job: Job, now_s: float) -> str:
    status = job.status or JobStatus()
    for finished in ("Complete", "Failed"):
        if condition_is_true(status, finished):
            return finished
    if job.metadata.deletion_timestamp:
        return "Terminating"
    for condition in ("Suspended", "FailureTarget", "SuccessCriteriaMet"):
        if condition_is_true(status, condition):
            return condition
    return "Running"


def _completions(job: Job, now_s: float) -> str:
    spec = job.spec or JobSpec()
    succeeded = (job.status.succeeded if job.status else 0) or 0
    if spec.completions is not None:
        return f"{succeeded}/{spec.completions}"
    parallelism = spec.parallelism or 0
    return f"{succeeded}/1 of {parallelism}" if parallelism > 1 else f"{succeeded}/1"


def _duration(job: Job, now_s: float) -> str:
    status = job.status or JobStatus()
    if status.start_time is None:
        return ""
    end_s = status.completion_time.timestamp() if status.completion_time else now_s
    return human_duration(end_s - status.start_time.timestamp())


JOB_COLUMNS = (
    Column("Status", _status),
    Column("Completions", _completions),
    Column("Duration", _duration),
    age_column(),
    *template_columns(lambda job: job.spec.template if job.spec else None),
    selector_column(lambda job: job.spec.selector if job.spec else None),
)
