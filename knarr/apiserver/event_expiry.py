"""Events are forgotten after an hour, as upstream's API server has it by default (--event-ttl=1h0m0s).

An event that is counted again lives on: its time counts from its last write.
"""

from __future__ import annotations

import logging
from datetime import datetime

import msgspec

from knarr.clock import Clock
from knarr.store.contract import Mismatch, Store, StoreFailure, Write

log = logging.getLogger(__name__)

PREFIX = "events/"
LIFETIME_S = 3600.0
LOOK_EVERY_S = 60.0
PAGE = 500
"""Events looked at before others have their turn."""


class _Metadata(msgspec.Struct):
    creationTimestamp: datetime | None = None


class _Series(msgspec.Struct):
    lastObservedTime: datetime | None = None


class _Event(msgspec.Struct):
    metadata: _Metadata
    lastTimestamp: datetime | None = None
    eventTime: datetime | None = None
    series: _Series | None = None

    def last_s(self) -> float:
        seen = (
            self.metadata.creationTimestamp,
            self.lastTimestamp,
            self.eventTime,
            self.series.lastObservedTime if self.series else None,
        )
        return max((moment.timestamp() for moment in seen if moment), default=0.0)


class EventExpiry:
    """Removes old events from the store. `run` works until cancelled."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def run(self) -> None:
        while True:
            await self._clock.sleep(LOOK_EVERY_S)
            try:
                await self.expire()
            except StoreFailure as failure:
                log.warning("old events could not be removed: %s", failure)

    async def expire(self) -> None:
        """One look at all events."""
        decode = msgspec.json.Decoder(_Event).decode
        oldest_s = self._clock.time_s() - LIFETIME_S
        after = ""
        while True:
            page = await self._store.range(PREFIX, after=after, limit=PAGE)
            for record in page.records:
                if decode(record.value).last_s() < oldest_s:
                    try:
                        await self._store.commit(Write(record.key, None, record.revision))
                    except Mismatch:
                        continue  # it was written again, or somebody else removed it
            if not page.more:
                return
            after = page.records[-1].key
