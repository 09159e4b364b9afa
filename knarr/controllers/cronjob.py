"""CronJobs: start a Job at each time of a schedule, and keep the last few.

The name of a Job is made of the time that it is for, so that no time runs twice, whatever fails between the creation of
the Job and the note in the status. Behaviour and events are those of upstream's cronjob_controllerv2.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from knarr.api.batch.job_status import condition_is_true, is_finished
from knarr.api.batch.v1 import CronJob, CronJobStatus, Job, JobSpec, JobStatus
from knarr.api.core.v1 import ObjectReference
from knarr.api.errors import AlreadyExists, APIError, NotFound
from knarr.api.meta.owners import controller_of, owner_reference
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.types import replace
from knarr.client.controller import Controller, is_namespace_terminating
from knarr.client.informer import key_of
from knarr.clock import utc
from knarr.controllers.cron_times import (
    MANY_MISSED,
    NeverRuns,
    Timetable,
    UnknownZone,
    missed,
    timetable_of,
    until_next_s,
    zone_of,
)
from knarr.controllers.ownership import owner_index

SCHEDULED = "batch.kubernetes.io/cronjob-scheduled-timestamp"
LATE_S = 0.1
"""Looked at so much after a time, in case clocks are a little apart."""


class CronJobs(Controller):
    """batch/v1 CronJob."""

    name = "cronjob-controller"
    needs = (CronJob, Job)

    def watch(self) -> None:
        self.cron_jobs = self.informer(CronJob)
        self.jobs = self.informer(Job)
        self.jobs.add_index("owner", owner_index)
        self.on_change(self.cron_jobs, self._key_of_cron_job)
        self.on(self.jobs, _key_of_owner)

    async def reconcile(self, key: str) -> float | None:
        cron_job = self.cron_jobs.get(key)
        if cron_job is None:
            return None
        jobs = sorted(self.jobs.by_index("owner", cron_job.metadata.uid or ""), key=lambda job: job.metadata.name or "")
        look = _Look(self, cron_job, jobs)
        again_s, failure = None, None
        try:
            again_s = await look.run()
        except APIError as error:
            failure = error
        if look.status != (cron_job.status or CronJobStatus()):
            await self.client.update_status(replace(cron_job, status=look.status))
        if failure:
            raise failure
        return again_s

    def _key_of_cron_job(self, old: CronJob | None, new: CronJob | None) -> str | None:
        """Another schedule is not looked back with: it begins with its next time."""
        if new is None:
            return None
        if old is None or (old.spec.schedule, old.spec.time_zone) == (new.spec.schedule, new.spec.time_zone):
            return key_of(new)
        try:
            wait_s = until_next_s(new, timetable_of(new), utc(self.clock.time_s()))
        except (ValueError, UnknownZone):
            return key_of(new)
        if wait_s is not None:
            self.queue.add_after(key_of(new), wait_s + LATE_S)
        return None


class _Look:
    """One look at a CronJob and its Jobs; `status` becomes what is to be written."""

    def __init__(self, loop: CronJobs, cron_job: CronJob, jobs: Sequence[Job]) -> None:
        self.loop, self.cron_job, self.jobs = loop, cron_job, jobs
        self.client, self.events = loop.client, loop.events
        self.status = replace(cron_job.status or CronJobStatus())
        self.now = utc(loop.clock.time_s())

    async def run(self) -> float | None:
        await self._keep_history()
        await self._follow_jobs()
        spec, cron_job = self.cron_job.spec, self.cron_job
        if cron_job.metadata.deletion_timestamp is not None:
            return None
        try:
            times = timetable_of(cron_job)
        except UnknownZone as zone:
            message = f'invalid timeZone: "{zone}": unknown time zone {zone}'
            self.events.warning(cron_job, "UnknownTimeZone", message)
            return None
        except ValueError as fault:
            message = f'unparseable schedule: "{spec.schedule}" : {fault}'
            self.events.warning(cron_job, "UnparseableSchedule", message)
            return None
        if spec.suspend:
            return None
        if "TZ" in spec.schedule:
            self.events.warning(
                cron_job,
                "UnsupportedSchedule",
                f'CRON_TZ or TZ used in schedule "{spec.schedule}" is not officially supported, see '
                "https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details",
            )
        try:
            time = self._due(times)
        except NeverRuns as fault:
            self.events.warning(cron_job, "InvalidSchedule", f"invalid schedule: {spec.schedule} : {fault}")
            return None
        if time is not None and self._may_start(time) and not await self._start(time):
            return None
        wait_s = until_next_s(replace(cron_job, status=self.status), times, self.now)
        return None if wait_s is None else wait_s + LATE_S - (self.loop.clock.time_s() - self.now.timestamp())

    # The Jobs that there are

    async def _keep_history(self) -> None:
        """Of those that have ended, the oldest go when there are too many."""
        spec = self.cron_job.spec
        for kind, limit in (
            ("Complete", spec.successful_jobs_history_limit),
            ("Failed", spec.failed_jobs_history_limit),
        ):
            ended = [job for job in self.jobs if condition_is_true(job.status or JobStatus(), kind)]
            if limit is not None:
                ended.sort(key=_begun)
                for job in ended[: max(0, len(ended) - limit)]:
                    if job.metadata.deletion_timestamp is None:
                        await self._delete(job)

    async def _follow_jobs(self) -> None:
        known = {reference.uid for reference in self.status.active}
        for job in self.jobs:
            status, uid = job.status or JobStatus(), job.metadata.uid
            if uid not in known and not is_finished(status):
                if job.metadata.deletion_timestamp is None and (time := _scheduled(job)):
                    self._note(job, time)  # it was made, and the loop died before it could say so
                    continue
                message = f"Saw a job that the controller did not create or forgot: {job.metadata.name}"
                self.events.warning(self.cron_job, "UnexpectedJob", message)
            elif uid in known and is_finished(status):
                self._forget(uid)
                ended = "Complete" if condition_is_true(status, "Complete") else "Failed"
                message = f"Saw completed job: {job.metadata.name}, condition: {ended}"
                self.events.normal(self.cron_job, "SawCompletedJob", message)
            if condition_is_true(status, "Complete") and status.completion_time:
                last = self.status.last_successful_time
                if last is None or status.completion_time > last:
                    self.status.last_successful_time = status.completion_time
        there = {job.metadata.uid for job in self.jobs}
        for reference in self.status.active:
            if reference.uid not in there and not await self._exists(reference):
                self.events.normal(self.cron_job, "MissingJob", f"Active job went missing: {reference.name}")
                self._forget(reference.uid)

    async def _exists(self, reference: ObjectReference) -> bool:
        """As the API server says: the cache may not show it yet."""
        try:
            await self.client.get(Job, reference.name or "", reference.namespace)
        except NotFound:
            return False
        return True

    def _forget(self, uid: str | None) -> None:
        self.status.active = [reference for reference in self.status.active if reference.uid != uid]

    async def _delete(self, job: Job) -> None:
        name = job.metadata.name or ""
        try:
            await self.client.delete(Job, name, job.metadata.namespace, propagation_policy="Background")
        except APIError as error:
            self.events.warning(self.cron_job, "FailedDelete", f"Deleted job: {error}")
            if not isinstance(error, NotFound):
                raise
        else:
            self.events.normal(self.cron_job, "SuccessfulDelete", f"Deleted job {name}")
        self._forget(job.metadata.uid)

    # The next one

    def _due(self, times: Timetable) -> datetime | None:
        """The time to start a Job for, if one has come. Raises NeverRuns."""
        found = missed(self.cron_job, times, self.now, deadline=True)
        if found.last is not None and found.count > MANY_MISSED:
            message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
            self.events.warning(self.cron_job, "TooManyMissedTimes", message)
        return found.last

    def _may_start(self, time: datetime) -> bool:
        spec, status = self.cron_job.spec, self.status
        deadline_s = spec.starting_deadline_seconds
        if deadline_s is not None and self.now - time > timedelta(seconds=deadline_s):
            message = f"Missed scheduled time to start a job: {time.strftime('%a, %d %b %Y %H:%M:%S +0000')}"
            self.events.warning(self.cron_job, "MissSchedule", message)
            return False
        name = _job_name(self.cron_job, time)
        if any(reference.name == name for reference in status.active) or status.last_schedule_time == time:
            return False
        if spec.concurrency_policy == "Forbid" and status.active:
            message = "Not starting job because prior execution is running and concurrency policy is Forbid"
            self.events.normal(self.cron_job, "JobAlreadyActive", message)
            return False
        return True

    async def _start(self, time: datetime) -> bool:
        """Whether the Job for `time` is this CronJob's, and noted."""
        if self.cron_job.spec.concurrency_policy == "Replace":
            for reference in self.status.active:
                await self._replace(reference)
        job = _new_job(self.cron_job, time)
        try:
            made = await self.client.create(job)
        except AlreadyExists:
            made = await self.client.get(Job, job.metadata.name or "", job.metadata.namespace)
            owner = controller_of(made)
            if owner is None or owner.uid != self.cron_job.metadata.uid:
                return False
        except APIError as error:
            if not is_namespace_terminating(error):
                self.events.warning(self.cron_job, "FailedCreate", f"Error creating job: {error}")
            raise
        else:
            self.events.normal(self.cron_job, "SuccessfulCreate", f"Created job {made.metadata.name}")
        self._note(made, time)
        return True

    def _note(self, job: Job, time: datetime) -> None:
        self.status.active = [*self.status.active, _reference(job)]
        self.status.last_schedule_time = max(time, self.status.last_schedule_time or time)

    async def _replace(self, reference: ObjectReference) -> None:
        try:
            job = await self.client.get(Job, reference.name or "", reference.namespace)
        except APIError as error:
            self.events.warning(self.cron_job, "FailedGet", f"Get job: {error}")
            raise
        await self._delete(job)


