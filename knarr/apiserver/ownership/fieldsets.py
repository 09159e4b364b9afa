"""Sets of fields in the form in which managedFields keeps them (FieldsV1), and what can be done with them.

A set is a tree of dicts: an element (f:<name>, k:<keys>, v:<value>, i:<index>) leads to the set below it. An element is
a member itself when nothing is below it, or "." is. https://pkg.go.dev/sigs.k8s.io/structured-merge-diff/v6/fieldpath
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

Set = dict[str, Any]
ITSELF = "."
NOTHING: Set = {}
PREFIXES = ("f:", "k:", "v:", "i:")
NESTING_MAX = 100


SETS_CACHED_MAX = 2048
"""Sets that are kept as they were read: objects of one origin have the same, and each write reads them all."""
CACHED_MAX_BYTES = 16 << 10
_NUMBER_IN_KEY = re.compile(rb'\\":-?[0-9]|"v:-?[0-9]')


def encoded(fields: Set) -> bytes:
    """Canonical FieldsV1: elements in order, numbers in keys by their size."""
    text = msgspec.json.encode(fields, order="sorted")
    return msgspec.json.encode(_in_order(fields)) if _NUMBER_IN_KEY.search(text) else text


def _in_order(fields: Set) -> Set:
    # Keys are read only where there are several: to read each one was an eighth of the cost of creating a pod.
    several = sum(element[:2] in ("k:", "v:") for element in fields) > 1
    ordered = sorted(fields, key=_place) if several else sorted(fields)
    return {element: _in_order(below) if (below := fields[element]) else below for element in ordered}


def _place(element: str) -> tuple[Any, ...]:
    kind, value = element[:2], element[2:]
    if kind not in ("k:", "v:"):
        return (kind, value)
    scalars = json.loads(value)
    keys = sorted(scalars.items()) if isinstance(scalars, dict) else [("", scalars)]
    return (kind, *((name, *_rank(key)) for name, key in keys))


def _rank(key: Any) -> tuple[bool, float, str]:
    """Numbers stand before strings, as in structured-merge-diff."""
    number = isinstance(key, (int, float))
    return (not number, key if number else 0, "" if number else str(key))


def decoded(text: bytes) -> Set:
    """Not to be changed. Raises ValueError for what is no FieldsV1."""
    return _decoded(text) if len(text) <= CACHED_MAX_BYTES else _read(text)


@functools.lru_cache(maxsize=SETS_CACHED_MAX)
def _decoded(text: bytes) -> Set:
    return _read(text)


def _read(text: bytes) -> Set:
    if not text:
        return {}
    fields = _parsed(text)
    _check(fields, 0)
    return fields  # type: ignore[no-any-return]


def _parsed(text: bytes | str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None


def _check(fields: Any, depth: int) -> None:
    if not isinstance(fields, dict) or depth > NESTING_MAX:
        raise ValueError("it is no set of fields")
    for element, below in fields.items():
        if element == ITSELF and below == {}:
            continue
        if not element.startswith(PREFIXES):
            raise ValueError(f"{element!r} is no path element")
        if element[0] == "k":
            keys = _parsed(element[2:])
            if not isinstance(keys, dict) or any(isinstance(key, (dict, list)) for key in keys.values()):
                raise ValueError(f"{element!r} has no keys")
        elif element[0] == "v" and isinstance(_parsed(element[2:]), (dict, list)):
            raise ValueError(f"{element!r} has no scalar")
        if below:
            _check(below, depth + 1)
        elif below != {}:
            raise ValueError("it is no set of fields")


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
