"""endpoints.kubernetes.io/last-change-trigger-time: when what made the endpoints of a Service change came to pass.

Whoever measures how long a change takes to reach the proxies begins there: at the pod's becoming ready or unready, at
the Service's creation. Of several changes since the last look the earliest counts (upstream's TriggerTimeTracker).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from msgspec import Struct

from knarr.api.core.v1 import Pod, Service

ANNOTATION = "endpoints.kubernetes.io/last-change-trigger-time"


class _Seen(Struct):
    """The times of the last look."""

    service: datetime | None
    pods: dict[str, datetime]


class TriggerTimes:
    """Remembers them for each Service that there is."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}

    def look(self, key: str, service: Service, pods: Iterable[Pod]) -> datetime | None:
        """The earliest time that is new; of a Service seen for the first time its creation."""
        before = self._seen.get(key)
        now = _Seen(service.metadata.creation_timestamp, dict(_ready_times(pods)))
        self._seen[key] = now
        if before is None:
            return now.service
        new = [time for name, time in now.pods.items() if _is_later(time, before.pods.get(name))]
        if now.service and _is_later(now.service, before.service):
            new.append(now.service)
        return min(new, default=None)

    def forget(self, key: str) -> None:
        self._seen.pop(key, None)


def with_trigger_time(annotations: Mapping[str, str], time: datetime | None) -> dict[str, str]:
    """The annotations of what is about to be written."""
    kept = {key: value for key, value in annotations.items() if key != ANNOTATION}
    return kept | {ANNOTATION: _text(time)} if time else kept


def _ready_times(pods: Iterable[Pod]) -> Iterable[tuple[str, datetime]]:
    for pod in pods:
        for condition in pod.status.conditions if pod.status else ():
            if condition.type == "Ready" and condition.last_transition_time:
                yield pod.metadata.name or "", condition.last_transition_time


def _is_later(time: datetime, other: datetime | None) -> bool:
    return other is None or time > other


def _text(time: datetime) -> str:
    text = time.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00")
    return text.rstrip("0").rstrip(".") + "Z"
