"""Durations as Go writes and reads them: 15.003s, 1m0s."""

from __future__ import annotations

import re

_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def go_duration(seconds: float) -> str:
    """As Go writes a time.Duration, to a millisecond."""
    minutes, rest = divmod(round(seconds * 1000), 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest / 1000:g}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def duration_s(text: str) -> float | None:
    """Seconds of a duration as Go writes it (1m30s); None when it is none."""
    if text == "0":
        return 0.0
    if not re.fullmatch(rf"(?:{_PART.pattern})+", text):
        return None
    return sum(float(amount) * _UNITS_S[unit] for amount, unit in _PART.findall(text))
