"""Bad input gets a clear error and loses nothing: no 5xx, whatever comes."""

from __future__ import annotations

import ssl
from typing import Any

import aiohttp
import pytest

from knarr.api.core.v1 import ConfigMap
from knarr.api.meta.v1 import ObjectMeta
from tests.apiserver.conftest import Door
from tests.apiserver.test_objects import CONFIG_MAPS, DEPLOYMENTS, PODS, deployment, pod

JSON, YAML = "application/json", "application/yaml"
JSON_PATCH, MERGE = "application/json-patch+json", "application/merge-patch+json"
ALIASES = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n" % (c + 1, c + 1, *([c] * 9)) for c in range(97, 110)
)


def named(name: Any, **fields: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}} | fields


CASES: list[tuple[str, str, str, Any, dict[str, str], int, str]] = [
    ("a body over 3 MiB", "POST", CONFIG_MAPS, b"{" + b" " * (3 << 20), {}, 413, "RequestEntityTooLarge"),
    ("1.5 million brackets", "POST", CONFIG_MAPS, b"[" * 1_500_000, {}, 400, "BadRequest"),
    ("brackets as YAML", "POST", CONFIG_MAPS, b"[" * 20_000, {"content_type": YAML}, 400, "BadRequest"),
    ("aliases that explode", "POST", CONFIG_MAPS, ALIASES, {"content_type": YAML}, 400, "BadRequest"),
    ("brackets in a patch", "PATCH", f"{CONFIG_MAPS}/cm", b"[" * 1_500_000, {"content_type": JSON_PATCH}, 400, ""),
    (
        "10,001 operations",
        "PATCH",
        f"{CONFIG_MAPS}/cm",
        [{"op": "add", "path": "/data", "value": {}}] * 10_001,
        {"content_type": JSON_PATCH},
        413,
        "",
    ),
    ("an empty body", "POST", CONFIG_MAPS, b"", {}, 400, "BadRequest"),
    ("truncated JSON", "POST", CONFIG_MAPS, b'{"metadata":{"name":"x"', {}, 400, "BadRequest"),
    ("an unknown patch", "PATCH", f"{CONFIG_MAPS}/cm", {}, {"content_type": "text/x"}, 415, "UnsupportedMediaType"),
    ("an unknown body", "POST", CONFIG_MAPS, b"x", {"content_type": "text/x"}, 415, "UnsupportedMediaType"),
    ("an answer that can't be", "GET", CONFIG_MAPS, None, {"accept": "image/png"}, 406, "NotAcceptable"),
    ("an unknown field, strict", "POST", CONFIG_MAPS, named("x", foo=1), {"fieldValidation": "Strict"}, 400, ""),
    (
        "a duplicate field, strict",
        "POST",
        CONFIG_MAPS,
        b'{"data":{},"data":{}}',
        {"fieldValidation": "Strict"},
        400,
        "",
    ),
    ("replicas as text", "POST", DEPLOYMENTS, deployment(replicas="3"), {}, 400, "BadRequest"),
    ("replicas of 33 bits", "POST", DEPLOYMENTS, deployment(replicas=2147483648), {}, 400, "BadRequest"),
    ("another kind", "POST", CONFIG_MAPS, named("x", kind="Secret"), {}, 400, "BadRequest"),
    ("another namespace", "POST", CONFIG_MAPS, {"metadata": {"name": "x", "namespace": "y"}}, {}, 400, "BadRequest"),
    ("another name", "PUT", f"{CONFIG_MAPS}/cm", named("other"), {}, 400, "BadRequest"),
    ("name Foo_Bar", "POST", CONFIG_MAPS, named("Foo_Bar"), {}, 422, "Invalid"),
    ("name of 254", "POST", CONFIG_MAPS, named("a" * 254), {}, 422, "Invalid"),
    ("name ..", "POST", CONFIG_MAPS, named(".."), {}, 422, "Invalid"),
    ("name a/b", "POST", CONFIG_MAPS, named("a/b"), {}, 422, "Invalid"),
    ("name with a newline", "POST", CONFIG_MAPS, named("foo\n"), {}, 422, "Invalid"),
    ("no name", "POST", CONFIG_MAPS, {"data": {}}, {}, 422, "Invalid"),
    ("a label too long", "POST", CONFIG_MAPS, {"metadata": {"name": "x", "labels": {"a": "b" * 64}}}, {}, 422, ""),
    (
        "much annotation",
        "POST",
        CONFIG_MAPS,
        {"metadata": {"name": "x", "annotations": {"a": "b" * 262145}}},
        {},
        422,
        "",
    ),
    ("a large map", "POST", CONFIG_MAPS, named("x", data={"a": "b" * (1 << 20), "c": "d"}), {}, 422, "Invalid"),
    (
        "an owner without uid",
        "POST",
        CONFIG_MAPS,
        {"metadata": {"name": "x", "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p"}]}},
        {},
        422,
        "Invalid",
    ),
    ("a version at creation", "POST", CONFIG_MAPS, {"metadata": {"name": "x", "resourceVersion": "1"}}, {}, 400, ""),
    ("version abc", "GET", CONFIG_MAPS, None, {"resourceVersion": "abc"}, 400, "BadRequest"),
    ("a watch of abc", "GET", CONFIG_MAPS, None, {"watch": "true", "resourceVersion": "abc"}, 400, "BadRequest"),
    ("a forged token", "GET", CONFIG_MAPS, None, {"continue": "forged"}, 400, "BadRequest"),
    ("a match without version", "GET", CONFIG_MAPS, None, {"resourceVersionMatch": "Exact"}, 422, "Invalid"),
    ("dryRun=foo", "POST", CONFIG_MAPS, named("x"), {"dryRun": "foo"}, 422, "Invalid"),
    ("a broken label selector", "GET", CONFIG_MAPS, None, {"labelSelector": "a in (b"}, 400, "BadRequest"),
    ("a broken field selector", "GET", CONFIG_MAPS, None, {"fieldSelector": "a"}, 400, "BadRequest"),
    ("timeoutSeconds=abc", "GET", CONFIG_MAPS, None, {"watch": "true", "timeoutSeconds": "abc"}, 400, "BadRequest"),
    ("an unknown path", "GET", "/api/v1/nothing", None, {}, 404, "NotFound"),
    ("a wrong verb", "PUT", CONFIG_MAPS, named("x"), {}, 405, "MethodNotAllowed"),
    ("invalid UTF-8", "POST", CONFIG_MAPS, b'{"metadata":{"name":"\xff"}}', {}, 400, "BadRequest"),
    (
        "a lone surrogate",
        "POST",
        CONFIG_MAPS,
        b'{"metadata":{"name":"x"},"data":{"a":"\\ud800"}}',
        {},
        400,
        "BadRequest",
    ),
    ("NaN", "POST", DEPLOYMENTS, b'{"spec":{"replicas":NaN}}', {}, 400, "BadRequest"),
    ("1e400", "POST", DEPLOYMENTS, b'{"spec":{"replicas":1e400}}', {}, 400, "BadRequest"),
    ("5,000 digits", "POST", DEPLOYMENTS, b'{"spec":{"replicas":' + b"9" * 5000 + b"}}", {}, 400, "BadRequest"),
    ("100,000 levels", "POST", CONFIG_MAPS, b'{"data":' + b'{"a":' * 100_000, {}, 400, "BadRequest"),
    ("two volumes, one name", "POST", PODS, pod(volumes=[{"name": "a"}, {"name": "a"}]), {}, 422, "Invalid"),
]


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
async def test_bad_input_is_refused_with_a_status(door: Door, case: Any) -> None:
    _, method, path, body, extra, code, reason = case
    await door.client.create(ConfigMap(metadata=ObjectMeta(name="cm", namespace="default"), data={"a": "1"}))
    before = door.server.store.revision
    status, answer = await door.raw(method, path, body, **extra)
    assert status == code, answer
    assert answer["kind"] == "Status"
    assert answer["code"] == code
    if reason:
        assert answer["reason"] == reason
    if code == 422 and reason == "Invalid" and method == "POST" and "dryRun" not in extra:
        assert answer["details"]["causes"]
    assert door.server.store.revision == before
    assert (await door.raw("GET", f"{CONFIG_MAPS}/cm"))[0] == 200


