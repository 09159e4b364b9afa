"""Discovery and OpenAPI: whole in themselves, and what upstream says of the kinds that are served."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from knarr.api.registry import built_in
from knarr.client.transport import Request
from tests.apiserver.pipeline.door import ADMINISTRATOR, Door

UPSTREAM = Path("/work/shared/upstream-1.36")
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"

has_upstream = pytest.mark.skipif(not UPSTREAM.exists(), reason=f"{UPSTREAM} is not there")


READ_ONLY = {"customresourcedefinitions": ["get", "list", "watch"]}
"""Of kinds that are served in part, what differs from upstream's discovery: the verbs, and so the subresources and the
hash of what is stored."""


def known_as_served(resource: dict[str, Any], name: str) -> dict[str, Any]:
    """Upstream's entry of a resource, but for what is known to differ."""
    if verbs := READ_ONLY.get(name):
        resource = {**resource, "verbs": verbs}
        if "storageVersionHash" in resource:
            resource["storageVersionHash"] = "M5uH+AlWATY="
        if "subresources" in resource:
            resource["subresources"] = []
    return resource


async def test_groups_and_versions_are_listed(door: Door) -> None:
    assert (await door.done("GET", "/api"))["versions"] == ["v1"]
    groups = (await door.done("GET", "/apis"))["groups"]
    assert {group["name"] for group in groups} == {resource.group for resource in built_in() if resource.group}
    for group in groups:
        assert (await door.done("GET", f"/apis/{group['name']}"))["preferredVersion"] == group["preferredVersion"]


async def test_aggregated_discovery_says_what_the_plain_one_does(door: Door) -> None:
    for root in ("/api", "/apis"):
        for group in (await door.done("GET", root, accept=AGGREGATED))["items"]:
            for version in group["versions"]:
                place = f"/apis/{group['metadata']['name']}" if root == "/apis" else root
                plain = await door.done("GET", f"{place}/{version['version']}")
                listed = {each["resource"] for each in version["resources"]}
                listed |= {
                    f"{each['resource']}/{sub['subresource']}"
                    for each in version["resources"]
                    for sub in each.get("subresources", ())
                }
                assert listed == {each["name"] for each in plain["resources"]}


@has_upstream
@pytest.mark.parametrize("place", sorted({resource.path().rpartition("/")[0] for resource in built_in()}))
async def test_resources_are_upstreams(door: Door, place: str) -> None:
    theirs = json.loads((UPSTREAM / "discovery" / f"{place.strip('/').replace('/', '__')}.json").read_text())
    known = {each["name"]: each for each in theirs["resources"]}
    for ours in (await door.done("GET", place))["resources"]:
        expected = known_as_served(known[ours["name"]], ours["name"])
        assert {**ours, "verbs": sorted(ours["verbs"])} == {**expected, "verbs": sorted(expected["verbs"])}


@has_upstream
async def test_aggregated_discovery_is_upstreams(door: Door) -> None:
    theirs = json.loads((UPSTREAM / "discovery" / "aggregated_v2.json").read_text())
    known = {group["metadata"]["name"]: group for group in theirs["items"]}
    ours = await door.done("GET", "/apis", accept=AGGREGATED)
    assert [ours[key] for key in ("kind", "apiVersion", "metadata")] == [
        theirs[key] for key in ("kind", "apiVersion", "metadata")
    ]
    names = [group["metadata"]["name"] for group in ours["items"]]
    assert names == [name for name in known if name in names]
    for group in ours["items"]:
        versions = {version["version"]: version for version in known[group["metadata"]["name"]]["versions"]}
        served = [version["version"] for version in group["versions"]]
        assert served == [version for version in versions if version in served]
        for version in group["versions"]:
            expected = {each["resource"]: each for each in versions[version["version"]]["resources"]}
            for resource in version["resources"]:
                assert by_name(resource) == by_name(
                    known_as_served(expected[resource["resource"]], resource["resource"])
                )


def by_name(resource: dict[str, Any]) -> dict[str, Any]:
    """A resource of aggregated discovery, its lists in an order of their own."""
    parts = [{**part, "verbs": sorted(part["verbs"])} for part in resource.get("subresources", ())]
    sorted_parts = sorted(parts, key=lambda part: str(part["subresource"]))
    return {**resource, "verbs": sorted(resource["verbs"]), "subresources": sorted_parts}


async def test_a_client_that_has_the_aggregated_discovery_is_not_sent_it_again(door: Door) -> None:
    for root in ("/api", "/apis"):
        first = await door.ask("GET", root, accept=AGGREGATED)
        assert first.headers["content-type"] == AGGREGATED.partition(",")[0]
        assert (first.headers["vary"], first.headers["cache-control"]) == ("Accept", "public")
        again = await door.server.handle(
            Request("GET", root, {}, {"accept": AGGREGATED, "if-none-match": first.headers["etag"]}, user=ADMINISTRATOR)
        )
        assert (again.status, again.body, again.headers["etag"]) == (304, b"", first.headers["etag"])


