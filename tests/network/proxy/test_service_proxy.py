"""Both proxy modes, with real traffic between network namespaces."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from knarr.api.core.v1 import DaemonEndpoint, NodeDaemonEndpoints, Service
from knarr.client.informer import Informers
from knarr.network.proxy.service_proxy import ServiceProxy
from tests.network.feed import Feed
from tests.network.lab import (
    CLIENT_ADDRESS,
    CLUSTER_CIDR,
    EXTERNAL_ADDRESS,
    NODE_ADDRESS,
    REPLY_TIMEOUT_S,
    Lab,
    until,
)
from tests.network.proxy.objects import ELSEWHERE, NODE, balanced, endpoint, endpoint_slice, node, service

pytestmark = pytest.mark.e2e

SERVICE = "10.96.0.20"
NODE_PORT = 30080


class Rig:
    """A lab with three pods that serve, a client pod, and a proxy that follows a feed."""

    def __init__(self, lab: Lab, mode: Any) -> None:
        self.lab = lab
        self.mode = mode
        self.feed = Feed()
        self.feed.put(node(NODE, NODE_ADDRESS))
        self.informers = Informers(self.feed.client, lab.clock)
        self.proxy = self.new_proxy()
        self.pods: dict[str, str] = {}

    def new_proxy(self, **options: Any) -> ServiceProxy:
        return ServiceProxy(
            self.informers,
            self.lab.clock,
            node_name=NODE,
            cluster_cidrs=[CLUSTER_CIDR],
            mode=self.mode,
            network_namespace=self.lab.path("node"),
            resync_period_s=0.05,
            **options,
        )

    async def add_pods(self) -> None:
        for name in ("a", "b", "c"):
            self.pods[name] = await self.lab.add_pod(name)
            await self.lab.serve(name)
        self.pods["caller"] = await self.lab.add_pod("caller")

    def endpoints(self, *names: str, **options: Any) -> Any:
        return endpoint_slice(*(endpoint(self.pods[name]) for name in names), **options)

    async def show(self, *objects: Any) -> None:
        """Put objects, and wait until the kernel's rules know of them."""
        for obj in objects:
            await self.proxy.synced(self.feed.put(obj), type(obj))

    async def answers(self, count: int, caller: str = "caller", address: str = SERVICE, port: int = 80) -> Counter[str]:
        return Counter([(await self.lab.ask(caller, address, port))[0] for _ in range(count)])

    def routes_loopback(self) -> bool:
        return self.lab.inside("node", "sysctl -n net.ipv4.conf.all.route_localnet").strip() == "1"

    def rules(self) -> str:
        """All rules of the node's namespace but the pod network's, without counters."""
        return "\n".join(
            line
            for line in self.lab.inside("node", "nft -s list ruleset").splitlines()
            if not line.lstrip().startswith("#")
        )

    def tables(self) -> dict[str, set[str]]:
        """All rules and chains that are there, by table, empty built-in chains left out."""
        found: dict[str, set[str]] = {}
        table = chain = ""
        for line in self.rules().splitlines():
            if line.startswith("table"):
                table = line
            elif line.lstrip().startswith(("chain", "map", "set")):
                chain = line
            elif line.strip(" \t}") and " hook " not in line:
                found.setdefault(table, set()).add(f"{chain}: {line}")
        return found

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            self._tasks = [group.create_task(self.informers.run()), group.create_task(self.proxy.run())]
            try:
                yield
            finally:
                await self.stop()
        await self.proxy.close(remove=True)

    async def stop(self) -> None:
        """End the proxy as a crash would: its rules stay."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)


@pytest.fixture(params=["nftables", "iptables"])
async def rig(lab: Lab, request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    rig = Rig(lab, request.param)
    await rig.add_pods()
    async with rig.running():
        yield rig


async def test_what_a_node_tells_of_its_agent_is_led_to_no_longer(rig: Rig) -> None:
    """And a node that goes gives its agent's address free."""
    await rig.show(service(), rig.endpoints("a", "b"))
    assert set(await rig.answers(40)) == {"a", "b"}
    other = node(ELSEWHERE, rig.pods["a"])
    assert other.status
    other.status.daemon_endpoints = NodeDaemonEndpoints(kubelet_endpoint=DaemonEndpoint(port=8080))

    async def led_to(*names: str) -> bool:
        return set(await rig.answers(40)) == set(names)

    rig.feed.put(other)
    await until(lambda: led_to("b"))
    rig.feed.delete(other)
    await until(lambda: led_to("a", "b"))


