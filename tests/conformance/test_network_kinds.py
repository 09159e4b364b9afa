"""sig-network: the kinds of services, endpoints, addresses and ingresses, through the API."""

from __future__ import annotations

from typing import Any

from tests.apiserver.pipeline.door import SERVICES, Door, namespace, service
from tests.conformance.operations import MERGE, deletions, discovered, main_operations

DISCOVERY, NETWORKING = "discovery.k8s.io", "networking.k8s.io"
SLICES = f"/apis/{DISCOVERY}/v1/namespaces/default/endpointslices"
ENDPOINTS = "/api/v1/namespaces/default/endpoints"
INGRESSES = f"/apis/{NETWORKING}/v1/namespaces/default/ingresses"
CLASSES = f"/apis/{NETWORKING}/v1/ingressclasses"
RANGES = f"/apis/{NETWORKING}/v1/servicecidrs"
ADDRESSES = f"/apis/{NETWORKING}/v1/ipaddresses"
LABELS = {"special-label": "e2e"}
SELECTOR = {"labelSelector": "special-label=e2e"}


async def test_endpoint_slices_offer_all_operations(door: Door) -> None:
    """[sig-network] EndpointSlice should support creating EndpointSlice API operations"""
    await discovered(door, DISCOVERY, "v1", "endpointslices")
    template = {
        "metadata": {"generateName": "e2e-example-endpointslice-", "labels": LABELS},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["1.2.3.4", "5.6.7.8"]}],
    }
    made = await main_operations(door, SLICES, template, SELECTOR)
    await deletions(door, SLICES, made["metadata"]["name"], SELECTOR)


