"""At which times a CronJob runs: zones, shifted clocks, what was missed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from knarr.api.batch.schedule import parse_schedule
from knarr.api.batch.v1 import CronJob
from knarr.controllers.cron_times import NeverRuns, Timetable, UnknownZone, missed, timetable_of, until_next_s


def at(written: str) -> datetime:
    return datetime.fromisoformat(written).astimezone(UTC)


def following(schedule: str, since: str, count: int, zone: str = "UTC") -> list[str]:
    """The next times, as the clock on the wall shows them."""
    times, moment, found = Timetable(parse_schedule(schedule), ZoneInfo(zone)), at(since), []
    for _ in range(count):
        moment = times.after(moment)
        found.append(moment.astimezone(ZoneInfo(zone)).isoformat())
    return found


def cron_job(schedule: str, created: str = "2026-01-01T00:00:00Z", last: str = "", **spec: Any) -> CronJob:
    return msgspec.convert(
        {
            "metadata": {"name": "c", "creationTimestamp": created},
            "spec": {"schedule": schedule, **spec},
            "status": {"lastScheduleTime": last} if last else {},
        },
        CronJob,
    )


@pytest.mark.parametrize(
    ("schedule", "since", "expected"),
    [
        ("* * * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:01:00"),
        ("* * * * *", "2026-01-01T00:00:59Z", "2026-01-01T00:01:00"),
        ("*/15 * * * *", "2026-01-01T23:50:00Z", "2026-01-02T00:00:00"),
        ("30 6-16/4 * * 1-5", "2026-01-02T14:30:00Z", "2026-01-05T06:30:00"),
        ("0 0 13 * 5", "2026-02-06T00:00:00Z", "2026-02-13T00:00:00"),
        ("0 0 14 * 5", "2026-02-06T00:00:00Z", "2026-02-13T00:00:00"),
        ("0 0 14 * *", "2026-02-06T00:00:00Z", "2026-02-14T00:00:00"),
        ("@monthly", "2026-01-31T12:00:00Z", "2026-02-01T00:00:00"),
        ("0 12 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T12:00:00"),
        ("59 23 31 12 *", "2026-12-31T23:59:00Z", "2027-12-31T23:59:00"),
        ("@every 90s", "2026-01-01T00:00:10Z", "2026-01-01T00:01:40"),
    ],
)
def test_the_next_time(schedule: str, since: str, expected: str) -> None:
    assert following(schedule, since, 1) == [f"{expected}+00:00"]


def test_an_hour_that_is_skipped_in_spring_skips_its_runs() -> None:
    assert following("30 2 * * *", "2026-03-28T00:00:00+01:00", 3, "Europe/Berlin") == [
        "2026-03-28T02:30:00+01:00",
        "2026-03-30T02:30:00+02:00",
        "2026-03-31T02:30:00+02:00",
    ]
    assert following("0 * * * *", "2026-03-29T01:00:00+01:00", 1, "Europe/Berlin") == ["2026-03-29T03:00:00+02:00"]


def test_an_hour_that_comes_twice_in_autumn_runs_twice() -> None:
    assert following("30 2 * * *", "2026-10-25T00:00:00+02:00", 3, "Europe/Berlin") == [
        "2026-10-25T02:30:00+02:00",
        "2026-10-25T02:30:00+01:00",
        "2026-10-26T02:30:00+01:00",
    ]


def test_a_clock_that_is_shifted_at_midnight_or_by_half_an_hour() -> None:
    assert following("0 0 * * *", "2026-09-05T12:00:00-04:00", 2, "America/Santiago") == [
        "2026-09-07T00:00:00-03:00",
        "2026-09-08T00:00:00-03:00",
    ]
    assert following("45 1 * * *", "2026-04-04T12:00:00+11:00", 3, "Australia/Lord_Howe") == [
        "2026-04-05T01:45:00+11:00",
        "2026-04-05T01:45:00+10:30",
        "2026-04-06T01:45:00+10:30",
    ]


FIELD = some.sampled_from(("*", "*/7", "0", "3,5", "1-4"))


@given(
    fields=some.tuples(FIELD, FIELD, some.sampled_from(("*", "1", "28-31", "5")), some.just("*"), FIELD),
    minutes=some.integers(0, 2 * 365 * 24 * 60),
    zone=some.sampled_from(("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata")),
)
def test_no_time_is_skipped(fields: tuple[str, ...], minutes: int, zone: str) -> None:
    """Minute by minute there is none between a moment and the next time, and it is one itself."""
    times = Timetable(parse_schedule(" ".join(fields)), ZoneInfo(zone))
    begin = at("2026-01-01T00:00:00Z") + timedelta(minutes=minutes)
    found = times.after(begin)

    def fits(moment: datetime) -> bool:
        local, schedule = moment.astimezone(ZoneInfo(zone)), times.schedule
        on_day = schedule.on_day(local.month, local.day, local.isoweekday() % 7)
        return on_day and local.hour in schedule.hours and local.minute in schedule.minutes

    assert fits(found)
    moment = begin + timedelta(minutes=1)
    for _ in range(3000):
        if moment >= found:
            break
        assert not fits(moment)
        moment += timedelta(minutes=1)


def test_a_day_that_never_comes() -> None:
    with pytest.raises(NeverRuns, match="time difference between two schedules is less than 1 second"):
        following("0 0 31 2 *", "2026-01-01T00:00:00Z", 1)


@pytest.mark.parametrize(
    ("cron", "now", "last", "count"),
    [
        (cron_job("0 * * * *"), "2026-01-01T00:59:59Z", None, 0),
        (cron_job("0 * * * *"), "2026-01-01T01:00:00Z", "2026-01-01T01:00:00Z", 0),
        (cron_job("0 * * * *"), "2026-01-01T05:30:00Z", "2026-01-01T05:00:00Z", 5),
        (cron_job("0 * * * *", last="2026-01-01T05:00:00Z"), "2026-01-01T05:30:00Z", None, 0),
        (cron_job("0 * * * *"), "2026-03-01T05:30:00Z", "2026-03-01T05:00:00Z", 1421),
        (cron_job("30 6-16/4 * * 1-5"), "2026-01-08T12:00:00Z", "2026-01-08T10:30:00Z", 44),
        (cron_job("30 6-16/4 * * 1-5"), "2026-01-10T12:00:00Z", None, 56),
        (cron_job("0 * * * *", startingDeadlineSeconds=60), "2026-01-01T05:30:00Z", None, 0),
        (cron_job("0 * * * *", startingDeadlineSeconds=60), "2026-01-01T05:00:30Z", "2026-01-01T05:00:00Z", 0),
        (cron_job("@every 90s", created="2026-01-01T00:00:10Z"), "2026-01-01T01:00:00Z", "2026-01-01T00:58:40Z", 39),
    ],
)
def test_what_was_missed(cron: CronJob, now: str, last: str | None, count: int) -> None:
    found = missed(cron, timetable_of(cron), at(now), deadline=True)
    assert (found.last, found.count) == (at(last) if last else None, count)


def test_the_wait_until_the_next_time() -> None:
    cron = cron_job("0 9 * * *", timeZone="Asia/Tokyo")
    assert until_next_s(cron, timetable_of(cron), at("2026-01-01T00:00:00Z")) == 24 * 3600
    assert until_next_s(cron, timetable_of(cron), at("2026-01-05T23:00:00Z")) == 3600
    never = cron_job("0 0 31 2 *")
    assert until_next_s(never, timetable_of(never), at("2026-01-05T23:00:00Z")) is None


def test_a_zone_is_unknown_or_stands_in_an_old_schedule() -> None:
    with pytest.raises(UnknownZone):
        timetable_of(cron_job("0 9 * * *", timeZone="Mars/Base"))
    times = timetable_of(cron_job("CRON_TZ=Asia/Tokyo 0 9 * * *"))
    assert times.after(at("2026-01-01T00:00:00Z")) == at("2026-01-02T00:00:00Z")
