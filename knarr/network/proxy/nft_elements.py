"""Change what nftables maps and sets hold, without the `nft` program (nfnetlink, linux/netfilter/nf_tables.h).

Almost every change of a Service is a few elements more or less in maps that are there already. One message to the
kernel does that in a fraction of a millisecond, all of it or nothing; starting `nft` takes ten, and more the more rules
there are, since it reads them first. Whatever needs chains goes through `nft` all the same.

Keys and values are written as nft writes them: `10.96.0.20 . tcp . 80`, `goto turn-2-0`.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from msgspec import Struct

from knarr.network.netlink import NETLINK_NETFILTER, attribute, nested

_SUBSYSTEM = 10
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NEW_ELEMENT, _DELETE_ELEMENT = (_SUBSYSTEM << 8) | 12, (_SUBSYSTEM << 8) | 14
_REQUEST, _ACK, _CREATE = 0x1, 0x4, 0x400
_NETLINK_ERROR = 2
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33

_ELEMENTS_TABLE, _ELEMENTS_SET, _ELEMENTS = 1, 2, 3
_LIST_ELEMENT = 1
_KEY, _DATA = 1, 2
_VALUE, _VERDICT = 1, 2
_VERDICT_CODE, _VERDICT_CHAIN = 1, 2
_CODES = {"drop": 0, "accept": 1, "goto": -4, "return": -5}
_PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP, "sctp": socket.IPPROTO_SCTP}

ELEMENTS_PER_MESSAGE_MAX = 256
"""An attribute holds 64 KiB at most; the largest element takes 150 bytes."""
ELEMENTS_MAX = 4096
"""In one batch: the kernel takes it as one datagram. Larger changes go through nft."""
BUFFER_BYTES = 2 << 20
_RECEIVE_BYTES = 1 << 16


class Change(Struct, frozen=True):
    """An element more, or one less (`value` is then of no interest). `value` is empty in a set."""

    added: bool
    family: str
    """ip or ip6."""
    table: str
    name: str
    """Of the map or set."""
    key: str
    value: str = ""


class Elements:
    """A socket for changes, in the network namespace that the calling thread is in when it is made.

    It is kept: whoever closes a socket of netfilter's waits until what was removed is really gone, ten milliseconds and
    more."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, BUFFER_BYTES)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BUFFER_BYTES)
        self._socket.bind((0, 0))
        self._socket.setblocking(False)

    def close(self) -> None:
        self._socket.close()

    def change(self, changes: Sequence[Change]) -> None:
        """All of `changes` in one transaction; OSError when it is refused.

        Elements are taken away first, so one may be replaced."""
        ordered = [*(each for each in changes if not each.added), *(each for each in changes if each.added)]
        self._socket.send(b"".join(_batch(ordered)))
        # The kernel has worked it off when send returns: what it answers is there, or never comes.
        failures: list[int] = []
        while True:
            try:
                failures += _errors(self._socket.recv(_RECEIVE_BYTES))
            except BlockingIOError:
                break
        if failures:
            raise OSError(failures[0], os.strerror(failures[0]))


def _batch(changes: Sequence[Change]) -> Iterator[bytes]:
    yield _message(_BATCH_BEGIN, _REQUEST, 0, struct.pack("=BBH", 0, 0, socket.htons(_SUBSYSTEM)))
    for number, (head, group) in enumerate(_grouped(changes), start=1):
        kind, flags = (_NEW_ELEMENT, _CREATE) if head.added else (_DELETE_ELEMENT, 0)
        version = socket.AF_INET if head.family == "ip" else socket.AF_INET6
        body = struct.pack("=BBH", version, 0, 0)
        body += attribute(_ELEMENTS_TABLE, head.table.encode() + b"\0")
        body += attribute(_ELEMENTS_SET, head.name.encode() + b"\0")
        body += nested(_ELEMENTS, *(_element(each) for each in group))
        yield _message(kind, _REQUEST | _ACK | flags, number, body)
    yield _message(_BATCH_END, _REQUEST, 0, struct.pack("=BBH", 0, 0, socket.htons(_SUBSYSTEM)))


def _grouped(changes: Iterable[Change]) -> Iterator[tuple[Change, list[Change]]]:
    """Changes of the same kind to the same map, as many as fit a message."""
    groups: dict[tuple[bool, str, str, str], list[Change]] = {}
    for each in changes:
        groups.setdefault((each.added, each.family, each.table, each.name), []).append(each)
    for group in groups.values():
        rest = iter(group)
        while part := list(islice(rest, ELEMENTS_PER_MESSAGE_MAX)):
            yield part[0], part


def _message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body + bytes(-len(body) % 4)


def _element(change: Change) -> bytes:
    parts = [nested(_KEY, attribute(_VALUE, packed(change.key)))]
    if change.value and change.added:
        parts.append(nested(_DATA, _data(change.value)))
    return nested(_LIST_ELEMENT, *parts)


def _data(value: str) -> bytes:
    word, _, chain = value.partition(" ")
    if word not in _CODES:
        return attribute(_VALUE, packed(value))
    verdict = [attribute(_VERDICT_CODE, struct.pack(">i", _CODES[word]))]
    if chain:
        verdict.append(attribute(_VERDICT_CHAIN, chain.encode() + b"\0"))
    return nested(_VERDICT, *verdict)


def packed(text: str) -> bytes:
    """A concatenation as the kernel holds it: each part padded to four bytes, in network order. A number that follows a
    port is a turn's, which the kernel counts in its own order."""
    parts: list[bytes] = []
    after_port = False
    for part in text.split(" . "):
        if part in _PROTOCOLS:
            parts.append(bytes([_PROTOCOLS[part], 0, 0, 0]))
        elif part.isdecimal():
            parts.append(struct.pack("=I", int(part)) if after_port else struct.pack(">Hxx", int(part)))
            after_port = True
        else:
            parts.append(socket.inet_pton(socket.AF_INET6 if ":" in part else socket.AF_INET, part))
    return b"".join(parts)


def _errors(answer: bytes) -> Iterator[int]:
    position = 0
    while position + 16 <= len(answer):
        length, kind = struct.unpack_from("=IH", answer, position)
        if kind == _NETLINK_ERROR:
            number = -struct.unpack_from("=i", answer, position + 16)[0]
            if number > 0:
                yield number
        if length < 16:
            raise OSError(errno.EBADMSG, "the kernel's answer can't be read")
        position += (length + 3) & ~3
