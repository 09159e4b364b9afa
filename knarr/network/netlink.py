"""Talk to the kernel about interfaces, addresses, routes, neighbours and tracked connections.

A small rtnetlink and nfnetlink client (RFC 3549): just the messages that the pod network and the service proxy
need. It takes no subprocess and imports nothing heavy, so an attach costs well under a millisecond of Python.
Calls block (each is answered by the kernel at once), so they belong into a worker thread, and `entered` changes
the network namespace of the calling thread only.
"""

from __future__ import annotations

import ctypes
import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from msgspec import Struct

NETLINK_ROUTE = 0
NETLINK_NETFILTER = 12

_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_REPLACE, _EXCLUSIVE, _CREATE = 0x100, 0x200, 0x400
_ERROR, _DONE, _OVERRUN = 2, 3, 4

_NEW_LINK, _DELETE_LINK, _GET_LINK = 16, 17, 18
_NEW_ADDRESS, _DELETE_ADDRESS, _GET_ADDRESS = 20, 21, 22
_NEW_ROUTE, _DELETE_ROUTE, _GET_ROUTE = 24, 25, 26
_NEW_NEIGHBOUR = 28

_IFF_UP = 1
_TABLE_MAIN, _PROTOCOL_STATIC = 254, 4
SCOPE_UNIVERSE, SCOPE_LINK, SCOPE_HOST = 0, 253, 254
_ROUTE_UNICAST, _ROUTE_UNREACHABLE = 1, 7
_NEXT_HOP_ONLINK = 4
_NEIGHBOUR_PERMANENT = 0x80
_ADDRESS_NODAD = 0x02
_FOREVER = 0xFFFFFFFF
_CLONE_NEWNET = 0x40000000

_RECEIVE_BYTES = 1 << 20
"""Room for one datagram of a dump; the kernel sends at most 32 KiB at once."""
_REPLY_TIMEOUT_S = 10.0
"""The kernel answers within microseconds; a lost answer must not hold the worker thread for ever."""


def attribute(kind: int, value: bytes) -> bytes:
    """One netlink attribute, padded to four bytes."""
    length = 4 + len(value)
    return struct.pack("=HH", length, kind) + value + bytes(-length % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute that holds attributes (NLA_F_NESTED)."""
    return attribute(kind | 0x8000, b"".join(attributes))


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The attributes in `data`, flags taken off their kinds."""
    position = 0
    while position + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, position)
        if length < 4:
            return
        yield kind & 0x3FFF, data[position + 4 : position + length]
        position += (length + 3) & ~3


class Netlink:
    """One netlink socket, in the network namespace that the calling thread is in when it is made."""

    def __init__(self, protocol: int = NETLINK_ROUTE) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.bind((0, 0))
        self._socket.settimeout(_REPLY_TIMEOUT_S)
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def request(self, kind: int, flags: int, body: bytes) -> None:
        """Ask for a change; OSError with the kernel's error number when it refuses."""
        for _ in self._exchange(kind, flags | _ACK, body):
            pass

    def dump(self, kind: int, body: bytes) -> Iterator[bytes]:
        """The bodies of a listing."""
        return self._exchange(kind, _DUMP, body)

    def query(self, kind: int, body: bytes) -> bytes:
        """The body of a single answer."""
        for answer in self._exchange(kind, _ACK, body):
            return answer
        raise OSError(errno.ENODATA, "the kernel answered nothing")

    def _exchange(self, kind: int, flags: int, body: bytes) -> Iterator[bytes]:
        self._sequence = sequence = (self._sequence + 1) & 0xFFFFFFFF
        self._socket.send(struct.pack("=IHHII", 16 + len(body), kind, flags | _REQUEST, sequence, 0) + body)
        while True:
            data = self._socket.recv(_RECEIVE_BYTES)
            position = 0
            while position + 16 <= len(data):
                length, answer_kind, _, answer_sequence, _ = struct.unpack_from("=IHHII", data, position)
                start, end = position + 16, position + length
                position += (length + 3) & ~3
                if answer_sequence != sequence:
                    continue  # left over from an exchange that its reader gave up
                if answer_kind in (_ERROR, _DONE):
                    number = -struct.unpack_from("=i", data, start)[0] if end - start >= 4 else 0
                    if number > 0:
                        raise OSError(number, os.strerror(number))
                    return
                if answer_kind != _OVERRUN:
                    yield data[start:end]


@contextmanager
def entered(network_namespace: str | None) -> Iterator[None]:
    """Have the calling thread in another network namespace (None: where it is). Sockets made inside stay there."""
    if network_namespace is None:
        yield
        return
    with open("/proc/thread-self/ns/net") as before:
        enter(network_namespace)
        try:
            yield
        finally:
            _set_namespace(before.fileno())


