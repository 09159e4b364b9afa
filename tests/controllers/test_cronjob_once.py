"""No time of a CronJob runs twice, and none beside another that it forbids, whatever fails between any two writes."""

from __future__ import annotations

import asyncio
import os
import random

import pytest

from knarr.api.batch.job_status import is_finished
from knarr.api.batch.v1 import CronJob, Job, JobStatus
from knarr.api.core.v1 import Namespace
from knarr.api.errors import APIError
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.registry import built_in
from knarr.apiserver.reconcile_roles import reconcile_roles
from knarr.apiserver.server import APIServer, InProcessTransport
from knarr.client.client import Client
from knarr.client.informer import Informers
from knarr.client.transport import User
from knarr.clock import Clock, utc
from knarr.controllers.cronjob import CronJobs
from knarr.simulate.clock import VirtualClock, run
from knarr.store.memory import MemoryStore
from tests.controllers.test_cronjob import SCHEDULED, cron_job
from tests.controllers.trouble import Trouble

SEEDS = int(os.environ.get("SEEDS", "30"))
RUN_S = 1800.0
MASTERS = ("system:masters", "system:authenticated")


class World:
    """The server, a CronJob that forbids two Jobs at once, those who end its Jobs, and the loop that dies."""

    def __init__(self, clock: Clock, seed: int) -> None:
        self.clock, self.chance = clock, random.Random(seed)
        self.server = APIServer(MemoryStore(), built_in(), clock)
        self.client = Client(InProcessTransport(self.server), built_in(), User("admin", MASTERS))
        self.trouble = Trouble(self.server, clock, self.chance, lossy=self.chance.random() < 0.5)
        self.times: list[str] = []
        self.beside: list[str] = []

    async def run(self) -> CronJob:
        for name in ("default", "kube-system", "kube-public"):
            await self.client.create(Namespace(metadata=ObjectMeta(name=name)))
        await reconcile_roles(self.client)
        own = Informers(self.client, self.clock)
        self.jobs = own.of(Job)
        self.jobs.add_handler(self._note)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(part) for part in (own.run(), self._end_jobs(), self._loops())]
            await own.synced()
            await self.client.create(cron_job("* * * * *", concurrencyPolicy="Forbid"))
            await self.clock.sleep(RUN_S)
            self.trouble.quiet = True
            await self.clock.sleep(600)
            for task in tasks:
                task.cancel()
        return await self.client.get(CronJob, "tick", "default")

    def _note(self, old: Job | None, new: Job | None) -> None:
        if old is None and new is not None:
            self.times.append(new.metadata.annotations[SCHEDULED])
            others = (job for job in self.jobs.all() if job.metadata.uid != new.metadata.uid)
            self.beside += [job.metadata.name or "" for job in others if not is_finished(job.status or JobStatus())]

    async def _end_jobs(self) -> None:
        while True:
            await self.clock.sleep(self.chance.uniform(0, 100))
            for job in self.jobs.all():
                if not is_finished(job.status or JobStatus()):
                    await self._end(job, self.chance.choice(("SuccessCriteriaMet", "FailureTarget")))

    async def _end(self, job: Job, kind: str) -> None:
        now = self.clock.time_s()
        times = {"startTime": _written(now)} | ({"completionTime": _written(now)} if kind[0] == "S" else {})
        final = "Complete" if kind[0] == "S" else "Failed"
        conditions = [{"type": one, "status": "True", "lastTransitionTime": _written(now)} for one in (kind, final)]
        patch = {"status": times | {"conditions": conditions}}
        try:
            await self.client.patch(Job, job.metadata.name or "", patch, "default", subresource="status")
        except APIError:
            pass  # it was deleted

    async def _loops(self) -> None:
        while True:
            client = self.trouble.client("cronjob-controller")
            informers = Informers(client, self.clock)
            await self.trouble.until_death((CronJobs(client, informers, self.clock), informers))


def _written(time_s: float) -> str:
    return utc(time_s).isoformat()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_each_time_runs_once_and_alone(seed: int) -> None:
    async def main(clock: VirtualClock) -> None:
        world = World(clock, seed)
        found = await world.run()
        assert len(world.times) > 10
        assert len(world.times) == len(set(world.times))
        assert world.beside == []
        assert found.status
        unfinished = {job.metadata.uid for job in world.jobs.all() if not is_finished(job.status or JobStatus())}
        assert {reference.uid for reference in found.status.active} == unfinished
        assert len(world.jobs.all()) - len(unfinished) <= 3 + 1
        assert found.status.last_schedule_time
        assert found.status.last_schedule_time.isoformat().replace("+00:00", "Z") == max(world.times)

    run(main, seed)
