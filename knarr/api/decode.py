"""From the body of a request to a typed object.

The fast way is one call: msgspec decodes JSON straight into the Struct of the kind, and refuses unknown fields and
wrong types. Only a body that it refuses is looked at again, slowly: nulls count as absent (as in Go), unknown and
duplicate fields are collected as `fieldValidation` wants it, and what is still wrong is a 400 with upstream's wording.
"""

from __future__ import annotations

import functools
import json
import re
from typing import Any, NoReturn, TypeVar, cast, get_args, get_origin, get_type_hints

import msgspec
import yaml

from knarr.api.errors import BadRequest
from knarr.api.types import Struct

T = TypeVar("T")

NESTING_MAX = 500
"""Objects in objects; deeper ones are refused."""
YAML_NODES_MAX = 200_000
"""Nodes that a YAML document may have once its aliases are expanded."""


def decode(kind: type[T], body: bytes, *, yaml_body: bool = False, validation: str = "Warn") -> tuple[T, list[str]]:
    """The object in `body`, and warnings. `validation` is Strict, Warn or Ignore. Raises BadRequest."""
    if yaml_body:
        return convert(kind, _from_yaml(body), validation=validation)
    if not body:
        raise BadRequest("the object provided is unrecognized: the body of the request was empty")
    try:
        obj = decoder(kind).decode(body)
    except (msgspec.ValidationError, msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        data = plain_json(body)
        return convert(kind, data, duplicate_fields(body), validation=validation)
    duplicates = duplicate_fields(body) if validation != "Ignore" else []
    if duplicates:
        return obj, _unwelcome(kind, duplicates, validation)
    return obj, []


def convert(
    kind: type[T], data: Any, duplicates: list[str] | None = None, *, validation: str = "Warn"
) -> tuple[T, list[str]]:
    """A typed object from plain JSON data (of a patch, of YAML), and warnings. Raises BadRequest."""
    faults = list(duplicates or ())
    try:
        pruned = _prune(kind, data, "", faults, 0)
    except RecursionError:
        raise BadRequest("the object is nested too deeply") from None
    warnings = _unwelcome(kind, faults, validation) if faults else []
    try:
        return msgspec.convert(pruned, kind), warnings
    except msgspec.ValidationError as error:
        _refuse(kind, error)


_decoders: dict[type[Any], msgspec.json.Decoder[Any]] = {}


def decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    """The decoder of a type, made once."""
    if kind not in _decoders:
        _decoders[kind] = msgspec.json.Decoder(kind)
    return _decoders[kind]


def plain_json(body: bytes) -> Any:
    """Any JSON, as plain data. Raises BadRequest."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, ValueError) as error:
        raise BadRequest(f"couldn't get version/kind; json parse error: {error}") from None


def plain_yaml(body: bytes) -> Any:
    """Any YAML, as plain data. Raises BadRequest."""
    return _from_yaml(body)


def _unwelcome(kind: type[Any], faults: list[str], validation: str) -> list[str]:
    """Unknown and duplicate fields: an error, warnings, or nothing."""
    if validation == "Ignore":
        return []
    if validation == "Strict":
        raise BadRequest(f"{_subject(kind)}: strict decoding error: {', '.join(faults)}")
    return faults


def _subject(kind: type[Any]) -> str:
    version = _zero(cast(Any, kind), "api_version").rpartition("/")[2]
    return f'{kind.__name__} in version "{version}" cannot be handled as a {kind.__name__}'


@functools.cache
def _zero(kind: Any, field: str) -> str:
    for info in msgspec.structs.fields(kind):
        if info.name == field and info.default_factory is not msgspec.NODEFAULT:
            return str(cast(Any, info.default_factory)())
    return ""


_PATH = re.compile(r" - at `(.*)`$")
_GOT = re.compile(r"Expected `(.+?)`, got `(.+?)`")
_GO_NAMES = {"str": "string", "int": "number", "float": "number", "object": "object", "array": "array", "bool": "bool"}
_GO_TYPES = {"str": "string", "int": "int64", "bool": "bool", "object": "map", "array": "slice", "float": "float64"}


def _refuse(kind: type[Any], error: msgspec.ValidationError) -> NoReturn:
    text = str(error)
    found = _PATH.search(text)
    path = found.group(1).removeprefix("$").lstrip(".") if found else ""
    got = _GOT.match(text)
    if not got:
        raise BadRequest(f"{_subject(kind)}: json: cannot decode field {path}: {_PATH.sub('', text)}") from None
    wanted, came = got.groups()
    came = _GO_NAMES.get(came, came)
    wanted = _GO_TYPES.get(wanted.split(" ")[0], wanted)
    field = f"Go struct field {kind.__name__}.{path}" if path else "Go value"
    raise BadRequest(f"{_subject(kind)}: json: cannot unmarshal {came} into {field} of type {wanted}") from None


@functools.cache
def _shape(kind: Any) -> dict[str, Any]:
    """JSON name → type of each field, for a Struct."""
    hints = get_type_hints(kind)
    return {info.encode_name: hints[info.name] for info in msgspec.structs.fields(kind)}


def _prune(kind: Any, data: Any, path: str, faults: list[str], depth: int) -> Any:
    """`data` without nulls and without what `kind` doesn't know; the latter is noted in `faults`."""
    if depth > NESTING_MAX:
        raise BadRequest("the object is nested too deeply")
    kind = _present_type(kind)
    if isinstance(data, dict):
        if isinstance(kind, type) and issubclass(kind, Struct):
            shape = _shape(kind)
            kept = {}
            for name, value in data.items():
                where = f"{path}.{name}" if path else name
                if name not in shape:
                    faults.append(f'unknown field "{where}"')
                elif value is not None:
                    kept[name] = _prune(shape[name], value, where, faults, depth + 1)
            return kept
        if get_origin(kind) is dict:
            item = get_args(kind)[1]
            if item is Any:
                return data
            return {
                name: _prune(item, value, f"{path}.{name}", faults, depth + 1)
                for name, value in data.items()
                if value is not None
            }
        return data
    if isinstance(data, list) and get_origin(kind) is list:
        item = get_args(kind)[0]
        return [_prune(item, value, f"{path}[{index}]", faults, depth + 1) for index, value in enumerate(data)]
    return data


@functools.cache
def _present_type(kind: Any) -> Any:
    """T of `T | None` and of Annotated[T, …]."""
    origin = get_origin(kind)
    if hasattr(kind, "__metadata__"):
        return _present_type(kind.__origin__)
    arguments = get_args(kind)
    if origin is not None and type(None) in arguments:
        rest = [argument for argument in arguments if argument is not type(None)]
        return _present_type(rest[0]) if len(rest) == 1 else kind
    return kind


def duplicate_fields(body: bytes) -> list[str]:
    """The fields that stand twice in an object of a JSON body, as warnings. Cheap when there is none.

    Every key makes one quote-colon pair, and duplicates vanish in decoding: when the decoded data has as many keys as
    the text can have at most, none was lost, and the slow way is not needed.
    """
    data = msgspec.json.decode(body)
    if _count_keys(data) >= len(_KEY.findall(body)):
        return []
    found: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        for name, value in items:
            if name in seen:
                found.append(f'duplicate field "{name}"')
            seen[name] = value
        return seen

    json.loads(body, object_pairs_hook=pairs)
    return found


_KEY = re.compile(rb'"\s*:')


def _count_keys(data: Any) -> int:
    if isinstance(data, dict):
        return len(data) + sum(_count_keys(value) for value in data.values() if isinstance(value, (dict, list)))
    return sum(_count_keys(value) for value in data if isinstance(value, (dict, list)))


def _from_yaml(body: bytes) -> Any:
    try:
        text = body.decode("utf-8")
        loader = yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader
        node = yaml.compose(text, loader)
        _check_size(node)
        # Timestamps and the like must stay strings, as JSON has no such types: sigs.k8s.io/yaml does the same.
        return _yaml_data(node)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise BadRequest(f"error converting YAML to JSON: {error}") from None


def _check_size(node: Any) -> None:
    """Refuse documents whose aliases expand beyond bounds, without expanding them."""
    sizes: dict[int, int] = {}
    active: set[int] = set()

    def size(part: Any) -> int:
        if id(part) in sizes:
            return sizes[id(part)]
        if id(part) in active:
            raise ValueError("an alias refers to itself")
        active.add(id(part))
        total = 1
        if isinstance(part, yaml.MappingNode):
            total += sum(size(key) + size(value) for key, value in part.value)
        elif isinstance(part, yaml.SequenceNode):
            total += sum(size(item) for item in part.value)
        active.discard(id(part))
        if total > YAML_NODES_MAX:
            raise ValueError("the document is too large once its aliases are expanded")
        sizes[id(part)] = total
        return total

    if node is not None:
        size(node)


def _yaml_data(node: Any) -> Any:
    if node is None:
        return None
    if isinstance(node, yaml.MappingNode):
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            if key in data:
                raise ValueError(f'key "{key}" already set in map')
            data[key] = _yaml_data(value_node)
        return data
    if isinstance(node, yaml.SequenceNode):
        return [_yaml_data(item) for item in node.value]
    return _yaml_scalar(node.tag, node.value)


def _yaml_scalar(tag: str, text: str) -> Any:
    kind = tag.rpartition(":")[2]
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() in ("true", "yes", "on")
    if kind == "int":
        try:
            return int(text.replace("_", ""), 0)
        except ValueError:
            return int(text.replace("_", ""), 8) if text.startswith("0") else text
    if kind == "float":
        try:
            return float(text.replace("_", ""))
        except ValueError:
            return text
    return text
