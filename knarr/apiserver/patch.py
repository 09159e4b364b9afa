"""The three patches: JSON Patch (RFC 6902), JSON Merge Patch (RFC 7386), and Kubernetes' strategic merge patch.

All work on plain JSON data and answer new data; what they are given is not changed.
"""

from __future__ import annotations

import copy
from typing import Any, get_args, get_origin, get_type_hints

import msgspec

from knarr.api.decode import plain_json
from knarr.api.errors import APIError, BadRequest, TooLarge
from knarr.api.types import Merge, Struct

OPERATIONS_MAX = 10_000
"""Operations in a JSON Patch."""
GROWTH_MAX_BYTES = 3 << 20
"""What the copies of a JSON Patch may add up to."""


class _Unprocessable(APIError):
    code, reason = 422, "Invalid"


def json_patch(data: Any, body: bytes) -> Any:
    """RFC 6902. A failed `test` or a path that isn't there is a 422."""
    operations = plain_json(body)
    if not isinstance(operations, list) or not all(isinstance(operation, dict) for operation in operations):
        raise BadRequest("a JSON patch must be an array of operations")
    if len(operations) > OPERATIONS_MAX:
        raise TooLarge(
            "Request entity too large: "
            f"The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {len(operations)}"
        )
    data = copy.deepcopy(data)
    grown = 0
    for operation in operations:
        if operation.get("op") == "copy":
            grown += len(msgspec.json.encode(_lookup(data, _pointer(operation, "from"))))
            if grown > GROWTH_MAX_BYTES:
                raise _Unprocessable("the copy operations of the JSON patch make the object too large")
        data = _operate(data, operation)
    return data


