"""Jobs that have ended go after their time: spec.ttlSecondsAfterFinished (KEP-592)."""

from __future__ import annotations

from knarr.api.batch.job_status import is_finished
from knarr.api.batch.v1 import Job, JobStatus
from knarr.api.errors import NotFound
from knarr.client.controller import Controller
from knarr.client.informer import key_of
from knarr.controllers.pods import seconds


class FinishedJobs(Controller):
    """Deletes each with its pods, in the foreground."""

    name = "ttl-after-finished-controller"
    needs = (Job,)

    def watch(self) -> None:
        self.jobs = self.informer(Job)
        self.on_change(self.jobs, self._key_of_job)

    async def reconcile(self, key: str) -> float | None:
        job = self.jobs.get(key)
        left_s = until_gone_s(job, self.clock.time_s()) if job else None
        if job is None or left_s is None or left_s > 0:
            return left_s
        name, namespace = job.metadata.name or "", job.metadata.namespace
        try:
            live = await self.client.get(Job, name, namespace)
            left_s = until_gone_s(live, self.clock.time_s())
            if live.metadata.uid != job.metadata.uid or left_s is None or left_s > 0:
                return left_s
            await self.client.delete(Job, name, namespace, propagation_policy="Foreground", uid=job.metadata.uid)
        except NotFound:
            pass
        return None

    def _key_of_job(self, old: Job | None, new: Job | None) -> str | None:
        return key_of(new) if new is not None and until_gone_s(new, 0.0) is not None else None


def until_gone_s(job: Job, now_s: float) -> float | None:
    """Seconds until a Job that has ended is to be deleted; None if it is to stay, or is being deleted."""
    status, ttl_s = job.status or JobStatus(), job.spec.ttl_seconds_after_finished if job.spec else None
    if ttl_s is None or job.metadata.deletion_timestamp is not None or not is_finished(status):
        return None
    ends = [one.last_transition_time for one in status.conditions if one.type in ("Complete", "Failed")]
    return max((seconds(end) for end in ends if end), default=now_s) + ttl_s - now_s
