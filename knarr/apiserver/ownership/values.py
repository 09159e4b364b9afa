"""Comparing, merging and pruning plain JSON data by its shape (structured-merge-diff's typed values).

Data that is handed in is never changed; what is answered may share parts with it.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from knarr.apiserver.ownership.fieldsets import ITSELF, NOTHING, Set, is_member, step
from knarr.apiserver.ownership.shapes import WHOLE, Distinct, Entries, Field, Fields, Items, Shape


class Faulty(ValueError):
    """Data that doesn't have its shape; the message begins with the path."""


class Repeated(list[Any]):
    """The items of a list that have the same keys: nobody can own one of them alone."""


_ABSENT = object()


Path = tuple[Any, str] | None
"""Where a value is: what it is in, and its element there. Told only when there is something to tell."""


def told(path: Path) -> str:
    """A path as messages write it: .spec.containers[name="c"]"""
    elements = []
    while path is not None:
        path, element = path
        elements.append(step(element))
    return "".join(reversed(elements))


# Laying one value over another


def fields_of(shape: Shape, value: Any) -> Set:
    """The fields that applied data sets. Raises Faulty."""
    return laid_over(shape, None, value)[0]


def laid_over(shape: Shape, live: Any, value: Any, path: Path = None) -> tuple[Set, Any]:
    """The fields that applied data sets, and what it makes of a live value. Raises Faulty."""
    if shape is WHOLE:
        return NOTHING, value
    if value is None:
        return NOTHING, live or None
    if isinstance(shape, Fields):
        return _fields_laid_over(shape, live or {}, value, path)
    if isinstance(shape, Entries):
        return _entries_laid_over(shape, live or {}, value, path)
    assert isinstance(shape, (Items, Distinct))
    return _items_laid_over(shape, live or [], value, path)


def _fields_laid_over(shape: Fields, live: dict[str, Any], value: Any, path: Path) -> tuple[Set, Any]:
    if not isinstance(value, dict):
        raise _unexpected("map", value, path)
    fields, found, result = shape.fields, {}, dict(live)
    for name, part in value.items():
        field = fields.get(name)
        if field is None:
            raise Faulty(f"{told(path)}.{name}: field not declared in schema")
        if field.shape is WHOLE:
            found[field.element] = NOTHING
            result[name] = part
            continue
        below, result[name] = laid_over(field.shape, live.get(name), part, (path, field.element))
        if below or part is None or part == {}:
            found[field.element] = below
    return found, result


def _entries_laid_over(shape: Entries, live: dict[str, Any], value: Any, path: Path) -> tuple[Set, Any]:
    if not isinstance(value, dict):
        raise _unexpected("map", value, path)
    if shape.values is WHOLE:
        return {f"f:{name}": NOTHING for name in value}, live | value
    found, result = {}, dict(live)
    for name, part in value.items():
        below, result[name] = laid_over(shape.values, live.get(name), part, (path, f"f:{name}"))
        found[f"f:{name}"] = below | {ITSELF: NOTHING} if below else NOTHING
    return found, result


def _items_laid_over(shape: Items | Distinct, live: list[Any], value: Any, path: Path) -> tuple[Set, Any]:
    items = _told_apart(shape, value, path)
    here = [_element(shape, item) for item in live]
    if not isinstance(shape, Items):
        return dict.fromkeys(items, NOTHING), _interleaved(live, here, items)
    there = dict(zip(here, live, strict=True))
    if len(there) < len(here):
        # What stands twice is not merged with what is applied, but replaced by it.
        times = Counter(here)
        there = {element: item for element, item in there.items() if times[element] == 1}
    found: Set = {}
    for element, item in items.items():
        below, items[element] = laid_over(shape.item, there.get(element), item, (path, element))
        if below:
            below[ITSELF] = NOTHING
        found[element] = below
    return found, _interleaved(live, here, items)


def _interleaved(live: list[Any], here: list[str], applied: dict[str, Any]) -> list[Any]:
    """Items of both: the applied ones in their order, the others where they stood. `here`: the elements of `live`."""
    if here == list(applied):
        return list(applied.values())
    there = set(here)
    shared = iter([element for element in applied if element in there])
    expected = next(shared, None)
    waiting = iter(applied.items())
    following = next(waiting, None)
    done: set[str] = set()
    result: list[Any] = []

    def take() -> None:
        nonlocal following, expected
        assert following is not None
        element, item = following
        result.append(item)
        done.add(element)
        if element == expected:
            expected = next(shared, None)
        following = next(waiting, None)

    for element, item in zip(here, live, strict=True):
        if element not in applied:
            result.append(item)
        elif element == expected:
            # All that is applied before it, and itself; what is applied for later items comes with them.
            while following is not None and element not in done:
                take()
    while following is not None:
        take()
    return result


def _element(shape: Items | Distinct, item: Any) -> str:
    """Empty for an item that can't be told apart."""
    try:
        return shape.element(item)
    except ValueError:
        return ""


def _told_apart(shape: Items | Distinct, value: Any, path: Path) -> dict[str, Any]:
    """The items of an applied list by their path elements. Raises Faulty."""
    if not isinstance(value, list):
        raise _unexpected("list", value, path)
    found: dict[str, Any] = {}
    for index, item in enumerate(value):
        try:
            element = shape.element(item)
        except ValueError as error:
            raise Faulty(f"{told(path)}: element {index}: {error}") from None
        if element in found:
            raise Faulty(f"{told(path)}: duplicate entries for key {step(element)}")
        found[element] = item
    return found


