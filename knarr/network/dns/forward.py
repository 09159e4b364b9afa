"""Ask other resolvers for names outside of the cluster, and remember their answers for a while.

Answers pass through as they came, but for what is said between neighbours (EDNS). Each question goes out on a socket of
its own (RFC 5452: the port and the id are what a forger must guess), to the next resolver when one doesn't answer in
time; one that didn't is asked last for a while. Some domains have resolvers of their own (stub domains): the longest
one that a name lies in counts.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import OrderedDict
from collections.abc import Mapping, Sequence

from msgspec import Struct

from knarr.clock import Clock
from knarr.network import netlink as kernel
from knarr.network.dns import wire
from knarr.network.dns.figures import Counts
from knarr.network.dns.wire import Code, Malformed, Name, Passing, Query, Record, Type

Resolver = tuple[str, int]
"""Address and port."""

ATTEMPT_TIMEOUT_S = 2.0
"""For one resolver; a stub resolver in a pod gives up after 5 s by default."""
SILENT_S = 10.0
"""How long a resolver that didn't answer is asked after the others."""
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
        self,
        clock: Clock,
        resolvers: Sequence[Resolver],
        stub_domains: Mapping[Name, Sequence[Resolver]] | None = None,
        *,
        network_namespace: str | None = None,
        counts: Counts | None = None,
    ) -> None:
        self._clock = clock
        self._namespace = network_namespace
        self._resolvers: dict[Name, tuple[Resolver, ...]] = {
            domain: tuple(listed[:RESOLVERS_MAX]) for domain, listed in {(): resolvers, **(stub_domains or {})}.items()
        }
        """By domain; that of the root is for all that lies in no other."""
        self._depths = sorted({len(domain) for domain in self._resolvers}, reverse=True)
        self._silent_until_s: dict[Resolver, float] = {}
        self._kept: OrderedDict[tuple[Name, int, bool, bool], _Kept] = OrderedDict()
        self._counts = counts or Counts("", ())

    def asks_for(self, name: Name) -> bool:
        """Whether anybody is there to be asked for a name."""
        return bool(self._resolvers_of(name))

    def has_own(self, name: Name) -> bool:
        """Whether a name lies in a stub domain."""
        return any(depth and name[-depth:] in self._resolvers for depth in self._depths)

    def _resolvers_of(self, name: Name) -> tuple[Resolver, ...]:
        for depth in self._depths:
            if depth <= len(name) and (domain := name[len(name) - depth :]) in self._resolvers:
                return self._resolvers[domain]
        return ()

    def _in_turn(self, name: Name) -> list[Resolver]:
        """Those to ask, in order: who was silent comes last."""
        now_s = self._clock.monotonic_s()
        return sorted(self._resolvers_of(name), key=lambda each: self._silent_until_s.get(each, 0.0) > now_s)

    def kept(self, query: Query) -> bytes | None:
        """An answer that is still good, if it fits."""
        key = _key(query)
        found = self._kept.get(key)
        now_s = self._clock.monotonic_s()
        if found is None or found.until_s <= now_s:
            self._kept.pop(key, None)
            self._counts.cache_misses += 1
            return None
        self._counts.cache_hits[found.passing.code == Code.NO_ERROR] += 1
        self._kept.move_to_end(key)
        return wire.aged(found.packet, query, found.passing.ttl_positions, int(now_s - found.since_s))

    async def ask(self, query: Query, packet: bytes, *, tcp: bool) -> bytes | None:
        """Another resolver's answer to a client's packet; None when nobody answers."""
        identity = self._clock.random.getrandbits(16)
        asked = struct.pack(">H", identity) + packet[2:]
        exchange = self._exchange_tcp if tcp else self._exchange_udp
        resolvers = self._in_turn(query.name)
        for resolver in resolvers:
            began_s = self._clock.monotonic_s()
            try:
                async with self._clock.timeout(ATTEMPT_TIMEOUT_S):
                    answer, passing = await exchange(resolver, identity, query.question, asked)
            except (OSError, EOFError, Malformed):
                self._silent_until_s[resolver] = self._clock.monotonic_s() + SILENT_S
                continue
            self._silent_until_s.pop(resolver, None)
            self._counts.forwarded(resolver, passing.code, self._clock.monotonic_s() - began_s)
            if passing.code in (Code.SERVER_FAILURE, Code.REFUSED) and resolver != resolvers[-1]:
                continue
            if query.edns and not passing.edns and (tcp or len(answer) + wire.OPTION_BYTES <= query.payload_bytes):
                answer = wire.with_option(answer)
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

    @property
    def kept_count(self) -> int:
        return len(self._kept)

    async def _exchange_udp(
        self, resolver: Resolver, identity: int, question: bytes, asked: bytes
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
        self, resolver: Resolver, identity: int, question: bytes, asked: bytes
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

    def _socket(self, resolver: Resolver, kind: socket.SocketKind) -> socket.socket:
        family = socket.AF_INET6 if ":" in resolver[0] else socket.AF_INET
        with kernel.entered(self._namespace):
            made = socket.socket(family, kind)
        made.setblocking(False)
        return made


def _checked(answer: bytes, identity: int, question: bytes) -> Passing:
    if len(answer) < 2 or struct.unpack_from(">H", answer)[0] != identity:
        raise Malformed(None)
    return wire.read_passing(answer, question)


def _key(query: Query) -> tuple[Name, int, bool, bool]:
    return query.name, query.type, query.edns, query.dnssec_ok