async def test_an_agent_is_not_reached_at_the_address_of_the_dns_that_its_node_answers(rig: Rig) -> None:
    proxy = rig.new_proxy(own_addresses=["10.96.0.10"])
    other = node(ELSEWHERE, "192.0.2.7")
    assert other.status
    other.status.daemon_endpoints = NodeDaemonEndpoints(kubelet_endpoint=DaemonEndpoint(port=10350))
    rig.feed.put(other)
    await until(lambda: _is(bool(proxy.seen.agents)))
    assert proxy.seen.agents == {("192.0.2.7", 10350), ("10.96.0.10", 10350)}
    await proxy.close(remove=False)


async def test_requests_are_spread_evenly(rig: Rig) -> None:
    await rig.show(service(), rig.endpoints("a", "b", "c"))
    counts = await rig.answers(300)
    assert set(counts) == {"a", "b", "c"}
    assert all(85 <= count <= 115 for count in counts.values()), counts
    assert all(count > 0 for count in (await rig.answers(9, caller="node")).values())


async def test_pods_keep_their_address_towards_a_service(rig: Rig) -> None:
    await rig.show(service(), rig.endpoints("a"))
    assert await rig.lab.ask("caller", SERVICE, 80) == ("a", rig.pods["caller"])


async def test_a_pod_reaches_itself_through_its_service(rig: Rig) -> None:
    await rig.show(service(), rig.endpoints("a"))
    assert (await rig.lab.ask("a", SERVICE, 80))[0] == "a"


async def test_node_ports_are_answered_where_upstream_answers_them(rig: Rig) -> None:
    await rig.show(service(node_port=NODE_PORT), rig.endpoints("a", "b"))
    for caller, address in [
        ("client", NODE_ADDRESS),
        ("node", NODE_ADDRESS),
        ("caller", NODE_ADDRESS),
        ("a", NODE_ADDRESS),
    ]:
        assert set(await rig.answers(4, caller, address, NODE_PORT)) == {"a", "b"}, (caller, address)
    for address in ("127.0.0.1", "10.244.0.1"):
        if rig.mode == "iptables":
            assert set(await rig.answers(4, "node", address, NODE_PORT)) == {"a", "b"}, address
        else:
            with pytest.raises(ConnectionRefusedError):
                await rig.lab.connect("node", address, NODE_PORT)


async def test_node_port_addresses_can_be_set(lab: Lab) -> None:
    for mode, found in (("nftables", "0"), ("iptables", "0"), ("nftables", "1")):
        lab.inside("node", f"sysctl -qw net.ipv4.conf.all.route_localnet={found}")
        rig = Rig(lab, mode)
        rig.pods = {"a": await lab.add_pod(f"pod-{mode}-{found}")}
        await lab.serve(f"pod-{mode}-{found}")
        rig.proxy = rig.new_proxy(node_port_addresses=["127.0.0.0/8", "10.244.0.0/24"])
        async with rig.running():
            await rig.show(service(node_port=NODE_PORT), rig.endpoints("a"))
            for address in ("127.0.0.1", "10.244.0.1"):
                assert await rig.answers(2, "node", address, NODE_PORT) == {f"pod-{mode}-{found}": 2}
            assert rig.routes_loopback()
            with pytest.raises(ConnectionRefusedError):
                await rig.lab.connect("node", NODE_ADDRESS, NODE_PORT)
        assert rig.routes_loopback() == (found == "1"), "without the rules it would be open to the network"


