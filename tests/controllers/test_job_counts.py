"""No pod of a Job is lost or counted twice, whatever fails between any two writes.

Each seed is a Job of its own. Its pods succeed, fail and are deleted at random; writes of the loop are refused, others
are done but their answer is lost, other people write to the Job as well, and again and again the loop dies before or
after a write and begins anew with empty caches. What happened to each pod is read from the history of the pods.
"""

from __future__ import annotations

import asyncio
import os
import random
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from knarr.api.batch.indexes import count_indexes, read_indexes
from knarr.api.batch.job_status import is_finished
from knarr.api.batch.v1 import Job, JobStatus
from knarr.api.core.pod_state import is_active, is_terminal, phase
from knarr.api.core.v1 import Namespace, Pod, ServiceAccount
from knarr.api.errors import APIError
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.registry import built_in
from knarr.apiserver.reconcile_roles import reconcile_roles
from knarr.apiserver.server import APIServer, InProcessTransport
from knarr.client.client import MERGE_PATCH, Client
from knarr.client.informer import Informer, Informers
from knarr.client.transport import User
from knarr.clock import Clock
from knarr.controllers.job import Jobs
from knarr.controllers.job_orphans import JobOrphans
from knarr.simulate.clock import VirtualClock, run
from knarr.store.memory import MemoryStore
from tests.controllers.jobs import TRACKING, index, job
from tests.controllers.trouble import Trouble

SEEDS = int(os.environ.get("SEEDS", "60"))
MASTERS = ("system:masters", "system:authenticated")
RUN_MAX_S = 40_000.0
"""Of virtual time: failures that follow each other wait for ten minutes each."""


@dataclass
class History:
    """What the API server's history tells of each pod: how it ended first, while it was still to be counted."""

    replaced_when_failed: bool
    ends: dict[str, str] = field(default_factory=dict)
    going: dict[str, str] = field(default_factory=dict)
    """Deleted, where that alone is no failure: it is one if the Job fails before they have ended."""
    uids: dict[str, int] = field(default_factory=dict)
    """All pods that there ever were, with their index."""
    failed_before: int = 0
    succeeded_before: int = 0

    def of_pod(self, old: Pod | None, new: Pod | None) -> None:
        if new is None or new.metadata.uid is None:
            return
        self.uids[new.metadata.uid] = index(new)
        if TRACKING not in new.metadata.finalizers or new.metadata.uid in self.ends:
            return
        if is_terminal(new):
            self.ends[new.metadata.uid] = phase(new)
        elif new.metadata.deletion_timestamp is not None:
            (self.going if self.replaced_when_failed else self.ends)[new.metadata.uid] = "Failed"

    def of_job(self, old: Job | None, new: Job | None) -> None:
        status = (new.status if new else None) or JobStatus()
        assert (status.succeeded or 0) >= self.succeeded_before
        assert (status.failed or 0) >= self.failed_before
        self.succeeded_before, self.failed_before = status.succeeded or 0, status.failed or 0

    def failed(self) -> int:
        return sum(end == "Failed" for end in self.ends.values())

    def succeeded(self) -> int:
        """An index that had two pods, as the answer to the creation of one was lost, counts once."""
        uids = [uid for uid, end in self.ends.items() if end == "Succeeded"]
        return len({self.uids[uid] if self.uids[uid] >= 0 else uid for uid in uids})


