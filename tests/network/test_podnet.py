"""The pod network, with real namespaces and packets."""

import asyncio
import errno
import json
from pathlib import Path

import pytest

from knarr.clock import SystemClock
from knarr.network.addresses import AddressPool, NoAddressLeft
from knarr.network.podnet import PodNetwork, RangeTaken
from knarr.node.runtime.contract import PortMapping
from tests.network.lab import CLIENT_ADDRESS, NODE_ADDRESS, Lab


def test_addresses_are_taken_round_robin_and_never_twice(tmp_path: Path) -> None:
    pool = AddressPool(["10.1.0.0/29"], tmp_path / "record.json")
    assert [pool.take(name) for name in "abc"] == [("10.1.0.2",), ("10.1.0.3",), ("10.1.0.4",)]
    assert pool.free("a") == ("10.1.0.2",)
    # Not the one that was just freed, while others are left.
    assert [pool.take(name) for name in "def"] == [("10.1.0.5",), ("10.1.0.6",), ("10.1.0.2",)]
    with pytest.raises(NoAddressLeft):
        pool.take("g")
    assert pool.take("b") == ("10.1.0.3",), "a holder keeps its address"


def test_addresses_survive_a_restart(tmp_path: Path) -> None:
    record = tmp_path / "deep" / "record.json"
    first = AddressPool(["10.1.0.0/24", "fd00:1::/64"], record)
    assert first.take("a") == ("10.1.0.2", "fd00:1::2")
    first.take("b")
    first.free("a")
    second = AddressPool(["10.1.0.0/24", "fd00:1::/64"], record)
    assert second.held("b") == ("10.1.0.3", "fd00:1::3")
    assert second.take("c") == ("10.1.0.4", "fd00:1::4")


