"""Did anybody change our rules? The kernel tells every change of nftables rules, iptables' (nft variant) included, with
the table's name (nfnetlink, group NFTABLES).

A machine has many who write rules: the pod network, network policies, Docker, an administrator. Only who touches a
table of ours makes it necessary to write all of it anew, which takes seconds with 10,000 services.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Collection

from knarr.network.netlink import NETLINK_NETFILTER, attributes

_SUBSYSTEM, _NEW_GENERATION = 10, 15
_GROUP_NFTABLES = 7
_SO_RCVBUFFORCE = 33
_TABLE = 1
"""The attribute that names the table, in each kind of message."""
BUFFER_BYTES = 4 << 20
_RECEIVE_BYTES = 1 << 18


class RuleMonitor:
    """What was changed since it was asked last, in the network namespace that the maker's thread is in."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BUFFER_BYTES)
        self._socket.bind((0, 1 << (_GROUP_NFTABLES - 1)))
        self._socket.setblocking(False)

    def close(self) -> None:
        self._socket.close()

    def touched(self, tables: Collection[str]) -> bool:
        """Whether any of `tables` was changed, or may have been: more happened than the kernel keeps for us."""
        names = {each.encode() for each in tables}
        found = False
        while True:
            try:
                data = self._socket.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                return found
            except OSError as failure:
                if failure.errno != errno.ENOBUFS:
                    raise
                found = True
                continue
            found = found or _names_one(data, names)


def _names_one(data: bytes, names: Collection[bytes]) -> bool:
    position = 0
    while position + 20 <= len(data):
        length, kind = struct.unpack_from("=IH", data, position)
        if length < 20:
            return True  # not understood: better to write once too often
        if kind >> 8 == _SUBSYSTEM and kind & 0xFF != _NEW_GENERATION:
            for number, value in attributes(data[position + 20 : position + length]):
                if number == _TABLE and value.rstrip(b"\0") in names:
                    return True
        position += (length + 3) & ~3
    return False
