"""Pods that no Job counts any more: the finalizer that kept them for it goes (KEP-2307).

Their Job is gone or has ended, or they belong to none: nothing else would ever let them go.
"""

from __future__ import annotations

from collections.abc import Iterable

from knarr.api.batch.job_status import is_finished
from knarr.api.batch.v1 import Job, JobStatus
from knarr.api.core.v1 import Pod
from knarr.api.errors import NotFound
from knarr.api.meta.owners import controller_of
from knarr.client.controller import Controller
from knarr.client.informer import key_of
from knarr.controllers.job import is_managed_elsewhere, remove_finalizer
from knarr.controllers.job_pods import is_tracked
from knarr.controllers.ownership import owner_index


class JobOrphans(Controller):
    """Keys are those of pods."""

    name = "job-orphans-controller"
    needs = (Job,)

    def watch(self) -> None:
        self.jobs = self.informer(Job)
        self.pods = self.informer(Pod)
        self.pods.add_index("owner", owner_index)
        self.on_change(self.pods, self._key_of_pod)
        self.on_change(self.jobs, self._keys_of_job)

    async def reconcile(self, key: str) -> float | None:
        pod = self.pods.get(key)
        if pod is not None and is_tracked(pod) and await self._is_orphan(pod):
            try:  # as it is seen: a Job may adopt it at this very moment, and count on the finalizer
                await remove_finalizer(self.client, pod, pod.metadata.resource_version)
            except NotFound:
                pass
        return None

    async def _is_orphan(self, pod: Pod) -> bool:
        """A Job that the cache doesn't show may have come a moment ago: that it is gone, the API server must say."""
        if not self._looks_orphaned(pod):
            return False
        reference = controller_of(pod)
        if reference is None or self._job_of(pod) is not None:
            return True
        try:
            job = await self.client.get(Job, reference.name, pod.metadata.namespace)
        except NotFound:
            return True
        return job.metadata.uid != reference.uid

    def _looks_orphaned(self, pod: Pod) -> bool:
        reference = controller_of(pod)
        if reference is None:
            return True
        if (reference.kind, reference.api_version) != ("Job", "batch/v1"):
            return False
        job = self._job_of(pod)
        return job is None or (is_finished(job.status or JobStatus()) and not is_managed_elsewhere(job))

    def _job_of(self, pod: Pod) -> Job | None:
        reference = controller_of(pod)
        job = self.jobs.get(f"{pod.metadata.namespace}/{reference.name}") if reference else None
        return job if job and reference and job.metadata.uid == reference.uid else None

    def _key_of_pod(self, old: Pod | None, new: Pod | None) -> str | None:
        return key_of(new) if new is not None and is_tracked(new) and self._looks_orphaned(new) else None

    def _keys_of_job(self, old: Job | None, new: Job | None) -> Iterable[str]:
        """The pods of a Job that has gone or ended."""
        jobs = [job for job in (old, new) if job is not None]
        if new is not None and not is_finished(new.status or JobStatus()) and len({j.metadata.uid for j in jobs}) == 1:
            return ()
        return [key_of(pod) for job in jobs for pod in self.pods.by_index("owner", job.metadata.uid or "")]
