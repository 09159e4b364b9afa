"""Bad input and the answer expected: a Status with the right code, nothing half-written, and the server goes on."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from knarr.client.client import JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH
from tests.apiserver.pipeline.door import CONFIG_MAPS, DEPLOYMENTS, PODS, Door, causes, config_map, deployment, pod

BOMB = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n" % (c, c, *(c - 1,) * 9) for c in range(ord("b"), ord("k"))
)
DEEP = b"[" * 1_500_000
HEAD = b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":'


@pytest.mark.parametrize(
    ("body", "media", "code"),
    [
        pytest.param(b" " * ((3 << 20) + 1), "application/json", 413, id="too large"),
        pytest.param(DEEP, "application/json", 400, id="deep JSON"),
        pytest.param(DEEP, "application/yaml", 400, id="deep YAML"),
        pytest.param(HEAD + b'{"a":' * 100_000, "application/json", 400, id="deep object"),
        pytest.param(BOMB, "application/yaml", 400, id="YAML bomb"),
        pytest.param(b"", "application/json", 400, id="empty"),
        pytest.param(HEAD, "application/json", 400, id="truncated"),
        pytest.param(HEAD + b'{"x":"\xff"}}', "application/json", 400, id="not UTF-8"),
        pytest.param(HEAD + b'{"x":NaN}}', "application/json", 400, id="NaN"),
        pytest.param(HEAD + b'{"x":1e400}}', "application/json", 400, id="infinite"),
        pytest.param(HEAD + b'{"x":' + b"9" * 5000 + b"}}", "application/json", 400, id="huge integer"),
        pytest.param(HEAD + b'{"x":1}}', "application/json", 400, id="number for text"),
        pytest.param(b"[]", "application/json", 400, id="array"),
        pytest.param(b"null", "application/json", 400, id="null"),
        pytest.param(b'"x"', "application/json", 400, id="string"),
        pytest.param(b"{}", "text/csv", 415, id="media type"),
        pytest.param(b"k8s\x00\x0a\xff", "application/vnd.kubernetes.protobuf", 400, id="cut protobuf"),
        pytest.param(b"k8s", "application/vnd.kubernetes.protobuf", 400, id="no protobuf"),
    ],
)
async def test_bodies_that_cannot_be_read(door: Door, body: bytes, media: str, code: int) -> None:
    revision = door.store.revision
    for method, path in (("POST", CONFIG_MAPS), ("PUT", f"{CONFIG_MAPS}/a")):
        status, refused = await door(method, path, body, content_type=media)
        assert (status, refused["kind"], refused["code"]) == (code, "Status", code)
    assert door.store.revision == revision


async def test_a_lone_surrogate_is_refused(door: Door) -> None:
    status, _ = await door("POST", CONFIG_MAPS, HEAD + b'{"x":"\\ud800"}}')
    assert status == 400


@pytest.mark.parametrize("media", [JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH])
@pytest.mark.parametrize(
    "body", [DEEP, b"", b"{", b"3", b'"x"', b"null", b'[{"op":"fly","path":"/a"}]', b'[{"op":"add"}]']
)
async def test_patches_that_cannot_be_read(door: Door, media: str, body: bytes) -> None:
    made = await door.done("POST", CONFIG_MAPS, config_map("a", x="1"))
    status, refused = await door("PATCH", f"{CONFIG_MAPS}/a", body, content_type=media)
    assert status in (400, 422), refused
    assert await door.done("GET", f"{CONFIG_MAPS}/a") == made


async def test_a_json_patch_is_bounded(door: Door) -> None:
    await door.done("POST", CONFIG_MAPS, config_map("a", x="1"))
    steps: list[dict[str, Any]] = [{"op": "test", "path": "/data/x", "value": "1"}] * 10_001
    assert (await door("PATCH", f"{CONFIG_MAPS}/a", steps, content_type=JSON_PATCH))[0] == 413
    double = [{"op": "copy", "from": "/data", "path": f"/data/d{i}"} for i in range(40)]
    assert (await door("PATCH", f"{CONFIG_MAPS}/a", double, content_type=JSON_PATCH))[0] in (400, 413, 422)


@pytest.mark.parametrize("accept", ["application/xml", "text/html", "application/vnd.kubernetes.protobuf"])
async def test_an_accept_that_cannot_be_met(door: Door, accept: str) -> None:
    status, refused = await door("GET", CONFIG_MAPS, accept=accept)
    assert (status, refused["reason"]) == (406, "NotAcceptable")


@pytest.mark.parametrize("replicas", ["3", 2147483648, 1.5, True])
async def test_replicas_must_be_a_number_of_32_bits(door: Door, replicas: object) -> None:
    body = deployment()
    body["spec"]["replicas"] = replicas
    status, _ = await door("POST", DEPLOYMENTS, body)
    assert status == 400


@pytest.mark.parametrize(
    "change", [{"kind": "Secret"}, {"apiVersion": "v2"}, {"metadata": {"name": "a", "namespace": "x"}}]
)
async def test_the_body_must_be_about_what_the_url_says(door: Door, change: dict[str, object]) -> None:
    assert (await door("POST", CONFIG_MAPS, config_map("a") | change))[0] == 400
    await door.done("POST", CONFIG_MAPS, config_map("a"))
    assert (await door("PUT", f"{CONFIG_MAPS}/a", config_map("a") | change))[0] == 400
    assert (await door("PUT", f"{CONFIG_MAPS}/a", config_map("b")))[0] == 400


@pytest.mark.parametrize("name", ["Foo_Bar", "a" * 254, "..", "a/b", "foo\n", "-a", "a-"])
async def test_names_that_are_none(door: Door, name: str) -> None:
    status, refused = await door("POST", CONFIG_MAPS, config_map(name))
    assert (status, set(causes(refused))) == (422, {"metadata.name"})


async def test_a_name_is_needed(door: Door) -> None:
    status, refused = await door("POST", CONFIG_MAPS, {"apiVersion": "v1", "kind": "ConfigMap"})
    assert (status, refused["reason"]) == (422, "Invalid")
    assert causes(refused)[0] == "metadata.name"


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ({"labels": {"a": "x" * 64}}, "metadata.labels"),
        ({"labels": {"a": "x\n"}}, "metadata.labels"),
        ({"labels": {"a b": "x"}}, "metadata.labels"),
        ({"annotations": {"a": "x" * (257 << 10)}}, "metadata.annotations"),
        ({"finalizers": ["plain"]}, "metadata.finalizers[0]"),
        (
            {
                "ownerReferences": [
                    {"apiVersion": "v1", "kind": "A", "name": "a", "uid": u, "controller": True} for u in "ab"
                ]
            },
            "metadata.ownerReferences",
        ),
        (
            {"ownerReferences": [{"apiVersion": "v1", "kind": "A", "name": "a", "uid": ""}]},
            "metadata.ownerReferences.uid",
        ),
    ],
)
async def test_metadata_that_is_not_allowed(door: Door, metadata: dict[str, Any], field: str) -> None:
    body = config_map("a")
    body["metadata"] |= metadata
    status, refused = await door("POST", CONFIG_MAPS, body)
    assert (status, causes(refused)) == (422, [field])


async def test_more_than_a_mebibyte_of_data_is_invalid(door: Door) -> None:
    assert (await door("POST", CONFIG_MAPS, config_map("a", x="x" * ((1 << 20) + 1))))[0] == 422


async def test_a_created_object_has_no_version_yet(door: Door) -> None:
    body = config_map("a")
    body["metadata"]["resourceVersion"] = "1"
    assert (await door("POST", CONFIG_MAPS, body))[0] == 400


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"resourceVersion": "abc"}, 400),
        ({"resourceVersion": "-1"}, 400),
        ({"watch": "true", "resourceVersion": "abc"}, 400),
        ({"resourceVersionMatch": "Exact"}, 422),
        ({"resourceVersionMatch": "Odd", "resourceVersion": "1"}, 422),
        ({"labelSelector": "a in (b"}, 400),
        ({"labelSelector": "a=b="}, 400),
        ({"fieldSelector": "metadata.name"}, 400),
        ({"watch": "true", "timeoutSeconds": "abc"}, 400),
        ({"limit": "abc"}, 400),
    ],
)
async def test_queries_that_make_no_sense(door: Door, query: dict[str, str], code: int) -> None:
    status, refused = await door("GET", CONFIG_MAPS, **query)
    assert (status, refused["kind"]) == (code, "Status")


async def test_a_dry_run_of_another_kind_is_invalid(door: Door) -> None:
    for method, path in (("POST", CONFIG_MAPS), ("PUT", f"{CONFIG_MAPS}/a"), ("DELETE", f"{CONFIG_MAPS}/a")):
        assert (await door(method, path, config_map("a"), dryRun="foo"))[0] == 422


@pytest.mark.parametrize(
    "body", [b"[]", b'"x"', b'{"kind":"Pod"}', b"{", b'{"preconditions":3}', b'{"gracePeriodSeconds":-1}']
)
async def test_delete_options_that_are_none(door: Door, body: bytes) -> None:
    await door.done("POST", CONFIG_MAPS, config_map("a"))
    status, _ = await door("DELETE", f"{CONFIG_MAPS}/a", body)
    assert status in (400, 422)
    assert (await door("GET", f"{CONFIG_MAPS}/a"))[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/api/v2/pods", 404),
        ("GET", "/apis/apps/v1/unicorns", 404),
        ("GET", "/apis/nowhere/v1", 404),
        ("GET", f"{PODS}/a/unicorn", 404),
        ("GET", "/api/v1/namespaces/default/nodes", 404),
        ("POST", f"{CONFIG_MAPS}/a", 405),
        ("PUT", CONFIG_MAPS, 405),
        ("PATCH", CONFIG_MAPS, 405),
        ("DELETE", "/api/v1/namespaces", 405),
        ("POST", "/api", 405),
        ("TRACE", f"{CONFIG_MAPS}/a", 405),
    ],
)
async def test_paths_and_verbs_that_are_not_served(door: Door, method: str, path: str, code: int) -> None:
    status, refused = await door(method, path)
    assert (status, refused["kind"], refused["code"]) == (code, "Status", code)


async def test_what_may_not_change_does_not(door: Door) -> None:
    made = await door.done("POST", DEPLOYMENTS, deployment())
    selector = {"spec": {"selector": {"matchLabels": {"app": "other"}}}}
    status, refused = await door("PATCH", f"{DEPLOYMENTS}/web", selector, content_type=MERGE_PATCH)
    assert status == 422
    assert "spec.selector" in causes(refused)
    await door.done("POST", PODS, pod("a"))
    moved = [{"op": "add", "path": "/spec/hostNetwork", "value": True}]
    assert (await door("PATCH", f"{PODS}/a", moved, content_type=JSON_PATCH))[0] == 422
    await door.done("POST", CONFIG_MAPS, config_map("a", x="1") | {"immutable": True})
    assert (await door("PATCH", f"{CONFIG_MAPS}/a", {"data": {"x": "2"}}, content_type=MERGE_PATCH))[0] == 422
    assert await door.done("GET", f"{DEPLOYMENTS}/web") == made


@pytest.mark.parametrize("token", ["x", "a.b.c", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0."])
async def test_a_token_that_nobody_issued_is_refused(door: Door, token: str) -> None:
    status, refused = await door("GET", PODS, user=None, token=token)
    assert (status, refused["reason"], refused["message"]) == (401, "Unauthorized", "Unauthorized")


@pytest.mark.parametrize("path", ["/healthz", "/livez", "/version"])
async def test_health_and_version_are_open(door: Door, path: str) -> None:
    answer = await door.ask("GET", path, user=None)
    assert answer.status == 200


async def test_readiness_waits_for_the_process_to_be_assembled(door: Door) -> None:
    answer = await door.ask("GET", "/readyz", user=None, verbose="")
    assert (answer.status, b"[-]started" in answer.body) == (500, True)
    door.server.ready = True
    answer = await door.ask("GET", "/readyz", user=None)
    assert (answer.status, answer.body) == (200, b"ok")


async def test_every_refusal_is_a_whole_status(door: Door) -> None:
    answer = await door.ask("GET", f"{PODS}/a")
    status = msgspec.json.decode(answer.body)
    assert status == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": 'pods "a" not found',
        "reason": "NotFound",
        "details": {"name": "a", "kind": "pods"},
        "code": 404,
    }
