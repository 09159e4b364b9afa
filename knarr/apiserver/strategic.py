"""Kubernetes' strategic merge patch, on plain JSON data; what it is given is not changed.

Lists with a merge key merge item by item; directives ($patch, $retainKeys, $deleteFromPrimitiveList, $setElementOrder)
say more. Which list has which key stands in the types, as `Merge`.
https://github.com/kubernetes/community/blob/master/contributors/devel/sig-api-machinery/strategic-merge-patch.md
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args, get_origin, get_type_hints

import msgspec

from knarr.api.errors import APIError, BadRequest
from knarr.api.types import Merge, Struct

DIRECTIVE = "$patch"
RETAIN = "$retainKeys"
DELETE_PRIMITIVE = "$deleteFromPrimitiveList/"
ORDER = "$setElementOrder/"


class _Unprocessable(APIError):
    code, reason = 422, "Invalid"


def strategic_merge_patch(kind: type[Any], data: Any, patch: dict[str, Any]) -> Any:
    """`data` of a kind with a strategic merge patch applied. Raises BadRequest."""
    return _merge_object(kind, data if isinstance(data, dict) else {}, patch)


def _merge_object(kind: Any, data: dict[str, Any], patch: dict[str, Any]) -> Any:
    directive = patch.get(DIRECTIVE)
    if directive == "replace":
        return {name: value for name, value in patch.items() if name != DIRECTIVE}
    if directive == "delete":
        return {}
    if directive not in (None, "merge"):
        raise _unknown_directive(directive, patch)
    merged = _retained(data, patch) if RETAIN in patch else dict(data)
    fields = _fields(kind)
    for name, value in patch.items():
        if name in (DIRECTIVE, RETAIN):
            continue
        if not (value is None or isinstance(value, (dict, list)) or name.startswith("$")):
            merged[name] = value
        elif name.startswith(ORDER):
            field = name.removeprefix(ORDER)
            if field not in patch and isinstance(merged.get(field), list):
                merged[field] = _in_order(*_of_field(kind, fields, field), merged[field], [], value)
        elif name.startswith(DELETE_PRIMITIVE):
            field = name.removeprefix(DELETE_PRIMITIVE)
            if not isinstance(value, list):
                raise BadRequest("invalid patch format of primitive list")
            if isinstance(merged.get(field), list):
                merged[field] = [item for item in merged[field] if not _contains(value, item)]
        elif value is None:
            merged.pop(name, None)
        else:
            field_kind, rule = _of_field(kind, fields, name)
            merged[name] = _merge_value(field_kind, rule, merged.get(name), value, patch.get(ORDER + name))
    return merged


def _retained(data: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """Without what $retainKeys doesn't list."""
    retained = patch[RETAIN]
    if not isinstance(retained, list):
        raise BadRequest("invalid patch format of retainKeys")
    for name, value in patch.items():
        directive = name in (RETAIN, DIRECTIVE) or name.startswith((DELETE_PRIMITIVE, ORDER))
        if value is not None and not directive and name not in retained:
            raise BadRequest("invalid patch format of retainKeys")
    return {name: value for name, value in data.items() if name in retained}


def _merge_value(kind: Any, rule: Merge | None, old: Any, value: Any, order: Any) -> Any:
    if isinstance(value, dict):
        return _merge_object(kind, old if isinstance(old, dict) else {}, value)
    if not isinstance(value, list):
        return value
    if rule is None or "merge" not in rule.strategy or not isinstance(old, list):
        made = _without_directives(value)
        return made if order is None else _in_order(kind, rule, made, value, order)
    if any(isinstance(item, list) for item in (*value, *old)):
        raise _Unprocessable("lists of lists are not supported")
    made = _merge_list(get_args(kind)[0], rule.patch_key, old, value) if rule.patch_key else _added(old, value)
    wanted = value if order is None else order
    if order is not None:
        return _in_order(kind, rule, made, value, order, old)
    return _ordered(made, wanted, old, _name_by(rule))


def _merge_list(kind: Any, key: str, old: list[Any], patch: list[Any]) -> list[Any]:
    """Lists of objects, merged by the value of `key`."""
    merged = list(old)
    changes: list[dict[str, Any]] = []
    replaced = False
    for item in patch:
        if not isinstance(item, dict):
            raise BadRequest("list element types are not identical")
        directive = item.get(DIRECTIVE)
        if directive is None or directive == "merge":
            changes.append(item)
        elif directive == "replace":
            replaced = True
        elif directive != "delete":
            raise _unknown_directive(directive, item)
        elif key not in item:
            raise _no_key(item, key)
        else:
            merged = [there for there in merged if there.get(key) != item[key]]
    if replaced:
        return [_without_directives(item) for item in changes]
    for item in changes:
        if key not in item:
            raise _no_key(item, key)
        place = next((place for place, there in enumerate(merged) if there.get(key) == item[key]), None)
        if place is None:
            merged.append(_merge_object(kind, {}, item))
        else:
            merged[place] = _merge_object(kind, merged[place], item)
    return merged


def _added(old: list[Any], value: list[Any]) -> list[Any]:
    """Lists of scalars as one set."""
    made: list[Any] = []
    for item in (*old, *value):
        if not _contains(made, item):
            made.append(item)
    return made


# Order: what a patch lists stands in the patch's order, the rest where it stood before


