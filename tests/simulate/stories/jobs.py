"""Users of Jobs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from knarr.api.batch.v1 import Job
from knarr.api.core.v1 import Pod
from knarr.api.errors import APIError
from tests.simulate.objects import is_over, is_terminal, job_end, phase
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


class EndingStory(Story):
    """Jobs that say how they end: by success and failure policies, by index, by a deadline; and when they go."""

    kinds = (Job,)

    async def play(self) -> None:
        chance = self.chance
        self.completions = chance.randint(2, 5)
        ways = (
            self._expires,
            self._fails_at_once,
            self._ignores,
            self._succeeds_early,
            self._by_index,
            self._in_time,
        )
        self.way = chance.choice(ways)
        image, spec = self.way()
        written = {"completions": self.completions, "parallelism": chance.randint(1, 3), "backoffLimit": 20}
        template = self.template(image, restartPolicy="Never")
        await self.create(Job, {"spec": written | spec | {"template": template}})
        if self.way not in (self._ignores, self._by_index):
            for _ in range(chance.randint(0, 2)):
                await self.rest()
                await self.trouble_a_pod()

    def _expires(self) -> tuple[str, dict[str, Any]]:
        self.ends = {""}
        return "works", {"ttlSecondsAfterFinished": self.chance.choice((0, 3, 10))}

    def _fails_at_once(self) -> tuple[str, dict[str, Any]]:
        self.ends = {"Complete", "PodFailurePolicy"}
        return "flaky", {"podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": ERROR}]}}

    def _ignores(self) -> tuple[str, dict[str, Any]]:
        self.ends = {"Complete"}
        disrupted = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
        rules = [{"action": "Ignore", "onExitCodes": ERROR}, disrupted]
        return "flaky", {"podFailurePolicy": {"rules": rules}, "backoffLimit": 0}

    def _succeeds_early(self) -> tuple[str, dict[str, Any]]:
        self.ends = {"Complete"}
        self.least = self.chance.randint(1, self.completions)
        policy = {"rules": [{"succeededCount": self.least}]}
        return self.chance.choice(("works", "flaky")), {"completionMode": "Indexed", "successPolicy": policy}

    def _by_index(self) -> tuple[str, dict[str, Any]]:
        self.ends = {"Complete", "FailedIndexes"}
        return "flaky", {"completionMode": "Indexed", "backoffLimitPerIndex": 0, "backoffLimit": 2**31 - 1}

    def _in_time(self) -> tuple[str, dict[str, Any]]:
        self.ends = {"DeadlineExceeded"}
        return "lasts", {"activeDeadlineSeconds": self.chance.choice((3, 8))}

    def wrong(self) -> Iterator[str]:
        job = self.get(Job)
        end = job_end(job) if job is not None else ""
        if end == "Failed":
            (end,) = (each.reason for each in job.status.conditions if each.type == "Failed")
        if end not in self.ends:
            yield f"Job {self.name} ended {end or 'not at all'}, not {sorted(self.ends)}"
        if job is None:
            yield from self.nothing_left(Pod)
            return
        for pod in self.own(Pod):
            if not is_terminal(pod) or pod.metadata.finalizers:
                yield f"{pod.metadata.name} still is {phase(pod)}, held by {pod.metadata.finalizers}"
        status = job.status
        whole = end == "Complete" and self.way not in (self._succeeds_early, self._by_index)
        if whole and status.succeeded != self.completions:
            yield f"Job {self.name} counts {status.succeeded} of {self.completions}"
        if self.way == self._succeeds_early and (status.succeeded or 0) < self.least:
            yield f"Job {self.name} succeeded with {status.succeeded}, not {self.least}"
        if self.way == self._by_index:
            done, failed = indexes(status.completed_indexes), indexes(status.failed_indexes)
            if done & failed or done | failed != set(range(self.completions)):
                yield f"Job {self.name} completed {sorted(done)} and failed {sorted(failed)}"
            if bool(failed) != (end == "FailedIndexes"):
                yield f"Job {self.name} failed {sorted(failed)}, and ended {end}"


ERROR = {"operator": "In", "values": [1]}


def indexes(written: str | None) -> set[int]:
    """Such as 0,2-4."""
    found: set[int] = set()
    for part in filter(None, (written or "").split(",")):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found
