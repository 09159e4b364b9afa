"""From the body of a request to a typed object.

The fast way is one call: msgspec decodes JSON straight into the Struct of the kind, and refuses unknown fields and
wrong types. Only a body that it refuses is looked at again, slowly: nulls count as absent (as in Go), unknown and
duplicate fields are collected as `fieldValidation` wants it, and what is still wrong is a 400 with upstream's wording.
Whatever is in the body, the answer is an object or a BadRequest.
"""

from __future__ import annotations

import functools
import json
import re
from typing import Any, NoReturn, TypeVar, cast, get_args, get_origin, get_type_hints

import msgspec

from knarr.api.errors import BadRequest
from knarr.api.quantity import quantity_fault
from knarr.api.types import IntOrString, Quantity, RawJSON, Struct

T = TypeVar("T")

NESTING_MAX = 250
"""Values in values: what recursive code can walk within Python's limit of 1,000 frames."""
FAULTS_MAX = 100
"""Unknown and duplicate fields that one answer names; upstream stops there too."""


def decode(kind: type[T], body: bytes, *, yaml_body: bool = False, validation: str = "Warn") -> tuple[T, list[str]]:
    """The object in `body`, and warnings. `validation` is Strict, Warn or Ignore. Raises BadRequest."""
    if yaml_body:
        data, faults = _yaml(body)
        warnings = _unwelcome(kind, faults, validation)
        obj, more = convert(kind, data, validation=validation)
        return obj, warnings + more
    try:
        obj = decoder(kind).decode(body)
    except (msgspec.DecodeError, RecursionError, ValueError):
        return _decode_slowly(kind, body, validation)
    if validation == "Ignore" and body.count(b"{") + body.count(b"[") <= NESTING_MAX:
        return obj, []
    data = plain_json(body)
    if validation == "Ignore" or _has_all_keys(data, body):
        return obj, []
    return obj, _unwelcome(kind, _unwanted_fields(kind, body), validation)


def _decode_slowly(kind: type[T], body: bytes, validation: str) -> tuple[T, list[str]]:
    data = plain_json(body)
    if validation == "Ignore" or _has_all_keys(data, body):
        return convert(kind, data, validation=validation)
    warnings = _unwelcome(kind, _unwanted_fields(kind, body), validation)
    return convert(kind, data, validation="Ignore")[0], warnings


def convert(kind: type[T], data: Any, *, validation: str = "Warn") -> tuple[T, list[str]]:
    """A typed object from plain JSON data (of a patch, of YAML), and warnings. Raises BadRequest."""
    _check_nesting(data)
    faults: list[str] = []
    pruned = _prune(kind, data, "", faults, {})
    warnings = _unwelcome(kind, faults, validation)
    try:
        return msgspec.convert(pruned, kind), warnings
    except msgspec.ValidationError as error:
        _refuse(kind, error, pruned)
    except (ValueError, UnicodeError, OverflowError) as error:
        raise BadRequest(f"{_subject(kind)}: {error}") from None


_decoders: dict[type[Any], msgspec.json.Decoder[Any]] = {}


def decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    """The decoder of a type, made once."""
    if kind not in _decoders:
        _decoders[kind] = msgspec.json.Decoder(kind)
    return _decoders[kind]


def plain_json(body: bytes) -> Any:
    """Any JSON, as plain data. Raises BadRequest."""
    try:
        data = msgspec.json.decode(body)
    except RecursionError:
        raise BadRequest(f"json parse error: values are nested more than {NESTING_MAX} deep") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise BadRequest(f"couldn't get version/kind; json parse error: {error}") from None
    if body.count(b"{") + body.count(b"[") > NESTING_MAX:
        _check_nesting(data)
    return data


def plain_yaml(body: bytes) -> Any:
    """Any YAML, as plain data. Raises BadRequest."""
    return _yaml(body)[0]


def _yaml(body: bytes) -> tuple[Any, list[str]]:
    """YAML as plain data, and the keys that stand twice."""
    from knarr.api.yaml_text import YAMLFault, parse_yaml  # few requests are YAML: not loaded before the first

    try:
        return parse_yaml(body)
    except YAMLFault as fault:
        raise BadRequest(f"error converting YAML to JSON: {fault}") from None


def _check_nesting(data: Any) -> None:
    """Level by level, without recursion."""
    level, depth = [data], 0
    while level:
        depth += 1
        if depth > NESTING_MAX:
            raise BadRequest(f"json parse error: values are nested more than {NESTING_MAX} deep")
        level = [
            value
            for part in level
            if isinstance(part, (dict, list))
            for value in (part.values() if isinstance(part, dict) else part)
            if isinstance(value, (dict, list))
        ]