def merge_patch(data: Any, patch: Any) -> Any:
    """RFC 7386: null deletes, objects merge, the rest replaces."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(data) if isinstance(data, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def _pointer(operation: dict[str, Any], member: str) -> list[str]:
    pointer = operation.get(member)
    if not isinstance(pointer, str) or (pointer and not pointer.startswith("/")):
        raise BadRequest(f'a JSON patch operation needs "{member}", a JSON pointer')
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]


def _operate(data: Any, operation: dict[str, Any]) -> Any:
    kind = operation.get("op")
    path = _pointer(operation, "path")
    if kind in ("add", "replace", "test") and "value" not in operation:
        raise BadRequest(f'the JSON patch operation "{kind}" needs a value')
    match kind:
        case "add":
            return _add(data, path, operation["value"])
        case "remove":
            return _remove(data, path)
        case "replace":
            _lookup(data, path)
            return _put(data, path, operation["value"])
        case "move":
            source = _pointer(operation, "from")
            value = _lookup(data, source)
            return _add(_remove(data, source), path, value)
        case "copy":
            return _add(data, path, copy.deepcopy(_lookup(data, _pointer(operation, "from"))))
        case "test":
            if _lookup(data, path) != operation["value"]:
                raise _Unprocessable(f"the server rejected our request: testing path {operation['path']} failed")
            return data
    raise BadRequest(f'unknown JSON patch operation "{kind}"')


def _lookup(data: Any, path: list[str]) -> Any:
    for part in path:
        if isinstance(data, dict) and part in data:
            data = data[part]
        elif isinstance(data, list):
            data = data[_index(data, part)]
        else:
            raise _missing(path)
    return data


def _missing(path: list[str]) -> APIError:
    return _Unprocessable(
        f'the server rejected our request due to an error in our request: no value at "/{"/".join(path)}"'
    )


def _index(items: list[Any], part: str, *, end: bool = False) -> int:
    if not part.isdecimal() or len(part) > 9 or int(part) >= len(items) + end:
        raise _Unprocessable(f'the server rejected our request: "{part}" is no index of an array of {len(items)}')
    return int(part)


def _add(data: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    parent = _lookup(data, path[:-1])
    if isinstance(parent, list):
        parent.insert(len(parent) if path[-1] == "-" else _index(parent, path[-1], end=True), value)
    elif isinstance(parent, dict):
        parent[path[-1]] = value
    else:
        raise _missing(path)
    return data


def _put(data: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    parent = _lookup(data, path[:-1])
    if isinstance(parent, list):
        parent[_index(parent, path[-1])] = value
    else:
        parent[path[-1]] = value
    return data


def _remove(data: Any, path: list[str]) -> Any:
    if not path:
        return None
    parent = _lookup(data, path[:-1])
    _lookup(data, path)
    if isinstance(parent, list):
        del parent[_index(parent, path[-1])]
    else:
        del parent[path[-1]]
    return data


# Strategic merge patch: lists with a merge key merge item by item; directives ($patch, $retainKeys,
# $deleteFromPrimitiveList, $setElementOrder) say more. Which list has which key stands in the types, as `Merge`.
# https://github.com/kubernetes/community/blob/master/contributors/devel/sig-api-machinery/strategic-merge-patch.md

_DIRECTIVE = "$patch"
_RETAIN = "$retainKeys"
_DELETE_PRIMITIVE = "$deleteFromPrimitiveList/"
_ORDER = "$setElementOrder/"


def strategic_merge_patch(kind: type[Any], data: Any, patch: Any) -> Any:
    """`data` of a kind with a strategic merge patch applied. Raises BadRequest."""
    if not isinstance(patch, dict):
        raise BadRequest("a strategic merge patch must be an object")
    return _merge_object(kind, data if isinstance(data, dict) else {}, patch)


def _merge_object(kind: Any, data: dict[str, Any], patch: dict[str, Any]) -> Any:
    directive = patch.get(_DIRECTIVE)
    if directive == "replace":
        return {name: value for name, value in patch.items() if name != _DIRECTIVE}
    if directive == "delete":
        return {}
    if directive not in (None, "merge"):
        raise BadRequest(f'unknown value "{directive}" of {_DIRECTIVE}: use replace, merge or delete')
    merged = dict(data)
    if _RETAIN in patch:
        retained = set(_strings(patch[_RETAIN], _RETAIN))
        merged = {name: value for name, value in merged.items() if name in retained}
    fields = _fields(kind)
    for name, value in patch.items():
        if name in (_DIRECTIVE, _RETAIN) or name.startswith(_ORDER):
            continue
        if name.startswith(_DELETE_PRIMITIVE):
            field = name.removeprefix(_DELETE_PRIMITIVE)
            gone = value if isinstance(value, list) else [value]
            merged[field] = [item for item in merged.get(field) or [] if item not in gone]
        elif value is None:
            merged.pop(name, None)
        else:
            field_kind, rule = fields.get(name) or _item_kind(kind)
            order = patch.get(_ORDER + name)
            merged[name] = _merge_value(field_kind, rule, merged.get(name), value, order)
    for name, order in patch.items():
        field = name.removeprefix(_ORDER)
        if name.startswith(_ORDER) and field not in patch and isinstance(merged.get(field), list):
            _, rule = fields.get(field) or (Any, None)
            merged[field] = _ordered(merged[field], order, rule.patch_key if rule else None, set())
    return merged


def _merge_value(kind: Any, rule: Merge | None, old: Any, value: Any, order: Any) -> Any:
    if isinstance(value, dict):
        if rule and "retainKeys" in rule.strategy and "merge" not in rule.strategy and _RETAIN not in value:
            return _merge_object(kind, old if isinstance(old, dict) else {}, value)
        return _merge_object(kind, old if isinstance(old, dict) else {}, value)
    if isinstance(value, list) and rule and "merge" in rule.strategy:
        items = old if isinstance(old, list) else []
        if rule.patch_key:
            return _merge_list(get_args(kind)[0], rule.patch_key, items, value, order)
        merged = items + [item for item in value if item not in items]
        return _ordered(merged, order, None, set()) if order is not None else merged
    if isinstance(value, list):
        return [item for item in value if not (isinstance(item, dict) and item.get(_DIRECTIVE) == "replace")]
    return value


def _merge_list(kind: Any, key: str, old: list[Any], patch: list[Any], order: Any) -> list[Any]:
    """Lists of objects, merged by the value of `key`."""
    if any(isinstance(item, dict) and item.get(_DIRECTIVE) == "replace" and key not in item for item in patch):
        return [item for item in patch if _DIRECTIVE not in item]
    merged = list(old)
    added: set[Any] = set()
    for item in patch:
        if not isinstance(item, dict) or key not in item:
            raise BadRequest(f"map: {item} does not contain declared merge key: {key}")
        if not _is_scalar(item[key]):
            raise BadRequest(f"map: {item}: the merge key {key} must be a string or a number")
        place = next((i for i, there in enumerate(merged) if there.get(key) == item[key]), None)
        if item.get(_DIRECTIVE) == "delete":
            merged = [there for there in merged if there.get(key) != item[key]]
        elif place is not None:
            merged[place] = _merge_object(kind, merged[place], item)
        else:
            added.add(item[key])
            merged.append(_merge_object(kind, {}, item))
    return _ordered(merged, order, key, added) if order is not None else merged


def _ordered(items: list[Any], order: Any, key: str | None, added: set[Any]) -> list[Any]:
    """`items` with those that `order` names in its order; the others keep their place before what followed them."""
    if not isinstance(order, list):
        raise BadRequest(f"{_ORDER} needs a list")
    wanted = [item.get(key) if key and isinstance(item, dict) else item for item in order]
    if not all(_is_scalar(value) for value in wanted):
        raise BadRequest(f"{_ORDER} needs a list of names")
    rank = {value: position for position, value in enumerate(wanted)}

    def name(item: Any) -> Any:
        return item.get(key) if key else item

    named = sorted((item for item in items if name(item) in rank), key=lambda item: rank[name(item)])
    result: list[Any] = []
    rest = [(index, item) for index, item in enumerate(items) if name(item) not in rank]
    places = {id(item): index for index, item in enumerate(items)}
    for item in named:
        while rest and name(item) not in added and rest[0][0] < places[id(item)]:
            result.append(rest.pop(0)[1])
        result.append(item)
    return result + [item for _, item in rest]


def _is_scalar(value: Any) -> bool:
    return not isinstance(value, (dict, list))


def _strings(value: Any, what: str) -> list[str]:
    if not isinstance(value, list):
        raise BadRequest(f"{what} needs a list of names")
    return [name for name in value if isinstance(name, str)]


_known: dict[Any, dict[str, tuple[Any, Merge | None]]] = {}


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


def _item_kind(kind: Any) -> tuple[Any, Merge | None]:
    """Of a map's values."""
    return _unwrap(get_args(kind)[1]) if get_origin(kind) is dict else (Any, None)


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