async def test_loopback_stays_closed_to_the_network(rig: Rig) -> None:
    """Although the kernel would let packets to it in, for the sake of node ports there (CVE-2020-8558)."""
    await rig.lab.serve("node", 7777)
    for name in ("node", "client"):
        rig.lab.inside(name, "sysctl -qw net.ipv4.conf.all.route_localnet=1")
    rig.lab.inside("client", f"ip route add 127.0.0.1/32 via {NODE_ADDRESS}")
    assert (await rig.lab.ask("client", "127.0.0.1", 7777))[0] == "node", "open before there are rules"
    await rig.show(service(), rig.endpoints("a"))
    assert await rig.lab.is_dropped("client", "127.0.0.1", 7777)
    assert await rig.answers(1, "node", "127.0.0.1", 7777) == {"node": 1}
    assert await rig.answers(1, "client", NODE_ADDRESS, 7777) == {"node": 1}


async def test_without_endpoints_connections_are_refused_at_once(rig: Rig) -> None:
    await rig.show(service(node_port=NODE_PORT, external_ips=[EXTERNAL_ADDRESS]))
    for caller, address, port in [
        ("caller", SERVICE, 80),
        ("node", SERVICE, 80),
        ("client", NODE_ADDRESS, NODE_PORT),
        ("node", NODE_ADDRESS, NODE_PORT),
        ("client", EXTERNAL_ADDRESS, 80),
    ]:
        assert await rig.lab.is_refused(caller, address, port), (caller, address)
    await rig.show(rig.endpoints("a"))
    assert await rig.answers(3) == {"a": 3}
    assert await rig.answers(3, "client", EXTERNAL_ADDRESS) == {"a": 3}
    await rig.show(rig.endpoints())
    with pytest.raises(ConnectionRefusedError):
        await rig.lab.connect("caller", SERVICE, 80)


async def test_session_affinity_keeps_a_client_at_its_endpoint(rig: Rig) -> None:
    await rig.show(service(session_affinity="ClientIP"), rig.endpoints("a", "b", "c"))
    (first,) = await rig.answers(10)
    (second,) = await rig.answers(10, caller="node")
    assert first != second, "another client is another turn"
    # A change elsewhere, a full rewrite and a restart of the proxy keep it so.
    await rig.show(rig.endpoints("a", "b", "c", "caller"))
    assert set(await rig.answers(5)) == {first}
    rewritten = rig.proxy.transactions
    poke = "nft add chain ip knarr poke" if rig.mode == "nftables" else "iptables -t nat -N POKE"
    rig.lab.inside("node", poke)
    await until(lambda: _is(rig.proxy.transactions > rewritten))
    assert set(await rig.answers(5)) == {first}
    # Its endpoint leaves: it finds another, and stays there.
    await rig.show(rig.endpoints(*({"a", "b", "c"} - {first})))
    (moved,) = await rig.answers(10)
    assert moved != first


async def test_a_removed_endpoint_gets_no_new_connection_and_keeps_the_old_ones(rig: Rig) -> None:
    await rig.show(service(), rig.endpoints("a", "b", "c"))
    open_connections = [await rig.lab.connect("caller", SERVICE, 80) for _ in range(6)]
    leaving = [each for each in open_connections if (await each.ask())[0] == "a"]
    assert leaving
    await rig.show(rig.endpoints("b", "c"))
    assert set(await rig.answers(30)) == {"b", "c"}
    for connection in leaving:
        assert (await connection.ask())[0] == "a"
    for connection in open_connections:
        connection.close()


async def test_no_request_fails_while_endpoints_come_and_go(rig: Rig) -> None:
    await rig.show(service(), rig.endpoints("a", "b"))
    stop = asyncio.Event()

    async def keep_asking() -> int:
        count = 0
        while not stop.is_set():
            await rig.lab.ask("caller", SERVICE, 80)
            count += 1
        return count

    async with asyncio.TaskGroup() as group:
        asking = [group.create_task(keep_asking()) for _ in range(3)]
        for names in ["ab", "bc", "c", "ca", "abc", "b", "a"] * 8:
            await rig.show(rig.endpoints(*names))
        stop.set()
    assert sum(task.result() for task in asking) > 20


