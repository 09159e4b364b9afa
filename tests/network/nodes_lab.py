"""Three nodes in network namespaces: a and b in one network, c behind a router that knows nothing of pods.

         pods ─ a ──┐
                    ├── lan (router) ── c ─ pods
         pods ─ b ──┘

Pods and nodes have addresses of both families. Everything lives in namespaces of the test's own.
"""

from __future__ import annotations

import asyncio
import socket
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from knarr.api.core.v1 import Node, NodeAddress, NodeSpec, NodeStatus
from knarr.api.meta.v1 import ObjectMeta
from knarr.client.informer import Informers
from knarr.clock import SystemClock
from knarr.network import netlink as kernel
from knarr.network.node_routes import NodeRoutes
from knarr.network.podnet import PodNetwork
from tests.network.feed import Feed
from tests.network.lab import REPLY_TIMEOUT_S, run, without_passing

CLUSTER_CIDRS = ("10.244.0.0/16", "fd00:244::/48")
SERVICE_CIDRS = ("10.96.0.0/16", "fd00:96::/108")
RANGES = {
    "a": ("10.244.0.0/24", "fd00:244::/64"),
    "b": ("10.244.1.0/24", "fd00:244:0:1::/64"),
    "c": ("10.244.2.0/24", "fd00:244:0:2::/64"),
}
ADDRESSES = {
    "a": ("192.168.77.1", "fd77::1"),
    "b": ("192.168.77.2", "fd77::2"),
    "c": ("192.168.78.3", "fd78::3"),
}
ROUTERS = {"192.168.77": "192.168.77.254", "192.168.78": "192.168.78.254"}


def node(name: str, addresses: tuple[str, ...] | None = None) -> Node:
    status = NodeStatus(
        addresses=[NodeAddress(type="InternalIP", address=each) for each in addresses or ADDRESSES[name]]
    )
    spec = NodeSpec(pod_cidr=RANGES[name][0], pod_cidrs=list(RANGES[name]))
    return Node(metadata=ObjectMeta(name=name), spec=spec, status=status)


class NodesLab:
    """The nodes, with their pod networks and routes."""

    def __init__(self, folder: Path) -> None:
        self.prefix = f"kn{uuid.uuid4().hex[:8]}"
        self.folder = folder
        self.feed = Feed()
        self.clock = SystemClock()
        self.informers = Informers(self.feed.client, self.clock)
        self.networks: dict[str, PodNetwork] = {}
        self.routes: dict[str, NodeRoutes] = {}
        self._namespaces: list[str] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._servers: list[asyncio.AbstractServer] = []

    def path(self, name: str) -> str:
        return f"/run/netns/{self.prefix}-{name}"

    def add_namespace(self, name: str) -> str:
        run(f"ip netns add {self.prefix}-{name}")
        self._namespaces.append(name)
        run(f"ip -n {self.prefix}-{name} link set lo up")
        return self.path(name)

    def inside(self, name: str, command: str) -> str:
        return run(f"ip netns exec {self.prefix}-{name} {command}")

    def network_of(self, name: str) -> list[str]:
        """Addresses and routes of a namespace."""
        return without_passing(self.inside(name, each) for each in ("ip -o addr", "ip route", "ip -6 route"))

    async def start(self) -> None:
        for name in ("lan", "a", "b", "c"):
            self.add_namespace(name)
        lan = f"ip -n {self.prefix}-lan"
        run(f"{lan} link add near type bridge")
        for name in ("a", "b", "c"):
            run(f"{lan} link add to-{name} type veth peer name up0 netns {self.prefix}-{name}")
            run(f"{lan} link set to-{name} up")
            if name != "c":
                run(f"{lan} link set to-{name} master near")
        run(f"{lan} link set near up")
        for interface, address in (("near", "192.168.77.254/24"), ("to-c", "192.168.78.254/24")):
            run(f"{lan} addr add {address} dev {interface}")
        for interface, address in (("near", "fd77::fe/64"), ("to-c", "fd78::fe/64")):
            run(f"{lan} addr add {address} dev {interface} nodad")
        self.inside("lan", "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
        for name, (version4, version6) in ADDRESSES.items():
            machine = f"ip -n {self.prefix}-{name}"
            run(f"{machine} addr add {version4}/24 dev up0")
            run(f"{machine} addr add {version6}/64 dev up0 nodad")
            run(f"{machine} link set up0 up")
            run(f"{machine} route add default via {version4.rpartition('.')[0]}.254")
            run(f"{machine} -6 route add default via {version6.partition('::')[0]}::fe")
        for name, ranges in RANGES.items():
            self.networks[name] = self.network(name, ranges)
            await self.networks[name].start()
            self.feed.put(node(name))
        for name, network in self.networks.items():
            self.routes[name] = NodeRoutes(self.informers, self.clock, name, network)
        self._tasks.append(asyncio.create_task(self.informers.run()))
        await self.informers.synced()

    def network(self, name: str, ranges: tuple[str, ...]) -> PodNetwork:
        return PodNetwork(
            pod_cidrs=ranges,
            cluster_cidrs=CLUSTER_CIDRS,
            service_cidrs=SERVICE_CIDRS,
            state_directory=self.folder / name,
            clock=self.clock,
            network_namespace=self.path(name),
        )

    async def settle(self) -> None:
        """The routes as the Nodes say by now."""
        await self.informers.of(Node).reached(self.feed.revision)
        for each in self.routes.values():
            await each.apply()

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for network in self.networks.values():
            await network.close(remove=True)
        for name in self._namespaces:
            run(f"ip netns del {self.prefix}-{name}")

    async def add_pod(self, where: str, name: str) -> tuple[str, ...]:
        return await self.networks[where].attach(name, self.add_namespace(name))

    async def serve(self, name: str, port: int = 8080) -> None:
        """In a namespace: answer "<name> <address the client came from>", then what the client sent."""

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            size = int(await reader.readline())
            body = await reader.readexactly(size)
            seen = writer.get_extra_info("peername")[0].removeprefix("::ffff:")
            writer.write(f"{name} {seen}\n".encode() + body)
            await writer.drain()
            writer.close()

        with kernel.entered(self.path(name)):
            listener = socket.socket(socket.AF_INET6)
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("::", port))
        listener.setblocking(False)
        self._servers.append(await asyncio.start_server(answer, sock=listener, limit=1 << 20))

    async def ask(self, name: str, address: str, port: int = 8080, size: int = 0) -> tuple[str, str]:
        """From a namespace, with `size` bytes there and back: (who answered, which address it saw)."""
        with kernel.entered(self.path(name)):
            made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        made.setblocking(False)
        async with asyncio.timeout(REPLY_TIMEOUT_S):
            try:
                await asyncio.get_running_loop().sock_connect(made, (address, port))
            except OSError:
                made.close()
                raise
            reader, writer = await asyncio.open_connection(sock=made, limit=1 << 20)
            writer.write(f"{size}\n".encode() + bytes(size))
            who, _, seen = (await reader.readline()).decode().strip().partition(" ")
            assert await reader.readexactly(size) == bytes(size)
            writer.close()
            await writer.wait_closed()
        return who, seen


@asynccontextmanager
async def started(folder: Path) -> AsyncIterator[NodesLab]:
    lab = NodesLab(folder)
    try:
        await lab.start()
        yield lab
    finally:
        await lab.close()
