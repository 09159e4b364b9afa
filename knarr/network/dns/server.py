"""The cluster's DNS server: authoritative for the cluster's domain, forwarding for all else.

Answers about the cluster come from the informers' copies at the moment of the question, so they are never older than
what this process knows: one that is given again was made since the last change of anything. They are given at once, in
the datagram's own callback; only what must be forwarded becomes a task. Until the informers have their first lists the
server says SERVFAIL, never NXDOMAIN.

Packets reach it because the node itself has the cluster DNS address (see PodNetwork.add_node_address), as with
NodeLocal DNSCache upstream: no service rule, no tracked connection and no other node is involved.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from knarr.api.core.v1 import Namespace, Service
from knarr.api.discovery.v1 import EndpointSlice
from knarr.client.informer import Informer, Informers
from knarr.clock import Clock
from knarr.figures import Figure
from knarr.network import netlink as kernel
from knarr.network.dns import wire
from knarr.network.dns.figures import Counts
from knarr.network.dns.forward import RESOLVERS_MAX, Forwarder, Resolver
from knarr.network.dns.records import SERVICE_NAME_LABEL, Zone, address_of_reverse, lookup, reverse_lookup
from knarr.network.dns.wire import Code, Malformed, Query, Record, Reply, Type, name_of

log = logging.getLogger(__name__)

FORWARDED_AT_ONCE_MAX = 512
"""Questions to other resolvers under way; the next one is told SERVFAIL, and asks again."""
FREE_PORT_TRIES = 32
CONNECTIONS_MAX = 256
"""TCP clients at once."""
CONNECTION_IDLE_S = 10.0
ALIASES_MAX = 8
"""CNAMEs followed for one answer."""
WRITTEN_ANSWERS_MAX = 4096
"""Answers about the cluster that are ready to be given again. A change of the cluster throws all of them away."""
RECEIVE_BUFFER_BYTES = 1 << 20
"""Queries that wait while the process is busy elsewhere."""


class _Written(Struct, frozen=True):
    """An answer that holds until the cluster changes."""

    query: Query
    answer: bytes
    """The whole packet, with the id of who asked first."""


class DnsServer:
    """Serves on each of `listen` from `start` to `close`."""

    def __init__(
        self,
        informers: Informers,
        clock: Clock,
        *,
        listen: Sequence[tuple[str, int]],
        forward: Sequence[Resolver] = (),
        stub_domains: Mapping[str, Sequence[Resolver]] | None = None,
        domain: str = "cluster.local",
        network_namespace: str | None = None,
    ) -> None:
        """`listen` are (address, port) pairs with addresses that the node has; port 0 takes a free one.

        `forward` are the resolvers for other names (see `host_resolvers`); without any, those are REFUSED.
        `stub_domains` have resolvers of their own.
        """
        self._clock = clock
        self._listen = tuple(listen)
        self._namespace = network_namespace
        address, port = self._listen[0] if self._listen else ("", 0)
        self._zone = Zone(name_of(domain), server_address=address)
        self._counts = Counts(f"dns://{address}:{port}", self._zone.name)
        # A resolver that is this very server would ask itself for ever.
        self._forwarder = Forwarder(
            clock,
            [each for each in forward if each not in self._listen],
            {name_of(each): resolvers for each, resolvers in (stub_domains or {}).items()},
            network_namespace=network_namespace,
            counts=self._counts,
        )
        self._written_answers: dict[bytes, _Written] = {}
        """By the question's packet less its id."""
        self._objects = _InformedObjects(informers, changed=self._written_answers.clear)
        self._datagrams: list[_Datagrams] = []
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections: set[asyncio.Task[Any]] = set()
        self.addresses: list[tuple[str, int]] = []
        """Where it listens, once started."""

    async def start(self) -> None:
        """Bind. OSError when an address isn't the node's or its port is taken; nothing stays bound then."""
        loop = asyncio.get_running_loop()
        try:
            for address, port in self._listen:
                datagrams, stream = self._bind(address, port)
                self.addresses.append(datagrams.getsockname()[:2])
                _, protocol = await loop.create_datagram_endpoint(lambda: _Datagrams(self), sock=datagrams)
                self._datagrams.append(protocol)
                self._servers.append(await asyncio.start_server(self._connected, sock=stream))
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Stop serving. Idempotent."""
        for protocol in self._datagrams:
            await protocol.close()
        for server in self._servers:
            server.close()
        tasks = [*self._tasks, *self._connections]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for server in self._servers:
            await server.wait_closed()
        self._datagrams, self._servers, self.addresses = [], [], []

    def _bind(self, address: str, port: int) -> tuple[socket.socket, socket.socket]:
        """Sockets for datagrams and connections, at the same port."""
        for _ in range(FREE_PORT_TRIES if port == 0 else 1):
            try:
                return self._bind_once(address, port)
            except OSError as failure:
                # A port that is free for datagrams may not be for connections.
                if failure.errno != errno.EADDRINUSE:
                    raise
                refused = failure
        raise refused

    def _bind_once(self, address: str, port: int) -> tuple[socket.socket, socket.socket]:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with kernel.entered(self._namespace):
            datagrams = socket.socket(family, socket.SOCK_DGRAM)
            stream = socket.socket(family, socket.SOCK_STREAM)
        try:
            datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            datagrams.bind((address, port))
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            stream.bind((address, datagrams.getsockname()[1]))
        except BaseException:
            datagrams.close()
            stream.close()
            raise
        return datagrams, stream

    # Questions

    @property
    def is_ready(self) -> bool:
        """Whether it knows the cluster."""
        return self._objects.complete

    def figures(self) -> Iterator[Figure]:
        """What it counts."""
        return self._counts.figures(self._forwarder.kept_count)

    def _read(self, packet: bytes) -> Query | bytes | None:
        """The query in a packet, or what to answer to one that can't be read; None for silence."""
        try:
            return wire.read_query(packet)
        except Malformed as fault:
            self._counts.malformed += 1
            return wire.write_error(packet, fault.code) if fault.code is not None else None

    def answer_at_once(self, query: Query, payload_bytes: int | None) -> bytes | None:
        """The answer to a query; None when others must be asked first.

        `payload_bytes` bounds the answer; None for what the client says that it can take (UDP).
        """
        reply = self._reply(query)
        if reply is None:
            return self._forwarder.kept(query)
        if self._alias(reply, query) is not None:
            return None
        return self._written(query, reply, payload_bytes)

    async def answer(self, query: Query, packet: bytes, payload_bytes: int | None, *, tcp: bool) -> bytes:
        """The answer to a query that needs others."""
        reply = self._reply(query)
        if reply is None:
            answer = await self._forwarder.ask(query, packet, tcp=tcp)
            if answer is not None:
                return answer
            reply = Reply(Code.SERVER_FAILURE, authoritative=False)
        else:
            reply = await self._follow(query, reply)
        return self._written(query, reply, payload_bytes)

    def _reply(self, query: Query) -> Reply | None:
        """What the cluster's objects say; None when the name isn't the cluster's and others may know."""
        if query.edns_version:
            return Reply(Code.BAD_VERSION, authoritative=False)
        if query.type == Type.AXFR:
            return Reply(Code.REFUSED, authoritative=False)
        in_zone = self._in_zone(query)
        if in_zone and not self._objects.complete:
            return Reply(Code.SERVER_FAILURE, authoritative=False)
        if in_zone:
            reply = lookup(self._objects, self._zone, query.name, query.type)
            if len(reply.answers) > 1:
                # Clients take the first; this spreads them over a headless service's endpoints.
                self._clock.random.shuffle(answers := list(reply.answers))
                reply = Reply(reply.code, answers, reply.authorities, reply.additionals)
            return reply
        if address_of_reverse(query.name) is not None and not self._forwarder.has_own(query.name):
            found = reverse_lookup(self._objects, self._zone, query.name, query.type)
            if found is not None:
                return found
        return None if self._forwarder.asks_for(query.name) else Reply(Code.REFUSED, authoritative=False)

    def _in_zone(self, query: Query) -> bool:
        """Whether a name is the cluster's: a stub domain inside of it is not."""
        return self._zone.contains(query.name) and not self._forwarder.has_own(query.name)

    def _alias(self, reply: Reply, query: Query) -> Record | None:
        """The CNAME at the end of the answers, when the question was for what it points to."""
        last = reply.answers[-1] if reply.answers else None
        if last is None or last.type != Type.CNAME or query.type not in (Type.A, Type.AAAA):
            return None
        return last

    async def _follow(self, query: Query, reply: Reply) -> Reply:
        """Add what an ExternalName's target is, as far as it can be told."""
        answers = list(reply.answers)
        for _ in range(ALIASES_MAX):
            alias = self._alias(Reply(answers=answers), query)
            if alias is None:
                break
            target = alias.data
            assert isinstance(target, tuple)
            target_name = tuple(str(label) for label in target)
            if self._zone.contains(target_name):
                more: Sequence[Record] = lookup(self._objects, self._zone, target_name, query.type).answers
            else:
                asked = self._forwarder.asks_for(target_name)
                more = await self._forwarder.addresses(target_name, Type(query.type)) if asked else ()
            if not more:
                break
            answers += more
        return Reply(reply.code, answers)

    def _written(self, query: Query, reply: Reply, payload_bytes: int | None) -> bytes:
        return wire.write_reply(
            query,
            reply,
            query.payload_bytes if payload_bytes is None else payload_bytes,
            recursion=self._forwarder.asks_for(()),
        )

    def _answered(self, query: Query, answer: bytes, since_s: float, *, tcp: bool, ipv6: bool) -> None:
        seconds = self._clock.monotonic_s() - since_s
        self._counts.answered(query, in_zone=self._in_zone(query), tcp=tcp, ipv6=ipv6, answer=answer, seconds=seconds)

    # UDP

    def datagram(self, packet: bytes, peer: Any, transport: asyncio.DatagramTransport) -> None:
        since_s = self._clock.monotonic_s()
        written = self._written_answers.get(packet[2:])
        if written is not None:
            transport.sendto(packet[:2] + written.answer[2:], peer)
            self._answered(written.query, written.answer, since_s, tcp=False, ipv6=len(peer) > 2)
            return
        query = self._read(packet)
        if not isinstance(query, Query):
            if query is not None:
                transport.sendto(query, peer)
            return
        answer = self.answer_at_once(query, None)
        if answer is None and len(self._tasks) >= FORWARDED_AT_ONCE_MAX:
            answer = self._written(query, Reply(Code.SERVER_FAILURE, authoritative=False), None)
        if answer is not None:
            transport.sendto(answer, peer)
            self._answered(query, answer, since_s, tcp=False, ipv6=len(peer) > 2)
            if self._in_zone(query) and answer[7] <= 1 and self._objects.complete:
                # With more than one record their order is another each time.
                if len(self._written_answers) >= WRITTEN_ANSWERS_MAX:
                    self._written_answers.clear()
                self._written_answers[packet[2:]] = _Written(query, answer)
            return
        task = asyncio.get_running_loop().create_task(
            self._answer_datagram(query, packet, peer, transport, since_s), name="dns question"
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer_datagram(
        self, query: Query, packet: bytes, peer: Any, transport: asyncio.DatagramTransport, since_s: float
    ) -> None:
        try:
            answer = await self.answer(query, packet, None, tcp=False)
        except Exception:
            log.exception("the question for %s was not answered", wire.text_of(query.name))
            return
        if not transport.is_closing():
            transport.sendto(answer, peer)
            self._answered(query, answer, since_s, tcp=False, ipv6=len(peer) > 2)

    # TCP

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._connections) >= CONNECTIONS_MAX:
            writer.close()
            return
        self._connections.add(task)
        try:
            await self._converse(reader, writer)
        except (OSError, EOFError):
            pass  # the client is gone, or was silent for too long
        except asyncio.CancelledError:
            pass  # the server closes; the stream's own task must not report that
        finally:
            self._connections.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ipv6 = len(writer.get_extra_info("peername") or ()) > 2
        while True:
            async with self._clock.timeout(CONNECTION_IDLE_S):
                (length,) = struct.unpack(">H", await reader.readexactly(2))
                packet = await reader.readexactly(length)
            since_s = self._clock.monotonic_s()
            query = self._read(packet)
            if query is None:
                return
            if isinstance(query, Query):
                answer = self.answer_at_once(query, wire.TCP_PAYLOAD_BYTES)
                if answer is None:
                    answer = await self.answer(query, packet, wire.TCP_PAYLOAD_BYTES, tcp=True)
                self._answered(query, answer, since_s, tcp=True, ipv6=ipv6)
            else:
                answer = query
            writer.write(struct.pack(">H", len(answer)) + answer)
            async with self._clock.timeout(CONNECTION_IDLE_S):
                await writer.drain()


