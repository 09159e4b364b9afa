"""What is measured: a knarr of its own for each question, and kube-apiserver on etcd where they are installed."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from bench import subjects
from knarr import pki
from knarr.cli import kubeconfig
from knarr.cli.connection import Connection
from knarr.cli.kubeconfig import Access
from knarr.clock import SystemClock

START_SECONDS_MAX = 60.0
DISK = "/var/tmp"
"""Where data folders are made: on the disk, since what a durable write costs is part of the question."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A control plane that runs."""

    name: str
    access: Access
    """As the administrator, who prepares what is measured."""
    user: Access
    """As the ordinary user who is measured (see bench.subjects)."""
    processes: tuple[int, ...]
    ready_ms: float
    folder: Path

    def connection(self) -> Connection:
        return Connection(self.access)

    def memory_bytes(self) -> int:
        """Proportional set size of its processes: shared pages are counted once."""
        return sum(_pss(pid) for pid in self.processes)

    def processor_s(self) -> float:
        """Processor time that its processes have used."""
        return sum(processor_s(pid) for pid in self.processes)


@contextmanager
def knarr(*flags: str, folder: Path | None = None) -> Iterator[Measured]:
    """`knarr up --detach` with `flags`, and `knarr down --purge` at the end; on a given folder its data stays."""
    own = Path(tempfile.mkdtemp(prefix="knarr-bench-", dir=DISK))
    data = folder or own / "data"
    where = ["--data-dir", str(data)]
    network = ["--cluster-cidr", "10.246.0.0/16", "--service-cidr", "10.98.0.0/16", "--cluster-dns", "10.98.0.10"]
    network += ["--bridge-name", "knarr-bench", "--listen", "127.0.0.1:0"]
    try:
        command = [sys.executable, "-m", "knarr.cli.main"]
        config = own / "kubeconfig"
        up = [*command, "up", "--detach", *where, *network, "--kubeconfig", str(config), *flags]
        done = subprocess.run(up, capture_output=True, text=True, check=False, timeout=START_SECONDS_MAX)
        ready = re.search(r"ready in (\d+) ms", done.stderr + done.stdout)
        if done.returncode or ready is None:
            raise RuntimeError(f"knarr up failed: {done.stderr}")
        pid = re.search(r"as process (\d+)", done.stderr + done.stdout)
        assert pid is not None
        access = kubeconfig.read(config)
        user = _user(access, data / "pki")
        yield Measured("knarr", access, user, (int(pid[1]),), float(ready[1]), data)
    finally:
        subprocess.run([*command, "down", *where, *(() if folder else ("--purge",))], check=False, timeout=120)
        shutil.rmtree(own, ignore_errors=True)


def has_upstream() -> bool:
    return all(shutil.which(name) for name in ("etcd", "kube-apiserver"))


@contextmanager
def upstream() -> Iterator[Measured]:
    """kube-apiserver and a single etcd with their defaults, less the admission that needs a controller."""
    folder = Path(tempfile.mkdtemp(prefix="knarr-bench-upstream-", dir=DISK))
    names = pki.apiserver_names("cluster.local", socket.gethostname().lower())
    made = pki.ensure(folder / "pki", SystemClock(), dns_names=names, addresses=["127.0.0.1", "10.98.0.1"])
    client_port, peer_port, port = _free_port(), _free_port(), _free_port()
    began_s = time.monotonic()
    etcd = _start(
        folder / "etcd.log",
        "etcd",
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls=http://127.0.0.1:{client_port}",
        f"--advertise-client-urls=http://127.0.0.1:{client_port}",
        f"--listen-peer-urls=http://127.0.0.1:{peer_port}",
    )
    server = _start(
        folder / "kube-apiserver.log",
        "kube-apiserver",
        f"--etcd-servers=http://127.0.0.1:{client_port}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--tls-cert-file={made.apiserver.certificate_path}",
        f"--tls-private-key-file={made.apiserver.key_path}",
        f"--client-ca-file={made.ca.certificate_path}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={folder / 'pki/sa.pub'}",
        f"--service-account-signing-key-file={folder / 'pki/sa.key'}",
        "--service-cluster-ip-range=10.98.0.0/16",
        "--authorization-mode=RBAC",
        "--disable-admission-plugins=ServiceAccount",
    )
    access = Access(
        f"https://127.0.0.1:{port}", made.ca.certificate_pem, made.admin.certificate_pem, made.admin.key_pem
    )
    try:
        _until_ready(access)
        ready_ms = (time.monotonic() - began_s) * 1000
        user = _user(access, folder / "pki")
        yield Measured("kube-apiserver + etcd", access, user, (etcd.pid, server.pid), ready_ms, folder)
    finally:
        for process in (server, etcd):
            process.terminate()
        for process in (server, etcd):
            process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _until_ready(access: Access) -> None:
    connection = Connection(access)
    until_s = time.monotonic() + START_SECONDS_MAX
    while True:
        try:
            connection.get("/api/v1/namespaces/default")
            return
        except Exception:
            if time.monotonic() > until_s:
                raise
            time.sleep(0.02)


def _start(log: Path, *command: str) -> subprocess.Popen[bytes]:
    with log.open("wb") as file:
        return subprocess.Popen(command, stdout=file, stderr=file)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _user(access: Access, authority: Path) -> Access:
    pair = pki.client_pair(authority, SystemClock(), "bench", subjects.USER, [subjects.GROUP])
    return replace(access, certificate_pem=pair.certificate_pem, key_pem=pair.key_pem)


def processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _pss(pid: int) -> int:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024
