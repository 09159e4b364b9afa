"""The provider `local`: which address a Service gets, who has a port first, and what happens when nodes go."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from knarr.api.core.v1 import Event, Node, Service
from knarr.api.discovery.v1 import EndpointSlice
from knarr.edge.loadbalancer import LoadBalancers, current_ingress
from knarr.edge.providers.local import Local, parse_pools
from knarr.edge.taken_ports import ANNOTATION
from tests.controllers.loops import Loops, play
from tests.edge.test_loadbalancer import ingress, service


def node(name: str, address: str, *, ready: bool = True, external: str = "") -> Node:
    addresses = [{"type": "InternalIP", "address": address}]
    addresses += [{"type": "ExternalIP", "address": external}] if external else []
    conditions = [{"type": "Ready", "status": "True" if ready else "Unknown"}]
    return msgspec.convert(
        {"metadata": {"name": name}, "status": {"addresses": addresses, "conditions": conditions}}, Node
    )


def slice_of(name: str, *nodes: str, ready: bool = True) -> EndpointSlice:
    endpoints = [
        {"addresses": [f"10.244.0.{number}"], "nodeName": each, "conditions": {"ready": ready}}
        for number, each in enumerate(nodes, 2)
    ]
    metadata = {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": name}}
    return msgspec.convert(
        {"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints, "ports": [{"port": 8080}]}, EndpointSlice
    )


class Space:
    """A cluster with the loop and the provider."""

    def __init__(self, loops: Loops) -> None:
        self.loops, self.client, self.clock = loops, loops.client, loops.clock

    async def addresses(self, name: str) -> list[str]:
        return ingress(await self.client.get(Service, name, "default"))

    async def gets(self, name: str, *addresses: str, within_s: float = 4) -> None:
        async def look() -> Any:
            return sorted(await self.addresses(name)) == sorted(addresses)

        await self.loops.until(look, within_s=within_s)

    async def create_node(self, made: Node) -> None:
        await self.client.create(made)
        await self.client.update_status(
            msgspec.structs.replace(await self.client.get(Node, made.metadata.name or ""), status=made.status)
        )

    async def messages(self, name: str) -> list[str]:
        await self.clock.sleep(1)
        events = (await self.client.list(Event, "default")).items
        return [
            event.message or "" for event in events if event.involved_object.name == name and event.type == "Warning"
        ]


def playing(scenario: Callable[[Space], Awaitable[None]], pools: str = "", nodes: int = 1) -> None:
    async def main(loops: Loops) -> None:
        space = Space(loops)
        for number in range(1, nodes + 1):
            await space.create_node(node(f"n{number}", f"192.168.0.{number}"))
        await scenario(space)

    def make(loops: Loops) -> list[LoadBalancers]:
        provider = Local(loops.informers, loops.clock, parse_pools(pools), {(6443, "TCP")})
        return [LoadBalancers(loops.account("service-controller"), loops.informers, loops.clock, provider)]

    play(make, main)


def test_without_pools_a_service_is_at_the_nodes_addresses() -> None:
    async def scenario(space: Space) -> None:
        ports = [{"port": 53, "protocol": "UDP", "name": "u"}, {"port": 53, "protocol": "TCP", "name": "t"}]
        await space.client.create(service(ports=ports, allocateLoadBalancerNodePorts=False))
        await space.gets("web", "192.168.0.1", "192.168.0.2")
        found = await space.client.get(Service, "web", "default")
        assert {
            (each.ip_mode, *((port.port, port.protocol) for port in each.ports)) for each in current_ingress(found)
        } == {("VIP", (53, "UDP"), (53, "TCP"))}

    playing(scenario, nodes=2)


def test_a_second_service_waits_until_the_port_is_free() -> None:
    async def scenario(space: Space) -> None:
        await space.client.create(service("first"))
        await space.gets("first", "192.168.0.1")
        await space.client.create(service("second"))
        await space.client.create(service("udp", ports=[{"port": 80, "protocol": "UDP"}]))
        await space.gets("udp", "192.168.0.1")
        assert await space.messages("second") == [
            "Error syncing load balancer: failed to ensure load balancer: "
            "port 80/TCP of 192.168.0.1 is taken by the Service default/first"
        ]
        assert await space.addresses("second") == []
        await space.client.delete(Service, "first", "default")
        await space.gets("second", "192.168.0.1")

    playing(scenario)


@pytest.mark.parametrize(
    ("port", "why"),
    [(6443, "port 6443/TCP of the nodes is the cluster's own"), (30080, "is a node port of the Service default/other")],
)
def test_ports_that_the_nodes_need_themselves_are_not_given_away(port: int, why: str) -> None:
    async def scenario(space: Space) -> None:
        await space.client.create(service("other", type="NodePort", ports=[{"port": 80, "nodePort": 30080}]))
        await space.client.create(service(ports=[{"port": port}]))
        (message,) = await space.messages("web")
        assert why in message
        assert await space.addresses("web") == []

    playing(scenario)


def test_a_node_that_is_not_ready_is_left_out_and_comes_back() -> None:
    async def scenario(space: Space) -> None:
        await space.client.create(service())
        await space.gets("web", "192.168.0.1", "192.168.0.2")
        for status, addresses in (("Unknown", ["192.168.0.2"]), ("True", ["192.168.0.1", "192.168.0.2"])):
            condition = {"type": "Ready", "status": status}
            await space.client.patch(Node, "n1", {"status": {"conditions": [condition]}}, subresource="status")
            await space.gets("web", *addresses)

    playing(scenario, nodes=2)


def test_external_addresses_win_over_internal_ones() -> None:
    async def scenario(space: Space) -> None:
        await space.create_node(node("edge", "192.168.0.9", external="203.0.113.9"))
        await space.client.create(service())
        await space.gets("web", "203.0.113.9")

    playing(scenario)


def test_local_traffic_is_taken_only_where_its_endpoints_are() -> None:
    async def scenario(space: Space) -> None:
        await space.client.create(slice_of("web", "n2"))
        await space.client.create(service(externalTrafficPolicy="Local"))
        await space.gets("web", "192.168.0.2")
        await space.client.update(
            msgspec.structs.replace(
                slice_of("web", "n1"), metadata=(await space.client.get(EndpointSlice, "web", "default")).metadata
            )
        )
        await space.gets("web", "192.168.0.1")

    playing(scenario, nodes=2)


def test_each_service_has_an_address_of_the_pools_and_gives_it_back() -> None:
    async def scenario(space: Space) -> None:
        for name in ("a", "b"):
            await space.client.create(service(name))
            await space.gets(name, {"a": "10.0.0.8", "b": "10.0.0.9"}[name])
        await space.client.create(service("c"))
        (message,) = await space.messages("c")
        assert message.endswith("no IPv4 address is left in the pools (10.0.0.8-10.0.0.9)")
        await space.client.delete(Service, "a", "default")
        await space.gets("c", "10.0.0.8")

    playing(scenario, pools="10.0.0.8-10.0.0.9")


def test_a_requested_address_is_given_unless_another_has_it() -> None:
    async def scenario(space: Space) -> None:
        wish = {"annotations": {"knarr.dev/load-balancer-ips": "10.0.0.7"}}
        await space.client.create(service("a", metadata=wish))
        await space.gets("a", "10.0.0.7")
        await space.client.create(service("b", loadBalancerIP="10.0.0.7"))
        await space.client.create(service("far", loadBalancerIP="10.9.9.9"))
        await space.client.create(service("odd", metadata={"annotations": {"knarr.dev/load-balancer-ips": "here"}}))
        assert (await space.messages("b"))[0].endswith("10.0.0.7 is asked for, but the Service default/a has it")
        assert (await space.messages("far"))[0].endswith("is asked for, but is in no pool (10.0.0.1-10.0.0.14)")
        assert (await space.messages("odd"))[0].endswith("but is no IP address")
        await space.client.patch(
            Service, "a", {"metadata": {"annotations": {"knarr.dev/load-balancer-ips": "10.0.0.5"}}}, "default"
        )
        await space.gets("a", "10.0.0.5")
        await space.gets("b", "10.0.0.7")

    playing(scenario, pools="10.0.0.0/28")


def test_addresses_stay_when_the_process_starts_again() -> None:
    """What the statuses say is taken over before anything is given out."""

    async def scenario(loops: Loops) -> None:
        space = Space(loops)
        await space.create_node(node("n1", "192.168.0.1"))
        await space.client.create(service("late"))
        await space.client.create(service("early"))
        held = {"loadBalancer": {"ingress": [{"ip": "10.0.0.8"}]}}
        await space.client.patch(Service, "early", {"status": held}, "default", subresource="status")
        provider = Local(loops.informers, loops.clock, parse_pools("10.0.0.8-10.0.0.9"))
        loop = LoadBalancers(loops.account("service-controller"), loops.informers, loops.clock, provider)

        task = asyncio.create_task(loop.run())
        await space.gets("late", "10.0.0.9")
        await space.gets("early", "10.0.0.8")
        task.cancel()

    play(lambda loops: [], scenario)


@pytest.mark.parametrize(
    ("text", "pools"),
    [
        ("", []),
        (
            "10.0.0.240-10.0.0.250,192.168.7.0/28,fd00::/120",
            ["10.0.0.240-10.0.0.250", "192.168.7.1-192.168.7.14", "fd00::-fd00::ff"],
        ),
        ("10.0.0.1", ["10.0.0.1-10.0.0.1"]),
        ("10.0.0.4/31", ["10.0.0.4-10.0.0.5"]),
    ],
)
def test_pools_are_read(text: str, pools: list[str]) -> None:
    assert [str(pool) for pool in parse_pools(text)] == pools


@pytest.mark.parametrize(
    "text",
    [
        "10.0.0.9-10.0.0.1",
        "10.0.0.1-fd00::1",
        "x",
        "10.0.0.1/24",
        "127.0.0.1",
        "169.254.0.0/24",
        "10.0.0.0/24,10.0.0.9",
    ],
)
def test_pools_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_pools(text)


def test_a_pool_of_any_size_is_searched_at_once() -> None:
    async def scenario(space: Space) -> None:
        await space.client.create(service())
        await space.gets("web", "10.0.0.1")

    playing(scenario, pools="fd00::/32,10.0.0.0/8")


def test_a_port_that_ingress_needs_is_its_unless_a_service_had_it_first() -> None:
    held: set[int] = set()
    made: list[Local] = []

    async def scenario(space: Space) -> None:
        await space.client.create(service("first", ports=[{"port": 80}]))
        await space.gets("first", "192.168.0.1")
        held.update({80, 443})
        await space.client.create(service("second", ports=[{"port": 443}]))
        assert "port 443/TCP of the nodes is that of Ingress" in "".join(await space.messages("second"))
        await space.gets("first", "192.168.0.1")
        held.clear()
        made[0].retry()
        await space.gets("second", "192.168.0.1")

    def make(loops: Loops) -> list[LoadBalancers]:
        made.append(
            Local(loops.informers, loops.clock, held=lambda port, protocol: "that of Ingress" if port in held else "")
        )
        return [LoadBalancers(loops.account("service-controller"), loops.informers, loops.clock, made[0])]

    async def main(loops: Loops) -> None:
        space = Space(loops)
        await space.create_node(node("n1", "192.168.0.1"))
        await scenario(space)

    play(make, main)


async def tells(space: Space, name: str, report: dict[str, dict[str, str]]) -> None:
    """A node says which ports are taken."""
    annotations = {ANNOTATION: msgspec.json.encode(report).decode()}
    await space.client.patch(Node, name, {"metadata": {"annotations": annotations}})


def test_a_port_that_a_program_has_is_served_by_the_other_nodes() -> None:
    async def scenario(space: Space) -> None:
        await tells(space, "n1", {"22/TCP": {"0.0.0.0": "sshd (process 812)"}})
        await tells(space, "n2", {"22/TCP": {"192.168.0.9": "ftpd"}})
        await space.client.create(service(ports=[{"port": 22}]))
        await space.gets("web", "192.168.0.2", "192.168.0.3")
        why = "port 22/TCP of 192.168.0.1 is taken by sshd (process 812) on the node n1"
        told = [f"{why}; the Service is reached at other nodes"]
        assert await space.messages("web") == told
        await tells(space, "n3", {"22/TCP": {}})  # looked at again: there is nothing new to tell
        assert await space.messages("web") == told
        await tells(space, "n1", {"22/TCP": {}})
        await space.gets("web", "192.168.0.1", "192.168.0.2", "192.168.0.3")

    playing(scenario, nodes=3)


def test_a_port_that_programs_have_on_all_nodes_is_waited_for() -> None:
    async def scenario(space: Space) -> None:
        for name in ("n1", "n2"):
            await tells(space, name, {"22/TCP": {"0.0.0.0": "sshd (process 812)"}})
        await space.client.create(service(ports=[{"port": 22}]))
        assert await space.messages("web") == [
            "Error syncing load balancer: failed to ensure load balancer: "
            "port 22/TCP of 192.168.0.1 is taken by sshd (process 812) on the node n1"
        ]
        assert await space.addresses("web") == []
        await tells(space, "n2", {"22/TCP": {}})
        await space.gets("web", "192.168.0.2")

    playing(scenario, nodes=2)


def test_a_program_that_begins_to_listen_later_loses() -> None:
    async def scenario(space: Space) -> None:
        await tells(space, "n1", {"80/TCP": {}})
        await space.client.create(service(ports=[{"port": 80}]))
        await space.gets("web", "192.168.0.1")
        await tells(space, "n1", {"80/TCP": {"0.0.0.0": "late"}})
        await space.client.patch(Service, "web", {"metadata": {"annotations": {"x": "y"}}}, "default")
        assert await space.messages("web") == []
        await space.gets("web", "192.168.0.1")

    playing(scenario)


def test_a_node_that_has_not_looked_yet_is_waited_for_a_moment_and_comes_in_later() -> None:
    async def scenario(space: Space) -> None:
        await tells(space, "n1", {})
        await tells(space, "n2", {"80/TCP": {}})
        await space.client.create(service(ports=[{"port": 80}]))
        await space.clock.sleep(1)
        assert await space.addresses("web") == []
        await space.gets("web", "192.168.0.2")
        await tells(space, "n1", {"80/TCP": {}})
        await space.gets("web", "192.168.0.1", "192.168.0.2")

    playing(scenario, nodes=2)
