"""Services of both address families on two machines: by cluster IP, node port and name, from pods and from the LAN.

Once with nftables in one network, once with iptables and a router in between, so that pods are reached by the tunnel.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from knarr.network.netlink import entered
from tests.e2e.apart import Apart
from tests.e2e.conftest import TOOLS
from tests.e2e.packets import OPEN, SILENT, Ask, answering, answers, datagram, watching
from tests.e2e.two_nodes import NODES, started

SPACE = "families"
PORT = 8080
ASKED = 6
"""Requests to a Service with two endpoints, which take turns."""
BIG_BYTES = 300_000
DATAGRAMS = 9999
FLOWS = range(20000, 20004)
"""Ports that datagrams come from: none that the kernel gives to others."""
ANSWER_S_MAX = 20.0
SCRIPT = f"""
mkdir -p /www/cgi-bin; head -c {BIG_BYTES} /dev/zero >/www/big
printf '#!/bin/sh\\nprintf "\\\\r\\\\n$NODE $REMOTE_ADDR"\\n' >/www/cgi-bin/who; chmod +x /www/cgi-bin/who
exec httpd -f -p {PORT} -h /www"""
WHO = "/cgi-bin/who"


class Services:
    """A server on each machine, and Services before them."""

    def __init__(self, cluster: Apart) -> None:
        self.cluster = cluster
        cluster.kubectl("create", "namespace", SPACE)
        self.make(
            *(server(node) for node in NODES),
            service("both", type="NodePort", ipFamilyPolicy="RequireDualStack"),
            service("local", type="NodePort", ipFamilyPolicy="RequireDualStack", externalTrafficPolicy="Local"),
            service("six", ipFamilies=["IPv6"]),
            service("named", clusterIP="None", ipFamilyPolicy="PreferDualStack"),
        )
        self.kubectl("wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
        self.look()
        self.settle()

    def look(self) -> None:
        """At the pods as they are now."""
        pods = {node: self.get("pod", f"web-{node}") for node in NODES}
        self.pods = {node: [each["ip"] for each in pod["status"]["podIPs"]] for node, pod in pods.items()}
        """Addresses of the pod on each machine."""
        self.paths = {f"web-{node}": self.cluster.path_of_pod(pod["metadata"]["uid"]) for node, pod in pods.items()}
        self.paths |= {part: self.cluster.path(part) for part in (*NODES, "client")}
        """Network namespaces of who may ask."""

    def make_again(self, node: str) -> None:
        self.make(server(node))
        self.kubectl("wait", "--for=condition=Ready", "pod", f"web-{node}", "--timeout=60s")
        self.look()
        self.settle()

    def settle(self) -> None:
        """Until the rules of both machines know both pods."""
        specs = {name: self.get("service", name)["spec"] for name in ("both", "local", "six")}
        for who in NODES:
            for address in specs["both"]["clusterIPs"] + specs["six"]["clusterIPs"]:
                self.leads(who, address, 80)
        for node in NODES:
            for address in self.nodes_addresses(node):
                self.leads("client", address, self.node_port("both"))
                self.leads("client", address, self.node_port("local"), [node])

    def leads(self, who: str, address: str, port: int, nodes: Iterable[str] = NODES) -> None:
        """Until the pods of these machines answer there, and no other."""

        def holds() -> bool:
            try:
                return self.seen(who, address, port).keys() == set(nodes)
            except OSError:
                return False

        self.cluster.until(holds, f"answers to {who} at {address}:{port}")

    def kubectl(self, *arguments: str, given: str = "") -> str:
        return self.cluster.kubectl("-n", SPACE, *arguments, given=given)

    def get(self, *arguments: str) -> Any:
        return self.cluster.get("-n", SPACE, *arguments)

    def make(self, *objects: dict[str, Any]) -> None:
        self.kubectl("create", "-f", "-", given=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))

    def page(self, who: str, address: str, port: int, path: str = WHO) -> str:
        """By HTTP, on a connection of its own."""
        connection = http.client.HTTPConnection(address, port, timeout=ANSWER_S_MAX)
        with entered(self.paths[who]):
            connection.connect()
        try:
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def seen(self, who: str, address: str, port: int = 80) -> dict[str, set[str]]:
        """Which machines' pods answer, and as whom each saw the client."""
        found: dict[str, set[str]] = {}
        for _ in range(ASKED):
            node, _, client = self.page(who, address, port).partition(" ")
            found.setdefault(node, set()).add(client.strip().strip("[]").removeprefix("::ffff:"))
        return found

    def node_port(self, name: str) -> int:
        port: int = self.get("service", name)["spec"]["ports"][0]["nodePort"]
        return port

    def nodes_addresses(self, node: str) -> tuple[str, str]:
        return self.cluster.addresses[node], self.cluster.addresses6[node]


