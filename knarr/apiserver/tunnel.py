"""A connection that is no HTTP any more: what either end says goes to the other as it is, until one of them ends.

So exec, port-forward and the like reach servers of other parts of the API, and WebSockets reach pods and Services by
the proxy, whatever they speak.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable, Mapping
from typing import Any, cast

from aiohttp import web

from knarr.apiserver.forwarding import CONNECT_S, Address
from knarr.client.transport import Answer, Tunnel
from knarr.clock import Clock, until_one_ends

CHUNK_BYTES = 64 << 10
HEAD_MAX_BYTES = 64 << 10
"""Of an answer to a request to upgrade."""
ANSWER_MAX_S = 60.0
REFUSAL_MAX_BYTES = 1 << 20
FAULTS = (TimeoutError, OSError, ValueError, IndexError, asyncio.IncompleteReadError, asyncio.LimitOverrunError)
"""What may come of a backend that answers no HTTP, or nothing at all."""


def wants_upgrade(headers: Mapping[str, str]) -> bool:
    """Whether a request wants to speak something else from then on."""
    return "upgrade" in headers.get("connection", "").lower() and bool(headers.get("upgrade"))


def written(line: str, headers: Iterable[tuple[str, str]], body: bytes, protocol: str) -> bytes:
    """A request that wants to speak `protocol`, as it goes over the wire. Raises ValueError."""
    every = [*headers, ("connection", "Upgrade"), ("upgrade", protocol)]
    if body:
        every.append(("content-length", str(len(body))))
    lines = [line, *(f"{name}: {value}" for name, value in every)]
    if any(character in each for each in lines for character in "\r\n\0"):
        raise ValueError("a header has more than one line")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


async def opened(
    clock: Clock, place: Address, asked: bytes, context: ssl.SSLContext | None, name: str | None = None
) -> Answer:
    """What a backend answers to such a request: a tunnel, or its refusal. With `context` it is asked over TLS, and
    must be known by `name`, where there is one. Raises FAULTS."""
    async with clock.timeout(CONNECT_S):
        reader, writer = await asyncio.open_connection(
            place.host, place.port, ssl=context, server_hostname=name, limit=HEAD_MAX_BYTES
        )
    try:
        writer.write(asked)
        async with clock.timeout(ANSWER_MAX_S):
            head = await reader.readuntil(b"\r\n\r\n")
            status = int(head.split(b" ", 2)[1])
            if status == 101:
                return Answer(101, {}, tunnel=Tunnel(head, reader, writer))
            return await _refusal(status, head, reader, writer)
    except BaseException:
        writer.close()
        raise


async def _refusal(status: int, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Answer:
    """The backend does not upgrade: its answer, as far as it says how long that is."""
    lines = head.decode("latin-1").split("\r\n")[1:]
    parts = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines) if name}
    length = min(int(parts.get("content-length", "0")), REFUSAL_MAX_BYTES)
    body = await reader.readexactly(length) if length > 0 else b""
    writer.close()
    headers = {"content-type": parts["content-type"]} if "content-type" in parts else {}
    return Answer(status, headers, body)


async def carry(incoming: web.BaseRequest, tunnel: Tunnel) -> None:
    """Join a client, which waits for the answer, to a backend that has given it."""
    transport = incoming.transport
    if transport is None:
        tunnel.writer.close()
        return
    said = asyncio.StreamReader(limit=CHUNK_BYTES)
    said.set_transport(transport)  # It stops reading from a client whose words nobody takes.
    transport.write(tunnel.head)
    protocol = incoming.protocol
    protocol.set_parser(cast(Any, _Raw(said)))
    try:
        await until_one_ends(_inward(said, tunnel), _outward(tunnel, incoming))
    finally:
        tunnel.writer.close()


async def _inward(said: asyncio.StreamReader, tunnel: Tunnel) -> None:
    while data := await said.read(CHUNK_BYTES):
        tunnel.writer.write(data)
        await tunnel.writer.drain()


async def _outward(tunnel: Tunnel, incoming: web.BaseRequest) -> None:
    while data := await tunnel.reader.read(CHUNK_BYTES):
        if incoming.transport is None or incoming.transport.is_closing():
            return
        incoming.transport.write(data)
        await incoming.writer.drain()


class _Raw:
    """Takes what comes from the client in the place of the parser of HTTP."""

    def __init__(self, said: asyncio.StreamReader) -> None:
        self._said = said

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self._said.feed_data(data)
        return False, b""

    def feed_eof(self) -> None:
        self._said.feed_eof()

    def set_exception(self, *fault: object) -> None:
        self._said.feed_eof()
