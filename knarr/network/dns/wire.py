"""DNS packets (RFC 1035, EDNS(0) of RFC 6891): one question in, one answer out.

Written for one thing: a query is read, and its answer written, in some ten microseconds. Names are tuples of labels in
lower case; the question is echoed byte by byte, since resolvers hide random bits in its upper and lower case.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum

from msgspec import Struct

Name = tuple[str, ...]
"""Labels, lower case, without the root's empty one."""

HEADER_BYTES = 12
UDP_PAYLOAD_BYTES = 512
OPTION_BYTES = 11
"""An OPT record of ours."""
"""What a client without EDNS can take (RFC 1035 §4.2.1)."""
EDNS_PAYLOAD_BYTES = 1232
"""What passes any network unfragmented (DNS flag day 2020); nothing larger is sent over UDP."""
TCP_PAYLOAD_BYTES = 65_535
NAME_BYTES_MAX = 255
LABEL_BYTES_MAX = 63

_RESPONSE, _AUTHORITATIVE, _TRUNCATED, _RECURSION_DESIRED, _RECURSION_AVAILABLE = 0x8000, 0x400, 0x200, 0x100, 0x80
_OPCODE = 0x7800
_DNSSEC_OK = 0x8000
_QUESTION_POINTER = b"\xc0\x0c"
CLASS_IN = 1


class Type(IntEnum):
    A = 1
    NS = 2
    CNAME = 5
    SOA = 6
    PTR = 12
    TXT = 16
    AAAA = 28
    SRV = 33
    OPT = 41
    AXFR = 252
    ANY = 255


class Code(IntEnum):
    """Response codes."""

    NO_ERROR = 0
    FORMAT_ERROR = 1
    SERVER_FAILURE = 2
    NAME_ERROR = 3
    """NXDOMAIN."""
    NOT_IMPLEMENTED = 4
    REFUSED = 5
    BAD_VERSION = 16


class Malformed(Exception):
    """Not a DNS query that can be answered with anything but `code`; None for silence."""

    def __init__(self, code: Code | None) -> None:
        super().__init__(code)
        self.code = code


class Query(Struct, frozen=True):
    """A question, and how its answer may look."""

    id: int
    flags: int
    name: Name
    type: int
    question: bytes
    """Name, type and class as they came."""
    edns: bool = False
    payload_bytes: int = UDP_PAYLOAD_BYTES
    dnssec_ok: bool = False
    edns_version: int = 0


class Record(Struct, frozen=True):
    """One resource record. `data` by type: address; name (CNAME, PTR, NS); (priority, weight, port, name) for
    SRV; text for TXT; (name server, mailbox, serial, refresh, retry, expire, minimum) for SOA."""

    name: Name
    type: Type
    ttl_s: int
    data: str | Name | tuple[int, int, int, Name] | tuple[Name, Name, int, int, int, int, int]


class Reply(Struct, frozen=True):
    """What to answer."""

    code: Code = Code.NO_ERROR
    answers: Sequence[Record] = ()
    authorities: Sequence[Record] = ()
    additionals: Sequence[Record] = ()
    authoritative: bool = True


def name_of(text: str) -> Name:
    """ "a.B.c." as a name."""
    return tuple(label for label in text.lower().split(".") if label)


def text_of(name: Name) -> str:
    return ".".join(name) + "."


def read_query(packet: bytes) -> Query:
    """The query in a packet; Malformed when it is none."""
    if len(packet) < HEADER_BYTES:
        raise Malformed(None)
    identity, flags, questions, answers, authorities, additionals = struct.unpack_from(">6H", packet)
    if flags & _RESPONSE:
        raise Malformed(None)  # answering answers would let two servers talk for ever
    if flags & _OPCODE:
        raise Malformed(Code.NOT_IMPLEMENTED)
    if questions != 1 or answers or authorities:
        raise Malformed(Code.FORMAT_ERROR)
    name, position = _read_plain_name(packet, HEADER_BYTES)
    if position + 4 > len(packet):
        raise Malformed(Code.FORMAT_ERROR)
    kind, class_ = struct.unpack_from(">HH", packet, position)
    if class_ != CLASS_IN:
        raise Malformed(Code.REFUSED)
    position += 4
    query = Query(identity, flags, name, kind, packet[HEADER_BYTES:position])
    for _ in range(min(additionals, 4)):  # OPT and a signature at most
        position, option, size, ttl = _skip_record(packet, position)
        if option == Type.OPT:
            payload = max(UDP_PAYLOAD_BYTES, min(size, EDNS_PAYLOAD_BYTES))
            return Query(
                identity,
                flags,
                name,
                kind,
                query.question,
                edns=True,
                payload_bytes=payload,
                dnssec_ok=bool(ttl & _DNSSEC_OK),
                edns_version=ttl >> 16 & 0xFF,
            )
    return query


