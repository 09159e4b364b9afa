"""CronJobs run each of their times once, when it has come, as their policy has it; what ends at a time ends then."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from knarr.api.batch.v1 import CronJob, Job
from knarr.api.core.v1 import Secret
from knarr.simulate.clock import START_S
from tests.simulate.objects import is_going, job_end, owner_uid
from tests.simulate.rules.rule import Broken, Past, Rule, is_deletion
from tests.simulate.world import Change, State

SCHEDULED = "batch.kubernetes.io/cronjob-scheduled-timestamp"
LATE_MAX_S = 8.0
"""How long after its time a Job may come, beside what the weather takes: retries wait longer each time."""


class Schedules(Rule):
    """Never two runs of one time, none without its time, none that is left out."""

    def __init__(self, state: State, past: Past) -> None:
        super().__init__(state, past)
        self.ran: dict[str, set[float]] = defaultdict(set)
        """By uid of the CronJob: the times that have run."""
        self.since_s: dict[str, float] = {}
        """By uid: since when it is to run each of its times."""

    def check(self, change: Change) -> None:
        now_s = START_S + change.now_s
        if change.kind is CronJob:
            self._promised(change, now_s)
        elif change.kind is Job and change.part == "cronjob-controller":
            self._by_cron_job(change, now_s)
        for uid, since_s in self.since_s.items():
            overdue = now_s - self.past.slack_s - LATE_MAX_S
            for time_s in times_between(self.state.by_uid[uid], since_s, overdue):
                if time_s not in self.ran[uid]:
                    raise Broken(f"{self.state.by_uid[uid].metadata.name} left out its time {time_s - START_S:.0f}")

    def _promised(self, change: Change, now_s: float) -> None:
        """Who lets them run beside each other, and hasn't changed its mind, runs them all."""
        old, new = change.old, change.new
        uid = (new or old).metadata.uid
        if new is None or is_going(new) or new.spec.suspend or new.spec.concurrency_policy != "Allow":
            self.since_s.pop(uid, None)
        elif old is None or old.spec != new.spec:
            self.since_s[uid] = now_s

    def _by_cron_job(self, change: Change, now_s: float) -> None:
        job = change.new or change.old
        cron_job = self.state.by_uid.get(owner_uid(job) or "")
        if not isinstance(cron_job, CronJob):
            return
        known = list(self.past.known(cron_job, change.now_s))
        siblings = [
            each
            for each in self.state.all(Job, job.metadata.namespace)
            if owner_uid(each) == cron_job.metadata.uid and each.metadata.uid != job.metadata.uid
        ]
        if change.old is None:
            self._started(known, job, siblings, now_s, change)
        elif not is_going(change.old) and (change.new is None or is_going(change.new)):
            self._removed(known, change.old, siblings)

    def _started(self, known: list[CronJob], job: Job, siblings: Iterable[Job], now_s: float, change: Change) -> None:
        uid, time_s = known[0].metadata.uid or "", scheduled_s(job)
        if time_s in self.ran[uid]:
            raise Broken(f"a second run of {time_s - START_S:.0f}")
        self.ran[uid].add(time_s)
        if time_s > now_s:
            raise Broken("before its time")
        if time_s <= known[0].metadata.creation_timestamp.timestamp():
            raise Broken("for a time before there was a schedule")
        if not any(is_time(each, time_s) for each in known):
            raise Broken("at a time that no schedule has")
        if all(each.spec.suspend for each in known):
            raise Broken("while it is suspended")
        deadlines = [each.spec.starting_deadline_seconds for each in known]
        if None not in deadlines and now_s - time_s > max(deadlines) + self.past.flight_s:
            raise Broken(f"{now_s - time_s:.0f} s after its time, its deadline is {max(deadlines)} s")
        running = [each for each in siblings if not job_end(each) and self.past.known_to_all(each, change.now_s)]
        policies = {each.spec.concurrency_policy for each in known}
        if policies == {"Forbid"} and running:
            raise Broken(f"beside {[each.metadata.name for each in running]}, and Forbid is its policy")
        if policies == {"Replace"} and any(not is_going(each) for each in running):
            raise Broken(f"{[each.metadata.name for each in running]} was not replaced")

    def _removed(self, known: list[CronJob], job: Job, siblings: Iterable[Job]) -> None:
        ended = job_end(job)
        if not ended:
            if all(each.spec.concurrency_policy != "Replace" for each in known):
                raise Broken("removed before it has ended")
            return
        field = "successful_jobs_history_limit" if ended == "Complete" else "failed_jobs_history_limit"
        least = min(getattr(each.spec, field) for each in known)
        left = [each for each in siblings if job_end(each) == ended and not is_going(each)]
        if len(left) < least and all(each.spec.concurrency_policy != "Replace" for each in known):
            raise Broken(f"removed, though {least} are to be kept and {len(left)} are left")


class Expiry(Rule):
    """A Job that goes after its time has ended, and for so long."""

    kinds = (Job,)

    def check(self, change: Change) -> None:
        if change.part != "ttl-after-finished-controller" or not is_deletion(change):
            return
        job = change.old
        ttl_s = min(each.spec.ttl_seconds_after_finished or 0 for each in self.past.known(job, change.now_s))
        ends = [each.last_transition_time for each in job.status.conditions if each.type in ("Complete", "Failed")]
        if not ends:
            raise Broken("deleted before it has ended")
        age_s = START_S + change.now_s - ends[0].timestamp()
        if age_s < ttl_s:
            raise Broken(f"deleted {age_s:.1f} s after its end, not {ttl_s}")


def scheduled_s(job: Any) -> float:
    return datetime.fromisoformat(job.metadata.annotations[SCHEDULED]).timestamp()


def period_s(cron_job: CronJob) -> int:
    """Stories write only such schedules."""
    return {"* * * * *": 60, "*/2 * * * *": 120}[cron_job.spec.schedule]


def is_time(cron_job: CronJob, time_s: float) -> bool:
    return time_s % period_s(cron_job) == 0


def times_between(cron_job: CronJob, after_s: float, until_s: float) -> Iterable[int]:
    every = period_s(cron_job)
    return range(int(after_s // every + 1) * every, int(until_s) + 1, every)


class Tokens(Rule):
    """A bootstrap token goes by itself only when its time is over, as it is written now."""

    kinds = (Secret,)

    def check(self, change: Change) -> None:
        if change.new is not None or change.part != "token-cleaner-controller":
            return
        written = change.old.data.get("expiration", b"").decode()
        if not written or datetime.fromisoformat(written).timestamp() > START_S + change.now_s:
            raise Broken(f"gone, and ends {written or 'never'}")
