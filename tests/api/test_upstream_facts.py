"""The types against upstream's own facts: every field of a kind round-trips, and swagger.json knows no other fields."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
import pytest

from knarr.api.decode import decode
from knarr.api.registry import built_in
from knarr.api.resources import Resource
from knarr.api.types import Struct

FACTS = Path("/work/shared/upstream-1.36")
RESOURCES = list(built_in())

pytestmark = pytest.mark.skipif(not FACTS.is_dir(), reason="upstream's facts are not on this machine")


def file_of(resource: Resource) -> Path:
    return FACTS / "roundtrip" / f"{resource.group or 'core'}.{resource.version}.{resource.kind}.json"


def without_nothing(value: Any) -> Any:
    """Without nulls, and times and quantities in one spelling each."""
    if isinstance(value, dict):
        return {key: without_nothing(part) for key, part in value.items() if part is not None}
    if isinstance(value, list):
        return [without_nothing(part) for part in value]
    return value


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.kind)
def test_every_field_of_a_kind_survives_the_round_trip(resource: Resource) -> None:
    body = file_of(resource).read_bytes()
    obj, warnings = decode(resource.type, body, validation="Strict")
    assert warnings == []
    assert without_nothing(json.loads(msgspec.json.encode(obj))) == without_nothing(json.loads(body))


DEFINITIONS: dict[str, Any] = json.loads((FACTS / "swagger.json").read_bytes())["definitions"] if FACTS.is_dir() else {}


def structs_of(kind: Any, found: set[type[Struct]]) -> set[type[Struct]]:
    """All structs that `kind` is made of."""
    if isinstance(kind, type) and issubclass(kind, Struct):
        if kind not in found:
            found.add(kind)
            for hint in get_type_hints(kind).values():
                structs_of(hint, found)
    else:
        for argument in get_args(kind):
            structs_of(argument, found)
    return found


STRUCTS = sorted(
    set().union(*(structs_of(resource.type, set()) for resource in RESOURCES)),
    key=lambda struct: (struct.__module__, struct.__name__),
)


def definition_of(struct: type[Struct]) -> dict[str, Any] | None:
    group, version = struct.__module__.removeprefix("knarr.api.").split(".")
    for name, definition in DEFINITIONS.items():
        parts = name.split(".")
        if parts[-1] == struct.__name__ and parts[-2] == version and parts[-3] == group:
            return definition
    return None


def json_type(hint: Any) -> set[str]:
    """The JSON types that a field takes."""
    origin = get_origin(hint)
    if hasattr(hint, "__metadata__"):
        return json_type(hint.__origin__)
    if origin is list:
        return {"array"}
    if origin is dict or (isinstance(hint, type) and issubclass(hint, Struct)):
        return {"object"}
    if get_args(hint):
        return set().union(*(json_type(each) for each in get_args(hint) if each is not type(None)))
    return {str: {"string"}, int: {"integer"}, bool: {"boolean"}, float: {"number"}, Any: {"any"}}.get(hint, {"string"})


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: f"{struct.__module__.split('.')[-2]}.{struct.__name__}")
def test_a_struct_has_the_fields_that_swagger_knows(struct: type[Struct]) -> None:
    definition = definition_of(struct)
    assert definition is not None, f"{struct} is not in swagger.json"
    properties = definition.get("properties", {})
    hints = get_type_hints(struct)
    fields = {info.encode_name: hints[info.name] for info in msgspec.structs.fields(struct)}
    assert set(fields) == set(properties)
    for name, found in properties.items():
        wanted = found.get("type")
        if wanted is None:
            reference = DEFINITIONS[found["$ref"].removeprefix("#/definitions/")]
            wanted = reference.get("type")
        types = json_type(fields[name])
        assert wanted is None or wanted in types or types & {"any"}, f"{name}: {wanted}, not {types}"
