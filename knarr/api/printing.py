"""How values are shown in the columns of `kubectl get`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

UNKNOWN, NONE, UNSET = "<unknown>", "<none>", "<unset>"


def age(moment: datetime | None, now_s: float) -> str:
    """How long ago, in upstream's short form (duration.HumanDuration): 5s, 3m20s, 47h, 5d3h, 2y40d."""
    if moment is None:
        return UNKNOWN
    return human_duration(now_s - moment.timestamp())


def created_at(obj: Any, now_s: float) -> str:
    """The moment at which an object was made: what upstream shows of kinds without columns of their own."""
    moment = obj.metadata.creation_timestamp
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if moment else UNKNOWN


def human_duration(seconds: float) -> str:
    whole = int(seconds)
    if whole < -1:
        return "<invalid>"
    if whole < 0:
        return "0s"
    if whole < 120:
        return f"{whole}s"
    minutes = whole // 60
    if minutes < 10:
        return f"{minutes}m{whole % 60}s" if whole % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    hours = whole // 3600
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    days = hours // 24
    if hours < 24 * 8:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    if hours < 24 * 365 * 2:
        return f"{days}d"
    years = hours // 24 // 365
    if hours < 24 * 365 * 8:
        return f"{years}y{days % 365}d" if days % 365 else f"{years}y"
    return f"{years}y"


def labels(found: Mapping[str, str]) -> str:
    """app=web,tier=front; <none>."""
    return ",".join(f"{key}={value}" for key, value in sorted(found.items())) or NONE