def _unexpected(wanted: str, value: Any, path: Path) -> Faulty:
    return Faulty(f"{told(path) or '.'}: expected {wanted}, got &{{{value}}}")


# Comparing


def new_fields(shape: Shape, value: Any) -> Set:
    """The fields of data that was not there at all, each level included. Of repeated items just the element."""
    if shape is WHOLE or not value:
        return NOTHING
    found: Set = {}
    if isinstance(shape, Fields):
        if isinstance(value, dict):
            fields = shape.fields
            for name, part in value.items():
                if field := fields.get(name):
                    found[field.element] = NOTHING if field.shape is WHOLE else new_fields(field.shape, part)
    elif isinstance(shape, Entries):
        if isinstance(value, dict):
            for name, part in value.items():
                found[f"f:{name}"] = new_fields(shape.values, part)
    elif isinstance(value, list):
        item_shape = shape.item if isinstance(shape, Items) else WHOLE
        for element, item in _items(shape, value).items():
            found[element] = NOTHING if type(item) is Repeated else new_fields(item_shape, item)
    if found:
        found[ITSELF] = NOTHING
    return found


def compared(shape: Shape, old: Any, new: Any) -> tuple[Set, Set]:
    """The fields that were added or modified, and those that were removed. Both values have the shape."""
    changed: Set = {}
    removed: Set = {}
    if isinstance(shape, Fields):
        fields = shape.fields
        for name in old.keys() | new.keys() if old else new:
            before, after = old.get(name, _ABSENT), new.get(name, _ABSENT)
            if before != after and (field := fields.get(name)):
                if field.in_zero and (before is _ABSENT or after is _ABSENT):
                    before, after = _with_zeros(field.shape, before, after)
                _compare_part(field.element, field.shape, before, after, changed, removed)
        return changed, removed
    if isinstance(shape, Entries):
        item_shape = shape.values
        there, here = (
            {f"f:{name}": part for name, part in old.items()},
            {f"f:{name}": part for name, part in new.items()},
        )
    else:
        item_shape = shape.item if isinstance(shape, Items) else WHOLE
        there, here = _items(shape, old), _items(shape, new)
    for element in there.keys() | here.keys():
        before, after = there.get(element, _ABSENT), here.get(element, _ABSENT)
        if before != after:
            _compare_part(element, item_shape, before, after, changed, removed)
    return changed, removed


def _with_zeros(shape: Shape, before: Any, after: Any) -> tuple[Any, Any]:
    """What stands for a field that is missing, of those that an empty object of upstream's has."""
    if shape is WHOLE:
        there = after if before is _ABSENT else before
        zero: Any = None if there else there
    else:
        zero = [] if isinstance(shape, (Items, Distinct)) else {}
    return (zero if before is _ABSENT else before), (zero if after is _ABSENT else after)


def _compare_part(element: str, shape: Shape, before: Any, after: Any, changed: Set, removed: Set) -> None:
    if type(before) is Repeated or type(after) is Repeated:
        if type(before) is not type(after):
            if before is not _ABSENT:
                removed[element] = NOTHING if type(before) is Repeated else new_fields(shape, before)
            if after is not _ABSENT:
                changed[element] = NOTHING if type(after) is Repeated else new_fields(shape, after)
        else:
            changed[element] = NOTHING
    elif before is _ABSENT:
        changed[element] = new_fields(shape, after)
    elif after is _ABSENT:
        removed[element] = new_fields(shape, before)
    elif shape is WHOLE or type(before) is not type(after):
        if before is not after:
            changed[element] = NOTHING
    else:
        below, gone = compared(shape, before, after)
        if below:
            changed[element] = below
        if gone:
            removed[element] = gone


def _items(shape: Shape, value: list[Any]) -> dict[str, Any]:
    """The items of a stored list by path element; those of the same element together."""
    assert isinstance(shape, (Items, Distinct))
    found: dict[str, Any] = {}
    for item in value:
        try:
            element = shape.element(item)
        except ValueError:
            continue
        if element not in found:
            found[element] = item
        elif type(found[element]) is Repeated:
            found[element].append(item)
        else:
            found[element] = Repeated([found[element], item])
    return found


# Pruning


def pruned(shape: Shape, value: Any, last: Set, kept: Set) -> Any:
    """`value` without what is in `last` (what an applier owned) and not in `kept` (what anybody owns now)."""
    if isinstance(shape, (Fields, Entries)) and isinstance(value, dict):
        result: Any = {}
        for name, part in value.items():
            field = shape.fields.get(name) if isinstance(shape, Fields) else Field(f"f:{name}", shape.values, False)
            if field is not None:
                left = _pruned_part(field.element, field.shape, part, last, kept, named=isinstance(shape, Fields))
                if left is not _ABSENT:
                    result[name] = left
        return result
    if isinstance(shape, (Items, Distinct)) and isinstance(value, list):
        item_shape = shape.item if isinstance(shape, Items) else WHOLE
        left_items = [_pruned_part(_element(shape, item), item_shape, item, last, kept, named=False) for item in value]
        return [item for item in left_items if item is not _ABSENT]
    return value


def _pruned_part(element: str, shape: Shape, part: Any, last: Set, kept: Set, *, named: bool) -> Any:
    owned, keep = last.get(element), kept.get(element)
    if owned is None:
        return part
    # A struct's field is there as long as anything in it is owned; entries and items when they are owned themselves.
    gone = keep is None if named else is_member(owned) and (keep is None or not is_member(keep))
    if gone:
        return _ABSENT
    if not owned or shape is WHOLE:
        return part
    left = pruned(shape, part, owned, keep or {})
    return _ABSENT if not left and part else left
