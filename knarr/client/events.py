"""Events: what a component tells people about an object (`kubectl describe`, `kubectl events`).

Recording never fails the caller and never waits: a bounded queue drops the oldest, and `run` writes it out. As
client-go's event correlator does:

* a repeat of the same event raises its count instead of making another;
* more than SIMILAR_MAX events that differ in their message only become one, "(combined from similar events): …";
* an object gets at most BURST_MAX events at a time, and one more every REFILL_S.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from typing import Any

from msgspec import Struct, field

from knarr.api.core.v1 import Event, EventSource, ObjectReference
from knarr.api.errors import AlreadyExists, APIError, NotFound
from knarr.api.meta.v1 import ObjectMeta
from knarr.client.client import MERGE_PATCH, Client
from knarr.clock import Clock, utc

log = logging.getLogger(__name__)

QUEUE_MAX = 1000
"""Events not yet written; the oldest gives way."""
NAMES_MAX = 10
"""Names tried for an event; they are the object's name and the time."""
KNOWN_MAX = 4096
"""Events, groups of similar ones, and objects that are remembered."""
AGGREGATION_WINDOW_S = 600.0
SIMILAR_MAX = 10
BURST_MAX = 25
REFILL_S = 300.0
MESSAGE_LENGTH_MAX = 1024
COMBINED = "(combined from similar events): "
BATCH_MAX = 50
"""Events written at once, so that they share the store's commits."""

_Pending = tuple[float, Any, str, str, str, str]
"""When, about what, type, reason, message, field path."""


class _Known(Struct):
    """An event that was written."""

    name: str
    namespace: str
    count: int


class _Similar(Struct):
    """The messages of one kind of event on one object."""

    last_s: float
    messages: set[str] = field(default_factory=set)


class _Allowance(Struct):
    """How many events an object may still get (a token bucket)."""

    left: float
    at_s: float


class EventRecorder:
    """Records events as `component`. Its owner runs `run` in a TaskGroup of its own."""

    def __init__(self, client: Client, clock: Clock, component: str, host: str = "") -> None:
        self._client = client
        self._clock = clock
        self._source = EventSource(component=component, host=host or None)
        self._known: OrderedDict[tuple[str, ...], _Known] = OrderedDict()
        self._similar: OrderedDict[tuple[str, ...], _Similar] = OrderedDict()
        self._allowances: OrderedDict[str, _Allowance] = OrderedDict()
        self._pending: deque[_Pending] = deque(maxlen=QUEUE_MAX)
        self._recorded = asyncio.Event()
        self._named_ns = 0

    def normal(self, obj: Any, reason: str, message: str, *, field_path: str = "") -> None:
        self._record(obj, "Normal", reason, message, field_path)

    def warning(self, obj: Any, reason: str, message: str, *, field_path: str = "") -> None:
        self._record(obj, "Warning", reason, message, field_path)

    async def run(self) -> None:
        """Write what is recorded, until cancelled."""
        while True:
            while self._pending:
                batch: dict[str, list[_Pending]] = {}
                for _ in range(min(len(self._pending), BATCH_MAX)):
                    pending = self._pending.popleft()
                    batch.setdefault(pending[1].metadata.uid or pending[1].metadata.name, []).append(pending)
                async with asyncio.TaskGroup() as group:
                    for events in batch.values():
                        group.create_task(self._write_in_order(events))
            self._recorded.clear()
            await self._recorded.wait()

    async def _write_in_order(self, events: list[_Pending]) -> None:
        """The events of one object: a repeat must find the one that it repeats."""
        for now_s, obj, type_, reason, message, field_path in events:
            try:
                await self._write(now_s, obj, type_, reason, message[:MESSAGE_LENGTH_MAX], field_path)
            except APIError as error:
                log.debug("event %s on %s was refused: %s", reason, obj.metadata.name, error)
            except Exception:  # what is only told must not stop the one who tells it
                log.exception("event %s on %s could not be written", reason, obj.metadata.name)

    def _record(self, obj: Any, type_: str, reason: str, message: str, field_path: str) -> None:
        about = obj.metadata.uid or obj.metadata.name
        now_s = self._clock.time_s()
        message = self._combined((about, type_, reason), message, now_s)
        if self._allowed(about, now_s):
            self._pending.append((now_s, obj, type_, reason, message, field_path))
            self._recorded.set()

    def _combined(self, group: tuple[str, ...], message: str, now_s: float) -> str:
        """The message, or the mark of too many different ones before it."""
        similar = self._similar.pop(group, None)
        if similar is None or now_s - similar.last_s > AGGREGATION_WINDOW_S:
            similar = _Similar(now_s)
        similar.last_s = now_s
        self._similar[group] = similar
        _trim(self._similar)
        if message in similar.messages:
            return message
        if len(similar.messages) < SIMILAR_MAX:
            similar.messages.add(message)
            return message
        return COMBINED + message

    def _allowed(self, about: str, now_s: float) -> bool:
        allowance = self._allowances.pop(about, None) or _Allowance(BURST_MAX, now_s)
        allowance.left = min(BURST_MAX, allowance.left + (now_s - allowance.at_s) / REFILL_S)
        allowance.at_s = now_s
        self._allowances[about] = allowance
        _trim(self._allowances)
        if allowance.left < 1:
            return False
        allowance.left -= 1
        return True

    async def _write(self, now_s: float, obj: Any, type_: str, reason: str, message: str, field_path: str) -> None:
        metadata = obj.metadata
        same = COMBINED if message.startswith(COMBINED) else message
        about = (metadata.uid or metadata.name, type_, reason, same, field_path)
        known = self._known.get(about)
        if known:
            patch = {"count": known.count + 1, "lastTimestamp": utc(now_s), "message": message}
            try:
                await self._client.patch(Event, known.name, patch, known.namespace, content_type=MERGE_PATCH)
            except NotFound:
                del self._known[about]  # its time to live is over: it is a new event
            else:
                known.count += 1
                return
        for _ in range(NAMES_MAX):
            event = self._event(now_s, obj, type_, reason, message, field_path)
            try:
                await self._client.create(event)
                break
            except AlreadyExists:
                continue  # another component tells of an object of the same name at the same moment
        self._known[about] = _Known(event.metadata.name or "", event.metadata.namespace or "", 1)
        _trim(self._known)

    def _event(self, now_s: float, obj: Any, type_: str, reason: str, message: str, field_path: str) -> Event:
        metadata = obj.metadata
        self._named_ns = max(self._named_ns + 1, int(now_s * 1e9))
        return Event(
            metadata=ObjectMeta(name=f"{metadata.name}.{self._named_ns:x}", namespace=metadata.namespace or "default"),
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
            message=message,
            source=self._source,
            reporting_component=self._source.component or "",
            first_timestamp=utc(now_s),
            last_timestamp=utc(now_s),
            count=1,
        )


def _trim(remembered: OrderedDict[Any, Any]) -> None:
    if len(remembered) > KNOWN_MAX:
        remembered.popitem(last=False)
