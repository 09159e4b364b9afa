"""Who listens at which port, by sockets that the test opens itself."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from knarr.network.listeners import NETLINK_SOCK_DIAG, listeners, programs
from knarr.network.netlink import Netlink


@pytest.fixture
def opened() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def listen(opened: ExitStack, address: str, kind: int = socket.SOCK_STREAM, *, only_6: bool = False) -> int:
    """Answers the port."""
    made = opened.enter_context(socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind))
    if ":" in address:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only_6)
    made.bind((address, 0))
    if kind == socket.SOCK_STREAM:
        made.listen()
    port: int = made.getsockname()[1]
    return port


def at(port: int, protocol: str) -> list[str]:
    with Netlink(NETLINK_SOCK_DIAG) as netlink:
        return sorted(each.address for each in listeners(netlink, [protocol]) if each.port == port)


@pytest.mark.parametrize(
    ("address", "only_6", "addresses"),
    [
        ("0.0.0.0", False, ["0.0.0.0"]),
        ("127.0.0.1", False, ["127.0.0.1"]),
        ("::", False, ["0.0.0.0", "::"]),
        ("::", True, ["::"]),
        ("::1", False, ["::1"]),
        ("::ffff:127.0.0.1", False, ["127.0.0.1"]),
    ],
)
@pytest.mark.parametrize(("kind", "protocol"), [(socket.SOCK_STREAM, "TCP"), (socket.SOCK_DGRAM, "UDP")])
def test_a_socket_is_found_at_each_address_that_it_serves(
    opened: ExitStack, address: str, only_6: bool, addresses: list[str], kind: int, protocol: str
) -> None:
    port = listen(opened, address, kind, only_6=only_6)
    assert at(port, protocol) == addresses
    assert at(port, {"TCP": "UDP", "UDP": "TCP"}[protocol]) == []


def test_connections_are_no_listeners(opened: ExitStack) -> None:
    port = listen(opened, "127.0.0.1")
    made = opened.enter_context(socket.create_connection(("127.0.0.1", port)))
    assert at(made.getsockname()[1], "TCP") == []


def test_the_program_is_named(opened: ExitStack) -> None:
    port = listen(opened, "127.0.0.1")
    with Netlink(NETLINK_SOCK_DIAG) as netlink:
        (found,) = (each for each in listeners(netlink, ["TCP", "SCTP"]) if each.port == port)
    with open("/proc/self/comm") as name:
        assert programs([found.inode]) == {found.inode: f"{name.read().strip()} (process {os.getpid()})"}
    assert programs([]) == programs([1 << 31]) == {}
