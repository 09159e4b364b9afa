"""Every type and field that is served says what it is for: in our own words, and of nothing that doesn't exist."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from knarr.api import descriptions
from knarr.api.apps.v1 import DeploymentSpec
from knarr.api.registry import built_in
from knarr.apiserver.openapi import swagger
from knarr.apiserver.openapi_schemas import NAMED_SCALARS, Schemas, schema_name

UPSTREAM = Path("/work/shared/upstream-1.36/swagger.json")
WORDS_MIN = 3
PSEUDO_TYPES = {"Object", "List", "Quantity", "IntOrString", "Time", "MicroTime", "FieldsV1", "RawExtension", "Patch"}
"""Of meta/v1.txt: what all kinds have in common, and scalars with names."""
OBJECT_FIELDS = {"Object": {"apiVersion", "kind", "metadata"}, "List": {"apiVersion", "kind", "metadata", "items"}}

PENDING = {"admissionregistration"}
"""Groups whose texts are still being written; none may join."""

FILES = sorted(descriptions.FOLDER.glob("*/*.txt"))


def names(path: Path) -> tuple[str, str]:
    return path.parent.name, path.stem


def described() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = swagger(built_in())["definitions"]
    return found


def group_of(schema: str) -> str:
    """io.k8s.api.core.v1.Pod → core."""
    return "meta" if schema in NAMED_SCALARS else schema.split(".")[-3]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_texts_are_sorted_and_long_enough_and_of_something_that_exists(path: Path) -> None:
    group, version = names(path)
    found = descriptions.texts(group, version)
    assert list(found) == sorted(found, key=lambda name: name.split("."))
    module = importlib.import_module(f"knarr.api.{group}.{version}")
    for name, text in found.items():
        assert len(text.split()) >= WORDS_MIN, name
        assert text[-1] in ".?)", f"{name}: no sentence"
        kind, _, field = name.partition(".")
        if (group, version) == descriptions.SHARED and kind in PSEUDO_TYPES:
            assert not field or field in OBJECT_FIELDS[kind], f"{name} is stale"
            continue
        struct = getattr(module, kind, object)
        assert issubclass(struct, msgspec.Struct), f"{name} is stale"
        assert struct.__module__ == module.__name__, f"{name} belongs to {struct.__module__}"
        if field:
            assert field in {info.encode_name for info in msgspec.structs.fields(struct)}, f"{name} is stale"


def test_every_type_and_field_that_is_served_has_a_description() -> None:
    missing = []
    for name, schema in described().items():
        if group_of(name) in PENDING:
            continue
        if not schema.get("description"):
            missing.append(name)
        fields = schema.get("properties", {}).items()
        missing += [f"{name}.{field}" for field, shape in fields if "description" not in shape]
    assert missing == []


def plain(text: str) -> str:
    return re.sub(r"\W+", " ", text).strip().lower()


@pytest.mark.skipif(not UPSTREAM.exists(), reason=f"{UPSTREAM} is not there")
def test_no_text_is_upstreams() -> None:
    theirs = json.loads(UPSTREAM.read_text())["definitions"]
    copied = []
    for name, schema in described().items():
        known = theirs.get(name, {})
        if "description" in schema and plain(schema["description"]) == plain(known.get("description", "")):
            copied.append(name)
        for field, shape in schema.get("properties", {}).items():
            text = known.get("properties", {}).get(field, {}).get("description", "")
            if "description" in shape and plain(shape["description"]) == plain(text):
                copied.append(f"{name}.{field}")
    assert copied == []


def test_both_versions_of_openapi_show_the_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"DeploymentSpec": "How to run pods.", "DeploymentSpec.template": "What the pods are."}
    monkeypatch.setattr(descriptions, "texts", lambda group, version: told if group == "apps" else {})
    for v3 in (False, True):
        schemas = Schemas(v3=v3)
        schemas.reference(DeploymentSpec)
        schema = schemas.found[schema_name(DeploymentSpec)]
        assert schema["description"] == "How to run pods."
        template = schema["properties"]["template"]
        assert template["description"] == "What the pods are."
        assert ("allOf" in template, "$ref" in template) == (v3, not v3)
        assert template.get("default") == ({} if v3 else None)


def test_a_line_that_is_no_text_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "odd").mkdir()
    monkeypatch.setattr(descriptions, "FOLDER", tmp_path)
    for lines in ("Pod without a colon", "Pod: One text.\nPod: Another text."):
        (tmp_path / "odd" / "v1.txt").write_text(lines)
        descriptions.texts.cache_clear()
        with pytest.raises(ValueError, match=r"v1\.txt:\d"):
            descriptions.texts("odd", "v1")
    descriptions.texts.cache_clear()
