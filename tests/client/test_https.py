"""The way to an API server over HTTPS."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

from knarr.client.https import KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, KEEPALIVE_PROBES
from knarr.client.transport import Request
from tests.apiserver.pipeline.served import serve


def sockets_to(port: int) -> Iterator[socket.socket]:
    """Of this process, as copies."""
    for name in os.listdir("/proc/self/fd"):
        try:
            copy = os.dup(int(name))
        except OSError:
            continue  # the one by which the folder is read
        try:
            found = socket.socket(fileno=copy)
        except OSError:
            os.close(copy)
            continue
        with found:
            try:
                there = found.getpeername()
            except OSError:
                continue
            if there[1:2] == (port,):
                yield found


async def test_who_only_listens_learns_of_a_server_that_is_gone_without_a_word(tmp_path: Path) -> None:
    async with serve(tmp_path) as served:
        transport = served.transport()
        namespace = b'{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"a"}}'
        await transport.send(Request("POST", "/api/v1/namespaces", body=namespace))
        answer = await transport.send(Request("GET", "/api/v1/namespaces", {"watch": "true"}))
        assert answer.stream is not None
        async with aclosing(cast(Any, answer.stream)) as stream:
            assert await anext(stream)
            found = [
                [
                    each.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                    each.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
                    each.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
                    each.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
                ]
                for each in sockets_to(served.port)
            ]
        assert set(map(tuple, found)) == {(1, KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, KEEPALIVE_PROBES)}
        await transport.close()
