"""Packets, checked with another implementation (dnslib) at the other end."""

from __future__ import annotations

import contextlib

import dnslib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from knarr.network.dns import wire
from knarr.network.dns.wire import Code, Malformed, Record, Reply, Type

NAME = ("web", "shop", "svc", "cluster", "local")


def question(name: str = "web.shop.svc.cluster.local", kind: str = "A", edns: int | None = None) -> bytes:
    query = dnslib.DNSRecord.question(name, kind)
    if edns:
        query.add_ar(dnslib.EDNS0(udp_len=edns))
    return bytes(query.pack())


def test_a_query_is_read() -> None:
    query = wire.read_query(question("Web.SHOP.svc.cluster.local", "SRV"))
    assert (query.name, query.type, query.edns, query.payload_bytes) == (NAME, Type.SRV, False, 512)
    assert b"Web" in query.question


@pytest.mark.parametrize(("offered", "taken"), [(4096, 1232), (1000, 1000), (100, 512)])
def test_edns_sizes_are_bounded(offered: int, taken: int) -> None:
    query = wire.read_query(question(edns=offered))
    assert (query.edns, query.payload_bytes) == (True, taken)
    answer = dnslib.DNSRecord.parse(wire.write_reply(query, Reply(), query.payload_bytes, recursion=True))
    assert [record.rtype for record in answer.ar] == [dnslib.QTYPE.OPT]


def test_every_type_of_record_is_written_as_others_read_it() -> None:
    query = wire.read_query(question("WEB.shop.svc.cluster.local", "ANY"))
    other = ("other", "example")
    records = [
        Record(NAME, Type.A, 5, "10.0.0.1"),
        Record(NAME, Type.AAAA, 5, "fd00::1"),
        Record(NAME, Type.CNAME, 5, other),
        Record(other, Type.PTR, 6, NAME),
        Record(NAME, Type.NS, 5, other),
        Record(NAME, Type.TXT, 5, "1.1.0"),
        Record(NAME, Type.SRV, 5, (0, 50, 8080, other)),
        Record(NAME, Type.SOA, 5, (NAME, other, 1, 2, 3, 4, 5)),
    ]
    answer = dnslib.DNSRecord.parse(wire.write_reply(query, Reply(answers=records), 1232, recursion=True))
    assert answer.header.id == query.id
    assert (answer.header.qr, answer.header.aa, answer.header.ra, answer.header.rd) == (1, 1, 1, 1)
    assert str(answer.q.qname) == "WEB.shop.svc.cluster.local."
    assert [str(record.rdata) for record in answer.rr] == [
        "10.0.0.1",
        "fd00::1",
        "other.example.",
        "web.shop.svc.cluster.local.",
        "other.example.",
        '"1.1.0"',
        "0 50 8080 other.example.",
        "web.shop.svc.cluster.local. other.example. 1 2 3 4 5",
    ]
    assert [record.ttl for record in answer.rr][:4] == [5, 5, 5, 6]


def test_what_does_not_fit_is_left_out_and_said_so() -> None:
    query = wire.read_query(question())
    records = [Record(NAME, Type.A, 5, f"10.0.0.{number}") for number in range(100)]
    packet = wire.write_reply(query, Reply(answers=records), 512, recursion=False)
    answer = dnslib.DNSRecord.parse(packet)
    assert len(packet) <= 512
    assert answer.header.tc == 1
    assert 20 < len(answer.rr) < 100


def test_additional_records_that_do_not_fit_are_no_truncation() -> None:
    query = wire.read_query(question())
    more = [Record(("x",), Type.A, 5, f"10.0.0.{number}") for number in range(100)]
    packet = wire.write_reply(
        query, Reply(answers=[Record(NAME, Type.A, 5, "10.0.0.1")], additionals=more), 512, recursion=False
    )
    assert dnslib.DNSRecord.parse(packet).header.tc == 0


@pytest.mark.parametrize(
    ("packet", "code"),
    [
        (b"", None),
        (b"short", None),
        (question()[:2] + b"\x80" + question()[3:], None),  # an answer, not a question
        (question()[:2] + b"\x28" + question()[3:], Code.NOT_IMPLEMENTED),  # an update
        (question()[:5] + b"\x02" + question()[6:], Code.FORMAT_ERROR),  # two questions
        (question()[:-2], Code.FORMAT_ERROR),
        (question()[:-1] + b"\x03", Code.REFUSED),  # class CHAOS
        (question()[:12] + b"\xc0\x0c" + bytes(4), Code.FORMAT_ERROR),  # a name that points to itself
        (question()[:12] + b"\x3f" + b"a" * 20, Code.FORMAT_ERROR),
        (question()[:12] + (b"\x3f" + b"a" * 63) * 5 + bytes(5), Code.FORMAT_ERROR),
    ],
)
def test_what_is_no_query_is_told_so_or_not_answered(packet: bytes, code: Code | None) -> None:
    with pytest.raises(Malformed) as fault:
        wire.read_query(packet)
    assert fault.value.code == code
    if code is not None:
        assert dnslib.DNSHeader.parse(dnslib.DNSBuffer(wire.write_error(packet, code))).rcode == code


@given(st.binary(max_size=600), st.binary(max_size=80))
def test_no_packet_breaks_the_reader(packet: bytes, tail: bytes) -> None:
    for each in (packet, question()[:12] + packet, question(edns=1232)[:-4] + tail):
        with contextlib.suppress(Malformed):
            wire.read_query(each)
        with contextlib.suppress(Malformed):
            wire.read_passing(b"\0\0\x80" + each, question()[12:])