async def test_endpoints_live(door: Door) -> None:
    """[sig-network] Endpoints should test the lifecycle of an Endpoint"""
    labels = {"test-endpoint-static": "true"}
    subset = {"addresses": [{"ip": "10.0.0.24"}], "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}
    made = await door.done(
        "POST", ENDPOINTS, {"metadata": {"name": "testservice", "labels": labels}, "subsets": [subset]}
    )
    revision, selected = made["metadata"]["resourceVersion"], {"labelSelector": "test-endpoint-static=true"}
    async with door.watch("/api/v1/endpoints", resourceVersion=revision, **selected) as events:
        assert [
            each["metadata"]["name"] for each in (await door.done("GET", "/api/v1/endpoints", **selected))["items"]
        ] == ["testservice"]
        made["metadata"]["labels"]["test-service"] = "updated"
        updated = await door.done("PUT", f"{ENDPOINTS}/testservice", made)
        assert updated["metadata"]["labels"]["test-service"] == "updated"
        assert await door.done("GET", f"{ENDPOINTS}/testservice") == updated
        other = {"addresses": [{"ip": "10.0.0.25"}], "ports": [{"name": "http-test", "port": 8080, "protocol": "TCP"}]}
        patch = {"metadata": {"labels": {"test-service": "patched"}}, "subsets": [other]}
        patched = await door.done("PATCH", f"{ENDPOINTS}/testservice", patch, content_type=MERGE)
        assert patched["subsets"] == [other]
        assert patched["metadata"]["labels"]["test-service"] == "patched"
        await door.done("DELETE", ENDPOINTS, **selected)
        assert await events.take(3) == [(kind, "testservice") for kind in ("MODIFIED", "MODIFIED", "DELETED")]
    assert (await door("GET", f"{ENDPOINTS}/testservice"))[0] == 404


async def test_ingresses_offer_all_operations(door: Door) -> None:
    """[sig-network] Ingress API should support creating Ingress API operations"""
    await discovered(door, NETWORKING, "v1", "ingresses", "status")
    backend = {"service": {"name": "default-backend", "port": {"number": 8080}}}
    template = {
        "metadata": {"generateName": "e2e-example-ing", "labels": LABELS},
        "spec": {"defaultBackend": backend, "rules": [_rule("foo.bar.com", "/")]},
    }
    made = await main_operations(door, INGRESSES, template, SELECTOR)
    path = f"{INGRESSES}/{made['metadata']['name']}/status"
    status = {"loadBalancer": {"ingress": [{"ip": "169.1.1.1"}]}}
    patch = {"metadata": {"annotations": {"patchedstatus": "true"}}, "status": status}
    patched = await door.done("PATCH", path, patch, content_type=MERGE)
    assert (patched["status"], patched["metadata"]["annotations"]["patchedstatus"]) == (status, "true")
    patched["status"] = {"loadBalancer": {"ingress": [{"ip": "169.1.1.2"}]}}
    assert (await door.done("PUT", path, patched))["status"] == patched["status"]
    assert (await door.done("GET", path))["metadata"]["uid"] == made["metadata"]["uid"]
    await deletions(door, INGRESSES, made["metadata"]["name"], SELECTOR)


def _rule(host: str, path: str) -> dict[str, Any]:
    backend = {"service": {"name": "test-backend", "port": {"number": 8080}}}
    return {"host": host, "http": {"paths": [{"path": path, "pathType": "Prefix", "backend": backend}]}}


async def test_ingress_classes_offer_all_operations(door: Door) -> None:
    """[sig-network] IngressClass API should support creating IngressClass API operations"""
    await discovered(door, NETWORKING, "v1", "ingressclasses")
    parameters = {"apiGroup": "k8s.example.com", "kind": "IngressParameters", "name": "external-lb", "scope": "Cluster"}
    template = {
        "metadata": {"generateName": "e2e-example-ingressclass-", "labels": LABELS},
        "spec": {"controller": "example.com/controller", "parameters": parameters},
    }
    made = await main_operations(door, CLASSES, template, SELECTOR)
    await deletions(door, CLASSES, made["metadata"]["name"], SELECTOR)


async def test_service_ranges_offer_all_operations(door: Door) -> None:
    """[sig-network] ServiceCIDR and IPAddress API should support ServiceCIDR API operations"""
    await discovered(door, NETWORKING, "v1", "servicecidrs", "status")
    made = await door.done(
        "POST", RANGES, {"metadata": {"name": "test-svc-cidr"}, "spec": {"cidrs": ["10.196.196.0/24"]}}
    )
    assert await door.done("GET", f"{RANGES}/test-svc-cidr") == made
    listed = await door.done("GET", RANGES)
    assert {each["metadata"]["name"] for each in listed["items"]} == {"kubernetes", "test-svc-cidr"}
    async with door.watch(RANGES, resourceVersion=listed["metadata"]["resourceVersion"]) as events:
        patch = {"metadata": {"labels": {"test-svc-cidr": "patched"}}}
        patched = await door.done("PATCH", f"{RANGES}/test-svc-cidr", patch, content_type=MERGE)
        patched["metadata"]["labels"]["test-svc-cidr"] = "updated"
        await door.done("PUT", f"{RANGES}/test-svc-cidr", patched)
        assert await events.take(2) == [("MODIFIED", "test-svc-cidr")] * 2
    condition = {"type": "StatusPatched", "status": "True", "reason": "E2E", "message": "Set by an e2e test"}
    patch = {"status": {"conditions": [condition]}}
    patched = await door.done("PATCH", f"{RANGES}/test-svc-cidr/status", patch, content_type=MERGE)
    patched["status"]["conditions"].append({**condition, "type": "StatusUpdated"})
    updated = await door.done("PUT", f"{RANGES}/test-svc-cidr/status", patched)
    assert [each["type"] for each in updated["status"]["conditions"]] == ["StatusPatched", "StatusUpdated"]
    await door.done("DELETE", RANGES, labelSelector="test-svc-cidr=updated")
    assert (await door("GET", f"{RANGES}/test-svc-cidr"))[0] == 404


async def test_addresses_offer_all_operations(door: Door) -> None:
    """[sig-network] ServiceCIDR and IPAddress API should support IPAddress API operations"""
    await discovered(door, NETWORKING, "v1", "ipaddresses")
    parent = {"resource": "services", "namespace": "default", "name": "foo"}

    def address(name: str) -> dict[str, Any]:
        return {"metadata": {"name": name, "labels": {"ip-address": name}}, "spec": {"parentRef": parent}}

    made = await door.done("POST", ADDRESSES, address("10.196.196.1"))
    assert await door.done("GET", f"{ADDRESSES}/10.196.196.1") == made
    listed = await door.done("GET", ADDRESSES, labelSelector="ip-address=10.196.196.1")
    assert len(listed["items"]) == 1
    async with door.watch(ADDRESSES, resourceVersion=listed["metadata"]["resourceVersion"]) as events:
        patch = {"metadata": {"labels": {"ip-address": "patched"}}}
        patched = await door.done("PATCH", f"{ADDRESSES}/10.196.196.1", patch, content_type=MERGE)
        patched["metadata"]["labels"]["ip-address"] = "updated"
        await door.done("PUT", f"{ADDRESSES}/10.196.196.1", patched)
        assert await events.take(2) == [("MODIFIED", "10.196.196.1")] * 2
    await door.done("DELETE", f"{ADDRESSES}/10.196.196.1")
    assert (await door("GET", f"{ADDRESSES}/10.196.196.1"))[0] == 404
    await door.done("POST", ADDRESSES, address("10.196.196.2"))
    await door.done("DELETE", ADDRESSES, labelSelector="ip-address=10.196.196.2")
    assert (await door("GET", f"{ADDRESSES}/10.196.196.2"))[0] == 404


# Services


async def test_the_status_of_a_service_lives(door: Door) -> None:
    """[sig-network] Services should complete a service status lifecycle"""
    name, selected = "test-service", {"labelSelector": "test-service-static=true"}
    asked = service(name, type="LoadBalancer", loadBalancerClass="example.com/internal-vip")
    asked["metadata"]["labels"] = {"test-service-static": "true"}
    made = await door.done("POST", SERVICES, asked)
    path = f"{SERVICES}/{name}/status"
    async with door.watch(
        "/api/v1/services", resourceVersion=made["metadata"]["resourceVersion"], **selected
    ) as events:
        assert (await door.done("GET", path))["status"] == {"loadBalancer": {}}
        status = {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}}
        patch = {"metadata": {"annotations": {"patchedstatus": "true"}}, "status": status}
        patched = await door.done("PATCH", path, patch, content_type=MERGE)
        assert patched["status"]["loadBalancer"]["ingress"] == [{"ip": "203.0.113.1", "ipMode": "VIP"}]
        assert patched["metadata"]["annotations"]["patchedstatus"] == "true"
        condition = {"type": "StatusUpdate", "status": "True", "reason": "E2E", "message": "Set from e2e test"}
        patched["status"]["conditions"] = [condition]
        updated = await door.done("PUT", path, patched)
        assert [each["type"] for each in updated["status"]["conditions"]] == ["StatusUpdate"]
        patch = {"metadata": {"labels": {"test-service": "patched"}}}
        strategic = "application/strategic-merge-patch+json"
        assert await door.done("PATCH", f"{SERVICES}/{name}", patch, content_type=strategic)
        await door.done("DELETE", f"{SERVICES}/{name}")
        kinds = [kind for kind, _ in await events.take(4)]
        assert kinds == ["MODIFIED", "MODIFIED", "MODIFIED", "DELETED"]


