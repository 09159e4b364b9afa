"""A connection that is no HTTP any more: what either end says goes to the other as it is, until one of them ends.

So exec, port-forward and the like reach servers of other parts of the API, whatever they speak: WebSockets, SPDY.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from aiohttp import web

from knarr.client.transport import Tunnel

CHUNK_BYTES = 64 << 10


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
    tasks = [asyncio.ensure_future(_inward(said, tunnel)), asyncio.ensure_future(_outward(tunnel, incoming))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
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
