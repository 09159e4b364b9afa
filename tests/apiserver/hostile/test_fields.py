"""Rows 10 and 11: unknown and duplicate fields, refused by Strict, warned of by Warn, passed over by Ignore."""

from __future__ import annotations

from typing import Any

import pytest

from knarr.client.client import APPLY_PATCH, JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH
from tests.apiserver.hostile.cases import JSON, YAML, Case, refuse, table
from tests.apiserver.pipeline.door import CONFIG_MAPS, Door, config_map

ONE = f"{CONFIG_MAPS}/a"
THERE = ((CONFIG_MAPS, config_map("a", x="1")),)
STRICT = {"fieldValidation": "Strict", "fieldManager": "x"}
HEAD = b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},'
UNKNOWN = HEAD + b'"foo":1}'
TWICE = HEAD + b'"data":{"x":"2"},"data":{"x":"3"}}'
TWICE_INSIDE = HEAD + b'"data":{"x":"2","x":"3"}}'
BODY = 'ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: '
PATCHED = r' "" is invalid: patch: Invalid value: ".*": strict decoding error: '
FAULT = [("FieldValueInvalid", "patch")]
BODIES = [
    ("an unknown field", UNKNOWN, 'unknown field "foo"'),
    ("a field twice", TWICE, 'duplicate field "data"'),
    ("a field twice inside", TWICE_INSIDE, 'duplicate field "data.x"'),
    ("both", HEAD + b'"data":{},"data":{},"foo":2}', 'duplicate field "data", unknown field "foo"'),
]


@table(
    *(
        Case(10, f"{what}, {method}", method, path, body, message=f"{BODY}{fault}", query=STRICT,
             there=THERE if method == "PUT" else ())
        for method, path in (("POST", CONFIG_MAPS), ("PUT", ONE))
        for what, body, fault in BODIES
    ),
    Case(10, "a key twice in YAML", "POST", CONFIG_MAPS, b"metadata: {name: a}\ndata: {x: a, x: b}\n", query=STRICT,
         media=YAML, message=rf'{BODY}.*key "x" already set in map'),
    *(
        Case(10, f"{what}, apply", "PATCH", ONE, body, message=f"{BODY}{fault}", query=STRICT, there=THERE,
             media=APPLY_PATCH)
        for what, body, fault in BODIES[:3]
    ),
    *(
        Case(10, f"{what}, {media}", "PATCH", ONE, body, 422, PATCHED + fault, FAULT, media, STRICT, THERE)
        for media in (MERGE_PATCH, STRATEGIC_MERGE_PATCH)
        for what, body, fault in (
            ("an unknown field", b'{"foo":1}', 'unknown field "foo"'),
            ("an unknown field deep", b'{"metadata":{"foo":1}}', 'unknown field "metadata.foo"'),
            ("a field twice", b'{"data":{"x":"2"},"data":{"x":"3"}}', 'duplicate field "data"'),
            ("a field twice inside", b'{"data":{"x":"2","x":"3"}}', 'duplicate field "data.x"'),
            ("both", b'{"data":{},"data":{},"foo":1}', 'duplicate field "data", unknown field "foo"'),
        )
    ),
    Case(10, "an unknown field, JSON patch", "PATCH", ONE, [{"op": "add", "path": "/foo", "value": 1}], 422,
         PATCHED + 'unknown field "foo"', FAULT, JSON_PATCH, STRICT, THERE),
    Case(10, "a field twice, JSON patch", "PATCH", ONE, b'[{"op":"add","path":"/data/y","value":"1","value":"2"}]',
         422, PATCHED + r'json patch duplicate field "\[0\].value"', FAULT, JSON_PATCH, STRICT, THERE),
)  # fmt: skip
async def test_strict_refuses(door: Door, case: Case) -> None:
    await refuse(door, case)


@pytest.mark.parametrize("validation", [{}, {"fieldValidation": "Warn"}, {"fieldValidation": "Ignore"}])
@pytest.mark.parametrize(
    ("method", "body", "media", "warning"),
    [
        ("POST", UNKNOWN, JSON, 'unknown field "foo"'),
        ("POST", TWICE, JSON, 'duplicate field "data"'),
        ("PUT", TWICE_INSIDE, JSON, 'duplicate field "data.x"'),
        ("PATCH", b'{"foo":1}', MERGE_PATCH, 'unknown field "foo"'),
        ("PATCH", b'{"data":{"x":"2"},"data":{"x":"3"}}', MERGE_PATCH, 'duplicate field "data"'),
        ("PATCH", b'{"data":{"x":"2","x":"3"}}', STRATEGIC_MERGE_PATCH, 'duplicate field "data.x"'),
        ("PATCH", b'[{"op":"add","path":"/foo","value":1}]', JSON_PATCH, 'unknown field "foo"'),
    ],
)
async def test_row11_by_default_it_is_stored_with_a_warning(
    door: Door, method: str, body: bytes, media: str, warning: str, validation: dict[str, str]
) -> None:
    if method != "POST":
        await door.done("POST", CONFIG_MAPS, config_map("a"))
    path = CONFIG_MAPS if method == "POST" else ONE
    answer: Any = await door.ask(method, path, body, content_type=media, **validation)
    assert answer.status in (200, 201)
    assert answer.warnings == ([] if validation.get("fieldValidation") == "Ignore" else [warning])
    kept = await door.done("GET", ONE)
    assert "foo" not in kept
    # Of a field that stands twice the last value counts, as everywhere.
    assert kept.get("data", {}).get("x") in (None, "3")
    assert (b'"x"' in body) is ("data" in kept)


@table(
    *(
        Case(10, f"fieldValidation=Odd, {method}", method, path, body, 422, there=THERE, media=media,
             query={"fieldValidation": "Odd"}, causes=[("FieldValueNotSupported", "fieldValidation")],
             message=f'{kind}.meta.k8s.io "" is invalid: fieldValidation: Unsupported value: "Odd": supported values: '
             '"", "Ignore", "Strict", "Warn"')
        for method, path, body, media, kind in (
            ("POST", CONFIG_MAPS, config_map("b"), JSON, "CreateOptions"),
            ("PUT", ONE, config_map("a"), JSON, "UpdateOptions"),
            ("PATCH", ONE, {}, MERGE_PATCH, "PatchOptions"),
        )
    )
)  # fmt: skip
async def test_how_to_validate_must_be_known(door: Door, case: Case) -> None:
    await refuse(door, case)
