"""Streams in WebSockets: between clients and API server, and between API server and nodes in other processes.

v5.channel.k8s.io and v4.channel.k8s.io (KEP-4006) carry several: the first byte of each message says which one it
belongs to. exec and attach have the standard streams, one for how it ended, one for the terminal's size; a forwarded
port has one for data and one for what goes wrong.

A node's connection protocol carries one connection to a port, with an end for each direction, which channels lack:
first the node says whether the pod took the connection, then messages are data, and an empty one is the end.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Annotated

import msgspec

from knarr.api.errors import APIError
from knarr.client.nodes import Streams
from knarr.client.transport import Socket
from knarr.clock import until_one_ends

STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
COMMAND_SUBPROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
PORT_SUBPROTOCOL = "v4.channel.k8s.io"
CONNECTION_SUBPROTOCOL = "v1.connection.knarr.dev"
CHUNK_BYTES = 32 << 10

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[int], Awaitable[Ends]]


class _Size(msgspec.Struct, rename="pascal"):
    """A terminal's, as the kernel takes it."""

    width: Annotated[int, msgspec.Meta(ge=0, lt=1 << 16)] = 0
    height: Annotated[int, msgspec.Meta(ge=0, lt=1 << 16)] = 0


async def serve_command(socket: Socket, begin: Callable[[], Awaitable[Streams]], *, reports_exit: bool) -> None:
    """An exec or attach session, from its beginning to its end; what goes wrong is told to the client."""
    try:
        streams = await begin()
    except APIError as error:
        await socket.send(bytes((ERROR,)) + msgspec.json.encode(error.status()))
        return
    try:
        await _join(socket, streams, reports_exit=reports_exit)
    finally:
        await streams.close()


async def _join(socket: Socket, streams: Streams, *, reports_exit: bool) -> None:
    """Carry bytes both ways until the process ends or the client goes."""

    async def inward() -> None:
        while (message := await socket.receive()) is not None:
            if not message:
                continue
            channel, data = message[0], message[1:]
            if channel == STDIN:
                if data:
                    await streams.write(data)
            elif channel == RESIZE:
                with suppress(msgspec.MsgspecError):  # a size that is none changes nothing
                    size = msgspec.json.decode(data, type=_Size)
                    await streams.resize(size.width, size.height)
            elif channel == CLOSE and data[:1] == bytes((STDIN,)):
                await streams.close_stdin()

    async def outward() -> None:
        try:
            async for channel, data in streams.output():
                await socket.send(bytes((channel,)) + data)
            status = exit_status(await streams.exit_code() if reports_exit else 0)
        except APIError as error:  # The node is elsewhere, and has found it out just now.
            await socket.send(bytes((ERROR,)) + msgspec.json.encode(error.status()))
        else:
            await socket.send(bytes((ERROR,)) + msgspec.json.encode(status))

    await until_one_ends(inward(), outward())


def exit_status(code: int) -> dict[str, object]:
    """How a process ended, as clients are told."""
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


async def serve_ports(
    socket: Socket, ports: list[int], connect: Connect, fault: Callable[[int, Exception], bytes]
) -> None:
    """Forwarded ports: channel 2n for the data of the nth, 2n+1 for what goes wrong with it."""
    for index, port in enumerate(ports):
        for channel in (2 * index, 2 * index + 1):
            await socket.send(bytes((channel,)) + struct.pack("<H", port))
    async with asyncio.TaskGroup() as group:
        writers: dict[int, asyncio.StreamWriter] = {}
        for index, port in enumerate(ports):
            try:
                reader, writer = await connect(port)
            except (OSError, APIError) as error:
                await socket.send(bytes((2 * index + 1,)) + fault(port, error))
                continue
            writers[2 * index] = writer
            group.create_task(_pump(reader, socket, 2 * index))
        while (received := await socket.receive()) is not None:
            writer_of = writers.get(received[0]) if received else None
            if writer_of is None:
                continue
            try:
                writer_of.write(received[1:])
                await writer_of.drain()
            except ConnectionError:
                del writers[received[0]]  # The pod reads no more; what it still has to say is read elsewhere.
        for each in writers.values():
            each.close()


async def _pump(reader: asyncio.StreamReader, socket: Socket, channel: int) -> None:
    try:
        while data := await reader.read(CHUNK_BYTES):
            await socket.send(bytes((channel,)) + data)
    except ConnectionError:
        pass  # It was reset: no more will come.
    await socket.close()


async def serve_connection(socket: Socket, connect: Callable[[], Awaitable[Ends]]) -> None:
    """The node's end of a connection."""
    try:
        reader, writer = await connect()
    except (OSError, APIError) as error:
        await socket.send(str(error).encode() or b"the connection failed")
        await socket.close()
        return
    await socket.send(b"")
    await carry(socket, reader, writer)


async def carry(socket: Socket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Both directions of a connection, each until its end."""

    async def inward() -> None:
        while message := await socket.receive():
            writer.write(message)
            await writer.drain()
        writer.write_eof()
        if message is None:
            raise ConnectionError("the other end is gone")

    async def outward() -> None:
        while data := await reader.read(CHUNK_BYTES):
            await socket.send(data)
        await socket.send(b"")

    tasks = [asyncio.ensure_future(inward()), asyncio.ensure_future(outward())]
    try:
        await asyncio.gather(*tasks)
    except ConnectionError:
        pass  # It was reset, or one end is gone: nothing more will come.
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        writer.close()
        await socket.close()
