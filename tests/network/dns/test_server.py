"""The DNS server on real sockets, asked by another implementation (dnslib)."""

from __future__ import annotations

import asyncio
import errno
import re
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import dnslib
import pytest

from knarr.api.core.v1 import Namespace
from knarr.api.meta.v1 import ObjectMeta
from knarr.client.informer import Informers
from knarr.clock import SystemClock
from knarr.network.dns import DnsServer, host_resolvers
from knarr.network.dns.pages import dns_pages
from tests.network.feed import Feed
from tests.network.lab import Lab
from tests.network.proxy.objects import endpoint, endpoint_slice, service
from tests.ports import closed_port, free_ports

REPLY_TIMEOUT_S = 30.0


async def ask(
    address: tuple[str, int], name: str, kind: str = "A", *, tcp: bool = False, edns: int | None = None
) -> dnslib.DNSRecord:
    query = dnslib.DNSRecord.question(name, kind)
    if edns:
        query.add_ar(dnslib.EDNS0(udp_len=edns))
    answer = dnslib.DNSRecord.parse(await (exchange_tcp if tcp else exchange_udp)(address, query.pack()))
    assert answer.header.id == query.header.id
    return answer


async def exchange_udp(address: tuple[str, int], packet: bytes, made: socket.socket | None = None) -> bytes:
    loop = asyncio.get_running_loop()
    with made or socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        async with asyncio.timeout(REPLY_TIMEOUT_S):
            await loop.sock_connect(client, address)
            await loop.sock_sendall(client, packet)
            return await loop.sock_recv(client, 65535)


async def exchange_tcp(address: tuple[str, int], packet: bytes) -> bytes:
    async with asyncio.timeout(REPLY_TIMEOUT_S):
        reader, writer = await asyncio.open_connection(*address)
        try:
            writer.write(struct.pack(">H", len(packet)) + packet)
            (length,) = struct.unpack(">H", await reader.readexactly(2))
            return await reader.readexactly(length)
        finally:
            writer.close()


class Resolver(asyncio.DatagramProtocol):
    """Another resolver: answers every question by a function of the test's."""

    def __init__(self, answer: Callable[[dnslib.DNSRecord], dnslib.DNSRecord | None]) -> None:
        self.answer = answer
        self.asked: list[str] = []
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        query = dnslib.DNSRecord.parse(data)
        self.asked.append(str(query.q.qname))
        answer = self.answer(query)
        if answer is not None:
            self.transport.sendto(answer.pack(), addr)

    @property
    def address(self) -> tuple[str, int]:
        return self.transport.get_extra_info("sockname")[:2]


@asynccontextmanager
async def resolver(answer: Callable[[dnslib.DNSRecord], dnslib.DNSRecord | None]) -> AsyncIterator[Resolver]:
    made = Resolver(answer)
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: made, ("127.0.0.1", 0))
    try:
        yield made
    finally:
        transport.close()


def with_address(query: dnslib.DNSRecord) -> dnslib.DNSRecord:
    answer = query.reply()
    answer.add_answer(dnslib.RR(query.q.qname, dnslib.QTYPE.A, rdata=dnslib.A("192.0.2.80"), ttl=20))
    return answer


class Rig:
    def __init__(self) -> None:
        self.feed = Feed()
        self.informers = Informers(self.feed.client, SystemClock())
        self.feed.put(Namespace(metadata=ObjectMeta(name="default")))

    async def shown(self, *objects: Any) -> None:
        for obj in objects:
            await self.informers.of(type(obj)).reached(self.feed.put(obj))

    @asynccontextmanager
    async def serving(self, **options: Any) -> AsyncIterator[tuple[str, int]]:
        options.setdefault("listen", [("127.0.0.1", 0)])
        server = DnsServer(self.informers, SystemClock(), **options)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(self.informers.run())
            await server.start()
            try:
                await self.informers.synced()
                yield server.addresses[0]
            finally:
                await server.close()
                running.cancel()


@pytest.fixture
def rig() -> Rig:
    return Rig()


def data(answer: dnslib.DNSRecord) -> list[str]:
    return sorted(str(record.rdata) for record in answer.rr)


