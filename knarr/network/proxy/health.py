"""What load balancers and probes may ask a node about its service rules.

* `healthCheckNodePort` of a Service with externalTrafficPolicy Local: does this node have endpoints of it? 200 with
  them, 503 without, in kube-proxy's form; the header X-Load-Balancing-Endpoint-Weight says how many.
* :10256 `/healthz`: may new connections be sent to this node (KEP-3836)? Not while it is being removed. `/livez`: are
  the rules kept up to date?
* 127.0.0.1:10249 `/metrics`, and `/proxyMode`.

A port that something else has is told by an event, and tried again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Callable
from datetime import UTC, datetime

from msgspec import Struct

from knarr.api.core.v1 import Node, Service
from knarr.api.meta.v1 import ObjectMeta
from knarr.client.events import EventRecorder
from knarr.clock import Clock
from knarr.network.pages import Page, Pages
from knarr.network.proxy.model import ANY_ADDRESS, HealthCheck
from knarr.network.proxy.service_proxy import ServiceProxy

log = logging.getLogger(__name__)

HEALTHZ_PORT = 10256
METRICS_PORT = 10249
RETRY_S = 5.0
EVERYWHERE = "" if socket.has_dualstack_ipv6() else "0.0.0.0"
_JSON = "application/json"
_NO_SNIFFING = {"X-Content-Type-Options": "nosniff"}


class _Asked(Struct):
    """The server of one Service's healthCheckNodePort."""

    port: int
    addresses: tuple[str, ...]
    pages: Pages


class ServiceHealth:
    """The pages of one node's proxy. `run` until cancelled."""

    def __init__(
        self,
        proxy: ServiceProxy,
        clock: Clock,
        events: EventRecorder,
        *,
        node_name: str,
        network_namespace: str | None = None,
        healthz_port: int = HEALTHZ_PORT,
        metrics_port: int = METRICS_PORT,
    ) -> None:
        self._proxy = proxy
        self._clock = clock
        self._events = events
        self._node_name = node_name
        self._namespace = network_namespace
        self._asked: dict[str, _Asked] = {}
        self._told: set[tuple[str, str]] = set()
        """Failures that there are events of."""
        self.healthz = self._pages({"/healthz": self._healthz, "/livez": self._livez}, EVERYWHERE, healthz_port)
        self.metrics = self._pages(
            {
                "/metrics": self._metrics,
                "/healthz": lambda: Page(b"ok"),
                "/proxyMode": lambda: Page(proxy.mode.encode()),
            },
            "127.0.0.1",
            metrics_port,
        )

    async def run(self) -> None:
        """Serve, until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep(self.healthz, "FailedToStartProxierHealthcheck", "proxy healthz"))
                group.create_task(self._keep(self.metrics, "FailedToStartMetrics", "proxy metrics"))
                group.create_task(self._follow())
        finally:
            await self.healthz.close()
            await self.metrics.close()
            for name in list(self._asked):
                await self._close(name)

    async def _keep(self, pages: Pages, reason: str, what: str) -> None:
        """Start, and try again while the port is another's."""
        while True:
            try:
                await pages.start()
                return
            except OSError as failure:
                about = Node(metadata=ObjectMeta(name=self._node_name, uid=self._node_name))
                self._tell(what, about, reason, f"failed to start {what}: {failure}")
                await self._clock.sleep(RETRY_S)

    async def _follow(self) -> None:
        """A server for each Service that wants one, at the addresses where node ports are answered."""
        while True:
            self._proxy.news.clear()
            failed = await self._reconcile()
            try:
                async with self._clock.timeout(RETRY_S if failed else None):
                    await self._proxy.news.wait()
            except TimeoutError:
                continue

    async def _reconcile(self) -> bool:
        """Answers whether something could not be opened."""
        wanted = self._proxy.health_checks
        addresses = tuple(self._addresses())
        for name, asked in list(self._asked.items()):
            if name not in wanted or (wanted[name].port, addresses) != (asked.port, asked.addresses):
                await self._close(name)
        failed = False
        for name, check in list(wanted.items()):
            if name in self._asked or not addresses:
                continue
            pages = Pages(
                {"/{path:.*}": self._of_service(name)},
                [(address, check.port) for address in addresses],
                network_namespace=self._namespace,
            )
            try:
                await pages.start()
            except OSError as failure:
                failed = True
                message = f'node {self._node_name} failed to start healthcheck "{name}" on port {check.port}: {failure}'
                service = self._proxy.service(name) or Service()
                self._tell(name, service, "FailedToStartServiceHealthcheck", message)
                continue
            self._told = {each for each in self._told if each[0] != name}
            self._asked[name] = _Asked(check.port, addresses, pages)
        return failed

    def _addresses(self) -> list[str]:
        answering = self._proxy.node_port_addresses
        if set(ANY_ADDRESS.values()) <= set(answering):
            return [EVERYWHERE]
        return list(answering)

    async def _close(self, name: str) -> None:
        await self._asked.pop(name).pages.close()

    def _tell(self, what: str, about: Node | Service, reason: str, message: str) -> None:
        if (what, message) not in self._told:
            self._told.add((what, message))
            log.warning("%s", message)
            self._events.warning(about, reason, message)

    # The pages

    def _of_service(self, name: str) -> Callable[[], Page]:
        namespace, _, service = name.partition("/")

        def answer() -> Page:
            check = self._proxy.health_checks.get(name) or HealthCheck(0, 0)
            healthy = self._proxy.health.is_healthy
            body = {
                "service": {"namespace": namespace, "name": service},
                "localEndpoints": check.local_endpoints,
                "serviceProxyHealthy": healthy,
            }
            return Page(
                json.dumps(body, indent="\t").encode(),
                200 if check.local_endpoints and healthy else 503,
                _JSON,
                {**_NO_SNIFFING, "X-Load-Balancing-Endpoint-Weight": str(check.local_endpoints)},
            )

        return answer

    def _healthz(self) -> Page:
        health = self._proxy.health
        return self._probe(
            "healthz", health.is_healthy and health.node_eligible, {"nodeEligible": health.node_eligible}
        )

    def _livez(self) -> Page:
        return self._probe("livez", self._proxy.health.is_healthy, {})

    def _probe(self, page: str, good: bool, more: dict[str, bool]) -> Page:
        now_s = self._clock.time_s()
        code = 200 if good else 503
        self._proxy.figures.answered(page, code)
        # Whoever is healthy was up to date just now, whenever something changed last.
        times = {"lastUpdated": now_s if good else self._proxy.health.updated_at_s, "currentTime": now_s}
        body = {**{name: _written(time_s) for name, time_s in times.items()}, **more}
        return Page(json.dumps(body).encode(), code, _JSON, _NO_SNIFFING)

    def _metrics(self) -> Page:
        from knarr.exposition import CONTENT_TYPE, exposed  # only who collects figures pays for it

        return Page(exposed([self._proxy.figures.figures]), content_type=CONTENT_TYPE)

    def _pages(self, pages: dict[str, Callable[[], Page]], address: str, port: int) -> Pages:
        return Pages(pages, [(address, port)], network_namespace=self._namespace)


def _written(time_s: float) -> str:
    """As Go prints a time."""
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M:%S.%f +0000 UTC")