def enter(network_namespace: str) -> None:
    """Take the calling thread into a network namespace for good."""
    with open(network_namespace) as wanted:
        _set_namespace(wanted.fileno())


_libc: ctypes.CDLL | None = None


def _set_namespace(descriptor: int) -> None:
    global _libc
    if _libc is None:
        _libc = ctypes.CDLL(None, use_errno=True)
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


class Link(Struct, frozen=True):
    """A network interface."""

    index: int
    name: str
    mtu: int
    up: bool


def links(netlink: Netlink) -> list[Link]:
    """All interfaces of the namespace."""
    return [_link(body) for body in netlink.dump(_GET_LINK, _link_header())]


def link(netlink: Netlink, name: str) -> Link | None:
    """The interface `name`, or None."""
    try:
        return _link(netlink.query(_GET_LINK, _link_header() + attribute(3, _text(name))))
    except OSError as failure:
        if failure.errno == errno.ENODEV:
            return None
        raise


def add_bridge(netlink: Netlink, name: str) -> None:
    """A bridge; one without ports serves as a place to keep addresses, on kernels without dummy interfaces too."""
    info = nested(18, attribute(1, b"bridge"))
    netlink.request(_NEW_LINK, _CREATE | _EXCLUSIVE, _link_header() + attribute(3, _text(name)) + info)


def add_veth(
    netlink: Netlink,
    name: str,
    peer: str,
    peer_namespace: int,
    *,
    mtu: int,
    hardware_address: bytes,
    peer_hardware_address: bytes,
) -> None:
    """A pair of virtual Ethernet interfaces, `name` here and up, `peer` in the namespace of that descriptor."""
    peer_attributes = (
        attribute(3, _text(peer))
        + attribute(1, peer_hardware_address)
        + attribute(4, struct.pack("=I", mtu))
        + attribute(28, struct.pack("=I", peer_namespace))
    )
    peer_description = attribute(1, _link_header() + peer_attributes)
    info = nested(18, attribute(1, b"veth"), nested(2, peer_description))
    body = (
        _link_header(flags=_IFF_UP, change=_IFF_UP)
        + attribute(3, _text(name))
        + attribute(1, hardware_address)
        + attribute(4, struct.pack("=I", mtu))
        + info
    )
    netlink.request(_NEW_LINK, _CREATE | _EXCLUSIVE, body)


def set_up(netlink: Netlink, index: int) -> None:
    netlink.request(_NEW_LINK, 0, _link_header(index=index, flags=_IFF_UP, change=_IFF_UP))


def delete_link(netlink: Netlink, name: str) -> bool:
    """Remove an interface; False when there is none of that name."""
    return _unless_absent(lambda: netlink.request(_DELETE_LINK, 0, _link_header() + attribute(3, _text(name))))


def add_address(netlink: Netlink, index: int, address: str, *, scope: int = SCOPE_UNIVERSE) -> None:
    """Give an interface one address (with prefix length); no error when it has it."""
    netlink.request(_NEW_ADDRESS, _CREATE | _REPLACE, _address_body(index, address, scope))


def lend_address(netlink: Netlink, index: int, address: str, valid_s: int | None) -> None:
    """As `add_address`, for an address that is never chosen as a source, and that the kernel takes away by itself
    unless it is lent anew within `valid_s` seconds (None: never). It is usable at once: no other is asked whether it
    has the address (IFA_F_NODAD)."""
    lifetimes = struct.pack("=IIII", 0, _FOREVER if valid_s is None else valid_s, 0, 0)  # preferred, valid
    body = _address_body(index, address, SCOPE_HOST if ":" not in address else SCOPE_UNIVERSE)
    netlink.request(_NEW_ADDRESS, _CREATE | _REPLACE, body + attribute(6, lifetimes))


def interface_addresses(netlink: Netlink) -> list[tuple[int, str]]:
    """The addresses of all interfaces of the namespace: index of the interface, and address with prefix length."""
    found = []
    for family in (socket.AF_INET, socket.AF_INET6):
        for body in netlink.dump(_GET_ADDRESS, struct.pack("=BBBBI", family, 0, 0, 0, 0)):
            answered, prefix_length, _, _, index = struct.unpack_from("=BBBBI", body)
            values = dict(attributes(body[8:]))
            value = values.get(2) or values.get(1)
            if answered == family and value is not None:
                found.append((index, f"{socket.inet_ntop(family, value)}/{prefix_length}"))
    return found


def delete_address(netlink: Netlink, index: int, address: str) -> bool:
    """Take an address away; False when it wasn't there."""
    return _unless_absent(lambda: netlink.request(_DELETE_ADDRESS, 0, _address_body(index, address, 0)))


