"""At which times a CronJob is to run: the next after a moment, and the last that was missed.

Times match the clock on the wall in the CronJob's zone, as robfig/cron has it: an hour that is skipped in spring skips
its runs, one that comes twice in autumn runs them twice. What is missed is upstream's mostRecentScheduleTime.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo

from msgspec import Struct

from knarr.api.batch.schedule import Schedule, parse_schedule
from knarr.api.batch.v1 import CronJob, CronJobStatus

LOOK_AHEAD = timedelta(days=5 * 366)
"""A schedule that has no time for so long never has one (the 31st of February)."""
MANY_MISSED = 100
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
SHIFT_MAX = timedelta(hours=3)
"""More than clocks are ever shifted: a day is not skipped to its very end at once."""


class NeverRuns(ValueError):
    """A schedule that is well written, but has no time."""


class Timetable(Struct, frozen=True):
    """A schedule in its zone. Moments are UTC, whole seconds."""

    schedule: Schedule
    zone: tzinfo

    def after(self, moment: datetime) -> datetime:
        """The next time after `moment`. Raises NeverRuns."""
        moment = moment.replace(microsecond=0)
        if self.schedule.every_s:
            return moment + timedelta(seconds=self.schedule.every_s)
        end = moment + LOOK_AHEAD
        candidate = moment.replace(second=0) + MINUTE
        while candidate <= end:
            step = self._step(candidate)
            if not step:
                return candidate
            candidate += step
        raise NeverRuns("time difference between two schedules is less than 1 second")

    def _step(self, moment: datetime) -> timedelta:
        """Nothing when it is time; else so much may be skipped."""
        local, schedule = moment.astimezone(self.zone), self.schedule
        if not schedule.on_day(local.month, local.day, local.isoweekday() % 7):
            left = DAY - timedelta(hours=local.hour, minutes=local.minute)
            if local.month not in schedule.months:
                left += DAY * max(0, 27 - local.day)
            return max(left - SHIFT_MAX, min(left, HOUR))
        if local.hour not in schedule.hours:
            return HOUR - timedelta(minutes=local.minute)
        if local.minute not in schedule.minutes:
            later = [minute for minute in schedule.minutes if minute > local.minute]
            return timedelta(minutes=min(later, default=60) - local.minute)
        return timedelta()


def timetable_of(cron_job: CronJob) -> Timetable:
    """Raises ValueError for a schedule, and UnknownZone for a zone, that can't be understood."""
    return Timetable(parse_schedule(cron_job.spec.schedule), zone_of(cron_job))


class UnknownZone(Exception):
    """A zone that this machine doesn't know."""


def zone_of(cron_job: CronJob) -> tzinfo:
    """UTC, unless it says otherwise; old ones say so in the schedule."""
    schedule = cron_job.spec.schedule
    name = cron_job.spec.time_zone
    if schedule.startswith(("TZ=", "CRON_TZ=")):
        name = schedule.partition("=")[2].partition(" ")[0]
    if not name:
        return UTC
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # Few CronJobs name a zone: not loaded before the first.

    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UnknownZone(name) from error


class Missed(Struct, frozen=True):
    """The last time since the last run at which it should have run, if any, and roughly how many there were."""

    since: datetime
    last: datetime | None = None
    count: int = 0


def missed(cron_job: CronJob, times: Timetable, now: datetime, *, deadline: bool) -> Missed:
    """What has been missed since the last run or the beginning; with `deadline` only what may still start. Raises
    NeverRuns."""
    status, spec = cron_job.status or CronJobStatus(), cron_job.spec
    since = status.last_schedule_time or cron_job.metadata.creation_timestamp or now
    if deadline and spec.starting_deadline_seconds is not None:
        since = max(since, now - timedelta(seconds=min(spec.starting_deadline_seconds, _DEADLINE_MAX_S)))
    first = times.after(since)
    if now < first:
        return Missed(since)
    second = times.after(first)
    if now < second:
        return Missed(since, first)
    # How many there were is estimated, so that years need not be gone through; the last is then looked for near now,
    # and not found if the times are very uneven: then none is made up for.
    between = round((second - first).total_seconds())
    count = int((now - first).total_seconds()) // between + 1
    last: datetime | None = None
    candidate = times.after(first + timedelta(seconds=(count - 2) * between))
    while candidate <= now:
        last, candidate = candidate, times.after(candidate)
    return Missed(since, last, count)


_DEADLINE_MAX_S = 10**9
"""30 years: what Python's times can go back without leaving their era."""


def until_next_s(cron_job: CronJob, times: Timetable, now: datetime) -> float | None:
    """Seconds until the next time; None if there is none."""
    try:
        found = missed(cron_job, times, now, deadline=False)
        begin = found.last or (now if found.count else found.since)
        return (times.after(begin) - now).total_seconds()
    except NeverRuns:
        return None
