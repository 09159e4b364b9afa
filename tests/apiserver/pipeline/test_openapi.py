"""How the documents of OpenAPI are asked for: forms, compression, and copies that clients keep."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from knarr.api.core.v1 import ConfigMap
from knarr.api.registry import built_in
from knarr.api.resources import Registry
from knarr.apiserver.openapi import Documents
from knarr.apiserver.openapi_protobuf import MEDIA_TYPE, MEDIA_TYPES
from knarr.apiserver.protobuf import wire_fields
from knarr.client.transport import Answer, Request
from tests.apiserver.pipeline.door import ADMINISTRATOR, CONFIG_MAPS, Door, config_map

PLACES_ABOUT_SERVER = {"api", "apis", "version", ".well-known/openid-configuration", "openid/v1/jwks"}


async def ask(door: Door, path: str, **headers: str) -> Answer:
    path, _, query = path.partition("?")
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    parameters = dict([query.split("=")]) if query else {}
    return await door.server.handle(Request("GET", path, parameters, named, user=ADMINISTRATOR))


async def test_every_document_of_the_index_can_be_had_and_kept_for_ever(door: Door) -> None:
    index = json.loads((await ask(door, "/openapi/v3")).body)["paths"]
    assert set(index) >= PLACES_ABOUT_SERVER | {"api/v1", "apis/apps", "apis/apps/v1"}
    for place, entry in index.items():
        answer = await ask(door, entry["serverRelativeURL"])
        assert answer.status == 200, place
        assert answer.headers["cache-control"] == "public, immutable"
        assert answer.headers["expires"].endswith("GMT")
        assert answer.headers["etag"] == f'"{entry["serverRelativeURL"].partition("hash=")[2]}"'
        document = json.loads(answer.body)
        assert document["openapi"] == "3.0.0"
        assert document["paths"], place


async def test_an_old_hash_leads_to_the_present_document(door: Door) -> None:
    answer = await ask(door, "/openapi/v3/api/v1?hash=OLD")
    assert answer.status == 301
    assert (await ask(door, answer.headers["location"])).status == 200
    assert "cache-control" not in (await ask(door, "/openapi/v3/api/v1")).headers
    assert (await ask(door, "/openapi/v3/apis/nothing.example/v1?hash=OLD")).status == 404


@pytest.mark.parametrize("path", ["/openapi/v2", "/openapi/v3/apis/apps/v1"])
async def test_a_client_that_has_a_document_is_not_sent_it_again(door: Door, path: str) -> None:
    tag = (await ask(door, path)).headers["etag"]
    for written in (tag, f'W/{tag}, "other"', "*"):
        again = await ask(door, path, if_none_match=written)
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
    assert (await ask(door, path, if_none_match='"other"')).status == 200


async def test_whether_a_copy_is_good_is_told_without_making_the_document() -> None:
    documents = Documents(built_in())
    digest = documents.digest("api/v1")
    assert documents.ready(("api/v1", "application/json", False)) is None
    documents.made(("api/v1", "application/json", False))
    assert documents.digest("api/v1") == digest


async def test_documents_follow_what_is_served() -> None:
    registry = Registry()
    for resource in built_in():
        if resource.type is not ConfigMap:
            registry.add(resource)
    documents = Documents(registry)
    form = "api/v1", "application/json", False
    before, digest = documents.made(form), documents.digest("api/v1")
    registry.add(built_in().of(ConfigMap))
    assert documents.ready(form) is None
    assert b"/configmaps" in documents.made(form)
    assert b"/configmaps" not in before
    assert documents.digest("api/v1") != digest
    assert documents.digest("apis/apps/v1") == Documents(built_in()).digest("apis/apps/v1")


async def test_documents_are_sent_compressed_to_who_can_read_that(door: Door) -> None:
    for path in ("/openapi/v2", "/openapi/v3/version"):
        plain, packed = await ask(door, path), await ask(door, path, accept_encoding="gzip, br")
        assert packed.headers["content-encoding"] == "gzip"
        assert "Accept-Encoding" in packed.headers["vary"]
        assert gzip.decompress(packed.body) == plain.body


def name(entry: bytes) -> str:
    """Of an entry of a map."""
    found: bytes = next(value for at, value in wire_fields(entry) if at == 1)
    return found.decode()


async def test_version_2_is_told_in_protobuf_to_who_asks_for_that(door: Door) -> None:
    for accept in MEDIA_TYPES:
        answer = await ask(door, "/openapi/v2", accept=accept)
        assert answer.headers["content-type"] == MEDIA_TYPE
        swagger = await door.done("GET", "/openapi/v2")
        told = {number: [value for at, value in wire_fields(answer.body) if at == number] for number in (1, 8, 9, 10)}
        assert told[1] == [b"2.0"]
        for number, part, entry in ((8, "paths", 2), (9, "definitions", 1), (10, "parameters", 1)):
            names = [name(value) for at, value in wire_fields(told[number][0]) if at == entry]
            assert names == list(swagger[part])
    for accept in ("text/html", "application/x-thing"):
        refused = await ask(door, "/openapi/v2", accept=accept)
        assert (refused.status, json.loads(refused.body)["reason"]) == (406, "NotAcceptable")


async def test_only_reading_is_allowed(door: Door) -> None:
    assert (await door("POST", "/openapi/v2", {}))[0] == 405
    assert (await door.ask("HEAD", "/openapi/v3")).status == 200


def operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [value for item in document["paths"].values() for key, value in item.items() if key != "parameters"]


async def test_no_operation_has_the_name_of_another(door: Door) -> None:
    swagger = await door.done("GET", "/openapi/v2")
    names = [operation["operationId"] for operation in operations(swagger)]
    assert len(names) == len(set(names))


async def test_both_versions_tell_the_same_operations(door: Door) -> None:
    swagger = await door.done("GET", "/openapi/v2")
    expected = {operation["operationId"] for operation in operations(swagger)}
    found: list[str] = []
    for place in (await door.done("GET", "/openapi/v3"))["paths"]:
        document = await door.done("GET", f"/openapi/v3/{place}")
        found += [operation["operationId"] for operation in operations(document)]
        for operation in operations(document):
            assert "401" in operation["responses"]
            for parameter in operation.get("parameters", ()):
                assert "type" in parameter["schema"]
                assert parameter["in"] != "body"
    assert sorted(found) == sorted(expected)


async def test_version_3_says_the_zeros_of_what_is_always_written(door: Door) -> None:
    schemas = (await door.done("GET", "/openapi/v3/api/v1"))["components"]["schemas"]
    container = schemas["io.k8s.api.core.v1.Container"]["properties"]
    assert container["name"]["default"] == ""
    assert container["args"]["items"]["default"] == ""
    assert "default" not in container["image"]
    pod = schemas["io.k8s.api.core.v1.Pod"]["properties"]
    assert pod["metadata"]["default"] == {}
    assert pod["metadata"]["allOf"] == [
        {"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}
    ]


async def test_the_deprecated_watch_paths_are_watches(door: Door) -> None:
    await door.done("POST", CONFIG_MAPS, config_map("one"))
    await door.done("POST", CONFIG_MAPS, config_map("two"))
    for path, names in (
        ("/api/v1/watch/configmaps", {"one", "two"}),
        ("/api/v1/watch/namespaces/default/configmaps/two", {"two"}),
    ):
        async with door.watch(path) as events:
            seen: set[str] = set()
            while not names <= seen:
                kind, obj = await events.next()
                assert kind == "ADDED"
                seen.add(obj["metadata"]["name"])
        assert seen == names or path == "/api/v1/watch/configmaps"
    assert (await door("POST", "/api/v1/watch/namespaces/default/configmaps", config_map("three")))[0] in (404, 405)
    assert (await door("GET", "/apis/apps/v1/watch/nothing"))[0] == 404


async def test_the_keys_of_the_issuer_have_their_own_media_type(door: Door) -> None:
    assert (await ask(door, "/openid/v1/jwks")).headers["content-type"] == "application/jwk-set+json"
    assert (await ask(door, "/.well-known/openid-configuration/")).headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("path", "kind", "more"),
    [
        ("/api/v1/namespaces/default/serviceaccounts", "ServiceAccount", {}),
        ("/api/v1/namespaces/default/resourcequotas", "ResourceQuota", {"spec": {"hard": {"pods": "9"}}}),
        ("/apis/storage.k8s.io/v1/storageclasses", "StorageClass", {"provisioner": "example.com/disks"}),
        (CONFIG_MAPS, "Status", {}),
    ],
)
async def test_a_delete_answers_what_openapi_says(door: Door, path: str, kind: str, more: dict[str, Any]) -> None:
    """The object that is gone, or a Status."""
    await door.done("POST", path, {"metadata": {"name": "gone"}, **more})
    assert (await door.done("DELETE", f"{path}/gone"))["kind"] == kind
    place = path.replace("/namespaces/default", "/namespaces/{namespace}")
    swagger = await door.done("GET", "/openapi/v2")
    told = swagger["paths"][f"{place}/{{name}}"]["delete"]["responses"]["200"]["schema"]["$ref"]
    assert told.endswith(f".{kind}")


async def test_the_root_names_what_can_be_asked_for(door: Door) -> None:
    door.server.ready = True
    for path in (await door.done("GET", "/"))["paths"]:
        assert (await ask(door, path)).status == 200, path