async def test_an_unknown_field_is_stored_without_and_warned_of(door: Door) -> None:
    status, made = await door.raw("POST", CONFIG_MAPS, named("x", foo=1))
    assert status == 201
    assert "foo" not in made
    assert any('unknown field "foo"' in warning.replace("\\", "") for warning in door.warnings)


async def test_a_revision_from_the_future_is_awaited_then_refused(door: Door) -> None:
    status, answer = await door.raw("GET", CONFIG_MAPS, resourceVersion=str(door.server.store.revision + 100))
    assert (status, answer["reason"]) == (504, "Timeout")
    assert answer["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"


async def test_who_is_unknown_sees_health_and_version_only(door: Door) -> None:
    if not door.base_url:
        pytest.skip("only over HTTPS: in process the caller is known")
    context = ssl.create_default_context(cafile=str(door.pki.ca.certificate_path))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
        for path, headers, code in (
            (CONFIG_MAPS, {}, 403),
            ("/apis", {}, 403),
            (CONFIG_MAPS, {"authorization": "Bearer forged"}, 401),
            ("/healthz", {}, 200),
            ("/version", {}, 200),
        ):
            async with session.get(door.base_url + path, headers=headers) as answer:
                assert answer.status == code
                if code == 401:
                    assert (await answer.json())["reason"] == "Unauthorized"