async def test_external_traffic_policy_local_keeps_the_client_and_the_node(rig: Rig) -> None:
    here, there = endpoint(rig.pods["a"]), endpoint(rig.pods["b"], node=ELSEWHERE)
    await rig.show(service(node_port=NODE_PORT, external_traffic_policy="Local"), endpoint_slice(here, there))
    answers = [await rig.lab.ask("client", NODE_ADDRESS, NODE_PORT) for _ in range(6)]
    assert set(answers) == {("a", CLIENT_ADDRESS)}
    assert set(await rig.answers(6)) == {"a", "b"}, "the cluster IP leads everywhere"
    assert set(await rig.answers(6, "caller", NODE_ADDRESS, NODE_PORT)) == {"a", "b"}, "pods are short-circuited"
    assert set(await rig.answers(6, "node", NODE_ADDRESS, NODE_PORT)) == {"a", "b"}
    await rig.show(endpoint_slice(there))
    assert await rig.lab.is_dropped("client", NODE_ADDRESS, NODE_PORT)
    assert await rig.answers(3, "node", NODE_ADDRESS, NODE_PORT) == {"b": 3}


async def test_external_traffic_policy_cluster_hides_the_client(rig: Rig) -> None:
    await rig.show(service(node_port=NODE_PORT), rig.endpoints("a"))
    _, seen = await rig.lab.ask("client", NODE_ADDRESS, NODE_PORT)
    assert seen != CLIENT_ADDRESS


async def test_internal_traffic_policy_local_uses_this_nodes_endpoints_only(rig: Rig) -> None:
    here, there = endpoint(rig.pods["a"]), endpoint(rig.pods["b"], node=ELSEWHERE)
    await rig.show(service(internal_traffic_policy="Local"), endpoint_slice(here, there))
    assert await rig.answers(6) == {"a": 6}
    await rig.show(endpoint_slice(there))
    assert await rig.lab.is_dropped("caller", SERVICE, 80)
    await rig.show(endpoint_slice())
    with pytest.raises(ConnectionRefusedError):
        await rig.lab.connect("caller", SERVICE, 80)


async def test_endpoints_that_serve_while_terminating_are_the_last_resort(rig: Rig) -> None:
    ending = endpoint(rig.pods["a"], ready=False, terminating=True)
    await rig.show(service(), endpoint_slice(ending, endpoint(rig.pods["b"])))
    assert await rig.answers(4) == {"b": 4}
    await rig.show(endpoint_slice(ending, endpoint(rig.pods["b"], ready=False, serving=False)))
    assert await rig.answers(4) == {"a": 4}


async def test_load_balancer_addresses_admit_their_source_ranges_only(rig: Rig) -> None:
    await rig.show(
        balanced(service(load_balancer_source_ranges=[f"{CLIENT_ADDRESS}/32"]), EXTERNAL_ADDRESS), rig.endpoints("a")
    )
    assert (await rig.answers(3, "client", EXTERNAL_ADDRESS)) == {"a": 3}
    assert await rig.lab.is_dropped("caller", EXTERNAL_ADDRESS, 80)


async def test_udp_flows_move_on_when_their_endpoint_goes(rig: Rig) -> None:
    for name in ("a", "b"):
        rig.lab.serve_udp(name)
    await rig.show(
        service(port=53, protocol="UDP", node_port=NODE_PORT),
        rig.endpoints("a", port=5300, protocol="UDP"),
    )
    callers = {
        ("caller", SERVICE, 53): rig.lab.socket("caller", socket.SOCK_DGRAM),
        ("client", NODE_ADDRESS, NODE_PORT): rig.lab.socket("client", socket.SOCK_DGRAM),
    }

    async def ask(made: socket.socket, target: tuple[str, int]) -> str:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(REPLY_TIMEOUT_S):
            await loop.sock_sendto(made, b"who", target)
            return (await loop.sock_recv(made, 100)).decode()

    for (_, address, port), made in callers.items():
        assert await ask(made, (address, port)) == "a"
    await rig.show(rig.endpoints("b", port=5300, protocol="UDP"))
    for (_, address, port), made in callers.items():
        assert await ask(made, (address, port)) == "b"


