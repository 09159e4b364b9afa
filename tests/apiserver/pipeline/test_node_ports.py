"""Node ports: chosen and given, shared by protocols, kept, released, and never held by two Services."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from knarr.apiserver.node_ports import left_to_choosers
from tests.apiserver.pipeline.door import SERVICES, Door, causes
from tests.apiserver.pipeline.door import service as plain_service

MERGE_PATCH = "application/merge-patch+json"
LOCAL = {"type": "LoadBalancer", "externalTrafficPolicy": "Local"}


async def taken(door: Door) -> set[int]:
    found = await door.store.range("ranges/nodeports//")
    return {int(record.key.rpartition("/")[2]) for record in found.records}


async def patched(door: Door, **spec: Any) -> dict[str, Any]:
    changed: dict[str, Any] = await door.done("PATCH", f"{SERVICES}/web", {"spec": spec}, content_type=MERGE_PATCH)
    return changed["spec"]


def service(name: str, **spec: Any) -> dict[str, Any]:
    made = plain_service(name)
    made["spec"].update(spec)
    return made


def ports_of(spec: dict[str, Any]) -> list[int]:
    return [port.get("nodePort", 0) for port in spec["ports"]]


def port(number: int, name: str, protocol: str = "TCP", **more: Any) -> dict[str, Any]:
    return {"port": number, "name": name, "protocol": protocol, **more}


DNS = [port(53, "dns", "UDP"), port(53, "dns-tcp"), port(9153, "metrics")]


def test_how_much_of_a_range_is_left_to_those_who_choose() -> None:
    """KEP-3668: a 32nd, at least 16, at most 128; nothing of a range of 16 or fewer."""
    assert [left_to_choosers(size) for size in (10, 16, 17, 100, 1024, 2768, 10000)] == [0, 0, 16, 16, 32, 86, 128]


async def test_a_port_that_nobody_chose_is_of_the_upper_part(door: Door) -> None:
    for number in range(20):
        made = await door.done("POST", SERVICES, service(f"s{number}", type="NodePort"))
        assert 30086 <= ports_of(made["spec"])[0] <= 32767


async def test_a_new_service_has_one_port_for_both_protocols(door: Door) -> None:
    made = await door.done("POST", SERVICES, service("web", type="NodePort", ports=DNS))
    udp, tcp, metrics = ports_of(made["spec"])
    assert udp == tcp != metrics
    assert await taken(door) == {udp, metrics}


async def test_a_chosen_port_is_for_all_protocols_of_its_port(door: Door) -> None:
    ports = [port(53, "dns", "UDP"), port(53, "dns-tcp", nodePort=30053)]
    made = await door.done("POST", SERVICES, service("web", type="NodePort", ports=ports))
    assert ports_of(made["spec"]) == [30053, 30053]
    different = [port(53, "dns", "UDP", nodePort=30054), port(53, "dns-tcp", nodePort=30055)]
    made = await door.done("POST", SERVICES, service("other", type="NodePort", ports=different))
    assert ports_of(made["spec"]) == [30054, 30055]


async def test_one_port_for_two_ports_of_a_new_service_is_refused(door: Door) -> None:
    ports = [port(80, "a", nodePort=30080), port(81, "b", "UDP", nodePort=30080)]
    status, refused = await door("POST", SERVICES, service("web", type="NodePort", ports=ports))
    assert (status, causes(refused)) == (422, ["spec.ports[1].nodePort"])
    assert await taken(door) == set()


async def test_a_port_that_comes_later_has_its_own(door: Door) -> None:
    made = await door.done("POST", SERVICES, service("web", type="NodePort", ports=DNS[:1]))
    (first,) = ports_of(made["spec"])
    kept, second = ports_of(await patched(door, ports=DNS[:2]))
    assert kept == first != second
    assert await taken(door) == {first, second}
    assert ports_of(await patched(door, ports=[DNS[1]])) == [second]
    assert await taken(door) == {second}


async def test_a_port_moves_within_its_service(door: Door) -> None:
    ports = [port(80, "a", nodePort=30080), port(81, "b", nodePort=30081)]
    await door.done("POST", SERVICES, service("web", type="NodePort", ports=ports))
    swapped = [port(80, "a", nodePort=30081), port(81, "b", nodePort=30080)]
    assert ports_of(await patched(door, ports=swapped)) == [30081, 30080]
    assert await taken(door) == {30080, 30081}


async def test_changes_of_type_take_and_release(door: Door) -> None:
    made = await door.done("POST", SERVICES, service("web"))
    address = made["spec"]["clusterIP"]
    (first,) = ports_of(await patched(door, type="NodePort"))
    assert await taken(door) == {first}
    assert ports_of(await patched(door, type="LoadBalancer")) == [first]
    plain = await patched(door, type="ClusterIP")
    assert (ports_of(plain), plain["clusterIP"], await taken(door)) == ([0], address, set())
    balanced = await patched(door, type="LoadBalancer")
    assert await taken(door) == set(ports_of(balanced))
    named = await patched(door, type="ExternalName", externalName="example.com")
    assert (ports_of(named), await taken(door)) == ([0], set())


async def test_a_balancer_that_needs_none_takes_those_that_are_chosen(door: Door) -> None:
    ports = [port(80, "a"), port(81, "b", nodePort=30081)]
    asked = service("web", type="LoadBalancer", allocateLoadBalancerNodePorts=False, ports=ports)
    made = await door.done("POST", SERVICES, asked)
    assert (ports_of(made["spec"]), await taken(door)) == ([0, 30081], {30081})
    given = ports_of(await patched(door, allocateLoadBalancerNodePorts=True))
    assert given[0]
    assert await taken(door) == set(given)
    assert ports_of(await patched(door, allocateLoadBalancerNodePorts=False)) == given


async def test_what_says_external_name_holds_no_ports(door: Door) -> None:
    ports = [port(80, "a", nodePort=30080)]
    await door.done("POST", SERVICES, service("web", type="ExternalName", externalName="example.com", ports=ports))
    assert await taken(door) == set()
    await door.done("POST", SERVICES, service("other", type="NodePort", ports=ports))
    await door.done("DELETE", f"{SERVICES}/web")
    assert await taken(door) == {30080}


async def test_a_service_that_gets_node_ports_later_has_one_for_each_protocol(door: Door) -> None:
    """Upstream's: update service type to NodePort listening on same port number but different protocols."""
    await door.done("POST", SERVICES, service("web", ports=[port(80, "tcp-port")]))
    both = [port(80, "tcp-port"), port(80, "udp-port", "UDP")]
    given = ports_of(await patched(door, type="NodePort", ports=both))
    assert len(set(given)) == 2
    assert await taken(door) == set(given)


