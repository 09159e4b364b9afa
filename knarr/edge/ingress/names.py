"""The addresses of external names (Services of type ExternalName), asked for again and again while they are in use."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable

from knarr.clock import Clock

log = logging.getLogger(__name__)

Resolve = Callable[[str], Awaitable[tuple[str, ...]]]
"""Raises OSError where nothing can be told."""

PERIOD_S = 15.0
TIMEOUT_S = 5.0
NAMES_MAX = 1000
AT_ONCE_MAX = 16


class ExternalNames:
    def __init__(self, clock: Clock, resolve: Resolve, changed: Callable[[str], None]) -> None:
        """`changed` is called with a name whose addresses are others now."""
        self._clock = clock
        self._resolve = resolve
        self._changed = changed
        self._wanted: set[str] = set()
        self._wake = asyncio.Event()
        self.addresses: dict[str, tuple[str, ...]] = {}

    def want(self, names: Iterable[str]) -> None:
        """Names in use from now on."""
        wanted = set(sorted(names)[:NAMES_MAX])
        if wanted - self._wanted:
            self._wake.set()
        self._wanted = wanted
        for name in self.addresses.keys() - wanted:
            del self.addresses[name]

    async def run(self) -> None:
        places = asyncio.Semaphore(AT_ONCE_MAX)
        while True:
            self._wake.clear()
            async with asyncio.TaskGroup() as group:
                for name in sorted(self._wanted):
                    group.create_task(self._look_up(name, places))
            if not self._wanted:
                await self._wake.wait()
                continue
            try:
                async with self._clock.timeout(PERIOD_S):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _look_up(self, name: str, places: asyncio.Semaphore) -> None:
        """What can't be told now stays as it was told last."""
        async with places:
            try:
                async with self._clock.timeout(TIMEOUT_S):
                    found = tuple(sorted(set(await self._resolve(name))))
            except (OSError, TimeoutError, UnicodeError) as error:
                log.debug("%s could not be resolved: %s", name, error)
                return
        if name in self._wanted and found != self.addresses.get(name):
            self.addresses[name] = found
            self._changed(name)


async def by_host(name: str) -> tuple[str, ...]:
    """As this machine resolves names."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return tuple(str(address[0]) for *_, address in found)
