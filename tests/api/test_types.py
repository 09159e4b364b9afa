"""The types against upstream's own facts: every field, its JSON name and its type; nothing lost on the way through.

The facts are in ../shared/upstream-1.36 of the workplace; without them these tests are skipped.
"""

from __future__ import annotations

import functools
import importlib
import json
import operator
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
import pytest

from knarr.api import types
from knarr.api.decode import decode
from knarr.api.registry import built_in

REPOSITORY = Path(__file__).parents[2]
BESIDE = REPOSITORY.parent / "shared" / "upstream-1.36"
FACTS = BESIDE if BESIDE.is_dir() else None
API = REPOSITORY / "knarr" / "api"

pytestmark = pytest.mark.skipif(FACTS is None, reason="needs upstream's facts (shared/upstream-1.36)")

PACKAGES = {
    "meta": "io.k8s.apimachinery.pkg.apis.meta",
    "apiextensions": "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions",
    "apiregistration": "io.k8s.kube-aggregator.pkg.apis.apiregistration",
}
NOT_TYPES_OF_THEIR_OWN = {
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1": "any JSON",
    "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime": "a string",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Patch": "a body, never an object",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Time": "datetime",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON": "any JSON",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrArray": "any JSON",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrBool": "any JSON",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaPropsOrStringArray": "any JSON",
}
NOT_SERVED_YET = 11
"""Kinds with a type and no registry entry: the 7 extension points, and what is only a subresource or an answer
(Eviction, Scale, Status, TokenRequest). Falls as kinds are served, never rises."""


def modules() -> Iterator[tuple[str, ModuleType]]:
    """(package as upstream's schema names it, our module), for each group and version."""
    for path in sorted(API.glob("*/v[0-9]*.py")):
        group, version = path.parent.name, path.stem
        if group == "metrics":
            continue  # Upstream has it from an add-on, and not in its schema.
        package = f"{PACKAGES.get(group, f'io.k8s.api.{group}')}.{version}"
        yield package, importlib.import_module(f"knarr.api.{group}.{version}")


def structs() -> Iterator[tuple[str, type[Any]]]:
    for package, module in modules():
        for name, found in vars(module).items():
            if isinstance(found, type) and issubclass(found, types.Struct) and found.__module__ == module.__name__:
                yield f"{package}.{name}", found


def definitions() -> dict[str, Any]:
    assert FACTS
    found: dict[str, Any] = json.loads((FACTS / "swagger.json").read_text())["definitions"]
    return found


def test_every_field_has_upstreams_name_and_type() -> None:
    facts, faults = definitions(), []
    for name, struct in structs():
        hints = get_type_hints(struct, include_extras=True)
        ours = {info.encode_name: hints[info.name] for info in msgspec.structs.fields(struct)}
        theirs = facts[name].get("properties", {})
        faults += [f"{name}.{field} is missing" for field in theirs.keys() - ours.keys()]
        faults += [f"{name}.{field} is not upstream's" for field in ours.keys() - theirs.keys()]
        for field in ours.keys() & theirs.keys():
            shape, fact = shape_of(ours[field]), shape_of_fact(theirs[field])
            if shape != fact:
                faults.append(f"{name}.{field} is {shape}, upstream's is {fact}")
    assert not faults, "\n".join(faults)


def shape_of(hint: Any) -> str:
    """A type in the words of the schema."""
    if hint == types.Int32:
        return "int32"
    if hasattr(hint, "__metadata__"):
        return shape_of(hint.__origin__)
    if hint == types.Quantity:
        return "Quantity"
    if hint == types.IntOrString:
        return "IntOrString"
    if hint in (Any, types.RawJSON):
        return "any"
    arguments = get_args(hint)
    if get_origin(hint) is list:
        return f"[{shape_of(arguments[0])}]"
    if get_origin(hint) is dict:
        return f"{{{shape_of(arguments[1])}}}"
    if type(None) in arguments:
        rest = tuple(each for each in arguments if each is not type(None))
        if functools.reduce(operator.or_, rest) == types.Quantity:
            return "Quantity"
        return "IntOrString" if set(rest) == {str, int} else shape_of(rest[0])
    plain = {str: "string", int: "int64", bool: "boolean", float: "double", bytes: "byte", datetime: "Time"}
    return plain.get(hint) or hint.__name__


