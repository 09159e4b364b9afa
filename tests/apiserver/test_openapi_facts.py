"""OpenAPI against upstream's published swagger.json: of what is served, the same paths, operations and schemas."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from knarr.api.registry import built_in
from knarr.apiserver.openapi import places, swagger

FACTS = Path("/work/shared/upstream-1.36/swagger.json")
pytestmark = pytest.mark.skipif(not FACTS.exists(), reason=f"{FACTS} is not there")

MEDIA_NOT_SENT = {
    "application/cbor",
    "application/cbor-seq",
    "application/apply-patch+cbor",
    "application/vnd.kubernetes.protobuf",
    "application/vnd.kubernetes.protobuf;stream=watch",
}
"""What we don't answer, or read, and so don't claim."""
PARAMETERS_NOT_KNOWN = {"shardSelector"}
"""Alpha in upstream, and off."""
_SCHEMA_PROPS = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps"
ANY_JSON = {
    (_SCHEMA_PROPS, field)
    for field in ("additionalItems", "additionalProperties", "default", "dependencies", "enum", "example", "items")
}
"""Told as objects until custom resources are served: upstream has names for what may be any JSON."""
PATHS_NOT_SERVED = {"/logs/": "files of the host's log folder", "/logs/{logpath}": "files of the host's log folder"}
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
"""Only read as yet: the kind has no write operations, and no status of its own."""
SCHEMA_MARKS_NOT_TOLD = {"x-kubernetes-unions": "nothing reads it"}
DEFAULT_MARKS = {("x-kubernetes-list-type", "atomic"), ("x-kubernetes-map-type", "granular")}
"""Saying them or not is the same."""
REQUIRED_NOT_DEMANDED = {
    ("io.k8s.api.core.v1.Event", "metadata"),  # Of all kinds the only one.
    ("io.k8s.apimachinery.pkg.apis.meta.v1.Condition", "lastTransitionTime"),  # Demanded by validation, kind by kind.
}


@cache
def theirs() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FACTS.read_text())
    return found


@cache
def ours() -> dict[str, Any]:
    return swagger(built_in())


def served(path: str) -> bool:
    """Whether a path of upstream's is about something that we serve."""
    parts = path.strip("/").split("/")
    registered = {(each.group, each.version, each.plural) for each in built_in()}
    if parts[0] == "api" and len(parts) > 2:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) > 3:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return path.strip("/") in places(built_in())
    if rest[0] == "watch":
        rest = rest[1:]
    if rest[0] == "namespaces" and len(rest) > 2 and rest[1] == "{namespace}":
        rest = rest[2:]
    return (group, version, rest[0]) in registered


def resolved(document: dict[str, Any], parameter: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in parameter:
        found: dict[str, Any] = document["parameters"][parameter["$ref"].rpartition("/")[2]]
        return found
    return parameter


def parameters(document: dict[str, Any], place: dict[str, Any]) -> list[dict[str, Any]]:
    listed = [resolved(document, each) for each in place.get("parameters", ())]
    return [
        {key: value for key, value in each.items() if key != "description"}
        for each in listed
        if each["name"] not in PARAMETERS_NOT_KNOWN
    ]


def operation(document: dict[str, Any], told: dict[str, Any]) -> dict[str, Any]:
    """An operation without its texts and the media types that aren't spoken here."""
    made = {key: value for key, value in told.items() if key not in ("description", "parameters")}
    for key in ("consumes", "produces"):
        made[key] = [media for media in told.get(key, ()) if media not in MEDIA_NOT_SENT]
    made["responses"] = {
        code: {key: value for key, value in answer.items() if key != "description"}
        for code, answer in told["responses"].items()
    }
    made["parameters"] = parameters(document, told)
    return made


def test_the_same_paths_are_told() -> None:
    expected = {path for path in theirs()["paths"] if served(path) and path not in PATHS_NOT_SERVED}
    expected.discard(f"{CRDS}/{{name}}/status")
    assert sorted(set(ours()["paths"]) ^ expected) == []


def test_each_path_has_the_same_operations() -> None:
    wrong = []
    for path, item in ours()["paths"].items():
        known = theirs()["paths"][path]
        if path.startswith(CRDS):
            assert set(item) == {"get", "parameters"}
            continue
        if set(item) != set(known):
            wrong.append((path, sorted(set(item) ^ set(known))))
        if parameters(ours(), item) != parameters(theirs(), known):
            wrong.append((path, parameters(ours(), item), parameters(theirs(), known)))
        for method in set(item) & set(known) - {"parameters"}:
            mine, other = operation(ours(), item[method]), operation(theirs(), known[method])
            wrong += [
                (path, method, key, mine.get(key), other.get(key))
                for key in sorted({*mine, *other})
                if mine.get(key) != other.get(key)
            ]
    assert not wrong, "\n".join(map(str, wrong))


def shape(schema: dict[str, Any], name: str = "") -> dict[str, Any]:
    """A schema without its texts."""
    made = {
        key: value
        for key, value in schema.items()
        if key not in ("description", "properties", "x-kubernetes-group-version-kind", *SCHEMA_MARKS_NOT_TOLD)
        and (not isinstance(value, str) or (key, value) not in DEFAULT_MARKS)
    }
    if "required" in made:
        made["required"] = sorted(field for field in made["required"] if (name, field) not in REQUIRED_NOT_DEMANDED)
    return made


def test_each_schema_has_the_same_fields_and_shapes() -> None:
    wrong = []
    for name, schema in ours()["definitions"].items():
        known = theirs()["definitions"].get(name)
        if known is None:
            wrong.append((name, "unknown"))
            continue
        if shape(schema, name) != shape(known, name):
            wrong.append((name, shape(schema, name), shape(known, name)))
        mine, other = schema.get("properties", {}), known.get("properties", {})
        wrong += [(name, field) for field in sorted(set(mine) ^ set(other))]
        wrong += [
            (name, field, shape(mine[field]), shape(other[field]))
            for field in set(mine) & set(other)
            if (name, field) not in ANY_JSON and shape(mine[field]) != shape(other[field])
        ]
    assert not wrong, "\n".join(map(str, wrong))


def test_only_lists_have_the_type_of_a_list() -> None:
    odd = [
        (name, field)
        for name, schema in ours()["definitions"].items()
        for field, told in schema.get("properties", {}).items()
        if "x-kubernetes-list-type" in told and told.get("type") != "array"
    ]
    assert not odd, odd


def test_kinds_are_named_as_upstream_names_them() -> None:
    """DeleteOptions and WatchEvent are of every group; of ours only of those that are served."""
    wrong = []
    for name, schema in ours()["definitions"].items():
        mine = schema.get("x-kubernetes-group-version-kind", [])
        other = theirs()["definitions"][name].get("x-kubernetes-group-version-kind", [])
        if name.endswith((".DeleteOptions", ".WatchEvent")):
            assert mine
            assert all(gvk in other for gvk in mine)
        elif sorted(mine, key=str) != sorted(other, key=str):
            wrong.append((name, mine, other))
    assert not wrong, "\n".join(map(str, wrong))


def test_access_is_told_as_upstream_does() -> None:
    for key in ("security", "swagger"):
        assert ours()[key] == theirs()[key]
    mine = {**ours()["securityDefinitions"]["BearerToken"]}
    other = {**theirs()["securityDefinitions"]["BearerToken"]}
    assert mine.pop("description") != other.pop("description")
    assert mine == other
