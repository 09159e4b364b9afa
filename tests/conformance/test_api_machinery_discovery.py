"""sig-api-machinery: what is served can be found, as a whole and group by group; the server tells its version."""

from __future__ import annotations

import re

from tests.apiserver.pipeline.door import Door

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
EXPECTED = (
    ("apps", "v1", "deployments"),
    ("authentication.k8s.io", "v1", "tokenreviews"),
    ("authorization.k8s.io", "v1", "selfsubjectaccessreviews"),
    ("autoscaling", "v1", "horizontalpodautoscalers"),
    ("autoscaling", "v2", "horizontalpodautoscalers"),
    ("batch", "v1", "jobs"),
    ("certificates.k8s.io", "v1", "certificatesigningrequests"),
    ("coordination.k8s.io", "v1", "leases"),
    ("discovery.k8s.io", "v1", "endpointslices"),
    ("events.k8s.io", "v1", "events"),
    ("networking.k8s.io", "v1", "ingresses"),
    ("node.k8s.io", "v1", "runtimeclasses"),
    ("policy", "v1", "poddisruptionbudgets"),
    ("scheduling.k8s.io", "v1", "priorityclasses"),
    ("storage.k8s.io", "v1", "csinodes"),
)
"""What upstream looks for; without the kinds that are extension points."""


async def aggregated(door: Door, path: str) -> set[tuple[str, str, str]]:
    answer = await door.ask("GET", path, accept=AGGREGATED)
    assert answer.headers["content-type"] == AGGREGATED
    document = await door.done("GET", path, accept=AGGREGATED)
    assert (document["kind"], document["apiVersion"]) == ("APIGroupDiscoveryList", "apidiscovery.k8s.io/v2")
    return {
        (group["metadata"].get("name", ""), version["version"], resource["resource"])
        for group in document["items"]
        for version in group["versions"]
        for resource in version["resources"]
    }


async def test_the_aggregated_document_is_what_its_accept_header_asks_for(door: Door) -> None:
    """[sig-api-machinery] AggregatedDiscovery should support raw aggregated discovery endpoint Accept headers"""
    assert set(EXPECTED) <= await aggregated(door, "/apis")
    assert ("", "v1", "namespaces") in await aggregated(door, "/api")


async def test_a_client_of_aggregated_discovery_finds_what_one_of_plain_discovery_finds(door: Door) -> None:
    """[sig-api-machinery] AggregatedDiscovery should support aggregated discovery interface

    A client sends all that it understands, newest first, and falls back to the plain documents.
    """
    both = f"{AGGREGATED},application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json"
    document = await door.done("GET", "/apis", accept=both)
    assert document["kind"] == "APIGroupDiscoveryList"
    found = await aggregated(door, "/apis") | await aggregated(door, "/api")
    assert {*EXPECTED, ("", "v1", "namespaces")} <= found
    plain = set()
    for group in (await door.done("GET", "/apis"))["groups"]:
        for version in group["versions"]:
            for resource in (await door.done("GET", f"/apis/{version['groupVersion']}"))["resources"]:
                if "/" not in resource["name"]:
                    plain.add((group["name"], version["version"], resource["name"]))
    for resource in (await door.done("GET", "/api/v1"))["resources"]:
        if "/" not in resource["name"]:
            plain.add(("", "v1", resource["name"]))
    assert found == plain


async def test_every_group_prefers_a_version_that_it_serves(door: Door) -> None:
    """[sig-api-machinery] Discovery should validate PreferredVersion for each APIGroup"""
    groups = (await door.done("GET", "/apis"))["groups"]
    assert groups
    for listed in groups:
        group = await door.done("GET", f"/apis/{listed['name']}")
        preferred = group["preferredVersion"]
        assert preferred in group["versions"], group
        assert preferred["groupVersion"] == f"{group['name']}/{preferred['version']}"
        assert (group["versions"], preferred) == (listed["versions"], listed["preferredVersion"])


async def test_every_version_lists_its_resources_under_its_own_name(door: Door) -> None:
    """[sig-api-machinery] Discovery should locate the groupVersion and a resource within each APIGroup"""
    wanted = {(group, version): plural for group, version, plural in EXPECTED}
    seen = set()
    for group in (await door.done("GET", "/apis"))["groups"]:
        for version in group["versions"]:
            listed = await door.done("GET", f"/apis/{version['groupVersion']}")
            assert (listed["kind"], listed["groupVersion"]) == ("APIResourceList", version["groupVersion"])
            names = {resource["name"] for resource in listed["resources"]}
            assert names
            key = group["name"], version["version"]
            assert wanted.get(key, min(names)) in names
            seen.add(key)
    assert wanted.keys() <= seen
    core = await door.done("GET", "/api/v1")
    assert core["groupVersion"] == "v1"
    assert "namespaces" in {resource["name"] for resource in core["resources"]}


async def test_the_server_tells_its_version_in_numbers(door: Door) -> None:
    """[sig-api-machinery] server version should find the server version"""
    version = await door.done("GET", "/version")
    assert re.fullmatch(r"[1-9][0-9]*", version["major"])
    assert re.fullmatch(r"[1-9][0-9]*", version["minor"])
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", version["buildDate"])
    assert all(version[field] for field in ("goVersion", "compiler", "platform", "gitTreeState"))
    assert version["gitVersion"].startswith(f"v{version['major']}.{version['minor']}.")


async def test_what_has_no_rows_is_not_shown_as_a_table(door: Door) -> None:
    """[sig-api-machinery] Servers with support for Table transformation should return a 406 for a backend which does
    not implement metadata"""
    body = {
        "kind": "SelfSubjectAccessReview",
        "apiVersion": "authorization.k8s.io/v1",
        "spec": {"resourceAttributes": {"verb": "list", "resource": "pods", "namespace": "default"}},
    }
    table = "application/json;as=Table;v=v1;g=meta.k8s.io"
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    status, refused = await door("POST", path, body, accept=table)
    assert (status, refused["reason"], refused["code"]) == (406, "NotAcceptable", 406)
    assert (await door.done("POST", path, body, accept=f"{table},application/json"))["status"]["allowed"] is True
    metadata = await door.done("POST", path, body, accept=table.replace("Table", "PartialObjectMetadata"))
    assert metadata["kind"] == "PartialObjectMetadata"