class _Datagrams(asyncio.DatagramProtocol):
    """asyncio's side of a UDP socket."""

    def __init__(self, server: DnsServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None
        self._closed = asyncio.Event()

    async def close(self) -> None:
        """Give the port back; it is free when this returns."""
        if self._transport is not None:
            self._transport.close()
            await self._closed.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def datagram_received(self, data: bytes, addr: Any) -> None:
        assert self._transport is not None
        try:
            self._server.datagram(data, addr, self._transport)
        except Exception:
            log.exception("a question from %s was not answered", addr)

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed.set()

    def error_received(self, exc: Exception) -> None:
        log.debug("dns: %s", exc)  # a client went away before its answer came


class _InformedObjects:
    """`records.Objects` on informers."""

    def __init__(self, informers: Informers, changed: Callable[[], None]) -> None:
        """`changed` is called whenever an answer may have become another."""
        self._namespaces: Informer[Namespace] = informers.of(Namespace)
        self._services: Informer[Service] = informers.of(Service)
        self._slices: Informer[EndpointSlice] = informers.of(EndpointSlice)
        self._services.add_index("dns cluster ip", _cluster_addresses)
        self._slices.add_index("dns service", _service_key)
        self._slices.add_index("dns address", _endpoint_addresses)
        for informer in (self._namespaces, self._services, self._slices):
            informer.add_handler(lambda old, new: changed())

    @property
    def complete(self) -> bool:
        return self._services.synced.is_set() and self._slices.synced.is_set() and self._namespaces.synced.is_set()

    def namespace_exists(self, name: str) -> bool:
        return self._namespaces.get(name) is not None

    def service(self, namespace: str, name: str) -> Service | None:
        return self._services.get(f"{namespace}/{name}")

    def slices(self, namespace: str, service: str) -> Iterable[EndpointSlice]:
        return self._slices.by_index("dns service", f"{namespace}/{service}")

    def services_at(self, address: str) -> Iterable[Service]:
        return self._services.by_index("dns cluster ip", address)

    def slices_at(self, address: str) -> Iterable[EndpointSlice]:
        return self._slices.by_index("dns address", address)


def _cluster_addresses(service: Service) -> Iterable[str]:
    if service.spec is None:
        return ()
    return {each for each in (*service.spec.cluster_ips, service.spec.cluster_ip) if each and each != "None"}


def _service_key(each: EndpointSlice) -> Iterable[str]:
    name = each.metadata.labels.get(SERVICE_NAME_LABEL)
    return (f"{each.metadata.namespace}/{name}",) if name else ()


def _endpoint_addresses(each: EndpointSlice) -> Iterable[str]:
    return {address for endpoint in each.endpoints for address in endpoint.addresses}


def host_resolvers(path: Path = Path("/etc/resolv.conf")) -> list[tuple[str, int]]:
    """The resolvers that the machine itself uses (resolv.conf(5))."""

    def found() -> Iterator[tuple[str, int]]:
        for line in path.read_text(errors="replace").splitlines() if path.exists() else ():
            words = line.split()
            if len(words) >= 2 and words[0] == "nameserver":
                yield words[1], 53

    return list(found())[:RESOLVERS_MAX]