def _new_job(cron_job: CronJob, time: datetime) -> Job:
    template = cron_job.spec.job_template
    metadata = template.metadata or ObjectMeta()
    written = time.astimezone(zone_of(cron_job)).isoformat().replace("+00:00", "Z")
    return Job(
        metadata=ObjectMeta(
            name=_job_name(cron_job, time),
            namespace=cron_job.metadata.namespace,
            labels=dict(metadata.labels),
            annotations={**metadata.annotations, SCHEDULED: written},
            owner_references=[owner_reference(cron_job)],
        ),
        spec=template.spec or JobSpec(),
    )


def _scheduled(job: Job) -> datetime | None:
    """The time that this loop has made a Job for; None if somebody else made it."""
    try:
        time = datetime.fromisoformat(job.metadata.annotations.get(SCHEDULED, ""))
    except ValueError:
        return None
    ours = (job.metadata.name or "").endswith(f"-{int(time.timestamp()) // 60}") and time.tzinfo is not None
    return time.astimezone(UTC) if ours else None


def _job_name(cron_job: CronJob, time: datetime) -> str:
    return f"{cron_job.metadata.name}-{int(time.timestamp()) // 60}"


def _reference(job: Job) -> ObjectReference:
    metadata = job.metadata
    return ObjectReference(
        api_version=job.api_version,
        kind=job.kind,
        namespace=metadata.namespace,
        name=metadata.name,
        uid=metadata.uid,
        resource_version=metadata.resource_version,
    )


def _begun(job: Job) -> tuple[bool, float, str]:
    """Those that never began come last."""
    start = job.status.start_time if job.status else None
    return start is None, start.timestamp() if start else 0.0, job.metadata.name or ""


def _key_of_owner(job: Any) -> str | None:
    reference = controller_of(job)
    return f"{job.metadata.namespace}/{reference.name}" if reference and reference.kind == "CronJob" else None
