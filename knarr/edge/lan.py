"""Addresses that this machine answers for on its LAN, besides its own.

The kernel itself answers ARP and neighbour solicitations for them, so nothing depends on how fast a Python process is:
each is a /32 (or /128) on the interface that the address's network is on, else on that of the default route, never
chosen as a source. It is lent to the kernel for a few seconds at a time where another machine would take over: should
this process die, the address goes by itself. Whoever gets an address tells the LAN, so that nobody sends to the one
before (RFC 5227 §3, RFC 4861 §7.2.6).

What is held is recorded before it is, so whoever cleans up after a crash knows what to remove.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import os
import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from knarr.network import netlink as kernel

log = logging.getLogger(__name__)
T = TypeVar("T")

ETHERTYPE_ARP, ETHERTYPE_IPV6 = 0x0806, 0x86DD
ARP_REQUEST, ARP_REPLY = 1, 2
BROADCAST = b"\xff" * 6
ALL_NODES = ipaddress.IPv6Address("ff02::1")
ALL_NODES_HARDWARE = bytes.fromhex("333300000001")
ADVERTISEMENT = 136
"""The type of a neighbour advertisement (RFC 4861 §4.4)."""
FROM_THIS_LAN = 255
"""The hop limit of what no router has passed on (RFC 4861 §7.1.2)."""
_ICMP6_FILTER = 1
FRAMES_AT_ONCE_MAX = 64
"""Of others' ARP and advertisements, read before other work has its turn."""

Taken = Callable[[str], None]


