"""A whole cluster as its users have it: `knarr up` in a process of its own, real kubectl, real containers."""

from __future__ import annotations

import importlib.util
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from ipaddress import IPv4Network, ip_network
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

from tests import images
from tests.ports import free_ports

REPOSITORY = Path(__file__).parents[2]
SHOP = REPOSITORY / "examples" / "shop"
WAIT_S_MAX = 60.0
COMMAND_S_MAX = 120.0
"""Of a command that is run: longer than what it is told to wait for."""
TOOLS = "knarr.test/tools:v1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    lacks = [name for name in ("kubectl", "conmon", "runc", "nft", "busybox") if shutil.which(name) is None]
    why = "needs root" if os.geteuid() else f"needs {', '.join(lacks)}" if lacks else ""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.e2e)
            if why:
                item.add_marker(pytest.mark.skip(reason=why))


class Refused(AssertionError):
    """A command ended with another exit code than was asked for."""


class Cluster:
    """One `knarr up` on a folder, ports and address ranges of its own."""

    listen_host = "127.0.0.1"
    """Pods reach the API server only where it listens on more than this machine's own address."""
    enter: tuple[str, ...] = ()
    """Before each command: how to come to where the cluster is."""

    def __init__(self, folder: Path, proxy_mode: str = "nftables") -> None:
        self.data = folder / "data"
        self.kubeconfig = folder / "kubeconfig"
        number = unused(range(60), "10.{}.0.0/16", lambda number: (100 + number, 180 + number))
        self.bridge = f"ke{secrets.token_hex(4)}"
        self.service_cidr = f"10.{100 + number}.0.0/16"
        self.port, *self.ingress_ports = free_ports(3)
        """The API server's; HTTP and HTTPS of Ingress."""
        self.flags = [
            *("--cluster-cidr", f"10.{180 + number}.0.0/16", "--service-cidr", self.service_cidr),
            *("--cluster-dns", f"10.{100 + number}.0.10", "--bridge-name", self.bridge),
            *("--proxy-mode", proxy_mode, "--kubeconfig", str(self.kubeconfig)),
            *("--ingress-http-port", str(self.ingress_ports[0]), "--ingress-https-port", str(self.ingress_ports[1])),
        ]

    def knarr(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [*self.enter, sys.executable, "-m", "knarr.cli.main", *arguments, "--data-dir", str(self.data)]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=COMMAND_S_MAX, check=False, cwd=REPOSITORY
        )
        assert not check or done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}{self.log()}"
        return done

    def log(self) -> str:
        path = self.data / "knarr.log"
        return path.read_text()[-3000:] if path.exists() else ""

    def up(self) -> int:
        """Start in the background; answers the process's id."""
        done = self.knarr("up", "--detach", "--listen", f"{self.listen_host}:{self.port}", *self.flags)
        found = re.search(r"as process (\d+)", done.stdout + done.stderr)
        assert found, done.stdout + done.stderr
        assert f"https://127.0.0.1:{self.port}\n" in self.kubeconfig.read_text()
        return int(found[1])

    def kubectl(self, *arguments: str, given: str = "", code: int = 0, both: bool = False, **env: str) -> str:
        command = [*self.enter, "kubectl", "--kubeconfig", str(self.kubeconfig), *arguments]
        # What kubectl remembers of an address is of another cluster that had this port.
        environment = {**os.environ, "KUBECACHEDIR": str(self.data.parent / "kubectl"), **env}
        done = subprocess.run(
            command, input=given, capture_output=True, text=True, timeout=COMMAND_S_MAX, check=False, env=environment
        )
        if done.returncode != code:
            raise Refused(f"{arguments}: exit code {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout + (done.stderr if both else "")

    def get(self, *arguments: str) -> Any:
        return msgspec.json.decode(self.kubectl("get", *arguments, "-o", "json"))

    def restarts(self, pod: str, *where: str) -> int:
        """restartCount of a pod's first container; 0 while nothing is known of it."""
        statuses = self.get("pod", pod, *where)["status"].get("containerStatuses") or [{}]
        count: int = statuses[0].get("restartCount", 0)
        return count

    def until(self, holds: Callable[[], Any], what: str) -> Any:
        """Look again until something holds; kubectl is the only window we have.

        What kubectl asks for in vain (an object that is not made yet) doesn't hold yet; a fault of the server's is one.
        """
        deadline = time.monotonic() + WAIT_S_MAX
        last = ""
        while time.monotonic() < deadline:
            try:
                if found := holds():
                    return found
            except Refused as refused:
                last = str(refused)
                if "InternalError" in last:
                    raise
            time.sleep(0.1)
        shown = self.kubectl("get", "pods,events", "-A")
        raise AssertionError(f"{what}: not within {WAIT_S_MAX:.0f} s\n{last}\n{shown}")


def unused(numbers: range, network: str, parts: Callable[[int], tuple[int, ...]]) -> int:
    """Some number whose networks this machine is not in: a pattern, and what of the number stands in it."""
    routes = [line.split() for line in Path("/proc/net/route").read_text().splitlines()[1:]]
    known = [
        IPv4Network((int(to, 16).to_bytes(4, sys.byteorder), int(mask, 16).bit_count()))
        for _, to, _, _, _, _, _, mask, *_ in routes
        if int(mask, 16)
    ]

    def is_free(number: int) -> bool:
        return not any(ip_network(network.format(part)).overlaps(each) for part in parts(number) for each in known)

    return secrets.choice([number for number in numbers if is_free(number)])


def load(name: str) -> ModuleType:
    """A module of the shop's folder."""
    spec = importlib.util.spec_from_file_location(f"shop_{name}", SHOP / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The shop's images, as archives."""
    folder = tmp_path_factory.mktemp("images")
    command = [sys.executable, str(SHOP / "images.py"), str(folder)]
    subprocess.run(command, check=True, cwd=REPOSITORY, timeout=COMMAND_S_MAX)
    return [str(path) for path in sorted(folder.glob("*.tar"))]


@pytest.fixture(scope="module")
def tools(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image of busybox with more applets than the shop needs, loaded."""
    path = tmp_path_factory.mktemp("tools") / "tools.tar"
    images.build(str(path), TOOLS)
    cluster.knarr("image", "load", str(path))
    return TOOLS


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, archives: list[str]) -> Iterator[Cluster]:
    """A cluster with the shop's images loaded, and nothing in it."""
    yield from started(Cluster(tmp_path_factory.mktemp("cluster")), archives)


def started(made: Cluster, archives: list[str]) -> Iterator[Cluster]:
    pid = 0
    try:
        pid = made.up()
        made.knarr("image", "load", *archives)
        yield made
    finally:
        made.knarr("down", "--purge", check=False)
        if pid:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Two machines in both address families, in network namespaces of their own: one cluster for all who need it."""
    from tests.e2e.apart import Apart
    from tests.e2e.two_nodes import started as started_apart

    yield from started_apart(Apart(tmp_path_factory.mktemp("apart")))
