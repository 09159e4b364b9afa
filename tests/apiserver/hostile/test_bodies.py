"""Rows 1 to 9, 12, 13 and 46: bodies and patches that can't be read, or aren't about what the URL says."""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

import pytest

from knarr.api.decode import plain_yaml
from knarr.api.errors import BadRequest
from knarr.client.client import JSON_PATCH, MERGE_PATCH
from tests.apiserver.hostile.cases import ALL_PATCHES, JSON, PATCHES, YAML, Case, refuse, table
from tests.apiserver.pipeline.door import CONFIG_MAPS, DEPLOYMENTS, Door, causes, config_map, deployment

ONE = f"{CONFIG_MAPS}/a"
DEEP = b"[" * 1_500_000
HEAD = b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":'
ALIASES = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n" % (c, c, *(c - 1,) * 9) for c in range(ord("b"), ord("o"))
)
PROTOBUF = "application/vnd.kubernetes.protobuf"
THERE = ((CONFIG_MAPS, config_map("a", x="1")),)
REJECTED = "the server rejected our request due to an error in our request"
TOO_LARGE = "Request entity too large: limit is 3145728"
UNREADABLE = [
    (1, "3 MiB and a byte", b" " * ((3 << 20) + 1), JSON, 413, TOO_LARGE),
    (1, "3 MiB and a byte of YAML", b" " * ((3 << 20) + 1), YAML, 413, TOO_LARGE),
    (2, "1.5 million brackets", DEEP, JSON, 400, ".*nested more than 250 deep"),
    (
        2,
        "1.5 million brackets as YAML",
        DEEP,
        YAML,
        400,
        "error converting YAML to JSON: .*nest.*deep.*|error converting YAML to JSON: .*maximum nesting depth.*",
    ),
    (4, "aliases that explode", ALIASES, YAML, 400, "error converting YAML to JSON: .* once its aliases are expanded"),
    (7, "empty", b"", JSON, 400, ""),
    (7, "empty YAML", b"", YAML, 400, ""),
    (7, "cut off", HEAD, JSON, 400, "couldn't get version/kind; json parse error: .*"),
    (7, "an array", b"[]", JSON, 400, ""),
    (7, "null", b"null", JSON, 400, ""),
    (7, "a text", b'"x"', JSON, 400, ""),
    (7, "a number", b"1", YAML, 400, ""),
    (7, "no protobuf", b"k8s", PROTOBUF, 400, ""),
    (7, "cut protobuf", b"k8s\x00\x0a\xff", PROTOBUF, 400, ""),
    (8, "CSV", b"{}", "text/csv", 415, "the body of the request was in an unknown format - accepted media types .*"),
    (8, "nonsense for a type", b"{}", "/;=", 415, "the body of the request was in an unknown format - .*"),
    (46, "not UTF-8", HEAD + b'{"x":"\xff"}}', JSON, 400, ""),
    (46, "YAML that is not UTF-8", b"a: \xff", YAML, 400, ""),
    (46, "a lone surrogate", HEAD + b'{"x":"\\ud800"}}', JSON, 400, ""),
    (46, "a lone surrogate in YAML", b'metadata: {name: a}\ndata: {x: "\\ud800"}', YAML, 400, ""),
    (46, "a lone surrogate as a key", HEAD + b'{"\\udc00":"x"}}', JSON, 400, ""),
    (46, "NaN", HEAD + b'{"x":NaN}}', JSON, 400, ""),
    (46, "NaN in YAML", b"metadata: {name: a}\ndata: {x: .nan}", YAML, 400, ""),
    (46, "infinity", HEAD + b'{"x":-Infinity}}', JSON, 400, ""),
    (46, "1e400", HEAD + b'{"x":1e400}}', JSON, 400, ""),
    (46, "infinity in YAML", b"metadata: {name: a}\ndata: {x: -.Inf}", YAML, 400, ""),
    (46, "1e300 in YAML", b"metadata: {name: a}\ndata: {x: 1e300}", YAML, 400, ""),
    (46, "5,000 digits", HEAD + b'{"x":' + b"9" * 5000 + b"}}", JSON, 400, ""),
    (46, "5,000 digits in YAML", b"metadata: {name: a}\ndata: {x: " + b"9" * 5000 + b"}", YAML, 400, ""),
    (46, "100,000 levels", HEAD + b'{"a":' * 100_000, JSON, 400, ""),
    (46, "100,000 closed levels", HEAD + b'{"a":' * 100_000 + b"1" + b"}" * 100_001, JSON, 400, ""),
    (46, "a number for a text", HEAD + b'{"x":1}}', JSON, 400, ""),
]