class World:
    """The server, a Job, those who end its pods, and the loop that dies."""

    def __init__(self, clock: Clock, seed: int) -> None:
        self.clock, self.chance = clock, random.Random(seed)
        self.server = APIServer(MemoryStore(), built_in(), clock)
        self.client = Client(InProcessTransport(self.server), built_in(), User("admin", MASTERS))
        self.trouble = Trouble(self.server, clock, self.chance, lossy=self.chance.random() < 0.4)
        self.spec: dict[str, Any] = {
            "parallelism": self.chance.randint(1, 5),
            "completions": self.chance.randint(1, 8),
            "backoffLimit": self.chance.choice((3, 1000, 1000)),
            "podReplacementPolicy": self.chance.choice(("Failed", "TerminatingOrFailed")),
            "completionMode": self.chance.choice(("Indexed", "NonIndexed")),
        }
        self.restless = self.chance.random() < 0.3
        """Others suspend and resume the Job, and change how many pods may run."""
        if self.spec["completionMode"] == "Indexed" and self.chance.random() < 0.4:
            self.spec |= {"backoffLimit": 1000, "backoffLimitPerIndex": self.chance.randint(0, 2)}
        self.history = History(self.spec["podReplacementPolicy"] == "Failed")

    async def run(self) -> Job:
        for name in ("default", "kube-system", "kube-public"):
            await self.client.create(Namespace(metadata=ObjectMeta(name=name)))
        await self.client.create(ServiceAccount(metadata=ObjectMeta(name="default", namespace="default")))
        await reconcile_roles(self.client)
        own = Informers(self.client, self.clock)
        self.pods: Informer[Pod] = own.of(Pod)
        self.jobs: Informer[Job] = own.of(Job)
        self.pods.add_handler(self.history.of_pod)
        self.jobs.add_handler(self.history.of_job)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(part) for part in (own.run(), self._nodes(), self._others(), self._loops())]
            await own.synced()
            await self.client.create(job(**self.spec))
            while not (found := await self.client.get(Job, "work", "default")).status or not is_finished(found.status):
                await self.clock.sleep(1)
                self._check_number()
                assert self.clock.monotonic_s() < RUN_MAX_S, msgspec.to_builtins(found.status)
            self.trouble.quiet = True
            await self.clock.sleep(100)
            for task in tasks:
                task.cancel()
        return found

    def _check_number(self) -> None:
        """Never more pods than may be; an answer that is lost may cost one that is taken back."""
        if not self.trouble.lossy and not self.restless:
            assert sum(map(is_active, self.pods.all())) <= self.spec["parallelism"]

    async def _nodes(self) -> None:
        """Pods come to their end, or are deleted by somebody."""
        while True:
            await self.clock.sleep(self.chance.uniform(0, 3))
            pods = [pod for pod in self.pods.all() if not is_terminal(pod)]
            if not pods:
                continue
            pod = self.chance.choice(pods)
            going = pod.metadata.deletion_timestamp is not None
            end = "Failed" if going else self.chance.choice(("Succeeded", "Succeeded", "Failed", "deleted"))
            name, version = pod.metadata.name or "", pod.metadata.resource_version
            try:
                if end == "deleted":
                    await self.client.delete(Pod, name, "default", resource_version=version)
                else:
                    patch = {"metadata": {"resourceVersion": version}, "status": {"phase": end}}
                    await self.client.patch(Pod, name, patch, "default", subresource="status")
            except APIError:
                continue

    async def _others(self) -> None:
        while True:
            await self.clock.sleep(self.chance.uniform(0, 5))
            patch: dict[str, Any] = {"metadata": {"annotations": {"note": str(self.chance.random())}}}
            if self.restless:
                patch["spec"] = self.chance.choice(({"suspend": True}, {"suspend": False}, {"parallelism": 2}))
            try:
                await self.client.patch(Job, "work", patch, "default", content_type=MERGE_PATCH)
            except APIError:
                continue

    async def _loops(self) -> None:
        while True:
            client = self.trouble.client("job-controller")
            informers = Informers(client, self.clock)
            loops = (Jobs(client, informers, self.clock), JobOrphans(client, informers, self.clock))
            await self.trouble.until_death((*loops, informers))


@pytest.mark.parametrize("seed", range(SEEDS))
def test_every_pod_counts_once(seed: int) -> None:
    async def main(clock: VirtualClock) -> None:
        world = World(clock, seed)
        found = await world.run()
        status, history = found.status, world.history
        assert status is not None
        if status.completion_time is None:
            history.ends = history.going | history.ends
        told = (status.succeeded or 0, status.failed or 0)
        assert told == (history.succeeded(), history.failed()), (world.spec, history.ends)
        assert status.uncounted_terminated_pods is not None
        assert not status.uncounted_terminated_pods.failed
        assert not status.uncounted_terminated_pods.succeeded
        assert not status.active
        assert all(TRACKING not in pod.metadata.finalizers for pod in world.pods.all())
        if status.completion_time and world.spec["completionMode"] == "Indexed":
            completions = world.spec["completions"]
            assert count_indexes(read_indexes(status.completed_indexes, completions)) == completions
        if not world.trouble.lossy and not world.restless:
            assert history.uids.keys() == history.ends.keys()

    run(main, seed)
