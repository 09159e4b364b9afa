"""A gRPC probe: asks the standard health service (grpc.health.v1.Health/Check) in plain text, as upstream's prober.

The two messages have one field each, so they are read and written here; HTTP/2 and gRPC are grpclib's.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grpclib.client import Channel

METHOD = "/grpc.health.v1.Health/Check"
STATUSES = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
SERVING = 1


async def ask(host: str, port: int, service: str, timeout_s: float) -> tuple[bool, str]:
    """Whether it serves, and what an event says where it doesn't."""
    from grpclib.client import Channel  # a node without gRPC probes doesn't pay for it

    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    channel = Channel(host, port, codec=_codec())
    try:
        async with asyncio.timeout(timeout_s):
            await channel.__connect__()
    except (OSError, TimeoutError):
        channel.close()
        # Upstream's client tries again until the time is over, and says no more than that.
        text = f'timeout: failed to connect service "{address}" within {timeout_s:g}s: context deadline exceeded'
        return False, text
    try:
        return await _check(channel, service, timeout_s)
    finally:
        channel.close()


async def _check(channel: Channel, service: str, timeout_s: float) -> tuple[bool, str]:
    from grpclib.client import UnaryUnaryMethod
    from grpclib.const import Status
    from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

    check: UnaryUnaryMethod[bytes, bytes] = UnaryUnaryMethod(channel, METHOD, bytes, bytes)
    try:
        async with asyncio.timeout(timeout_s):
            found = status(await check(request(service)))
    except TimeoutError:
        return False, f"timeout: health rpc did not complete within {timeout_s:g}s"
    except GRPCError as error:
        if error.status is Status.UNIMPLEMENTED:
            text = "error: this server does not implement the grpc health protocol (grpc.health.v1.Health)"
            return False, f"{text}: {error.message}"
        code = error.status.name.title().replace("_", "")
        return False, f"error: health rpc probe failed: rpc error: code = {code} desc = {error.message or ''}"
    except (OSError, ProtocolError, StreamTerminatedError, ValueError) as error:
        return False, f"error: health rpc probe failed: {error}"
    return (
        found == SERVING,
        "" if found == SERVING else f'service unhealthy (responded with "{STATUSES.get(found, found)}")',
    )


def request(service: str) -> bytes:
    """HealthCheckRequest: field 1, a string."""
    name = service.encode()
    return b"\x0a" + _varint(len(name)) + name if name else b""


def status(answer: bytes) -> int:
    """HealthCheckResponse: field 1, an enumeration. Raises ValueError."""
    if not answer:
        return 0
    if answer[0] != 0x08 or len(answer) < 2:
        raise ValueError("the answer is no HealthCheckResponse")
    value = shift = 0
    for byte in answer[1:11]:
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value
        shift += 7
    raise ValueError("the answer is no HealthCheckResponse")


def _varint(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*found, value))


def _codec() -> Any:
    """Bytes as they are."""
    from grpclib.encoding.base import CodecBase

    class Bytes(CodecBase):
        __content_subtype__ = "proto"

        def encode(self, message: Any, message_type: Any) -> bytes:
            return bytes(message)

        def decode(self, data: bytes, message_type: Any) -> Any:
            return data

    return Bytes()
