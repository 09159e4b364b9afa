"""Whatever JSON comes for whatever kind: an answer below 500, and a server that goes on."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from knarr.api.registry import built_in
from knarr.api.resources import Resource
from knarr.api.types import Struct
from knarr.client.client import JSON_PATCH, MERGE_PATCH, STRATEGIC_MERGE_PATCH
from tests.apiserver.pipeline.door import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    PODS,
    SERVICES,
    Door,
    config_map,
    deployment,
    pod,
    service,
)
from tests.apiserver.pipeline.lasting import Server, lasting_server

RESOURCES = {resource.qualified: resource for resource in built_in()}

ODD = [None, {}, [], "", "x", 0, -1, 2**40, True, 1.5, [None], [{}], [[]], {"": None}, {"a": {}}, "\u0000", "é" * 300]

SEEDS = {PODS: pod("a"), DEPLOYMENTS: deployment("a"), SERVICES: service("a"), CONFIG_MAPS: config_map("a", x="1")}

json_data = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def minimal(resource: Resource) -> dict[str, Any]:
    return {"apiVersion": resource.group_version, "kind": resource.kind, "metadata": {"name": "a"}}


def fields(kind: type[Any]) -> Iterator[str]:
    return (info.encode_name for info in msgspec.structs.fields(kind) if info.encode_name not in ("apiVersion", "kind"))


async def harmless(door: Door, method: str, path: str, body: Any, **more: Any) -> None:
    answer = await door.ask(method, path, body, **more)
    assert answer.status < 500, (method, path, body, answer.body)


@pytest.mark.parametrize("name", sorted(RESOURCES))
async def test_odd_values_in_every_field(door: Door, name: str) -> None:
    resource = RESOURCES[name]
    collection = resource.path("default" if resource.namespaced else None)
    await harmless(door, "POST", collection, minimal(resource), dryRun="All")
    for field in fields(resource.type):
        for value in ODD:
            body = minimal(resource) | {field: value}
            await harmless(door, "POST", collection, body, dryRun="All")
            for subresource in ("", *(f"/{each}" for each in resource.subresources)):
                await harmless(door, "PUT", f"{collection}/a{subresource}", body)
                await harmless(door, "POST", f"{collection}/a{subresource}", body)
    hint = next((info.type for info in msgspec.structs.fields(resource.type) if info.name == "spec"), None)
    spec_kind = next((each for each in getattr(hint, "__args__", (hint,)) if isinstance(each, type)), None)
    if spec_kind is not None and issubclass(spec_kind, Struct):
        for field in fields(spec_kind):
            for value in ODD:
                await harmless(door, "POST", collection, minimal(resource) | {"spec": {field: value}}, dryRun="All")


def mutants(value: Any) -> Iterator[Any]:
    """`value` with one part of it replaced by each odd value, part by part."""
    if isinstance(value, dict):
        for key in value:
            for replaced in (*ODD, *mutants(value[key])):
                yield value | {key: replaced}
    elif isinstance(value, list):
        for index in range(len(value)):
            for replaced in (*ODD, *mutants(value[index])):
                yield [*value[:index], replaced, *value[index + 1 :]]


@pytest.mark.parametrize("path", sorted(SEEDS))
async def test_real_objects_with_one_part_odd(door: Door, path: str) -> None:
    seed = SEEDS[path]
    await door.done("POST", path, seed)
    for number, body in enumerate(mutants(seed)):
        await harmless(door, "POST", path, body, dryRun="All")
        await harmless(door, "PUT", f"{path}/a", body, dryRun="All")
        media = (MERGE_PATCH, STRATEGIC_MERGE_PATCH)[number % 2]
        await harmless(door, "PATCH", f"{path}/a", body, content_type=media, dryRun="All")
    assert (await door("GET", f"{path}/a"))[0] == 200


DIRECTIVES = (
    "$patch",
    "$retainKeys",
    "$setElementOrder/containers",
    "$deleteFromPrimitiveList/containers",
    "containers",
)


@pytest.mark.parametrize("directive", DIRECTIVES)
async def test_odd_directives(door: Door, directive: str) -> None:
    await door.done("POST", DEPLOYMENTS, deployment("a"))
    odd = [*ODD, [{"name": {}}], [{"name": "c"}, {"name": []}], [{"$patch": "odd", "name": "c"}], ["c", 1], [["c"]]]
    for value in odd:
        for beside in ({}, {"containers": [{"name": "c"}]}, {"$setElementOrder/containers": value}):
            body = {"spec": {"template": {"spec": {directive: value} | beside}}}
            await harmless(door, "PATCH", f"{DEPLOYMENTS}/a", body, content_type=STRATEGIC_MERGE_PATCH, dryRun="All")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    yield from lasting_server()


NUMBERS = itertools.count()


def made(server: Server, path: str) -> str:
    """The path of a new object like those of SEEDS."""
    name = f"made-{next(NUMBERS)}"
    status, answer = server.harmless("POST", path, SEEDS[path] | {"metadata": {"name": name}})
    assert status == 201, answer
    return f"{path}/{name}"


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(path=st.sampled_from(sorted(SEEDS)), patches=st.lists(json_data, max_size=4), data=st.data())
def test_any_patch(server: Server, path: str, patches: list[Any], data: st.DataObject) -> None:
    media = data.draw(st.sampled_from([MERGE_PATCH, STRATEGIC_MERGE_PATCH]))
    wrapped = [data.draw(st.sampled_from([each, {"spec": each}, {"metadata": each}])) for each in patches]
    place = made(server, path)
    for each in wrapped:
        server.harmless("PATCH", place, msgspec.json.encode(each), media)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    path=st.sampled_from(sorted(SEEDS)),
    steps=st.lists(
        st.fixed_dictionaries(
            {"op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test", "odd"])},
            optional={
                "path": st.sampled_from(
                    ["", "/", "/spec", "/metadata/name", "/metadata/labels/a~1b", "/spec/ports/-", "/spec/ports/0"]
                ),
                "from": st.sampled_from(["", "/spec", "/metadata", "/data/x"]),
                "value": json_data,
            },
        ),
        max_size=6,
    ),
)
def test_any_json_patch(server: Server, path: str, steps: list[dict[str, Any]]) -> None:
    server.harmless("PATCH", made(server, path), steps, JSON_PATCH)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    body=st.binary(max_size=200),
    media=st.sampled_from(["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"]),
)
def test_any_bytes(server: Server, body: bytes, media: str) -> None:
    prefix = b"k8s\x00" if "protobuf" in media else b""
    server.harmless("POST", PODS, prefix + body, media)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    query=st.dictionaries(
        st.sampled_from(
            ["labelSelector", "fieldSelector", "limit", "continue", "resourceVersion", "resourceVersionMatch", "pretty"]
        ),
        st.text(max_size=20) | st.sampled_from(["0", "1", "-1", "a in (b)", "!a", "Exact", "NotOlderThan"]),
    )
)
def test_any_query(server: Server, query: dict[str, str]) -> None:
    server.harmless("GET", PODS, **query)