async def test_a_port_of_a_service_that_is_gone_can_be_chosen(door: Door) -> None:
    """Upstream's: prevent NodePort collisions; release NodePorts on delete."""
    (given,) = ports_of((await door.done("POST", SERVICES, service("web", type="NodePort")))["spec"])
    same = service("other", type="NodePort", ports=[port(80, "a", nodePort=given)])
    status, refused = await door("POST", SERVICES, same)
    assert status == 422
    assert f"{given}: provided port is already allocated" in refused["message"]
    await door.done("DELETE", f"{SERVICES}/web")
    await door.done("POST", SERVICES, same)


@pytest.mark.parametrize("chosen", [29999, 32768])
async def test_a_port_out_of_range_is_refused_on_update_too(door: Door, chosen: int) -> None:
    await door.done("POST", SERVICES, service("web", type="NodePort"))
    status, refused = await door(
        "PATCH", f"{SERVICES}/web", {"spec": {"ports": [port(80, "a", nodePort=chosen)]}}, content_type=MERGE_PATCH
    )
    assert status == 422
    assert f"{chosen}: provided port is not in the valid range. The range of valid ports is 30000-32767" in str(refused)


# The port at which a balancer asks for health


async def test_a_health_check_port_is_given_kept_and_released(door: Door) -> None:
    made = (await door.done("POST", SERVICES, service("web", **LOCAL)))["spec"]
    checked = made["healthCheckNodePort"]
    assert await taken(door) == {checked, *ports_of(made)}
    assert (await patched(door, ports=[port(80, "p80"), port(81, "b")]))["healthCheckNodePort"] == checked
    status, refused = await door(
        "PATCH", f"{SERVICES}/web", {"spec": {"healthCheckNodePort": 30001}}, content_type=MERGE_PATCH
    )
    assert (status, causes(refused)) == (422, ["spec.healthCheckNodePort"])
    assert "Forbidden: field is immutable" in refused["message"]
    shared = await patched(door, externalTrafficPolicy="Cluster")
    assert "healthCheckNodePort" not in shared
    assert await taken(door) == set(ports_of(shared))
    again = await patched(door, externalTrafficPolicy="Local", healthCheckNodePort=30002)
    assert again["healthCheckNodePort"] == 30002
    await door.done("DELETE", f"{SERVICES}/web")
    assert await taken(door) == set()


@pytest.mark.parametrize(
    ("chosen", "detail"),
    [
        (30001, "provided port is already allocated"),
        (80, "provided port is not in the valid range. The range of valid ports is 30000-32767"),
    ],
)
async def test_a_health_check_port_must_be_free_and_in_range(door: Door, chosen: int, detail: str) -> None:
    await door.done("POST", SERVICES, service("other", type="NodePort", ports=[port(80, "a", nodePort=30001)]))
    status, refused = await door("POST", SERVICES, service("web", healthCheckNodePort=chosen, **LOCAL))
    assert (status, causes(refused)) == (422, ["spec.healthCheckNodePort"])
    assert f"failed to allocate requested HealthCheck NodePort {chosen}: {detail}" in refused["message"]


# Many at once


async def test_of_those_who_choose_the_same_port_at_once_one_has_it(door: Door) -> None:
    asked = [service(f"s{n}", type="NodePort", ports=[port(80, "a", nodePort=30080)]) for n in range(8)]
    results = await asyncio.gather(*(door("POST", SERVICES, each) for each in asked))
    assert sorted(status for status, _ in results) == [201] + 7 * [422]
    assert await taken(door) == {30080}
