"""Events: what a component tells people about an object (`kubectl describe`, `kubectl events`).

Repeats of the same event within AGGREGATION_WINDOW_S raise its count instead of making another, as client-go's recorder
does. Recording never fails the caller and never waits: a bounded queue drops the oldest.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from knarr.api.core.v1 import Event, EventSource, ObjectReference
from knarr.api.errors import APIError
from knarr.api.meta.v1 import ObjectMeta
from knarr.client.client import MERGE_PATCH, Client
from knarr.clock import Clock, utc

log = logging.getLogger(__name__)

QUEUE_MAX = 1000
KNOWN_MAX = 4096
"""Events remembered for counting repeats."""
AGGREGATION_WINDOW_S = 600.0


@dataclass(slots=True)
class _Known:
    name: str
    namespace: str
    count: int
    last_s: float


class EventRecorder:
    """Records events as `component`."""

    def __init__(self, client: Client, clock: Clock, component: str, host: str = "") -> None:
        self._client = client
        self._clock = clock
        self._source = EventSource(component=component, host=host or None)
        self._known: OrderedDict[tuple[str, ...], _Known] = OrderedDict()
        self._pending: list[tuple[Any, str, str, str, str]] = []
        self._task: asyncio.Task[None] | None = None

    def normal(self, obj: Any, reason: str, message: str, *, field_path: str = "") -> None:
        self._record(obj, "Normal", reason, message, field_path)

    def warning(self, obj: Any, reason: str, message: str, *, field_path: str = "") -> None:
        self._record(obj, "Warning", reason, message, field_path)

    def _record(self, obj: Any, type_: str, reason: str, message: str, field_path: str) -> None:
        if len(self._pending) >= QUEUE_MAX:
            self._pending.pop(0)
        self._pending.append((obj, type_, reason, message, field_path))
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._drain(), name="events")

    async def _drain(self) -> None:
        while self._pending:
            obj, type_, reason, message, field_path = self._pending.pop(0)
            try:
                await self._write(obj, type_, reason, message, field_path)
            except APIError as error:
                log.debug("event %s on %s was refused: %s", reason, obj.metadata.name, error)

    async def _write(self, obj: Any, type_: str, reason: str, message: str, field_path: str) -> None:
        metadata = obj.metadata
        namespace = metadata.namespace or "default"
        now_s = self._clock.time_s()
        about = (metadata.uid or metadata.name, type_, reason, message, field_path)
        known = self._known.get(about)
        if known and now_s - known.last_s < AGGREGATION_WINDOW_S:
            known.count += 1
            known.last_s = now_s
            patch = {"count": known.count, "lastTimestamp": utc(now_s)}
            await self._client.patch(Event, known.name, patch, known.namespace, content_type=MERGE_PATCH)
            return
        name = f"{metadata.name}.{int(now_s * 1e9):x}"
        event = Event(
            metadata=ObjectMeta(name=name, namespace=namespace),
            involved_object=ObjectReference(
                api_version=obj.api_version,
                kind=obj.kind,
                name=metadata.name,
                namespace=metadata.namespace,
                uid=metadata.uid,
                resource_version=metadata.resource_version,
                field_path=field_path or None,
            ),
            type=type_,
            reason=reason,
            message=message[:1024],
            source=self._source,
            reporting_component=self._source.component or "",
            first_timestamp=utc(now_s),
            last_timestamp=utc(now_s),
            count=1,
        )
        await self._client.create(event)
        self._known[about] = _Known(name, namespace, 1, now_s)
        if len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)
