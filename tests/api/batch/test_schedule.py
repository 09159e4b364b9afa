"""Schedules as crontab(5) writes them: what is understood, and what is said of the rest."""

from __future__ import annotations

import pytest

from knarr.api.batch.schedule import parse_schedule


@pytest.mark.parametrize(
    ("text", "minutes", "hours"),
    [
        ("*/15 * * * *", {0, 15, 30, 45}, set(range(24))),
        ("5 4 * * *", {5}, {4}),
        ("5,10-12 0-23/6 * * *", {5, 10, 11, 12}, {0, 6, 12, 18}),
        ("7/20 * ? * ?", {7, 27, 47}, set(range(24))),
        ("TZ=Europe/Paris 0 0 * * *", {0}, {0}),
        ("@hourly", {0}, set(range(24))),
        ("@daily", {0}, {0}),
    ],
)
def test_minutes_and_hours(text: str, minutes: set[int], hours: set[int]) -> None:
    schedule = parse_schedule(text)
    assert (schedule.minutes, schedule.hours) == (minutes, hours)


def test_names_of_months_and_days() -> None:
    schedule = parse_schedule("0 0 1 jan,FEB mon-fri")
    assert (schedule.months, schedule.days_of_week) == ({1, 2}, {1, 2, 3, 4, 5})


@pytest.mark.parametrize(
    ("text", "day", "day_of_week", "runs"),
    [
        ("0 0 13 * *", 13, 1, True),
        ("0 0 13 * *", 14, 1, False),
        ("0 0 * * 1", 14, 1, True),
        ("0 0 * * 1", 14, 2, False),
        ("0 0 13 * 5", 13, 1, True),
        ("0 0 13 * 5", 14, 5, True),
        ("0 0 13 * 5", 14, 1, False),
        ("0 0 */2 * 5", 14, 5, True),
    ],
)
def test_a_day_matches_by_either_field(text: str, day: int, day_of_week: int, runs: bool) -> None:
    assert parse_schedule(text).on_day(3, day, day_of_week) is runs


@pytest.mark.parametrize(
    ("text", "seconds"), [("@every 1h30m", 5400), ("@every 90s", 90), ("@every 1ms", 1), ("@every 1.5h", 5400)]
)
def test_fixed_distances(text: str, seconds: int) -> None:
    assert parse_schedule(text).every_s == seconds


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "empty spec string"),
        ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
        ("60 * * * *", "end of range (60) above maximum (59): 60"),
        ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
        ("30-10 * * * *", "beginning of range (30) beyond end of range (10): 30-10"),
        ("*/0 * * * *", "step of range should be a positive number: */0"),
        ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
        ("1/2/3 * * * *", "too many slashes: 1/2/3"),
        ("x * * * *", 'failed to parse int from x: strconv.Atoi: parsing "x": invalid syntax'),
        ("@often", "unrecognized descriptor: @often"),
        ("@every soon", 'failed to parse duration @every soon: time: invalid duration "soon"'),
        ("* * * * 7", "end of range (7) above maximum (6): 7"),
    ],
)
def test_what_is_no_schedule(text: str, fault: str) -> None:
    with pytest.raises(ValueError) as error:
        parse_schedule(text)
    assert str(error.value) == fault
