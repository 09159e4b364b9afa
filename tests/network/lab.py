"""Network namespaces for tests with real traffic.

`Lab` is a node with its pod network, pods on it, and a client outside of the cluster. `Machines` are several nodes with
both address families, pods, and a client, all on one LAN, without a pod network of ours: for what works between nodes.

Sockets are made inside a namespace and used from the test's own event loop, so a pod's server and its clients need no
process. Everything lives in namespaces of the test's own: nothing of the machine's network is touched.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import subprocess
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from knarr.clock import SystemClock
from knarr.network import netlink as kernel
from knarr.network.podnet import PodNetwork

POD_CIDR = "10.244.0.0/24"
CLUSTER_CIDR = "10.244.0.0/16"
SERVICE_CIDR = "10.96.0.0/16"
NODE_ADDRESS = "192.168.77.1"
CLIENT_ADDRESS = "192.168.77.2"
LAN = ("192.168.78.", "fd78::")
EXTERNAL_ADDRESS = "203.0.113.7"
"""Routed to the node by the client: for external IPs and load balancer IPs."""
REPLY_TIMEOUT_S = 30.0
IPV4 = socket.AF_INET
DROPPED_TIMEOUT_S = 0.3
"""How long no answer means that packets are dropped; a SYN is repeated after 1 s at the earliest."""


def run(command: str) -> str:
    return subprocess.run(command.split(), check=True, capture_output=True, text=True).stdout


def without_passing(listings: Iterable[str]) -> list[str]:
    """What ip(8) lists, less what comes and goes by itself in the first seconds of an interface."""
    return [line.replace(" tentative", "").replace(" linkdown", "") for text in listings for line in text.splitlines()]


def refused_at_once(made: socket.socket) -> bool:
    """Whether the first SYN of a connection that was refused had its answer, however late its process looked."""
    (said_again,) = struct.unpack_from("I", made.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 100)
    return bool(said_again == 0)


def family_of(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


class Namespaces:
    """Network namespaces, and sockets inside them."""

    def __init__(self) -> None:
        self.prefix = f"kn{uuid.uuid4().hex[:8]}"
        self.clock = SystemClock()
        self._namespaces: list[str] = []
        self._servers: list[asyncio.AbstractServer] = []
        self._sockets: list[socket.socket] = []

    def path(self, name: str) -> str:
        return f"/run/netns/{self.prefix}-{name}"

    def add_namespace(self, name: str) -> str:
        run(f"ip netns add {self.prefix}-{name}")
        self._namespaces.append(name)
        return self.path(name)

    def inside(self, name: str, command: str) -> str:
        """Run a command in a namespace and answer what it printed."""
        return run(f"ip netns exec {self.prefix}-{name} {command}")

    def network_of(self, name: str) -> list[str]:
        """Addresses and routes of a namespace."""
        return without_passing(self.inside(name, each) for each in ("ip -o addr", "ip route", "ip -6 route"))

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        for each in self._sockets:
            if each.fileno() >= 0:
                asyncio.get_running_loop().remove_reader(each)
            each.close()
        for name in self._namespaces:
            run(f"ip netns del {self.prefix}-{name}")

    def socket(
        self, name: str, kind: socket.SocketKind = socket.SOCK_STREAM, family: int = socket.AF_INET
    ) -> socket.socket:
        """A socket that lives in a namespace."""
        with kernel.entered(self.path(name)):
            made = socket.socket(family, kind)
        made.setblocking(False)
        self._sockets.append(made)
        return made

    async def serve(self, name: str, port: int = 8080) -> None:
        """In a namespace, answer every line with "<name> <address that the client came from>"."""

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while await reader.readline():
                    writer.write(f"{name} {writer.get_extra_info('peername')[0]}\n".encode())
                    await writer.drain()
            except ConnectionError:
                pass
            finally:
                writer.close()

        for family, everywhere in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            listener = self.socket(name, family=family)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind((everywhere, port))
            self._servers.append(await asyncio.start_server(answer, sock=listener, backlog=512))

    def serve_udp(self, name: str, port: int = 5300, family: int = IPV4) -> None:
        """In a namespace, answer every datagram with the name."""
        made = self.socket(name, socket.SOCK_DGRAM, family)
        made.bind(("0.0.0.0" if family == socket.AF_INET else "::", port))

        def answer() -> None:
            _, peer = made.recvfrom(2048)
            made.sendto(name.encode(), peer)

        asyncio.get_running_loop().add_reader(made, answer)

    async def connect(self, name: str, address: str, port: int) -> Connection:
        """A TCP connection from a namespace."""
        made = self.socket(name, family=family_of(address))
        async with asyncio.timeout(REPLY_TIMEOUT_S):
            await asyncio.get_running_loop().sock_connect(made, (address, port))
        return Connection(made)

    async def is_refused(self, name: str, address: str, port: int) -> bool:
        """Whether a connection is refused, and at once: what is dropped is said again after a second."""
        made = self.socket(name, family=family_of(address))
        try:
            async with asyncio.timeout(REPLY_TIMEOUT_S):
                await asyncio.get_running_loop().sock_connect(made, (address, port))
        except ConnectionRefusedError:
            return refused_at_once(made)
        finally:
            made.close()
        return False

    async def ask(self, name: str, address: str, port: int) -> tuple[str, str]:
        """One request on a connection of its own: (who answered, which client address it saw)."""
        connection = await self.connect(name, address, port)
        try:
            return await connection.ask()
        finally:
            connection.close()

    async def is_dropped(self, name: str, address: str, port: int) -> bool:
        """Whether connection requests vanish."""
        made = self.socket(name, family=family_of(address))
        try:
            async with asyncio.timeout(DROPPED_TIMEOUT_S):
                await asyncio.get_running_loop().sock_connect(made, (address, port))
        except TimeoutError:
            return True
        finally:
            made.close()
        return False


class Lab(Namespaces):
    """A node with its pod network, and a client."""

    def __init__(self, state_directory: Path) -> None:
        super().__init__()
        self.network = PodNetwork(
            pod_cidrs=[POD_CIDR],
            cluster_cidrs=[CLUSTER_CIDR],
            service_cidrs=[SERVICE_CIDR],
            state_directory=state_directory,
            clock=SystemClock(),
            network_namespace=self.path("node"),
        )

    async def start(self) -> None:
        self.add_namespace("node")
        self.add_namespace("client")
        run(f"ip -n {self.prefix}-node link set lo up")
        run(f"ip -n {self.prefix}-node link add up0 type veth peer name eth0 netns {self.prefix}-client")
        run(f"ip -n {self.prefix}-node addr add {NODE_ADDRESS}/24 dev up0")
        run(f"ip -n {self.prefix}-node link set up0 up")
        run(f"ip -n {self.prefix}-client addr add {CLIENT_ADDRESS}/24 dev eth0")
        run(f"ip -n {self.prefix}-client link set eth0 up")
        run(f"ip -n {self.prefix}-client route add {EXTERNAL_ADDRESS}/32 via {NODE_ADDRESS}")
        run(f"ip -n {self.prefix}-node route add default via {CLIENT_ADDRESS}")
        await self.network.start()

    async def close(self) -> None:
        await self.network.close(remove=True)
        await super().close()

    async def add_pod(self, name: str) -> str:
        """A pod's namespace, attached; answers its address."""
        return (await self.network.attach(name, self.add_namespace(name)))[0]


