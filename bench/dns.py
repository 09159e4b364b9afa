"""Questions a second to the cluster's DNS, and how long the slowest wait; beside dnsmasq where that is installed.

The generator is a process of its own, as a pod's resolver would be: each of its sockets asks again when it is answered.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import msgspec

from bench import clusters
from bench.document import Figure

SERVICES = 1_000
QUESTIONS = 200_000
SOCKETS = 16
REPLY_TIMEOUT_S = 5.0
PORT = 53
ADDRESS = "10.98.0.10"
"""Of the cluster's DNS (bench.clusters)."""
DNSMASQ_PORT = 5353
DOMAIN = "default.svc.cluster.local"


class Answered(msgspec.Struct):
    """What the generator measured."""

    per_second: float
    p50_ms: float
    p99_ms: float

    def text(self, processor_us: float) -> str:
        return (
            f"{self.per_second:,.0f}/s (p50 {self.p50_ms:.2f} ms, p99 {self.p99_ms:.2f} ms; "
            f"{processor_us:.0f} µs of processor each)"
        )


def dns() -> Iterator[Figure]:
    """Through `knarr up`, whose process is the API server's too."""
    if os.geteuid() != 0:
        yield Figure("DNS", "not measured: needs root", "> 20,000/s, p99 < 2 ms")
        return
    with clusters.knarr("--runtime", "oci") as measured:
        connection = measured.connection()
        for number in range(SERVICES):
            spec = {"ports": [{"port": 80}]}
            body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": f"s{number}"}, "spec": spec}
            connection.send("POST", "/api/v1/namespaces/default/services", body)
        connection.close()
        before_s = measured.processor_s()
        found = answered(ADDRESS, PORT)
        used_us = (measured.processor_s() - before_s) / QUESTIONS * 1e6
    what = f"DNS: A records of {SERVICES:,} Services, {SOCKETS} clients at once"
    yield Figure(what, found.text(used_us), "> 20,000/s, p99 < 2 ms")
    if shutil.which("dnsmasq"):
        found, used_us = _dnsmasq()
        yield Figure(what, found.text(used_us), by="dnsmasq")


def answered(address: str, port: int) -> Answered:
    """What a generator in a process of its own measures."""
    command = [sys.executable, "-m", "bench.dns", address, str(port)]
    done = subprocess.run(command, capture_output=True, check=True, timeout=300)
    return msgspec.json.decode(done.stdout, type=Answered)


def _dnsmasq() -> tuple[Answered, float]:
    with tempfile.NamedTemporaryFile("w", suffix=".hosts") as hosts:
        hosts.writelines(f"10.98.{number // 250}.{number % 250 + 1} s{number}.{DOMAIN}\n" for number in range(SERVICES))
        hosts.flush()
        options = [
            "--keep-in-foreground",
            "--no-resolv",
            "--no-hosts",
            f"--port={DNSMASQ_PORT}",
            "--conf-file=/dev/null",
        ]
        options += ["--listen-address=127.0.0.1", "--bind-interfaces", f"--addn-hosts={hosts.name}", "--user=root"]
        process = subprocess.Popen(["dnsmasq", *options])
        try:
            _until_it_answers()
            before_s = clusters.processor_s(process.pid)
            found = answered("127.0.0.1", DNSMASQ_PORT)
            return found, (clusters.processor_s(process.pid) - before_s) / QUESTIONS * 1e6
        finally:
            process.terminate()
            process.wait()


def _until_it_answers() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.settimeout(0.1)
        made.connect(("127.0.0.1", DNSMASQ_PORT))
        until_s = time.monotonic() + REPLY_TIMEOUT_S
        while time.monotonic() < until_s:
            try:
                made.send(_question(0, 0))
                made.recv(512)
            except OSError:
                time.sleep(0.05)
            else:
                return
    raise RuntimeError("dnsmasq does not answer")


def _question(identity: int, service: int) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in f"s{service}.{DOMAIN}".split("."))
    return struct.pack(">6H", identity, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", 1, 1)


def generate(address: str, port: int) -> Answered:
    """Ask QUESTIONS times."""
    chance = random.Random(1)
    questions = [_question(number, chance.randrange(SERVICES)) for number in range(4096)]
    clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(SOCKETS)]
    sent_s = [0.0] * SOCKETS
    took_s: list[float] = []
    for number, client in enumerate(clients):
        client.settimeout(REPLY_TIMEOUT_S)
        client.connect((address, port))
        sent_s[number] = time.perf_counter()
        client.send(questions[number])
    began_s = time.perf_counter()
    asked = SOCKETS
    while len(took_s) < QUESTIONS:
        for number, client in enumerate(clients):
            answer = client.recv(512)
            now_s = time.perf_counter()
            took_s.append(now_s - sent_s[number])
            if answer[3] & 0xF or answer[7] != 1:
                raise RuntimeError(f"not an answer with one record: {answer!r}")
            sent_s[number] = now_s
            client.send(questions[asked % len(questions)])
            asked += 1
    seconds = time.perf_counter() - began_s
    took_s.sort()
    for client in clients:
        client.close()
    return Answered(len(took_s) / seconds, took_s[len(took_s) // 2] * 1e3, took_s[len(took_s) * 99 // 100] * 1e3)


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(generate(sys.argv[1], int(sys.argv[2]))))
