"""Comparing, merging and pruning plain JSON data by its shape (structured-merge-diff's typed values).

Data that is handed in is never changed; what is answered may share parts with it.
"""

from __future__ import annotations

from typing import Any

from knarr.apiserver.ownership.fieldsets import ITSELF, NOTHING, Set, is_member, union
from knarr.apiserver.ownership.shapes import WHOLE, Distinct, Entries, Field, Fields, Items, Shape

ZEROS: tuple[Any, ...] = ("", 0, False, None)


class Faulty(ValueError):
    """Data that doesn't have its shape; the message begins with the path."""


def fields_of(shape: Shape, value: Any) -> Set:
    """The fields that applied data sets (ToFieldSet). Raises Faulty."""
    return _set(shape, value, "", everything=False)


def new_fields(shape: Shape, value: Any) -> Set:
    """The fields of data that was not there at all, each level that is new included."""
    return _set(shape, value, "", everything=True)


def created_fields(shape: Fields, obj: dict[str, Any]) -> Set:
    """The fields of a new object, compared with an empty one of upstream's."""
    found: Set = {}
    for name, value in obj.items():
        field = shape.fields.get(name)
        if field is None:
            continue
        if not field.in_zero:
            found[field.element] = new_fields(field.shape, value)
        elif isinstance(field.shape, Fields) and isinstance(value, dict):
            if below := created_fields(field.shape, value):
                found[field.element] = below
        elif isinstance(value, (dict, list)):
            below = new_fields(field.shape, value)
            if field.shape is WHOLE:
                if value:
                    found[field.element] = NOTHING
            elif below := {element: node for element, node in below.items() if element != ITSELF}:
                found[field.element] = below
        elif value not in ZEROS:
            found[field.element] = NOTHING
    return found


def _set(shape: Shape, value: Any, path: str, *, everything: bool) -> Set:
    """The set below a value. `everything`: levels count as members too (they are new), not only what is in them."""
    if shape is WHOLE or value is None:
        return NOTHING
    found: Set = {}
    if isinstance(shape, Fields):
        _need(value, dict, path, "map")
        fields = shape.fields
        for name, part in value.items():
            field = fields.get(name)
            if field is None:
                raise Faulty(f"{path}.{name}: field not declared in schema")
            if field.shape is WHOLE:
                found[field.element] = NOTHING
                continue
            below = _set(field.shape, part, f"{path}.{name}", everything=everything)
            if below or everything or part is None or part == {}:
                found[field.element] = below
    elif isinstance(shape, Entries):
        _need(value, dict, path, "map")
        for name, part in value.items():
            below = NOTHING
            if shape.values is not WHOLE:
                below = _set(shape.values, part, f"{path}.{name}", everything=everything)
                if below:
                    below[ITSELF] = NOTHING
            found[f"f:{name}"] = below
    elif isinstance(shape, Items):
        for element, item in keyed(shape, value, path):
            below = _set(shape.item, item, path + f"[{element[2:]}]", everything=everything)
            if below:
                below[ITSELF] = NOTHING
            found[element] = below
    elif isinstance(shape, Distinct):
        for element, _ in distinct(value, path):
            found[element] = NOTHING
    if everything and found:
        found[ITSELF] = NOTHING
    return found


def keyed(shape: Items, value: Any, path: str) -> list[tuple[str, Any]]:
    """The items of a list with their path elements. Raises Faulty."""
    _need(value, list, path, "list")
    found: dict[str, Any] = {}
    for index, item in enumerate(value):
        try:
            element = shape.element(item)
        except ValueError as error:
            raise Faulty(f"{path}: element {index}: {error}") from None
        if element in found:
            raise Faulty(f"{path}: duplicate entries for key [{element[3:-1]}]")
        found[element] = item
    return list(found.items())


def distinct(value: Any, path: str) -> list[tuple[str, Any]]:
    """The items of a set with their path elements. Raises Faulty."""
    _need(value, list, path, "list")
    found: dict[str, Any] = {}
    for index, item in enumerate(value):
        try:
            element = Distinct.element(item)
        except ValueError as error:
            raise Faulty(f"{path}: element {index}: {error}") from None
        if element in found:
            raise Faulty(f"{path}: duplicate entries for key [={element[2:]}]")
        found[element] = item
    return list(found.items())


def _need(value: Any, kind: type[Any], path: str, name: str) -> None:
    if not isinstance(value, kind):
        raise Faulty(f"{path or '.'}: expected {name}, got {type(value).__name__}")


def compared(shape: Shape, old: Any, new: Any) -> tuple[Set, Set]:
    """The fields that were added or modified, and those that were removed. Both values have the shape."""
    changed: Set = {}
    removed: Set = {}
    for element, part_shape, before, after in _pairs(shape, old, new):
        if before is _ABSENT:
            changed[element] = _forgiving(part_shape, after)
        elif after is _ABSENT:
            removed[element] = _forgiving(part_shape, before)
        elif part_shape is WHOLE or type(before) is not type(after):
            changed[element] = NOTHING
        else:
            below, gone = compared(part_shape, before, after)
            if below:
                changed[element] = below
            if gone:
                removed[element] = gone
    return changed, removed


def _forgiving(shape: Shape, value: Any) -> Set:
    """Stored objects may hold lists with items of the same key, which no owner could tell apart."""
    try:
        return new_fields(shape, value)
    except Faulty:
        return NOTHING


