"""Who is asked for names outside of the cluster, and for how long an answer is kept."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

import dnslib
import pytest

from knarr.network.dns import wire
from knarr.network.dns.forward import SILENT_S, Forwarder, Resolver
from knarr.network.dns.wire import Passing, Query, name_of
from knarr.simulate.clock import VirtualClock, run

DEFAULT, FIRST, SECOND, INNER = ("192.0.2.1", 53), ("192.0.2.2", 53), ("192.0.2.3", 53), ("192.0.2.4", 5353)


class Others(Forwarder):
    """A forwarder whose resolvers answer without a network: those in `silent` not at all."""

    def __init__(
        self, clock: VirtualClock, resolvers: Sequence[Resolver], stubs: Mapping[str, Sequence[Resolver]] = {}
    ) -> None:
        super().__init__(clock, resolvers, {name_of(domain): listed for domain, listed in stubs.items()})
        self.silent: set[Resolver] = set()
        self.asked: list[Resolver] = []
        self.answer = dnslib.RR("x.", dnslib.QTYPE.A, rdata=dnslib.A("192.0.2.80"), ttl=20)
        self.code = dnslib.RCODE.NOERROR

    async def _exchange_udp(
        self, resolver: Resolver, identity: int, question: bytes, asked: bytes
    ) -> tuple[bytes, Passing]:
        self.asked.append(resolver)
        if resolver in self.silent:
            await self._clock.sleep(3600)
        made = dnslib.DNSRecord.parse(asked).reply()
        made.header.rcode = self.code
        made.add_auth(self.answer) if self.code else made.add_answer(self.answer)
        answer = made.pack()
        assert struct.unpack_from(">H", answer)[0] == identity
        return answer, wire.read_passing(answer, question)

    async def asks(self, name: str) -> list[Resolver]:
        """Whom it asks for a name that it doesn't know yet."""
        self.asked.clear()
        packet = wire.write_question(7, name_of(name), wire.Type.A)
        await self.ask(wire.read_query(packet), packet, tcp=False)
        return list(self.asked)


def query(name: str) -> Query:
    return wire.read_query(wire.write_question(7, name_of(name), wire.Type.A))


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("www.example.org", [DEFAULT]),
        ("corp.example", [FIRST]),
        ("a.b.corp.example", [FIRST]),
        ("xcorp.example", [DEFAULT]),
        ("host.lab.corp.example", [INNER]),
        ("7.2.0.192.in-addr.arpa", [SECOND]),
        ("example", [DEFAULT]),
    ],
)
def test_the_longest_stub_domain_that_a_name_lies_in_says_who_is_asked(name: str, asked: list[Resolver]) -> None:
    async def scenario(clock: VirtualClock) -> None:
        stubs = {"corp.example": [FIRST], "lab.corp.example": [INNER], "2.0.192.in-addr.arpa": [SECOND]}
        assert await Others(clock, [DEFAULT], stubs).asks(name) == asked

    run(scenario)


def test_with_stub_domains_alone_there_is_nobody_for_other_names() -> None:
    async def scenario(clock: VirtualClock) -> None:
        others = Others(clock, [], {"corp.example": [FIRST]})
        assert others.asks_for(name_of("www.corp.example"))
        assert not others.asks_for(name_of("www.example.org"))

    run(scenario)


def test_a_resolver_that_was_silent_is_asked_last_for_a_while() -> None:
    async def scenario(clock: VirtualClock) -> None:
        others = Others(clock, [FIRST, SECOND])
        others.silent = {FIRST}
        assert await others.asks("a.example") == [FIRST, SECOND]
        assert await others.asks("b.example") == [SECOND]
        others.silent = {SECOND}
        assert await others.asks("c.example") == [SECOND, FIRST]  # it is asked after all
        others.silent = set()
        await clock.sleep(SILENT_S + 1)
        assert await others.asks("d.example") == [FIRST]

    run(scenario)


def test_that_there_is_no_such_name_holds_as_long_as_the_zones_soa_says() -> None:
    async def scenario(clock: VirtualClock) -> None:
        others = Others(clock, [DEFAULT])
        others.code = dnslib.RCODE.NXDOMAIN
        times = (1, 2, 3, 4, 6)  # the last: how long nothing is nothing
        others.answer = dnslib.RR("example.", dnslib.QTYPE.SOA, rdata=dnslib.SOA("ns.", "me.", times), ttl=600)
        await others.asks("none.example")
        await clock.sleep(5)
        assert others.kept(query("none.example"))
        await clock.sleep(2)
        assert others.kept(query("none.example")) is None

    run(scenario)