@pytest.mark.parametrize("tcp", [False, True])
async def test_services_are_found_by_name(rig: Rig, tcp: bool) -> None:
    async with rig.serving() as address:
        await rig.shown(service("web", "10.96.0.20"))
        answer = await ask(address, "web.default.svc.cluster.local", tcp=tcp)
        assert data(answer) == ["10.96.0.20"]
        assert answer.header.aa == 1
        assert answer.rr[0].ttl == 5
        assert (await ask(address, "db.default.svc.cluster.local", tcp=tcp)).header.rcode == dnslib.RCODE.NXDOMAIN


async def test_answers_are_never_stale(rig: Rig) -> None:
    async with rig.serving() as address:
        for number in range(2, 20):
            await rig.shown(service("db", "None"), endpoint_slice(endpoint(f"10.244.0.{number}"), service="db"))
            assert data(await ask(address, "db.default.svc.cluster.local")) == [f"10.244.0.{number}"]
        rig.feed.delete(service("db", "None"))
        await rig.informers.of(type(service())).reached(rig.feed.revision)
        assert (await ask(address, "db.default.svc.cluster.local")).header.rcode == dnslib.RCODE.NXDOMAIN


async def test_an_answer_is_given_again_to_who_asks_the_same_and_is_counted_again(rig: Rig) -> None:
    async with rig.serving() as address:
        await rig.shown(service("web", "10.96.0.20"))
        first, again = [await ask(address, "web.default.svc.cluster.local", edns=1232) for _ in range(2)]
        assert data(first) == data(again) == ["10.96.0.20"]
        spelled = await ask(address, "WEB.default.svc.cluster.local", edns=1232)
        assert str(spelled.q.qname) == "WEB.default.svc.cluster.local."
        assert (await ask(address, "web.other.svc.cluster.local")).header.rcode == dnslib.RCODE.NXDOMAIN
        await rig.shown(Namespace(metadata=ObjectMeta(name="other")), service("web", "10.96.0.21", namespace="other"))
        assert data(await ask(address, "web.other.svc.cluster.local")) == ["10.96.0.21"]


async def test_until_the_cluster_is_known_nothing_is_denied(rig: Rig) -> None:
    server = DnsServer(rig.informers, SystemClock(), listen=[("127.0.0.1", 0)])
    await server.start()
    answer = await ask(server.addresses[0], "web.default.svc.cluster.local")
    assert answer.header.rcode == dnslib.RCODE.SERVFAIL
    await server.close()
    await server.close()


async def test_a_long_answer_is_cut_over_udp_and_whole_over_tcp(rig: Rig) -> None:
    async with rig.serving() as address:
        many = [endpoint(f"10.244.1.{number}") for number in range(100)]
        await rig.shown(service("db", "None"), endpoint_slice(*many, service="db"))
        small = await ask(address, "db.default.svc.cluster.local")
        larger = await ask(address, "db.default.svc.cluster.local", edns=4096)
        assert (small.header.tc, larger.header.tc) == (1, 1)
        assert 0 < len(small.rr) < len(larger.rr) < 100
        whole = await ask(address, "db.default.svc.cluster.local", tcp=True)
        assert (whole.header.tc, len(whole.rr)) == (0, 100)


async def test_other_names_are_asked_elsewhere_and_kept_for_a_while(rig: Rig) -> None:
    async with resolver(with_address) as other, rig.serving(forward=[other.address]) as address:
        for name in ("www.example.org", "WWW.example.org"):
            answer = await ask(address, name)
            assert data(answer) == ["192.0.2.80"]
            assert str(answer.q.qname) == f"{name}."
            assert answer.header.ra == 1
            assert answer.rr[0].ttl <= 20
        assert other.asked == ["www.example.org."]
        # What the search path makes of it stays here.
        assert (await ask(address, "www.example.org.svc.cluster.local")).header.rcode == dnslib.RCODE.NXDOMAIN
        assert len(other.asked) == 1


async def test_what_passes_through_speaks_to_its_asker_as_every_answer_does(rig: Rig) -> None:
    """An asker that knows EDNS is told that it is known here, and sees its own wish for recursion, kept or not."""
    async with resolver(with_address) as other, rig.serving(forward=[other.address]) as address:
        for recursion in (1, 0, 1):
            question = dnslib.DNSRecord.question("www.example.org")
            question.header.rd = recursion
            question.add_ar(dnslib.EDNS0(udp_len=1232))
            answer = dnslib.DNSRecord.parse(await exchange_udp(address, question.pack()))
            assert [each.rtype for each in answer.ar] == [dnslib.QTYPE.OPT]
            assert (answer.header.rd, data(answer)) == (recursion, ["192.0.2.80"])
        assert not (await ask(address, "www.example.org")).ar, "who does not know it is not told"
        assert other.asked == ["www.example.org."] * 2


