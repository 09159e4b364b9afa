"""Streams over channels: what a client says beside its input does not end the session."""

from __future__ import annotations

import pytest

from knarr.client.channels import CLOSE, RESIZE, STDIN, serve_command
from tests.apiserver.pipeline.echo_node import EchoStreams


class Client:
    """Says its messages, and hears what comes back."""

    subprotocol = "v5.channel.k8s.io"

    def __init__(self, *messages: bytes) -> None:
        self._messages = list(messages)
        self.heard: list[bytes] = []

    async def receive(self) -> bytes | None:
        return self._messages.pop(0) if self._messages else None

    async def send(self, data: bytes) -> None:
        self.heard.append(data)

    async def close(self) -> None: ...


@pytest.mark.parametrize(
    "size", [b"", b"{", b"7", b"[]", b'{"Width": "wide"}', b'{"Width": -1}', b'{"Height": 65536}', b"\xff"]
)
async def test_a_size_that_is_none_changes_nothing(size: bytes) -> None:
    streams = EchoStreams(["cat"], stdin=True)

    async def begin() -> EchoStreams:
        return streams

    right = bytes((RESIZE,)) + b'{"Width": 80, "Height": 24}'
    client = Client(bytes((RESIZE,)) + size, right, bytes((STDIN,)) + b"hello", bytes((CLOSE, STDIN)))
    await serve_command(client, begin, reports_exit=True)
    assert streams.sizes == [(80, 24)]
