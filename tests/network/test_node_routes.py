"""Pods on different nodes reach each other, in one network and through routers, over both families."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from knarr.api.core.v1 import Node
from knarr.network.node_routes import peer_of
from knarr.network.peer_routes import Peer, Plan, Route, Way, Wrapped, hardware_address, network_number, plan
from knarr.node.runtime.contract import PortMapping
from tests.network.lab import IS_ROOT, until
from tests.network.nodes_lab import ADDRESSES, RANGES, NodesLab, node, started

NEAR, FAR = Way(2, is_direct=True), Way(2, is_direct=False)


def test_a_node_in_the_same_network_is_the_next_hop_itself() -> None:
    peer = Peer("b", ("192.0.2.2", "fd77::2"), ("10.244.1.0/24", "fd00:244:0:1::/64"))
    found = {"192.0.2.2": NEAR, "fd77::2": NEAR}
    assert plan([peer], found.get) == Plan(
        (Route("10.244.1.0/24", "192.0.2.2", 2), Route("fd00:244:0:1::/64", "fd77::2", 2))
    )


def test_a_node_behind_a_router_is_reached_through_the_tunnel() -> None:
    peer = Peer("c", ("198.51.100.3",), ("10.244.2.0/24",))
    assert plan([peer], {"198.51.100.3": FAR}.get) == Plan(
        (Route("10.244.2.0/24", "10.244.2.1", None),),
        (Wrapped(hardware_address("c"), "198.51.100.3", ("10.244.2.1",), carrier=2),),
    )


def test_a_family_in_which_a_node_has_no_address_goes_through_the_tunnel() -> None:
    peer = Peer("b", ("192.0.2.2",), ("10.244.1.0/24", "fd00:244:0:1::/64"))
    found = plan([peer], {"192.0.2.2": NEAR}.get)
    assert found.routes == (
        Route("10.244.1.0/24", "192.0.2.2", 2),
        Route("fd00:244:0:1::/64", "fd00:244:0:1::1", None),
    )
    assert found.wrapped == (Wrapped(hardware_address("b"), "192.0.2.2", ("fd00:244:0:1::1",), carrier=2),)


def test_the_tunnel_is_there_for_a_node_that_knows_this_one_by_another_network() -> None:
    peer = Peer("b", ("192.0.2.2",), ("10.244.1.0/24",))
    found = {"192.0.2.2": Way(2, is_direct=True, source="192.0.2.1")}
    assert not plan([peer], found.get, ("192.0.2.1",)).awaited
    assert plan([peer], found.get, ("198.51.100.1",)).awaited == {4}


def test_both_ends_of_a_tunnel_choose_the_family_that_carries_it_alike() -> None:
    addresses = {"a": ("fd77::1", "192.0.2.1"), "b": ("fd77::2", "198.51.100.2"), "c": ("fd77::3",)}
    ways = {address: FAR for each in addresses.values() for address in each}
    for here, there, version in (("a", "b", "."), ("b", "a", "."), ("a", "c", ":"), ("c", "a", ":")):
        peer = Peer(there, addresses[there], ("10.244.1.0/24",))
        (wrapped,) = plan([peer], ways.get, addresses[here]).wrapped
        assert version in wrapped.endpoint


def test_a_node_that_cannot_be_reached_or_has_no_range_gets_no_route() -> None:
    assert plan([Peer("b", ("192.0.2.2",), ("10.244.1.0/24",))], {}.get) == Plan()
    assert plan([Peer("b", ("192.0.2.2",), ())], {"192.0.2.2": NEAR}.get) == Plan()
    assert peer_of(Node()) == Peer("", (), ())


def test_what_a_node_tells_that_is_no_address_of_a_machine_is_passed_over() -> None:
    told = ("garbage", "", "10.0.0.1/8", "0.0.0.0", "127.0.0.1", "224.0.0.1", "fe80::1", "192.0.2.2", "FD77::2")
    assert peer_of(node("b", told)).addresses == ("192.0.2.2", "fd77::2")


def test_clusters_with_other_ranges_have_other_tunnels() -> None:
    first, second = (network_number([cidr], ["10.96.0.0/16"]) for cidr in ("10.244.0.0/16", "10.245.0.0/16"))
    assert first != second
    assert 0 < first < 1 << 24


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[NodesLab]:
    if not IS_ROOT:
        pytest.skip("needs root: makes network namespaces and kernel rules")
    async with started(tmp_path) as lab:
        yield lab


@pytest.mark.e2e
async def test_pods_on_all_nodes_reach_each_other_by_their_own_addresses(nodes: NodesLab) -> None:
    pods = {name: await nodes.add_pod(name, f"pod-{name}") for name in RANGES}
    for name in RANGES:
        await nodes.serve(f"pod-{name}")
    await nodes.settle()
    for here, own in pods.items():
        for there, addresses in pods.items():
            for source, target in zip(own, addresses, strict=True):
                assert await nodes.ask(f"pod-{here}", target) == (f"pod-{there}", source), (here, there)
    near, far = nodes.inside("a", "ip route").splitlines(), nodes.inside("a", "ip -6 route").splitlines()
    assert any(line.startswith("10.244.1.0/24 via 192.168.77.2 dev up0") for line in near)
    assert any("10.244.2.0/24 via 10.244.2.1 dev kv" in line for line in near)
    assert any(line.startswith("fd00:244:0:1::/64 via fd77::2 dev up0") for line in far)
    assert any("fd00:244:0:2::/64 via fd00:244:0:2::1 dev kv" in line for line in far)


@pytest.mark.e2e
async def test_much_data_fits_through_the_tunnel(nodes: NodesLab) -> None:
    await nodes.add_pod("a", "first")
    addresses = await nodes.add_pod("c", "second")
    await nodes.serve("second")
    await nodes.settle()
    for address in addresses:
        assert (await nodes.ask("first", address, size=300_000))[0] == "second"
    assert " mtu 1450 " in nodes.inside("a", f"ip -o link show {nodes.networks['a'].tunnel_interface}")


@pytest.mark.e2e
async def test_nodes_that_have_addresses_of_version_6_alone_are_reached_through_a_tunnel_over_it(
    nodes: NodesLab,
) -> None:
    """Beside those that the tunnel over version 4 leads to."""
    pods = {name: await nodes.add_pod(name, f"pod-{name}") for name in RANGES}
    for name in pods:
        await nodes.serve(f"pod-{name}")
    nodes.feed.put(node("c", (ADDRESSES["c"][1],)))
    nodes.feed.put(node("b", (ADDRESSES["b"][0],)))  # its other range is behind the tunnel over version 4
    await nodes.settle()
    for here, there in ("ac", "ca", "ab", "ba"):
        for source, target in zip(pods[here], pods[there], strict=True):
            assert await nodes.ask(f"pod-{here}", target, size=300_000) == (f"pod-{there}", source), (here, target)
    tunnel = nodes.networks["a"].tunnel_interface
    assert " mtu 1430 " in nodes.inside("a", f"ip -o link show {tunnel}6")
    assert " mtu 1450 " in nodes.inside("a", f"ip -o link show {tunnel}")


@pytest.mark.e2e
async def test_nodes_reach_pods_of_other_nodes_and_pods_reach_other_nodes(nodes: NodesLab) -> None:
    addresses = {name: await nodes.add_pod(name, f"pod-{name}") for name in "bc"}
    await nodes.serve("pod-b")
    await nodes.serve("pod-c")
    await nodes.serve("a", 9000)
    await nodes.settle()
    for name in "bc":
        for address in addresses[name]:
            assert (await nodes.ask("a", address))[0] == f"pod-{name}"
        for address in ADDRESSES["a"]:
            # What leaves the cluster's ranges has the node's address.
            who, seen = await nodes.ask(f"pod-{name}", address, 9000)
            assert (who, seen) == ("a", ADDRESSES[name][":" in address])


@pytest.mark.e2e
async def test_routes_follow_nodes_that_move_and_go(nodes: NodesLab) -> None:
    await nodes.settle()
    assert "10.244.1.0/24 via 192.168.77.2" in nodes.inside("a", "ip route")
    nodes.inside("b", "ip addr add 192.168.77.20/24 dev up0")
    nodes.feed.put(node("b", ("192.168.77.20", "fd77::2")))
    nodes.feed.delete(node("c"))
    await nodes.settle()
    routes = nodes.inside("a", "ip route") + nodes.inside("a", "ip -6 route")
    assert "10.244.1.0/24 via 192.168.77.20" in routes
    assert "10.244.2.0/24" not in routes
    assert "fd00:244:0:2::/64" not in routes
    assert "kv" not in nodes.inside("a", "ip -o link")
    nodes.feed.put(node("b", ("192.168.78.99",)))  # now as if behind the router
    await nodes.settle()
    routes = nodes.inside("a", "ip route") + nodes.inside("a", "ip -6 route")
    assert "10.244.1.0/24 via 10.244.1.1 dev kv" in routes
    assert "fd00:244:0:1::/64 via fd00:244:0:1::1 dev kv" in routes


@pytest.mark.e2e
async def test_nodes_of_which_only_one_finds_the_other_in_its_network_reach_each_other(nodes: NodesLab) -> None:
    """As with a machine in two networks that is known by its address in the other one, or by none of the family."""
    nodes.feed.delete(node("c"))  # for its sake the tunnel would be there in any case
    pods = {name: await nodes.add_pod(name, f"pod-{name}") for name in "ab"}
    for name in pods:
        await nodes.serve(f"pod-{name}")
    for known in ((ADDRESSES["b"][0], "fd99::2"), (ADDRESSES["b"][0],)):
        nodes.feed.put(node("b", known))
        await nodes.settle()
        assert "fd00:244:0:1::/64 via fd00:244:0:1::1 dev kv" in nodes.inside("a", "ip -6 route")
        assert "fd00:244::/64 via fd77::1 dev up0" in nodes.inside("b", "ip -6 route")
        for here, there in ("ab", "ba"):
            assert await nodes.ask(f"pod-{here}", pods[there][1]) == (f"pod-{there}", pods[here][1])
            assert (await nodes.ask(f"pod-{here}", pods[there][1], size=300_000))[0] == f"pod-{there}"


@pytest.mark.e2e
async def test_a_running_loop_heals_what_others_remove_and_takes_up_new_nodes(nodes: NodesLab) -> None:
    nodes.feed.delete(node("b"))
    await nodes.settle()
    task = asyncio.create_task(nodes.routes["a"].run())
    try:
        nodes.feed.put(node("b"))

        async def is_there() -> bool:
            return "10.244.1.0/24" in nodes.inside("a", "ip route")

        async def is_at_rest() -> bool:
            return await nodes.routes["a"].apply() == 0

        await until(is_there)
        await until(is_at_rest)
        nodes.inside("a", "ip route del 10.244.1.0/24")
        assert await nodes.routes["a"].apply() == 1
        assert await is_there()
        assert await nodes.routes["a"].apply() == 0
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.e2e
async def test_routes_outlive_the_process_and_nothing_is_left_at_the_end(nodes: NodesLab) -> None:
    network = nodes.networks["a"]
    await network.close(remove=True)
    before = nodes.network_of("a")
    again = nodes.networks["a"] = nodes.network("a", RANGES["a"])
    await again.start()
    nodes.routes["a"]._network = again
    await nodes.settle()
    await again.close(remove=False)
    assert "10.244.1.0/24 via 192.168.77.2" in nodes.inside("a", "ip route")
    last = nodes.networks["a"] = nodes.network("a", RANGES["a"])
    await last.start()
    await last.close(remove=True)
    assert nodes.network_of("a") == before


@pytest.mark.e2e
async def test_host_ports_lead_to_the_pod_over_both_families(nodes: NodesLab) -> None:
    addresses = await nodes.add_pod("a", "pod")
    await nodes.serve("pod")
    ports = [
        PortMapping("TCP", 8080, 8888),
        PortMapping("TCP", 8080, 8889, "::"),
        PortMapping("TCP", 8080, 8890, "fd77::1"),
    ]
    await nodes.networks["a"].map_ports("pod", addresses, ports)
    for address in ADDRESSES["a"]:
        assert (await nodes.ask("b", address, 8888))[0] == "pod"
    assert (await nodes.ask("b", "fd77::1", 8889))[0] == "pod"
    assert (await nodes.ask("b", "fd77::1", 8890))[0] == "pod"
    for port in (8889, 8890):
        with pytest.raises(ConnectionRefusedError):
            await nodes.ask("b", "192.168.77.1", port)
    await nodes.networks["a"].detach("pod")
    with pytest.raises(ConnectionRefusedError):
        await nodes.ask("b", "fd77::1", 8888)


@pytest.mark.e2e
async def test_what_a_node_masquerades_into_the_tunnel_comes_back_through_it(nodes: NodesLab) -> None:
    """A node port of a, an endpoint on c: the service rules give the request the address that its way out has."""
    targets = await nodes.add_pod("c", "pod")
    await nodes.serve("pod")
    await nodes.settle()
    for family, target, port in (("ip", targets[0], 9004), ("ip6", f"[{targets[1]}]", 9006)):
        for command in (
            f"add table {family} port",
            f"add chain {family} port in {{ type nat hook prerouting priority dstnat; }}",
            f"add rule {family} port in tcp dport {port} meta mark set 0x1 dnat to {target}:8080",
            f"add chain {family} port out {{ type nat hook postrouting priority srcnat; }}",
            f"add rule {family} port out meta mark 0x1 masquerade",
        ):
            nodes.inside("a", f"nft {command}")
    assert await nodes.ask("b", "192.168.77.1", 9004, size=100_000) == ("pod", "10.244.0.1")
    assert await nodes.ask("b", "fd77::1", 9006, size=100_000) == ("pod", "fd00:244::1")
