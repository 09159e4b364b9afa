"""Sets of fields in the form in which managedFields keeps them (FieldsV1), and what can be done with them.

A set is a tree of dicts: an element (f:<name>, k:<keys>, v:<value>, i:<index>) leads to the set below it. An element is
a member itself when nothing is below it, or "." is. https://pkg.go.dev/sigs.k8s.io/structured-merge-diff/v6/fieldpath
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

Set = dict[str, Any]
ITSELF = "."
NOTHING: Set = {}
PREFIXES = ("f:", "k:", "v:", "i:")
NESTING_MAX = 100


def encoded(fields: Set) -> bytes:
    """Canonical FieldsV1: elements in order."""
    return msgspec.json.encode(fields, order="sorted")


def decoded(text: bytes) -> Set:
    """Raises ValueError for what is no FieldsV1."""
    if not text:
        return {}
    fields = msgspec.json.decode(text)
    _check(fields, 0)
    return fields  # type: ignore[no-any-return]


def _check(fields: Any, depth: int) -> None:
    if not isinstance(fields, dict) or depth > NESTING_MAX:
        raise ValueError("it is no set of fields")
    for element, below in fields.items():
        if element == ITSELF and below == {}:
            continue
        if not element.startswith(PREFIXES):
            raise ValueError(f"{element!r} is no path element")
        if below:
            _check(below, depth + 1)


def is_member(node: Set) -> bool:
    return not node or ITSELF in node


def _node(below: Set, member: bool) -> Set | None:
    """With or without the element itself; None when nothing is left."""
    if below:
        if member:
            below[ITSELF] = NOTHING
        return below
    return NOTHING if member else None


def union(one: Set, other: Set) -> Set:
    """What is in either."""
    if not one or not other:
        return one or other
    found = dict(one)
    for element, node in other.items():
        if element == ITSELF:
            continue
        if element not in found:
            found[element] = node
            continue
        here = found[element]
        below = {key: value for key, value in union(here, node).items() if key != ITSELF}
        found[element] = _node(below, is_member(here) or is_member(node))
    return found


def difference(one: Set, other: Set) -> Set:
    """What is in `one` and not in `other`."""
    found: Set = {}
    for element, node in one.items():
        if element == ITSELF:
            continue
        there = other.get(element)
        if there is None:
            found[element] = node
            continue
        left = _node(difference(node, there), is_member(node) and not is_member(there))
        if left is not None:
            found[element] = left
    return found


def intersection(one: Set, other: Set) -> Set:
    """What is in both."""
    found: Set = {}
    for element, node in one.items():
        there = other.get(element)
        if element == ITSELF or there is None:
            continue
        both = _node(intersection(node, there), is_member(node) and is_member(there))
        if both is not None:
            found[element] = both
    return found


def without(fields: Set, *paths: tuple[str, ...]) -> Set:
    """`fields` without what is at and below the paths; changed in place where the caller owns it."""
    for path in paths:
        _drop(fields, path)
    return fields


def _drop(fields: Set, path: tuple[str, ...]) -> None:
    element, *rest = path
    if element not in fields:
        return
    if not rest:
        del fields[element]
        return
    below = dict(fields[element])
    _drop(below, tuple(rest))
    if below and below != {ITSELF: NOTHING}:
        fields[element] = below
    elif not below:
        # Nobody is a member of what had members below it only.
        del fields[element]


def paths(fields: Set, prefix: str = "") -> Iterator[str]:
    """The members, as messages write them: .spec.containers[name="c"].image"""
    for element in sorted(fields):
        node = fields[element]
        if element == ITSELF:
            continue
        path = prefix + step(element)
        if is_member(node):
            yield path
        yield from paths(node, path)


def step(element: str) -> str:
    """One element of a path, as messages write it."""
    kind, value = element[:2], element[2:]
    if kind == "f:":
        return f".{value}"
    if kind == "k:":
        keys: Mapping[str, Any] = json.loads(value)
        return "[" + ",".join(f"{name}={json.dumps(keys[name], ensure_ascii=False)}" for name in sorted(keys)) + "]"
    if kind == "v:":
        return f"[={value}]"
    return f"[{value}]"