async def test_removed_rules_are_healed(rig: Rig) -> None:
    await rig.show(service(), rig.endpoints("a"))

    async def works() -> bool:
        try:
            async with asyncio.timeout(0.5):
                return (await rig.lab.ask("caller", SERVICE, 80))[0] == "a"
        except OSError:
            return False

    damages = {
        "nftables": [
            "nft delete table ip knarr",
            "nft flush map ip knarr service-ips",
            "nft flush map ip knarr endpoints-tcp",
            "nft flush set ip knarr cluster-ips",
            "nft flush chain ip knarr turn-tcp-1-0",
            "nft flush chain ip knarr services",
            "nft delete chain ip knarr nat-prerouting",
            "nft flush ruleset",
        ],
        "iptables": [
            "iptables -t nat -F KUBE-SERVICES",
            "iptables -t nat -D PREROUTING 1",
            "iptables -t nat -F",
            "iptables -t filter -F",
            "nft flush ruleset",
        ],
    }

    def ours() -> dict[str, set[str]]:
        kept = ("table ip knarr {", "table ip nat {", "table ip filter {")
        return {name: rules for name, rules in rig.tables().items() if name in kept}

    intact = ours()

    async def is_healed() -> bool:
        with suppress(subprocess.CalledProcessError):  # nft gives up on rules that go while it lists them
            return ours() == intact and await works()
        return False

    for damage in damages[rig.mode]:
        rig.lab.inside("node", damage)
        await until(is_healed)
    # And then single changes work as before.
    await rig.show(rig.endpoints("b"))
    assert await rig.answers(2) == {"b": 2}


async def test_an_untouched_rule_set_is_not_written_again(rig: Rig) -> None:
    await rig.show(service(), rig.endpoints("a"))
    written = rig.proxy.transactions
    await asyncio.sleep(0.2)  # four checks
    assert rig.proxy.transactions == written


async def test_what_others_do_to_their_own_tables_costs_us_nothing(rig: Rig) -> None:
    await rig.show(service(), rig.endpoints("a"))
    written = rig.proxy.transactions
    for number in range(5):
        rig.lab.inside("node", f"nft add table ip theirs{number}")
        await asyncio.sleep(0.06)  # more than a check
    assert rig.proxy.transactions == written
    await rig.show(rig.endpoints("b"))
    assert await rig.answers(2) == {"b": 2}
    # Nor does it hide what somebody did to ours.
    rig.lab.inside("node", "nft flush ruleset")

    async def is_whole() -> bool:
        return rig.proxy.transactions > written + 1

    await until(is_whole)
    assert await rig.answers(2) == {"b": 2}


async def test_rules_of_others_are_never_touched(rig: Rig) -> None:
    for command in [
        "nft add table ip theirs",
        "nft add chain ip theirs input { type filter hook input priority 5 ; }",
        "nft add rule ip theirs input tcp dport 9 drop",
        "iptables -t nat -N THEIRS",
        "iptables -t nat -A PREROUTING -p tcp --dport 9 -j THEIRS",
        "iptables -A FORWARD -p udp --dport 9 -j DROP",
    ]:
        rig.lab.inside("node", command)

    def theirs() -> list[str]:
        kept = ("table ip theirs", "tcp dport 9", "udp dport 9", "THEIRS")
        return [line.strip() for line in rig.rules().splitlines() if any(word in line for word in kept)]

    before = theirs()
    await rig.show(service(), rig.endpoints("a"))
    rig.lab.inside("node", "nft add table ip poke")
    await rig.show(rig.endpoints("a", "b"))
    await rig.proxy.synced(rig.feed.delete(service()), Service)
    assert theirs() == before
    await rig.stop()
    await rig.new_proxy().close(remove=True)
    assert theirs() == before