class Machines(Namespaces):
    """Nodes, pods and a client on one LAN. The nodes lead to each other's pods."""

    def __init__(self) -> None:
        super().__init__()
        self.pods: dict[str, tuple[str, str]] = {}
        """By name: addresses of both families."""
        self.node_of: dict[str, str] = {}

    def start(self, *nodes: str) -> None:
        self.add_namespace("lan")
        self._ip("lan", "link add lan0 type bridge", "link set lan0 up")
        for number, node in enumerate((*nodes, "client"), start=1):
            self.add_namespace(node)
            self.inside(node, "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
            self._ip("lan", f"link add p{number} type veth peer name eth0 netns {self.prefix}-{node}")
            self._ip("lan", f"link set p{number} master lan0 up")
            self._ip(
                node,
                "link set lo up",
                "link set eth0 up",
                *(
                    f"addr add {each} dev eth0 nodad" if ":" in each else f"addr add {each} dev eth0"
                    for each in (
                        f"{LAN[0]}{number}/24",
                        f"{LAN[1]}{number}/64",
                    )
                ),
            )
        self.addresses = {
            name: (f"{LAN[0]}{number}", f"{LAN[1]}{number}") for number, name in enumerate((*nodes, "client"), start=1)
        }
        for number, node in enumerate(nodes, start=1):
            others = [each for each in nodes if each != node]
            for other in others:
                v4, v6 = self.addresses[node]
                self._ip(other, f"route add 10.244.{number}.0/24 via {v4}", f"route add fd44:{number}::/64 via {v6}")
            # Cluster IPs need a route to be sent at all; the rules change their destination.
            v4, v6 = self.addresses["client"]
            self._ip(node, f"route add default via {v4}", f"route add default via {v6}")

    def add_pod(self, name: str, node: str) -> None:
        number = 2 + len(self.pods)
        net = int(self.addresses[node][0].rpartition(".")[2])
        v4, v6 = f"10.244.{net}.{number}", f"fd44:{net}::{number}"
        self.add_namespace(name)
        self._ip(name, "link set lo up", f"link add eth0 type veth peer name v{number} netns {self.prefix}-{node}")
        self._ip(
            name,
            "link set eth0 up",
            f"addr add {v4}/32 dev eth0",
            f"addr add {v6}/128 dev eth0 nodad",
        )
        self._ip(
            node,
            f"link set v{number} up",
            f"addr add 169.254.1.1/32 dev v{number}",
            f"addr add fe80::1/64 dev v{number} nodad",
            f"route add {v4}/32 dev v{number}",
            f"route add {v6}/128 dev v{number}",
        )
        self._ip(
            name,
            "route add 169.254.1.1/32 dev eth0",
            "route add default via 169.254.1.1",
            "route add default via fe80::1 dev eth0",
        )
        self.pods[name] = (v4, v6)
        self.node_of[name] = node

    def route(self, destination: str, node: str) -> None:
        """The client sends packets to an address to a node."""
        self._ip("client", f"route replace {destination} via {self.addresses[node][':' in destination]}")

    def _ip(self, name: str, *commands: str) -> None:
        """ip(8) commands; those about IPv6 come last."""
        for family in ("-4", "-6"):
            chosen = [each for each in commands if (":" in each) == (family == "-6")]
            if chosen:
                subprocess.run(
                    ["ip", family, "-n", f"{self.prefix}-{name}", "-batch", "-"],
                    input="\n".join(chosen),
                    check=True,
                    capture_output=True,
                    text=True,
                )


class Connection:
    """A client's end of a TCP connection."""

    def __init__(self, made: socket.socket) -> None:
        self._socket = made

    async def ask(self) -> tuple[str, str]:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(REPLY_TIMEOUT_S):
            await loop.sock_sendall(self._socket, b"who\n")
            answer = await loop.sock_recv(self._socket, 1024)
        who, _, seen = answer.decode().strip().partition(" ")
        return who, seen

    def close(self) -> None:
        self._socket.close()


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Look again and again until something is so; fails after twice what a reply may take."""
    async with asyncio.timeout(2 * REPLY_TIMEOUT_S):
        while not await condition():  # noqa: ASYNC110 (the kernel tells no one)
            await asyncio.sleep(0.01)


@asynccontextmanager
async def started_lab(state_directory: Path) -> AsyncIterator[Lab]:
    lab = Lab(state_directory)
    try:
        await lab.start()
        yield lab
    finally:
        await lab.close()


IS_ROOT = os.geteuid() == 0