def test_an_unfinished_write_of_the_record_is_not_read(tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    AddressPool(["10.1.0.0/24"], record).take("a")
    record.with_suffix(".new").write_text('{"addresses": {"a"')
    assert AddressPool(["10.1.0.0/24"], record).held("a") == ("10.1.0.2",)


def test_freeing_is_idempotent(tmp_path: Path) -> None:
    pool = AddressPool(["10.1.0.0/24"], tmp_path / "record.json")
    assert pool.free("nobody") == ()


def test_interface_names_fit_the_kernel(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="longer than"):
        PodNetwork(
            pod_cidrs=["10.1.0.0/24"],
            cluster_cidrs=["10.1.0.0/16"],
            state_directory=tmp_path,
            clock=SystemClock(),
            interface="a-name-of-16-chr",
        )


@pytest.mark.e2e
async def test_pods_reach_each_other_and_the_node_by_their_own_addresses(lab: Lab) -> None:
    first, second = await lab.add_pod("first"), await lab.add_pod("second")
    await lab.serve("first")
    await lab.serve("node", 9000)
    assert await lab.ask("second", first, 8080) == ("first", second)
    assert await lab.ask("first", first, 8080) == ("first", first)
    assert await lab.ask("second", NODE_ADDRESS, 9000) == ("node", second)
    assert (await lab.ask("node", first, 8080))[0] == "first"


@pytest.mark.e2e
async def test_what_leaves_the_cluster_has_the_nodes_address(lab: Lab) -> None:
    await lab.add_pod("pod")
    await lab.serve("client", 9000)
    assert await lab.ask("pod", CLIENT_ADDRESS, 9000) == ("client", NODE_ADDRESS)


@pytest.mark.e2e
async def test_an_address_that_no_pod_has_is_unreachable_at_once(lab: Lab) -> None:
    await lab.add_pod("pod")
    with pytest.raises(OSError) as refusal:
        await lab.ask("pod", "10.244.0.200", 80)
    assert refusal.value.errno == errno.EHOSTUNREACH


@pytest.mark.e2e
async def test_host_ports_lead_to_the_pod_from_everywhere(lab: Lab) -> None:
    address = await lab.add_pod("pod")
    await lab.add_pod("other")
    await lab.serve("pod")
    await lab.network.map_ports("pod", [address], [PortMapping("TCP", 8080, 8888)])
    for namespace, target in [
        ("client", NODE_ADDRESS),
        ("node", NODE_ADDRESS),
        ("node", "127.0.0.1"),
        ("other", NODE_ADDRESS),
        ("pod", NODE_ADDRESS),
    ]:
        assert (await lab.ask(namespace, target, 8888))[0] == "pod", (namespace, target)
    await lab.network.detach("pod")
    with pytest.raises(ConnectionRefusedError):
        await lab.ask("client", NODE_ADDRESS, 8888)


@pytest.mark.e2e
async def test_a_host_port_with_an_address_is_only_there(lab: Lab) -> None:
    address = await lab.add_pod("pod")
    await lab.serve("pod")
    await lab.network.map_ports("pod", [address], [PortMapping("TCP", 8080, 8888, "127.0.0.1")])
    assert (await lab.ask("node", "127.0.0.1", 8888))[0] == "pod"
    with pytest.raises(ConnectionRefusedError):
        await lab.ask("client", NODE_ADDRESS, 8888)


@pytest.mark.e2e
async def test_attach_and_detach_are_idempotent(lab: Lab) -> None:
    address = await lab.add_pod("pod")
    assert await lab.network.attach("pod", lab.path("pod")) == (address,)
    await lab.network.detach("pod", lab.path("pod"))
    await lab.network.detach("pod", lab.path("pod"))
    (again,) = await lab.network.attach("pod", lab.path("pod"))
    assert again != address, "an address that was just freed is not taken at once"
    await lab.network.detach("nobody", "/run/netns/nowhere")


@pytest.mark.e2e
async def test_a_failed_attach_leaves_nothing(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(OSError):
        await lab.network.attach("pod", str(tmp_path))
    assert lab.network.interface_of("pod") not in lab.inside("node", "ip -o link")
    record = json.loads((tmp_path / "network" / "addresses.json").read_text())
    assert record["addresses"] == {}


@pytest.mark.e2e
async def test_a_restarted_network_goes_on_with_its_pods(lab: Lab, tmp_path: Path) -> None:
    address = await lab.add_pod("pod")
    await lab.add_pod("forgotten")
    await lab.serve("pod")
    await lab.network.map_ports("pod", [address], [PortMapping("TCP", 8080, 8888)])
    await lab.network.close(remove=False)
    lab.network = PodNetwork(
        pod_cidrs=["10.244.0.0/24"],
        cluster_cidrs=["10.244.0.0/16"],
        service_cidrs=["10.96.0.0/16"],
        state_directory=tmp_path / "network",
        clock=SystemClock(),
        network_namespace=lab.path("node"),
    )
    await lab.network.start()
    await lab.network.retain(["pod"])
    assert lab.network.interface_of("forgotten") not in lab.inside("node", "ip -o link")
    assert (await lab.ask("client", NODE_ADDRESS, 8888))[0] == "pod"
    assert await lab.network.attach("pod", lab.path("pod")) == (address,)
    assert await lab.add_pod("new") != address


@pytest.mark.e2e
async def test_many_pods_attach_at_once(lab: Lab) -> None:
    addresses = await asyncio.gather(*(lab.add_pod(f"pod{number}") for number in range(20)))
    assert len(set(addresses)) == 20


@pytest.mark.e2e
async def test_close_leaves_nothing_behind(lab: Lab) -> None:
    await lab.network.close(remove=True)
    before = (lab.network_of("node"), lab.inside("node", "nft list ruleset"))
    lab.network = PodNetwork(
        pod_cidrs=["10.244.0.0/24"],
        cluster_cidrs=["10.244.0.0/16"],
        service_cidrs=["10.96.0.0/16"],
        state_directory=lab.network._state_directory,
        clock=SystemClock(),
        network_namespace=lab.path("node"),
    )
    await lab.network.start()
    address = await lab.add_pod("pod")
    await lab.network.map_ports("pod", [address], [PortMapping("UDP", 53, 5353)])
    await lab.network.add_node_address("10.96.0.10")
    await lab.network.close(remove=True)
    after = (lab.network_of("node"), lab.inside("node", "nft list ruleset"))
    assert after == before
    assert "eth0" not in lab.inside("pod", "ip -o link")


@pytest.mark.e2e
async def test_a_firewall_that_drops_forwarded_packets_is_told_of_the_pods(lab: Lab) -> None:
    await lab.network.close(remove=True)
    lab.inside("node", "iptables -P FORWARD DROP")
    before = lab.inside("node", "iptables-save -t filter")
    lab.network = PodNetwork(
        pod_cidrs=["10.244.0.0/24"],
        cluster_cidrs=["10.244.0.0/16"],
        state_directory=lab.network._state_directory,
        clock=SystemClock(),
        network_namespace=lab.path("node"),
    )
    await lab.network.start()
    first = await lab.add_pod("first")
    await lab.add_pod("second")
    await lab.serve("first")
    assert (await lab.ask("second", first, 8080))[0] == "first"
    await lab.network.close(remove=True)

    def rules(saved: str) -> list[str]:
        return [line.split(" [")[0] for line in saved.splitlines() if not line.startswith("#")]

    assert rules(lab.inside("node", "iptables-save -t filter")) == rules(before)


@pytest.mark.parametrize("address", ["10.244.9.1/24", "10.96.4.1/30"])
async def test_a_range_that_holds_a_network_of_the_machine_is_refused_and_the_network_stays(
    lab: Lab, tmp_path: Path, address: str
) -> None:
    lab.inside("node", f"ip addr add {address} dev up0")
    routes = lab.network_of("node")
    other = PodNetwork(
        pod_cidrs=["10.244.9.0/24"],
        cluster_cidrs=["10.244.0.0/16"],
        service_cidrs=["10.96.0.0/16"],
        state_directory=tmp_path / "other",
        clock=SystemClock(),
        interface="knarr1",
        network_namespace=lab.path("node"),
    )
    with pytest.raises(RangeTaken, match=f"holds {address}, which interface up0 of this machine has"):
        await other.start()
    await other.close(remove=False)
    assert lab.network_of("node") == routes
