"""NetworkPolicies where packets cross from one machine to another, in both address families.

Three kinds of pods, one of each on either machine: red and blue in one namespace, green in another. Who reaches whom is
asked of all of them at once (`packets.py`); what a policy means is told by a function beside it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable, Container, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.apart import Apart, Writes
from tests.e2e.conftest import TOOLS
from tests.e2e.packets import OPEN, SILENT, Ask, answers, listening, watching
from tests.e2e.two_nodes import NODES

HERE, THERE = "policies", "elsewhere"
COLOURS = {"red": HERE, "blue": HERE, "green": THERE}
HTTP, SECOND, THIRD, OTHER = 8080, 8081, 8082, 9000
PORTS = (HTTP, SECOND, THIRD, OTHER)
EFFECT_S_MAX = 0.2
SETTLE_S_MAX = 40.0
CHANGES = 3
TRIES = 20


@dataclass(frozen=True)
class Pod:
    colour: str
    node: str
    path: str
    addresses: tuple[str, str]

    @property
    def namespace(self) -> str:
        return COLOURS[self.colour]


@dataclass(frozen=True)
class Way:
    """A question whether one pod reaches another."""

    client: Pod
    server: Pod
    family: int
    """0 for IPv4, 1 for IPv6."""
    port: int


Allowed = Callable[[Way], bool]


class Pods:
    """The pods, and what is asked of them."""

    def __init__(self, cluster: Apart) -> None:
        self.cluster = cluster
        self.writes = Writes(cluster)
        cluster.kubectl("create", "namespace", HERE)
        cluster.kubectl("create", "namespace", THERE)
        cluster.kubectl("label", "namespace", THERE, "team=green")
        self.make(*(pod(colour, node) for colour in COLOURS for node in NODES))
        self.all = [self.found(colour, node) for colour in COLOURS for node in NODES]

    def make(self, *objects: dict[str, Any]) -> None:
        listed = {"apiVersion": "v1", "kind": "List", "items": objects}
        self.cluster.kubectl("create", "-f", "-", given=json.dumps(listed))
        for each in objects:
            metadata = each["metadata"]
            ready = ("--for=condition=Ready", "--timeout=55s")
            if each["kind"] == "Pod":
                self.cluster.kubectl("wait", *ready, "-n", metadata["namespace"], f"pod/{metadata['name']}")

    def found(self, colour: str, node: str) -> Pod:
        pod = self.cluster.get("pod", f"{colour}-{node}", "-n", COLOURS[colour])
        first, second = (each["ip"] for each in pod["status"]["podIPs"])
        return Pod(colour, node, self.cluster.path_of_pod(pod["metadata"]["uid"]), (first, second))

    def one(self, colour: str, node: str) -> Pod:
        return next(each for each in self.all if (each.colour, each.node) == (colour, node))

    def ways(self, ports: tuple[int, ...]) -> dict[Way, Ask]:
        return {
            Way(client, server, family, port): Ask(client.path, server.addresses[family], port)
            for client in self.all
            for server in self.all
            for family in (0, 1)
            for port in ports
        }

    def settle(self, allowed: Allowed, ports: tuple[int, ...] = (HTTP,)) -> None:
        """Who reaches whom becomes as said, for all at once, and stays so."""
        ways = self.ways(ports)
        wanted = {way for way in ways if way.client == way.server or allowed(way)}

        def differing(expected: Container[Ask] = ()) -> set[Way]:
            told = answers(ways.values(), expected)
            return {way for way, ask in ways.items() if told[ask] != SILENT} ^ wanted

        deadline_s = time.monotonic() + SETTLE_S_MAX
        while wrong := differing():
            shown = [f"{w.client.colour}-{w.client.node} {w.server.colour}-{w.server.node} {w.port}" for w in wrong]
            assert time.monotonic() < deadline_s, shown[:10]
        assert differing({ways[way] for way in wanted}) == set()

    def open(self) -> None:
        """No policy any more."""
        for namespace in (HERE, THERE):
            self.writes.delete(path(namespace))

    def policies(self, *specs: dict[str, Any], namespace: str = HERE) -> None:
        for number, spec in enumerate(specs):
            self.add(policy(f"policy-{number}", spec, namespace))

    def add(self, policy: dict[str, Any]) -> None:
        self.writes.create(path(policy["metadata"]["namespace"]), policy)


def pod(colour: str, node: str, script: str = "exec sleep 3600") -> dict[str, Any]:
    name = f"{colour}-{node}"
    container = {
        "name": "main",
        "image": TOOLS,
        "command": ["sh", "-c", script],
        "ports": [{"name": "http", "containerPort": HTTP}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": COLOURS[colour], "labels": {"colour": colour, "pod": name}},
        "spec": {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container]},
    }


def coloured(*colours: str) -> dict[str, Any]:
    return {"podSelector": {"matchExpressions": [{"key": "colour", "operator": "In", "values": list(colours)}]}}


GREENS = {"namespaceSelector": {"matchLabels": {"team": "green"}}}
BLUE = coloured("blue")
CLOSED = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


@pytest.fixture(scope="module")
def created(apart: Apart) -> Iterator[Pods]:
    pods = Pods(apart)
    with ExitStack() as servers:
        for each in pods.all:
            servers.enter_context(listening(each.path, HTTP))
        yield pods
    apart.kubectl("delete", "namespace", HERE, THERE, "--wait=false")


@pytest.fixture
def pods(created: Pods) -> Iterator[Pods]:
    yield created
    created.open()


def test_default_deny_closes_both_directions_on_both_machines(pods: Pods) -> None:
    pods.settle(lambda way: True)
    pods.policies(CLOSED)
    pods.settle(lambda way: way.client.colour == way.server.colour == "green")


def test_ingress_is_open_to_pods_by_label(pods: Pods) -> None:
    pods.policies({**BLUE, "ingress": [{"from": [coloured("red")]}]})
    pods.settle(lambda way: way.server.colour != "blue" or way.client.colour == "red")


def test_ingress_is_open_to_pods_of_namespaces_by_label_and_to_either_of_two_peers(pods: Pods) -> None:
    pods.policies({**BLUE, "ingress": [{"from": [{**GREENS, **coloured("green")}]}]})
    pods.settle(lambda way: way.server.colour != "blue" or way.client.colour == "green")
    pods.open()
    # Red pods of the greens' namespace: nobody. Then greens, or reds of one's own namespace.
    pods.policies(
        {**BLUE, "ingress": [{"from": [{**GREENS, **coloured("red")}]}]},
        {**coloured("red"), "ingress": [{"from": [GREENS, coloured("red")]}]},
    )
    pods.settle(
        lambda way: (
            way.server.colour != "blue" and (way.server.colour != "red" or way.client.colour in ("red", "green"))
        )
    )


def test_ports_are_open_by_name_and_by_range(pods: Pods) -> None:
    pods.policies(
        {**BLUE, "ingress": [{"from": [coloured("red")], "ports": [{"port": "http"}]}]},
        {**BLUE, "ingress": [{"from": [GREENS], "ports": [{"port": SECOND, "endPort": THIRD}]}]},
        {**coloured("red"), "policyTypes": ["Egress"], "egress": [{"ports": [{"port": "http"}, {"port": OTHER}]}]},
    )

    def allowed(way: Way) -> bool:
        goes = way.client.colour != "red" or way.port in (HTTP, OTHER)
        if way.server.colour != "blue":
            return goes
        return goes and way.port in {"red": (HTTP,), "green": (SECOND, THIRD), "blue": ()}[way.client.colour]

    pods.settle(allowed, PORTS)


def test_egress_is_open_to_ranges_with_exceptions_in_both_families(pods: Pods) -> None:
    ranges = pods.cluster.get("node", "second")["spec"]["podCIDRs"]
    not_there = pods.one("blue", "second").addresses
    blocks = [
        {"ipBlock": {"cidr": cidr, "except": [f"{address}/{128 if ':' in address else 32}"]}}
        for cidr, address in zip(ranges, not_there, strict=True)
    ]
    pods.policies({**coloured("red", "blue"), "policyTypes": ["Egress"], "egress": [{"to": blocks}]})
    pods.settle(
        lambda way: way.client.colour == "green" or (way.server.node == "second" and way.server.colour != "blue")
    )


def test_a_range_of_one_family_says_nothing_of_the_other(pods: Pods) -> None:
    pods.policies({**BLUE, "ingress": [{"from": [{"ipBlock": {"cidr": "::/0"}}]}]})
    pods.settle(lambda way: way.server.colour != "blue" or way.family == 1)


def test_both_ends_must_allow_a_connection_and_policies_add_up(pods: Pods) -> None:
    pods.policies({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [GREENS]}]})
    blues = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": HERE}}, **BLUE}
    pods.policies({"podSelector": {}, "ingress": [{"from": [blues]}]}, namespace=THERE)

    def allowed(way: Way) -> bool:
        if way.client.colour == "green":
            return way.server.colour != "green"
        return (way.client.colour, way.server.colour) == ("blue", "green")

    pods.settle(allowed)
    pods.add(policy("more", {**coloured("red"), "policyTypes": ["Egress"], "egress": [{"to": [coloured("red")]}]}))
    pods.settle(lambda way: allowed(way) or way.client.colour == way.server.colour == "red")


def test_pods_and_namespaces_that_get_other_labels_are_meant_at_once(pods: Pods) -> None:
    pods.policies({**BLUE, "ingress": [{"from": [GREENS, coloured("red")]}]})
    pods.settle(lambda way: way.server.colour != "blue" or way.client.colour != "blue")
    kubectl = pods.cluster.kubectl
    kubectl("label", "namespace", THERE, "team-")
    kubectl("label", "pod", "red-second", "-n", HERE, "colour=none", "--overwrite")
    try:
        pods.settle(lambda way: way.server.colour != "blue" or (way.client.colour, way.client.node) == ("red", "first"))
    finally:
        kubectl("label", "namespace", THERE, "team=green")
        kubectl("label", "pod", "red-second", "-n", HERE, "colour=red", "--overwrite")


def test_behind_a_cluster_ip_the_client_pod_is_seen_and_the_pods_own_port_counts(pods: Pods) -> None:
    """The peer of a rule is who asks, its port is the pod's: on either machine, through either's rules."""
    pods.policies({**BLUE, "ingress": [{"from": [coloured("red")], "ports": [{"port": HTTP}]}]})
    for node in NODES:
        pods.make(service(f"blue-{node}", {"pod": f"blue-{node}"}))
    asks = {
        (client.colour, client.node, node, address): Ask(client.path, address, 80)
        for node in NODES
        for address in pods.cluster.get("service", f"blue-{node}", "-n", HERE)["spec"]["clusterIPs"]
        for client in pods.all
    }
    assert len(asks) == 24
    reached(asks, lambda colour, at, node, _: colour == "red" or (colour, at) == ("blue", node))


def test_at_a_node_port_the_client_is_seen_where_its_address_is_kept(pods: Pods) -> None:
    """As upstream's rules have it: what one machine hands on to another's pod comes with the first one's address."""
    cluster = pods.cluster
    client = [
        {"ipBlock": {"cidr": f"{cluster.client_address}/32"}},
        {"ipBlock": {"cidr": f"{cluster.client_address6}/128"}},
    ]
    pods.policies({**BLUE, "ingress": [{"from": client}]})
    asks: dict[tuple[str, ...], Ask] = {}
    for node in NODES:
        for how in ("Cluster", "Local"):
            name = f"blue-{node}-{how.lower()}"
            pods.make(service(name, {"pod": f"blue-{node}"}, type="NodePort", externalTrafficPolicy=how))
            port = cluster.get("service", name, "-n", HERE)["spec"]["ports"][0]["nodePort"]
            for at in NODES:
                for address in (cluster.addresses[at], cluster.addresses6[at]):
                    asks[how, at, node, address] = Ask(cluster.path("client"), address, port)
    reached(asks, lambda how, at, node, _: at == node)
    pods.open()
    machines = [f"{each}/32" for each in cluster.addresses.values()] + [
        f"{each}/128" for each in cluster.addresses6.values()
    ]
    pods.policies({**BLUE, "ingress": [{"from": [{"ipBlock": {"cidr": each}} for each in machines]}]})
    reached(asks, lambda how, at, node, _: how == "Cluster" and at != node)