class Lan:
    """What this machine holds. `open` first, `close` last."""

    def __init__(self, record: Path, network_namespace: str | None = None) -> None:
        """`network_namespace` (a path) is where the interfaces are; None for that of this process."""
        self._record = record
        self._namespace = network_namespace
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lan")
        self._netlink: kernel.Netlink | None = None
        self._held: dict[str, int] = {}
        """Address → index of the interface."""
        self._sockets: dict[int, socket.socket] = {}
        self._advertisements: socket.socket | None = None
        """Others' come in there; none on a machine without IPv6."""
        self._taken: Taken = lambda address: None

    @property
    def held(self) -> frozenset[str]:
        return frozenset(self._held)

    async def open(self, taken: Taken) -> None:
        """What an earlier run left is held again. `taken(address)`: another machine says that it has it."""
        self._taken = taken
        await self._in_worker(self._open)

    async def hold(self, wanted: Iterable[str], valid_s: int | None) -> frozenset[str]:
        """Hold exactly these, for `valid_s` seconds (None: for good); answers those that are new, and told."""
        addresses = list(wanted)
        fresh = await self._in_worker(lambda: self._hold(addresses, valid_s))
        await self.announce(fresh)
        return fresh

    async def announce(self, addresses: Iterable[str]) -> None:
        """Tell the LAN who has them."""
        some = [each for each in addresses if each in self._held]
        if some:
            await self._in_worker(lambda: self._announce(some))
            self._listen()

    async def close(self, *, remove: bool) -> None:
        """Idempotent. With `remove` nothing is held any more."""
        for each in (*self._sockets.values(), self._advertisements):
            if each is not None:
                asyncio.get_running_loop().remove_reader(each)
        if self._netlink is not None:
            if remove:
                await self._in_worker(lambda: self._hold([], None))
                await self._in_worker(lambda: self._record.unlink(missing_ok=True))
            await self._in_worker(self._close)
        self._worker.shutdown(wait=False)

    # The worker thread: it alone talks to the kernel, from within the namespace.

    async def _in_worker(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)

    def _open(self) -> None:
        if self._namespace:
            kernel.enter(self._namespace)
        self._netlink = kernel.Netlink()
        self._held = _read(self._record, self._netlink)
        with suppress(OSError):
            self._advertisements = _advertisements()

    def _close(self) -> None:
        if self._netlink is not None:
            self._netlink.close()
            self._netlink = None
        for each in (*self._sockets.values(), self._advertisements):
            if each is not None:
                each.close()
        self._sockets.clear()
        self._advertisements = None

    def _hold(self, wanted: Iterable[str], valid_s: int | None) -> frozenset[str]:
        netlink = self._opened()
        there = kernel.interface_addresses(netlink)
        places = {address: place for address in wanted if (place := self._place(address, there)) is not None}
        present = {(index, text) for index, text in there}
        fresh = {address for address, place in places.items() if (place, _alone(address)) not in present}
        if places.keys() - self._held.keys():
            _write(self._record, {**self._held, **places}, netlink)
        for address, index in self._held.items():
            if places.get(address) != index:
                kernel.delete_address(netlink, index, _alone(address))
        for address, index in places.items():
            kernel.lend_address(netlink, index, _alone(address), valid_s)
        if places != self._held:
            self._held = places
            _write(self._record, places, netlink)
        return frozenset(fresh)

    def _place(self, address: str, there: Iterable[tuple[int, str]]) -> int | None:
        """The interface that an address belongs on."""
        index = interface_for(address, there)
        if index is None and ":" not in address:
            index = kernel.default_route_interface(self._opened())
        if index is None:
            log.warning("no interface of this machine is on a network of %s: it can't be answered for", address)
        return index

    def _announce(self, addresses: Iterable[str]) -> None:
        for address in addresses:
            index = self._held.get(address)
            try:
                if index is not None:
                    sender = self._socket(index)
                    for frame in announcements(address, sender.getsockname()[4]):
                        sender.send(frame)
            except OSError as error:
                log.warning("%s could not be announced: %s", address, error)

    def _socket(self, index: int) -> socket.socket:
        """For frames of an interface: ours go out, others' ARP comes in."""
        if index not in self._sockets:
            names = {link.index: link.name for link in kernel.links(self._opened())}
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERTYPE_ARP))
            made.setblocking(False)
            made.bind((names.get(index, ""), ETHERTYPE_ARP))
            self._sockets[index] = made
        return self._sockets[index]

    def _opened(self) -> kernel.Netlink:
        assert self._netlink is not None, "open first"
        return self._netlink

    # Others' claims

    def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        for each in list(self._sockets.values()):
            loop.add_reader(each, self._hear, each)
        if self._advertisements is not None:
            loop.add_reader(self._advertisements, self._hear_advertisements, self._advertisements)

    def _hear(self, listener: socket.socket) -> None:
        """Somebody else says that he has an address of ours."""
        for _ in range(FRAMES_AT_ONCE_MAX):
            try:
                frame, origin = listener.recvfrom(128)
            except OSError:
                return
            claimed = claim(frame)
            ours = origin[2] == socket.PACKET_OUTGOING
            if claimed in self._held and not ours and frame[22:28] != listener.getsockname()[4]:
                self._taken(claimed)

    def _hear_advertisements(self, listener: socket.socket) -> None:
        """The same, of IPv6. The kernel shows this machine's own to nobody here."""
        for _ in range(FRAMES_AT_ONCE_MAX):
            try:
                message, ancillary, _, _ = listener.recvmsg(128, socket.CMSG_SPACE(4))
            except OSError:
                return
            limits = [struct.unpack("=i", data)[0] for _, kind, data in ancillary if kind == socket.IPV6_HOPLIMIT]
            claimed = advertised(message) if limits == [FROM_THIS_LAN] else ""
            if claimed in self._held:
                self._taken(claimed)


def remove_all(record: Path) -> list[str]:
    """What a run that was killed has left on the interfaces goes; answers what could not be removed."""
    left: list[str] = []
    if not record.exists():
        return left
    with kernel.Netlink() as netlink:
        for address, index in _read(record, netlink).items():
            try:
                kernel.delete_address(netlink, index, _alone(address))
            except OSError as error:
                left.append(f"load balancer address {address}: {error}")
    if not left:
        record.unlink(missing_ok=True)
    return left


