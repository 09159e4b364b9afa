"""Services of type LoadBalancer as somebody on the LAN has them: a client in a network namespace beside the machine."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from knarr.network import netlink as kernel
from tests import images
from tests.e2e import two_nodes
from tests.e2e.conftest import TOOLS, Cluster, started, unused
from tests.e2e.lan import Client, Lan

POD = """
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  containers:
  - name: web
    image: knarr.test/tools:v1
    command: [sh, -c, "echo hello > /tmp/index.html; exec httpd -f -p 8080 -h /tmp"]
    readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
"""


def service(name: str, port: int, **more: str) -> str:
    extra = "".join(f", {key}: {value}" for key, value in more.items())
    ports = f"ports: [{{port: {port}, targetPort: 8080}}]"
    return (
        f"\n---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n"
        f"spec: {{type: LoadBalancer, selector: {{app: web}}, {ports}{extra}}}\n"
    )


class Neighbour:
    """A client on a network of its own with the machine: 192.168.<n>.2 there, .1 here."""

    def __init__(self) -> None:
        self.name = f"kb{secrets.token_hex(3)}"
        self.network = f"192.168.{unused(range(200, 250), '192.168.{}.0/24', lambda number: (number,))}"

    def __enter__(self) -> Neighbour:
        for command in (
            f"ip netns add {self.name}",
            f"ip link add {self.name} type veth peer name eth0 netns {self.name}",
            f"ip addr add {self.network}.1/24 dev {self.name}",
            f"ip link set {self.name} up",
            f"ip -n {self.name} addr add {self.network}.2/24 dev eth0",
            f"ip -n {self.name} link set eth0 up",
            f"ip -n {self.name} route add default via {self.network}.1",
        ):
            subprocess.run(command.split(), check=True)
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["ip", "netns", "del", self.name], check=True)

    def reads(self, address: str, port: int) -> str:
        """The page at an address, empty without one."""
        with kernel.entered(f"/run/netns/{self.name}"):
            made = socket.socket()  # it stays in that namespace
        made.settimeout(20)
        with made:
            try:
                made.connect((address, port))
                made.sendall(b"GET / HTTP/1.0\r\n\r\n")
                answer = b"".join(iter(lambda: made.recv(4096), b""))
            except OSError:
                return ""
        return answer.rpartition(b"\r\n")[2].decode().strip()

    def addresses(self) -> str:
        """Those of the machine on this network."""
        return subprocess.run(["ip", "addr", "show", self.name], capture_output=True, text=True, check=True).stdout


@pytest.fixture
def neighbour() -> Iterator[Neighbour]:
    with Neighbour() as made:
        yield made


def begin(cluster: Cluster, folder: Path) -> Iterator[Cluster]:
    path = folder / "tools.tar"
    images.build(str(path), TOOLS)
    return started(cluster, [str(path)])


def addresses(cluster: Cluster, name: str) -> list[str]:
    balancer = cluster.get("service", name)["status"]["loadBalancer"]
    return [each["ip"] for each in balancer.get("ingress", [])]


def test_without_any_configuration_a_service_is_reached_at_the_machines_address(
    tmp_path: Path, neighbour: Neighbour
) -> None:
    cluster = Cluster(tmp_path)
    cluster.flags += ["--advertise-address", f"{neighbour.network}.1"]
    run = begin(cluster, tmp_path)
    next(run)
    try:
        cluster.kubectl("apply", "-f", "-", given=POD + service("web", 8095) + service("second", 8095))
        (address,) = cluster.until(lambda: addresses(cluster, "web") or addresses(cluster, "second"), "an address")
        assert address == f"{neighbour.network}.1"
        cluster.until(lambda: neighbour.reads(address, 8095) == "hello", "a page")
        assert sorted([addresses(cluster, "web"), addresses(cluster, "second")]) == [[], [address]]
        waiting = "second" if addresses(cluster, "web") else "web"
        told = cluster.until(
            lambda: cluster.kubectl("get", "events", "--field-selector", f"involvedObject.name={waiting},type=Warning"),
            "an event",
        )
        assert f"port 8095/TCP of {address} is taken by the Service default/" in told
        cluster.kubectl("delete", "service", "web" if waiting == "second" else "second")
        cluster.until(lambda: addresses(cluster, waiting) == [address], "the freed port")
        cluster.until(lambda: neighbour.reads(address, 8095) == "hello", "a page")

        with socket.create_server((address, 8096)):  # some program of the machine
            cluster.kubectl("apply", "-f", "-", given=service("third", 8096))
            mine = "involvedObject.name=third,type=Warning"
            told = cluster.until(lambda: cluster.kubectl("get", "events", "--field-selector", mine), "an event")
            assert f"port 8096/TCP of {address} is taken by " in told
            assert f"(process {os.getpid()}) on the node " in told
            assert addresses(cluster, "third") == []
        cluster.until(lambda: neighbour.reads(address, 8096) == "hello", "a page")
    finally:
        run.close()  # type: ignore[attr-defined]


def test_with_pools_a_service_has_an_address_of_its_own_that_leaves_no_trace(
    tmp_path: Path, neighbour: Neighbour
) -> None:
    cluster = Cluster(tmp_path)
    cluster.flags += ["--load-balancer-pools", f"{neighbour.network}.200-{neighbour.network}.201"]
    run = begin(cluster, tmp_path)
    next(run)
    try:
        wish = f"{neighbour.network}.201"
        text = POD + service("one", 80) + service("two", 80, loadBalancerIP=wish)
        cluster.kubectl("apply", "-f", "-", given=text)
        (two,) = cluster.until(lambda: addresses(cluster, "two"), "an address")
        assert two == wish
        (one,) = cluster.until(lambda: addresses(cluster, "one"), "an address")
        for address in (one, two):
            cluster.until(lambda address=address: neighbour.reads(address, 80) == "hello", "a page")  # type: ignore[misc]
            assert f"{address}/32" in neighbour.addresses()
        cluster.kubectl("delete", "service", "one")
        cluster.until(lambda: f"{one}/32" not in neighbour.addresses(), "the address's end")
        assert neighbour.reads(two, 80) == "hello"

        os.kill(int(json.loads(cluster.knarr("status", "-o", "json").stdout)["pid"]), signal.SIGKILL)
        cluster.until(lambda: cluster.knarr("status", check=False).returncode == 3, "the process's end")
        assert neighbour.reads(two, 80) == "hello"  # alone, a machine answers on
        cluster.knarr("down", "--purge")
        assert f"{two}/32" not in neighbour.addresses()
    finally:
        run.close()  # type: ignore[attr-defined]


FAILOVER_S_MAX = 8.0

WHO = """
mkdir -p /www/cgi-bin; cd /www/cgi-bin
printf '#!/bin/sh\\necho; echo $NODE $REMOTE_ADDR\\n' >who; chmod +x who
exec httpd -f -p 8080 -h /www"""


def teller(name: str, node: str, app: str) -> dict[str, Any]:
    """A pod that tells on which node it is, and from which address it was asked."""
    container = {
        "name": "main",
        "image": TOOLS,
        "command": ["sh", "-c", WHO],
        "env": [{"name": "NODE", "value": node}],
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
    }
    metadata = {"name": name, "labels": {"app": app}}
    spec = {"nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def balanced(name: str, app: str, addresses: Sequence[str], **spec: Any) -> dict[str, Any]:
    spec |= {"type": "LoadBalancer", "ipFamilyPolicy": "RequireDualStack", "selector": {"app": app}}
    annotations = {"knarr.dev/load-balancer-ips": ",".join(addresses)}
    ports = [{"port": 80, "targetPort": 8080}]
    metadata = {"name": name, "annotations": annotations}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {**spec, "ports": ports}}


def test_a_pools_address_is_served_on_by_the_other_machine_when_one_loses_its_cable_or_dies(tmp_path: Path) -> None:
    """A client on the LAN asks all the while, by both families; each Service has addresses that `second` answers for.

    `cluster` has its only pod on the first machine, `local` one on each, `stay` (Local as well) one on the first.
    """
    lan = Lan(tmp_path)
    run = two_nodes.started(lan)
    next(run)
    clients: dict[str, list[Client]] = {}
    try:
        names = ("cluster", "local", "stay")
        wished = {name: lan.addresses_of_second(place) for place, name in enumerate(names)}
        local = {"externalTrafficPolicy": "Local"}
        lan.apply(
            teller("one", "first", "one"),
            teller("both-first", "first", "both"),
            teller("both-second", "second", "both"),
            balanced("cluster", "one", wished["cluster"]),
            balanced("local", "both", wished["local"], **local),
            balanced("stay", "one", wished["stay"], **local),
        )
        clients = {name: [Client(lan, address) for address in wished[name]] for name in names}
        everybody = [client for some in clients.values() for client in some]
        for client in everybody:
            client.start()

        def answered(name: str, machine: str, by: str) -> bool:
            """The pod on `by` answers, by way of `machine`; those who keep it see the client's own address."""
            seen = {client.last().partition(" ")[0] for client in clients[name]}
            kept = all(lan.is_clients(client.last().partition(" ")[2]) for client in clients[name])
            ways = {lan.answering(client.address) for client in clients[name]}
            return seen == {by} and ways == {machine} and kept == (name != "cluster")

        def at_rest(machine: str, by: str) -> bool:
            return (
                answered("cluster", machine, "first")
                and answered("local", machine, by)
                and answered("stay", "first", "first")
            )

        def moves(end: Callable[[], None]) -> None:
            began_s = time.monotonic()
            end()
            lan.until(lambda: at_rest("first", "first"), "answers of the first machine")
            settled_s = time.monotonic()
            time.sleep(1.0)
            now_s = time.monotonic()
            lan.until(lambda: all(each.knows(now_s) for each in everybody), "what became of their requests")
            outages_s = [each.outage_s(began_s) for each in (*clients["cluster"], *clients["local"])]
            print(f"without an answer for {', '.join(f'{each:.1f}' for each in outages_s)} s")
            assert max(outages_s) < FAILOVER_S_MAX
            assert [each.address for each in everybody if not each.always_answered(settled_s)] == []

        lan.until(lambda: at_rest("node", "second"), "answers of the machines that are to give them")
        began_s = time.monotonic()
        moves(lambda: lan.plug("node", on=False))
        lan.plug("node", on=True)
        lan.until(lambda: at_rest("node", "second"), "the way back")
        moves(lan.kill_second)
        assert all(each.always_answered(began_s) for each in clients["stay"]), "it never moved"
    finally:
        for some in clients.values():
            for client in some:
                client.stop()
        run.close()  # type: ignore[attr-defined]