async def test_the_next_resolver_is_asked_when_one_fails(rig: Rig) -> None:
    def failing(query: dnslib.DNSRecord) -> dnslib.DNSRecord:
        answer = query.reply()
        answer.header.rcode = dnslib.RCODE.SERVFAIL
        return answer

    async with (
        resolver(failing) as first,
        resolver(with_address) as second,
        rig.serving(forward=[first.address, second.address]) as address,
    ):
        assert data(await ask(address, "www.example.org")) == ["192.0.2.80"]


async def test_a_forged_answer_is_not_taken(rig: Rig) -> None:
    def forging(query: dnslib.DNSRecord) -> dnslib.DNSRecord:
        forged = with_address(query)
        forged.rr[0].rdata = dnslib.A("6.6.6.6")
        forged.header.id = query.header.id ^ 1
        other.transport.sendto(forged.pack(), source[0])
        forged.header.id = query.header.id
        forged.questions = [dnslib.DNSQuestion("evil.example")]
        other.transport.sendto(forged.pack(), source[0])
        return with_address(query)

    source: list[Any] = []
    async with resolver(forging) as other, rig.serving(forward=[other.address]) as address:
        receive = other.datagram_received

        def noting(data: bytes, addr: Any) -> None:
            source[:] = [addr]
            receive(data, addr)

        other.datagram_received = noting  # type: ignore[method-assign]
        assert data(await ask(address, "www.example.org")) == ["192.0.2.80"]


async def test_names_of_others_are_refused_without_resolvers(rig: Rig) -> None:
    async with rig.serving() as address:
        assert (await ask(address, "www.example.org")).header.rcode == dnslib.RCODE.REFUSED


async def test_unreachable_resolvers_are_a_server_failure(rig: Rig) -> None:
    with closed_port(socket.SOCK_DGRAM) as closed:
        async with rig.serving(forward=[("127.0.0.1", closed)]) as address:
            assert (await ask(address, "www.example.org")).header.rcode == dnslib.RCODE.SERVFAIL


async def test_external_names_come_with_their_addresses(rig: Rig) -> None:
    async with resolver(with_address) as other, rig.serving(forward=[other.address]) as address:
        await rig.shown(
            service("outside", "", type="ExternalName", external_name="www.example.org"),
            service("inside", "", type="ExternalName", external_name="web.default.svc.cluster.local"),
            service("loop", "", type="ExternalName", external_name="loop.default.svc.cluster.local"),
            service("web", "10.96.0.20"),
        )
        outside = await ask(address, "outside.default.svc.cluster.local")
        assert data(outside) == ["192.0.2.80", "www.example.org."]
        inside = await ask(address, "inside.default.svc.cluster.local")
        assert data(inside) == ["10.96.0.20", "web.default.svc.cluster.local."]
        assert len((await ask(address, "loop.default.svc.cluster.local")).rr) < 20


async def test_garbage_is_survived(rig: Rig) -> None:
    async with rig.serving() as address:
        await rig.shown(service("web", "10.96.0.20"))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            for garbage in (b"", b"x", bytes(12), b"\xff" * 600, bytes(4) + b"\0\1" + bytes(6) + b"\xc0\x0c" * 50):
                client.sendto(garbage, address)
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"\0\x03abc")
        assert await reader.read() == b"", "the connection is closed"
        writer.close()
        assert data(await ask(address, "web.default.svc.cluster.local")) == ["10.96.0.20"]


async def test_a_stub_domain_may_lie_inside_of_the_clusters(rig: Rig) -> None:
    async with (
        resolver(with_address) as other,
        rig.serving(stub_domains={"legacy.cluster.local": [other.address]}) as address,
    ):
        await rig.shown(service("web", "10.96.0.20"))
        assert data(await ask(address, "db.legacy.cluster.local")) == ["192.0.2.80"]
        assert data(await ask(address, "web.default.svc.cluster.local")) == ["10.96.0.20"]
        assert (await ask(address, "www.example.org")).header.rcode == dnslib.RCODE.REFUSED