def interface_for(address: str, there: Iterable[tuple[int, str]]) -> int | None:
    """Index of the interface with the narrowest network that an address is of."""
    wanted = ipaddress.ip_address(address)
    best: tuple[int, int] | None = None
    for index, text in there:
        network = ipaddress.ip_interface(text).network
        is_one = network.prefixlen == network.max_prefixlen
        if not is_one and wanted in network and (best is None or network.prefixlen > best[0]):
            best = (network.prefixlen, index)
    return best[1] if best else None


def announcements(address: str, hardware: bytes) -> Iterator[bytes]:
    """Frames that tell a LAN that the interface of that hardware address has an address."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv4Address):
        for operation in (ARP_REQUEST, ARP_REPLY):  # some machines learn from the one only, some from the other
            target = bytes(6) if operation == ARP_REQUEST else BROADCAST
            body = struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, operation, hardware, ip.packed, target, ip.packed)
            yield BROADCAST + hardware + struct.pack("!H", ETHERTYPE_ARP) + body
        return
    override = 0x20000000
    body = struct.pack("!I16sBB6s", override, ip.packed, 2, 1, hardware)
    checked = struct.pack("!16s16sI3xB", ip.packed, ALL_NODES.packed, len(body) + 4, socket.IPPROTO_ICMPV6)
    head = struct.pack("!BBH", 136, 0, _checksum(checked + struct.pack("!BBH", 136, 0, 0) + body))
    packet = struct.pack("!IHBB16s16s", 6 << 28, len(body) + 4, socket.IPPROTO_ICMPV6, 255, ip.packed, ALL_NODES.packed)
    yield ALL_NODES_HARDWARE + hardware + struct.pack("!H", ETHERTYPE_IPV6) + packet + head + body


def claim(frame: bytes) -> str:
    """The IPv4 address that the sender of an ARP frame says is its own; empty for anything else."""
    if len(frame) < 42 or struct.unpack_from("!HHHBB", frame, 12) != (ETHERTYPE_ARP, 1, 0x0800, 6, 4):
        return ""
    return socket.inet_ntoa(frame[28:32])


def advertised(message: bytes) -> str:
    """The IPv6 address that the sender of a neighbour advertisement says is its own; empty for anything else."""
    return (
        socket.inet_ntop(socket.AF_INET6, message[8:24]) if len(message) >= 24 and message[0] == ADVERTISEMENT else ""
    )


def _advertisements() -> socket.socket:
    """Others' neighbour advertisements, and nothing else."""
    made = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    made.setblocking(False)
    blocked = [0xFFFFFFFF] * 8
    blocked[ADVERTISEMENT // 32] &= ~(1 << ADVERTISEMENT % 32)
    made.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, struct.pack("=8I", *blocked))
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
    return made


def _checksum(data: bytes) -> int:
    """The Internet's (RFC 1071)."""
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


def _alone(address: str) -> str:
    return f"{address}/{128 if ':' in address else 32}"


def _read(record: Path, netlink: kernel.Netlink) -> dict[str, int]:
    """What is recorded, on interfaces that still exist. Interfaces are recorded by name: indices change at a boot."""
    if not record.exists():
        return {}
    indices = {link.name: link.index for link in kernel.links(netlink)}
    recorded: dict[str, str] = json.loads(record.read_text())
    return {address: indices[name] for address, name in recorded.items() if name in indices}


def _write(record: Path, held: Mapping[str, int], netlink: kernel.Netlink) -> None:
    names = {link.index: link.name for link in kernel.links(netlink)}
    record.parent.mkdir(parents=True, exist_ok=True)
    written = record.with_suffix(".new")
    written.write_text(json.dumps({address: names[index] for address, index in held.items() if index in names}))
    os.replace(written, record)