def shape_of_fact(fact: dict[str, Any]) -> str:
    if "$ref" in fact:
        name = fact["$ref"].rpartition(".")[2]
        if name == "MicroTime":
            return "string"
        unions = (f"JSONSchemaPropsOr{each}" for each in ("Array", "Bool", "StringArray"))
        any_json = ("RawExtension", "FieldsV1", "JSON", "Patch", *unions)
        return "any" if name in any_json else name
    match fact.get("type"):
        case "array":
            return f"[{shape_of_fact(fact['items'])}]"
        case "object":
            return f"{{{shape_of_fact(fact.get('additionalProperties', {}))}}}"
        case "integer":
            return "int32" if fact.get("format") == "int32" else "int64"
        case "number":
            return "double"
        case "string":
            return "byte" if fact.get("format") == "byte" else "string"
        case "boolean":
            return "boolean"
    return "any"


def test_every_stable_type_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    """What is missing is listed; of the stable groups nothing may be."""
    ours = dict(structs())
    packages = {package for package, _ in modules()}
    missing = []
    for name, fact in definitions().items():
        is_list = name.endswith("List") and "items" in fact.get("properties", {})
        if (
            name.rpartition(".")[0] in packages
            and name not in ours
            and name not in NOT_TYPES_OF_THEIR_OWN
            and not is_list
        ):
            missing.append(name)
    assert not missing, "\n".join(missing)


def test_what_is_not_served_yet_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    served = {resource.type for resource in built_in()}
    kinds = [
        name
        for name, struct in structs()
        if struct not in served and {"metadata", "api_version"} <= set(struct.__struct_fields__)
    ]
    print(f"{len(kinds)} kinds have a type and are not served yet:", *sorted(kinds), sep="\n  ")
    assert len(kinds) <= NOT_SERVED_YET


def roundtrips() -> list[Path]:
    """The files of which we have the type: those of stable groups that are objects."""
    return [path for path in sorted((FACTS / "roundtrip").glob("*.json")) if type_of(path)] if FACTS else []


def type_of(path: Path) -> type[Any] | None:
    """core.v1.Pod.json → knarr.api.core.v1.Pod."""
    group, version, kind = path.stem.rsplit(".", 2)
    module = API / group.partition(".")[0] / f"{version}.py"
    if not module.exists():
        return None
    return getattr(importlib.import_module(f"knarr.api.{module.parent.name}.{version}"), kind, None)


@pytest.mark.parametrize("path", roundtrips(), ids=lambda path: path.stem)
def test_a_round_trip_loses_no_field(path: Path) -> None:
    struct, kind = type_of(path), path.stem.rpartition(".")[2]
    assert struct
    raw = path.read_bytes()
    obj, warnings = decode(struct, raw, validation="Strict")
    assert not warnings
    assert without_nulls(json.loads(msgspec.json.encode(obj))) == without_nulls(
        json.loads(raw), claims=kind == "StatefulSet"
    )


def without_nulls(data: Any, *, claims: bool = False) -> Any:
    """Nulls are absent for us, as they are for Go. A claim template says its kind: upstream's server answers so too."""
    if isinstance(data, dict):
        # But in a map the name stays, with the zero value (a budget's disruptedPods).
        kept = {
            name: without_nulls(value, claims=claims)
            for name, value in data.items()
            if value is not None or name == "disruptedPodsKey"
        }
        for template in kept.get("volumeClaimTemplates", ()) if claims else ():
            template |= {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}
        return kept
    if isinstance(data, list):
        return [without_nulls(value, claims=claims) for value in data]
    return data
