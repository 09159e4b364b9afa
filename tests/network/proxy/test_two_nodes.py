"""Both proxy modes and both address families, with real traffic between two nodes, their pods and a client."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from knarr.api.core.v1 import Node, Service
from knarr.client.informer import Informers
from knarr.network.proxy.service_proxy import ServiceProxy
from tests.network.feed import Feed
from tests.network.lab import REPLY_TIMEOUT_S, Machines, family_of
from tests.network.proxy.objects import balanced, endpoint, endpoint_slice, node, service

pytestmark = pytest.mark.e2e

CLUSTER_CIDRS = ["10.244.0.0/16", "fd44::/16"]
SERVICE_CIDRS = ["10.96.0.0/16", "fd96::/112"]
CLUSTER_IPS = ("10.96.0.20", "fd96::20")
BALANCERS = ("203.0.113.7", "2001:db8:7::7")
NODE_PORT = 30080
PORT = 80


class Rig:
    """Two nodes with a proxy each; pods a and b on the first, c on the second, a caller on each."""

    def __init__(self, machines: Machines, mode: Any, family: int) -> None:
        self.machines = machines
        self.family = family
        """0 for IPv4, 1 for IPv6."""
        self.service_ip = CLUSTER_IPS[family]
        self.balancer = BALANCERS[family]
        self.feed = Feed()
        self.client_address = machines.addresses["client"][family]
        self.proxies: list[ServiceProxy] = []
        self.informers: list[Informers] = []
        for name in ("node-1", "node-2"):
            self.feed.put(node(name, *machines.addresses[name]))
            informers = Informers(self.feed.client, machines.clock)
            self.informers.append(informers)
            self.proxies.append(
                ServiceProxy(
                    informers,
                    machines.clock,
                    node_name=name,
                    cluster_cidrs=CLUSTER_CIDRS,
                    service_cidrs=SERVICE_CIDRS,
                    mode=mode,
                    network_namespace=machines.path(name),
                    resync_period_s=0.05,
                )
            )

    async def add_pods(self) -> None:
        for name, on in (("a", "node-1"), ("b", "node-1"), ("c", "node-2"), ("caller", "node-1")):
            self.machines.add_pod(name, on)
            await self.machines.serve(name)
        for name in ("a", "c"):
            self.machines.serve_udp(name, family=(socket.AF_INET, socket.AF_INET6)[self.family])

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for each in (*self.informers, *self.proxies):
                group.create_task(each.run())

    def address(self, name: str) -> str:
        """Of a node or the client."""
        return self.machines.addresses[name][self.family]

    def service(self, **options: Any) -> Service:
        """Dual-stack, the tested family first."""
        return service(cluster_ip=",".join(CLUSTER_IPS[:: -1 if self.family else 1]), port=PORT, **options)

    def slices(self, *names: str, conditions: dict[str, Any] | None = None, **options: Any) -> list[Any]:
        """One slice for each family."""
        made = []
        for family, label in ((0, "web-4"), (1, "web-6")):
            endpoints = [
                endpoint(self.machines.pods[name][family], node=self.machines.node_of[name], **(conditions or {}))
                for name in names
            ]
            made.append(endpoint_slice(*endpoints, name=label, **options))
        made[1].address_type = "IPv6"
        return made

    async def show(self, *objects: Any) -> None:
        for obj in objects:
            revision = self.feed.put(obj)
            for proxy in self.proxies:
                await proxy.synced(revision, type(obj))

    async def answers(self, count: int, caller: str, address: str, port: int = PORT) -> Counter[str]:
        return Counter([(await self.machines.ask(caller, address, port))[0] for _ in range(count)])


@pytest.fixture(params=["nftables", "iptables"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[0, 1], ids=["IPv4", "IPv6"])
async def rig(machines: Machines, mode: str, request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    rig = Rig(machines, mode, request.param)
    await rig.add_pods()
    running = asyncio.create_task(rig.run())
    try:
        yield rig
    finally:
        running.cancel()
        await asyncio.wait([running])
        for proxy in rig.proxies:
            await proxy.close(remove=True)


async def test_a_cluster_ip_leads_to_the_endpoints_of_its_family_on_every_node(rig: Rig) -> None:
    await rig.show(rig.service(), *rig.slices("a", "b", "c"))
    assert await rig.answers(30, "caller", rig.service_ip) == {"a": 10, "b": 10, "c": 10}
    for caller in ("node-1", "node-2", "a", "c"):
        assert set(await rig.answers(6, caller, rig.service_ip)) == {"a", "b", "c"}, caller
    # The other family's slice is of no use for this one's address.
    of_family = rig.slices("c")[rig.family]
    await rig.show(of_family)
    assert await rig.answers(4, "caller", rig.service_ip) == {"c": 4}
    assert set(await rig.answers(6, "caller", CLUSTER_IPS[1 - rig.family])) == {"a", "b", "c"}


async def test_two_services_that_are_asked_in_turns_each_spread_evenly(rig: Rig) -> None:
    other = rig.service(name="other")
    assert other.spec
    other.spec.cluster_ip, other.spec.cluster_ips = CLUSTER_IPS[rig.family] + "1", [CLUSTER_IPS[rig.family] + "1"]
    slices = rig.slices("a", "c", service="other")
    for each in slices:
        each.metadata.name = f"other-{each.metadata.name}"
    await rig.show(rig.service(), other, *rig.slices("a", "c"), *slices)
    counts: dict[str, Counter[str]] = {}
    for _ in range(10):
        for address in (rig.service_ip, CLUSTER_IPS[rig.family] + "1"):
            counts.setdefault(address, Counter()).update(await rig.answers(1, "caller", address))
    assert all(count == {"a": 5, "c": 5} for count in counts.values()), counts


async def test_pods_keep_their_address_towards_a_service_and_reach_themselves(rig: Rig) -> None:
    await rig.show(rig.service(), *rig.slices("c"))
    assert await rig.machines.ask("caller", rig.service_ip, PORT) == ("c", rig.machines.pods["caller"][rig.family])
    await rig.show(*rig.slices("a"))
    assert (await rig.machines.ask("a", rig.service_ip, PORT))[0] == "a"


async def test_a_node_port_is_open_on_every_node(rig: Rig) -> None:
    await rig.show(rig.service(node_port=NODE_PORT), *rig.slices("a", "c"))
    for caller in ("client", "caller", "node-1", "node-2", "c"):
        for name in ("node-1", "node-2"):
            assert set(await rig.answers(4, caller, rig.address(name), NODE_PORT)) == {"a", "c"}, (caller, name)
    _, seen = await rig.machines.ask("client", rig.address("node-1"), NODE_PORT)
    assert seen != rig.client_address, "with the Cluster policy the client's address is hidden"


async def test_external_traffic_policy_local_keeps_the_clients_address_and_stays_on_the_node(rig: Rig) -> None:
    local = {"node_port": NODE_PORT, "external_traffic_policy": "Local"}
    await rig.show(rig.service(**local), *rig.slices("a", "c"))
    for name, pod in (("node-1", "a"), ("node-2", "c")):
        answers = {await rig.machines.ask("client", rig.address(name), NODE_PORT) for _ in range(4)}
        assert answers == {(pod, rig.client_address)}
    # Pods and nodes have no address that must be kept: they are led anywhere.
    for caller in ("caller", "node-1"):
        assert set(await rig.answers(4, caller, rig.address("node-1"), NODE_PORT)) == {"a", "c"}, caller
    await rig.show(*rig.slices("c"))
    assert await rig.machines.is_dropped("client", rig.address("node-1"), NODE_PORT)
    assert await rig.answers(2, "caller", rig.address("node-1"), NODE_PORT) == {"c": 2}
    assert await rig.answers(2, "client", rig.address("node-2"), NODE_PORT) == {"c": 2}


async def test_a_node_serves_by_endpoints_that_end_while_it_has_no_others(rig: Rig) -> None:
    await rig.show(
        rig.service(node_port=NODE_PORT, external_traffic_policy="Local"),
        *rig.slices("a", conditions={"ready": False, "serving": True, "terminating": True}),
    )
    ending_here, ready_elsewhere = rig.slices("a", conditions={"ready": False, "terminating": True}), rig.slices("c")
    for ending, ready in zip(ending_here, ready_elsewhere, strict=True):
        ending.endpoints += ready.endpoints
    await rig.show(*ending_here)
    assert await rig.machines.ask("client", rig.address("node-1"), NODE_PORT) == ("a", rig.client_address)
    assert await rig.answers(4, "caller", rig.service_ip) == {"c": 4}


async def test_load_balancer_addresses_are_short_cut_inside(rig: Rig) -> None:
    rig.machines.route(rig.balancer, "node-1")
    await rig.show(balanced(rig.service(), *BALANCERS), *rig.slices("a", "c"))
    for caller in ("client", "caller", "node-1", "c"):
        assert set(await rig.answers(4, caller, rig.balancer)) == {"a", "c"}, caller
    # One that is a proxy wants to see the packets itself, so they go out to it: here, to the client.
    await rig.machines.serve("client", PORT)
    rig.machines.inside("client", f"ip addr add {rig.balancer}{'/128 nodad' if rig.family else '/32'} dev lo")
    await rig.show(balanced(rig.service(), *BALANCERS, ip_mode="Proxy"))
    assert await rig.answers(2, "node-1", rig.balancer) == {"client": 2}


async def test_a_load_balancers_address_with_the_local_policy_is_usable_by_pods_everywhere(rig: Rig) -> None:
    rig.machines.route(rig.balancer, "node-1")
    await rig.show(balanced(rig.service(external_traffic_policy="Local"), *BALANCERS), *rig.slices("c"))
    assert await rig.answers(2, "caller", rig.balancer) == {"c": 2}
    assert await rig.machines.is_dropped("client", rig.balancer, PORT)
    await rig.show(*rig.slices("a", "c"))
    assert await rig.machines.ask("client", rig.balancer, PORT) == ("a", rig.client_address)


async def test_source_ranges_admit_whom_they_name(rig: Rig) -> None:
    rig.machines.route(rig.balancer, "node-1")
    ranges = [f"{each}/{128 if ':' in each else 32}" for each in rig.machines.addresses["client"]]
    await rig.show(balanced(rig.service(load_balancer_source_ranges=ranges), *BALANCERS), *rig.slices("a"))
    assert await rig.answers(2, "client", rig.balancer) == {"a": 2}
    assert await rig.machines.is_dropped("caller", rig.balancer, PORT)
    assert await rig.answers(2, "caller", rig.service_ip) == {"a": 2}, "the cluster IP is nobody's but the pods'"
    await rig.show(balanced(rig.service(load_balancer_source_ranges=CLUSTER_CIDRS), *BALANCERS))
    assert await rig.answers(2, "caller", rig.balancer) == {"a": 2}
    assert await rig.machines.is_dropped("client", rig.balancer, PORT)


async def test_without_endpoints_every_address_refuses_at_once(rig: Rig) -> None:
    rig.machines.route(rig.balancer, "node-1")
    await rig.show(balanced(rig.service(node_port=NODE_PORT), *BALANCERS), *rig.slices())
    for caller, address, port in [
        ("caller", rig.service_ip, PORT),
        ("node-1", rig.service_ip, PORT),
        ("client", rig.address("node-2"), NODE_PORT),
        ("client", rig.balancer, PORT),
    ]:
        assert await rig.machines.is_refused(caller, address, port), (caller, address)


async def test_internal_traffic_policy_local_stays_on_the_node(rig: Rig) -> None:
    await rig.show(rig.service(internal_traffic_policy="Local"), *rig.slices("a", "c"))
    assert await rig.answers(4, "caller", rig.service_ip) == {"a": 4}
    assert await rig.answers(4, "node-2", rig.service_ip) == {"c": 4}
    await rig.show(*rig.slices("c"))
    assert await rig.machines.is_dropped("caller", rig.service_ip, PORT)


async def test_session_affinity_keeps_a_client_until_it_was_silent_for_the_timeout(rig: Rig) -> None:
    def remembering(timeout_s: int) -> Service:
        config = {"clientIP": {"timeoutSeconds": timeout_s}}
        return rig.service(session_affinity="ClientIP", session_affinity_config=config)

    await rig.show(remembering(600), *rig.slices("a", "b", "c"))
    (kept,) = await rig.answers(8, "caller", rig.service_ip)
    seen = {kept}
    await rig.show(remembering(1))
    async with asyncio.timeout(REPLY_TIMEOUT_S):
        while len(seen) < 2:  # the turn comes to another one once the client is forgotten
            seen |= set(await rig.answers(1, "caller", rig.service_ip))
            await asyncio.sleep(1.2)


async def test_udp_flows_follow_the_endpoints_and_tcp_connections_stay(rig: Rig) -> None:
    udp: dict[str, Any] = {"protocol": "UDP"}
    await rig.show(
        rig.service(node_port=NODE_PORT, **udp),
        *rig.slices("a", port=5300, **udp),
        tcp := service("tcp", CLUSTER_IPS[rig.family] + "2", port=PORT),
    )
    assert tcp.spec
    of_tcp = rig.slices("a", service="tcp")[rig.family]
    of_tcp.metadata.name = "tcp-1"
    await rig.show(of_tcp)
    connection = await rig.machines.connect("caller", CLUSTER_IPS[rig.family] + "2", PORT)
    flows = {
        ("caller", rig.service_ip, PORT): rig.machines.socket("caller", socket.SOCK_DGRAM, family_of(rig.service_ip)),
        ("client", rig.address("node-1"), NODE_PORT): rig.machines.socket(
            "client", socket.SOCK_DGRAM, family_of(rig.service_ip)
        ),
    }

    async def ask(made: socket.socket, address: str, port: int) -> str:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(REPLY_TIMEOUT_S):
            await loop.sock_sendto(made, b"who", (address, port))
            return (await loop.sock_recv(made, 100)).decode()

    for (_, address, port), made in flows.items():
        assert await ask(made, address, port) == "a"
    await rig.show(*rig.slices("c", port=5300, **udp))
    for (_, address, port), made in flows.items():
        assert await ask(made, address, port) == "c"
    # One that ends but still serves keeps its flows, whoever is ready now.
    ending = rig.slices("c", port=5300, conditions={"ready": False, "serving": True, "terminating": True}, **udp)
    for each, ready in zip(ending, rig.slices("a", port=5300, **udp), strict=True):
        each.endpoints += ready.endpoints
    await rig.show(*ending)
    for (_, address, port), made in flows.items():
        assert await ask(made, address, port) == "c"
    await rig.show(*rig.slices(port=5300, **udp))
    made = rig.machines.socket("caller", socket.SOCK_DGRAM, family_of(rig.service_ip))
    made.connect((rig.service_ip, PORT))  # so that it is told of ICMP errors
    made.send(b"nobody is there")
    async with asyncio.timeout(REPLY_TIMEOUT_S):
        with pytest.raises(ConnectionRefusedError):
            await asyncio.get_running_loop().sock_recv(made, 100)
    await rig.show(*rig.slices("a", port=5300, **udp))
    assert await ask(made, rig.service_ip, PORT) == "a"
    of_tcp.endpoints.clear()
    await rig.show(of_tcp)
    assert (await connection.ask())[0] == "a"
    connection.close()


async def test_sctp_gets_rules_of_its_own(rig: Rig, mode: str) -> None:
    """There are no SCTP sockets here; the rules are looked at."""
    await rig.show(rig.service(protocol="SCTP", node_port=NODE_PORT), *rig.slices("a", protocol="SCTP", port=9999))
    target = rig.machines.pods["a"][rig.family]
    if mode == "nftables":
        table = "ip6" if rig.family else "ip"
        found = rig.machines.inside("node-1", f"nft list map {table} knarr endpoints-sctp")
        assert f"{rig.service_ip} . {PORT} . 0 : {target} . 9999" in found
        assert f"{rig.address('node-1')} . {NODE_PORT} . 0 : {target} . 9999" in found
    else:
        found = rig.machines.inside("node-1", "ip6tables-save" if rig.family else "iptables-save")
        to = f"[{target}]:9999" if rig.family else f"{target}:9999"
        assert f"-j DNAT --to-destination {to}" in found
        assert "-p sctp" in found


async def test_what_a_node_tells_that_is_no_address_keeps_no_node_port_from_being_answered(rig: Rig) -> None:
    revision = rig.feed.put(node("node-1", "garbage", "0.0.0.0", "fe80::1", *rig.machines.addresses["node-1"]))
    for informers in rig.informers:
        await informers.of(Node).reached(revision)
    await rig.show(rig.service(node_port=NODE_PORT), *rig.slices("a"))
    assert await rig.answers(2, "client", rig.address("node-1"), NODE_PORT) == {"a": 2}


async def test_addresses_of_the_node_itself_and_of_links_get_no_rules(
    rig: Rig, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    bad = (("127.0.0.1", "169.254.169.254"), ("::1", "fe80::1"))[rig.family]
    await rig.show(
        rig.service(external_ips=list(bad)),
        endpoint_slice(*(endpoint(each) for each in (*bad, rig.machines.pods["a"][rig.family]))),
    )
    assert await rig.answers(4, "caller", rig.service_ip) == {"a": 4}
    rules = rig.machines.inside("node-1", "nft list ruleset")
    assert not any(f" {each}" in rules.replace("127.0.0.0/8", "") for each in bad)
    told = [each for each in caplog.messages if "no rules are made" in each]
    assert len(told) == 2 * len(bad), "each node tells once of each"
