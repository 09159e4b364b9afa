"""Whatever bytes come for whatever kind, in whatever way: an answer below 500, and a server that goes on.

One server for all examples of a test. `--hypothesis-profile=long` tries many more.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any, get_args, get_origin

import msgspec
import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from knarr.api import names
from knarr.api.decode import _present_type, _shape, convert, decode
from knarr.api.errors import APIError, BadRequest, NotAcceptable
from knarr.api.registry import built_in
from knarr.api.resources import Resource
from knarr.api.types import RawJSON, Struct
from knarr.apiserver import forms, protobuf
from knarr.apiserver.patch import checked_operations, json_patch, merge_patch
from knarr.apiserver.strategic import strategic_merge_patch
from knarr.client.client import APPLY_PATCH, MERGE_PATCH
from tests.apiserver.pipeline.door import CONFIG_MAPS, PODS, config_map
from tests.apiserver.pipeline.lasting import Server, lasting_server

FEW = settings(max_examples=settings().max_examples // 2, suppress_health_check=list(HealthCheck))
RESOURCES = {f"{resource.qualified}/{resource.version}": resource for resource in built_in()}
KINDS = st.sampled_from(sorted(RESOURCES)).map(RESOURCES.__getitem__)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=12),
    st.sampled_from(["", "a", "a\n", "1Gi", "2020-01-01T00:00:00Z", "10.0.0.1", "http", "*", "$patch", "replace"]),
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
DEPTH = 5


@st.composite
def near(draw: Any, kind: Any, depth: int = DEPTH) -> Any:
    """Data that looks like a type: its fields, some of them, mostly with values of their types."""
    kind = _present_type(kind)
    if kind is RawJSON:
        return draw(st.dictionaries(st.text(max_size=6), SCALARS, max_size=2))
    if depth == 0 or draw(st.integers(0, 9)) == 0:
        return draw(ANYTHING)
    shape = _shape(kind)
    if shape:
        chosen = draw(st.lists(st.sampled_from(sorted(shape)), max_size=4, unique=True))
        return {name: draw(near(shape[name], depth - 1)) for name in chosen}
    if get_origin(kind) is list:
        return [draw(near(get_args(kind)[0], depth - 1)) for _ in range(draw(st.integers(0, 2)))]
    if get_origin(kind) is dict:
        keys = draw(st.lists(st.text(max_size=5), max_size=2))
        return {key: draw(near(get_args(kind)[1], depth - 1)) for key in keys}
    by_type = {str: st.text(max_size=8), int: st.integers(-5, 2**33), bool: st.booleans(), float: st.floats(0, 9)}
    return draw(by_type.get(kind, SCALARS))


def objects(resource: Resource) -> st.SearchStrategy[Any]:
    return near(resource.type).filter(lambda data: isinstance(data, dict))


@FEW
@given(resource=KINDS, data=st.data())
def test_json_and_yaml_of_one_text_are_one_object(resource: Resource, data: st.DataObject) -> None:
    body = data.draw(objects(resource))
    written = msgspec.json.encode(body) if _fits(body) else str(body).encode()
    read: list[Any] = []
    for is_yaml in (False, True):
        text = yaml.safe_dump(body).encode() if is_yaml else written
        try:
            read.append(decode(resource.type, text, yaml_body=is_yaml, validation="Warn")[0])
        except BadRequest:
            read.append(None)
    if _fits(body):
        assert read[0] == read[1]


def _fits(value: Any) -> bool:
    """Whether msgspec writes it: no whole number of more than 64 bits."""
    if isinstance(value, dict):
        return all(map(_fits, value.values()))
    if isinstance(value, list):
        return all(map(_fits, value))
    return not isinstance(value, int) or abs(value) < 2**63


def wire(depth: int) -> st.SearchStrategy[bytes]:
    """Fields as protobuf writes them."""
    inner = st.binary(max_size=6) if depth == 0 else st.binary(max_size=6) | wire(depth - 1)

    def field(number: int, kind: int, value: bytes) -> bytes:
        tag = bytes((number << 3 | kind,))
        if kind == 0:
            return tag + (bytes(each | 0x80 for each in value[:9]) + b"\x01")
        return tag + (bytes((len(value),)) + value if kind == 2 else value.ljust(8, b"\0")[: 8 if kind == 1 else 4])

    fields = st.builds(field, st.integers(1, 15), st.sampled_from([0, 1, 2, 2, 2, 5]), inner)
    return st.lists(fields, max_size=5).map(b"".join).filter(lambda made: len(made) < 120)


@FEW
@given(resource=KINDS, raw=wire(3) | st.binary(max_size=60))
def test_protobuf_of_every_kind_is_an_object_or_a_bad_request(resource: Resource, raw: bytes) -> None:
    head = [b"\x0a", bytes((len(resource.group_version),)), resource.group_version.encode()]
    head += [b"\x12", bytes((len(resource.kind),)), resource.kind.encode()]
    meta = b"".join(head)
    envelope = b"k8s\x00\x0a" + bytes((len(meta),)) + meta + b"\x12" + bytes((len(raw),)) + raw
    try:
        obj, _ = convert(resource.type, protobuf.plain_protobuf(resource.type, envelope))
    except BadRequest:
        return
    assert obj.kind == resource.kind


STEPS = st.lists(
    st.fixed_dictionaries(
        {"op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test"])},
        optional={
            "path": st.sampled_from(["", "/", "/metadata", "/metadata/name", "/spec", "/spec/-", "/a~1b", "/a~2", "x"]),
            "from": st.sampled_from(["", "/metadata", "/spec", "/metadata/labels"]),
            "value": ANYTHING,
        },
    ),
    max_size=4,
)


@FEW
@given(resource=KINDS, data=st.data())
def test_a_patch_of_every_kind_makes_an_object_or_is_refused(resource: Resource, data: st.DataObject) -> None:
    before = data.draw(objects(resource))
    assume(_fits(before))
    kept = msgspec.json.encode(before)
    patch, steps = data.draw(objects(resource)), data.draw(STEPS)
    for apply in (
        lambda: json_patch(before, checked_operations(steps)),
        lambda: merge_patch(before, patch),
        lambda: strategic_merge_patch(resource.type, before, patch),
    ):
        code = 200
        try:
            assert isinstance(convert(resource.type, apply())[0], Struct)
        except APIError as error:
            code = error.code
        assert code < 500
    assert msgspec.json.encode(before) == kept, "a patch changed what it was given"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    yield from lasting_server()


VALUES = st.text(max_size=15) | st.sampled_from(
    [
        "",
        "0",
        "1",
        "-1",
        "true",
        "false",
        "Exact",
        "NotOlderThan",
        "a in (b)",
        "!a",
        "a=b",
        "metadata.name=a",
        "All",
        "1s",
        "9" * 25,
        "Object",
        "None",
        "\x00",
        "\udcff",
    ]
)
QUERIES = st.dictionaries(
    st.sampled_from(
        [
            "labelSelector",
            "fieldSelector",
            "limit",
            "continue",
            "resourceVersion",
            "resourceVersionMatch",
            "pretty",
            "watch",
            "timeoutSeconds",
            "sendInitialEvents",
            "allowWatchBookmarks",
            "includeObject",
            "dryRun",
            "timeout",
        ]
    ),
    VALUES,
    max_size=5,
)
ACCEPTS = st.lists(
    st.sampled_from(
        [
            "application/json",
            "application/yaml",
            "*/*",
            "application/*",
            "text/plain",
            "image/png",
            "",
            "/",
            "a/b/c",
            "application/json;as=Table;v=v1;g=meta.k8s.io",
            "application/json;as=Table;v=v1beta1;g=meta.k8s.io",
            "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
            "application/vnd.kubernetes.protobuf",
            "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
            "application/json;stream=watch",
            "application/json;q=0",
            "application/json;q=x",
            "*/*;q=0.5",
            ";;;",
            "=;=",
            "application/json;as",
        ]
    )
    | st.text(max_size=10),
    max_size=4,
).map(",".join)


@FEW
@given(query=QUERIES, accept=ACCEPTS, path=st.sampled_from([PODS, f"{PODS}/a", CONFIG_MAPS, "/api/v1/pods", "/apis"]))
def test_any_question_in_any_form(server: Server, query: dict[str, str], accept: str, path: str) -> None:
    server.harmless("GET", path, accept=accept, **query)


@FEW
@given(accept=ACCEPTS)
def test_any_accept_is_met_or_refused(accept: str) -> None:
    for watching in (False, True):
        try:
            found = forms.accepted(accept, watching=watching)
        except NotAcceptable:
            continue
        assert not (watching and found.yaml)


TOKENS = st.one_of(
    st.text(max_size=30),
    st.builds(
        lambda data: base64.urlsafe_b64encode(msgspec.json.encode(data)).decode().rstrip("="),
        st.fixed_dictionaries(
            {"v": st.sampled_from(["meta.k8s.io/v1", "v2", 1]), "rv": st.integers(-3, 2**63) | SCALARS.filter(_fits)},
            optional={"start": st.text(max_size=8) | st.sampled_from(["pods/default/a", "secrets/"]) | st.none()},
        ),
    ),
)


@FEW
@given(token=TOKENS)
def test_any_continue_token_is_ours_or_refused(server: Server, token: str) -> None:
    status, body = server.harmless("GET", PODS, **{"continue": token})
    assert status in (200, 400, 410)
    if status == 200:
        assert msgspec.json.decode(body)["kind"] == "PodList"


@FEW
@given(name=st.text(max_size=20) | st.from_regex(r"[a-z0-9.-]{1,10}\n?") | st.sampled_from([".", "..", "a" * 254]))
def test_a_name_is_taken_when_it_matches_and_only_then(server: Server, name: str) -> None:
    for path, kind, faults in (
        (CONFIG_MAPS, "ConfigMap", names.dns1123_subdomain_faults),
        ("/api/v1/namespaces", "Namespace", names.dns1123_label_faults),
    ):
        body = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}}
        status, said = server.harmless("POST", path, body, dryRun="All")
        if status == 409:
            continue  # It is there.
        assert (status == 201) is bool(name and not faults(name)), said
        if status == 422:
            fields = {cause["field"] for cause in msgspec.json.decode(said)["details"]["causes"]}
            assert fields <= {"metadata.name", "metadata.labels"}  # Of a namespace, its name is a label too.


FIELDS = st.recursive(
    st.just({}),
    lambda inner: st.dictionaries(
        st.sampled_from(["f:data", "f:x", 'k:{"name":"a"}', "v:1", ".", "i:0", "", "f:", "k:", "k:{", "x"]),
        inner,
        max_size=3,
    ),
    max_leaves=6,
)
ENTRIES = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "manager": st.text(max_size=6),
            "operation": st.sampled_from(["Apply", "Update", "", "x"]),
            "apiVersion": st.sampled_from(["v1", "v2", "", "a/b/c"]),
            "fieldsType": st.sampled_from(["FieldsV1", "", "x"]),
            "fieldsV1": FIELDS | ANYTHING.filter(_fits),
            "subresource": st.text(max_size=4),
            "time": st.sampled_from(["2020-01-01T00:00:00Z", "x", ""]),
        },
    ),
    max_size=3,
)


@FEW
@given(entries=ENTRIES)
def test_managed_fields_that_a_client_makes_up(server: Server, entries: list[Any]) -> None:
    body = config_map("a", x="2")
    body["metadata"]["managedFields"] = entries
    server.harmless("PUT", f"{CONFIG_MAPS}/a", body)
    server.harmless("PATCH", f"{CONFIG_MAPS}/a", {"metadata": {"managedFields": entries}}, MERGE_PATCH)
    server.harmless("PATCH", f"{CONFIG_MAPS}/a", config_map("a", x="3"), APPLY_PATCH, fieldManager="m", force="true")
    server.harmless("PATCH", f"{CONFIG_MAPS}/a", config_map("a"), APPLY_PATCH, fieldManager="n")
    assert server.harmless("GET", f"{CONFIG_MAPS}/a")[0] == 200