def test_egress_to_the_clusters_dns_alone_lets_pods_ask_for_names_and_nothing_else(pods: Pods) -> None:
    dns = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    }
    ports = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
    pods.make(service("named", {"colour": "blue"}))
    addresses = pods.cluster.get("service", "named", "-n", HERE)["spec"]["clusterIPs"]
    servers = pods.cluster.get("service", "kube-dns", "-n", "kube-system")["spec"]["clusterIPs"]
    assert len(servers) == 2

    def told(node: str, server: str) -> str:
        command = f"timeout 1 nslookup named.{HERE}.svc.cluster.local {server} 2>&1; true"
        return pods.cluster.kubectl("exec", "-n", HERE, f"red-{node}", "--", "sh", "-c", command)

    pods.policies(CLOSED)
    pods.settle(lambda way: way.client.colour == way.server.colour == "green")
    assert addresses[0] not in told("first", servers[0])
    pods.make(
        policy("names", {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [dns], "ports": ports}]})
    )
    for node in NODES:
        for server in servers:
            pods.cluster.until(lambda: all(each in told(node, server) for each in addresses), "an answer")  # noqa: B023
    pods.settle(lambda way: way.client.colour == way.server.colour == "green")


def test_a_change_takes_effect_within_200_ms_on_both_machines(pods: Pods) -> None:
    """From before the write is sent to the last packet that meets the old rules, each way between the machines."""
    first, second = (pods.one("blue", node) for node in NODES)
    asks = [
        Ask(client.path, server.addresses[family], OTHER)
        for client, server in ((first, second), (second, first))
        for family in (0, 1)
    ]
    took_s: dict[str, list[float]] = {"closing": [], "opening": []}
    for _ in range(CHANGES):
        for what in took_s:
            was_silent = what == "opening"
            with watching(*asks) as watches:
                for watch in watches:
                    watch.becomes(silent=was_silent)
                began_s = time.monotonic()
                if was_silent:
                    pods.writes.delete(f"{path(HERE)}/closed")
                else:
                    pods.add(policy("closed", CLOSED))
                for watch in watches:
                    watch.becomes(silent=not was_silent)
            took_s[what] += [watch.last_s(silent=was_silent) - began_s for watch in watches]
    shown = {what: [round(each * 1000) for each in sorted(taken)] for what, taken in took_s.items()}
    print("milliseconds until a change was in force on both machines:", shown)
    for taken in took_s.values():
        assert statistics.median(taken) < EFFECT_S_MAX, shown


