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

from knarr.api.errors import BadRequest
from knarr.api.types import Struct

T = TypeVar("T")

NESTING_MAX = 500
"""Objects in objects; deeper ones are refused."""


def decode(kind: type[T], body: bytes, *, yaml_body: bool = False, validation: str = "Warn") -> tuple[T, list[str]]:
    """The object in `body`, and warnings. `validation` is Strict, Warn or Ignore. Raises BadRequest."""
    if yaml_body:
        return convert(kind, plain_yaml(body), validation=validation)
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
    from knarr.api.yaml_text import parse  # Clients of the API seldom speak YAML: not loaded before one does.

    try:
        return parse(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"error converting YAML to JSON: {error}") from None


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
            if item is str:
                # Go reads null as the empty word.
                return {name: "" if value is None else value for name, value in data.items()}
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
    if _count_keys(msgspec.json.decode(body)) >= len(_KEY.findall(body)):
        return []
    try:
        # Numbers don't matter here, and the longest of them are slow to read.
        data = json.loads(body, object_pairs_hook=_Fields, parse_int=len, parse_float=len)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"couldn't get version/kind; json parse error: {error}") from None
    found: list[str] = []
    rest: list[tuple[str, Any]] = [("", data)]
    while rest:
        path, value = rest.pop()
        if isinstance(value, list):
            rest += [
                (f"{path}[{index}]", part) for index, part in enumerate(value) if isinstance(part, (list, _Fields))
            ]
        elif isinstance(value, _Fields):
            dot = f"{path}." if path else ""
            found += [f'duplicate field "{dot}{name}"' for name in value.twice]
            rest += [(dot + name, part) for name, part in value.items() if isinstance(part, (list, _Fields))]
    return found


class _Fields(dict[str, Any]):
    """An object of JSON that remembers which of its fields stood in it twice."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.twice: list[str] = []
        if len(self) < len(pairs):
            seen: set[str] = set()
            for name, _ in pairs:
                if name in seen and name not in self.twice:
                    self.twice.append(name)
                seen.add(name)


_KEY = re.compile(rb'"\s*:')


def _count_keys(data: Any) -> int:
    count = 0
    rest = [data]
    while rest:
        part = rest.pop()
        if isinstance(part, dict):
            count += len(part)
            part = part.values()
        elif not isinstance(part, list):
            continue
        rest += [value for value in part if isinstance(value, (dict, list))]
    return count