@table(
    *(
        Case(row, f"{what}, {method}", method, path, body, code, message, media=media)
        for row, what, body, media, code, message in UNREADABLE
        for method, path in (("POST", CONFIG_MAPS), ("PUT", ONE))
    )
)
async def test_bodies_that_cannot_be_read(door: Door, case: Case) -> None:
    await refuse(door, case)


NUMBERS = [
    Case(46, what, "POST", DEPLOYMENTS, b'{"metadata":{"name":"a"},"spec":{"replicas":' + number + b"}}")
    for what, number in {
        "NaN for replicas": b"NaN",
        "1e400 for replicas": b"1e400",
        "5,000 digits for replicas": b"9" * 5000,
        "1e3000 for replicas": b"1e3000",
        "minus nothing for replicas": b"-",
    }.items()
]


@table(
    *NUMBERS,
    *(
        Case(12, f"replicas: {replicas!r}", "POST", DEPLOYMENTS, deployment("a", replicas), message=message)
        for replicas, message in (
            ("3", r"Deployment in version \"v1\" cannot be handled as a Deployment: json: cannot unmarshal string into "
             r"Go struct field DeploymentSpec.spec.replicas of type int32"),
            (2147483648, r".*: json: cannot unmarshal number 2147483648 into .* of type int32"),
            (-2147483649, r".*: json: cannot unmarshal number -2147483649 into .* of type int32"),
            (1.5, r".*: json: cannot unmarshal number 1.5 into .* of type int32"),
            (True, r".*: json: cannot unmarshal bool into .* of type int32"),
            ([], r".*: json: cannot unmarshal array into .* of type int32"),
        )
    ),
)  # fmt: skip
async def test_numbers_that_are_none(door: Door, case: Case) -> None:
    await refuse(door, case)


@table(
    *(
        Case(3, f"1.5 million brackets as {name}", "PATCH", ONE, DEEP, media=media, there=THERE,
             query={"fieldManager": "x"}, message=".*nested more than 250 deep|.*maximum nesting depth.*")
        for name, media in ALL_PATCHES.items()
    ),
    *(
        Case(7, f"{body[:20]!r} as {name}", "PATCH", ONE, body, media=media, there=THERE, query={"fieldManager": "x"})
        for name, media in ALL_PATCHES.items()
        for body in (b"", b"{", b"3", b'"x"', b"null")
    ),
    *(
        Case(7, f"{body[:40]!r} as a JSON patch", "PATCH", ONE, body, media=JSON_PATCH, there=THERE)
        for body in (b'{"op":"add"}', b"[1]", b'[{"op":1,"path":"/a"}]')
    ),
    *(
        Case(7, f"{body[:40]!r} as a JSON patch", "PATCH", ONE, body, 422, REJECTED, media=JSON_PATCH, there=THERE)
        for body in (b'[{"op":"fly","path":"/a"}]', b'[{"op":"add"}]', b'[{"path":"/a"}]',
                     b'[{"op":"add","path":"data","value":1}]', b'[{"op":"move","path":"/data/x"}]')
    ),
    *(
        Case(7, f"an array as {name}", "PATCH", ONE, b'[{"op":"add"}]', media=media, there=THERE,
             query={"fieldManager": "x"}, code=code)
        for name, media, code in (("a merge patch", MERGE_PATCH, 400), ("a strategic merge patch",
                                  PATCHES["strategic merge patch"], 400), ("an apply", ALL_PATCHES["apply"], 400))
    ),
    Case(8, "a patch of no type", "PATCH", ONE, {}, 415, media="text/x", there=THERE,
         message=r"the body of the request was in an unknown format - accepted media types include: .*"),
    Case(8, "a patch as plain JSON", "PATCH", ONE, {}, 415, media=JSON, there=THERE),
    Case(5, "10,001 operations", "PATCH", ONE, [{"op": "test", "path": "/data/x", "value": "1"}] * 10_001, 413,
         r"Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001",
         media=JSON_PATCH, there=THERE),
    Case(6, "a test that fails", "PATCH", ONE, [{"op": "replace", "path": "/data/x", "value": "2"},
         {"op": "test", "path": "/data/x", "value": "3"}], 422, REJECTED,
         media=JSON_PATCH, there=THERE),
    Case(6, "a test of what is not there", "PATCH", ONE, [{"op": "test", "path": "/data/y", "value": "1"}], 422,
         REJECTED, media=JSON_PATCH, there=THERE),
    Case(6, "a copy that doubles itself", "PATCH", ONE,
         [{"op": "copy", "from": "/data", "path": f"/data/d{number}"} for number in range(40)], 422,
         REJECTED, media=JSON_PATCH, there=THERE),
    Case(6, "a path that is not there", "PATCH", ONE, [{"op": "remove", "path": "/data/y"}], 422,
         media=JSON_PATCH, there=THERE),
    Case(6, "an index too far", "PATCH", ONE, [{"op": "add", "path": "/metadata/managedFields/9", "value": {}}], 422,
         media=JSON_PATCH, there=THERE),
)  # fmt: skip
async def test_patches_that_cannot_be_read_or_carried_out(door: Door, case: Case) -> None:
    await refuse(door, case)


