"""What load balancers and probes may ask a node about its service rules."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from knarr.api.core.v1 import NodeSpec, Taint
from knarr.client.informer import Informers
from knarr.network import netlink as kernel
from knarr.network.proxy.health import HEALTHZ_PORT, METRICS_PORT, ServiceHealth
from knarr.network.proxy.liveliness import HEALTH_TIMEOUT_S, ProxyHealth
from knarr.network.proxy.service_proxy import ServiceProxy
from knarr.simulate.clock import VirtualClock, run
from tests.network.feed import Feed
from tests.network.lab import NODE_ADDRESS, REPLY_TIMEOUT_S, Lab, until
from tests.network.proxy.objects import ELSEWHERE, NODE, balanced, endpoint, endpoint_slice, node, service

CHECK_PORT = 32123


class Told:
    """Takes events."""

    def __init__(self) -> None:
        self.reasons: list[tuple[str, str]] = []

    def warning(self, about: Any, reason: str, message: str) -> None:
        self.reasons.append((reason, message))


class Rig:
    """A proxy and its pages in a lab's node."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.feed = Feed()
        self.events = Told()
        informers = Informers(self.feed.client, lab.clock)
        self.proxy = ServiceProxy(
            informers,
            lab.clock,
            node_name=NODE,
            cluster_cidrs=[],
            network_namespace=lab.path("node"),
        )
        self.health = ServiceHealth(
            self.proxy,
            lab.clock,
            self.events,  # type: ignore[arg-type]
            node_name=NODE,
            network_namespace=lab.path("node"),
        )
        self.runs = (informers.run, self.proxy.run, self.health.run)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for each in self.runs:
                group.create_task(each())

    async def show(self, *objects: Any) -> None:
        for obj in objects:
            revision = self.feed.put(obj)
            if obj.kind != "Node":
                await self.proxy.synced(revision, type(obj))

    async def get(
        self, path: str, port: int, caller: str = "client", address: str = NODE_ADDRESS
    ) -> tuple[int, str, str]:
        """Status, head and body."""
        made = self.lab.socket(caller)
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(REPLY_TIMEOUT_S):
            await loop.sock_connect(made, (address, port))
            await loop.sock_sendall(made, f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
            received = b""
            while more := await loop.sock_recv(made, 1 << 16):
                received += more
        head, _, body = received.decode().partition("\r\n\r\n")
        return int(head.split()[1]), head.lower(), body

    async def answers(self, path: str, port: int, status: int, *where: str) -> bool:
        try:
            return (await self.get(path, port, *where))[0] == status
        except ConnectionError:
            return False


@pytest.fixture
async def rig(lab: Lab) -> AsyncIterator[Rig]:
    rig = Rig(lab)
    rig.feed.put(node(NODE, NODE_ADDRESS))
    running = asyncio.create_task(rig.run())
    try:
        yield rig
    finally:
        running.cancel()
        await asyncio.wait([running])
        await rig.proxy.close(remove=True)


@pytest.mark.e2e
async def test_a_load_balancer_learns_whether_a_node_has_endpoints(rig: Rig) -> None:
    made = balanced(service(external_traffic_policy="Local", health_check_node_port=CHECK_PORT), "203.0.113.1")
    here = [endpoint("10.244.0.9"), endpoint("10.244.0.8")]
    await rig.show(made, endpoint_slice(*here, endpoint("10.244.9.9", node=ELSEWHERE)))
    await until(lambda: rig.answers("/", CHECK_PORT, 200))
    status, head, body = await rig.get("/anything", CHECK_PORT)
    assert status == 200
    assert json.loads(body) == {
        "service": {"namespace": "default", "name": "web"},
        "localEndpoints": 2,
        "serviceProxyHealthy": True,
    }
    assert "x-load-balancing-endpoint-weight: 2" in head
    assert "content-type: application/json" in head
    assert "x-content-type-options: nosniff" in head
    # The last one that is ready leaves: the load balancer must go elsewhere, although it still serves.
    await rig.show(endpoint_slice(endpoint("10.244.0.9", ready=False, terminating=True)))
    status, head, body = await rig.get("/", CHECK_PORT)
    assert (status, json.loads(body)["localEndpoints"]) == (503, 0)
    # Another port, then none.
    assert made.spec
    made.spec.health_check_node_port = CHECK_PORT + 1
    await rig.show(made)
    await until(lambda: rig.answers("/", CHECK_PORT + 1, 503))
    made.spec.external_traffic_policy = "Cluster"
    await rig.show(made)

    async def is_closed() -> bool:
        return not await rig.answers("/", CHECK_PORT + 1, 503) and not await rig.answers("/", CHECK_PORT, 503)

    await until(is_closed)


@pytest.mark.e2e
async def test_a_taken_port_is_told_and_tried_again(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("knarr.network.proxy.health.RETRY_S", 0.05)
    with kernel.entered(rig.lab.path("node")):
        other = socket.create_server((NODE_ADDRESS, CHECK_PORT))
    made = balanced(service(external_traffic_policy="Local", health_check_node_port=CHECK_PORT), "203.0.113.1")
    await rig.show(made, endpoint_slice(endpoint("10.244.0.9")))

    async def is_told() -> bool:
        return bool(rig.events.reasons)

    await until(is_told)
    other.close()
    await until(lambda: rig.answers("/", CHECK_PORT, 200))
    ((reason, message),) = rig.events.reasons
    assert reason == "FailedToStartServiceHealthcheck"
    assert message.startswith(f'node {NODE} failed to start healthcheck "default/web" on port {CHECK_PORT}: ')


@pytest.mark.e2e
async def test_healthz_says_whether_new_connections_may_come_to_the_node(rig: Rig) -> None:
    await rig.show(service(), endpoint_slice(endpoint("10.244.0.9")))
    await until(lambda: rig.answers("/healthz", HEALTHZ_PORT, 200))
    _, _, body = await rig.get("/healthz", HEALTHZ_PORT)
    assert json.loads(body).keys() == {"lastUpdated", "currentTime", "nodeEligible"}
    leaving = node(NODE, NODE_ADDRESS)
    leaving.spec = NodeSpec(taints=[Taint(key="ToBeDeletedByClusterAutoscaler", effect="NoSchedule")])
    rig.feed.put(leaving)
    await until(lambda: rig.answers("/healthz", HEALTHZ_PORT, 503))
    assert (await rig.get("/livez", HEALTHZ_PORT))[0] == 200
    rig.feed.put(node(NODE, NODE_ADDRESS))
    await until(lambda: rig.answers("/healthz", HEALTHZ_PORT, 200))


@pytest.mark.e2e
async def test_figures_have_upstreams_names(rig: Rig) -> None:
    changed = endpoint_slice(endpoint("10.244.9.9", node=ELSEWHERE))
    changed.metadata.annotations["endpoints.kubernetes.io/last-change-trigger-time"] = "2020-01-01T00:00:00Z"
    await rig.show(service(internal_traffic_policy="Local"), changed)
    await until(lambda: rig.answers("/metrics", METRICS_PORT, 200, "node", "127.0.0.1"))
    _, _, text = await rig.get("/metrics", METRICS_PORT, "node", "127.0.0.1")
    for line in (
        'kubeproxy_sync_proxy_rules_no_local_endpoints_total{ip_family="IPv4",traffic_policy="internal"} 1.0',
        "kubeproxy_sync_proxy_rules_service_changes_total 1.0",
        "kubeproxy_sync_proxy_rules_endpoint_changes_total 1.0",
        "kubeproxy_sync_proxy_rules_endpoint_changes_pending 0.0",
        'kubeproxy_network_programming_duration_seconds_count{ip_family="IPv4"} 1.0',
        'kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family="IPv4"} 0.0',
        'kubeproxy_sync_partial_proxy_rules_duration_seconds_bucket{ip_family="IPv4",le="+Inf"}',
    ):
        assert line in text
    assert (await rig.get("/proxyMode", METRICS_PORT, "node", "127.0.0.1"))[2] == "nftables"
    with pytest.raises(ConnectionRefusedError):
        await rig.get("/metrics", METRICS_PORT)


def test_rules_that_stay_behind_for_a_minute_are_not_healthy() -> None:
    async def scenario(clock: VirtualClock) -> None:
        health = ProxyHealth(clock)
        health.queued()
        await clock.sleep(HEALTH_TIMEOUT_S - 1)
        health.queued()
        assert health.is_healthy
        await clock.sleep(1)
        assert not health.is_healthy, "counted from the first change"
        health.updated()
        assert health.is_healthy

    run(scenario)
