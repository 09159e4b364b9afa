"""How the values of a type are owned and merged, read from the types (x-kubernetes-list-type, -map-type).

A shape says what a value is made of: fields with names, entries of a map, items of a list told apart by keys, distinct
scalars, or one whole that is owned and replaced as such (scalars, atomic lists and structs, anything unknown).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_origin, get_type_hints

import msgspec

from knarr.api.types import Merge, RawJSON, Struct, is_always

KEY_DEFAULTS: Mapping[str, Any] = {"protocol": "TCP"}
"""Keys of list items that may be left out, with what they mean then (the schema's defaults)."""
ALWAYS_THERE = frozenset(
    {"metadata", "spec", "status", "template", "strategy", "updateStrategy", "jobTemplate", "loadBalancer"}
)
"""Structs that Go holds by value: they are in an empty object too, so that nobody is said to have added them."""


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
            in_zero = is_always(info) or (info.encode_name in ALWAYS_THERE and isinstance(shape, Fields))
            found[info.encode_name] = Field(f"f:{info.encode_name}", shape, in_zero)
        return found


@dataclass(frozen=True)
class Entries(Shape):
    """A map whose entries are owned one by one."""

    values: Shape


@dataclass(frozen=True)
class Items(Shape):
    """A list whose items are told apart by some of their fields."""

    keys: tuple[str, ...]
    item: Shape

    def element(self, item: Any) -> str:
        """k:{…}. Raises ValueError for an item without its keys."""
        if not isinstance(item, dict):
            raise ValueError("expected map")
        values = {}
        for key in self.keys:
            value = item.get(key)
            if value is None:
                value = KEY_DEFAULTS.get(key)
            if value is None:
                if len(self.keys) == 1:
                    raise ValueError(f"associative list with keys has an element that omits key field {key!r}")
                continue
            if isinstance(value, (dict, list)):
                raise ValueError(f"key field {key!r} must be a scalar")
            values[key] = value
        if not values:
            raise ValueError(f"associative list with keys has an element that omits all key fields {list(self.keys)}")
        return "k:" + json.dumps(values, separators=(",", ":"), ensure_ascii=False)


class Distinct(Shape):
    """A list of scalars that is a set."""

    @staticmethod
    def element(item: Any) -> str:
        """v:<JSON>. Raises ValueError for what is no scalar."""
        if isinstance(item, (dict, list)):
            raise ValueError("sets can't contain maps or lists")
        return "v:" + json.dumps(item, ensure_ascii=False)


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
        return Items(tuple(sorted(rule.keys)), _shape(item))
    if rule and rule.list_type == "set":
        return Distinct()
    return WHOLE
