"""Did anybody change our rules? The kernel tells every change of nftables rules, iptables' (nft variant) included, with
the table's name (nfnetlink, group NFTABLES), and how many transactions there have been.

A machine has many who write rules: the pod network, service rules, network policies, Docker, an administrator. Only who
touches a table of ours makes it necessary to write all of it anew, which takes seconds with 10,000 services.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Collection, Iterator

from knarr.network import netlink as kernel
from knarr.network.netlink import NETLINK_NETFILTER, attributes

_SUBSYSTEM, _NEW_GENERATION = 10, 15
_GROUP_NFTABLES = 7
_SO_RCVBUFFORCE = 33
_TABLE = 1
"""The attribute that names the table, in each kind of message."""
BUFFER_BYTES = 4 << 20
_RECEIVE_BYTES = 1 << 18


class RuleWatch:
    """Whether tables are as we wrote them. Its calls answer at once, but belong into a thread.

    `begin` before each write, `end` after it. Where the kernel has no nftables, or iptables is its legacy variant,
    nothing can be told, and nothing is ever intact.
    """

    def __init__(self, network_namespace: str | None = None) -> None:
        self._namespace = network_namespace
        self._monitor: socket.socket | None = None
        self._netfilter: kernel.Netlink | None = None
        self._intact = False
        self._before: int | None = None

    def begin(self, tables: Collection[str]) -> None:
        self._before, touched = self._look(tables)
        self._intact = self._intact and touched == 0

    def end(self, tables: Collection[str], commits: int, *, whole: bool) -> None:
        """`commits` transactions were written since `begin`; with `whole` the tables are new altogether.

        It was we alone when there were no others at all, or when as many as ours touched the tables.
        """
        after, touched = self._look(tables)
        counted = self._before is not None and after == self._before + commits
        self._intact = (self._intact or whole) and (counted or touched == commits)

    def intact(self, tables: Collection[str]) -> bool:
        """Nobody else has changed any of `tables` since we wrote them whole."""
        self._intact = self._intact and self._look(tables)[1] == 0
        return self._intact

    def close(self) -> None:
        """Idempotent."""
        for each in (self._monitor, self._netfilter):
            if each is not None:
                each.close()
        self._monitor = self._netfilter = None

    def _look(self, tables: Collection[str]) -> tuple[int | None, int | None]:
        """The rule set's generation, and how many transactions have touched any of `tables` since we looked last; None
        for what nobody can tell."""
        try:
            if self._monitor is None or self._netfilter is None:
                self._monitor, self._netfilter = self._opened()
                return kernel.ruleset_generation(self._netfilter) or None, None
            return kernel.ruleset_generation(self._netfilter) or None, self._transactions(self._monitor, tables)
        except OSError:
            return None, None

    def _transactions(self, monitor: socket.socket, tables: Collection[str]) -> int | None:
        names = {each.encode() for each in tables}
        count: int | None = 0
        touched = False
        while True:
            try:
                data = monitor.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                return count
            except OSError as failure:
                if failure.errno != errno.ENOBUFS:
                    raise
                count = None  # more happened than the kernel keeps for us
                continue
            for ended, named in _messages(data, names):
                touched = touched or named
                if ended:
                    count = count + touched if count is not None else None
                    touched = False

    def _opened(self) -> tuple[socket.socket, kernel.Netlink]:
        """Sockets stay in the network namespace that they are made in."""
        with kernel.entered(self._namespace):
            netfilter = kernel.Netlink(NETLINK_NETFILTER)
            monitor = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
        monitor.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BUFFER_BYTES)
        monitor.bind((0, 1 << (_GROUP_NFTABLES - 1)))
        monitor.setblocking(False)
        return monitor, netfilter


def _messages(data: bytes, names: Collection[bytes]) -> Iterator[tuple[bool, bool]]:
    """Of each message: whether a transaction ends with it, and whether it names one of the tables."""
    position = 0
    while position + 20 <= len(data):
        length, kind = struct.unpack_from("=IH", data, position)
        if length < 20:
            yield False, True  # not understood: better to write once too often
            return
        if kind >> 8 == _SUBSYSTEM:
            told = attributes(data[position + 20 : position + length])
            ends = kind & 0xFF == _NEW_GENERATION
            yield ends, not ends and any(number == _TABLE and value.rstrip(b"\0") in names for number, value in told)
        position += (length + 3) & ~3
