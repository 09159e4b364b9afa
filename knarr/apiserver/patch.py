"""JSON Patch (RFC 6902) and JSON Merge Patch (RFC 7386), on plain data; what they are given is not changed.

Where RFC 6902 leaves room, and in two places where it doesn't, upstream's library decides (evanphx/json-patch v4):
indexes may count from the end (-1), and `replace` of a name that isn't there adds it.
"""

from __future__ import annotations

import copy
from typing import Any

import msgspec

from knarr.api.errors import APIError, BadRequest, TooLarge

OPERATIONS_MAX = 10_000
"""Operations in a JSON Patch."""
GROWTH_MAX_BYTES = 3 << 20
"""What the copies of a JSON Patch may add up to."""
INDEX_DIGITS_MAX = 9
MEMBERS = ("op", "path", "from", "value")


class Unprocessable(APIError):
    """A patch that can't be applied to the object as it is. Upstream says no more than this."""

    code, reason = 422, "Invalid"

    def __init__(self, why: str) -> None:
        super().__init__("the server rejected our request due to an error in our request")
        self.why = why
        """For whoever debugs: it doesn't go out."""


def checked_operations(operations: Any) -> list[dict[str, Any]]:
    """Raises BadRequest for what is no list of operations, TooLarge for too many."""
    wrong = None
    if not isinstance(operations, list):
        wrong = _json_kind(operations), "[]handlers.jsonPatchOp"
    else:
        other = [operation for operation in operations if not isinstance(operation, dict)]
        if other:
            wrong = _json_kind(other[0]), "handlers.jsonPatchOp"
        for operation in operations if not other else ():
            for member in ("op", "path", "from"):
                value = operation.get(member)
                if value is not None and not isinstance(value, str):
                    raise BadRequest(
                        f"error decoding patch: json: cannot unmarshal {_json_kind(value)} into Go struct field "
                        f"jsonPatchOp.{member} of type string"
                    )
    if wrong:
        raise BadRequest(f"error decoding patch: json: cannot unmarshal {wrong[0]} into Go value of type {wrong[1]}")
    if len(operations) > OPERATIONS_MAX:
        count = f"{OPERATIONS_MAX}, got {len(operations)}"
        raise TooLarge("Request entity too large: The allowed maximum operations in a JSON patch is " + count)
    return operations  # type: ignore[no-any-return]


def _json_kind(value: Any) -> str:
    kinds = {bool: "bool", str: "string", dict: "object", list: "array", type(None): "null"}
    return kinds.get(type(value), "number")


def unknown_members(operations: list[dict[str, Any]]) -> list[str]:
    """What of the operations nobody reads, as fieldValidation tells it."""
    return [
        f'json patch unknown field "[{place}].{name}"'
        for place, operation in enumerate(operations)
        for name in operation
        if name not in MEMBERS
    ]


def json_patch(data: Any, operations: list[dict[str, Any]]) -> Any:
    """RFC 6902. Raises Unprocessable for an operation that can't be done, and a `test` that fails."""
    data = copy.deepcopy(data)
    grown = 0
    for operation in operations:
        match operation.get("op"):
            case "add":
                data = _add(data, _pointer(operation, "path"), copy.deepcopy(operation.get("value")))
            case "remove":
                data, _ = _removed(data, _pointer(operation, "path"))
            case "replace":
                data = _replace(data, _pointer(operation, "path"), copy.deepcopy(operation.get("value")))
            case "move":
                data, value = _removed(data, _pointer(operation, "from"))
                data = _add(data, _pointer(operation, "path"), value)
            case "copy":
                value = _found(data, _pointer(operation, "from"))
                grown += len(msgspec.json.encode(value))
                if grown > GROWTH_MAX_BYTES:
                    raise Unprocessable("the copies make the object too large")
                data = _add(data, _pointer(operation, "path"), copy.deepcopy(value))
            case "test":
                _test(data, _pointer(operation, "path"), operation.get("value"))
            case other:
                raise Unprocessable(f"unexpected kind: {other}")
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
    """RFC 6901."""
    pointer = operation.get(member)
    if pointer is None or (pointer and not pointer.startswith("/")):
        raise Unprocessable(f"the operation needs {member}, a JSON pointer")
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]


def _parent(data: Any, path: list[str]) -> Any:
    """The object or array that the last step of a path leads into."""
    if not path:
        raise Unprocessable("the whole object can only be tested and replaced")
    for part in path[:-1]:
        data = _step(data, part)
    if not isinstance(data, (dict, list)):
        raise Unprocessable(f"nothing can be at /{'/'.join(path)}")
    return data


def _step(data: Any, part: str) -> Any:
    if isinstance(data, dict) and part in data:
        return data[part]
    if isinstance(data, list):
        return data[_index(data, part)]
    raise Unprocessable(f"there is no {part}")


def _index(items: list[Any], part: str, *, end: int = 0) -> int:
    """A place in `items`, or with `end` right after them; -1 is the last of these."""
    digits = part[1:] if part[:1] in ("-", "+") else part
    if not (digits.isascii() and digits.isdecimal()) or len(digits) > INDEX_DIGITS_MAX:
        raise Unprocessable(f"{part} is no index")
    index, size = int(part), len(items) + end
    if not -size <= index < size:
        raise Unprocessable(f"there is no index {part}")
    return index % size


def _found(data: Any, path: list[str]) -> Any:
    """What is at a path; None where an object has no such name."""
    parent = _parent(data, path)
    return parent.get(path[-1]) if isinstance(parent, dict) else parent[_index(parent, path[-1])]


def _add(data: Any, path: list[str], value: Any) -> Any:
    parent = _parent(data, path)
    if isinstance(parent, dict):
        parent[path[-1]] = value
    else:
        parent.insert(len(parent) if path[-1] == "-" else _index(parent, path[-1], end=1), value)
    return data


def _replace(data: Any, path: list[str], value: Any) -> Any:
    if not path:
        if not isinstance(value, (dict, list)):
            raise Unprocessable("the whole object must be an object or an array")
        return value
    parent = _parent(data, path)
    if isinstance(parent, dict):
        parent[path[-1]] = value
    else:
        parent[_index(parent, path[-1])] = value
    return data


def _removed(data: Any, path: list[str]) -> tuple[Any, Any]:
    """`data` without what is at a path, and that."""
    parent = _parent(data, path)
    if isinstance(parent, list):
        return data, parent.pop(_index(parent, path[-1]))
    if path[-1] not in parent:
        raise Unprocessable(f"there is no {path[-1]} to be removed")
    return data, parent.pop(path[-1])


def _test(data: Any, path: list[str], value: Any) -> None:
    found = _found(data, path) if path else data
    # As texts: true is not 1, and 1 not 1.0.
    if msgspec.json.encode(found, order="sorted") != msgspec.json.encode(value, order="sorted"):
        raise Unprocessable(f"testing /{'/'.join(path)} failed")
