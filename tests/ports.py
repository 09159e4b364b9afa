"""Ports that a test gives to a program that will listen there later, and ports where nobody does."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

LOWEST, HIGHEST = 20_000, 29_999
"""Below those of NodePorts, and those that kernels give: a port of that range may be anybody's next one."""
TRIES_MAX = 1000


def free_ports(count: int) -> tuple[int, ...]:
    """Nobody has them now, at no address of this machine."""
    with ExitStack() as held:
        found: list[int] = []
        for _ in range(TRIES_MAX):
            port = LOWEST + secrets.randbelow(HIGHEST - LOWEST + 1)
            probe = held.enter_context(socket.socket())
            try:
                probe.bind(("", port))
            except OSError:
                continue  # somebody has it
            found.append(port)
            if len(found) == count:
                return tuple(found)
    raise AssertionError("no port is free")


@contextmanager
def closed_port(kind: int = socket.SOCK_STREAM) -> Iterator[int]:
    """A port of 127.0.0.1 that refuses, and that nobody else can have meanwhile."""
    with socket.socket(socket.AF_INET, kind) as held:
        held.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_DGRAM:
            held.connect(("127.0.0.1", 9))  # it takes datagrams of that port alone
        port: int = held.getsockname()[1]
        yield port