def local_addresses(netlink: Netlink) -> set[str]:
    """The addresses of all interfaces of the namespace, of both families."""
    found = set()
    for body in netlink.dump(_GET_ADDRESS, struct.pack("=BBBBI", socket.AF_UNSPEC, 0, 0, 0, 0)):
        family, values = body[0], dict(attributes(body[8:]))
        # Of a link with two ends, IFA_LOCAL is ours and IFA_ADDRESS the other's; IPv6 has the latter only.
        value = values.get(2, values.get(1))
        if value is not None and family in (socket.AF_INET, socket.AF_INET6):
            found.add(socket.inet_ntop(family, value))
    return found


def add_route(
    netlink: Netlink,
    destination: str,
    index: int,
    *,
    gateway: str | None = None,
    source: str | None = None,
    protocol: int = _PROTOCOL_STATIC,
) -> None:
    """A route through an interface; `gateway` need not be on a known network (onlink)."""
    scope = SCOPE_UNIVERSE if gateway else SCOPE_LINK
    body = _route_header(destination, _ROUTE_UNICAST, scope, _NEXT_HOP_ONLINK if gateway else 0, protocol)
    body += attribute(4, struct.pack("=I", index))
    if gateway:
        body += attribute(5, ipaddress.ip_address(gateway).packed)
    if source:
        body += attribute(7, ipaddress.ip_address(source).packed)
    netlink.request(_NEW_ROUTE, _CREATE | _REPLACE, body)


def add_unreachable_route(netlink: Netlink, destination: str) -> None:
    """Answer packets to `destination` with "host unreachable" at once, unless a longer prefix matches."""
    netlink.request(_NEW_ROUTE, _CREATE | _REPLACE, _route_header(destination, _ROUTE_UNREACHABLE, SCOPE_UNIVERSE, 0))


def delete_route(
    netlink: Netlink, destination: str, *, unreachable: bool = False, protocol: int = _PROTOCOL_STATIC
) -> bool:
    """Remove a route; False when there is none."""
    kind = _ROUTE_UNREACHABLE if unreachable else 0
    scope = SCOPE_UNIVERSE if unreachable else 255
    header = _route_header(destination, kind, scope, 0, protocol)
    return _unless_absent(lambda: netlink.request(_DELETE_ROUTE, 0, header))


def default_route_interface(netlink: Netlink) -> int | None:
    """Index of the interface that the IPv4 default route leaves by, or None."""
    for body in netlink.dump(_GET_ROUTE, struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)):
        family, prefix_length, _, _, table, _, _, kind, _ = struct.unpack_from("=BBBBBBBBI", body)
        if (family, prefix_length, table, kind) != (socket.AF_INET, 0, _TABLE_MAIN, _ROUTE_UNICAST):
            continue
        for attribute_kind, value in attributes(body[12:]):
            if attribute_kind == 4:
                return int(struct.unpack("=I", value)[0])
    return None


def add_neighbour(netlink: Netlink, index: int, address: str, hardware_address: bytes) -> None:
    """A permanent neighbour entry, so that nobody needs to ask (ARP, NDP) for it."""
    ip = ipaddress.ip_address(address)
    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    body = struct.pack("=BBHiHBB", family, 0, 0, index, _NEIGHBOUR_PERMANENT, 0, 0)
    body += attribute(1, ip.packed) + attribute(2, hardware_address)
    netlink.request(_NEW_NEIGHBOUR, _CREATE | _REPLACE, body)


def read_setting(name: str) -> str:
    """A /proc/sys/net setting of the network namespace that the calling thread is in."""
    with open(f"/proc/sys/net/{name}") as setting:
        return setting.read().strip()


def write_setting(name: str, value: str) -> None:
    """Change one of them. Those that are the whole machine's are changed by way of `knarr.network.settings`."""
    with open(f"/proc/sys/net/{name}", "r+") as setting:
        if setting.read().strip() != value:
            setting.seek(0)
            setting.write(value)


def _unless_absent(change: Callable[[], None]) -> bool:
    try:
        change()
    except OSError as failure:
        if failure.errno in (errno.ENODEV, errno.ESRCH, errno.EADDRNOTAVAIL, errno.ENOENT):
            return False
        raise
    return True


def _text(value: str) -> bytes:
    return value.encode() + b"\0"


