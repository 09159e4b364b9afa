"""Service rules in a real kernel, in network namespaces of the bench's own: what a change costs, how soon it is in
force, and what a first packet pays.

With 10 services and with 10,000, of two endpoints each, in both modes. A change is a Service that gets an endpoint more
or one less, or another one for one that it had.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import socket
import statistics
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import uvloop

from bench import hollow
from bench.document import Figure
from bench.hollow import Hollow
from knarr.api.core.v1 import Pod, Service, ServicePort, ServiceSpec
from knarr.api.discovery.v1 import Endpoint, EndpointPort, EndpointSlice
from knarr.api.meta.v1 import ObjectMeta
from knarr.client.informer import Informers
from knarr.clock import SystemClock
from knarr.network import netlink as kernel
from knarr.network.proxy.iptables import Iptables
from knarr.network.proxy.mode import ProxyMode
from knarr.network.proxy.model import NodeView, PortRules, service_rules
from knarr.network.proxy.nftables import Nftables
from knarr.network.proxy.service_proxy import ServiceProxy

FEW, MANY = 10, 10_000
CHANGES = {"nftables": 400, "iptables": 20}
CONNECTIONS = 500
READY_PODS, READY_SERVICES = 200, 100
SERVICES_CIDR, PODS_CIDR = "10.96.0.0/12", "10.244.0.0/16"
POD, OTHER_POD, THIRD_POD = "10.244.0.2", "10.244.0.3", "10.244.0.4"
NODE = "bench"
MODES = ("nftables", "iptables")


def proxy() -> Iterator[Figure]:
    if os.geteuid() != 0:
        yield Figure("service rules: one change among 10,000 services", "not measured: needs root", "< 20 ms")
        return
    with _namespaces() as (node, pod):
        for mode in MODES:
            if not shutil.which("nft" if mode == "nftables" else "iptables-restore", path="/usr/sbin:/usr/bin:/sbin"):
                yield Figure(f"service rules, {mode}", "not measured: not installed")
                continue
            for count in (FEW, MANY):
                yield from uvloop.run(_changes_and_packets(mode, count, node, pod))
        yield _ready_to_rule(node)
    if not shutil.which("kube-proxy"):
        yield Figure("one change among 10,000 services", "not measured: kube-proxy is not on PATH", by="upstream")


async def _changes_and_packets(mode: str, count: int, node: str, pod: str) -> list[Figure]:
    made, rules = _mode(mode, node), {}
    for number in range(count):
        rules[f"default/web{number}"] = _rules(number, POD, OTHER_POD)
    began_s = time.perf_counter()
    await made.apply(rules, None)
    whole_s = time.perf_counter() - began_s
    try:
        choice, times = random.Random(count), []
        for turn in range(CHANGES[mode]):
            number = choice.randrange(count)
            name = f"default/web{number}"
            addresses = ((POD, OTHER_POD, THIRD_POD), (POD, THIRD_POD), (POD,), (POD, OTHER_POD))[turn % 4]
            rules[name] = _rules(number, *addresses)
            began_s = time.perf_counter()
            await made.apply(rules, [name])
            times.append((time.perf_counter() - began_s) * 1e3)
        for number in range(count):  # those that packets are sent to, all at the pod that answers
            rules[f"default/web{number}"] = _rules(number, POD)
        await made.apply(rules, None)
        packets = await asyncio.to_thread(_connect, count, node, pod)
    finally:
        await made.remove()
        await made.close()
    what = f"{mode}, {count:,} services"
    changed = "< 20 ms" if (mode, count) == ("nftables", MANY) else ""
    return [
        Figure(f"{what}: all rules written at once", f"{whole_s * 1e3:,.0f} ms"),
        Figure(f"{what}: one changed", _spread(times), changed),
        Figure(f"{what}: a new TCP connection from the node, first packet to answer", _spread(packets)),
    ]


def _connect(count: int, node: str, pod: str) -> list[float]:
    """Milliseconds of connections to services one after the other, in no order."""
    with kernel.entered(pod):
        server = socket.create_server((POD, 8080), backlog=16)
    choice, times = random.Random(1), []
    with server:
        for _ in range(CONNECTIONS):
            with kernel.entered(node):
                client = socket.socket()
            with client:
                client.settimeout(5)
                began_s = time.perf_counter()
                client.connect((_cluster_ip(choice.randrange(count)), 80))
                times.append((time.perf_counter() - began_s) * 1e3)
                server.accept()[0].close()
    return times


def _ready_to_rule(node: str) -> Figure:
    """A pod becomes ready: from the write of its status to the kernel's rule, with the real loops between."""

    async def scenario(cluster: Hollow) -> list[float]:
        by_name = {loop.name: loop for loop in cluster.loops}
        informers = Informers(cluster.client, cluster.clock)
        rules = ServiceProxy(
            informers, cluster.clock, node_name=NODE, cluster_cidrs=[PODS_CIDR], network_namespace=node
        )
        cluster.start(by_name["endpointslice-controller"].run(), informers.run(), rules.run())
        ready: dict[str, asyncio.Future[int]] = {}

        def look(_: EndpointSlice | None, new: EndpointSlice | None) -> None:
            for each in new.endpoints if new else ():
                waiting = ready.get(each.addresses[0])
                if waiting and not waiting.done() and each.conditions and each.conditions.ready:
                    waiting.set_result(int(new.metadata.resource_version or 0) if new else 0)

        informers.of(EndpointSlice).add_handler(look)
        await cluster.create_all(_selecting(number) for number in range(READY_SERVICES))
        await cluster.create_all(_pod(number, cluster.hollow.names[0]) for number in range(READY_PODS))
        await asyncio.sleep(2.0)  # until what was made is at rest
        times = []
        for number in range(READY_PODS):
            address = f"10.244.{1 + number // 250}.{1 + number % 250}"
            ready = {address: asyncio.get_running_loop().create_future()}
            began_s = time.perf_counter()
            await cluster.client.patch(Pod, f"pod{number}", _ready(address), "default", subresource="status")
            async with asyncio.timeout(hollow.WITHIN_S / 10):
                await rules.synced(await ready[address])
            times.append((time.perf_counter() - began_s) * 1e3)
        await rules.close(remove=True)
        return times

    return Figure(
        f"pod's status says ready → rule in the kernel (nftables, {READY_SERVICES} services), in process",
        _spread(hollow.run(1, scenario)),
        "p50 < 50 ms, p99 < 200 ms",
    )