async def test_kubectl_before_1_30_gets_the_aggregated_discovery_that_it_knows(door: Door) -> None:
    older = AGGREGATED.replace("v=v2;", "v=v2beta1;")
    answer = await door.ask("GET", "/apis", accept=older)
    assert answer.headers["content-type"] == older.partition(",")[0]
    newer = await door.done("GET", "/apis", accept=AGGREGATED)
    assert json.loads(answer.body) == {**newer, "apiVersion": "apidiscovery.k8s.io/v2beta1"}
    assert "versions" in await door.done("GET", "/api", accept=AGGREGATED.replace("v=v2;", "v=v3;"))


def references(data: Any) -> Iterator[str]:
    if isinstance(data, dict):
        for key, value in data.items():
            if key == "$ref" and isinstance(value, str):  # JSONSchemaProps has a field of that name.
                yield value
            else:
                yield from references(value)
    elif isinstance(data, list):
        for value in data:
            yield from references(value)


async def test_every_reference_of_openapi_leads_somewhere(door: Door) -> None:
    index = await door.done("GET", "/openapi/v3")
    for place, entry in index["paths"].items():
        path, _, query = entry["serverRelativeURL"].partition("?")
        assert query.startswith("hash=")
        document = await door.done("GET", path)
        schemas = document["components"]["schemas"]
        assert {each.removeprefix("#/components/schemas/") for each in references(document)} <= set(schemas), place
    swagger = await door.done("GET", "/openapi/v2")
    told = {f"#/{part}/{name}" for part in ("definitions", "parameters") for name in swagger[part]}
    assert set(references(swagger)) <= told


async def test_writes_take_field_validation_and_kinds_are_named(door: Door) -> None:
    document = await door.done("GET", "/openapi/v3/apis/apps/v1")
    post = document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments"]["post"]
    assert "fieldValidation" in {parameter["name"] for parameter in post["parameters"]}
    assert post["x-kubernetes-group-version-kind"] == {"group": "apps", "version": "v1", "kind": "Deployment"}
    schema = document["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"]
    assert schema["x-kubernetes-group-version-kind"] == [{"group": "apps", "version": "v1", "kind": "Deployment"}]


@has_upstream
async def test_schemas_merge_as_upstreams_do(door: Door) -> None:
    theirs = json.loads((UPSTREAM / "swagger.json").read_text())["definitions"]
    ours = (await door.done("GET", "/openapi/v2"))["definitions"]
    keys = ("x-kubernetes-patch-merge-key", "x-kubernetes-patch-strategy", "x-kubernetes-list-map-keys")
    wrong = [
        (name, field, key)
        for name, schema in ours.items()
        for field, shape in schema.get("properties", {}).items()
        for key in keys
        if field in theirs.get(name, {}).get("properties", {})
        and shape.get(key) != theirs[name]["properties"][field].get(key)
    ]
    assert wrong == []


def upstream_resources() -> dict[tuple[str, str, str], dict[str, Any]]:
    """(group, version, resource) → what upstream says of it in its aggregated discovery, for what is stable."""
    document = json.loads((UPSTREAM / "discovery" / "aggregated_v2.json").read_text())
    return {
        (group["metadata"].get("name", ""), version["version"], each["resource"]): each
        for group in document["items"]
        for version in group["versions"]
        if version["version"] in ("v1", "v2")
        for each in version["resources"]
        if group["metadata"].get("name", "") not in EXTENSIONS
    }


EXTENSIONS = ("admissionregistration.k8s.io", "apiextensions.k8s.io")
"""Groups that are not served."""


def comparable(entry: dict[str, Any]) -> dict[str, Any]:
    """Without the order of verbs and subresources, and without groups and versions, which the file leaves out."""
    found = {key: value for key, value in entry.items() if key not in ("responseKind", "subresources")}
    subresources = {each["subresource"]: each for each in entry.get("subresources", ())}
    return found | {
        "kind": entry["responseKind"]["kind"],
        "verbs": sorted(entry["verbs"]),
        "subresources": {
            name: (each["responseKind"]["kind"], sorted(each["verbs"])) for name, each in subresources.items()
        },
    }


@has_upstream
async def test_every_stable_resource_is_served_as_upstream_serves_it(door: Door) -> None:
    ours = {
        (group["metadata"].get("name", ""), version["version"], each["resource"]): each
        for root in ("/api", "/apis")
        for group in (await door.done("GET", root, accept=AGGREGATED))["items"]
        for version in group["versions"]
        for each in version["resources"]
    }
    theirs = upstream_resources()
    assert theirs
    assert sorted(theirs.keys() - ours.keys()) == []
    for key, entry in theirs.items():
        assert comparable(ours[key]) == comparable(entry), key


@has_upstream
async def test_every_resource_of_the_core_group_is_served(door: Door) -> None:
    """The aggregated file leaves the core group out."""
    theirs = json.loads((UPSTREAM / "discovery" / "api__v1.json").read_text())["resources"]
    ours = (await door.done("GET", "/api/v1"))["resources"]
    assert {each["name"] for each in ours} == {each["name"] for each in theirs}