def _has_all_keys(data: Any, body: bytes) -> bool:
    """Whether no key of an object in `body` stands twice: exact when False may be wrong, and cheap.

    The end of each key is a quote and a colon, and duplicates vanish in decoding. So what was decoded, written again,
    has fewer of these than the body when a key was lost, and just as many when none was: texts in strings that look
    like the end of a key are written as they came, unless the body says its characters by number or puts space before
    its colons. Then, keys are counted one by one.
    """
    if b"\\u" not in body and not _SPACED_COLON.search(body):
        return msgspec.json.encode(data).count(b'":') >= body.count(b'":')
    keys, level = 0, [data]
    while level:
        following: list[Any] = []
        for part in level:
            if isinstance(part, dict):
                keys += len(part)
                following += [value for value in part.values() if isinstance(value, (dict, list))]
            elif isinstance(part, list):
                following += [value for value in part if isinstance(value, (dict, list))]
        level = following
    return keys >= len(_KEY_END.findall(body))


_SPACED_COLON = re.compile(rb'"\s+:')
_KEY_END = re.compile(rb'(?:(?<!\\)|\\\\)"\s*:')
"""A quote that nothing escapes (an even number of backslashes escapes itself), and a colon."""


def _unwanted_fields(kind: type[Any], body: bytes) -> list[str]:
    """Unknown and duplicate fields, in the order of the text."""
    texts: dict[int, tuple[Any, list[str]]] = {}

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(items)
        if len(made) < len(items):
            # The object is kept beside its keys, so that no other can get its id.
            texts[id(made)] = made, [name for name, _ in items]
        return made

    data = json.loads(body, object_pairs_hook=pairs)
    faults: list[str] = []
    _prune(kind, data, "", faults, {key: names for key, (_, names) in texts.items()})
    return faults


def duplicate_fields(data: Any, body: bytes) -> list[str]:
    """Fields that stand twice in any JSON, `data` when decoded (a patch): `duplicate field "spec.a[0].b"`."""
    if _has_all_keys(data, body):
        return []
    faults: list[str] = []
    repeated: dict[int, tuple[Any, list[str]]] = {}

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(items)
        if len(made) < len(items):
            last = {name: place for place, (name, _) in enumerate(items)}
            twice = dict.fromkeys(name for place, (name, _) in enumerate(items) if last[name] != place)
            repeated[id(made)] = made, list(twice)
        return made

    level: list[tuple[str, Any]] = [("", json.loads(body, object_pairs_hook=pairs))]
    while level:
        following: list[tuple[str, Any]] = []
        for path, part in level:
            if isinstance(part, dict):
                prefix = f"{path}." if path else ""
                faults += [f'duplicate field "{prefix}{name}"' for name in repeated.get(id(part), (part, []))[1]]
                following += [(prefix + name, value) for name, value in part.items()]
            elif isinstance(part, list):
                following += [(f"{path}[{place}]", value) for place, value in enumerate(part)]
        level = following
    return faults[:FAULTS_MAX]


def _unwelcome(kind: type[Any], faults: list[str], validation: str) -> list[str]:
    """Unknown and duplicate fields: an error, warnings, or nothing."""
    if validation == "Ignore" or not faults:
        return []
    faults = list(dict.fromkeys(faults))[:FAULTS_MAX]
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


# What a wrong type is called, as Go's decoder says it

_PATH = re.compile(r" - at `(.*)`\Z")
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")


def _refuse(kind: type[Any], error: msgspec.ValidationError, data: Any) -> NoReturn:
    text = str(error)
    found = _PATH.search(text)
    names: list[str] = []
    owner, wanted, value = cast(Any, kind), cast(Any, kind), data
    for name, index in _STEP.findall(found.group(1) if found else ""):
        wanted = _present_type(wanted)
        if name:
            names.append(name)
            owner, wanted = wanted, _shape(wanted).get(name, Any)
            value = value.get(name) if isinstance(value, dict) else None
        else:
            wanted = get_args(wanted)[-1]
            if index != "...":
                value = value[int(index)] if isinstance(value, list) else None
            else:
                value = _first_wrong(value, wanted)
    raise BadRequest(f"{_subject(kind)}: {_complaint(owner, '.'.join(names), wanted, value)}") from None


