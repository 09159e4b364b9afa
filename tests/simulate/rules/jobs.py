"""Jobs count right."""

from __future__ import annotations

from collections import defaultdict

from knarr.api.batch.v1 import Job
from knarr.api.core.v1 import Pod
from tests.simulate.objects import (
    is_going,
    is_over,
    is_terminal,
    most_running,
    phase,
)
from tests.simulate.rules.rule import Broken, Past, Rule
from tests.simulate.world import Change, State


class Counting(Rule):
    """A Job counts each pod once, never counts back, and runs no more than parallelism."""

    kinds = (Pod, Job)

    def __init__(self, state: State, past: Past) -> None:
        super().__init__(state, past)
        self.succeeded: dict[str, dict[str, float]] = defaultdict(dict)
        """By uid of the Job: its pods that have succeeded, and since when."""
        self.failed: dict[str, set[str]] = defaultdict(set)
        self.ended: set[str] = set()

    def check(self, change: Change) -> None:
        if change.kind is Pod:
            self._pod(change)
        elif change.new is not None:
            self._job(change)

    def _pod(self, change: Change) -> None:
        pod = change.new or change.old
        job = self.owner_of(Job, pod)
        if job is None or job.spec is None:
            return
        uid, job_uid = pod.metadata.uid or "", job.metadata.uid or ""
        if phase(pod) == "Succeeded":
            self.succeeded[job_uid].setdefault(uid, change.now_s)
        elif phase(pod) == "Failed" or is_going(pod) or change.new is None:
            self.failed[job_uid].add(uid)
        counts = change.new is None and is_terminal(pod) and not is_over(job) and not is_going(job)
        if counts and not job.spec.pod_failure_policy:  # which may say that a failure does not count
            counted = job.status.uncounted_terminated_pods if job.status else None
            listed = {*(counted.succeeded if counted else ()), *(counted.failed if counted else ())}
            tally = ((job.status.succeeded or 0) + (job.status.failed or 0) if job.status else 0) + len(listed)
            gone = {
                each
                for each in self.failed[job_uid].union(self.succeeded[job_uid])
                if each in self.past.gone_s and each in self.ended
            }
            if tally < len(gone):
                raise Broken(f"{len(gone)} pods have ended and are gone, {tally} are counted")
        if is_terminal(pod):
            self.ended.add(uid)
        if change.part == "job-controller" and change.old is None and self.past.certain:
            running = [each for each in self.pods_of(job) if not is_terminal(each) and not is_going(each)]
            most = max(most_running(each) for each in self.past.known(job, change.now_s))
            if len(running) > most:
                raise Broken(f"{len(running)} pods run, at most {most}")

    def _job(self, change: Change) -> None:
        job, before = change.new, change.old.status if change.old else None
        status, uid = job.status, job.metadata.uid
        if status is None:
            return
        for name, seen in (("succeeded", self.succeeded[uid]), ("failed", self.failed[uid])):
            count = getattr(status, name) or 0
            if before and count < (getattr(before, name) or 0):
                raise Broken(f"{name} fell to {count}")
            if count > len(seen):
                raise Broken(f"{name} is {count}, {len(seen)} pods did")
        ended = any(each.type == "Complete" and each.status == "True" for each in status.conditions)
        long_ago = [each for each, at_s in self.succeeded[uid].items() if at_s < change.now_s - self.past.slack_s]
        if ended and not (before and is_over(change.old)) and len(long_ago) > (status.succeeded or 0):
            raise Broken(f"{len(long_ago)} pods have succeeded, {status.succeeded} are counted")
