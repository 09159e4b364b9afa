"""Which ports the programs of this machine listen at, asked of the kernel (sock_diag(7)): its open ends alone, however
many connections there are. Which program it is, /proc tells."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Collection, Iterator
from contextlib import suppress

from msgspec import Struct

from knarr.network.netlink import Netlink, attributes

NETLINK_SOCK_DIAG = 4
_BY_FAMILY = 20
_CLOSED, _LISTENING = 7, 10
PROTOCOLS = {"TCP": (6, _LISTENING), "UDP": (17, _CLOSED), "SCTP": (132, _LISTENING)}
"""By protocol its number, and the state of a socket that takes what comes from anybody."""
_SOCKET_ID_BYTES = 48
_MESSAGE_BYTES = 72
_VERSION_6_ONLY = 11
ANYWHERE = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}


class Listener(Struct, frozen=True):
    """A socket, at one address (or ANYWHERE, of one family)."""

    protocol: str
    port: int
    address: str
    inode: int


def listeners(netlink: Netlink, protocols: Collection[str]) -> list[Listener]:
    """Those of the network namespace that `netlink`, of NETLINK_SOCK_DIAG, is in.

    A socket of IPv6 that takes IPv4 as well is there twice. A protocol that the kernel doesn't know has none.
    """
    return [each for name in protocols for family in ANYWHERE for each in _listeners(netlink, name, family)]


def _listeners(netlink: Netlink, protocol: str, family: int) -> Iterator[Listener]:
    number, state = PROTOCOLS[protocol]
    request = struct.pack("=BBBBI", family, number, 0, 0, 1 << state) + bytes(_SOCKET_ID_BYTES)
    try:
        for body in netlink.dump(_BY_FAMILY, request):
            (port,), (inode,) = struct.unpack_from("!H", body, 4), struct.unpack_from("=I", body, 68)
            address = _address(family, body[8:24])
            yield Listener(protocol, port, address, inode)
            only_6 = dict(attributes(body[_MESSAGE_BYTES:])).get(_VERSION_6_ONLY, b"\1") != b"\0"
            if address == "::" and not only_6:
                yield Listener(protocol, port, ANYWHERE[socket.AF_INET], inode)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EINVAL):
            raise


def _address(family: int, data: bytes) -> str:
    if family == socket.AF_INET:
        return socket.inet_ntop(family, data[:4])
    address = ipaddress.IPv6Address(data)
    return str(address.ipv4_mapped or address)


def programs(inodes: Collection[int]) -> dict[int, str]:
    """Who has these sockets, as far as this process may see it: "sshd (process 812)"."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[int, str] = {}
    for process in filter(str.isdecimal, os.listdir("/proc")) if wanted else ():
        for inode in {wanted[each] for each in _open_files(process) if each in wanted} - found.keys():
            with suppress(OSError), open(f"/proc/{process}/comm", errors="replace") as name:
                found[inode] = f"{name.read().strip()} (process {process})"
    return found


def _open_files(process: str) -> Iterator[str]:
    """Processes end, and files are closed, while they are looked at."""
    with suppress(OSError):
        for number in os.listdir(f"/proc/{process}/fd"):
            with suppress(OSError):
                yield os.readlink(f"/proc/{process}/fd/{number}")
