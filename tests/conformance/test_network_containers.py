"""sig-network: what packets of real pods have a part in: names, services, node ports, affinity, proxies, host ports.

On as many nodes as there are (KNARR_TEST_NODES=2 makes it two): the first server is on the last node and others take
turns, while who asks is on the first node, or on each, so that with two nodes packets cross between them.
"""

from __future__ import annotations

import itertools
import json
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conformance.image import ONE
from tests.conformance.space import Space
from tests.ports import free_ports

HTTP, UDP = 8080, 8081
BOUND = f"until [ -e /tmp/udp-{UDP} ]; do sleep 0.1; done"
SERVER = f"hostname > /www/hostname; udp-server {UDP} & {BOUND}; exec httpd -f -p {HTTP} -h /www"
"""Who is ready by TCP answers by UDP, too."""
CLIENT = "trap 'exit 0' TERM; sleep 3600 & wait"
ASKED = 12
"""Requests in a row, to see where they go; endpoints take turns, so a few tell."""


class Net:
    """Pods that serve and ask, in one namespace."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.run = space.run
        nodes = json.loads(space.run("get", "nodes", "-o", "json"))["items"]
        self.nodes: dict[str, str] = {
            node["metadata"]["name"]: address["address"]
            for node in sorted(nodes, key=lambda node: str(node["metadata"]["name"]))
            for address in node["status"]["addresses"]
            if address["type"] == "InternalIP"
        }
        """Addresses by name."""
        self.turns = itertools.cycle(reversed(self.nodes))

    def pod(self, name: str, script: str, labels: dict[str, str] | None = None, node: str = "", **spec: Any) -> None:
        """On that node; else they take turns."""
        container: dict[str, Any] = {
            "name": "c",
            "image": ONE,
            "command": ["sh", "-c", script],
            **spec.pop("container", {}),
        }
        self.space.apply(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "labels": {"name": name, **(labels or {})}},
                "spec": {
                    "containers": [container],
                    "terminationGracePeriodSeconds": 1,
                    "nodeSelector": {"kubernetes.io/hostname": node or next(self.turns)},
                    **spec,
                },
            }
        )

    def servers(self, *names: str, script: str = SERVER, **spec: Any) -> dict[str, str]:
        """Pods behind app=web, ready; their addresses by name."""
        probe = {"tcpSocket": {"port": HTTP}, "periodSeconds": 1}
        for name in names:
            self.pod(name, script, {"app": "web"}, container={"readinessProbe": probe}, **spec)
        return {name: self.address(name) for name in names}

    def client(self, name: str = "client", **spec: Any) -> str:
        self.pod(name, CLIENT, **{"node": next(iter(self.nodes)), **spec})
        self.address(name)
        return name

    def clients(self, **spec: Any) -> list[str]:
        """One on each node."""
        return [self.client(f"client-{number}", node=node, **spec) for number, node in enumerate(self.nodes)]

    def address(self, name: str) -> str:
        self.space.running(f"name={name}", 1)
        address: str = self.space.get("pod", name)["status"]["podIP"]
        return address

    def service(self, name: str = "web", ports: list[dict[str, Any]] | None = None, **spec: Any) -> dict[str, Any]:
        spec = {"selector": {"app": "web"}, "ports": ports or [{"port": 80, "targetPort": HTTP}], **spec}
        if spec["selector"] is None:
            del spec["selector"]
        self.space.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
        return self.spec(name)

    def spec(self, name: str = "web") -> dict[str, Any]:
        found: dict[str, Any] = self.space.get("service", name)["spec"]
        return found

    def patch(self, name: str, spec: dict[str, Any]) -> dict[str, Any]:
        self.run("patch", "service", name, "--type", "merge", "-p", json.dumps({"spec": spec}))
        return self.spec(name)

    def sh(self, pod: str, script: str) -> str:
        return self.run("exec", pod, "--", "sh", "-c", script)

    def names(self, client: str, url: str, times: int = ASKED) -> list[str]:
        """Who answered, as often as asked."""
        return self.sh(client, f"for i in $(seq {times}); do timeout 2 wget -q -O - {url}/hostname; done; true").split()

    def reach(self, client: str, url: str, *names: str) -> None:
        """Until each of these, and nobody else, has answered."""

        def holds() -> bool:
            return set(self.names(client, url)) == set(names)

        self.space.until(holds, f"{url} answers as {names}")

    def looked_up(self, client: str, what: str, answers: str) -> None:
        """Until a question to the DNS is answered so (a pattern)."""

        def holds() -> bool:
            told = self.sh(client, f"nslookup {what} 2>&1; true")
            return re.search(answers, told) is not None

        self.space.until(holds, f"nslookup {what} tells {answers}")

    def at_nodes(self, spec: dict[str, Any]) -> list[str]:
        """Where the first node port of a service is: at each node."""
        return [f"http://{address}:{spec['ports'][0]['nodePort']}" for address in self.nodes.values()]

    def domain(self, name: str) -> str:
        return f"{name}.{self.space.name}.svc.cluster.local"


@pytest.fixture
def net(space: Space) -> Net:
    return Net(space)


# The API server as a Service


def test_endpoints_lead_to_the_api_server(net: Net) -> None:
    """[sig-network] API Server should have Endpoints and EndpointSlices pointing to API Server"""
    endpoints = json.loads(net.run("get", "endpoints", "kubernetes", "-n", "default", "-o", "json"))
    (subset,) = endpoints["subsets"]
    (address,) = [each["ip"] for each in subset["addresses"]]
    slices = json.loads(
        net.run("get", "endpointslices", "-n", "default", "-l", "kubernetes.io/service-name=kubernetes", "-o", "json")
    )
    (one,) = slices["items"]
    assert [each["addresses"] for each in one["endpoints"]] == [[address]]
    assert one["ports"][0]["port"] == subset["ports"][0]["port"] == net.space.cluster.port


# DNS


def test_pods_know_their_own_names(net: Net) -> None:
    """[sig-network] DNS should provide /etc/hosts entries for the cluster"""
    net.service("dns-test-service-1", clusterIP="None")
    address = net.servers("dns-querier-1", hostname="dns-querier-1", subdomain="dns-test-service-1")["dns-querier-1"]
    full = f"dns-querier-1.{net.domain('dns-test-service-1')}"
    hosts = net.sh("dns-querier-1", "cat /etc/hosts")
    assert [address, full, "dns-querier-1"] in [line.split() for line in hosts.splitlines()]
    net.sh("dns-querier-1", f"ping -c 1 -W 20 {full} && ping -c 1 -W 20 dns-querier-1")


def test_the_cluster_has_names(net: Net) -> None:
    """[sig-network] DNS should provide DNS for the cluster"""
    client = net.client()
    address = json.loads(net.run("get", "service", "kubernetes", "-n", "default", "-o", "json"))["spec"]["clusterIP"]
    net.looked_up(client, "kubernetes.default.svc.cluster.local", rf"Address: {re.escape(address)}\b")
    assert f"({address})" in net.sh(client, "ping -c 1 -W 1 kubernetes.default 2>&1; true")


def test_services_have_names(net: Net) -> None:
    """[sig-network] DNS should provide DNS for services"""
    client = net.client()
    addresses = net.servers("one", "two")
    port = [{"name": "http", "port": 80, "targetPort": HTTP}]
    net.service("headless", port, clusterIP="None")
    address = net.service("web", port)["clusterIP"]
    for each in addresses.values():
        net.looked_up(client, net.domain("headless"), rf"Address: {re.escape(each)}\b")
    net.looked_up(client, net.domain("web"), rf"Address: {re.escape(address)}\b")
    for name, number in (("web", 80), ("headless", HTTP)):
        found = rf"service = 0 \d+ {number} (\S+\.)?{name}\.{net.space.name}\.svc"
        net.looked_up(client, f"-type=srv _http._tcp.{net.domain(name)}", found)
    net.looked_up(client, address, rf"name = {re.escape(net.domain('web'))}")


def test_parts_of_names_are_enough(net: Net) -> None:
    """[sig-network] DNS should resolve DNS of partial qualified names for services [LinuxOnly]"""
    client = net.client()
    (pod,) = net.servers("one").values()
    net.service("headless", clusterIP="None")
    address = net.service("web")["clusterIP"]
    for name, there in (("headless", pod), ("web", address)):
        for part in (name, f"{name}.{net.space.name}", f"{name}.{net.space.name}.svc"):
            script, address = f"ping -c 1 -W 1 {part} 2>&1; true", f"({there})"
            net.space.until(lambda script=script, found=address: found in net.sh(client, script), f"{part}: {there}")


def test_a_name_for_another_name(net: Net) -> None:
    """[sig-network] DNS should provide DNS for ExternalName services"""
    client, name = net.client(), net.domain("elsewhere")
    net.service("elsewhere", type="ExternalName", externalName="foo.example.com")
    net.looked_up(client, f"-type=cname {name}", r"canonical name = foo\.example\.com")
    net.patch("elsewhere", {"externalName": "bar.example.com"})
    net.looked_up(client, f"-type=cname {name}", r"canonical name = bar\.example\.com")
    spec = net.patch("elsewhere", {"type": "ClusterIP", "externalName": None})
    net.looked_up(client, name, rf"Address: {re.escape(spec['clusterIP'])}\b")


def pod_name(net: Net) -> tuple[str, str]:
    net.service("dns-test-service-2", clusterIP="None")
    address = net.servers("dns-querier-2", hostname="dns-querier-2", subdomain="dns-test-service-2")["dns-querier-2"]
    return address, net.domain("dns-test-service-2")


def test_a_pod_with_a_hostname_has_a_name(net: Net) -> None:
    """[sig-network] DNS should provide DNS for pods for Hostname"""
    address, domain = pod_name(net)
    net.looked_up("dns-querier-2", f"dns-querier-2.{domain}", rf"Address: {re.escape(address)}\b")


def test_a_pod_in_a_subdomain_has_a_name(net: Net) -> None:
    """[sig-network] DNS should provide DNS for pods for Subdomain"""
    address, domain = pod_name(net)
    net.looked_up("dns-querier-2", domain, rf"Address: {re.escape(address)}\b")


def test_a_pod_may_choose_its_nameservers(net: Net) -> None:
    """[sig-network] DNS should support configurable pod DNS nameservers"""
    settings = {"nameservers": ["1.1.1.1"], "searches": ["resolv.conf.local"]}
    net.client("dns", dnsPolicy="None", dnsConfig=settings)
    lines = [line.split() for line in net.sh("dns", "cat /etc/resolv.conf").splitlines()]
    assert ["nameserver", "1.1.1.1"] in lines
    assert ["search", "resolv.conf.local"] in lines


# Slices by hand


def by_hand(net: Net, number: int, ports: list[dict[str, Any]], *addresses: str) -> None:
    net.space.apply(
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": f"hand-{number}", "labels": {"kubernetes.io/service-name": "hand"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [address]} for address in addresses],
            "ports": ports,
        }
    )


def test_several_addresses_in_several_slices(net: Net) -> None:
    """[sig-network] EndpointSlice should support a Service with multiple endpoint IPs specified in multiple
    EndpointSlices"""
    client = net.client()
    other = SERVER.replace(str(HTTP), "9090").replace(str(UDP), "9091")
    one = net.servers("one")["one"]
    net.pod("two", other, {"app": "web"})
    two = net.address("two")
    ports = [{"name": "a", "port": 80, "targetPort": HTTP}, {"name": "b", "port": 81, "targetPort": 9090}]
    address = net.service("hand", ports, selector=None)["clusterIP"]
    by_hand(net, 1, [{"name": "a", "port": HTTP}], one)
    by_hand(net, 2, [{"name": "b", "port": 9090}], two)
    net.reach(client, f"http://{address}:80", "one")
    net.reach(client, f"http://{address}:81", "two")


def test_several_ports_in_several_slices(net: Net) -> None:
    """[sig-network] EndpointSlice should support a Service with multiple ports specified in multiple EndpointSlices"""
    client = net.client()
    one = net.servers("one", script=f"httpd -p 9090 -h /www; {SERVER}")["one"]
    ports = [{"name": "a", "port": 80, "targetPort": HTTP}, {"name": "b", "port": 81, "targetPort": 9090}]
    address = net.service("hand", ports, selector=None)["clusterIP"]
    by_hand(net, 1, [{"name": "a", "port": HTTP}], one)
    by_hand(net, 2, [{"name": "b", "port": 9090}], one)
    net.reach(client, f"http://{address}:80", "one")
    net.reach(client, f"http://{address}:81", "one")


# Pods among themselves


@pytest.fixture
def fellows(net: Net) -> dict[str, str]:
    return net.servers("one", "two")


def ask_all(net: Net, clients: list[str], fellows: dict[str, str], protocol: str) -> None:
    places = [pod["spec"]["nodeName"] for pod in net.space.get("pods", "-l", "app=web")["items"]]
    assert set(places) == set(net.nodes), "a server on each node"
    for client, (name, address) in itertools.product(clients, fellows.items()):
        if protocol == "http":
            net.reach(client, f"http://{address}:{HTTP}", name)
        else:
            ask = f"udp {address} {UDP}"
            net.space.until(lambda ask=ask, client=client: net.sh(client, ask).split(), f"an answer to {client}")
            assert net.sh(client, ask).split() == [name]


def test_pods_reach_pods_by_http(net: Net, fellows: dict[str, str]) -> None:
    """[sig-network] Networking Granular Checks: Pods should function for intra-pod communication: http
    [NodeConformance]"""
    ask_all(net, net.clients(), fellows, "http")


def test_pods_reach_pods_by_udp(net: Net, fellows: dict[str, str]) -> None:
    """[sig-network] Networking Granular Checks: Pods should function for intra-pod communication: udp
    [NodeConformance]"""
    ask_all(net, net.clients(), fellows, "udp")


def test_the_node_reaches_pods_by_http(net: Net, fellows: dict[str, str]) -> None:
    """[sig-network] Networking Granular Checks: Pods should function for node-pod communication: http [LinuxOnly]
    [NodeConformance]"""
    ask_all(net, net.clients(hostNetwork=True), fellows, "http")


def test_the_node_reaches_pods_by_udp(net: Net, fellows: dict[str, str]) -> None:
    """[sig-network] Networking Granular Checks: Pods should function for node-pod communication: udp [LinuxOnly]
    [NodeConformance]"""
    ask_all(net, net.clients(hostNetwork=True), fellows, "udp")


def test_the_same_host_port_at_other_addresses_and_protocols(net: Net) -> None:
    """[sig-network] HostPort validates that there is no conflict between pods with same hostPort but different hostIP
    and protocol [LinuxOnly]"""
    (port,) = free_ports(1)
    # All on the node that this process is on: the API server's.
    here, node = next(iter(net.nodes.items()))
    wanted = (("pod1", "127.0.0.1", HTTP, "TCP"), ("pod2", node, HTTP, "TCP"), ("pod3", node, UDP, "UDP"))
    for name, host, inside, protocol in wanted:
        listed = [{"containerPort": inside, "hostPort": port, "protocol": protocol, "hostIP": host}]
        net.pod(name, SERVER, node=here, container={"ports": listed})
    for name, *_ in wanted:
        net.address(name)
    for name, host in (("pod1", "127.0.0.1"), ("pod2", node)):
        with urllib.request.urlopen(f"http://{host}:{port}/hostname", timeout=20) as answer:
            assert answer.read().decode().strip() == name
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(20)
        asking.sendto(b"who", (node, port))
        assert asking.recv(100) == b"pod3"


# Through the API server


class Door:
    """Requests of any method to the API server, as its administrator."""

    def __init__(self, net: Net, folder: Path) -> None:
        from base64 import b64decode

        written = yaml.safe_load(net.space.cluster.kubeconfig.read_text())
        cluster, user = written["clusters"][0]["cluster"], written["users"][0]["user"]
        for name, key in (("certificate", "client-certificate-data"), ("key", "client-key-data")):
            (folder / name).write_bytes(b64decode(user[key]))
        self.context = ssl.create_default_context(cadata=b64decode(cluster["certificate-authority-data"]).decode())
        self.context.load_cert_chain(folder / "certificate", folder / "key")
        self.base = f"{cluster['server']}/api/v1/namespaces/{net.space.name}"

    def ask(self, method: str, path: str) -> tuple[int, str]:
        asked = urllib.request.Request(f"{self.base}/{path}", method=method)
        try:
            with urllib.request.urlopen(asked, context=self.context, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read().decode()


def test_a_service_and_a_pod_are_reached_through_the_api_server(net: Net) -> None:
    """[sig-network] Proxy version v1 should proxy through a service and a pod"""
    net.servers("one")
    net.service("web", [{"name": "portname1", "port": 80, "targetPort": HTTP}])
    base = f"/api/v1/namespaces/{net.space.name}"
    for what in ("services/web:portname1", "services/web:80", "services/http:web:80", f"pods/one:{HTTP}"):
        path = f"{base}/{what}/proxy/hostname"
        net.space.until(lambda path=path: net.run("get", "--raw", path).strip() == "one", path)


METHODS = ("DELETE", "OPTIONS", "PATCH", "POST", "PUT", "GET", "HEAD")


def through(net: Net, folder: Path, rest: str) -> None:
    net.servers("agnhost", script=f"http-echo {HTTP}")
    net.service("e2e-proxy-test-service")
    door = Door(net, folder)
    for what in (f"pods/agnhost:{HTTP}", "services/e2e-proxy-test-service"):
        net.space.until(lambda what=what: door.ask("GET", f"{what}/proxy/")[0] == 200, what)
        for method in METHODS:
            status, told = door.ask(method, f"{what}/proxy{rest}")
            wanted = f"{method} {rest or '/'}"
            assert (status, told) == (200, "" if method == "HEAD" else wanted), what


def test_every_method_is_carried_to_pods_and_services(net: Net, tmp_path: Path) -> None:
    """[sig-network] Proxy version v1 A set of valid responses are returned for both pod and service Proxy"""
    through(net, tmp_path, "/")


def test_every_method_is_carried_with_its_path(net: Net, tmp_path: Path) -> None:
    """[sig-network] Proxy version v1 A set of valid responses are returned for both pod and service ProxyWithPath"""
    through(net, tmp_path, "/some/path/with/method")


# Services


def test_new_services_have_endpoints_soon(net: Net) -> None:
    """[sig-network] Service endpoints latency should not be very high"""
    net.servers("one")
    names = [f"latency-{number}" for number in range(100)]
    spec = {"selector": {"app": "web"}, "ports": [{"port": 80}]}
    net.space.apply(
        *({"apiVersion": "v1", "kind": "Service", "metadata": {"name": each}, "spec": spec} for each in names)
    )
    began_s = time.monotonic()

    def filled() -> bool:
        listed = net.space.get("endpoints")["items"]
        return {each["metadata"]["name"] for each in listed if each.get("subsets")} >= set(names)

    net.space.until(filled, "endpoints of 100 services")
    assert time.monotonic() - began_s < 20, "upstream's bound for the half of them"


def endpoints(net: Net, name: str, wanted: dict[str, list[int]]) -> None:
    """Until the endpoints of a service are these pods with these ports."""
    addresses = {pod: net.space.get("pod", pod)["status"]["podIP"] for pod in wanted}

    def holds() -> bool:
        found: dict[str, list[int]] = {}
        for subset in net.space.get("endpoints", name).get("subsets", ()):
            for address in subset.get("addresses", ()):
                found.setdefault(address["ip"], []).extend(port["port"] for port in subset["ports"])
        return {key: sorted(value) for key, value in found.items()} == {
            addresses[pod]: ports for pod, ports in wanted.items()
        }

    net.space.until(holds, f"endpoints of {name}: {wanted}")


def test_endpoints_follow_the_pods_of_a_service(net: Net) -> None:
    """[sig-network] Services should serve a basic endpoint from pods"""
    client, address = net.client(), net.service()["clusterIP"]
    endpoints(net, "web", {})
    net.servers("one")
    endpoints(net, "web", {"one": [HTTP]})
    net.reach(client, f"http://{address}", "one")
    net.servers("two")
    endpoints(net, "web", {"one": [HTTP], "two": [HTTP]})
    net.reach(client, f"http://{address}", "one", "two")
    net.run("delete", "pod", "one", "--now")
    endpoints(net, "web", {"two": [HTTP]})
    net.reach(client, f"http://{address}", "two")
    net.run("delete", "pod", "two", "--now")
    endpoints(net, "web", {})


def test_endpoints_of_several_ports_follow_their_pods(net: Net) -> None:
    """[sig-network] Services should serve multiport endpoints from pods"""
    client = net.client()
    ports = [
        {"name": "portname1", "port": 80, "targetPort": "first"},
        {"name": "portname2", "port": 81, "targetPort": "second"},
    ]
    address = net.service("web", ports)["clusterIP"]
    net.pod("one", SERVER, {"app": "web"}, container={"ports": [{"name": "first", "containerPort": HTTP}]})
    other = SERVER.replace(str(HTTP), "101").replace(str(UDP), "102")
    net.pod("two", other, {"app": "web"}, container={"ports": [{"name": "second", "containerPort": 101}]})
    net.address("one"), net.address("two")
    endpoints(net, "web", {"one": [HTTP], "two": [101]})
    net.reach(client, f"http://{address}:80", "one")
    net.reach(client, f"http://{address}:81", "two")
    net.run("delete", "pod", "one", "--now")
    endpoints(net, "web", {"two": [101]})


def test_one_port_of_two_protocols(net: Net) -> None:
    """[sig-network] Services should serve endpoints on same port and different protocols"""
    client = net.client()
    net.servers("one")
    ports: list[dict[str, Any]] = [
        {"name": "tcp", "port": 80, "targetPort": HTTP, "protocol": "TCP"},
        {"name": "udp", "port": 80, "targetPort": UDP, "protocol": "UDP"},
    ]
    address = net.service("web", ports)["clusterIP"]
    net.reach(client, f"http://{address}:80", "one")
    net.space.until(lambda: net.sh(client, f"udp {address} 80 || true").split() == ["one"], "UDP answers")
    net.patch("web", {"ports": ports[:1]})
    net.reach(client, f"http://{address}:80", "one")
    net.space.until(lambda: not net.sh(client, f"udp {address} 80 2>/dev/null || true"), "UDP is gone")


# Changes of type


def test_from_a_cluster_ip_to_a_name(net: Net) -> None:
    """[sig-network] Services should be able to change the type from ClusterIP to ExternalName"""
    becomes_a_name(net, "ClusterIP")


def test_from_a_node_port_to_a_name(net: Net) -> None:
    """[sig-network] Services should be able to change the type from NodePort to ExternalName"""
    port = becomes_a_name(net, "NodePort")
    # The node port may be taken by another.
    net.service("other", [{"port": 80, "targetPort": HTTP, "nodePort": port}], type="NodePort")


def becomes_a_name(net: Net, kind: str) -> int:
    client = net.client()
    target = net.service("target")["clusterIP"]
    before = net.service("web", type=kind)
    after = net.patch("web", {"type": "ExternalName", "externalName": net.domain("target")})
    assert not {"clusterIP", "clusterIPs"} & set(after)
    assert "nodePort" not in after["ports"][0]
    net.looked_up(client, f"-type=cname {net.domain('web')}", rf"canonical name = {re.escape(net.domain('target'))}")
    net.looked_up(client, net.domain("web"), rf"Address: {re.escape(target)}\b")
    port: int = before["ports"][0].get("nodePort", 0)
    return port


def test_from_a_name_to_a_cluster_ip(net: Net) -> None:
    """[sig-network] Services should be able to change the type from ExternalName to ClusterIP"""
    spec = was_a_name(net, "ClusterIP")
    assert "nodePort" not in spec["ports"][0]


def test_from_a_name_to_a_node_port(net: Net) -> None:
    """[sig-network] Services should be able to change the type from ExternalName to NodePort"""
    spec = was_a_name(net, "NodePort")
    for url in net.at_nodes(spec):
        net.reach("client", url, "one", "two")


def was_a_name(net: Net, kind: str) -> dict[str, Any]:
    client = net.client()
    net.servers("one", "two")
    assert "clusterIP" not in net.service("web", type="ExternalName", externalName="example.com")
    spec = net.patch("web", {"type": kind, "externalName": None})
    for url in ("http://web", f"http://{spec['clusterIP']}"):
        net.reach(client, url, "one", "two")
    return spec


def test_a_node_port(net: Net) -> None:
    """[sig-network] Services should be able to create a functioning NodePort service"""
    clients = [*net.clients(), net.client("at-node", hostNetwork=True)]
    net.servers("one", "two")
    spec = net.service("web", type="NodePort")
    for client, url in itertools.product(clients[:-1], ("http://web", f"http://{spec['clusterIP']}")):
        net.reach(client, url, "one", "two")
    for client, url in itertools.product(clients, net.at_nodes(spec)):
        net.reach(client, url, "one", "two")
    for url in net.at_nodes(spec):
        with urllib.request.urlopen(f"{url}/hostname", timeout=20) as answer:
            assert answer.read().decode().strip() in ("one", "two")


# Affinity


def urls(net: Net, spec: dict[str, Any]) -> list[str]:
    return net.at_nodes(spec) if spec["type"] == "NodePort" else [f"http://{spec['clusterIP']}"]


def sticks(net: Net, url: str) -> None:
    net.space.until(lambda: len(set(net.names("client", url))) == 1, f"{url}: one endpoint for one client")
    first = set(net.names("client", url))
    assert [set(net.names("client", url)) for _ in range(3)] == [first] * 3


def with_affinity(net: Net, kind: str, affinity: str) -> list[str]:
    net.client()
    net.servers("one", "two", "three")
    found = urls(net, net.service("web", type=kind, sessionAffinity=affinity))
    if affinity == "None":
        for url in found:
            net.reach("client", url, "one", "two", "three")
    return found


def test_a_client_sticks_to_its_endpoint(net: Net) -> None:
    """[sig-network] Services should have session affinity work for service with type clusterIP [LinuxOnly]"""
    for url in with_affinity(net, "ClusterIP", "ClientIP"):
        sticks(net, url)


def test_a_client_of_a_node_port_sticks_to_its_endpoint(net: Net) -> None:
    """[sig-network] Services should have session affinity work for NodePort service [LinuxOnly]"""
    for url in with_affinity(net, "NodePort", "ClientIP"):
        sticks(net, url)


def switched(net: Net, kind: str) -> None:
    found = with_affinity(net, kind, "None")
    net.patch("web", {"sessionAffinity": "ClientIP"})
    for url in found:
        sticks(net, url)
    net.patch("web", {"sessionAffinity": "None"})
    for url in found:
        net.reach("client", url, "one", "two", "three")


def test_affinity_is_switched(net: Net) -> None:
    """[sig-network] Services should be able to switch session affinity for service with type clusterIP [LinuxOnly]"""
    switched(net, "ClusterIP")


def test_affinity_of_a_node_port_is_switched(net: Net) -> None:
    """[sig-network] Services should be able to switch session affinity for NodePort service [LinuxOnly]"""
    switched(net, "NodePort")
