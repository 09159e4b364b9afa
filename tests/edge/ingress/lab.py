"""An edge with a real Envoy on loopback, an API server in memory, and backends of a few lines."""

from __future__ import annotations

import asyncio
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from knarr.api.core.v1 import Event, Namespace
from knarr.api.discovery.v1 import EndpointSlice
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.networking.v1 import Ingress
from knarr.api.registry import built_in
from knarr.apiserver.server import APIServer, InProcessTransport
from knarr.client.client import Client
from knarr.client.informer import Informers, version_of
from knarr.client.transport import User
from knarr.clock import SystemClock
from knarr.edge.ingress.edge import IngressEdge
from knarr.edge.ingress.envoy import Serving
from knarr.edge.ingress.model import Endpoint
from knarr.edge.ingress.names import Resolve, by_host
from knarr.edge.ingress.report import Reports
from knarr.store.memory import MemoryStore
from tests.edge.ingress.objects import OURS, service, slice_of
from tests.ports import free_ports


def own_address() -> str:
    """Of this machine, and not loopback: no endpoint may be there. Nothing is sent to find out."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])


HERE = own_address()
WAIT_S_MAX = 60.0
ADDRESS = "192.0.2.80"
"""What the status tells."""


class Backend:
    """An HTTP server that tells what it was asked."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = 0
        self.requests = 0
        self.pause_s = 0.0
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        application = web.Application(client_max_size=64 << 20)
        application.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(application, access_log=None, keepalive_timeout=75)
        await self._runner.setup()
        site = web.TCPSite(self._runner, HERE, 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        if request.headers.get("upgrade", "").lower() == "websocket":
            talk = web.WebSocketResponse()
            await talk.prepare(request)
            async for message in talk:
                await talk.send_str(f"{self.name}: {message.data}")
            return talk
        body = await request.read()
        if self.pause_s:
            await asyncio.sleep(self.pause_s)
        told = {
            "backend": self.name,
            "method": request.method,
            "path": request.raw_path,
            "headers": {name.lower(): text for name, text in request.headers.items()},
            "length": len(body),
        }
        return web.json_response(told)


class Answer:
    def __init__(self, status: int, headers: Any, text: str, body: Any) -> None:
        self.status, self.headers, self.text, self.body = status, headers, text, body

    @property
    def backend(self) -> str:
        return str(self.body["backend"]) if self.body else ""


class _Here(AbstractResolver):
    """Every name is this machine."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}]

    async def close(self) -> None:
        return


class Lab:
    def __init__(self, client: Client, informers: Informers, edge: IngressEdge, ports: tuple[int, int, int]) -> None:
        self.client = client
        self.informers = informers
        self.edge = edge
        self.http_port, self.https_port, self.metrics_port = ports
        self.revision = self.markers = 0
        self.tasks: list[asyncio.Task[None]] = []
        self._backends: list[Backend] = []
        insecure = ssl.create_default_context()
        insecure.check_hostname, insecure.verify_mode = False, ssl.CERT_NONE
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=_Here(), ssl=insecure, limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )

    async def backend(self, name: str, **fields: Any) -> Backend:
        """A server, and the Service in front of it."""
        running = await self.server(name)
        await self.create(service(name, **fields))
        await self.create(slice_of(name, [(HERE, running.port)]))
        return running

    async def server(self, name: str) -> Backend:
        running = Backend(name)
        await running.start()
        self._backends.append(running)
        return running

    async def create(self, obj: Any) -> Any:
        made = await self.client.create(obj)
        self.revision = version_of(made)
        return made

    async def update(self, obj: Any) -> Any:
        found = await self.client.get(type(obj), obj.metadata.name, obj.metadata.namespace)
        obj.metadata.resource_version = found.metadata.resource_version
        obj.metadata.uid = found.metadata.uid
        made = await self.client.update(obj)
        self.revision = version_of(made)
        return made

    async def applied(self) -> None:
        """Envoy has everything that was written until now."""
        marker = slice_of("marker", [])
        self.markers += 1
        marker.metadata.name = f"marker-{self.markers}"
        made = await self.client.create(marker)
        for kind in (Ingress, EndpointSlice):
            await self.informers.of(kind).synced.wait()
        async with asyncio.timeout(WAIT_S_MAX):
            await self.edge.synced(version_of(made))

    async def get(self, host: str, path: str = "/", *, method: str = "GET", tls: bool = False, **more: Any) -> Answer:
        scheme, port = ("https", self.https_port) if tls else ("http", self.http_port)
        from yarl import URL

        url = URL(f"{scheme}://{host}:{port}{path}", encoded=True)
        more.setdefault("allow_redirects", False)
        async with self.session.request(method, url, **more) as answer:
            text = await answer.text()
            is_json = answer.content_type == "application/json"
            return Answer(answer.status, answer.headers, text, await answer.json() if is_json else None)

    async def events(self, reason: str) -> list[str]:
        found = await self.client.list(Event)
        return [event.message or "" for event in found.items if event.reason == reason]

    async def until(self, holds: Callable[[], Any]) -> Any:
        """Poll an asynchronous condition that nobody tells of."""
        async with asyncio.timeout(WAIT_S_MAX):
            while not (found := await holds()):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            return found

    async def certificate(self, host: str) -> bytes:
        """That is shown for a name (DER)."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.https_port, ssl=context, server_hostname=host or None
        )
        del reader
        shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        await writer.wait_closed()
        return shown

    async def stop(self) -> None:
        """The end of the edge, as its process does it."""
        tasks, self.tasks = self.tasks, []
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await self.edge.close()
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                raise result

    async def close(self) -> None:
        await self.session.close()
        for each in self._backends:
            await each.close()


@asynccontextmanager
async def lab(
    *,
    refuse: Callable[[Endpoint], bool] = lambda endpoint: False,
    resolve: Resolve = by_host,
    ports: tuple[int, int, int] | None = None,
    inside: str = "ingress",
    address: str = "127.0.0.1",
    node_only: bool = False,
    **more: Any,
) -> AsyncIterator[Lab]:
    """With `node_only` the edge is that of a node that tells only of itself; `more` is for IngressEdge."""
    clock = SystemClock()
    server = APIServer(MemoryStore(), built_in(), clock)
    user = User("admin", ("system:masters", "system:authenticated"))
    client = Client(InProcessTransport(server), built_in(), user)
    for name in ("default", "other"):
        await client.create(Namespace(metadata=ObjectMeta(name=name)))
    await client.create(OURS)
    informers = Informers(client, clock)
    http, https, metrics = ports or free_ports(3)  # type: ignore[misc]
    if node_only:
        more["reports"] = Reports(client, informers.of(Ingress), clock, host=more.get("node_name", ""))
    with tempfile.TemporaryDirectory() as folder:
        edge = IngressEdge(
            client,
            informers,
            clock,
            folder=Path(folder) / inside,
            serving=Serving(address, http, https, metrics),
            addresses=[ADDRESS],
            refuse=refuse,
            resolve=resolve,
            concurrency=2,
            **more,
        )
        running = Lab(client, informers, edge, (http, https, metrics))
        tasks = [asyncio.create_task(informers.run()), asyncio.create_task(edge.run())]
        running.tasks = tasks
        try:
            yield running
        finally:
            await running.stop()
            await running.close()