async def test_many_services_are_deleted_at_once(door: Door) -> None:
    """[sig-network] Services should delete a collection of services"""
    for name in ("e2e-svc-a", "e2e-svc-b", "e2e-svc-c"):
        asked = service(name)
        asked["metadata"]["labels"] = {"e2e-test-service": "delete" if name != "e2e-svc-c" else "keep"}
        await door.done("POST", SERVICES, asked)
    await door.done("DELETE", SERVICES, labelSelector="e2e-test-service=delete")
    left = {each["metadata"]["name"] for each in (await door.done("GET", SERVICES))["items"]}
    assert left == {"kubernetes", "e2e-svc-c"}


async def test_a_service_is_found_among_those_of_all_namespaces(door: Door) -> None:
    """[sig-network] Services should find a service from listing all namespaces"""
    await door.done("POST", "/api/v1/namespaces", namespace("other"))
    await door.done("POST", "/api/v1/namespaces/other/services", service("web"))
    found = {
        (each["metadata"]["namespace"], each["metadata"]["name"])
        for each in (await door.done("GET", "/api/v1/services"))["items"]
    }
    assert {("default", "kubernetes"), ("other", "web")} <= found


async def test_the_api_server_is_a_service(door: Door) -> None:
    """[sig-network] API Server should provide secure master service"""
    found = await door.done("GET", f"{SERVICES}/kubernetes")
    (port,) = found["spec"]["ports"]
    assert (port["name"], port["port"], port["protocol"]) == ("https", 443, "TCP")
