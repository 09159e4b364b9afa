"""A node whose containers echo: what the API server's streams are tested against."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from knarr.api.core.v1 import Pod
from knarr.client.nodes import LogOptions, NodePage, NodeUsage


class EchoStreams:
    """stdin comes back on stdout; without stdin, the command does. `false` exits with 1, `exit N` with N."""

    def __init__(self, command: Sequence[str], stdin: bool) -> None:
        self._queue: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue()
        self._code = int(command[1]) if command[0] == "exit" else 0
        self.sizes: list[tuple[int, int]] = []
        self.closed = asyncio.Event()
        if not stdin:
            self._queue.put_nowait((1, " ".join(command).encode() + b"\n"))
            self._queue.put_nowait((2, b"done\n"))
            self._queue.put_nowait(None)

    async def write(self, data: bytes) -> None:
        self._queue.put_nowait((1, data))

    async def close_stdin(self) -> None:
        self._queue.put_nowait(None)

    async def resize(self, width: int, height: int) -> None:
        self.sizes.append((width, height))

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        while (item := await self._queue.get()) is not None:
            yield item

    async def exit_code(self) -> int:
        return self._code

    async def close(self) -> None:
        self.closed.set()


class EchoNode:
    """See knarr.client.nodes.NodeBackend."""

    def __init__(self) -> None:
        self.sessions: list[EchoStreams] = []
        self.asked: list[LogOptions] = []
        self.more = asyncio.Event()
        self.used = NodeUsage(None)

    async def logs(self, pod: Pod, options: LogOptions) -> AsyncIterator[bytes]:
        self.asked.append(options)
        yield f"first of {options.container}\n".encode()
        if options.follow:
            await self.more.wait()
            yield b"second\n"

    async def exec(self, pod: Pod, container: str, command: Sequence[str], *, tty: bool, stdin: bool) -> EchoStreams:
        self.sessions.append(EchoStreams(command, stdin))
        return self.sessions[-1]

    async def attach(self, pod: Pod, container: str) -> EchoStreams:
        self.sessions.append(EchoStreams(["attached"], False))
        return self.sessions[-1]

    async def port_forward(self, pod: Pod, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", port)

    async def usage(self, node: str) -> NodeUsage:
        return self.used

    async def page(self, node: str, path: str) -> NodePage:
        return NodePage(f"{node} at {path}".encode())