def write_reply(query: Query, reply: Reply, payload_bytes: int, *, recursion: bool) -> bytes:
    """The packet of a reply. What doesn't fit is left out, and the packet says so (TC)."""
    flags = _RESPONSE | (query.flags & _RECURSION_DESIRED) | (reply.code & 0xF)
    flags |= _AUTHORITATIVE if reply.authoritative else 0
    flags |= _RECURSION_AVAILABLE if recursion else 0
    option = _option(reply.code) if query.edns else b""
    room = payload_bytes - HEADER_BYTES - len(query.question) - len(option)
    counts, parts, truncated = [0, 0, 0], [], False
    for number, section in enumerate((reply.answers, reply.authorities, reply.additionals)):
        for record in section:
            written = _write_record(record, query.name)
            if len(written) > room:
                # Additional records are a courtesy: leaving them out is no truncation (RFC 2181 §9).
                truncated = truncated or number < 2
                break
            room -= len(written)
            counts[number] += 1
            parts.append(written)
        if truncated:
            break
    if truncated:
        flags |= _TRUNCATED
    header = struct.pack(">6H", query.id, flags, 1, counts[0], counts[1], counts[2] + (1 if option else 0))
    return b"".join([header, query.question, *parts, option])


def _option(code: int = 0) -> bytes:
    return b"\0" + struct.pack(">HHIH", Type.OPT, EDNS_PAYLOAD_BYTES, (code >> 4) << 24, 0)


def write_error(packet: bytes, code: Code) -> bytes:
    """An answer without question to something that could not be read."""
    identity, flags = struct.unpack_from(">HH", packet)
    flags = _RESPONSE | (flags & (_OPCODE | _RECURSION_DESIRED)) | code
    return struct.pack(">6H", identity, flags, 0, 0, 0, 0)


def write_question(identity: int, name: Name, kind: int) -> bytes:
    """A query of our own, recursion wanted."""
    return (
        struct.pack(">6H", identity, _RECURSION_DESIRED, 1, 0, 0, 0)
        + _write_name(name)
        + struct.pack(">HH", kind, CLASS_IN)
    )


# Answers of other servers, which pass through as they are


class Passing(Struct, frozen=True):
    """What must be known of another server's answer to pass it on and to keep it."""

    code: int
    truncated: bool
    ttl_positions: tuple[int, ...]
    ttl_min_s: int
    """How long all of it holds."""
    addresses: tuple[Record, ...]
    """The A, AAAA and CNAME records of its answer section."""
    edns: bool = False


def read_passing(packet: bytes, question: bytes) -> Passing:
    """Look through an answer; Malformed when it isn't one to that question."""
    if len(packet) < HEADER_BYTES:
        raise Malformed(None)
    _, flags, questions, answers, authorities, additionals = struct.unpack_from(">6H", packet)
    if not flags & _RESPONSE or questions > 1:
        raise Malformed(None)
    position = HEADER_BYTES
    if questions:
        end = position + len(question)
        if packet[position:end].lower() != question.lower():
            raise Malformed(None)
        position = end
    positions, ttls, records, edns = [], [], [], False
    for number in range(answers + authorities + additionals):
        name, start = _read_name(packet, position)
        position, kind, _, ttl = _skip_record(packet, position)
        if kind == Type.OPT:
            edns = True
            continue
        positions.append(start + 4)
        ttls.append(ttl if ttl < 2**31 else 0)
        if kind == Type.SOA and number >= answers:
            # How long it holds that there is nothing (RFC 2308 §5).
            ttls.append(*struct.unpack_from(">I", packet, position - 4))
        if number < answers and kind in (Type.A, Type.AAAA, Type.CNAME):
            records.append(_read_record(packet, name, start, position))
    return Passing(
        flags & 0xF,
        bool(flags & _TRUNCATED),
        tuple(positions),
        min(ttls, default=0),
        tuple(records),
        edns,
    )


def with_option(packet: bytes) -> bytes:
    """An answer that tells its asker that EDNS is understood here: whoever asks so must be told (RFC 6891 §6.1.1)."""
    (additionals,) = struct.unpack_from(">H", packet, 10)
    return packet[:10] + struct.pack(">H", additionals + 1) + packet[12:] + _option()


