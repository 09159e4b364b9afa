"""How the values of a type are owned and merged, read from the types (x-kubernetes-list-type, -map-type).

A shape says what a value is made of: fields with names, entries of a map, items of a list told apart by keys, distinct
scalars, or one whole that is owned and replaced as such (scalars, atomic lists and structs, anything unknown).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, get_args, get_origin, get_type_hints

import msgspec

from knarr.api.types import Merge, RawJSON, Struct, is_always

HELD_BY_VALUE = frozenset(
    {"metadata", "spec", "status", "template", "strategy", "updateStrategy", "jobTemplate", "loadBalancer"}
)
"""Structs that Go holds by value: they are in an empty object too, so that nobody is said to have added them."""
HELD_ELSEWHERE = {"ReplicationControllerSpec.template": False, "PersistentVolumeClaimSpec.resources": True}
"""Where a type says otherwise than the name of the field."""
_json = msgspec.json.Encoder()


class Shape:
    """A value that is owned as a whole."""


WHOLE = Shape()


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a struct."""

    element: str
    """As FieldsV1 writes it: f:<name>."""
    shape: Shape
    in_zero: bool
    """Whether an empty object of upstream's has it: then it isn't added with the object."""


class Fields(Shape):
    """A struct whose fields are owned one by one."""

    def __init__(self, kind: type[Any]) -> None:
        self._kind = kind

    @functools.cached_property
    def fields(self) -> dict[str, Field]:
        """By JSON name. Made when first asked for: types may be recursive."""
        hints = get_type_hints(self._kind, include_extras=True)
        found = {}
        for info in msgspec.structs.fields(self._kind):
            shape = _shape(hints[info.name])
            by_value = HELD_ELSEWHERE.get(
                f"{self._kind.__name__}.{info.encode_name}", info.encode_name in HELD_BY_VALUE
            )
            in_zero = is_always(info) or (by_value and isinstance(shape, Fields))
            found[info.encode_name] = Field(f"f:{info.encode_name}", shape, in_zero)
        return found


@dataclass(frozen=True)
class Entries(Shape):
    """A map whose entries are owned one by one."""

    values: Shape


class Items(Shape):
    """A list whose items are told apart by some of their fields."""

    def __init__(self, keys: tuple[str, ...], item: Shape, defaults: dict[str, str]) -> None:
        self.item = item
        self._keys = tuple((key, f'"{key}":', defaults.get(key)) for key in sorted(keys))
        self._named = ", ".join(f'"{key}"' for key in keys)

    def element(self, item: Any) -> str:
        """k:{…}. Raises ValueError for an item without its keys."""
        if not isinstance(item, dict):
            what = "a null element" if item is None else "non-map elements"
            raise ValueError(f"associative list with keys may not have {what}")
        parts = []
        for key, written, default in self._keys:
            value = item.get(key)
            if value is None:
                value = default
            if value is None:
                continue
            if isinstance(value, (dict, list)):
                raise ValueError(f'key field "{key}" must be a scalar')
            parts.append(written + _json.encode(value).decode())
        if not parts:
            raise ValueError(
                f"associative list with keys has an element that omits all key fields [{self._named}] "
                "(and doesn't have default values for any key fields)"
            )
        return "k:{" + ",".join(parts) + "}"


class Distinct(Shape):
    """A list of scalars that is a set."""

    @staticmethod
    def element(item: Any) -> str:
        """v:<JSON>. Raises ValueError for what is no scalar."""
        if isinstance(item, dict):
            raise ValueError("associative list without keys has an element that's a map type")
        if isinstance(item, list):
            raise ValueError("not supported: associative list with lists as elements")
        if item is None:
            raise ValueError("associative list without keys has an element that's an explicit null")
        return "v:" + _json.encode(item).decode()


_of_structs: dict[type[Struct], Shape] = {}


def _of_struct(kind: type[Struct]) -> Shape:
    if kind not in _of_structs:
        _of_structs[kind] = WHOLE if kind.atomic else Fields(kind)
    return _of_structs[kind]


def shape_of(kind: type[Any]) -> Fields:
    """The shape of a kind's objects."""
    shape = _of_struct(kind)
    assert isinstance(shape, Fields)
    return shape


def _shape(hint: Any) -> Shape:
    rule = None
    while True:
        if hasattr(hint, "__metadata__"):
            rule = next((extra for extra in hint.__metadata__ if isinstance(extra, Merge)), rule)
            hint = hint.__origin__
            continue
        arguments = get_args(hint)
        if get_origin(hint) in (list, dict) or type(None) not in arguments:
            break
        rest = [each for each in arguments if each is not type(None)]
        if len(rest) > 1:
            return WHOLE
        hint = rest[0]
    if hint is RawJSON:
        return WHOLE
    if get_origin(hint) is dict:
        return WHOLE if rule and rule.map_type == "atomic" else Entries(_shape(get_args(hint)[1]))
    if get_origin(hint) is list:
        return _list(get_args(hint)[0], rule)
    if isinstance(hint, type) and issubclass(hint, Struct):
        if rule and rule.map_type:
            return Fields(hint) if rule.map_type == "granular" else WHOLE
        return _of_struct(hint)
    return WHOLE


def _list(item: Any, rule: Merge | None) -> Shape:
    if rule and rule.list_type == "map":
        # Keys that may be left out, with what they mean then (the schema's defaults).
        named = getattr(item, "__name__", "") == "LocalObjectReference"
        return Items(rule.keys, _shape(item), {"protocol": "TCP"} | ({"name": ""} if named else {}))
    if rule and rule.list_type == "set":
        return Distinct()
    return WHOLE
