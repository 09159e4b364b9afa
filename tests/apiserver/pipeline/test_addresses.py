"""Cluster IPs as objects: an IPAddress comes and goes with its Service; ranges say where they come from."""

from __future__ import annotations

from typing import Any

from tests.apiserver.pipeline.door import SERVICES, Door, open_door, service

ADDRESSES = "/apis/networking.k8s.io/v1/ipaddresses"
RANGES = "/apis/networking.k8s.io/v1/servicecidrs"


async def test_an_address_object_comes_and_goes_with_its_service(door: Door) -> None:
    made = await door.done("POST", SERVICES, service("web"))
    address = made["spec"]["clusterIP"]
    found = await door.done("GET", f"{ADDRESSES}/{address}")
    assert found["spec"]["parentRef"] == {
        "group": "",
        "resource": "services",
        "namespace": "default",
        "name": "web",
    }
    assert found["metadata"]["labels"] == {
        "ipaddress.kubernetes.io/ip-family": "IPv4",
        "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
    }
    assert found["metadata"]["uid"]
    assert found["metadata"]["creationTimestamp"]
    async with door.watch(ADDRESSES, resourceVersion=found["metadata"]["resourceVersion"]) as events:
        await door.done("DELETE", f"{SERVICES}/web")
        assert await events.take(1) == [("DELETED", address)]
    assert (await door("GET", f"{ADDRESSES}/{address}"))[0] == 404


async def test_the_services_of_a_new_cluster_have_address_objects(door: Door) -> None:
    listed = await door.done("GET", ADDRESSES)
    owners = {each["metadata"]["name"]: each["spec"]["parentRef"]["name"] for each in listed["items"]}
    assert owners == {"10.96.0.1": "kubernetes", "10.96.0.10": "kube-dns"}
    found = await door.done("GET", f"{RANGES}/kubernetes")
    assert found["spec"] == {"cidrs": ["10.96.0.0/16"]}
    (condition,) = found["status"]["conditions"]
    assert (condition["type"], condition["status"]) == ("Ready", "True")


def address(name: str) -> dict[str, Any]:
    parent = {"resource": "services", "name": "else", "namespace": "default"}
    return {"metadata": {"name": name}, "spec": {"parentRef": parent}}


async def test_an_address_that_somebody_reserved_is_taken(door: Door) -> None:
    await door.done("POST", ADDRESSES, address("10.96.0.77"))
    status, refused = await door("POST", SERVICES, service("web", clusterIP="10.96.0.77"))
    assert status == 422
    assert "failed to allocate IP 10.96.0.77: provided IP is already allocated" in refused["message"]


async def test_a_service_whose_address_object_was_deleted_can_go(door: Door) -> None:
    made = await door.done("POST", SERVICES, service("web"))
    await door.done("DELETE", f"{ADDRESSES}/{made['spec']['clusterIP']}")
    await door.done("DELETE", f"{SERVICES}/web")


async def test_a_ready_range_gives_addresses_when_the_first_is_full() -> None:
    async with open_door(service_cidrs=["10.96.0.0/28"]) as door:
        for number in range(12):
            await door.done("POST", SERVICES, service(f"s{number}"))
        assert (await door("POST", SERVICES, service("more")))[0] == 500
        await door.done("POST", RANGES, {"metadata": {"name": "more"}, "spec": {"cidrs": ["10.1.0.0/30"]}})
        assert (await door("POST", SERVICES, service("more", clusterIP="10.1.0.1")))[0] == 422
        ready = {"type": "Ready", "status": "True", "reason": "", "message": "", "lastTransitionTime": None}
        patch = {"content_type": "application/merge-patch+json"}
        await door.done("PATCH", f"{RANGES}/more/status", {"status": {"conditions": [ready]}}, **patch)
        made = await door.done("POST", SERVICES, service("more"))
        assert made["spec"]["clusterIP"].startswith("10.1.0.")
