"""HTTP and TCP actions, against servers on loopback."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from aiohttp import web

from knarr.api.core.v1 import Container, Probe
from knarr.clock import SystemClock
from knarr.node.handlers import HostHandlers, Outcome
from knarr.node.runtime.sim import SimRuntime
from tests.ports import closed_port


class Server:
    """Answers by the path, and remembers what it was asked."""

    def __init__(self) -> None:
        self.port = 0
        self.asked: list[web.Request] = []
        self.release = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request)
        if request.path == "/slow":
            await self.release.wait()
        if request.path == "/moved":
            raise web.HTTPFound("/status/204")
        if request.path == "/elsewhere":
            raise web.HTTPFound(f"http://localhost:{self.port}/status/500")
        if request.path == "/round":
            raise web.HTTPFound("/round")
        return web.Response(status=int(request.path.rpartition("/")[2] or 200), text="x" * 100_000)


async def serving(context: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server()
    application = web.Application()
    application.router.add_get("/{path:.*}", server.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    server.port = runner.addresses[0][1]
    yield server
    server.release.set()
    await runner.cleanup()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async for made in serving():
        yield made


@pytest.fixture
async def handlers() -> AsyncIterator[HostHandlers]:
    clock = SystemClock()
    made = HostHandlers(SimRuntime(clock), clock)
    yield made
    await made.close()


async def ask(
    handlers: HostHandlers, container: dict[str, Any] | None = None, timeout_s: float = 30, **probe: Any
) -> Outcome:
    made = msgspec.convert({"name": "main", **(container or {})}, Container)
    return await handlers.run(msgspec.convert(probe, Probe), made, "id", "127.0.0.1", timeout_s)


@pytest.mark.parametrize(
    ("path", "success"), [("/status/200", True), ("/status/399", True), ("/status/400", False), ("/moved", True)]
)
async def test_http_success_is_200_to_399(path: str, success: bool, server: Server, handlers: HostHandlers) -> None:
    outcome = await ask(handlers, httpGet={"path": path, "port": server.port})
    assert outcome.success is success
    if not success:
        assert outcome.message == f"HTTP probe failed with statuscode: {path[-3:]}"


async def test_http_headers_host_and_named_ports(server: Server, handlers: HostHandlers) -> None:
    headers = [{"name": "Host", "value": "web.example"}, {"name": "X-Probe", "value": "1"}]
    container = {"ports": [{"name": "http", "containerPort": server.port}]}
    outcome = await ask(
        handlers, container, httpGet={"path": "/status/200?full=1", "port": "http", "httpHeaders": headers}
    )
    assert outcome.success
    [request] = server.asked
    assert request.headers["Host"] == "web.example"
    assert request.headers["X-Probe"] == "1"
    assert request.headers["User-Agent"].startswith("kube-probe/1.36")
    assert request.query_string == "full=1"
    nowhere = await ask(handlers, httpGet={"port": "nobody"})
    assert not nowhere.success


async def test_http_that_takes_too_long_or_is_refused(server: Server, handlers: HostHandlers) -> None:
    slow = await ask(handlers, timeout_s=0.05, httpGet={"path": "/slow", "port": server.port})
    assert slow == Outcome(False, f'Get "http://127.0.0.1:{server.port}/slow": context deadline exceeded')
    with closed_port() as closed:
        refused = await ask(handlers, httpGet={"path": "/", "port": closed})
    where = f"127.0.0.1:{closed}"
    assert refused == Outcome(False, f'Get "http://{where}/": dial tcp {where}: connect: connection refused')


async def test_https_is_not_verified(handlers: HostHandlers, tmp_path_factory: pytest.TempPathFactory) -> None:
    from knarr import pki

    folder = tmp_path_factory.mktemp("pki")
    pair = pki.ensure(folder, SystemClock(), dns_names=["elsewhere"], addresses=[]).apiserver
    (folder / "c.pem").write_bytes(pair.certificate_pem)
    (folder / "k.pem").write_bytes(pair.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "c.pem", folder / "k.pem")
    async for server in serving(context):
        assert (await ask(handlers, httpGet={"path": "/status/200", "port": server.port, "scheme": "HTTPS"})).success


async def test_tcp(server: Server, handlers: HostHandlers) -> None:
    assert (await ask(handlers, tcpSocket={"port": server.port})).success
    with closed_port() as closed:
        refused = await ask(handlers, tcpSocket={"port": closed})
    assert refused == Outcome(False, f"dial tcp 127.0.0.1:{closed}: connect: connection refused")


async def test_a_redirect_to_another_host_is_success_and_not_followed(server: Server, handlers: HostHandlers) -> None:
    outcome = await ask(handlers, httpGet={"port": server.port, "path": "/elsewhere"})
    assert outcome.success
    assert [request.path for request in server.asked] == ["/elsewhere"]


async def test_redirects_in_a_circle_fail(server: Server, handlers: HostHandlers) -> None:
    outcome = await ask(handlers, httpGet={"port": server.port, "path": "/round"})
    assert not outcome.success
    assert outcome.message.endswith("stopped after 10 redirects")
    assert len(server.asked) == 10
