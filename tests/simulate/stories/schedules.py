"""Users of CronJobs."""

from __future__ import annotations

from collections.abc import Iterator

from knarr.api.batch.v1 import CronJob, Job
from knarr.api.core.v1 import Pod
from tests.simulate.objects import is_going, is_terminal, job_end
from tests.simulate.stories.story import Story

POLICIES = ("Allow", "Forbid", "Replace")


class CronJobStory(Story):
    """A CronJob for some minutes: some of its Jobs take longer than a minute, some fail."""

    kinds = (CronJob, Job)

    async def play(self) -> None:
        chance = self.chance
        self.there = True
        self.kept = {"Complete": chance.choice((0, 1, 3)), "Failed": chance.choice((0, 1))}
        image = chance.choice(("works", "works", "fails", "lasts", "lasts"))
        template = self.template(image, restartPolicy="Never")
        labels = template["metadata"]
        spec = {
            "schedule": chance.choice(("* * * * *", "* * * * *", "*/2 * * * *")),
            "concurrencyPolicy": chance.choice(POLICIES),
            "startingDeadlineSeconds": chance.choice((None, None, 30)),
            "successfulJobsHistoryLimit": self.kept["Complete"],
            "failedJobsHistoryLimit": self.kept["Failed"],
            "jobTemplate": {"metadata": labels, "spec": {"backoffLimit": 0, "template": template}},
        }
        await self.create(CronJob, {"spec": {name: value for name, value in spec.items() if value is not None}})
        steps = (self._hurry, self._pause, self._lose_a_job, self.trouble_a_pod, self._allow, self._end)
        for _ in range(chance.randint(1, 3)):
            await self.world.clock.sleep(chance.uniform(10, 110))
            await chance.choice(steps)()
            if not self.there:
                return
        await self.world.clock.sleep(chance.uniform(10, 70))
        await self.patch(CronJob, {"spec": {"suspend": True}})

    async def _hurry(self) -> None:
        await self.patch(CronJob, {"spec": {"schedule": self.chance.choice(("* * * * *", "*/2 * * * *"))}})

    async def _allow(self) -> None:
        await self.patch(CronJob, {"spec": {"concurrencyPolicy": self.chance.choice(POLICIES)}})

    async def _pause(self) -> None:
        await self.patch(CronJob, {"spec": {"suspend": True}})
        await self.world.clock.sleep(self.chance.uniform(1, 70))
        await self.patch(CronJob, {"spec": {"suspend": False}})

    async def _lose_a_job(self) -> None:
        jobs = self.own(Job)
        if jobs:
            await self.delete(Job, name=self.chance.choice(sorted(each.metadata.name for each in jobs)))

    async def _end(self) -> None:
        self.there = False
        await self.delete(CronJob, self.chance.choice(("Background", "Foreground")))

    def wrong(self) -> Iterator[str]:
        if not self.there:
            yield from self.nothing_left(Job, Pod)
            return
        cron_job = self.get(CronJob)
        if cron_job is None:
            yield f"CronJob {self.name} is not there"
            return
        jobs = self.own(Job)
        for kind, most in self.kept.items():
            kept = [each for each in jobs if job_end(each) == kind]
            if len(kept) > most:
                yield f"{self.name} keeps {len(kept)} Jobs that are {kind}, not {most}"
        for job in jobs:
            if not job_end(job) or is_going(job):
                yield f"Job {job.metadata.name} has not ended"
        if cron_job.status.active:
            yield f"{self.name} says that {[each.name for each in cron_job.status.active]} are active"
        ended = [each.status.completion_time for each in jobs if job_end(each) == "Complete"]
        last = cron_job.status.last_successful_time
        if ended and (last is None or last < max(ended)):
            yield f"{self.name} says that it succeeded {last} the last time"
        for pod in self.own(Pod):
            if not is_terminal(pod):
                yield f"{pod.metadata.name} is left"