def test_a_pod_that_is_replaced_on_the_other_machine_is_closed_before_it_starts(pods: Pods) -> None:
    """Nothing leaves it, and nothing comes to its server, from their first moment on."""
    pods.policies(CLOSED)
    pods.settle(lambda way: way.client.colour == way.server.colour == "green")
    target = pods.one("green", "first").addresses
    script = f"""
    httpd -p {OTHER}; i=0; while [ $i -lt {TRIES} ]; do i=$((i+1)); for a in {" ".join(target)}; do
      {{ timeout 30 nc -w 1 $a {HTTP} </dev/null; echo "$a ended $?"; }} & done; sleep 0.02; done; sleep 3600"""
    first = pod("red", "first", script)
    first["metadata"] |= {"name": "moves", "labels": {"colour": "red", "pod": "moves"}}
    pods.make(first)

    def ends() -> Counter[tuple[str, str]]:
        return Counter(re.findall(r"(\S+) ended (\d+)", pods.cluster.kubectl("logs", "moves", "-n", HERE)))

    second = {**first, "spec": {**first["spec"], "nodeName": "second"}}
    ranges = [cidr.rpartition(".0/")[0] for cidr in pods.cluster.get("node", "second")["spec"]["podCIDRs"][:1]]
    taken = {each.addresses[0] for each in pods.all}
    free = [address for last in range(2, 20) if (address := f"{ranges[0]}.{last}") not in taken]
    with watching(*(Ask(pods.one("green", "first").path, address, OTHER) for address in free), each_s=0.02) as watches:
        pods.cluster.kubectl("delete", "pod", "moves", "-n", HERE)
        pods.make(second)
        pods.cluster.until(lambda: ends().total() == TRIES * len(target), "the end of its tries")
    address = pods.cluster.get("pod", "moves", "-n", HERE)["status"]["podIP"]
    assert address in free
    assert not any(OPEN in watch.outcomes() for watch in watches)
    assert ends() == {(address, "1"): TRIES for address in target}, "each connection was given up after a second"
    pods.cluster.kubectl("delete", "pod", "moves", "-n", HERE)


