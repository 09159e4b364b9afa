"""Services of type LoadBalancer as somebody on the LAN has them: a client in a network namespace beside the machine."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from knarr.edge.election import owner_of
from knarr.network import netlink as kernel
from tests import images
from tests.e2e import two_nodes
from tests.e2e.conftest import TOOLS, Cluster, started
from tests.e2e.two_nodes import NODES, TwoNodes

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
        self.network = f"192.168.{200 + secrets.randbelow(50)}"

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
        made.settimeout(2)
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


@pytest.mark.parametrize("end", ["killed", "unplugged"])
def test_an_address_moves_to_the_other_machine_within_seconds(end: str, tmp_path: Path) -> None:
    """Two machines; the one that answers for the address dies, by its process or as a whole."""
    cluster = TwoNodes(tmp_path)
    cluster.flags += ["--load-balancer-pools", f"{cluster.net}.200-{cluster.net}.240"]
    address = next(each for n in range(200, 240) if owner_of(each := f"{cluster.net}.{n}", NODES) == "second")
    run = two_nodes.started(cluster)
    next(run)
    try:
        pod = POD.replace("spec:\n", "spec:\n  nodeName: first\n", 1)
        cluster.kubectl("apply", "-f", "-", given=pod + service("web", 80, loadBalancerIP=address))

        def reads() -> str:
            command = [
                "nsenter",
                f"--net=/run/netns/{cluster.name}-client",
                "curl",
                "-sS",
                "-m",
                "1",
                f"http://{address}/",
            ]
            return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

        def here() -> bool:
            return (
                f"{address}/32"
                in subprocess.run(
                    ["ip", "addr", "show", cluster.name], capture_output=True, text=True, check=True
                ).stdout
            )

        cluster.until(lambda: reads() == "hello", "a page")
        assert f"{address}/32" in cluster.inside("node", "ip", "addr", "show", "eth0")
        assert not here()
        if end == "killed":
            os.kill(cluster.pids["second"], signal.SIGKILL)
        else:
            subprocess.run(["ip", "link", "set", f"{cluster.name}n", "down"], check=True)
        began = time.monotonic()
        cluster.until(here, "the other machine")
        cluster.until(lambda: reads() == "hello", "a page")
        assert time.monotonic() - began < FAILOVER_S_MAX
        if end == "killed":
            assert f"{address}/32" not in cluster.inside("node", "ip", "addr", "show", "eth0")
        else:
            subprocess.run(["ip", "link", "set", f"{cluster.name}n", "up"], check=True)
            cluster.until(lambda: not here(), "the way back")
            cluster.until(lambda: reads() == "hello", "a page")
        cluster.kubectl("delete", "service", "web")
    finally:
        run.close()  # type: ignore[attr-defined]
