"""WebSocket, HTTP/2 and gRPC through a real Envoy, with and without TLS."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from grpclib.client import Channel, UnaryUnaryMethod
from grpclib.const import Cardinality, Handler
from grpclib.server import Server

from tests.edge.ingress.lab import HERE, WAIT_S_MAX, Lab, lab
from tests.edge.ingress.objects import ingress, service, slice_of, tls_secret

METHOD = "/greeter.Greeter/"
PATHS = [("shop.example", "Prefix", "/", "web")]


class _Bytes:
    """Messages are bytes as they are."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return bytes(message)

    def decode(self, data: bytes, message_type: Any) -> Any:
        return data


class _Greeter:
    async def one(self, stream: Any) -> None:
        request = await stream.recv_message()
        await stream.send_message(b"hello " + request)

    async def each(self, stream: Any) -> None:
        async for request in stream:
            await stream.send_message(b"hello " + request)

    def __mapping__(self) -> dict[str, Handler]:
        return {
            f"{METHOD}One": Handler(self.one, Cardinality.UNARY_UNARY, bytes, bytes),
            f"{METHOD}Each": Handler(self.each, Cardinality.STREAM_STREAM, bytes, bytes),
        }


@asynccontextmanager
async def greeter(edge: Lab, *, app_protocol: str | None = None) -> AsyncIterator[None]:
    server = Server([_Greeter()], codec=_Bytes())
    await server.start(HERE, 0)
    assert server._server
    port = server._server.sockets[0].getsockname()[1]
    await edge.create(service("web", app_protocol=app_protocol))
    await edge.create(slice_of("web", [(HERE, port)]))
    try:
        yield
    finally:
        server.close()
        await server.wait_closed()


async def greeted(edge: Lab, *, tls: bool) -> tuple[bytes, list[bytes]]:
    """What a unary call and a conversation answer."""
    context: ssl.SSLContext | None = None
    if tls:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
    port = edge.https_port if tls else edge.http_port
    channel = Channel("127.0.0.1", port, ssl=context, codec=_Bytes())
    channel._authority = "shop.example"
    try:
        one: bytes = await UnaryUnaryMethod(channel, f"{METHOD}One", bytes, bytes)(b"you")
        answers = []
        async with channel.request(f"{METHOD}Each", Cardinality.STREAM_STREAM, bytes, bytes) as stream:
            for name in (b"a", b"b"):
                await stream.send_message(name)
                answers.append(await stream.recv_message())  # before the next one is sent
            await stream.end()
        return one, answers
    finally:
        channel.close()


@pytest.mark.parametrize(
    ("app_protocol", "annotations"),
    [("kubernetes.io/h2c", {}), (None, {"backend-protocol": "GRPC"}), ("kubernetes.io/h2c", {"proxy-body-size": "1m"})],
)
async def test_grpc_without_tls(app_protocol: str | None, annotations: dict[str, str]) -> None:
    async with lab() as edge, greeter(edge, app_protocol=app_protocol):
        await edge.create(ingress("shop", PATHS, annotations=annotations))
        await edge.applied()
        assert await greeted(edge, tls=False) == (b"hello you", [b"hello a", b"hello b"])


async def test_grpc_in_tls() -> None:
    async with lab() as edge, greeter(edge, app_protocol="kubernetes.io/h2c"):
        await edge.create(tls_secret("shop", "shop.example"))
        await edge.create(ingress("shop", PATHS, tls=[("shop", ["shop.example"])]))
        await edge.applied()
        assert await greeted(edge, tls=True) == (b"hello you", [b"hello a", b"hello b"])


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("annotations", [{}, {"proxy-body-size": "1m"}])
async def test_websocket(tls: bool, annotations: dict[str, str]) -> None:
    async with lab() as edge:
        await edge.backend("web")
        await edge.create(tls_secret("shop", "shop.example"))
        secrets = [("shop", ["shop.example"])] if tls else []
        await edge.create(ingress("shop", PATHS, tls=secrets, annotations=annotations))
        await edge.applied()
        url = f"wss://shop.example:{edge.https_port}/" if tls else f"ws://shop.example:{edge.http_port}/"
        async with edge.session.ws_connect(url) as talk:
            for text in ("one", "two"):
                await talk.send_str(text)
                assert await talk.receive_str(timeout=WAIT_S_MAX) == f"web: {text}"


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("tls", [False, True])
async def test_http2_clients_reach_http1_backends(tls: bool) -> None:
    async with lab() as edge:
        await edge.backend("web")
        await edge.create(tls_secret("shop", "shop.example"))
        await edge.create(ingress("shop", PATHS, tls=[("shop", ["shop.example"])] if tls else []))
        await edge.applied()
        scheme, port = ("https", edge.https_port) if tls else ("http", edge.http_port)
        process = await asyncio.create_subprocess_exec(
            *("curl", "-sk", "--resolve", f"shop.example:{port}:127.0.0.1"),
            *("--http2" if tls else "--http2-prior-knowledge", "-w", " %{http_version} %{http_code}"),
            f"{scheme}://shop.example:{port}/two",
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await process.communicate()
        assert output.endswith(b" 2 200"), output
        assert b'"path": "/two"' in output


async def test_a_backend_may_speak_tls() -> None:
    async with lab() as edge:
        running = await edge.server("secure")
        from aiohttp import web

        secret = tls_secret("backend", "inside.example")
        import tempfile
        from pathlib import Path

        with tempfile.TemporaryDirectory() as folder:
            for name, data in secret.data.items():
                (Path(folder) / name).write_bytes(data)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(Path(folder) / "tls.crt", Path(folder) / "tls.key")
        assert running._runner
        await web.TCPSite(running._runner, HERE, 0, ssl_context=context).start()
        port = running._runner.addresses[1][1]
        await edge.create(service("web", app_protocol="https"))
        await edge.create(slice_of("web", [(HERE, port)]))
        await edge.create(ingress("shop", PATHS))
        await edge.applied()
        assert (await edge.get("shop.example")).backend == "secure"
