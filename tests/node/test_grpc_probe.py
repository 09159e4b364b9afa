"""gRPC probes, against a real gRPC server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server

from knarr.api.core.v1 import Container, Probe
from knarr.clock import SystemClock
from knarr.node import grpc_probe
from knarr.node.handlers import HostHandlers, Outcome
from knarr.node.runtime.sim import SimRuntime
from tests.ports import closed_port

SERVICES = {"": b"\x08\x01", "up": b"\x08\x01", "down": b"\x08\x02", "odd": b"\x08\x09", "none": b"", "bad": b"\x99"}


class Health:
    """grpc.health.v1.Health, by hand: what it answers is by the service's name."""

    async def check(self, stream: Any) -> None:
        asked = await stream.recv_message()
        name = asked[2:].decode() if asked else ""
        if name == "slow":
            await asyncio.sleep(30)
        if name == "unimplemented":
            raise GRPCError(Status.UNIMPLEMENTED, "unknown method Check")
        if name not in SERVICES:
            raise GRPCError(Status.NOT_FOUND, "unknown service")
        await stream.send_message(SERVICES[name])

    def __mapping__(self) -> dict[str, Handler]:
        return {grpc_probe.METHOD: Handler(self.check, Cardinality.UNARY_UNARY, bytes, bytes)}


@pytest.fixture
async def port() -> AsyncIterator[int]:
    server = Server([Health()], codec=grpc_probe._codec())
    await server.start("127.0.0.1", 0)
    assert server._server is not None
    yield server._server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()


async def probe(port: int, service: str | None = None, timeout_s: float = 30.0) -> Outcome:
    handlers = HostHandlers(SimRuntime(SystemClock()), SystemClock())
    wanted = msgspec.convert({"grpc": {"port": port, "service": service}}, Probe)
    return await handlers.run(wanted, Container(name="main"), "id", "127.0.0.1", timeout_s)


@pytest.mark.parametrize(
    ("service", "outcome"),
    [
        (None, Outcome(True)),
        ("up", Outcome(True)),
        ("down", Outcome(False, 'service unhealthy (responded with "NOT_SERVING")')),
        ("none", Outcome(False, 'service unhealthy (responded with "UNKNOWN")')),
        ("odd", Outcome(False, 'service unhealthy (responded with "9")')),
        ("bad", Outcome(False, "error: health rpc probe failed: the answer is no HealthCheckResponse")),
        (
            "nobody",
            Outcome(False, "error: health rpc probe failed: rpc error: code = NotFound desc = unknown service"),
        ),
    ],
)
async def test_the_health_service_is_asked(port: int, service: str | None, outcome: Outcome) -> None:
    assert await probe(port, service) == outcome


async def test_one_that_does_not_answer_is_not_waited_for(port: int) -> None:
    outcome = await probe(port, "slow", 1)
    assert outcome == Outcome(False, "timeout: health rpc did not complete within 1s")


async def test_a_port_where_nobody_listens() -> None:
    with closed_port() as closed:
        text = f'timeout: failed to connect service "127.0.0.1:{closed}" within 30s: context deadline exceeded'
        assert await probe(closed) == Outcome(False, text)


async def test_a_server_that_speaks_something_else() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        outcome = await probe(server.sockets[0].getsockname()[1])
    assert not outcome.success
    assert outcome.message.startswith("error: health rpc probe failed")


async def test_a_server_without_the_health_service(port: int) -> None:
    text = "error: this server does not implement the grpc health protocol (grpc.health.v1.Health)"
    assert await probe(port, "unimplemented") == Outcome(False, f"{text}: unknown method Check")


def test_a_long_name_is_written_with_its_length() -> None:
    assert grpc_probe.request("x" * 300)[:3] == b"\x0a\xac\x02"
    assert grpc_probe.status(b"\x08\x81\x01") == 129
