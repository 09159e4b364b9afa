"""Requests through Ingress beside Envoys configured by hand, and how soon a changed endpoint is used.

One by hand does the same job: it logs the same, tells the backend the same of the client, and reads paths as carefully.
The other only passes on. All Envoys, the backend (an Envoy that answers at once) and the generator share the machine,
so what a request costs Envoy in processor time says more than requests a second; all are measured in turns, and the
medians told.
"""

from __future__ import annotations

import asyncio
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, cast

import msgspec
import uvloop

from bench.clusters import processor_s
from bench.document import Figure
from knarr.api.core.v1 import Namespace, Service, ServicePort, ServiceSpec
from knarr.api.discovery.v1 import Endpoint, EndpointConditions, EndpointPort, EndpointSlice
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.networking.v1 import (
    HTTPIngressPath,
    HTTPIngressRuleValue,
    Ingress,
    IngressBackend,
    IngressClass,
    IngressClassSpec,
    IngressRule,
    IngressServiceBackend,
    IngressSpec,
    ServiceBackendPort,
)
from knarr.api.registry import built_in
from knarr.apiserver.server import APIServer, InProcessTransport
from knarr.client.client import Client
from knarr.client.informer import Informers
from knarr.client.transport import User
from knarr.clock import SystemClock
from knarr.edge.ingress.child import binary
from knarr.edge.ingress.edge import IngressEdge
from knarr.edge.ingress.envoy import LOGGED, Serving
from knarr.store.memory import MemoryStore

CONNECTIONS = 16
ROUND_S, ROUNDS = 3.0, 5
CHANGES = 100
CONCURRENCY = 2
HOST = "bench.example"
START_S_MAX = 10.0
REQUEST = f"GET /some/path HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
HTTP_FILTERS = [
    {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
    }
]


class Answered(msgspec.Struct):
    """What the generator measured."""

    per_second: float
    p99_ms: float
    processor_us: float = 0.0
    """Of Envoy, for each request."""