def _link_header(*, index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    return struct.pack("=BBHiII", 0, 0, 0, index, flags, change)


def _link(body: bytes) -> Link:
    _, _, _, index, flags, _ = struct.unpack_from("=BBHiII", body)
    name, mtu = "", 0
    for kind, value in attributes(body[16:]):
        if kind == 3:
            name = value.rstrip(b"\0").decode()
        elif kind == 4:
            mtu = struct.unpack("=I", value)[0]
    return Link(index, name, mtu, bool(flags & _IFF_UP))


def _address_body(index: int, address: str, scope: int) -> bytes:
    """IFA_F_NODAD: the address is ours alone, version 6 need not ask others for it, and wait meanwhile."""
    interface = ipaddress.ip_interface(address)
    family = socket.AF_INET if interface.version == 4 else socket.AF_INET6
    header = struct.pack("=BBBBI", family, interface.network.prefixlen, _ADDRESS_NODAD, scope, index)
    return header + attribute(2, interface.ip.packed) + attribute(1, interface.ip.packed)


def _route_header(destination: str, kind: int, scope: int, flags: int, protocol: int = _PROTOCOL_STATIC) -> bytes:
    network = ipaddress.ip_network(destination)
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    header = struct.pack(
        "=BBBBBBBBI",
        family,
        network.prefixlen,
        0,
        0,
        _TABLE_MAIN,
        protocol,
        scope,
        kind,
        flags,
    )
    return header + (attribute(1, network.network_address.packed) if network.prefixlen else b"")


# Tracked connections (conntrack), over nfnetlink.

_CONNTRACK_GET, _CONNTRACK_DELETE = (1 << 8) | 1, (1 << 8) | 2
_TUPLE_ORIGINAL, _TUPLE_REPLY, _CONNTRACK_ID = 1, 2, 12


class TrackedConnection(Struct, frozen=True):
    """A connection as the kernel tracks it: where it was sent, and who answers it."""

    protocol: int
    original_destination: str
    original_destination_port: int
    reply_source: str
    reply_source_port: int
    raw_original: bytes
    """The tuple as the kernel wrote it; deleting asks for the same."""

    @property
    def family(self) -> int:
        return socket.AF_INET6 if ":" in self.original_destination else socket.AF_INET


def tracked_connections(netlink: Netlink, protocol: int, family: int = socket.AF_INET) -> Iterator[TrackedConnection]:
    """Connections of one protocol and address family."""
    header = struct.pack("=BBH", family, 0, 0)
    for body in netlink.dump(_CONNTRACK_GET, header):
        connection = _tracked(body[4:])
        if connection is not None and connection.protocol == protocol:
            yield connection


def delete_tracked(netlink: Netlink, connections: Sequence[TrackedConnection]) -> int:
    """Make the kernel forget connections; answers how many were still there."""
    deleted = 0
    for connection in connections:
        body = struct.pack("=BBH", connection.family, 0, 0) + nested(_TUPLE_ORIGINAL, connection.raw_original)
        deleted += _unless_absent(lambda body=body: netlink.request(_CONNTRACK_DELETE, 0, body))  # type: ignore[misc]
    return deleted


def _tracked(data: bytes) -> TrackedConnection | None:
    found = dict(attributes(data))
    if _TUPLE_ORIGINAL not in found or _TUPLE_REPLY not in found:
        return None
    _, destination, protocol, _, port = _tuple(found[_TUPLE_ORIGINAL])
    reply_source, _, _, reply_port, _ = _tuple(found[_TUPLE_REPLY])
    return TrackedConnection(protocol, destination, port, reply_source, reply_port, found[_TUPLE_ORIGINAL])


def _tuple(data: bytes) -> tuple[str, str, int, int, int]:
    """Source, destination, protocol, source port, destination port."""
    parts = dict(attributes(data))
    addresses, ports = dict(attributes(parts.get(1, b""))), dict(attributes(parts.get(2, b"")))
    # CTA_IP_V4_SRC and _DST, or CTA_IP_V6_SRC and _DST.
    family, source, destination = (socket.AF_INET6, 3, 4) if 3 in addresses else (socket.AF_INET, 1, 2)
    nothing = bytes(16 if family == socket.AF_INET6 else 4)
    return (
        socket.inet_ntop(family, addresses.get(source, nothing)),
        socket.inet_ntop(family, addresses.get(destination, nothing)),
        ports.get(1, b"\0")[0],
        int.from_bytes(ports.get(2, b""), "big"),
        int.from_bytes(ports.get(3, b""), "big"),
    )


# The nftables rule set.

_NFTABLES_GET_GENERATION = (10 << 8) | 16


def ruleset_generation(netlink: Netlink) -> int:
    """A number that rises with every change of the namespace's nftables rules, whoever makes it.

    iptables in its nft variant (Debian's default) counts as well; the legacy variant doesn't.
    """
    body = netlink.query(_NFTABLES_GET_GENERATION, struct.pack("=BBH", 0, 0, 0))
    return int.from_bytes(dict(attributes(body[4:])).get(1, b""), "big")