def test_policies_and_services_stay_in_force_while_the_node_is_killed_and_started_again(pods: Pods) -> None:
    pods.policies({**BLUE, "ingress": [{"from": [coloured("red")]}]})

    def allowed(way: Way) -> bool:
        return way.server.colour != "blue" or way.client.colour == "red"

    pods.settle(allowed)
    strangers = [Ask(pods.one("green", node).path, pods.one("blue", "second").addresses[0], HTTP) for node in NODES]
    friends = [Ask(pods.one("red", node).path, pods.one("blue", "second").addresses[1], HTTP) for node in NODES]
    pods.make(
        {**service("greens", {"colour": "green"}, type="NodePort"), "metadata": {"name": "greens", "namespace": THERE}}
    )
    port = pods.cluster.get("service", "greens", "-n", THERE)["spec"]["ports"][0]["nodePort"]
    outside = (pods.cluster.addresses["second"], pods.cluster.addresses6["second"])
    friends += [Ask(pods.cluster.path("client"), address, port) for address in outside]
    reached({(ask.address,): ask for ask in friends[2:]}, lambda _: True)
    with watching(*strangers) as closed, watching(*friends, each_s=0.02, silence_s=0.9) as opened:
        os.kill(pods.cluster.pids["second"], signal.SIGKILL)
        pods.cluster.until(lambda: pods.cluster.second("status", check=False).returncode == 3, "the process's end")
        pods.settle(allowed)
        pods.add(policy("greens", {**BLUE, "ingress": [{"from": [coloured("blue")]}]}))  # while it is away
        pods.cluster.join()
        pods.settle(lambda way: allowed(way) or way.client.colour == "blue")
    assert [watch.outcomes() for watch in closed] == [{SILENT}] * 2
    assert [watch.outcomes() for watch in opened] == [{OPEN}] * 4


def path(namespace: str) -> str:
    return f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies"


def policy(name: str, spec: dict[str, Any], namespace: str = HERE) -> dict[str, Any]:
    kind = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy"}
    return {**kind, "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def service(name: str, selector: dict[str, str], **spec: Any) -> dict[str, Any]:
    ports = [{"port": 80, "targetPort": "http"}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": HERE},
        "spec": {"selector": selector, "ports": ports, "ipFamilyPolicy": "RequireDualStack", **spec},
    }


def reached(asks: dict[tuple[str, ...], Ask], allowed: Callable[..., bool]) -> None:
    """Who is answered becomes as said, and stays so: a server by a connection, others by silence."""

    wanted = {key: OPEN if allowed(*key) else SILENT for key in asks}

    def wrong(expected: Container[Ask] = ()) -> dict[tuple[str, ...], str]:
        told = answers(asks.values(), expected)
        return {key: told[ask] for key, ask in asks.items() if told[ask] != wanted[key]}

    deadline_s = time.monotonic() + SETTLE_S_MAX
    while found := wrong():
        assert time.monotonic() < deadline_s, found
    assert wrong({ask for key, ask in asks.items() if wanted[key] == OPEN}) == {}