def aged(packet: bytes, query: Query, ttl_positions: Sequence[int], age_s: int) -> bytes:
    """A kept answer for another asker: with its id, its wish for recursion, its spelling of the question, and what is
    left of the TTLs."""
    made = bytearray(packet)
    (flags,) = struct.unpack_from(">H", made, 2)
    struct.pack_into(">HH", made, 0, query.id, flags & ~_RECURSION_DESIRED | query.flags & _RECURSION_DESIRED)
    made[HEADER_BYTES : HEADER_BYTES + len(query.question)] = query.question
    for position in ttl_positions:
        (ttl_s,) = struct.unpack_from(">I", made, position)
        struct.pack_into(">I", made, position, max(0, ttl_s - age_s))
    return bytes(made)


def _read_record(packet: bytes, name: Name, start: int, end: int) -> Record:
    kind, _, ttl, _ = struct.unpack_from(">HHIH", packet, start)
    data = packet[start + 10 : end]
    if kind == Type.CNAME:
        return Record(name, Type.CNAME, ttl, _read_name(packet, start + 10)[0])
    if len(data) != (4 if kind == Type.A else 16):
        raise Malformed(None)
    family = socket.AF_INET if kind == Type.A else socket.AF_INET6
    return Record(name, Type(kind), ttl, socket.inet_ntop(family, data))


def _read_plain_name(packet: bytes, position: int) -> tuple[Name, int]:
    """A name without compression, as a question must have it."""
    labels: list[str] = []
    start = position
    while True:
        if position >= len(packet) or position - start >= NAME_BYTES_MAX:
            raise Malformed(Code.FORMAT_ERROR)
        length = packet[position]
        if length == 0:
            return tuple(labels), position + 1
        if length > LABEL_BYTES_MAX or position + 1 + length > len(packet):
            raise Malformed(Code.FORMAT_ERROR)
        labels.append(packet[position + 1 : position + 1 + length].decode("latin-1").lower())
        position += 1 + length


def _read_name(packet: bytes, position: int) -> tuple[Name, int]:
    """A name that may be compressed, and the position after it."""
    labels: list[str] = []
    after, bytes_read = None, 0
    for _ in range(NAME_BYTES_MAX):  # pointers can't go on for ever
        if position >= len(packet):
            raise Malformed(None)
        length = packet[position]
        if length >= 0xC0:
            if position + 2 > len(packet):
                raise Malformed(None)
            after = position + 2 if after is None else after
            position = (length & 0x3F) << 8 | packet[position + 1]
            continue
        if length == 0:
            return tuple(labels), position + 1 if after is None else after
        if length > LABEL_BYTES_MAX or position + 1 + length > len(packet):
            raise Malformed(None)
        labels.append(packet[position + 1 : position + 1 + length].decode("latin-1").lower())
        bytes_read += 1 + length
        if bytes_read > NAME_BYTES_MAX:
            break
        position += 1 + length
    raise Malformed(None)


def _skip_record(packet: bytes, position: int) -> tuple[int, int, int, int]:
    """The position after a record; its type, class and TTL."""
    while True:
        if position >= len(packet):
            raise Malformed(Code.FORMAT_ERROR)
        length = packet[position]
        if length >= 0xC0:
            position += 2
            break
        position += 1 + length
        if length == 0:
            break
    if position + 10 > len(packet):
        raise Malformed(Code.FORMAT_ERROR)
    kind, class_, ttl, size = struct.unpack_from(">HHIH", packet, position)
    if position + 10 + size > len(packet):
        raise Malformed(Code.FORMAT_ERROR)
    return position + 10 + size, kind, class_, ttl


def _write_record(record: Record, question_name: Name) -> bytes:
    data = b"".join(_write_data(record))
    name = _QUESTION_POINTER if record.name == question_name else _write_name(record.name)
    return name + struct.pack(">HHIH", record.type, CLASS_IN, record.ttl_s, len(data)) + data


def _write_data(record: Record) -> Iterator[bytes]:
    data = record.data
    if record.type == Type.A:
        yield socket.inet_aton(str(data))
    elif record.type == Type.AAAA:
        yield socket.inet_pton(socket.AF_INET6, str(data))
    elif record.type == Type.TXT:
        text = str(data).encode()[:255]
        yield bytes([len(text)]) + text
    else:
        for part in data if record.type in (Type.SRV, Type.SOA) else (data,):
            if isinstance(part, int):
                yield struct.pack(">H" if record.type == Type.SRV else ">I", part)
            else:
                yield _write_name(part)  # type: ignore[arg-type]


def _write_name(name: Name) -> bytes:
    encoded = b"".join(bytes([len(label)]) + label.encode("latin-1", "replace") for label in name) + b"\0"
    if len(encoded) > NAME_BYTES_MAX or any(len(label) > LABEL_BYTES_MAX for label in name):
        raise ValueError(f"{text_of(name)} is too long for a DNS name")
    return encoded
