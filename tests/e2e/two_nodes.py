"""A cluster of two machines: `knarr up` here, `knarr node` in a network namespace, and a client in another.

    here (.1) ──┐
    node (.2) ──┼── a bridge of the test's own
    client (.9) ┘

Everything else of the second machine (its data folder, interfaces, rules, containers) is its own as well.
"""

from __future__ import annotations

import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests import images
from tests.e2e.conftest import COMMAND_S_MAX, REPOSITORY, TOOLS, Cluster, unused

NODES = ("first", "second")


class TwoNodes(Cluster):
    """`first` is the machine of `knarr up`, `second` the one that joined."""

    listen_host = "0.0.0.0"

    def __init__(self, folder: Path, proxy_mode: str = "nftables", *, dual: bool = False) -> None:
        super().__init__(folder, proxy_mode)
        self.node_data = folder / "node"
        self.name = f"ke{secrets.token_hex(3)}"
        self.proxy_mode = proxy_mode
        number = unused(range(16, 31), "172.{}.0.0/16", lambda number: (number,))
        self.net = f"172.{number}.{secrets.randbelow(255)}"
        self.net6 = f"fd{secrets.token_hex(1)}:{secrets.randbelow(0xFFFF) + 1:x}"
        self.addresses = {"first": f"{self.net}.1", "second": f"{self.net}.2"}
        self.addresses6 = {"first": f"{self.net6}::1", "second": f"{self.net6}::2"}
        self.client_address = f"{self.net}.9"
        self.dual = dual
        if dual:
            self._both_families()
        self.flags += ["--advertise-address", self.addresses["first"], "--node-name", "first"]
        self.pids: dict[str, int] = {}

    def _both_families(self) -> None:
        for flag, second in (
            ("--cluster-cidr", f"{self.net6}:1::/56"),
            ("--service-cidr", f"{self.net6}:2::/112"),
            ("--cluster-dns", f"{self.net6}:2::a"),
        ):
            place = self.flags.index(flag) + 1
            self.flags[place] += f",{second}"

    def start(self) -> None:
        """The network, both machines, and images on both."""
        self.connect()
        self.pids["first"] = self.up()
        self.join()
        archive = str(self.data.parent / "tools.tar")
        images.build(archive, TOOLS)
        self.load(archive)

    def connect(self) -> None:
        """The network."""
        self._run(f"ip link add {self.name} type bridge")
        self._run(f"ip addr add {self.addresses['first']}/24 dev {self.name}")
        if self.dual:
            self._run(f"ip -6 addr add {self.net6}::1/64 dev {self.name} nodad")
        self._run(f"ip link set {self.name} up")
        for part, last in (("node", 2), ("client", 9)):
            self._run(f"ip netns add {self.name}-{part}")
            self._run(f"ip link add {self.name}{part[0]} type veth peer name eth0 netns {self.name}-{part}")
            self._run(f"ip link set {self.name}{part[0]} master {self.name} up")
            # Where bridges call netfilter, what a machine sends to a node port of the first and is led back to a pod of
            # its own leaves by the port that it came by; between network cards nothing prevents that.
            self._run(f"ip link set {self.name}{part[0]} type bridge_slave hairpin on")
            inside = f"ip -n {self.name}-{part}"
            self._run(f"{inside} addr add {self.net}.{last}/24 dev eth0")
            if self.dual:
                self._run(f"{inside} -6 addr add {self.net6}::{last}/64 dev eth0 nodad")
            for link in ("lo", "eth0"):
                self._run(f"{inside} link set {link} up")
            self._run(f"{inside} route add default via {self.addresses['first']}")
            if self.dual:
                self._run(f"{inside} -6 route add default via {self.net6}::1")

    def load(self, *archives: str) -> None:
        self.knarr("image", "load", *archives)
        self.second("image", "load", *archives)

    def join(self) -> None:
        """The first time by a token; afterwards the machine goes on as the node that it is."""
        words = ["node"]
        if not (self.node_data / "node.json").exists():
            printed = self.api_command("token", "create").split()
            assert printed[:2] == ["knarr", "node"]
            words = [*printed[1:], "--node-name", "second", "--bridge-name", f"{self.name}p"]
            words += ["--proxy-mode", self.proxy_mode]
            if self.dual:
                words += ["--node-ip", f"{self.addresses['second']},{self.addresses6['second']}"]
        done = self.second(*words, "--detach")
        found = re.search(r"as process (\d+)", done.stdout + done.stderr)
        assert found, done.stdout + done.stderr
        self.pids["second"] = int(found[1])

    def api_command(self, *arguments: str) -> str:
        """A command of knarr's that talks to the API server."""
        command = [
            *(*self.enter, sys.executable, "-m", "knarr.cli.main"),
            *(*arguments, "--kubeconfig", str(self.kubeconfig)),
        ]
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd=REPOSITORY).stdout

    def second(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command of knarr's on the second machine."""
        # Not `ip netns exec`: that mounts a /sys without control groups.
        enter = ["nsenter", f"--net=/run/netns/{self.name}-node"]
        command = [*enter, sys.executable, "-m", "knarr.cli.main", *arguments, "--data-dir", str(self.node_data)]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=COMMAND_S_MAX, check=False, cwd=REPOSITORY
        )
        log = self.node_data / "knarr.log"
        told = log.read_text()[-3000:] if log.exists() else ""
        assert not check or done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}{told}"
        return done

    def inside(self, part: str, *command: str) -> str:
        """A command in the namespace of `node` or `client`."""
        enter = ["nsenter", f"--net=/run/netns/{self.name}-{part}"]
        done = subprocess.run([*enter, *command], capture_output=True, text=True, timeout=COMMAND_S_MAX, check=False)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def left_on_second(self) -> list[str]:
        """What is in the second machine's kernel beyond what it had before."""
        links = re.findall(r"^\d+: ([^:@]+)", self.inside("node", "ip", "-o", "link"), re.MULTILINE)
        rules = self.inside("node", "nft", "-s", "list", "ruleset").splitlines()
        left = [f"interface {each}" for each in links if each not in ("lo", "eth0")]
        left += [f"rule {each}" for each in rules if "knarr" in each or "KUBE-" in each]
        routes = self.inside("node", "ip", "route") + self.inside("node", "ip", "-6", "route")
        return left + [f"route {each}" for each in routes.splitlines() if "proto 107" in each or "unreachable" in each]

    def stop(self) -> list[str]:
        """Both machines down; answers what the second one left. Then the network goes."""
        self.second("down", "--purge", check=False)
        left = self.left_on_second()
        self.knarr("down", "--purge", check=False)
        return left

    def close(self) -> None:
        for part in ("node", "client"):
            self._remove(part)
        subprocess.run(["ip", "link", "del", self.name], check=False, capture_output=True)

    def _remove(self, part: str) -> None:
        subprocess.run(["ip", "netns", "del", f"{self.name}-{part}"], check=False, capture_output=True)

    def _run(self, command: str) -> None:
        done = subprocess.run(command.split(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"


def started(made: TwoNodes) -> Iterator[TwoNodes]:
    """Up, and down again; nothing may be left on the second machine."""
    try:
        made.start()
        yield made
    finally:
        left = made.stop()
        made.close()
    assert left == []