async def test_what_is_answered_is_counted_under_corednss_names(rig: Rig) -> None:
    server = DnsServer(rig.informers, SystemClock(), listen=[("127.0.0.1", 0)])
    pages = dns_pages(server, ["127.0.0.1"], 0)

    async def page(path: str) -> tuple[int, str]:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as answer:
            return answer.status, await answer.text()

    async with asyncio.TaskGroup() as group:
        await server.start()
        await pages.start()
        port = pages.addresses[0][1]
        assert (await page("/health"))[0] == 200
        assert (await page("/ready"))[0] == 503
        running = group.create_task(rig.informers.run())
        await rig.informers.synced()
        assert (await page("/ready"))[0] == 200
        await rig.shown(service("web", "10.96.0.20"))
        for name, kind, tcp in [
            ("web", "A", False),
            ("web", "AAAA", True),
            ("none", "A", False),
            ("none", "A", False),
            ("web", "CAA", False),
        ]:
            await ask(server.addresses[0], f"{name}.default.svc.cluster.local", kind, tcp=tcp)
        await ask(server.addresses[0], "www.example.org")
        _, text = await page("/metrics")
        running.cancel()
        await pages.close()
        await server.close()
    counted = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line[0] != "#"}
    requests = {
        tuple(re.findall(r'(?:proto|type|zone)="([^"]*)"', name)): value
        for name, value in counted.items()
        if name.startswith("coredns_dns_requests_total")
    }
    assert requests == {
        ("udp", "A", "cluster.local."): 3,
        ("tcp", "AAAA", "cluster.local."): 1,
        ("udp", "other", "cluster.local."): 1,
        ("udp", "A", "."): 1,
    }
    codes = {
        tuple(re.findall(r'(?:rcode|zone)="([^"]*)"', name)): value
        for name, value in counted.items()
        if name.startswith("coredns_dns_responses_total")
    }
    assert codes == {
        ("NOERROR", "cluster.local."): 3,
        ("NXDOMAIN", "cluster.local."): 2,
        ("REFUSED", "."): 1,
    }
    (seen,) = [value for name, value in counted.items() if "duration_seconds_count" in name and "cluster.local" in name]
    assert seen == 5


async def test_a_free_port_is_free_for_connections_too(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel offers one that is free for datagrams; twice somebody has it for connections."""
    bind_once, tries = DnsServer._bind_once, []

    def unlucky(self: DnsServer, address: str, port: int) -> Any:
        tries.append(port)
        if len(tries) <= 2:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        return bind_once(self, address, port)

    monkeypatch.setattr(DnsServer, "_bind_once", unlucky)
    async with rig.serving() as address:
        await rig.shown(service("web", "10.96.0.20"))
        assert data(await ask(address, "web.default.svc.cluster.local", tcp=True)) == ["10.96.0.20"]
    assert tries == [0, 0, 0]


async def test_a_taken_port_is_an_error_and_leaves_nothing_bound(rig: Rig) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        address = ("127.0.0.1", *free_ports(1))
        server = DnsServer(rig.informers, SystemClock(), listen=[address, taken.getsockname()])
        with pytest.raises(OSError):
            await server.start()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
        again.bind(address)


def test_the_hosts_resolvers_are_read(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    assert host_resolvers(path) == []
    path.write_text("# comment\nsearch a b\nnameserver 192.0.2.1\nnameserver fd00::1\noptions ndots:5\nnameserver\n")
    assert host_resolvers(path) == [("192.0.2.1", 53), ("fd00::1", 53)]


@pytest.mark.e2e
async def test_pods_reach_the_cluster_dns_address(lab: Lab, rig: Rig) -> None:
    await lab.network.add_node_address("10.96.0.10")
    await lab.add_pod("pod")
    listen = [("10.96.0.10", 53)]
    async with rig.serving(listen=listen, network_namespace=lab.path("node")) as address:
        await rig.shown(service("web", "10.96.0.20"))
        query = dnslib.DNSRecord.question("web.default.svc.cluster.local").pack()
        for namespace in ("pod", "node"):
            answer = await exchange_udp(address, query, lab.socket(namespace, socket.SOCK_DGRAM))
            assert data(dnslib.DNSRecord.parse(answer)) == ["10.96.0.20"]
        connection = await lab.connect("pod", *address)
        connection.close()
