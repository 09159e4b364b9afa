"""Bodies in protobuf: what Go programs send by default since client-go 1.32 (kubectl create, controllers).

A body is an envelope, `k8s\\0` and a runtime.Unknown, around the message of the kind. It becomes plain data of the JSON
form, and goes on as such. Which number a field has stands in `protobuf_numbers.py`; how its bytes are to be read,
in our types. Answers are JSON always: those clients accept it too.

Go's encoder writes zero values of fields that are no pointers, where its JSON leaves them out; `POINTERS` names the
others, whose zero counts.
"""

from __future__ import annotations

import base64
import functools
import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, get_args, get_origin, get_type_hints

import msgspec

from knarr.api.errors import BadRequest
from knarr.api.types import IntOrString, RawJSON, Struct

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
MAGIC = b"k8s\x00"
NESTING_MAX = 100
"""Messages in messages."""
VARINT_MAX_BYTES = 10

_POINTERS = """
    activeDeadlineSeconds allocateLoadBalancerNodePorts allowPrivilegeEscalation allowVolumeExpansion attachRequired
    automountServiceAccountToken averageUtilization backoffLimit backoffLimitPerIndex blockOwnerDeletion
    completionIndex completions controller defaultMode deletionGracePeriodSeconds enableServiceLinks endPort
    expirationSeconds failedJobsHistoryLimit fsGroup gracePeriodSeconds hostUsers immutable ingressClassName
    leaseDurationSeconds leaseTransitions manualSelector maxFailedIndexes minReplicas mode
    nominalConcurrencyShares optional orphanDependents parallelism partition podInfoOnMount priority privileged
    progressDeadlineSeconds readOnlyRootFilesystem ready replicas revisionHistoryLimit runAsGroup runAsNonRoot
    runAsUser serving setHostnameAsFQDN shareProcessNamespace stabilizationWindowSeconds startingDeadlineSeconds
    storageCapacity storageClassName successfulJobsHistoryLimit suspend terminating terminationGracePeriodSeconds
    tolerationSeconds ttlSecondsAfterFinished started
    """
POINTERS = frozenset(_POINTERS.split())
"""Optional scalars that Go holds by pointer."""

MICRO_TIMES = frozenset(("acquireTime", "eventTime", "lastObservedTime", "renewTime"))
"""Strings of ours that are messages with seconds and nanoseconds there."""


class _MicroTime:
    """The type of those."""


def plain_protobuf(kind: type[Any], body: bytes) -> dict[str, Any]:
    """The object in `body` as plain data. Raises BadRequest."""
    if not body.startswith(MAGIC):
        raise BadRequest("the body of the request is no Kubernetes protobuf: the prefix k8s is missing")
    try:
        envelope = dict(wire_fields(body[len(MAGIC) :]))
        said = dict(wire_fields(envelope.get(1, b"")))
        if envelope.get(3):
            raise BadRequest("the body of the request has a content encoding that is not known")
        data = _message(kind, envelope.get(2, b""), 0)
        head = {"apiVersion": said.get(1, b"").decode(), "kind": said.get(2, b"").decode()}
    except (
        ValueError,
        IndexError,
        TypeError,
        AttributeError,
        struct.error,
        OverflowError,
        msgspec.DecodeError,
    ) as error:
        raise BadRequest(f"the body of the request is no valid protobuf: {error}") from None
    return {name: text for name, text in head.items() if text} | data


def wire_fields(text: bytes) -> Iterator[tuple[int, Any]]:
    """Number and value of each field of a message: an int for varints, else bytes. Raises ValueError."""
    position, end = 0, len(text)
    while position < end:
        tag, position = _varint(text, position)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, position = _varint(text, position)
            yield number, value
            continue
        if wire == 2:
            length, position = _varint(text, position)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire} of field {number}")
        if position + length > end:
            raise ValueError(f"field {number} is cut off")
        yield number, text[position : position + length]
        position += length


