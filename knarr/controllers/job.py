"""Jobs: run pods until so many of them have succeeded, or too many have failed.

A look at a Job counts its pods together with what is not in its status yet, decides whether the Job ends, creates or
deletes pods, and then counts those that have ended: uids into the status, finalizers off the pods, numbers into the
status. What is decided is in job_status.py; upstream's behaviour is that of pkg/controller/job.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from msgspec import Struct

from knarr.api.batch.job_status import is_finished
from knarr.api.batch.v1 import Job, JobCondition, JobStatus
from knarr.api.core.pod_state import is_ready, is_terminal, phase
from knarr.api.core.v1 import Pod
from knarr.api.errors import APIError, Conflict, NotFound
from knarr.api.meta.owners import selector_for
from knarr.api.types import replace
from knarr.client.client import Client
from knarr.client.controller import Controller, is_namespace_terminating
from knarr.client.informer import key_of
from knarr.controllers.job_pods import TRACKING, Backoff, is_tracked, new_pod
from knarr.controllers.job_status import (
    Seen,
    Step,
    finished,
    look,
    plan,
    settle,
    started,
    suspended_or_resumed,
    tally,
    until_deadline_s,
    why_it_ends,
    why_it_is_complete,
)
from knarr.controllers.ownership import claim, orphans, owner_index, owner_keys
from knarr.controllers.together import slow_start, together
from knarr.figures import Figure

CONTROLLER_NAME = "kubernetes.io/job-controller"
"""What spec.managedBy says, if anything, of a Job that is for this loop."""
HOLD_PER_POD_S = 100e-6
"""A look at n pods costs about n × 10 µs: so it takes no more than a tenth of the time."""


class Change(Struct, frozen=True):
    """What was done about the number of pods."""

    created: int = 0
    deleted: Sequence[Pod] = ()
    error: APIError | None = None


class Jobs(Controller):
    """batch/v1 Job."""

    name = "job-controller"
    needs = (Job,)
    min_interval_s = 0.02

    def watch(self) -> None:
        self.jobs = self.informer(Job)
        self.pods = self.informer(Pod)
        self.pods.add_index("owner", owner_index)
        self._backoffs: dict[str, Backoff] = {}
        """By uid of the Job; built anew from its pods where missing."""
        self._ended: Counter[tuple[str, str, str]] = Counter()
        self._let_go: dict[str, set[str]] = {}
        """By uid of the Job: pods without finalizer that the cache may still show with it, should it be cut off."""
        self.on_change(self.jobs, self._key_of_job)
        self.on(self.pods, owner_keys(self.jobs))

    async def reconcile(self, key: str) -> float | None:
        job = self.jobs.get(key)
        if job is None or job.spec is None or is_managed_elsewhere(job) or is_finished(job.status or JobStatus()):
            return None
        uid = job.metadata.uid or ""
        pods = await self._claim(job)
        self.queue.hold(key, HOLD_PER_POD_S * len(pods))
        seen = look(job, pods, self._still_shown(uid, pods))
        now_s = self.clock.time_s()
        status = started(seen, now_s)
        backoff = self._backoff(uid, seen)
        step, change = Step(), Change()
        end = why_it_ends(seen, status, now_s)
        if end is not None:
            change = await self._delete(job, seen.active)
            if change.error:
                end = None  # it is not over before its pods are
        else:
            if job.metadata.deletion_timestamp is None:
                step = plan(seen, backoff, now_s)
                change = await self._carry_out(seen, step)
            active = len(seen.active) + change.created - len(change.deleted)
            end = why_it_is_complete(seen, active, now_s)
            if end is None and job.metadata.deletion_timestamp is None:
                status = self._suspended_or_resumed(seen, status, now_s)
        await self._track(seen, _with_counts(seen, status, change), end, backoff)
        if change.error:
            raise change.error
        waits_s = (step.again_s, None if end else until_deadline_s(seen.spec, status, now_s))
        return min((wait_s for wait_s in waits_s if wait_s is not None), default=None)

    # What it is about

    async def _claim(self, job: Job) -> list[Pod]:
        assert job.spec is not None
        owned = self.pods.by_index("owner", job.metadata.uid or "")
        loose = self.pods.by_index("owner", orphans(job.metadata.namespace or ""))
        return await claim(self.client, job, selector_for(job.spec.selector), owned, loose, TRACKING)

    def _still_shown(self, uid: str, pods: Iterable[Pod]) -> set[str]:
        """Pods that have lost their finalizer, but are shown with it."""
        if uid not in self._let_go:
            return set()
        shown = {pod.metadata.uid or "" for pod in pods if is_tracked(pod)} & self._let_go.pop(uid)
        if shown:
            self._let_go[uid] = shown
        return shown

    def _backoff(self, uid: str, seen: Seen) -> Backoff:
        before = self._backoffs.get(uid)
        if before is None:
            counted = [pod for pod in seen.pods if pod.metadata.uid not in seen.tracked and is_terminal(pod)]
            there = [pod for pod in counted if pod.metadata.deletion_timestamp is None]
            succeeded = [pod for pod in there if phase(pod) == "Succeeded"]
            before = Backoff().after(succeeded, (pod for pod in there if phase(pod) == "Failed"))
        return before.after(seen.new_succeeded, seen.new_failed)

    # The number of pods

    async def _carry_out(self, seen: Seen, step: Step) -> Change:
        if step.delete:
            return await self._delete(seen.job, step.delete, uncounted=True)
        indexes = iter(step.create)
        created: list[Pod] = []

        async def create() -> APIError | None:
            index = next(indexes)
            replaced = None if index is None else seen.replaced.get(index)
            return await self._create_pod(seen.job, new_pod(seen.job, index, replaced), created)

        error = await slow_start(len(step.create), create)
        return Change(created=len(created), error=error)

    async def _create_pod(self, job: Job, pod: Pod, created: list[Pod]) -> APIError | None:
        try:
            made = await self.client.create(pod)
        except APIError as error:
            if not is_namespace_terminating(error):
                self.events.warning(job, "FailedCreate", f"Error creating: {error}")
            return error
        created.append(made)
        self.events.normal(job, "SuccessfulCreate", f"Created pod: {made.metadata.name}")
        return None

    async def _delete(self, job: Job, pods: Sequence[Pod], *, uncounted: bool = False) -> Change:
        """With `uncounted` they don't count as failed: their finalizer goes first."""
        errors = await together(self._delete_pod(job, pod, uncounted) for pod in pods)
        deleted = [pod for pod, error in zip(pods, errors, strict=True) if error is None]
        return Change(deleted=deleted, error=next(filter(None, errors), None))

    async def _delete_pod(self, job: Job, pod: Pod, uncounted: bool) -> APIError | None:
        """Only as it is seen: one that has ended meanwhile is not to be deleted but counted, as what it has become."""
        name, version = pod.metadata.name or "", pod.metadata.resource_version
        try:
            if uncounted and is_tracked(pod):
                version = await remove_finalizer(self.client, pod, version)
            await self.client.delete(Pod, name, pod.metadata.namespace, uid=pod.metadata.uid, resource_version=version)
        except NotFound:
            return None
        except Conflict as error:
            return error
        except APIError as error:
            self.events.warning(job, "FailedDelete", f"Error deleting: {error}")
            return error
        self.events.normal(job, "SuccessfulDelete", f"Deleted pod: {name}")
        return None

    # The status

    def _suspended_or_resumed(self, seen: Seen, status: JobStatus, now_s: float) -> JobStatus:
        told = suspended_or_resumed(status, seen.spec, now_s)
        if told is not status:
            reason, message = ("Suspended", "Job suspended") if seen.spec.suspend else ("Resumed", "Job resumed")
            self.events.normal(seen.job, reason, message)
        return told

    async def _track(self, seen: Seen, status: JobStatus, end: JobCondition | None, backoff: Backoff) -> None:
        """Count the pods that have ended, and end the Job if it is over."""
        job, uid = seen.job, seen.job.metadata.uid or ""
        counted = tally(seen, status, end)
        job = await self._write(job, counted.status)
        self._backoffs[uid] = backoff
        errors = await together(self._release(pod) for pod in counted.release)
        released = {pod.metadata.uid or "" for pod, error in zip(counted.release, errors, strict=True) if not error}
        if released:
            self._let_go[uid] = self._let_go.get(uid, set()) | released
        status = settle(counted.status, seen.tracked - released)
        if end is not None and counted.whole:
            status = finished(status, end, self.clock.time_s())
        job = await self._write(job, status)
        if is_finished(status):
            self._tell_end(job, status)
        if error := next(filter(None, errors), None):
            raise error

    async def _release(self, pod: Pod) -> APIError | None:
        try:
            await remove_finalizer(self.client, pod)
        except NotFound:
            return None
        except APIError as error:
            return error
        return None

    async def _write(self, job: Job, status: JobStatus) -> Job:
        """Refused if somebody else has changed the Job since it was looked at."""
        if status == job.status:
            return job
        return await self.client.update_status(replace(job, status=status))

    def figures(self) -> Iterator[Figure]:
        text = "Jobs that have ended, by their mode and how."
        labels = "completion_mode", "reason", "result"
        yield Figure("counter", "job_controller_jobs_finished_total", text, labels, self._ended)

    def _tell_end(self, job: Job, status: JobStatus) -> None:
        final = status.conditions[-1]
        failed = final.type == "Failed"
        mode = (job.spec and job.spec.completion_mode) or "NonIndexed"
        self._ended[mode, final.reason or "", "failed" if failed else "succeeded"] += 1
        if failed:
            self.events.warning(job, final.reason or "", final.message or "")
            return
        completions = job.spec.completions if job.spec else None
        if completions is not None and (status.succeeded or 0) > completions:
            message = "Too many succeeded pods running after completion count reached"
            self.events.warning(job, "TooManySucceededPods", message)
        self.events.normal(job, "Completed", "Job completed")

    def _key_of_job(self, old: Job | None, new: Job | None) -> str | None:
        if old is not None and (
            new is None or new.metadata.uid != old.metadata.uid or is_finished(new.status or JobStatus())
        ):
            self._backoffs.pop(old.metadata.uid or "", None)
            self._let_go.pop(old.metadata.uid or "", None)
        return key_of(new) if new is not None else None


def is_managed_elsewhere(job: Job) -> bool:
    """Another controller works on it (KEP-4368)."""
    return job.spec is not None and job.spec.managed_by not in (None, CONTROLLER_NAME)


async def remove_finalizer(client: Client, pod: Pod, version: str | None = None) -> str | None:
    """The version of the pod without it. Raises NotFound, and Conflict for another pod, or another `version` of it."""
    metadata: dict[str, Any] = {"uid": pod.metadata.uid, "$deleteFromPrimitiveList/finalizers": [TRACKING]}
    patch = {"metadata": metadata | ({"resourceVersion": version} if version else {})}
    patched = await client.patch(Pod, pod.metadata.name or "", patch, pod.metadata.namespace)
    return patched.metadata.resource_version


def _with_counts(seen: Seen, status: JobStatus, change: Change) -> JobStatus:
    return replace(
        status,
        active=len(seen.active) + change.created - len(change.deleted) or None,
        ready=seen.ready - sum(map(is_ready, change.deleted)),
        terminating=seen.terminating + len(change.deleted),
    )
