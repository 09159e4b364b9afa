"""When a CronJob runs: the five fields of crontab(5), or a word for the usual ones (@daily, @every 1h30m).

What is accepted and what is said of the rest are those of robfig/cron v3, which upstream reads schedules with: names
of months and days, `?` for `*`, `N/step` for `N-max/step`; a day matches when either of its two fields does, unless one
of them is `*`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec import Struct

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_WORDS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_NO_NAMES: Mapping[str, int] = {}


class _Field(Struct, frozen=True):
    low: int
    high: int
    names: Mapping[str, int]


_FIELDS = (
    _Field(0, 59, _NO_NAMES),
    _Field(0, 23, _NO_NAMES),
    _Field(1, 31, _NO_NAMES),
    _Field(1, 12, {name: number for number, name in enumerate(_MONTHS, 1)}),
    _Field(0, 6, {name: number for number, name in enumerate(_DAYS)}),
)


class Schedule(Struct, frozen=True):
    """The minutes of the year at which it is time; or, with `every_s`, a fixed distance in time."""

    minutes: frozenset[int] = frozenset()
    hours: frozenset[int] = frozenset()
    days_of_month: frozenset[int] = frozenset()
    months: frozenset[int] = frozenset()
    days_of_week: frozenset[int] = frozenset()
    """0 is Sunday."""
    any_day_of_month: bool = False
    any_day_of_week: bool = False
    """Whether the field is `*`: then the other one alone says which days."""
    every_s: int = 0

    def on_day(self, month: int, day: int, day_of_week: int) -> bool:
        """Whether it runs at all on a day (`day_of_week`: 0 is Sunday)."""
        if month not in self.months:
            return False
        by_month, by_week = day in self.days_of_month, day_of_week in self.days_of_week
        if self.any_day_of_month or self.any_day_of_week:
            return by_month and by_week
        return by_month or by_week


def parse_schedule(text: str) -> Schedule:
    """Raises ValueError with what is wrong. A leading TZ= or CRON_TZ= is skipped: who may say it is another rule."""
    if not text:
        raise ValueError("empty spec string")
    if text.startswith(("TZ=", "CRON_TZ=")):
        text = text.partition(" ")[2].strip()
    if text.startswith("@"):
        return _word(text)
    fields = text.split()
    if len(fields) != len(_FIELDS):
        raise ValueError(f"expected exactly {len(_FIELDS)} fields, found {len(fields)}: [{' '.join(fields)}]")
    read = [_values(written, field) for written, field in zip(fields, _FIELDS, strict=True)]
    minutes, hours, days, months, week = (values for values, _ in read)
    return Schedule(minutes, hours, days, months, week, any_day_of_month=read[2][1], any_day_of_week=read[4][1])


def _word(text: str) -> Schedule:
    if text in _WORDS:
        return parse_schedule(_WORDS[text])
    if text.startswith("@every "):
        return Schedule(every_s=max(1, _duration_s(text)))
    raise ValueError(f"unrecognized descriptor: {text}")


_DURATION = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)(h|ms|m|s|us|µs|ns))+", re.ASCII)
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(h|ms|m|s|us|µs|ns)", re.ASCII)
_UNITS_S = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
DURATION_MAX_S = (1 << 63) // 10**9
"""What a Go duration can hold: 292 years."""


def _duration_s(text: str) -> int:
    """The whole seconds of the duration in `@every 1h30m`."""
    written = text.removeprefix("@every ")
    total = 0.0
    if written != "0":
        if not _DURATION.fullmatch(written):
            raise ValueError(f'failed to parse duration {text}: time: invalid duration "{written}"')
        total = sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(written))
        if total > DURATION_MAX_S:
            raise ValueError(f'failed to parse duration {text}: time: invalid duration "{written}"')
    return 1 if written.startswith("-") else int(total)


def _values(written: str, field: _Field) -> tuple[frozenset[int], bool]:
    """The values that a field names (1,5-9/2), and whether one of its parts is `*`."""
    values: set[int] = set()
    star = False
    for part in (part for part in written.split(",") if part):
        found, any_value = _range(part, field)
        values.update(found)
        star = star or any_value
    return frozenset(values), star


def _range(written: str, field: _Field) -> tuple[range, bool]:
    bounds, *steps = written.split("/")
    low_text, *rest = bounds.split("-")
    star = low_text in ("*", "?")
    if star:
        low, high = field.low, field.high
    else:
        low = _number_or_name(low_text, field)
        if len(rest) > 1:
            raise ValueError(f"too many hyphens: {written}")
        high = _number_or_name(rest[0], field) if rest else low
    if len(steps) > 1:
        raise ValueError(f"too many slashes: {written}")
    step = 1
    if steps:
        step = _number(steps[0])
        if not star and not rest:
            high = field.high
        star = star and step <= 1
    if low < field.low:
        raise ValueError(f"beginning of range ({low}) below minimum ({field.low}): {written}")
    if high > field.high:
        raise ValueError(f"end of range ({high}) above maximum ({field.high}): {written}")
    if low > high:
        raise ValueError(f"beginning of range ({low}) beyond end of range ({high}): {written}")
    if step == 0:
        raise ValueError(f"step of range should be a positive number: {written}")
    return range(low, high + 1, step), star


def _number_or_name(written: str, field: _Field) -> int:
    named = field.names.get(written.lower())
    return _number(written) if named is None else named


def _number(written: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", written):
        raise ValueError(f'failed to parse int from {written}: strconv.Atoi: parsing "{written}": invalid syntax')
    number = int(written)
    if number < 0:
        raise ValueError(f"negative number ({number}) not allowed: {written}")
    return number
