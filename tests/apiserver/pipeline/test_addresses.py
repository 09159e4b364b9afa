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
        status, refused = await door("POST", SERVICES, service("more"))
        message = "Internal error occurred: failed to allocate a serviceIP: range is full"
        assert (status, refused["message"]) == (500, message)
        await door.done("POST", RANGES, {"metadata": {"name": "more"}, "spec": {"cidrs": ["10.1.0.0/30"]}})
        await set_ready(door, "more", "False")
        assert (await door("POST", SERVICES, service("more", clusterIP="10.1.0.1")))[0] == 422
        await set_ready(door, "more", "True")
        made = await door.done("POST", SERVICES, service("more"))
        assert made["spec"]["clusterIP"].startswith("10.1.0.")


async def set_ready(door: Door, name: str, status: str) -> None:
    ready = {"type": "Ready", "status": status, "reason": "", "message": "", "lastTransitionTime": None}
    patch = {"content_type": "application/merge-patch+json"}
    await door.done("PATCH", f"{RANGES}/{name}/status", {"status": {"conditions": [ready]}}, **patch)


async def test_a_range_of_which_nobody_says_that_it_is_not_ready_gives_addresses(door: Door) -> None:
    await door.done("POST", RANGES, {"metadata": {"name": "more"}, "spec": {"cidrs": ["10.1.0.0/30"]}})
    await door.done("POST", SERVICES, service("web", clusterIP="10.1.0.2"))


async def test_the_addresses_of_a_range_itself_and_of_all_in_it_are_nobodys(door: Door) -> None:
    for address in ("10.96.0.0", "10.96.255.255"):
        status, refused = await door("POST", SERVICES, service("web", clusterIP=address))
        assert status == 422
        assert f"failed to allocate IP {address}: the provided network does not match" in refused["message"]


async def test_a_range_that_is_to_go_gives_no_more_addresses(door: Door) -> None:
    await door.done("DELETE", f"{RANGES}/kubernetes")
    assert (await door("POST", SERVICES, service("web")))[0] == 500
    await door.done("POST", RANGES, {"metadata": {"name": "more"}, "spec": {"cidrs": ["10.1.0.0/24"]}})
    made = await door.done("POST", SERVICES, service("web"))
    assert made["spec"]["clusterIP"].startswith("10.1.0.")


async def test_what_nobody_chose_comes_from_the_upper_part_while_there_is_some() -> None:
    """KEP-3070: of a /26 the first 16 addresses are left to those who choose."""
    async with open_door(service_cidrs=["10.96.0.0/26"]) as door:
        given = [
            int((await door.done("POST", SERVICES, service(f"s{number}")))["spec"]["clusterIP"].rpartition(".")[2])
            for number in range(60)
        ]
        assert sorted(given[:46]) == list(range(17, 63))
        assert sorted(given[46:]) == [*range(2, 10), *range(11, 17)]
        assert (await door("POST", SERVICES, service("more")))[0] == 500
