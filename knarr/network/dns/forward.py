"""Ask other resolvers for names outside of the cluster, and remember their answers for a while.

Answers pass through as they came. Each question goes out on a socket of its own (RFC 5452: the port and the id are
what a forger must guess), to the next resolver when one doesn't answer in time.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import OrderedDict
from collections.abc import Sequence

from msgspec import Struct

from knarr.clock import Clock
from knarr.network import netlink as kernel
from knarr.network.dns import wire
from knarr.network.dns.wire import Code, Malformed, Name, Passing, Query, Record, Type

ATTEMPT_TIMEOUT_S = 2.0
"""For one resolver; a stub resolver in a pod gives up after 5 s by default."""
RESOLVERS_MAX = 3
"""As in resolv.conf(5)."""
CACHE_ANSWERS_MAX = 10_000
CACHE_TTL_MAX_S = 30
"""Upper bound for a kept answer's age, as CoreDNS's cache has it in a usual cluster."""
FAILURE_TTL_S = 2
"""For answers without any TTL (server failures)."""


class _Kept(Struct, frozen=True):
    packet: bytes
    passing: Passing
    since_s: float
    until_s: float


class Forwarder:
    """Other resolvers, tried in order."""

    def __init__(
        self, clock: Clock, resolvers: Sequence[tuple[str, int]], *, network_namespace: str | None = None
    ) -> None:
        self._clock = clock
        self._namespace = network_namespace
        self._resolvers = tuple(resolvers[:RESOLVERS_MAX])
        self._kept: OrderedDict[tuple[Name, int, bool, bool], _Kept] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._resolvers)

    def kept(self, query: Query) -> bytes | None:
        """An answer that is still good, if it fits."""
        key = _key(query)
        found = self._kept.get(key)
        now_s = self._clock.monotonic_s()
        if found is None:
            return None
        if found.until_s <= now_s:
            del self._kept[key]
            return None
        self._kept.move_to_end(key)
        return wire.aged(
            found.packet, query.id, query.question, found.passing.ttl_positions, int(now_s - found.since_s)
        )

    async def ask(self, query: Query, packet: bytes, *, tcp: bool) -> bytes | None:
        """Another resolver's answer to a client's packet; None when nobody answers."""
        identity = self._clock.random.getrandbits(16)
        asked = struct.pack(">H", identity) + packet[2:]
        for resolver in self._resolvers:
            try:
                async with self._clock.timeout(ATTEMPT_TIMEOUT_S):
                    exchange = self._exchange_tcp if tcp else self._exchange_udp
                    answer, passing = await exchange(resolver, identity, query.question, asked)
            except (OSError, EOFError, Malformed):
                continue
            if passing.code in (Code.SERVER_FAILURE, Code.REFUSED) and resolver != self._resolvers[-1]:
                continue
            self._keep(query, answer, passing)
            return struct.pack(">H", query.id) + answer[2:]
        return None

    async def addresses(self, name: Name, kind: Type) -> tuple[Record, ...]:
        """A name's addresses, with the CNAMEs on the way; nothing when it can't be told."""
        packet = wire.write_question(0, name, kind)
        query = wire.read_query(packet)
        answer = self.kept(query) or await self.ask(query, packet, tcp=False)
        if answer is None:
            return ()
        return wire.read_passing(answer, query.question).addresses

    def _keep(self, query: Query, answer: bytes, passing: Passing) -> None:
        if passing.truncated or len(answer) > wire.UDP_PAYLOAD_BYTES:
            return  # whether it fits depends on who asks
        if answer[wire.HEADER_BYTES : wire.HEADER_BYTES + len(query.question)].lower() != query.question.lower():
            return  # without the question there is no place to put the asker's spelling
        ttl_s = min(passing.ttl_min_s, CACHE_TTL_MAX_S) if passing.ttl_positions else FAILURE_TTL_S
        if ttl_s <= 0:
            return
        now_s = self._clock.monotonic_s()
        self._kept[_key(query)] = _Kept(answer, passing, now_s, now_s + ttl_s)
        if len(self._kept) > CACHE_ANSWERS_MAX:
            self._kept.popitem(last=False)

    async def _exchange_udp(
        self, resolver: tuple[str, int], identity: int, question: bytes, asked: bytes
    ) -> tuple[bytes, Passing]:
        loop = asyncio.get_running_loop()
        with self._socket(resolver, socket.SOCK_DGRAM) as made:
            await loop.sock_connect(made, resolver)
            await loop.sock_sendall(made, asked)
            while True:
                answer = await loop.sock_recv(made, wire.TCP_PAYLOAD_BYTES)
                try:
                    return answer, _checked(answer, identity, question)
                except Malformed:
                    continue  # somebody else's, or a forgery: go on waiting for the right one

    async def _exchange_tcp(
        self, resolver: tuple[str, int], identity: int, question: bytes, asked: bytes
    ) -> tuple[bytes, Passing]:
        made = self._socket(resolver, socket.SOCK_STREAM)
        try:
            await asyncio.get_running_loop().sock_connect(made, resolver)
            reader, writer = await asyncio.open_connection(sock=made)
        except BaseException:
            made.close()
            raise
        try:
            writer.write(struct.pack(">H", len(asked)) + asked)
            await writer.drain()
            (length,) = struct.unpack(">H", await reader.readexactly(2))
            answer = await reader.readexactly(length)
            return answer, _checked(answer, identity, question)
        finally:
            writer.close()

    def _socket(self, resolver: tuple[str, int], kind: socket.SocketKind) -> socket.socket:
        family = socket.AF_INET6 if ":" in resolver[0] else socket.AF_INET
        if self._namespace:
            with kernel.entered(self._namespace):
                made = socket.socket(family, kind)
        else:
            made = socket.socket(family, kind)
        made.setblocking(False)
        return made


def _checked(answer: bytes, identity: int, question: bytes) -> Passing:
    if len(answer) < 2 or struct.unpack_from(">H", answer)[0] != identity:
        raise Malformed(None)
    return wire.read_passing(answer, question)


def _key(query: Query) -> tuple[Name, int, bool, bool]:
    return query.name, query.type, query.edns, query.dnssec_ok
