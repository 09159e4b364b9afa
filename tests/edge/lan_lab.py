"""A LAN for tests: a bridge, nodes and a client on it, each in a network namespace of its own."""

from __future__ import annotations

import asyncio
import socket
import struct
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from knarr.network import netlink as kernel
from tests.network.lab import Connection, run

LISTEN_S = 0.3
"""How long answers to a question are waited for; a kernel needs microseconds."""


class LanLab:
    """Machines: name → number; 192.168.80.<number> and fd00:80::<number>."""

    def __init__(self, machines: dict[str, int]) -> None:
        self.prefix = f"kl{uuid.uuid4().hex[:6]}"
        self._machines = machines
        self._servers: list[asyncio.AbstractServer] = []
        self._answering: set[asyncio.Task[None] | None] = set()

    def path(self, name: str) -> str:
        return f"/run/netns/{self.prefix}-{name}"

    def ip(self, name: str, command: str) -> str:
        return run(f"ip -n {self.prefix}-{name} {command}")

    def start(self) -> None:
        for name in ("lan", *self._machines):
            run(f"ip netns add {self.prefix}-{name}")
        self.ip("lan", "link add br0 type bridge")
        self.ip("lan", "link set br0 up")
        for name, number in self._machines.items():
            self.ip(name, "link set lo up")
            self.ip("lan", f"link add p{number} type veth peer name eth0 netns {self.prefix}-{name}")
            self.ip("lan", f"link set p{number} master br0 up")
            self.ip(name, f"addr add 192.168.80.{number}/24 dev eth0")
            self.ip(name, f"addr add fd00:80::{number}/64 dev eth0 nodad")
            self.ip(name, "link set eth0 up")

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        answering = [each for each in self._answering if each]
        for each in answering:
            each.cancel()
        await asyncio.gather(*answering, return_exceptions=True)
        await asyncio.sleep(0)  # transports close in the next turn
        for name in ("lan", *self._machines):
            run(f"ip netns del {self.prefix}-{name}")

    def unplug(self, name: str) -> None:
        """Pull its cable out."""
        self.ip("lan", f"link set p{self._machines[name]} down")

    async def serve(self, name: str, port: int = 8080) -> None:
        """Answer every line with the machine's name, on all its addresses."""

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._answering.add(asyncio.current_task())
            try:
                while await reader.readline():
                    writer.write(f"{name}\n".encode())
            except ConnectionError:
                pass  # the machine lost its address meanwhile
            finally:
                writer.close()

        with kernel.entered(self.path(name)):
            listener = socket.socket(socket.AF_INET6)
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(("::", port))
        self._servers.append(await asyncio.start_server(answer, sock=listener))

    async def ask(self, address: str, port: int = 8080) -> str:
        """Who answers the client at an address; empty where nobody does."""
        with kernel.entered(self.path("client")):
            made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        made.setblocking(False)
        try:
            # The machine may lose the address between the connection and its answer.
            async with asyncio.timeout(0.5):
                await asyncio.get_running_loop().sock_connect(made, (address, port))
                return (await Connection(made).ask())[0]
        except (OSError, TimeoutError):
            return ""
        finally:
            made.close()

    async def who_has(self, address: str) -> list[bytes]:
        """The hardware addresses that answer the client's ARP question: one, where all is right."""
        with kernel.entered(self.path("client")):
            made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806))
            made.bind(("eth0", 0x0806))
        made.setblocking(False)
        mine = made.getsockname()[4]
        own = socket.inet_aton(f"192.168.80.{self._machines['client']}")
        wanted = socket.inet_aton(address)
        question = struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 1, mine, own, bytes(6), wanted)
        made.send(b"\xff" * 6 + mine + b"\x08\x06" + question)
        answers: set[bytes] = set()
        try:
            async with asyncio.timeout(LISTEN_S):
                while True:
                    frame = await asyncio.get_running_loop().sock_recv(made, 128)
                    # A reply to this client; announcements go to everybody.
                    if frame[20:22] == b"\0\2" and frame[28:32] == wanted and frame[:6] == mine:
                        answers.add(frame[22:28])
        except TimeoutError:
            return sorted(answers)
        finally:
            made.close()


@asynccontextmanager
async def lan_lab(machines: dict[str, int]) -> AsyncIterator[LanLab]:
    lab = LanLab(machines)
    try:
        lab.start()
        yield lab
    finally:
        await lab.close()