def _first_wrong(values: Any, wanted: Any) -> Any:
    for value in values.values() if isinstance(values, dict) else ():
        try:
            msgspec.convert(value, wanted)
        except (msgspec.ValidationError, ValueError):
            return value
    return None


def _complaint(owner: Any, path: str, wanted: Any, value: Any) -> str:
    go_name = _go_name(wanted)
    if go_name == "resource.Quantity":
        return quantity_fault(value)
    if go_name == "v1.Time" and isinstance(value, str):
        return f'parsing time "{value}" as "2006-01-02T15:04:05Z07:00": cannot parse "{value}" as "2006"'
    if go_name == "[]uint8" and isinstance(value, str):
        return "illegal base64 data at input byte 0"
    came = _json_name(value, number=go_name.startswith("int"))
    place = f"Go struct field {owner.__name__}.{path}" if path else "Go value"
    return f"json: cannot unmarshal {came} into {place} of type {go_name}"


def _json_name(value: Any, *, number: bool) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, float)):
        return f"number {str(value)[:40]}" if number else "number"
    if isinstance(value, str):
        return "string"
    if isinstance(value, dict):
        return "object"
    return "array" if isinstance(value, list) else "null"


_SCALARS = {"str": "string", "bool": "bool", "float": "float64", "bytes": "[]uint8", "datetime": "v1.Time"}


def _go_name(kind: Any) -> str:
    notes = getattr(_not_none(kind), "__metadata__", ())
    kind = _present_type(kind)
    if kind == Quantity:
        return "resource.Quantity"
    if kind == IntOrString:
        return "intstr.IntOrString"
    if get_origin(kind) is list:
        return f"[]{_go_name(get_args(kind)[0])}"
    if get_origin(kind) is dict:
        return f"map[string]{_go_name(get_args(kind)[1])}"
    if kind is int:
        return "int32" if notes and notes[0].le == 2**31 - 1 else "int64"
    if isinstance(kind, type) and issubclass(kind, Struct):
        return f"v1.{kind.__name__}"
    return _SCALARS.get(getattr(kind, "__name__", ""), "interface {}")


# Types


@functools.cache
def _shape(kind: Any) -> dict[str, Any]:
    """JSON name → type of each field, for a Struct."""
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return {}
    hints = get_type_hints(kind, include_extras=True)
    return {info.encode_name: hints[info.name] for info in msgspec.structs.fields(kind)}


def _prune(kind: Any, data: Any, path: str, faults: list[str], texts: dict[int, list[str]]) -> Any:
    """`data` without nulls and without what `kind` doesn't know; the latter, and duplicates, go to `faults`.

    `texts` has the keys of the objects in which some stand twice, as they stand there. Its depth is that of `data`,
    which was checked.
    """
    kind = _present_type(kind)
    if kind is RawJSON:
        return RawJSON(msgspec.json.encode(data))
    if isinstance(data, dict):
        prefix = f"{path}." if path else ""
        typed = isinstance(kind, type) and issubclass(kind, Struct)
        if not typed and get_origin(kind) is not dict:
            return data
        shape = _shape(kind) if typed else {}
        item = Any if typed else get_args(kind)[1]
        kept: dict[str, Any] = {}
        seen: set[str] = set()
        for name in texts.get(id(data), data):
            if typed and name not in shape:
                faults.append(f'unknown field "{prefix}{name}"')
                continue
            if name in seen:
                faults.append(f'duplicate field "{prefix}{name}"')
                continue
            seen.add(name)
            value = data[name]
            if not typed:
                # A null in a map is its type's zero value, as in Go; of the maps that there are, most hold text.
                value = "" if value is None and item is str else value
                kept[name] = _prune(item, value, prefix + name, faults, texts)
            elif value is not None:
                kept[name] = _prune(shape[name], value, prefix + name, faults, texts)
        return kept
    if isinstance(data, list) and get_origin(kind) is list:
        item = get_args(kind)[0]
        return [_prune(item, value, f"{path}[{index}]", faults, texts) for index, value in enumerate(data)]
    return data


@functools.cache
def _present_type(kind: Any) -> Any:
    """T of `T | None` and of Annotated[T, …]."""
    kind = _not_none(kind)
    return _present_type(kind.__origin__) if hasattr(kind, "__metadata__") else kind


def _not_none(kind: Any) -> Any:
    """T of `T | None`."""
    arguments = get_args(kind)
    if hasattr(kind, "__metadata__") or type(None) not in arguments:
        return kind
    return functools.reduce(lambda left, right: left | right, (each for each in arguments if each is not type(None)))