def server(node: str) -> dict[str, Any]:
    container = {
        "name": "main",
        "image": TOOLS,
        "command": ["sh", "-c", SCRIPT],
        "env": [{"name": "NODE", "value": node}],
        "ports": [{"name": "http", "containerPort": PORT}],
        "readinessProbe": {"httpGet": {"path": "/big", "port": "http"}, "periodSeconds": 1},
    }
    spec = {"nodeName": node, "terminationGracePeriodSeconds": 1, "containers": [container]}
    metadata = {"name": f"web-{node}", "labels": {"app": "web"}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def service(name: str, **spec: Any) -> dict[str, Any]:
    ports = [{"name": "http", "port": 80, "targetPort": "http"}]
    wanted = {"selector": {"app": "web"}, "ports": ports, **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": wanted}


@pytest.fixture(scope="module", params=["nftables", "iptables, routed"])
def services(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    if request.param == "nftables":
        made = Services(request.getfixturevalue("apart"))
        yield made
        made.cluster.kubectl("delete", "namespace", SPACE, "--wait=false")
        return
    run = started(Apart(tmp_path_factory.mktemp("routed"), "iptables", routed=True))
    yield Services(next(run))
    assert next(run, None) is None


def test_cluster_ips_of_both_families_lead_to_both_machines_and_keep_the_pods_address(services: Services) -> None:
    addresses = (
        services.get("service", "both")["spec"]["clusterIPs"] + services.get("service", "six")["spec"]["clusterIPs"]
    )
    assert [":" in each for each in addresses] == [False, True, True]
    for address in addresses:
        for node in NODES:
            own = services.pods[node][":" in address]
            found = services.seen(f"web-{node}", address)
            assert found.keys() == set(NODES)
            assert found[next(each for each in NODES if each != node)] == {own}
            assert services.seen(node, address).keys() == set(NODES)


def test_node_ports_are_open_in_both_families_on_each_machine(services: Services) -> None:
    """Servers see a machine's address in place of the client's, but where the policy is `Local`."""
    both, local = services.node_port("both"), services.node_port("local")
    client = (services.cluster.client_address, services.cluster.client_address6)
    for node in NODES:
        for family, address in enumerate(services.nodes_addresses(node)):
            found = services.seen("client", address, both)
            assert found.keys() == set(NODES)
            assert all(client[family] not in seen for seen in found.values())
            assert services.seen("client", address, local) == {node: {client[family]}}
            for who in ("web-first", "web-second", *NODES):
                assert services.seen(who, address, both).keys() == set(NODES), (who, address)


def test_names_have_addresses_of_the_services_families(services: Services) -> None:
    servers = services.cluster.get("service", "kube-dns", "-n", "kube-system")["spec"]["clusterIPs"]
    assert len(servers) == 2
    ips = {name: services.get("service", name)["spec"]["clusterIPs"] for name in ("both", "six")}
    ips["named"] = [address for addresses in services.pods.values() for address in addresses]
    questions = [(name, server) for name in ips for server in servers]
    asked = "; ".join(f"nslookup {name}.{SPACE}.svc.cluster.local {server}" for name, server in questions)
    wanted = {(name, server): set(ips[name]) for name, server in questions}

    def found(node: str) -> dict[tuple[str, str], set[str]]:
        told = services.kubectl("exec", f"web-{node}", "--", "sh", "-c", asked).split("Server:")[1:]
        parts = [answer.partition("Name:")[2].splitlines() for answer in told]
        addresses = [{line.split()[1] for line in lines if line.startswith("Addr")} for lines in parts]
        return dict(zip(questions, addresses, strict=True))

    for node in NODES:
        services.cluster.until(lambda: found(node) == wanted, f"the addresses of all names, asked from {node}")  # noqa: B023


def test_much_data_passes_between_the_machines_in_both_families(services: Services) -> None:
    for address in services.get("service", "both")["spec"]["clusterIPs"]:
        for who in services.paths.keys() - {"client"}:
            for _ in NODES:
                assert len(services.page(who, address, 80, "/big")) == BIG_BYTES


def test_a_second_family_comes_and_goes_with_the_policy(services: Services) -> None:
    services.make(service("changes", type="NodePort"))
    first = services.get("service", "changes")["spec"]
    port = services.node_port("changes")
    assert (first["ipFamilyPolicy"], len(first["clusterIPs"])) == ("SingleStack", 1)
    client, at_nodes = services.paths["client"], [services.nodes_addresses(node)[1] for node in NODES]

    def version6(address: str, told: str) -> bool:
        asks = [Ask(services.paths[f"web-{node}"], address, 80) for node in NODES]
        asks += [Ask(client, each, port) for each in at_nodes]
        return set(answers(asks).values()) == {told} if told == OPEN else OPEN not in answers(asks).values()

    cluster = services.cluster

    def named(address: str) -> bool:
        told = services.kubectl("exec", "web-second", "--", "nslookup", f"changes.{SPACE}.svc.cluster.local")
        return address in told

    assert version6(at_nodes[0], SILENT)
    policy = "PreferDualStack" if services.cluster.proxy_mode == "nftables" else "RequireDualStack"
    services.kubectl("patch", "service", "changes", "-p", json.dumps({"spec": {"ipFamilyPolicy": policy}}))
    spec = services.get("service", "changes")["spec"]
    assert spec["clusterIPs"][0] == first["clusterIP"]
    assert spec["ipFamilies"] == ["IPv4", "IPv6"]
    second = spec["clusterIPs"][1]
    cluster.until(lambda: version6(second, OPEN), policy)
    for node in NODES:
        services.leads(f"web-{node}", second, 80)
    cluster.until(lambda: named(second), "its name leads to both")
    patch = {"spec": {"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"], "clusterIPs": [first["clusterIP"]]}}
    services.kubectl("patch", "service", "changes", "-p", json.dumps(patch))
    cluster.until(lambda: version6(second, SILENT), "one family")
    cluster.until(lambda: not named(second), "its name leads to one alone")
    assert services.seen("web-second", first["clusterIP"]).keys() == set(NODES)
    services.kubectl("delete", "service", "changes")


def test_datagrams_of_known_flows_go_to_the_other_machine_when_their_pod_is_gone(services: Services) -> None:
    ports = [{"protocol": "UDP", "port": 53, "targetPort": DATAGRAMS}]
    services.make(service("datagrams", type="NodePort", ipFamilyPolicy="RequireDualStack", ports=ports))
    spec, port = services.get("service", "datagrams")["spec"], services.node_port("datagrams")
    ways = [("client", address, port) for node in NODES for address in services.nodes_addresses(node)]
    ways += [(node, address, 53) for node in NODES for address in spec["clusterIPs"]]

    def told() -> list[set[str]]:
        """By each way, on flows of the same ports each time."""
        return [{datagram(services.paths[who], *where, flow) for flow in FLOWS} for who, *where in ways]

    with ExitStack() as servers:
        for node in NODES:
            servers.enter_context(answering(services.paths[f"web-{node}"], DATAGRAMS, node))
        services.cluster.until(lambda: told() == [set(NODES)] * len(ways), "both answer")
        services.kubectl("delete", "pod", "web-first", "--now")
        services.cluster.until(lambda: told() == [{"second"}] * len(ways), "the other one answers")
    services.make_again("first")
    services.kubectl("delete", "service", "datagrams")


def test_a_killed_node_goes_on_serving_and_heals_what_became_of_its_rules_meanwhile(services: Services) -> None:
    cluster, port = services.cluster, services.node_port("both")
    ways = [Ask(services.paths["client"], address, port) for address in services.nodes_addresses("second")]
    with watching(*ways, each_s=0.01, silence_s=0.9) as watches:
        os.kill(cluster.pids["second"], signal.SIGKILL)
        cluster.until(lambda: cluster.second("status", check=False).returncode == 3, "the process's end")
        for address in services.nodes_addresses("second"):
            services.leads("client", address, port)  # more than once: the watches take turns as well
    assert [watch.outcomes() for watch in watches] == [{OPEN}] * 2
    services.kubectl("delete", "pod", "web-first")
    spoil(cluster)
    assert set(answers(ways).values()) != {OPEN}
    cluster.join()
    for address in services.nodes_addresses("second"):
        services.leads("client", address, port, ["second"])
    services.make_again("first")


def spoil(cluster: Apart) -> None:
    """What somebody may do to rules and routes of the second machine."""
    if cluster.proxy_mode == "nftables":
        for family in ("ip", "ip6"):
            cluster.inside("node", "nft", "delete", "table", family, f"{cluster.name}p-services")
    else:
        for command in ("iptables", "ip6tables"):
            cluster.inside("node", command, "-t", "nat", "-F", "KUBE-NODEPORTS")
    for version in ("-4", "-6"):
        cluster.inside("node", "ip", version, "route", "flush", "proto", "107")
