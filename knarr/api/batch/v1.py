"""The types of the API group batch, v1; knarr.api.types tells how to read a field."""

from __future__ import annotations

from typing import Annotated

from knarr.api.core.v1 import ObjectReference, PodTemplateSpec
from knarr.api.meta.v1 import LabelSelector, ObjectMeta
from knarr.api.types import Int32, Int64, Merge, Struct, Time, always


class JobTemplateSpec(Struct):
    metadata: ObjectMeta | None = None
    spec: JobSpec | None = None


class CronJobSpec(Struct):
    concurrency_policy: str | None = None
    failed_jobs_history_limit: Int32 | None = None
    job_template: JobTemplateSpec = always(JobTemplateSpec)
    schedule: str = always("")
    starting_deadline_seconds: Int64 | None = None
    successful_jobs_history_limit: Int32 | None = None
    suspend: bool | None = None
    time_zone: str | None = None


class CronJob(Struct):
    api_version: str = always("batch/v1")
    kind: str = always("CronJob")
    metadata: ObjectMeta = always(ObjectMeta)
    spec: CronJobSpec = always(CronJobSpec)
    status: CronJobStatus | None = None


class CronJobStatus(Struct):
    active: list[ObjectReference] = []
    last_schedule_time: Time | None = None
    last_successful_time: Time | None = None


class Job(Struct):
    api_version: str = always("batch/v1")
    kind: str = always("Job")
    metadata: ObjectMeta = always(ObjectMeta)
    spec: JobSpec | None = None
    status: JobStatus | None = None


class JobCondition(Struct):
    last_probe_time: Time | None = None
    last_transition_time: Time | None = None
    message: str | None = None
    reason: str | None = None
    status: str = always("")
    type: str = always("")


class JobSpec(Struct):
    active_deadline_seconds: Int64 | None = None
    backoff_limit: Int32 | None = None
    backoff_limit_per_index: Int32 | None = None
    completion_mode: str | None = None
    completions: Int32 | None = None
    managed_by: str | None = None
    manual_selector: bool | None = None
    max_failed_indexes: Int32 | None = None
    parallelism: Int32 | None = None
    pod_failure_policy: PodFailurePolicy | None = None
    pod_replacement_policy: str | None = None
    selector: LabelSelector | None = None
    success_policy: SuccessPolicy | None = None
    suspend: bool | None = None
    template: PodTemplateSpec = always(PodTemplateSpec)
    ttl_seconds_after_finished: Int32 | None = None


class JobStatus(Struct):
    active: Int32 | None = None
    completed_indexes: str | None = None
    completion_time: Time | None = None
    conditions: Annotated[list[JobCondition], Merge(patch_key="type", strategy=("merge",))] = []
    failed: Int32 | None = None
    failed_indexes: str | None = None
    ready: Int32 | None = None
    start_time: Time | None = None
    succeeded: Int32 | None = None
    terminating: Int32 | None = None
    uncounted_terminated_pods: UncountedTerminatedPods | None = None


class PodFailurePolicy(Struct):
    rules: list[PodFailurePolicyRule] = always([])


class PodFailurePolicyOnExitCodesRequirement(Struct):
    container_name: str | None = None
    operator: str = always("")
    values: Annotated[list[Int32], Merge("set")] = always([])


class PodFailurePolicyOnPodConditionsPattern(Struct):
    status: str | None = None
    type: str = always("")


class PodFailurePolicyRule(Struct):
    action: str = always("")
    on_exit_codes: PodFailurePolicyOnExitCodesRequirement | None = None
    on_pod_conditions: list[PodFailurePolicyOnPodConditionsPattern] = []


class SuccessPolicy(Struct):
    rules: list[SuccessPolicyRule] = always([])


class SuccessPolicyRule(Struct):
    succeeded_count: Int32 | None = None
    succeeded_indexes: str | None = None


class UncountedTerminatedPods(Struct):
    failed: Annotated[list[str], Merge("set")] = []
    succeeded: Annotated[list[str], Merge("set")] = []
