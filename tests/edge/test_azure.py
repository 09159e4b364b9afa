"""Azure: what a Service becomes there, what is shared, what can't be had, and that nobody reads a credential."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

pytest.importorskip("azure.mgmt.network")

from knarr.edge.providers.contract import ProviderFailure
from tests.edge.azure_bench import AzureBench
from tests.edge.resource_manager import GROUP
from tests.edge.test_providers import balancer

SHARED = f"{GROUP}/loadBalancers/kubernetes"
INTERNAL = "service.beta.kubernetes.io/azure-load-balancer-internal"


@pytest.fixture
def bench() -> Iterator[AzureBench]:
    made = AzureBench()
    yield made
    made.account.close()


async def test_a_service_becomes_a_frontend_rules_probes_and_a_way_in(bench: AzureBench) -> None:
    wanted = balancer(loadBalancerSourceRanges=["192.0.2.0/24"], sessionAffinity="ClientIP")
    (ingress,) = await bench.provider().ensure(wanted, bench.nodes)
    assert ingress.ip_mode == "VIP"
    name, there = wanted.unique_name, bench.snapshot()
    address = there[f"{GROUP}/publicIPAddresses/{name}"]
    assert (address["properties"]["ipAddress"], address["sku"]) == (ingress.ip, {"name": "Standard"})
    assert address["tags"] == {"k8s-azure-cluster-name": "kubernetes", "k8s-azure-service": "default/web"}
    shared = there[SHARED]["properties"]
    rules = {each["properties"]["protocol"]: each["properties"] for each in shared["loadBalancingRules"]}
    assert {protocol: (rule["frontendPort"], rule["backendPort"]) for protocol, rule in rules.items()} == {
        "Tcp": (80, 80),
        "Udp": (53, 53),
    }
    assert all(rule["enableFloatingIP"] for rule in rules.values())
    assert [each["properties"]["port"] for each in shared["probes"]] == [30080, 30080]
    (pool,) = shared["backendAddressPools"]
    nodes = [each["properties"]["ipAddress"] for each in pool["properties"]["loadBalancerBackendAddresses"]]
    assert nodes == ["192.168.0.0", "192.168.0.1", "192.168.0.2"]
    ways_in = [each["properties"] for path, each in there.items() if "/securityRules/" in path]
    assert {(each["protocol"], *each["destinationPortRanges"], each["sourceAddressPrefix"]) for each in ways_in} == {
        ("Tcp", "80", "192.0.2.0/24"),
        ("Udp", "53", "192.0.2.0/24"),
    }
    assert {each["destinationAddressPrefix"] for each in ways_in} == {ingress.ip}
    assert len({each["priority"] for each in ways_in}) == 2


async def test_services_share_a_load_balancer_and_the_last_one_takes_it_along(bench: AzureBench) -> None:
    provider = bench.provider()
    first, second = balancer("first"), balancer("second")
    made = await asyncio.gather(provider.ensure(first, bench.nodes), provider.ensure(second, bench.nodes))
    assert made[0] != made[1]
    assert len(bench.snapshot()[SHARED]["properties"]["frontendIPConfigurations"]) == 2
    await provider.delete(first)
    assert len(bench.snapshot()[SHARED]["properties"]["frontendIPConfigurations"]) == 1
    await provider.delete(second)
    assert bench.snapshot() == {}


async def test_an_internal_one_has_an_address_of_the_subnet(bench: AzureBench) -> None:
    public = balancer()
    internal = msgspec.structs.replace(public, annotations={INTERNAL: "true"})
    await bench.provider().ensure(public, bench.nodes)
    (ingress,) = await bench.provider().ensure(internal, bench.nodes)
    assert (ingress.ip or "").startswith("10.0.0.")
    there = bench.snapshot()
    assert SHARED not in there
    assert not any("/publicIPAddresses/" in path for path in there)
    (frontend,) = there[f"{SHARED}-internal"]["properties"]["frontendIPConfigurations"]
    assert frontend["properties"]["subnet"]["id"] == f"{GROUP}/virtualNetworks/net/subnets/nodes"
    await bench.provider().delete(internal)
    assert bench.snapshot() == {}


async def test_local_traffic_is_probed_at_the_health_check_node_port(bench: AzureBench) -> None:
    wanted = balancer(externalTrafficPolicy="Local", healthCheckNodePort=31000)
    await bench.provider().ensure(wanted, bench.nodes)
    for each in bench.snapshot()[SHARED]["properties"]["probes"]:
        assert each["properties"]["protocol"] == "Http"
        assert (each["properties"]["port"], each["properties"]["requestPath"]) == (31000, "/healthz")


async def test_what_somebody_else_wrote_meanwhile_is_not_undone(bench: AzureBench) -> None:
    provider = bench.provider()
    await provider.ensure(balancer("first"), bench.nodes)
    seen = provider._shared

    def raced(*arguments: Any) -> Any:
        found = seen(*arguments)
        bench.account.resources[SHARED]["etag"] += "'"
        return found

    provider._shared = raced  # type: ignore[method-assign]
    with pytest.raises(ProviderFailure, match="etag differs"):
        await provider.ensure(balancer("second"), bench.nodes)
    await bench.provider().ensure(balancer("second"), bench.nodes)
    assert len(bench.snapshot()[SHARED]["properties"]["frontendIPConfigurations"]) == 2


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"ports": [{"port": 9, "nodePort": 30009, "protocol": "SCTP"}]}, "don't know SCTP"),
        ({"ipFamilies": ["IPv6"]}, "only IPv4"),
        ({"loadBalancerIP": "198.51.100.1"}, "has no public address 198.51.100.1"),
    ],
)
async def test_what_cannot_be_had_is_said(bench: AzureBench, spec: dict[str, Any], why: str) -> None:
    with pytest.raises(ProviderFailure, match=why):
        await bench.provider().ensure(balancer(**spec), bench.nodes)
    assert bench.snapshot() == {}


async def test_a_refusal_is_told_without_its_secret(bench: AzureBench) -> None:
    message = "AADSTS7000215: Invalid client secret provided. client_secret=hunter22~x, trace 1"
    bench.account.refusal = (403, {"error": {"code": "Forbidden", "message": message}})
    with pytest.raises(ProviderFailure) as caught:
        await bench.provider().ensure(balancer(), bench.nodes)
    assert "AADSTS7000215" in str(caught.value)
    assert "hunter22" not in str(caught.value)
