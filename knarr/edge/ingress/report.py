"""What people are told: events about what is wrong with an Ingress, each once, and the addresses where it is served."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping

from knarr.api.errors import APIError
from knarr.api.networking.v1 import Ingress
from knarr.client.client import MERGE_PATCH, Client
from knarr.client.events import EventRecorder
from knarr.client.informer import Informer
from knarr.clock import Clock
from knarr.edge.ingress.model import Problem

log = logging.getLogger(__name__)

NAME = "ingress-controller"
RETRY_S = 5.0


class Reports:
    """Nothing here may fail or delay what is served."""

    def __init__(
        self,
        client: Client,
        ingresses: Informer[Ingress],
        clock: Clock,
        addresses: Callable[[], Iterable[str] | None] | None = None,
        host: str = "",
    ) -> None:
        """`addresses` answers where Ingress is served now, None while that isn't known; only who tells that tells what
        is wrong with an Ingress everywhere. `host` is the node."""
        self._client = client
        self._ingresses = ingresses
        self._clock = clock
        self._events = EventRecorder(client, clock, NAME, host)
        self._addresses = addresses
        self._told: dict[str, set[Problem]] = {}
        self._served: set[str] = set()
        self._refused: set[str] = set()
        self._wake = asyncio.Event()

    @property
    def of_cluster(self) -> bool:
        """What is so wherever it is looked at is told here."""
        return self._addresses is not None

    def problems(self, problems: Iterable[Problem], served: Mapping[str, Ingress]) -> None:
        """All that is wrong now. What is not new was told before; what is mended may come again."""
        now: dict[str, set[Problem]] = {}
        for problem in problems:
            now.setdefault(problem.ingress, set()).add(problem)
            if problem not in self._told.get(problem.ingress, ()) and problem.ingress in served:
                self._events.warning(served[problem.ingress], problem.reason, problem.message)
        self._told = now

    def warning(self, ingress: Ingress, reason: str, message: str) -> None:
        self._events.warning(ingress, reason, message)

    def served(self, keys: Iterable[str], refused: Iterable[str] = ()) -> None:
        """These are served; those that are refused have no address, or DNS would go on leading to them."""
        self._served, self._refused = set(keys), set(refused)
        self._wake.set()

    def look_again(self) -> None:
        """They may be served elsewhere now."""
        self._wake.set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._events.run(), name="ingress events")
            if self._addresses is not None:
                group.create_task(self._write_addresses(self._addresses), name="ingress addresses")

    async def _write_addresses(self, addresses: Callable[[], Iterable[str] | None]) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            for key in sorted(self._served | self._refused):
                ingress = self._ingresses.get(key)
                known = () if key in self._refused else addresses()
                wanted = [{"ip": each} for each in known or ()]
                if ingress is None or known is None or self._shown(ingress) == wanted:
                    continue
                metadata = ingress.metadata
                status = {"status": {"loadBalancer": {"ingress": wanted}}}
                try:
                    await self._client.patch(
                        Ingress,
                        metadata.name or "",
                        status,
                        metadata.namespace,
                        content_type=MERGE_PATCH,
                        subresource="status",
                    )
                except APIError as error:
                    if error.code == 404:
                        continue
                    log.warning("the addresses of Ingress %s were not written: %s", key, error)
                    await self._clock.sleep(RETRY_S)
                    self._wake.set()

    def _shown(self, ingress: Ingress) -> list[dict[str, str]]:
        balancer = ingress.status.load_balancer if ingress.status else None
        return [{"ip": each.ip or ""} for each in (balancer.ingress if balancer else ())]
