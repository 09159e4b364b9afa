"""Endpoints that somebody writes show as EndpointSlices."""

from __future__ import annotations

from typing import Any

import msgspec

from knarr.api.core.v1 import Endpoints, Service
from knarr.api.discovery.v1 import EndpointSlice
from knarr.controllers.endpointslicemirroring import MANAGER
from tests.cluster import Cluster, simulate


def service(name: str = "db", **spec: Any) -> Service:
    return msgspec.convert(
        {"metadata": {"name": name, "namespace": "default"}, "spec": {"ports": [{"port": 80}], **spec}}, Service
    )


def endpoints(*subsets: dict[str, Any], name: str = "db", **metadata: Any) -> Endpoints:
    return msgspec.convert(
        {"metadata": {"name": name, "namespace": "default", **metadata}, "subsets": list(subsets)}, Endpoints
    )


def subset(*ips: str, port: int = 8080, unready: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "addresses": [{"ip": ip} for ip in ips],
        "notReadyAddresses": [{"ip": ip} for ip in unready],
        "ports": [{"port": port, "name": f"p{port}"}],
    }


def slices(cluster: Cluster) -> list[EndpointSlice]:
    found = cluster.informers.of(EndpointSlice).all("default")
    return [each for each in found if each.metadata.labels["endpointslice.kubernetes.io/managed-by"] == MANAGER]


def shown(cluster: Cluster) -> list[tuple[str, int | None, dict[str, bool | None]]]:
    """Family, port, and readiness by address."""
    return sorted(
        (
            each.address_type,
            each.ports[0].port,
            {e.addresses[0]: e.conditions.ready if e.conditions else None for e in each.endpoints},
        )
        for each in slices(cluster)
    )


def test_addresses_show_by_family_and_ports_and_follow_changes() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(service())
        made = await cluster.create(
            endpoints(
                subset("192.0.2.1", "2001:db8::1", unready=("192.0.2.2",)),
                subset("192.0.2.3", port=9090),
                labels={"a": "b"},
            )
        )
        await cluster.until(lambda: len(slices(cluster)) == 3)
        assert shown(cluster) == [
            ("IPv4", 8080, {"192.0.2.1": True, "192.0.2.2": False}),
            ("IPv4", 9090, {"192.0.2.3": True}),
            ("IPv6", 8080, {"2001:db8::1": True}),
        ]
        one = slices(cluster)[0]
        assert one.metadata.labels["kubernetes.io/service-name"] == "db"
        assert one.metadata.labels["a"] == "b"
        assert [owner.uid for owner in one.metadata.owner_references] == [made.metadata.uid]
        names = {each.metadata.name for each in slices(cluster)}
        made.subsets = endpoints(subset("192.0.2.9"), subset("192.0.2.3", port=9090)).subsets
        await cluster.client.update(made)
        await cluster.until(
            lambda: shown(cluster) == [("IPv4", 8080, {"192.0.2.9": True}), ("IPv4", 9090, {"192.0.2.3": True})]
        )
        assert {each.metadata.name for each in slices(cluster)} < names
        await cluster.client.delete(Endpoints, "db", "default")
        await cluster.until(lambda: not slices(cluster))

    simulate(scenario, nodes=0)


def test_a_subset_of_more_than_a_thousand_addresses_is_mirrored_in_part_and_says_so() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(service())
        many = tuple(f"10.99.{number // 250}.{number % 250}" for number in range(1002))
        await cluster.create(endpoints(subset(*many[:-1], unready=many[-1:]), subset("192.0.2.1", port=9090)))
        await cluster.until(lambda: len(slices(cluster)) == 2)
        assert sorted(len(each.endpoints) for each in slices(cluster)) == [1, 1000]
        await cluster.clock.sleep(5)
        text = (
            "A max of 1000 addresses can be mirrored to EndpointSlices per Endpoints subset. 2 addresses were skipped"
        )
        assert await cluster.events("TooManyAddressesToMirror") == [text]

    simulate(scenario, nodes=0)


def test_what_is_not_mirrored() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(service("picks", selector={"app": "x"}))
        await cluster.create(service("skips"))
        await cluster.create(service("leads"))
        await cluster.create(endpoints(subset("192.0.2.1"), name="alone"))
        label = {"endpointslice.kubernetes.io/skip-mirror": "true"}
        await cluster.create(endpoints(subset("192.0.2.1"), name="skips", labels=label))
        leader = {"control-plane.alpha.kubernetes.io/leader": "{}"}
        await cluster.create(endpoints(subset("192.0.2.1"), name="leads", annotations=leader))
        await cluster.clock.sleep(30)
        assert not slices(cluster)
        await cluster.create(service("alone"))
        await cluster.until(lambda: len(slices(cluster)) == 1)
        await cluster.patch(Endpoints, "alone", {"metadata": {"labels": label}})
        await cluster.until(lambda: not slices(cluster))

    simulate(scenario, nodes=0)
