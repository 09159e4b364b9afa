"""Two machines and a client on a LAN of their own (`apart.py`), where a machine can lose its cable; and who asks."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import signal
import socket
import threading
import time
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path
from typing import Any

from msgspec import Struct

from knarr.edge.election import owner_of
from knarr.network import netlink as kernel
from tests.e2e.apart import Apart
from tests.e2e.two_nodes import NODES

ASK_INTERVAL_S, ASK_TIMEOUT_S = 0.05, 0.5


class Lan(Apart):
    """`first` runs the cluster, `second` (in the namespace `node`) joined it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.pools = f"{self.net}.200-{self.net}.240,{self.net6}::c8-{self.net6}::f0"
        self.flags += ["--load-balancer-pools", self.pools]

    def plug(self, part: str, *, on: bool) -> None:
        """A machine's cable."""
        self._run(f"ip -n {self.name}-lan link set {part} {'up' if on else 'down'}")

    def kill_second(self) -> None:
        """Its cable, and all of its processes: knarr's, those that keep its containers, the containers'."""
        self.plug("node", on=False)
        group = f"knarr-{hashlib.sha256(str(self.node_data / 'runtime').encode()).hexdigest()[:8]}"
        mine = {self.pids["second"]}
        for process in filter(str.isdecimal, os.listdir("/proc")):
            try:
                if f"/{group}/" in Path(f"/proc/{process}/cgroup").read_text():
                    mine.add(int(process))
            except OSError:
                continue  # it ended meanwhile
        for pid in mine:
            os.kill(pid, signal.SIGKILL)

    def addresses_of_second(self, place: int) -> list[str]:
        """An IPv4 and an IPv6 address that `second` is elected for, where both machines can answer; others by place."""
        mine: tuple[list[str], list[str]] = ([], [])
        for number in range(200, 241):
            for family, text in enumerate((f"{self.net}.{number}", f"{self.net6}::{number:x}")):
                address = str(ip_address(text))
                if owner_of(address, NODES) == "second":
                    mine[family].append(address)
        return [each[place] for each in mine]

    def is_clients(self, address: str) -> bool:
        """As a server sees it."""
        text = address.strip("[]").removeprefix("::ffff:")
        return ip_address(text) in (ip_address(self.client_address), ip_address(f"{self.net6}::9")) if text else False

    def apply(self, *objects: dict[str, Any]) -> None:
        self.kubectl("apply", "-f", "-", given=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))

    def hardware(self, part: str) -> str:
        """The address of a machine's network card."""
        return re.findall(r"link/ether (\S+)", self.inside(part, "ip", "link", "show", "eth0"))[0]

    def answering(self, address: str) -> str:
        """Which machine the client sends to for an address, by its tables of ARP and neighbour discovery."""
        found = re.findall(r"lladdr (\S+)", self.inside("client", "ip", "neigh", "show", address))
        return next((part for part in ("first", "node") if [self.hardware(part)] == found), "")


class Asked(Struct):
    """One request of the client: when, and what came back (nothing: no answer)."""

    at_s: float
    answer: str


class Client(threading.Thread):
    """Asks an address again and again, each time by a new connection, until `stop`."""

    def __init__(self, lan: Lan, address: str) -> None:
        super().__init__(daemon=True)
        self._namespace = f"/run/netns/{lan.name}-client"
        self.address = address
        self._stopping = threading.Event()
        self.asked: list[Asked] = []

    def run(self) -> None:
        kernel.enter(self._namespace)
        while not self._stopping.wait(ASK_INTERVAL_S):
            began_s = time.monotonic()
            self.asked.append(Asked(began_s, self._ask()))

    def stop(self) -> None:
        self._stopping.set()
        self.join()

    def _ask(self) -> str:
        try:
            with socket.create_connection((self.address, 80), timeout=ASK_TIMEOUT_S) as made:
                made.sendall(b"GET /cgi-bin/who HTTP/1.0\r\n\r\n")
                answer = b"".join(iter(lambda: made.recv(4096), b""))
        except OSError:
            return ""
        return answer.rpartition(b"\n\n")[2].decode().strip() or answer.rpartition(b"\r\n\r\n")[2].decode().strip()

    def last(self) -> str:
        return self.asked[-1].answer if self.asked else ""

    def outage_s(self, since_s: float) -> float:
        """The longest time between two answers from then on."""
        moments = [since_s, *(each.at_s for each in self.asked if each.at_s > since_s and each.answer)]
        return max((after - before for before, after in pairwise(moments)), default=math.inf)

    def always_answered(self, since_s: float) -> bool:
        answers = [each.answer for each in self.asked if each.at_s > since_s]
        return bool(answers) and all(answers)
