"""Two machines and a client on a LAN of their own (`apart.py`), where a machine can lose its cable; and who asks."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import select
import signal
import socket
import threading
import time
from contextlib import suppress
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path
from typing import Any

from msgspec import Struct

from knarr.edge.election import owner_of
from knarr.network import netlink as kernel
from tests.e2e.apart import Apart
from tests.e2e.packets import begun
from tests.e2e.two_nodes import NODES

ASK_INTERVAL_S, CONNECT_S_MAX, ANSWER_S_MAX = 0.05, 0.9, 10.0


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
            with suppress(ProcessLookupError):  # of one that ended meanwhile
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
    """One request of the client: when it was begun, and what came back (nothing: no answer)."""

    at_s: float
    answer: str


class UnderWay(Struct, eq=False):
    """A request that is not answered yet."""

    at_s: float
    connection: socket.socket
    is_connected: bool = False
    said: bytes = b""

    def patience_s(self) -> float:
        return ANSWER_S_MAX if self.is_connected else CONNECT_S_MAX

    def goes_on(self) -> bool:
        """Do what can be done now; False at the end of the answer. Raises OSError."""
        if not self.is_connected:
            if fault := self.connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(fault, os.strerror(fault))
            self.is_connected = True
            self.connection.send(b"GET /cgi-bin/who HTTP/1.0\r\n\r\n")
            return True
        piece = self.connection.recv(4096)
        self.said += piece
        return bool(piece)

    def answer(self) -> str:
        return self.said.replace(b"\r\n", b"\n").rpartition(b"\n\n")[2].decode().strip()


class Client(threading.Thread):
    """Asks an address again and again, each time by a new connection, until `stop`.

    A connection is made at once or counts as none: that of a second SYN says nothing of when the first was sent. An
    answer is made by processes, on a machine that may be busy; so it is waited for, but not by the next request for
    long: the machine may be gone. (Few of them at once, for busybox' httpd takes nine.)
    """

    def __init__(self, lan: Lan, address: str) -> None:
        super().__init__(daemon=True)
        self._namespace = f"/run/netns/{lan.name}-client"
        self.address = address
        self._stopping = threading.Event()
        self._under_way: dict[int, UnderWay] = {}
        self._poll = select.poll()
        self.asked: list[Asked] = []

    def run(self) -> None:
        kernel.enter(self._namespace)
        while not self._stopping.is_set() or self._under_way:
            if not self._stopping.is_set() and not self._is_answering():
                made = begun(self.address, 80)
                self._under_way[made.fileno()] = UnderWay(time.monotonic(), made)
                self._poll.register(made, select.POLLOUT)
            time.sleep(ASK_INTERVAL_S)
            self._look()

    def _is_answering(self) -> bool:
        now_s = time.monotonic()
        return any(one.is_connected and now_s - one.at_s < CONNECT_S_MAX for one in self._under_way.values())

    def _look(self) -> None:
        now_s = time.monotonic()  # before the look: what it doesn't see has not come until now
        for number, _ in self._poll.poll(0):
            one = self._under_way[number]
            try:
                if one.goes_on():
                    self._poll.modify(number, select.POLLIN)
                else:
                    self._over(number, one.answer())
            except OSError:
                self._over(number, "")
        for number, one in list(self._under_way.items()):
            if now_s - one.at_s > one.patience_s():
                self._over(number, "")

    def _over(self, number: int, answer: str) -> None:
        one = self._under_way.pop(number)
        self._poll.unregister(number)
        one.connection.close()
        self.asked.append(Asked(one.at_s, answer))

    def stop(self) -> None:
        self._stopping.set()
        self.join()

    def knows(self, at_s: float) -> bool:
        """What became of all that it began until then."""
        return not any(one.at_s <= at_s for one in list(self._under_way.values()))

    def last(self) -> str:
        return max(self.asked, key=lambda each: each.at_s).answer if self.asked else ""

    def outage_s(self, since_s: float) -> float:
        """The longest time between two answers from then on, by when they were asked for."""
        moments = sorted([since_s, *(each.at_s for each in self.asked if each.at_s > since_s and each.answer)])
        return max((after - before for before, after in pairwise(moments)), default=math.inf)

    def always_answered(self, since_s: float) -> bool:
        answers = [each.answer for each in self.asked if each.at_s > since_s]
        return bool(answers) and all(answers)
