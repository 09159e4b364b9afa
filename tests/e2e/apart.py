"""Two machines and a client, all of them in network namespaces, in both address families; the host has no part in it.

    first (.1) ──┐
    client (.9) ─┼── lan (.254, a bridge that calls no rules, and a router) ── second (.2)
                 │
    second (.2) ─┘  or here, in the same network: without `routed`

A frame is bridged as a switch would bridge it. Behind the router, packets between pods go through the tunnel (VXLAN).
Sockets of a test are made in the namespace of whoever is to send (`at`): of a machine, of the client, or of a pod.
"""

from __future__ import annotations

import base64
import http.client
import json
import secrets
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from knarr.network.netlink import entered
from tests.e2e.two_nodes import TwoNodes

BRIDGES = "net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0"
ROUTER = "net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1"


class Apart(TwoNodes):
    """`first`, `second` and `client`, each with `addresses` and `addresses6`."""

    parts = {"first": "first", "second": "node", "client": "client"}
    """The ends of the namespaces' names."""

    def __init__(self, folder: Path, proxy_mode: str = "nftables", *, routed: bool = False) -> None:
        super().__init__(folder, proxy_mode, dual=True)
        self.routed = routed
        self.far = f"172.31.{secrets.randbelow(255)}" if routed else self.net
        self.far6 = f"{self.net6}:f" if routed else self.net6
        self.addresses = {"first": f"{self.net}.1", "second": f"{self.far}.2"}
        self.addresses6 = {"first": f"{self.net6}::1", "second": f"{self.far6}::2"}
        self.client_address6 = f"{self.net6}::9"
        self.flags[self.flags.index("--advertise-address") + 1] = self.addresses["first"]
        self.enter = ("nsenter", f"--net={self.path('first')}")

    def path(self, part: str) -> str:
        return f"/run/netns/{self.name}-{self.parts.get(part, part)}"

    @contextmanager
    def at(self, part: str) -> Iterator[None]:
        """Sockets made inside are of a machine or the client."""
        with entered(self.path(part)):
            yield

    def path_of_pod(self, uid: str) -> str:
        """Of a pod's network namespace: that of the oldest of its processes, since others come and go."""
        begun: dict[int, Path] = {}
        for group in Path("/proc").glob("[0-9]*/cgroup"):
            try:
                if uid in group.read_text() or uid.replace("-", "_") in group.read_text():
                    ticks = (group.parent / "stat").read_text().rpartition(")")[2].split()[19]
                    begun.setdefault(int(ticks), group.parent)
            except OSError:
                continue  # it has ended meanwhile
        assert begun, f"no process of pod {uid}"
        return str(begun[min(begun)] / "ns" / "net")

    def connect(self) -> None:
        lan = f"{self.name}-lan"
        for part in ("lan", "first", "node", "client"):
            self._run(f"ip netns add {self.name}-{part}")
            self._run(f"ip -n {self.name}-{part} link set lo up")
        self._run(f"ip -n {lan} link add near type bridge")
        self._run(f"nsenter --net=/run/netns/{lan} sysctl -qw {BRIDGES} {ROUTER}")
        self._router(lan, "near", self.net, self.net6)
        places = (
            ("first", self.addresses["first"], self.addresses6["first"]),
            ("node", self.addresses["second"], self.addresses6["second"]),
            ("client", self.client_address, self.client_address6),
        )
        for part, address, address6 in places:
            is_far, inside = part == "node" and self.routed, f"ip -n {self.name}-{part}"
            self._run(f"ip -n {lan} link add {part} type veth peer name eth0 netns {self.name}-{part}")
            if is_far:
                self._router(lan, part, self.far, self.far6)
            else:
                self._run(f"ip -n {lan} link set {part} master near up")
            self._run(f"{inside} addr add {address}/24 dev eth0")
            self._run(f"{inside} -6 addr add {address6}/64 dev eth0 nodad")
            self._run(f"{inside} link set eth0 up")
            self._run(f"{inside} route add default via {self.far if is_far else self.net}.254")
            self._run(f"{inside} -6 route add default via {self.far6 if is_far else self.net6}::fe")

    def _router(self, lan: str, link: str, net: str, net6: str) -> None:
        self._run(f"ip -n {lan} addr add {net}.254/24 dev {link}")
        self._run(f"ip -n {lan} -6 addr add {net6}::fe/64 dev {link} nodad")
        self._run(f"ip -n {lan} link set {link} up")

    def close(self) -> None:
        for part in ("first", "node", "client", "lan"):
            self._remove(part)


class Writes:
    """To the API server at once, for what is measured: kubectl takes longer than what it asks for."""

    def __init__(self, cluster: Apart) -> None:
        self._cluster = cluster
        config = yaml.safe_load(cluster.kubeconfig.read_text())
        user, [given] = config["users"][0]["user"], config["clusters"]
        self._context = ssl.create_default_context(cadata=_decoded(given["cluster"]["certificate-authority-data"]))
        pair = cluster.kubeconfig.parent / "administrator.pem"
        pair.write_text(_decoded(user["client-certificate-data"]) + _decoded(user["client-key-data"]))
        self._context.load_cert_chain(pair)

    def create(self, path: str, obj: Any) -> None:
        self._ask("POST", path, json.dumps(obj))

    def delete(self, path: str) -> None:
        self._ask("DELETE", path)

    def _ask(self, method: str, path: str, body: str = "") -> None:
        connection = http.client.HTTPSConnection("127.0.0.1", self._cluster.port, context=self._context, timeout=30)
        with self._cluster.at("first"):
            connection.connect()
        connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        told = answer.read()
        connection.close()
        assert answer.status in (200, 201), told


def _decoded(text: str) -> str:
    return base64.b64decode(text).decode()