@table(
    *(
        Case(9, accept, "GET", CONFIG_MAPS, code=406, more={"accept": accept},
             message="only the following media types are accepted: application/json, application/yaml, .*")
        for accept in ("application/xml", "text/html", "image/png", "application/json;q=0", PROTOBUF)
    )
)  # fmt: skip
async def test_accepts_that_cannot_be_met(door: Door, case: Case) -> None:
    await refuse(door, case)


@table(
    *(
        Case(9, f"{method} for {accept}", method, path, body, code=406, more={"accept": accept}, media=media,
             query={"fieldManager": "x"}, there=THERE)
        for accept in ("application/xml", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1")
        for method, path, body, media in (
            ("POST", CONFIG_MAPS, config_map("b"), JSON),
            ("PUT", ONE, config_map("a", x="2"), JSON),
            ("PATCH", ONE, {"data": {"x": "2"}}, MERGE_PATCH),
            ("PATCH", ONE, config_map("a", x="2"), ALL_PATCHES["apply"]),
            ("DELETE", ONE, None, JSON),
        )
    ),
    Case(9, "DELETE of all for XML", "DELETE", CONFIG_MAPS, code=406, more={"accept": "application/xml"}, there=THERE),
    Case(9, "a table of what is no form", "POST", CONFIG_MAPS, config_map("b"), query={"includeObject": "Odd"},
         more={"accept": "application/json;as=Table;g=meta.k8s.io;v=v1"},
         message="Unable to convert to Table as requested: includeObject: .*"),
)  # fmt: skip
async def test_who_cannot_be_answered_changes_nothing(door: Door, case: Case) -> None:
    await refuse(door, case)


@table(
    *(
        Case(8, f"DELETE of {path} with options as {media!r}", "DELETE", path, b"{}", 415, media=media, there=THERE,
             message="the body of the request was in an unknown format - accepted media types include: "
             "application/json, application/yaml, application/vnd.kubernetes.protobuf")
        for path in (ONE, CONFIG_MAPS)
        for media in ("text/csv", "application/x-www-form-urlencoded", "/;=", "x-yaml")
    )
)  # fmt: skip
async def test_delete_options_in_a_form_that_is_not_offered(door: Door, case: Case) -> None:
    await refuse(door, case)


ABOUT = "the API version in the data .* does not match the expected API version .*"
NAME = r"the name of the object \(b\) does not match the name on the URL \(a\)"
NAMESPACE = "the namespace of the provided object does not match the namespace sent on the request"
ELSEWHERE = {"metadata": {"name": "a", "namespace": "x"}}


@table(
    *(
        Case(13, f"{what}, {method}", method, path, body, message=message, there=THERE if method == "PUT" else ())
        for method, path in (("POST", CONFIG_MAPS), ("PUT", ONE))
        for what, body, message in (
            ("another kind", config_map("a") | {"kind": "Secret"}, ABOUT),
            ("an unknown kind", config_map("a") | {"kind": "Unicorn"}, ABOUT),
            ("another version", config_map("a") | {"apiVersion": "v2"}, ABOUT),
            ("another group", config_map("a") | {"apiVersion": "apps/v1"}, ABOUT),
            ("another namespace", config_map("a") | ELSEWHERE, NAMESPACE),
        )
    ),
    Case(13, "another name", "PUT", ONE, config_map("b"), message=NAME, there=THERE),
    *(
        Case(13, f"{body}, patch", "PATCH", ONE, body, 422, f' "" is invalid: patch: Invalid value: .*: {ABOUT}',
             [("FieldValueInvalid", "patch")], media, there=THERE)
        for media, body in (
            (MERGE_PATCH, {"kind": "Secret"}),
            (MERGE_PATCH, {"apiVersion": "v2"}),
            (MERGE_PATCH, {"kind": 3}),
            (JSON_PATCH, [{"op": "replace", "path": "/kind", "value": "Unicorn"}]),
            (JSON_PATCH, [{"op": "replace", "path": "/apiVersion", "value": "apps/v1"}]),
        )
    ),
    *(
        Case(13, f"{body}, patch of a scale", "PATCH", f"{DEPLOYMENTS}/a/scale", body, 422, media=MERGE_PATCH,
             causes=[("FieldValueInvalid", "patch")], there=((DEPLOYMENTS, deployment("a")),))
        for body in ({"kind": "Deployment"}, {"apiVersion": "apps/v1"})
    ),
    Case(13, "nothing said, apply", "PATCH", ONE, {"metadata": {"name": "a"}}, there=THERE, media=ALL_PATCHES["apply"],
         query={"fieldManager": "x"}, message="Incorrect version specified in apply patch. Specified patch version: , "
         "Kind=, expected: v1, Kind=ConfigMap"),
    *(
        Case(13, f"{what}, apply", "PATCH", ONE, body, message=message, there=THERE, media=ALL_PATCHES["apply"],
             query={"fieldManager": "x"})
        for what, body, message in (
            ("another kind", config_map("a") | {"kind": "Secret"}, ""),
            ("another name", config_map("b"), NAME),
            ("another namespace", config_map("a") | ELSEWHERE, ""),
        )
    ),
)  # fmt: skip
async def test_the_body_must_be_about_what_the_url_says(door: Door, case: Case) -> None:
    await refuse(door, case)


@pytest.mark.parametrize(
    ("media", "body"),
    [
        (PATCHES["strategic merge patch"], {"kind": "Secret", "apiVersion": "v2", "data": {"x": "2"}}),
        (MERGE_PATCH, {"kind": None, "apiVersion": "", "data": {"x": "2"}}),
    ],
)
async def test_row13_a_patch_leaves_an_object_what_it_is(door: Door, media: str, body: Any) -> None:
    await door.done("POST", CONFIG_MAPS, config_map("a", x="1"))
    await door.done("PATCH", ONE, body, content_type=media)
    kept = await door.done("GET", ONE)
    assert (kept["apiVersion"], kept["kind"], kept["data"]) == ("v1", "ConfigMap", {"x": "2"})


BOMBS = {
    "row2-brackets": DEEP,
    "row4-aliases": ALIASES,
    "row4-wide": b"a: &a {" + b"k: v, " * 2000 + b"}\n" + b"b: [" + b"*a, " * 100_000 + b"]",
    "row4-itself": b"&a [*a, *a]",
    "row4-merges itself": b"a: &a {<<: *a}\n",
    "row4-many values": b"[" + b"1, " * 1_000_000 + b"]",
    "row4-many merges": b"<<: [" + b"{a: 1}, " * 250_000 + b"]",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_costs_little_time(name: str) -> None:
    start_s = time.process_time()
    with pytest.raises(BadRequest):
        plain_yaml(BOMBS[name])
    assert time.process_time() - start_s < 10


@pytest.mark.parametrize("name", ["row2-brackets", "row4-aliases", "row4-wide", "row4-itself", "row4-merges itself"])
def test_a_bomb_costs_little_memory(name: str) -> None:
    body = BOMBS[name]
    tracemalloc.start()
    try:
        with pytest.raises(BadRequest):
            plain_yaml(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < (4 << 20) + 8 * len(body)


@pytest.mark.parametrize(
    "body", [b"[]", b'"x"', b'{"kind":"Pod"}', b"{", b'{"preconditions":3}', b'{"gracePeriodSeconds":-1}', DEEP]
)
async def test_row7_delete_options_that_are_none(door: Door, body: bytes) -> None:
    await door.done("POST", CONFIG_MAPS, config_map("a"))
    revision = door.store.revision
    for path in (ONE, CONFIG_MAPS):
        status, refused = await door("DELETE", path, body)
        assert (status, refused["kind"]) in ((400, "Status"), (422, "Status"))
    assert door.store.revision == revision


async def test_row46_what_is_in_a_body_is_stored_as_it_came(door: Door) -> None:
    """Characters that are odd and allowed: nothing is lost between the request, the store and the answer."""
    odd = '\u0000\u0001\t\n\r"\\/é€\U0001f600\ufeff\u2028'
    made: Any = await door.done("POST", CONFIG_MAPS, config_map("a", x=odd))
    assert made["data"]["x"] == odd
    assert causes({"details": {}}) == []
    assert (await door.done("GET", ONE))["data"]["x"] == odd