def _spread(times: Sequence[float]) -> str:
    ordered = sorted(times)
    return f"p50 {statistics.median(ordered):.2f} ms, p99 {ordered[len(ordered) * 99 // 100]:.2f} ms"


def _mode(mode: str, node: str) -> ProxyMode:
    clock = SystemClock()
    if mode == "nftables":
        return Nftables(clock, cluster_cidrs=[PODS_CIDR], service_cidrs=[SERVICES_CIDR], network_namespace=node)
    return Iptables(clock, cluster_cidrs=[PODS_CIDR], network_namespace=node)


def _cluster_ip(number: int) -> str:
    return f"10.{97 + number // 62_500}.{number // 250 % 250}.{1 + number % 250}"


def _rules(number: int, *addresses: str) -> tuple[PortRules, ...]:
    address = _cluster_ip(number)
    made = Service(
        metadata=ObjectMeta(name=f"web{number}", namespace="default"),
        spec=ServiceSpec(cluster_ip=address, cluster_ips=[address], ports=[ServicePort(port=80)]),
    )
    endpoints = EndpointSlice(
        metadata=ObjectMeta(name=f"web{number}", namespace="default"),
        address_type="IPv4",
        endpoints=[Endpoint(addresses=[each]) for each in addresses],
        ports=[EndpointPort(name="", port=8080)],
    )
    return service_rules(made, [endpoints], NodeView(NODE))


def _selecting(number: int) -> Service:
    """Of READY_PODS / READY_SERVICES pods."""
    spec = ServiceSpec(selector={"app": f"app{number}"}, ports=[ServicePort(port=80)])
    return Service(metadata=ObjectMeta(name=f"web{number}", namespace="default"), spec=spec)


def _pod(number: int, node: str) -> Pod:
    thing = {
        "metadata": {
            "name": f"pod{number}",
            "namespace": "default",
            "labels": {"app": f"app{number % READY_SERVICES}"},
        },
        "spec": {"nodeName": node, "containers": [{"name": "main", "image": "registry.example/app:1"}]},
    }
    return hollow.typed(Pod, thing)


def _ready(address: str) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": "True"}]
    return {"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": conditions}}


@contextmanager
def _namespaces() -> Iterator[tuple[str, str]]:
    """A node and a pod on it; answers the paths of their namespaces."""
    prefix = f"bench{uuid.uuid4().hex[:6]}"
    node, pod = f"{prefix}-node", f"{prefix}-pod"
    try:
        for command in (
            f"netns add {node}",
            f"netns add {pod}",
            f"-n {node} link set lo up",
            f"-n {node} link add pod0 type veth peer name eth0 netns {pod}",
            f"-n {node} addr add 10.244.0.1/24 dev pod0",
            f"-n {node} link set pod0 up",
            f"-n {pod} addr add {POD}/24 dev eth0",
            f"-n {pod} link set eth0 up",
            f"-n {pod} route add default via 10.244.0.1",
            # Cluster IPs need a route to be sent at all; the rules change their destination.
            f"-n {node} route add default via {POD}",
        ):
            subprocess.run(["ip", *command.split()], check=True, capture_output=True)
        yield f"/run/netns/{node}", f"/run/netns/{pod}"
    finally:
        for each in (node, pod):
            subprocess.run(["ip", "netns", "del", each], check=False, capture_output=True)
