"""How rules are kept in step with what the API server shows, and how others wait until a write is in force."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from knarr.client.informer import Informer
from knarr.clock import Clock
from knarr.network.commands import CommandFailed

log = logging.getLogger(__name__)

RETRY_DELAY_MIN_S, RETRY_DELAY_MAX_S = 0.1, 10.0
"""Between attempts when the kernel refuses a transaction."""


class InForce:
    """The newest revision of each kind that is in force, and who waits for more."""

    def __init__(self, informers: Mapping[type[Any], Informer[Any]], wake: asyncio.Event) -> None:
        """`wake` is set for who waits, so that somebody looks how far it is."""
        self._informers = informers
        self._wake = wake
        self._revisions: dict[type[Any], int] = dict.fromkeys(informers, 0)
        self._waiting: list[tuple[type[Any], int, asyncio.Future[None]]] = []

    def of(self, kind: type[Any]) -> int:
        return self._revisions[kind]

    def seen(self) -> dict[type[Any], int]:
        """What the informers show now."""
        return {kind: informer.revision for kind, informer in self._informers.items()}

    def show(self, revisions: Mapping[type[Any], int]) -> None:
        """These are in force now; who waited for them goes on."""
        for kind, revision in revisions.items():
            self._revisions[kind] = max(self._revisions[kind], revision)
        still = []
        for kind, revision, future in self._waiting:
            if self._revisions[kind] < revision:
                still.append((kind, revision, future))
            elif not future.done():
                future.set_result(None)
        self._waiting = still

    async def reached(self, revision: int, kind: type[Any]) -> None:
        """Wait until `revision`, that of a write to an object of `kind`, is in force."""
        await self._informers[kind].reached(revision)
        if self._revisions[kind] >= revision:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((kind, revision, future))
        self._wake.set()
        await future


async def keep_in_step(
    sync: Callable[[], Awaitable[None]],
    wake: asyncio.Event,
    clock: Clock,
    *,
    what: str,
    minimum_interval_s: float,
    failed: Callable[[], None] = lambda: None,
) -> None:
    """Call `sync` now and whenever `wake` is set, until cancelled; again after a while when the kernel refuses.

    What changes within `minimum_interval_s` shares a transaction. `what` is what is written, for the log.
    """
    delay_s = RETRY_DELAY_MIN_S
    while True:
        try:
            await sync()
            delay_s = RETRY_DELAY_MIN_S
        except CommandFailed as failure:
            failed()
            log.warning("%s were not written, trying again in %.1f s: %s", what, delay_s, failure)
            wake.set()
            await clock.sleep(delay_s)
            delay_s = min(delay_s * 2, RETRY_DELAY_MAX_S)
        else:
            await clock.sleep(minimum_interval_s)
        await wake.wait()
