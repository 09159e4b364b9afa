"""/openapi/v2 as protobuf, which kubectl before 1.27 and `kubectl explain --output plaintext-openapiv2` ask for.

The messages are those of gnostic's OpenAPIv2.proto. A table a message says which key of the JSON document becomes which
field; whatever begins with `x-` goes into its vendor extensions, as YAML.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

MEDIA_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
MEDIA_TYPES = (MEDIA_TYPE, "application/com.github.proto-openapi.spec.v2@v1.0+protobuf")
"""As clients ask for it; with the @ it is no media type after RFC 9110, so that answers don't call it so."""

Encode = Callable[[Any], bytes]
KEYS = {"ref": "$ref", "in_": "in"}
"""Keys that are no names in Python."""
LENGTH_DELIMITED, VARINT = 2, 0


def encoded(document: Mapping[str, Any]) -> bytes:
    """An OpenAPI v2 document as the message Document."""
    return _document(document)


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def _delimited(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | LENGTH_DELIMITED) + _varint(len(data)) + data


def _text(value: Any) -> bytes:
    return str(value).encode()


class _Message:
    """How a JSON object becomes a message: key → (field, how its value is encoded)."""

    def __init__(self, extensions: int = 0, **fields: tuple[int, Encode | None]) -> None:
        self.extensions = extensions
        self.fields = {KEYS.get(name, name): value for name, value in fields.items()}

    def __call__(self, data: Any) -> bytes:
        parts: list[bytes] = []
        for name, value in data.items():
            if name.startswith("x-"):
                if self.extensions:
                    parts.append(_delimited(self.extensions, _named(_any)(name, value)))
                continue
            field, encode = self.fields[name]
            if isinstance(value, bool):
                parts.append(_varint(field << 3 | VARINT) + _varint(value))
                continue
            assert encode is not None, name
            parts += [_delimited(field, encode(each)) for each in (value if isinstance(value, list) else [value])]
        return b"".join(parts)


def _named(encode: Encode) -> Callable[[str, Any], bytes]:
    """A map's entry: its name and its value."""
    return lambda name, value: _delimited(1, _text(name)) + _delimited(2, encode(value))


def _entries(field: int, encode: Encode) -> Encode:
    """A map, as a message of entries."""
    entry = _named(encode)
    return lambda data: b"".join(_delimited(field, entry(name, value)) for name, value in data.items())


def _within(field: int, encode: Encode) -> Encode:
    """A value in a message of its own."""
    return lambda value: _delimited(field, encode(value))


def _any(value: Any) -> bytes:
    return _delimited(2, msgspec.json.encode(value))  # JSON is YAML.


def _schema(value: Any) -> bytes:
    return _SCHEMA(value)


def _parameter(value: Any) -> bytes:
    """A parameter itself."""
    if value["in"] == "body":
        return _delimited(1, _BODY(value))
    place, message = (4, _PATH_PARAMETER) if value["in"] == "path" else (3, _QUERY_PARAMETER)
    return _delimited(2, _delimited(place, message(value)))


def _parameter_or_reference(value: Any) -> bytes:
    if "$ref" in value:
        return _delimited(2, _delimited(1, _text(value["$ref"])))
    return _delimited(1, _parameter(value))


def _requirement(value: Any) -> bytes:
    """What security is needed: lists of scopes, by the name of the definition."""
    return b"".join(
        _delimited(1, _named(lambda scopes: b"".join(_delimited(1, _text(scope)) for scope in scopes))(name, scopes))
        for name, scopes in value.items()
    )


_SCHEMA = _Message(
    extensions=31,
    ref=(1, _text),
    format=(2, _text),
    description=(4, _text),
    default=(5, _any),
    required=(19, _text),
    additionalProperties=(21, _within(1, _schema)),
    type=(22, _within(1, _text)),
    items=(23, _within(1, _schema)),
    allOf=(24, _schema),
    properties=(25, _entries(1, _schema)),
)
_BODY = _Message(
    extensions=6, description=(1, _text), name=(2, _text), in_=(3, _text), required=(4, None), schema=(5, _schema)
)
_QUERY_PARAMETER = _Message(
    extensions=23,
    required=(1, None),
    in_=(2, _text),
    description=(3, _text),
    name=(4, _text),
    type=(6, _text),
    uniqueItems=(20, None),
)
_PATH_PARAMETER = _Message(
    extensions=22,
    required=(1, None),
    in_=(2, _text),
    description=(3, _text),
    name=(4, _text),
    type=(5, _text),
    uniqueItems=(19, None),
)
_API_KEY = _Message(extensions=5, type=(1, _text), name=(2, _text), in_=(3, _text), description=(4, _text))
_RESPONSE = _Message(extensions=5, description=(1, _text), schema=(2, _within(1, _schema)))
_OPERATION = _Message(
    extensions=13,
    tags=(1, _text),
    description=(3, _text),
    operationId=(5, _text),
    produces=(6, _text),
    consumes=(7, _text),
    parameters=(8, _parameter_or_reference),
    responses=(9, _entries(1, _within(1, _RESPONSE))),
    schemes=(10, _text),
)
_PATH = _Message(
    extensions=10,
    get=(2, _OPERATION),
    put=(3, _OPERATION),
    post=(4, _OPERATION),
    delete=(5, _OPERATION),
    options=(6, _OPERATION),
    head=(7, _OPERATION),
    patch=(8, _OPERATION),
    parameters=(9, _parameter_or_reference),
)
_document = _Message(
    extensions=16,
    swagger=(1, _text),
    info=(2, _Message(title=(1, _text), version=(2, _text), description=(3, _text))),
    paths=(8, _entries(2, _PATH)),
    definitions=(9, _entries(1, _schema)),
    parameters=(10, _entries(1, _parameter)),
    security=(12, _requirement),
    securityDefinitions=(13, _entries(1, _within(2, _API_KEY))),
)
