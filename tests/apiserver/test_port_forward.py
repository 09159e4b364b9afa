"""Forwarded ports when somebody goes: what was said before arrives, and nothing waits for who is no longer there."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from knarr.api.core.v1 import Pod
from knarr.api.meta.v1 import ObjectMeta
from knarr.apiserver import port_forward, spdy
from knarr.client.transport import Request

POD = Pod(metadata=ObjectMeta(name="web", uid="u"))
DATA = {"streamtype": "data", "port": "80", "requestid": "0"}
ERROR = {"streamtype": "error", "port": "80", "requestid": "0"}


class Client:
    """The client's end of the WebSocket: what it says, one message after the other, and then it is gone."""

    subprotocol = port_forward.TUNNEL

    def __init__(self, *messages: bytes) -> None:
        self._messages = list(messages)
        self.may_go = asyncio.Event()
        self.sent: list[bytes] = []
        self.gone = False

    async def receive(self) -> bytes | None:
        if self._messages:
            return self._messages.pop(0)
        await self.may_go.wait()
        self.gone = True
        return None

    async def send(self, data: bytes) -> None:
        if self.gone:
            raise ConnectionResetError("the client is gone")
        self.sent.append(data)

    async def close(self) -> None:
        self.gone = True


class Node:
    """A pod with one port, whose other end the test holds."""

    def __init__(self) -> None:
        self._here, self.pod = socket.socketpair()
        self.pod.setblocking(False)

    def close(self) -> None:
        self._here.close()
        self.pod.close()

    async def port_forward(self, pod: Pod, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(sock=self._here)


def serving(client: Client, node: Any) -> Awaitable[None]:
    request = Request("GET", "/", headers={"sec-websocket-protocol": port_forward.TUNNEL})
    answer = port_forward.port_forward(POD, request, node)
    assert answer.upgrade is not None
    return answer.upgrade.serve(client)


async def all_of(pod: socket.socket) -> bytes:
    said = b""
    while piece := await asyncio.get_running_loop().sock_recv(pod, 65536):
        said += piece
    return said


@pytest.fixture
def node() -> Iterator[Node]:
    made = Node()
    yield made
    made.close()


@pytest.fixture
def frames() -> Callable[..., list[bytes]]:
    writer = spdy.Writer()

    def made(*pieces: bytes) -> list[bytes]:
        return [
            writer.syn_stream(1, ERROR),
            writer.syn_stream(3, DATA),
            *(writer.data(3, piece) for piece in pieces),
        ]

    return made


async def test_what_the_client_said_last_reaches_the_pod(frames: Callable[..., list[bytes]], node: Node) -> None:
    client = Client(*frames(b"first, ", b"and last"))
    client.may_go.set()
    _, said = await asyncio.wait_for(asyncio.gather(serving(client, node), all_of(node.pod)), 10)
    assert said == b"first, and last"


async def test_a_pod_that_neither_speaks_nor_ends_keeps_nobody_once_the_client_is_gone(
    frames: Callable[..., list[bytes]], node: Node
) -> None:
    client = Client(*frames(b"hello"))
    tunnel = asyncio.ensure_future(serving(client, node))
    assert await asyncio.get_running_loop().sock_recv(node.pod, 100) == b"hello"
    client.may_go.set()
    await asyncio.wait_for(tunnel, 10)
    assert await all_of(node.pod) == b""


async def test_streams_for_errors_are_as_many_as_connections_may_be(node: Node) -> None:
    writer = spdy.Writer()
    many = port_forward.CONNECTIONS_MAX + 5
    asked = [writer.syn_stream(2 * each + 1, {**ERROR, "requestid": str(each)}) for each in range(many)]
    client = Client(*asked)
    client.may_go.set()
    await asyncio.wait_for(serving(client, node), 30)
    kinds = [frame.kind for frame in spdy.Reader().feed(b"".join(client.sent))]
    assert (kinds.count(spdy.SYN_REPLY), kinds.count(spdy.RST_STREAM)) == (port_forward.CONNECTIONS_MAX, 5)
