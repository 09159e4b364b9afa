"""Envoy's messages in protobuf, from and to plain data, by the table messages.txt.

Envoy takes its configuration over gRPC only with all that we need: one ordered stream for every kind of resource,
single resources that change, and a reason where it refuses one. Its JSON variant (REST) has a request for each resource
under way all the time, and no reason. So resources are plain dicts in the form of Envoy's JSON with the fields' own
names, and `encode` writes them down. Four conveniences: a duration is a number of seconds, a wrapped value the value
itself, what may be anything names its type as `@type`, and a message may be bytes already.

https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from msgspec import Struct

VARINT, FIXED64, DELIMITED, FIXED32 = 0, 1, 2, 5
TYPE_URL = "type.googleapis.com/"
NANOS = 1_000_000_000


class Field(Struct, frozen=True):
    """One field of a message, as its line in the table says."""

    number: int
    kind: str
    """A scalar's name, `enum`, or a message's full name."""
    repeated: bool = False
    is_map: bool = False
    values: dict[str, int] = {}
    """The names of an enum."""


def encode(message: str, data: Mapping[str, Any]) -> bytes:
    """A message as bytes. A KeyError is a field or a message that the table doesn't have."""
    special = _SPECIAL.get(message)
    if special is not None:
        data = special(data)
    fields = _table()[message]
    parts: list[bytes] = []
    for name, value in data.items():
        if value is None:
            continue
        field = fields[name]
        if field.is_map:
            for key, each in value.items():
                entry = _entry(Field(1, "string"), key) + _entry(Field(2, field.kind), each)
                parts.append(_delimited(field.number, entry))
        elif field.repeated:
            parts += [_entry(field, each) for each in value]
        else:
            parts.append(_entry(field, value))
    return b"".join(parts)


def decode(message: str, data: bytes) -> dict[str, Any]:
    """The fields of a message that the table has: strings, numbers, messages; what else is there is passed over."""
    by_number = {field.number: (name, field) for name, field in _table()[message].items()}
    found: dict[str, Any] = {}
    for number, raw in _fields(data):
        name, field = by_number.get(number, ("", None))
        if field is None:
            continue
        if field.is_map:
            entry = dict(_fields(raw))
            found.setdefault(name, {})[entry.get(1, b"").decode()] = entry.get(2, b"").decode()
            continue
        value: Any = raw
        if field.kind == "string":
            value = raw.decode()
        elif "." in field.kind:
            value = decode(field.kind, raw)
        if field.repeated:
            found.setdefault(name, []).append(value)
        else:
            found[name] = value
    return found


def any_of(data: Mapping[str, Any]) -> dict[str, Any]:
    """`{"@type": message, …}` as the message google.protobuf.Any; what is one already stays."""
    fields = dict(data)
    message = fields.pop("@type", None)
    if message is None:
        return fields
    return {"type_url": TYPE_URL + message, "value": encode(message, fields)}


def _duration(seconds: Any) -> Mapping[str, Any]:
    whole, nanos = divmod(round(seconds * NANOS), NANOS)
    return {"seconds": whole, "nanos": nanos}


def _wrapped(value: Any) -> Mapping[str, Any]:
    return {"value": value}


def _structure(values: Any) -> Mapping[str, Any]:
    """A google.protobuf.Struct of strings."""
    return {"fields": {key: {"string_value": value} for key, value in values.items()}}


_SPECIAL = {
    "google.protobuf.Any": any_of,
    "google.protobuf.Duration": _duration,
    "google.protobuf.Struct": _structure,
    "google.protobuf.UInt32Value": _wrapped,
    "google.protobuf.UInt64Value": _wrapped,
    "google.protobuf.BoolValue": _wrapped,
}


def _entry(field: Field, value: Any) -> bytes:
    kind = field.kind
    if kind == "string":
        return _delimited(field.number, value.encode())
    if kind == "bytes":
        return _delimited(field.number, value)
    if kind == "enum":
        return _key(field.number, VARINT) + _varint(value if isinstance(value, int) else field.values[value])
    if kind == "double":
        return _key(field.number, FIXED64) + struct.pack("<d", value)
    if "." in kind:
        return _delimited(field.number, value if isinstance(value, bytes) else encode(kind, value))
    return _key(field.number, VARINT) + _varint(int(value))


def _delimited(number: int, data: bytes) -> bytes:
    return _key(number, DELIMITED) + _varint(len(data)) + data


def _key(number: int, kind: int) -> bytes:
    return _varint(number << 3 | kind)


def _varint(value: int) -> bytes:
    if 0 <= value < 0x80:
        return bytes((value,))
    value &= (1 << 64) - 1  # negative numbers are ten bytes
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Number and raw value of each field. ValueError when it isn't protobuf."""
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, at = _read_varint(data, at)
            yield number, value
            continue
        if kind == DELIMITED:
            length, at = _read_varint(data, at)
        elif kind in (FIXED64, FIXED32):
            length = 8 if kind == FIXED64 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if at + length > len(data):
            raise ValueError("a field is cut off")
        yield number, data[at : at + length]
        at += length


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        if at >= len(data):
            raise ValueError("a number is cut off")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("a number is too long")


@cache
def _table() -> dict[str, dict[str, Field]]:
    """Message → field → what the table says."""
    string, structure = Field(3, "string"), "google.protobuf.Struct"
    table: dict[str, dict[str, Field]] = {"google.protobuf.Value": {"string_value": string}}
    fields: dict[str, Field] = {}
    for line in Path(__file__).with_name("messages.txt").read_text().splitlines():
        if line.startswith(" "):
            name, number, *kind = line.split()
            fields[name] = _field(int(number), kind)
        elif line and not line.startswith("#"):
            fields = table[line] = {}
    table[structure]["fields"] = Field(1, "google.protobuf.Value", is_map=True)
    return table


def _field(number: int, kind: list[str]) -> Field:
    if kind[0] == "enum":
        values = {name: int(value) for name, _, value in (each.partition("=") for each in kind[1:])}
        return Field(number, "enum", values=values)
    return Field(number, kind[-1], repeated=kind[0] == "repeated", is_map=kind[0] == "map")