async def test_removal_leaves_no_rule(lab: Lab) -> None:
    # The empty built-in chains come with any use of iptables, and stay.
    lab.inside("node", "iptables -t nat -A PREROUTING -p tcp --dport 9 -j RETURN")
    lab.inside("node", "iptables -t filter -A INPUT -p tcp --dport 9 -j RETURN")
    lab.inside("node", "iptables -t filter -A FORWARD -p tcp --dport 9 -j RETURN")
    for mode in ("nftables", "iptables"):
        rig = Rig(lab, mode)
        rig.pods = {"a": await lab.add_pod(f"pod-{mode}")}
        before = rig.tables()
        async with rig.running():
            await rig.show(service(node_port=NODE_PORT, session_affinity="ClientIP"), rig.endpoints("a"))
            assert rig.tables() != before
        assert rig.tables() == before
        await rig.new_proxy().close(remove=True)


async def test_a_restarted_proxy_takes_over_and_drops_what_is_gone(rig: Rig) -> None:
    await rig.show(
        service(), rig.endpoints("a"), service("old", "10.96.0.21"), rig.endpoints("b", service="old", name="old")
    )
    assert await rig.answers(1, address="10.96.0.21") == {"b": 1}
    await rig.stop()
    feed = Feed()
    informers = Informers(feed.client, rig.lab.clock)
    feed.put(service())
    revision = feed.put(rig.endpoints("c"))
    proxy = ServiceProxy(
        informers,
        rig.lab.clock,
        node_name=NODE,
        cluster_cidrs=[CLUSTER_CIDR],
        mode=rig.mode,
        network_namespace=rig.lab.path("node"),
    )
    rig.proxy._resync_period_s = 1e6
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(informers.run()), group.create_task(proxy.run())]
        await proxy.synced(revision)
        assert await rig.answers(3) == {"c": 3}
        assert "old" not in rig.rules()
        for task in tasks:
            task.cancel()
    await proxy.close(remove=False)
    assert await rig.answers(3) == {"c": 3}, "the rules stay while nobody looks"


async def test_a_killed_run_in_the_other_mode_leaves_no_rules_to_compete(rig: Rig) -> None:
    await rig.show(service(), rig.endpoints("a"))
    await rig.stop()
    await rig.proxy.close(remove=False)
    was, rig.mode = rig.mode, "iptables" if rig.mode == "nftables" else "nftables"
    rig.informers = Informers(rig.feed.client, rig.lab.clock)
    rig.proxy = rig.new_proxy()
    async with rig.running():
        await rig.show(rig.endpoints("b"))
        assert await rig.answers(6) == {"b": 6}
        assert ("KUBE-SVC" in rig.rules()) == (was == "nftables")
        assert ("table ip knarr {" in rig.rules()) == (was == "iptables")


async def test_own_addresses_get_no_rule(lab: Lab) -> None:
    rig = Rig(lab, "nftables")
    await rig.add_pods()
    rig.proxy = rig.new_proxy(own_addresses=[SERVICE])
    await lab.network.add_node_address(SERVICE)
    await lab.serve("node", 80)
    async with rig.running():
        await rig.show(service(), rig.endpoints("a"))
        assert await rig.answers(3) == {"node": 3}


async def test_a_burst_of_changes_shares_transactions(rig: Rig) -> None:
    await rig.show(service())
    before = rig.proxy.transactions
    revision = 0
    for number in range(100):
        rig.feed.put(service(f"web{number}", f"10.96.1.{number}"))
        revision = rig.feed.put(rig.endpoints("a", service=f"web{number}", name=f"web{number}"))
    await rig.proxy.synced(revision)
    assert await rig.answers(1, address="10.96.1.99") == {"a": 1}
    assert rig.proxy.transactions - before <= 5


async def _is(value: bool) -> bool:
    return value
