"""sig-network: Endpoints and EndpointSlices as the loops make them, in a virtual cluster."""

from __future__ import annotations

from typing import Any

from tests.apiserver.pipeline.door import pod, service
from tests.conformance.whole import Whole, whole

SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
ENDPOINTS = "/api/v1/namespaces/default/endpoints"
SERVICES = "/api/v1/namespaces/default/services"
PODS = "/api/v1/namespaces/default/pods"


def of(name: str) -> dict[str, str]:
    return {"labelSelector": f"kubernetes.io/service-name={name}"}


def named(name: str, ports: list[dict[str, Any]]) -> dict[str, Any]:
    made = pod(name)
    made["metadata"]["labels"] = {"app": "web"}
    made["spec"]["containers"][0]["ports"] = ports
    return made


def matching() -> tuple[dict[str, Any], dict[str, Any]]:
    """Two Services of the same pods: one by a named port, one by a number that only the other pod has."""
    by_name = service("web")
    by_name["spec"]["ports"] = [{"name": "example", "port": 80, "targetPort": 3000, "protocol": "TCP"}]
    ports = service("ports")
    ports["spec"] |= {
        "selector": {"app": "web"},
        "ports": [
            {"name": "a", "port": 80, "targetPort": "example-a"},
            {"name": "b", "port": 81, "targetPort": "example-b"},
        ],
    }
    return by_name, ports


async def two_pods(cluster: Whole) -> dict[str, str]:
    """Their addresses, by name."""
    await cluster.make(PODS, named("one", [{"name": "example-a", "containerPort": 3000}]))
    await cluster.make(PODS, named("two", [{"name": "example-b", "containerPort": 3001}]))
    addresses = {}
    for name in ("one", "two"):
        found = await cluster.reach(f"{PODS}/{name}", _is_ready)
        addresses[name] = found["status"]["podIP"]
    return addresses


def _is_ready(found: Any) -> bool:
    conditions = found.get("status", {}).get("conditions", ())
    return any((each["type"], each["status"]) == ("Ready", "True") for each in conditions)


def test_slices_and_endpoints_are_made_for_pods_that_match() -> None:
    """[sig-network] EndpointSlice should create Endpoints and EndpointSlices for Pods matching a Service"""

    async def scenario(cluster: Whole) -> None:
        for each in matching():
            await cluster.make(SERVICES, each)
        addresses = await two_pods(cluster)

        def shape(items: list[Any]) -> list[tuple[list[str], list[int]]]:
            return sorted(
                (
                    sorted(a for each in one.get("endpoints", ()) for a in each["addresses"]),
                    [p["port"] for p in one["ports"]],
                )
                for one in items
                if one.get("endpoints")
            )

        both = [(sorted(addresses.values()), [3000])]
        apart = sorted([([addresses["one"]], [3000]), ([addresses["two"]], [3001])])
        await cluster.until_async(lambda: _slices(cluster, "web"), lambda items: shape(items) == both)
        await cluster.until_async(lambda: _slices(cluster, "ports"), lambda items: shape(items) == apart)
        found = await cluster.reach(f"{ENDPOINTS}/web", lambda each: each.get("subsets"))
        (subset,) = found["subsets"]
        assert sorted(each["ip"] for each in subset["addresses"]) == sorted(addresses.values())
        found = await cluster.reach(f"{ENDPOINTS}/ports", lambda each: len(each.get("subsets", ())) == 2)
        assert sorted((each["addresses"][0]["ip"], each["ports"][0]["port"]) for each in found["subsets"]) == sorted(
            [(addresses["one"], 3000), (addresses["two"], 3001)]
        )

    whole(scenario)


async def _slices(cluster: Whole, name: str) -> list[Any]:
    return await cluster.items(SLICES, **of(name))