def ingress() -> Iterator[Figure]:
    """Everything, without root: ports are free ones, endpoints are at this machine's own address."""
    ours, by_hand, bare, times = uvloop.run(_measured())
    share = statistics.median(each.per_second for each in ours) / statistics.median(each.per_second for each in by_hand)
    what = f"Ingress: requests/s through Envoy, {CONNECTIONS} connections"
    yield Figure(what, _told(ours) + f": {share:.0%} of one configured by hand", "> 95 %")
    yield Figure(what, _told(by_hand), by="Envoy by hand, same job")
    yield Figure(what, _told(bare), by="Envoy by hand, bare")
    times.sort()
    p99 = times[len(times) * 99 // 100]
    yield Figure(
        "Ingress: endpoint changed in the API → requests go to the new one (p50, p99)",
        f"{statistics.median(times):.1f} ms, {p99:.1f} ms",
        "< 100 ms",
    )


def _told(rounds: list[Answered]) -> str:
    def median(name: str) -> float:
        return statistics.median(getattr(each, name) for each in rounds)

    return (
        f"{median('per_second'):,.0f}/s (p99 {median('p99_ms'):.2f} ms; "
        f"{median('processor_us'):.0f} µs of processor each)"
    )


async def _measured() -> tuple[list[Answered], list[Answered], list[Answered], list[float]]:
    address = _own_address()
    first, second, same, bare, http = _free_ports(5)
    async with AsyncExitStack() as stack:
        stack.enter_context(_envoy(_answering(address, first, "first")))
        stack.enter_context(_envoy(_answering(address, second, "second")))
        pids = {
            same: stack.enter_context(_envoy(_by_hand(address, first, same, same_job=True))),
            bare: stack.enter_context(_envoy(_by_hand(address, first, bare, same_job=False))),
        }
        client, edge = await stack.enter_async_context(_served(address, first, http))
        await asyncio.to_thread(_wait_for, http)
        pids[http] = edge.envoy_pid or 0
        found: dict[int, list[Answered]] = {port: [] for port in pids}
        for _ in range(ROUNDS):
            for port, pid in pids.items():
                found[port].append(await _load(port, pid))
        times = []
        for number in range(CHANGES):
            port, name = (second, b"second") if number % 2 == 0 else (first, b"first")
            times.append(await _changed_ms(client, address, port, name, http))
    return found[http], found[same], found[bare], times


async def _load(port: int, pid: int) -> Answered:
    before_s = processor_s(pid)
    command = [sys.executable, "-m", "bench.ingress", str(port)]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    output, _ = await process.communicate()
    found = msgspec.json.decode(output, type=Answered)
    found.processor_us = (processor_s(pid) - before_s) / (found.per_second * ROUND_S) * 1e6
    return found


async def _changed_ms(client: Client, address: str, port: int, name: bytes, http: int) -> float:
    """From the write until an answer comes from there, on one connection that asks without a break."""
    reader, writer = await asyncio.open_connection("127.0.0.1", http)
    began_s = time.perf_counter()
    await client.update(_slice(address, port))
    while True:
        writer.write(REQUEST)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        if await reader.readexactly(length) == name:
            break
    took_ms = (time.perf_counter() - began_s) * 1000
    writer.close()
    return took_ms


@asynccontextmanager
async def _served(address: str, port: int, http: int) -> AsyncIterator[tuple[Client, IngressEdge]]:
    """An API server in memory, an edge, an Ingress."""
    clock = SystemClock()
    server = APIServer(MemoryStore(), built_in(), clock)
    user = User("admin", ("system:masters", "system:authenticated"))
    client = Client(InProcessTransport(server), built_in(), user)
    informers = Informers(client, clock)
    await client.create(Namespace(metadata=ObjectMeta(name="default")))
    for each in _objects(address, port):
        await client.create(each)
    with tempfile.TemporaryDirectory() as folder:
        edge = IngressEdge(
            client,
            informers,
            clock,
            folder=Path(folder) / "ingress",
            serving=Serving("127.0.0.1", http, 0),
            addresses=[address],
            refuse=lambda endpoint: False,
            concurrency=CONCURRENCY,
        )
        tasks = [asyncio.create_task(informers.run()), asyncio.create_task(edge.run())]
        try:
            yield client, edge
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await edge.close()


def _objects(address: str, port: int) -> list[Any]:
    backend = IngressBackend(service=IngressServiceBackend(name="web", port=ServiceBackendPort(number=80)))
    path = HTTPIngressPath(path="/", path_type="Prefix", backend=backend)
    rules = [IngressRule(host=HOST, http=HTTPIngressRuleValue(paths=[path]))]
    spec = ServiceSpec(ports=[ServicePort(port=80)], cluster_ip="None")
    return [
        IngressClass(metadata=ObjectMeta(name="knarr"), spec=IngressClassSpec(controller="knarr.dev/ingress")),
        Service(metadata=ObjectMeta(name="web", namespace="default"), spec=spec),
        _slice(address, port),
        Ingress(
            metadata=ObjectMeta(name="web", namespace="default"),
            spec=IngressSpec(ingress_class_name="knarr", rules=rules),
        ),
    ]


def _slice(address: str, port: int) -> EndpointSlice:
    labels = {"kubernetes.io/service-name": "web"}
    return EndpointSlice(
        metadata=ObjectMeta(name="web", namespace="default", labels=labels),
        address_type="IPv4",
        endpoints=[Endpoint(addresses=[address], conditions=EndpointConditions(ready=True))],
        ports=[EndpointPort(port=port, protocol="TCP")],
    )


# Envoys with static configurations


def _answering(address: str, port: int, text: str) -> dict[str, Any]:
    """A backend."""
    route = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": text}}}
    return {"static_resources": {"listeners": [_listener(address, port, [route])]}}


def _by_hand(address: str, backend: int, port: int, *, same_job: bool) -> dict[str, Any]:
    """What somebody would write who has one backend."""
    endpoint = {"endpoint": {"address": {"socket_address": {"address": address, "port_value": backend}}}}
    cluster = {
        "name": "web",
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": "web", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    route: dict[str, Any] = {"match": {"prefix": "/"}, "route": {"cluster": "web"}}
    listener = _listener("127.0.0.1", port, [route])
    if same_job:
        http = listener["filter_chains"][0]["filters"][0]["typed_config"]
        log = {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": "/dev/null",
            "log_format": {"json_format": LOGGED},
        }
        http["access_log"] = [{"name": "envoy.access_loggers.file", "typed_config": log}]
        http |= {"use_remote_address": True, "normalize_path": True, "merge_slashes": True}
        http["route_config"]["request_headers_to_add"] = [
            {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
            for name, value in (
                ("x-forwarded-for", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"),
                ("x-real-ip", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"),
                ("x-forwarded-host", "%REQ(:AUTHORITY)%"),
                ("x-forwarded-port", str(port)),
            )
        ]
        route["route"] |= {"timeout": "0s", "idle_timeout": "60s"}
        route["route"]["retry_policy"] = {"retry_on": "connect-failure,refused-stream,reset-before-request"}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _listener(address: str, port: int, routes: list[Any], **more: Any) -> dict[str, Any]:
    http = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3"
        ".HttpConnectionManager",
        "stat_prefix": "bench",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": HTTP_FILTERS,
        **more,
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": http}]}
    place = {"socket_address": {"address": address, "port_value": port}}
    return {"name": "bench", "address": place, "filter_chains": [chain]}


@contextmanager
def _envoy(config: dict[str, Any]) -> Iterator[int]:
    """Answers the process' id, once it listens."""
    place = config["static_resources"]["listeners"][0]["address"]["socket_address"]
    command = [str(binary()), "--config-yaml", json.dumps(config), "--concurrency", str(CONCURRENCY)]
    command += ["--disable-hot-restart", "--log-level", "error"]
    with subprocess.Popen(command) as process:
        try:
            _wait_for(place["port_value"], place["address"])
            yield process.pid
        finally:
            process.terminate()


def _wait_for(port: int, address: str = "127.0.0.1") -> None:
    until_s = time.monotonic() + START_S_MAX
    while True:
        try:
            socket.create_connection((address, port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > until_s:
                raise
            time.sleep(0.02)


def _own_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


# The generator


class _Asking(asyncio.Protocol):
    """One kept connection: request, answer, request, …"""

    def __init__(self, took_s: list[float], until_s: float) -> None:
        self._took_s = took_s
        self._until_s = until_s
        self._buffer = b""
        self._sent_s = 0.0
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._ask()

    def _ask(self) -> None:
        self._sent_s = time.perf_counter()
        self._transport.write(REQUEST)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator or len(body) < int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]):
            return
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(head.decode())
        now_s = time.perf_counter()
        self._took_s.append(now_s - self._sent_s)
        self._buffer = b""
        if now_s < self._until_s:
            self._ask()
        else:
            self._transport.close()
            self.ended.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(error or RuntimeError("closed without an answer"))


async def _generate(port: int) -> Answered:
    took_s: list[float] = []
    loop = asyncio.get_running_loop()
    until_s = time.perf_counter() + ROUND_S
    asking = []
    for _ in range(CONNECTIONS):
        _, protocol = await loop.create_connection(lambda: _Asking(took_s, until_s), "127.0.0.1", port)
        asking.append(protocol.ended)
    await asyncio.gather(*asking)
    took_s.sort()
    return Answered(len(took_s) / ROUND_S, took_s[len(took_s) * 99 // 100] * 1000)


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(uvloop.run(_generate(int(sys.argv[1])))))
