"""Google Cloud: what a Service becomes there, what can't be had, and that nobody reads a credential."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("google.cloud.compute_v1")

from knarr.edge.providers.contract import ProviderFailure
from knarr.edge.providers.gcp import instance_of
from tests.edge.gcp_bench import GcpBench
from tests.edge.test_providers import balancer

REGION = "projects/shop/regions/europe-west1"


@pytest.fixture
def bench() -> Iterator[GcpBench]:
    made = GcpBench()
    yield made
    made.account.close()


async def test_a_service_becomes_rules_backends_groups_a_check_and_firewalls(bench: GcpBench) -> None:
    wanted = balancer(loadBalancerSourceRanges=["192.0.2.0/24"], sessionAffinity="ClientIP")
    (ingress,) = await bench.provider().ensure(wanted, bench.nodes)
    assert ingress.ip_mode == "VIP"
    name, there = wanted.unique_name, bench.snapshot()
    rule = there[f"{REGION}/forwardingRules/{name}-udp"]
    assert (rule["IPAddress"], rule["IPProtocol"], rule["ports"]) == (ingress.ip, "UDP", ["53"])
    backend = there[f"{REGION}/backendServices/{name}-tcp"]
    assert [each["group"].rpartition("zones/")[2] for each in backend["backends"]] == [
        f"europe-west1-b/networkEndpointGroups/{name}",
        f"europe-west1-c/networkEndpointGroups/{name}",
    ]
    group = there[f"projects/shop/zones/europe-west1-b/networkEndpointGroups/{name}"]
    assert [each.rpartition("/")[2] for each in group["knownEndpoints"]] == ["n0", "n1"]
    assert there[f"{REGION}/healthChecks/{name}"]["tcpHealthCheck"] == {"port": 30080}
    firewall = there[f"projects/shop/global/firewalls/k8s-fw-{name}"]
    assert (firewall["sourceRanges"], firewall["destinationRanges"]) == (["192.0.2.0/24"], [ingress.ip])
    assert firewall["allowed"] == [{"IPProtocol": "tcp", "ports": ["80"]}, {"IPProtocol": "udp", "ports": ["53"]}]


async def test_local_traffic_is_checked_at_the_health_check_node_port(bench: GcpBench) -> None:
    wanted = balancer(externalTrafficPolicy="Local", healthCheckNodePort=31000)
    await bench.provider().ensure(balancer(), bench.nodes)
    await bench.provider().ensure(wanted, bench.nodes)
    check = bench.snapshot()[f"{REGION}/healthChecks/{wanted.unique_name}"]
    assert (check["type"], check["httpHealthCheck"]) == ("HTTP", {"port": 31000, "requestPath": "/healthz"})
    assert "tcpHealthCheck" not in check


async def test_more_ports_than_can_be_named_are_a_range(bench: GcpBench) -> None:
    ports = [{"name": f"p{n}", "port": n, "nodePort": 30000 + n, "protocol": "TCP"} for n in (80, 81, 90, 91, 92, 99)]
    wanted = balancer(ports=ports)
    await bench.provider().ensure(wanted, bench.nodes)
    rule = bench.snapshot()[f"{REGION}/forwardingRules/{wanted.unique_name}-tcp"]
    assert rule["portRange"] == "80-99"


async def test_a_zone_without_nodes_has_no_group(bench: GcpBench) -> None:
    provider = bench.provider()
    await provider.ensure(balancer(), bench.nodes)
    await provider.update_nodes(balancer(), bench.nodes[:2])
    assert not any("europe-west1-c" in path for path in bench.snapshot())


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"ports": [{"port": 9, "nodePort": 30009, "protocol": "SCTP"}]}, "don't know SCTP"),
        ({"ipFamilies": ["IPv6"]}, "only IPv4"),
    ],
)
async def test_what_cannot_be_had_is_said(bench: GcpBench, spec: dict[str, Any], why: str) -> None:
    with pytest.raises(ProviderFailure, match=why):
        await bench.provider().ensure(balancer(**spec), bench.nodes)
    assert bench.snapshot() == {}


async def test_a_refusal_is_told_without_its_token(bench: GcpBench) -> None:
    message = "Request had invalid credentials: Bearer ya29.a0AfH6SMBx-secret, quota 0"
    bench.account.refusal = (403, {"error": {"code": 403, "message": message, "errors": [{"message": message}]}})
    with pytest.raises(ProviderFailure) as caught:
        await bench.provider().ensure(balancer(), bench.nodes)
    assert "quota 0" in str(caught.value)
    assert "ya29" not in str(caught.value)


def test_an_instance_is_known_by_the_providers_id() -> None:
    assert instance_of("gce://shop/europe-west1-b/n0") == ("europe-west1-b", "n0")
    assert instance_of("aws:///eu-west-1a/i-0abc123") == ("", "")