def test_endpoints_are_made_for_pods_that_match() -> None:
    """[sig-network] EndpointsController should create Endpoints for Pods matching a Service"""

    async def scenario(cluster: Whole) -> None:
        for each in matching():
            await cluster.make(SERVICES, each)
        addresses = await two_pods(cluster)
        found = await cluster.reach(f"{ENDPOINTS}/web", lambda each: each.get("subsets"))
        (subset,) = found["subsets"]
        targets = {each["targetRef"]["name"]: each["ip"] for each in subset["addresses"]}
        assert targets == addresses
        await cluster.reach(f"{ENDPOINTS}/ports", lambda each: len(each.get("subsets", ())) == 2)

    whole(scenario)


def test_slices_of_a_service_without_pods_come_and_go() -> None:
    """[sig-network] EndpointSlice should create and delete EndpointSlices for a Service with a selector that matches
    no pods"""

    async def scenario(cluster: Whole) -> None:
        asked = service("empty")
        asked["spec"]["selector"] = {"does-not-match-anything": "endpoints-and-endpoint-slices-should-still-be-created"}
        await cluster.make(SERVICES, asked)
        items = await cluster.until_async(lambda: _slices(cluster, "empty"), lambda found: found)
        assert [each.get("endpoints", []) for each in items] == [[]]
        managed = items[0]["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"]
        assert managed == "endpointslice-controller.k8s.io"
        await cluster.reach(f"{ENDPOINTS}/empty", lambda each: not each.get("subsets"))
        await cluster.done("DELETE", f"{SERVICES}/empty")
        await cluster.gone(f"{ENDPOINTS}/empty")
        await cluster.until_async(lambda: _slices(cluster, "empty"), lambda found: not found)

    whole(scenario)


def test_endpoints_of_a_service_without_pods_come_and_go() -> None:
    """[sig-network] EndpointsController should create and delete Endpoints for a Service with a selector that matches
    no pods"""

    async def scenario(cluster: Whole) -> None:
        asked = service("empty")
        asked["spec"]["selector"] = {"does-not-match-anything": "true"}
        await cluster.make(SERVICES, asked)
        await cluster.until_async(
            lambda: cluster.items(ENDPOINTS), lambda found: [each["metadata"]["name"] for each in found] == ["empty"]
        )
        await cluster.done("DELETE", f"{SERVICES}/empty")
        await cluster.gone(f"{ENDPOINTS}/empty")

    whole(scenario)


def test_endpoints_that_somebody_writes_are_mirrored() -> None:
    """[sig-network] EndpointSliceMirroring should mirror a custom Endpoints resource through create update and
    delete"""

    async def scenario(cluster: Whole) -> None:
        asked = service("example-custom-endpoints")
        asked["spec"].pop("selector")
        await cluster.make(SERVICES, asked)
        ports = [{"port": 80}]
        written = {
            "metadata": {"name": "example-custom-endpoints"},
            "subsets": [{"addresses": [{"ip": "10.1.2.3"}], "ports": ports}],
        }
        made = await cluster.make(ENDPOINTS, written)

        def shows(*addresses: str) -> Any:
            def holds(items: list[Any]) -> bool:
                return [a for one in items for each in one["endpoints"] for a in each["addresses"]] == list(addresses)

            return holds

        mirrored = await cluster.until_async(lambda: _slices(cluster, "example-custom-endpoints"), shows("10.1.2.3"))
        manager = "endpointslicemirroring-controller.k8s.io"
        assert mirrored[0]["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] == manager
        made["subsets"][0]["addresses"] = [{"ip": "10.2.3.4"}]
        await cluster.done("PUT", f"{ENDPOINTS}/example-custom-endpoints", made)
        await cluster.until_async(lambda: _slices(cluster, "example-custom-endpoints"), shows("10.2.3.4"))
        await cluster.done("DELETE", f"{ENDPOINTS}/example-custom-endpoints")
        await cluster.until_async(lambda: _slices(cluster, "example-custom-endpoints"), lambda found: not found)

    whole(scenario)
