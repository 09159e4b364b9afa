"""CronJobs: Jobs by the clock. Defaults, what they may say, and how they are shown.

Follows upstream's SetDefaults_CronJob and ValidateCronJob; time zones are KEP-3140.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from knarr.api.batch.job_spec import default_failure_policy, validate_job_spec
from knarr.api.batch.jobs import job_spec_warnings, name_warnings
from knarr.api.batch.schedule import parse_schedule
from knarr.api.batch.v1 import CronJob, CronJobSpec, JobSpec
from knarr.api.core.pod_warnings import template_warnings
from knarr.api.core.podspec import default_template
from knarr.api.core.templates import age_column, selector_column, template_columns
from knarr.api.core.validate_values import validate_not_negative
from knarr.api.errors import Cause, invalid, not_supported, required
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.printing import NONE, UNSET, age
from knarr.api.resources import Column, Strategy

CONCURRENCY_POLICIES = ("Allow", "Forbid", "Replace")
NAME_LENGTH_MAX = 52
"""Its Jobs are named with 11 characters more, and they name pods."""
_ZONE_PART = re.compile(r"[A-Za-z._0-9+][A-Za-z.\-_0-9+]{0,13}")
"""A step of a time zone's name: https://data.iana.org/time-zones/theory.html#naming, and the older POSIX-like ones."""


class CronJobRules(Strategy[CronJob]):
    has_status = True
    has_generation = True

    def default(self, obj: CronJob) -> None:
        spec = obj.spec
        spec.concurrency_policy = spec.concurrency_policy or "Allow"
        spec.suspend = bool(spec.suspend)
        if spec.successful_jobs_history_limit is None:
            spec.successful_jobs_history_limit = 3
        if spec.failed_jobs_history_limit is None:
            spec.failed_jobs_history_limit = 1
        template = spec.job_template
        template.metadata = template.metadata or ObjectMeta()
        template.spec = template.spec or JobSpec()
        default_template(template.spec.template)
        default_failure_policy(template.spec)

    def validate_create(self, obj: CronJob) -> Iterable[Cause]:
        yield from _validate(obj.spec, None)
        name = obj.metadata.name or ""
        if len(name) > NAME_LENGTH_MAX:
            yield invalid("metadata.name", name, f"must be no more than {NAME_LENGTH_MAX} characters")

    def validate_update(self, obj: CronJob, old: CronJob) -> Iterable[Cause]:
        return _validate(obj.spec, old.spec)

    def warnings(self, obj: CronJob, old: CronJob | None) -> Iterable[str]:
        if old is None:
            yield from name_warnings(obj.metadata.name or "")
        yield from job_spec_warnings(obj.spec.job_template.spec or JobSpec(), "spec.jobTemplate.spec")
        spec = obj.spec.job_template.spec
        if old is None or obj.metadata.generation != old.metadata.generation:
            yield from template_warnings(spec.template if spec else None, "spec.jobTemplate.spec.template")
        if "TZ" in obj.spec.schedule:
            yield (
                "CRON_TZ or TZ used in spec.schedule is not officially supported, see https://kubernetes.io/docs/"
                "concepts/workloads/controllers/cron-jobs/ for more details"
            )


def _validate(spec: CronJobSpec, old: CronJobSpec | None) -> Iterable[Cause]:
    if not spec.schedule:
        yield required("spec.schedule")
    else:
        yield from _validate_schedule(spec, zone_allowed=old is not None and "TZ" in old.schedule)
    yield from validate_not_negative(spec.starting_deadline_seconds, "spec.startingDeadlineSeconds")
    if spec.time_zone is not None and (old is None or spec.time_zone != old.time_zone):
        yield from _validate_zone(spec.time_zone, "spec.timeZone")
    if spec.concurrency_policy not in CONCURRENCY_POLICIES:
        yield not_supported("spec.concurrencyPolicy", spec.concurrency_policy, CONCURRENCY_POLICIES)
    template = spec.job_template.spec or JobSpec()
    yield from validate_job_spec(template, "spec.jobTemplate.spec")
    if template.selector is not None:
        yield invalid("spec.jobTemplate.spec.selector", template.selector, "`selector` will be auto-generated")
    if template.manual_selector:
        yield not_supported("spec.jobTemplate.spec.manualSelector", True, ("nil", "false"), in_order=True)
    yield from validate_not_negative(spec.successful_jobs_history_limit, "spec.successfulJobsHistoryLimit")
    yield from validate_not_negative(spec.failed_jobs_history_limit, "spec.failedJobsHistoryLimit")


def _validate_schedule(spec: CronJobSpec, *, zone_allowed: bool) -> Iterable[Cause]:
    """The zone has a field of its own; one in the schedule is only kept where it has always been."""
    path = "spec.schedule"
    try:
        parse_schedule(spec.schedule)
    except ValueError as fault:
        yield invalid(path, spec.schedule, str(fault))
    if "TZ" not in spec.schedule:
        return
    if not zone_allowed:
        yield invalid(path, spec.schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead")
    elif spec.time_zone is not None:
        yield invalid(path, spec.schedule, "cannot use both timeZone field and TZ or CRON_TZ in schedule")


def _validate_zone(zone: str, path: str) -> Iterable[Cause]:
    if not zone:
        yield invalid(path, zone, "timeZone must be nil or non-empty string")
        return
    if not all(_ZONE_PART.fullmatch(part) and part not in (".", "..") for part in zone.split("/")):
        yield invalid(path, zone, f"unknown time zone {zone}")
        return
    if zone.lower() == "local":
        detail = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
        yield invalid(path, zone, detail)
    if zone != "Local" and not _known(zone):
        yield invalid(path, zone, f"unknown time zone {zone}")


def _known(zone: str) -> bool:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # Few CronJobs name a zone: not loaded before the first.

    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def _suspended(obj: CronJob, now_s: float) -> str:
    return UNSET if obj.spec.suspend is None else str(obj.spec.suspend)


def _last_schedule(obj: CronJob, now_s: float) -> str:
    last = obj.status.last_schedule_time if obj.status else None
    return age(last, now_s) if last else NONE


CRON_JOB_COLUMNS = (
    Column("Schedule", lambda obj, now_s: obj.spec.schedule),
    Column("Timezone", lambda obj, now_s: NONE if obj.spec.time_zone is None else obj.spec.time_zone),
    Column("Suspend", _suspended, type="boolean"),
    Column("Active", lambda obj, now_s: len(obj.status.active) if obj.status else 0, type="integer"),
    Column("Last Schedule", _last_schedule),
    age_column(),
    *template_columns(lambda obj: obj.spec.job_template.spec.template if obj.spec.job_template.spec else None),
    selector_column(lambda obj: obj.spec.job_template.spec.selector if obj.spec.job_template.spec else None),
)
