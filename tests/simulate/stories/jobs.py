"""Users of Jobs."""

from __future__ import annotations

from collections.abc import Iterator

from knarr.api.batch.v1 import Job
from knarr.api.core.v1 import Pod
from knarr.api.errors import APIError
from tests.simulate.objects import is_over, is_terminal, phase
from tests.simulate.stories.story import POLICIES, Story


class JobStory(Story):
    kinds = (Job,)

    async def play(self) -> None:
        chance = self.chance
        self.there = True
        self.completions = chance.randint(1, 5)
        self.indexed = chance.random() < 0.4
        self.image = chance.choice(("works", "works", "flaky", "fails"))
        spec = {
            "completions": self.completions,
            "parallelism": chance.randint(1, 3),
            "backoffLimit": 1 if self.image == "fails" else 20,
            "completionMode": "Indexed" if self.indexed else "NonIndexed",
            "template": self.template(self.image, restartPolicy="Never"),
        }
        if chance.random() < 0.2:
            spec["podReplacementPolicy"] = "Failed"
        await self.create(Job, {"spec": spec})
        for _ in range(chance.randint(0, 3)):
            await self.rest()
            await chance.choice((self._parallel, self._suspend, self.trouble_a_pod, self._end))()
            if not self.there:
                return

    async def _parallel(self) -> None:
        await self.patch(Job, {"spec": {"parallelism": self.chance.randint(1, 4)}})

    async def _suspend(self) -> None:
        try:
            await self.patch(Job, {"spec": {"suspend": True}})
            await self.rest()
            await self.patch(Job, {"spec": {"suspend": False}})
        except APIError as error:
            self.tell(f"refused: {error}")

    async def _end(self) -> None:
        self.there = False
        await self.delete(Job, self.chance.choice(POLICIES[:2]))

    def wrong(self) -> Iterator[str]:
        if not self.there:
            yield from self.nothing_left(Pod)
            return
        job = self.get(Job)
        if job is None or not is_over(job):
            yield f"Job {self.name} has not ended"
            return
        ends = {each.type for each in job.status.conditions if each.status == "True"}
        wanted = "Failed" if self.image == "fails" else "Complete"
        if wanted not in ends:
            yield f"Job {self.name} ended {ends}, not {wanted}"
        if wanted == "Complete" and job.status.succeeded != self.completions:
            yield f"Job {self.name} counts {job.status.succeeded} of {self.completions}"
        if self.indexed and wanted == "Complete":
            every = f"0-{self.completions - 1}" if self.completions > 2 else ",".join(map(str, range(self.completions)))
            if job.status.completed_indexes != every:
                yield f"Job {self.name} says {job.status.completed_indexes}, not {every}"
        counted = job.status.uncounted_terminated_pods
        if job.status.active or (counted and (counted.succeeded or counted.failed)):
            yield f"Job {self.name} has {job.status.active} active, {counted} uncounted"
        for pod in self.own(Pod):
            if not is_terminal(pod):
                yield f"{pod.metadata.name} still is {phase(pod)}"
            if pod.metadata.finalizers:
                yield f"{pod.metadata.name} is held by {pod.metadata.finalizers}"