_ABSENT = object()


def _pairs(shape: Shape, old: Any, new: Any) -> list[tuple[str, Shape, Any, Any]]:
    """Each part that isn't the same on both sides: element, shape, old and new value."""
    found: list[tuple[str, Shape, Any, Any]] = []
    if isinstance(shape, (Fields, Entries)):
        for name in {**old, **new}:
            before, after = old.get(name, _ABSENT), new.get(name, _ABSENT)
            if before == after:
                continue
            if isinstance(shape, Entries):
                found.append((f"f:{name}", shape.values, before, after))
            elif field := shape.fields.get(name):
                found.append((field.element, field.shape, before, after))
        return found
    before_items, after_items = _items(shape, old), _items(shape, new)
    item_shape = shape.item if isinstance(shape, Items) else WHOLE
    for element in {**before_items, **after_items}:
        before, after = before_items.get(element, _ABSENT), after_items.get(element, _ABSENT)
        if before != after:
            found.append((element, item_shape, before, after))
    return found


def _items(shape: Shape, value: list[Any]) -> dict[str, Any]:
    """By path element; of items with the same key the first."""
    found: dict[str, Any] = {}
    for item in value:
        try:
            element = shape.element(item) if isinstance(shape, (Items, Distinct)) else ""
        except ValueError:
            continue
        found.setdefault(element, item)
    return found


def merged(shape: Shape, live: Any, applied: Any, path: str = "") -> Any:
    """`live` with what is applied. Raises Faulty."""
    if shape is WHOLE or applied is None:
        return applied
    if live is None:
        live = [] if isinstance(shape, (Items, Distinct)) else {}
    if isinstance(shape, (Fields, Entries)):
        _need(applied, dict, path, "map")
        result = dict(live)
        for name, value in applied.items():
            field = _field(shape, name)
            if field is None:
                raise Faulty(f"{path}.{name}: field not declared in schema")
            result[name] = merged(field.shape, live.get(name), value, f"{path}.{name}")
        return result
    if isinstance(shape, Items):
        return _merged_items(shape, live, applied, path)
    there = [item for _, item in distinct(applied, path)]
    return _interleaved({str(Distinct.element(item)): item for item in live}, {Distinct.element(i): i for i in there})


def _field(shape: Fields | Entries, name: str) -> Field | None:
    return shape.fields.get(name) if isinstance(shape, Fields) else Field(f"f:{name}", shape.values, False)


def _merged_items(shape: Items, live: list[Any], applied: Any, path: str) -> list[Any]:
    here = _items(shape, live)
    there = {
        element: merged(shape.item, here.get(element), item, f"{path}[{element[3:-1]}]")
        for element, item in keyed(shape, applied, path)
    }
    return _interleaved(here, there)


def _interleaved(live: dict[str, Any], applied: dict[str, Any]) -> list[Any]:
    """Items of both: the applied ones in their order, the others where they stood."""
    old, new = list(live), list(applied)
    shared = [element for element in new if element in live]
    done: set[str] = set()
    result: list[Any] = []
    i = j = 0
    while i < len(old) or j < len(new):
        if i < len(old) and j < len(new):
            element = old[i]
            if element == new[j]:
                result.append(applied[element])
                done.add(element)
                if shared and shared[0] == element:
                    shared.pop(0)
                i, j = i + 1, j + 1
                continue
            if element in applied and shared and shared[0] != element:
                i += 1  # It comes later, in the order that was applied.
                continue
        if i < len(old):
            element = old[i]
            if element not in applied:
                result.append(live[element])
                i += 1
                continue
            if element in done:
                i += 1
        if j < len(new):
            element = new[j]
            result.append(applied[element])
            done.add(element)
            if shared and shared[0] == element:
                shared.pop(0)
            j += 1
    return result


def pruned(shape: Shape, value: Any, last: Set, kept: Set) -> Any:
    """`value` without what is in `last` (what an applier owned) and not in `kept` (what anybody owns now)."""
    if isinstance(shape, (Fields, Entries)) and isinstance(value, dict):
        result: Any = {}
        for name, part in value.items():
            field = _field(shape, name)
            if field is None:
                continue
            left = _pruned_part(field, part, last, kept, named=isinstance(shape, Fields))
            if left is not _ABSENT:
                result[name] = left
        return result
    if isinstance(shape, (Items, Distinct)) and isinstance(value, list):
        result = []
        item_shape = shape.item if isinstance(shape, Items) else WHOLE
        for item in value:
            field = Field(shape.element(item), item_shape, False)
            left = _pruned_part(field, item, last, kept, named=False)
            if left is not _ABSENT:
                result.append(left)
        return result
    return value


def _pruned_part(field: Field, part: Any, last: Set, kept: Set, *, named: bool) -> Any:
    owned, keep = last.get(field.element), kept.get(field.element)
    if owned is None:
        return part
    # A struct's field is there as long as anything in it is owned; entries and items when they are owned themselves.
    gone = keep is None if named else is_member(owned) and (keep is None or not is_member(keep))
    if gone:
        return _ABSENT
    if not owned or field.shape is WHOLE:
        return part
    left = pruned(field.shape, part, owned, keep or {})
    return _ABSENT if not left and part else left


__all__ = ["Faulty", "compared", "created_fields", "fields_of", "merged", "new_fields", "pruned", "union"]