def _varint(text: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 7 * VARINT_MAX_BYTES, 7):
        if position >= len(text):
            raise ValueError("a number is cut off")
        byte = text[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number is too long")


@functools.cache
def _numbers() -> dict[str, dict[int, Any]]:
    """Type → number → JSON name, or for an embedded message the same again."""
    from knarr.apiserver.protobuf_numbers import NUMBERS

    types: dict[str, dict[int, Any]] = {}
    for line in NUMBERS.strip().splitlines():
        name, _, fields = line.partition(": ")
        types[name] = {}
        for field in fields.split(" "):
            json_name, _, path = field.partition("=")
            *outer, last = map(int, path.split("."))
            place = types[name]
            for number in outer:
                place = place.setdefault(number, {})
            place[last] = json_name
    return types


@functools.cache
def _shape(kind: Any) -> dict[str, tuple[Any, bool]]:
    """JSON name → type of a field, and whether its zero is left out in JSON."""
    hints = get_type_hints(kind)
    shape = {}
    for info in msgspec.structs.fields(kind):
        hint = hints[info.name]
        omitted = info.encode_name not in POINTERS and (type(None) in get_args(hint))
        shape[info.encode_name] = (_MicroTime if info.encode_name in MICRO_TIMES else _present_type(hint), omitted)
    return shape


_QUANTITY = str | int | float
"""knarr.api.types.Quantity without its notes, as get_type_hints answers it."""


def _present_type(hint: Any) -> Any:
    """T of `T | None`."""
    if hint in (_QUANTITY, IntOrString):
        return hint
    rest = [argument for argument in get_args(hint) if argument is not type(None)]
    if type(None) not in get_args(hint):
        return hint
    union = rest[0]
    for each in rest[1:]:
        union = union | each
    return union


def _message(kind: Any, text: bytes, depth: int) -> dict[str, Any]:
    module = kind.__module__.removeprefix("knarr.api.")
    numbers = _numbers().get(f"{module}.{kind.__name__}")
    if numbers is None:
        raise ValueError(f"{kind.__name__} has no protobuf form here")
    data: dict[str, Any] = {}
    _collect(_shape(kind), numbers, text, data, depth)
    return data


def _collect(
    shape: dict[str, tuple[Any, bool]], numbers: dict[int, Any], text: bytes, data: dict[str, Any], depth: int
) -> None:
    if depth > NESTING_MAX:
        raise ValueError("it is nested too deeply")
    for number, value in wire_fields(text):
        name = numbers.get(number)
        if name is None:
            continue  # A field of another version.
        if isinstance(name, dict):
            _collect(shape, name, value, data, depth + 1)
            continue
        hint, omitted = shape[name]
        origin = get_origin(hint)
        if origin is list:
            data.setdefault(name, []).extend(_items(get_args(hint)[0], value, depth))
        elif origin is dict:
            entry = dict(wire_fields(value))
            data.setdefault(name, {})[entry.get(1, b"").decode()] = _entry(get_args(hint)[1], entry.get(2), depth)
        else:
            plain = _value(hint, value, depth)
            if plain is not None and (plain or not omitted or isinstance(plain, dict)):
                data[name] = plain


def _items(hint: Any, value: Any, depth: int) -> list[Any]:
    """One item; many when numbers are packed."""
    if hint is int and isinstance(value, bytes):
        packed, position = [], 0
        while position < len(value):
            item, position = _varint(value, position)
            packed.append(_signed(item))
        return packed
    return [_value(hint, value, depth)]


def _entry(hint: Any, value: Any, depth: int) -> Any:
    """The value of an entry of a map; absent is zero."""
    hint = _present_type(hint)
    if value is None:
        value = 0 if hint in (int, bool) else b""
    if get_origin(hint) is list:
        return [item.decode() for number, item in wire_fields(value) if number == 1]
    return _value(hint, value, depth)


def _value(hint: Any, value: Any, depth: int) -> Any:
    if hint == _QUANTITY:
        return dict(wire_fields(value)).get(1, b"0").decode()
    if hint == IntOrString:
        parts = dict(wire_fields(value))
        return parts.get(3, b"").decode() if parts.get(1) else _signed(parts.get(2, 0))
    if hint is str:
        return value.decode()
    if hint is bool:
        return bool(value)
    if hint is int:
        return _signed(value)
    if hint is float:
        return struct.unpack("<d", value)[0]
    if hint is bytes:
        return base64.b64encode(value).decode()
    if hint is datetime:
        return _time(value, "%Y-%m-%dT%H:%M:%SZ") if value else None
    if hint is _MicroTime:
        return _time(value, "%Y-%m-%dT%H:%M:%S.%fZ") if value else None
    if hint in (Any, RawJSON):
        raw = dict(wire_fields(value)).get(1, b"")
        return msgspec.json.decode(raw) if raw else None
    if isinstance(hint, type) and issubclass(hint, Struct):
        return _message(hint, value, depth + 1)
    origin = get_origin(hint)
    if hasattr(hint, "__metadata__"):
        return _value(hint.__origin__, value, depth)
    raise ValueError(f"a {origin or hint} has no protobuf form here")


def _time(value: bytes, form: str) -> str:
    parts = dict(wire_fields(value))
    moment = datetime.fromtimestamp(_signed(parts.get(1, 0)), UTC)
    return moment.replace(microsecond=parts.get(2, 0) // 1000).strftime(form)


def _signed(value: int) -> int:
    """Two's complement of 64 bits."""
    return value - (1 << 64) if value >= 1 << 63 else value