def _in_order(
    kind: Any, rule: Merge | None, items: list[Any], patch: list[Any], order: Any, old: list[Any] | None = None
) -> list[Any]:
    """`items` as $setElementOrder says. Raises BadRequest when the patch's own order isn't that."""
    if not isinstance(order, list):
        raise BadRequest("invalid patch format of setElementOrder list")
    name = _name_by(rule)
    wanted = [name(item) for item in order]
    rest = iter(wanted)
    for item in patch:
        deleted = isinstance(item, dict) and DIRECTIVE in item
        if not deleted and not any(_same(name(item), each) for each in rest):
            raise BadRequest(
                f"The order in patch list:\n{go_value(patch)}\n doesn't match {ORDER[:-1]} list:\n{go_value(order)}\n"
            )
    return _ordered(items, order, items if old is None else old, name)


def _ordered(items: list[Any], order: list[Any], old: list[Any], name: Callable[[Any], Any]) -> list[Any]:
    """Those that `order` names in its order, the others in the old one: each before the first that followed it."""
    ranks = [name(item) for item in order]
    named: list[tuple[int, Any]] = []
    others: list[Any] = []
    for item in items:
        rank = _index(ranks, name(item))
        if rank < 0:
            others.append(item)
        else:
            named.append((rank, item))
    named.sort(key=lambda each: each[0])
    places = [name(item) for item in old]
    result: list[Any] = []
    for _, item in named:
        place = _index(places, name(item))
        while others and 0 <= _index(places, name(others[0])) < place:
            result.append(others.pop(0))
        result.append(item)
    return result + others


def _name_by(rule: Merge | None) -> Callable[[Any], Any]:
    """What tells an item of a list from others: the value of its merge key, or itself."""
    key = rule.patch_key if rule else None

    def name(item: Any) -> Any:
        return item.get(key) if key and isinstance(item, dict) else item

    return name


def _same(one: Any, other: Any) -> bool:
    """As JSON: true is not 1."""
    return type(one) is type(other) and bool(one == other)


def _index(values: list[Any], value: Any) -> int:
    if type(value) is str:  # nearly all merge keys are
        return values.index(value) if value in values else -1
    return next((place for place, each in enumerate(values) if _same(each, value)), -1)


def _contains(values: list[Any], value: Any) -> bool:
    return _index(values, value) >= 0


def _without_directives(value: Any) -> Any:
    """What of a patch is a value: for what isn't there yet."""
    if isinstance(value, dict):
        return {
            name: _without_directives(part) if isinstance(part, (dict, list)) else part
            for name, part in value.items()
            if part is not None and not (name.startswith("$") and _is_directive(name))
        }
    if isinstance(value, list):
        kept = [item for item in value if not (isinstance(item, dict) and item.get(DIRECTIVE) in ("delete", "replace"))]
        return [_without_directives(item) for item in kept]
    return value


def _is_directive(name: str) -> bool:
    return name in (DIRECTIVE, RETAIN) or name.startswith((DELETE_PRIMITIVE, ORDER))


def _no_key(item: dict[str, Any], key: str) -> BadRequest:
    return BadRequest(f"map: {go_value(item)} does not contain declared merge key: {key}")


def _unknown_directive(directive: Any, patch: dict[str, Any]) -> BadRequest:
    return BadRequest(f"unknown patch type: {go_value(directive)} in map: {go_value(patch)}")


def go_value(value: Any) -> str:
    """JSON data as upstream prints it in messages (Go's %v)."""
    if isinstance(value, dict):
        return "map[" + " ".join(f"{name}:{go_value(value[name])}" for name in sorted(value)) + "]"
    if isinstance(value, list):
        return "[" + " ".join(go_value(item) for item in value) + "]"
    if value is None:
        return "<nil>"
    return str(value).lower() if isinstance(value, bool) else str(value)


# Types

_known: dict[Any, dict[str, tuple[Any, Merge | None]]] = {}


def _of_field(kind: Any, fields: dict[str, tuple[Any, Merge | None]], name: str) -> tuple[Any, Merge | None]:
    """Type and rule of a field; of a map, those of its values."""
    if name in fields:
        return fields[name]
    return _unwrap(get_args(kind)[1]) if get_origin(kind) is dict else (Any, None)


def _fields(kind: Any) -> dict[str, tuple[Any, Merge | None]]:
    """JSON name → (type without None and Annotated, merge rule) of each field of a Struct."""
    if kind in _known:
        return _known[kind]
    fields: dict[str, tuple[Any, Merge | None]] = {}
    if isinstance(kind, type) and issubclass(kind, Struct):
        hints = get_type_hints(kind, include_extras=True)
        for info in msgspec.structs.fields(kind):
            fields[info.encode_name] = _unwrap(hints[info.name])
        _known[kind] = fields
    return fields


def _unwrap(kind: Any) -> tuple[Any, Merge | None]:
    rule = None
    while True:
        if hasattr(kind, "__metadata__"):
            rule = next((extra for extra in kind.__metadata__ if isinstance(extra, Merge)), rule)
            kind = kind.__origin__
            continue
        arguments = get_args(kind)
        if get_origin(kind) not in (list, dict) and type(None) in arguments:
            kind = next(argument for argument in arguments if argument is not type(None))
            continue
        return kind, rule
