"""Services in a whole cluster: their slices and Endpoints follow the pods."""

from __future__ import annotations

from typing import Any

import msgspec

from knarr.api.core.v1 import Endpoints, Pod, Service
from knarr.api.discovery.v1 import EndpointSlice
from tests.cluster import Cluster, deployment, simulate


def service(**spec: Any) -> Service:
    return msgspec.convert(
        {
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}], **spec},
        },
        Service,
    )


def slices(cluster: Cluster) -> list[EndpointSlice]:
    return cluster.informers.of(EndpointSlice).all("default")


def ready(cluster: Cluster) -> set[str]:
    return {
        endpoint.addresses[0]
        for one in slices(cluster)
        for endpoint in one.endpoints
        if endpoint.conditions and endpoint.conditions.ready
    }


def addresses(cluster: Cluster) -> set[str]:
    return {pod.status.pod_ip or "" for pod in cluster.pods.all() if pod.status and not pod.metadata.deletion_timestamp}


def listed(cluster: Cluster) -> set[str]:
    found = cluster.informers.of(Endpoints).get("default/web")
    return {address.ip for subset in (found.subsets if found else []) for address in subset.addresses}


def test_endpoints_follow_a_rollout_and_every_ready_pod_is_in() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(service())
        await cluster.create(deployment(replicas=5))
        await cluster.until(lambda: cluster.done("web"))
        await cluster.clock.sleep(0.2)
        assert ready(cluster) == listed(cluster) == addresses(cluster)
        before = ready(cluster)
        await cluster.set_image("web", "two")
        await cluster.until(lambda: cluster.done("web"))
        await cluster.clock.sleep(0.2)
        assert ready(cluster) == listed(cluster) == addresses(cluster)
        assert not ready(cluster) & before
        (only,) = slices(cluster)
        assert [(port.port, port.protocol) for port in only.ports] == [(8080, "TCP")]

    simulate(scenario, start_s=(0, 3), stop_s=(0, 3))


def test_an_endpoint_stops_being_ready_the_moment_its_pod_is_deleted() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(service())
        await cluster.create(deployment(replicas=3))
        await cluster.until(lambda: len(ready(cluster)) == 3)
        pod = cluster.pods.all()[0]
        await cluster.client.delete(Pod, pod.metadata.name or "", "default")
        address = pod.status.pod_ip if pod.status else None
        took_s = await cluster.until(lambda: address not in ready(cluster))
        assert took_s <= 0.1
        going = [e for one in slices(cluster) for e in one.endpoints if e.addresses == [address]]
        assert going
        assert going[0].conditions
        assert (going[0].conditions.serving, going[0].conditions.terminating) == (True, True)

    simulate(scenario, stop_s=(20, 20))


def test_slices_go_with_their_service() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(service())
        await cluster.create(deployment(replicas=3))
        await cluster.until(lambda: len(ready(cluster)) == 3 and listed(cluster))
        await cluster.client.delete(Service, "web", "default")
        await cluster.until(lambda: not slices(cluster) and not listed(cluster), within_s=5)

    simulate(scenario)


def test_a_deleted_or_changed_slice_is_put_right() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(service())
        await cluster.create(deployment(replicas=3))
        await cluster.until(lambda: len(ready(cluster)) == 3)
        await cluster.patch(EndpointSlice, slices(cluster)[0].metadata.name or "", {"endpoints": []})
        await cluster.until(lambda: len(ready(cluster)) == 3, within_s=1)
        await cluster.client.delete(EndpointSlice, slices(cluster)[0].metadata.name or "", "default")
        await cluster.clock.sleep(1)
        assert len(ready(cluster)) == 3

    simulate(scenario)


def test_two_hundred_and_fifty_pods_lie_in_three_slices() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(service())
        await cluster.create(deployment(replicas=250))
        await cluster.until(lambda: len(ready(cluster)) == 250)
        assert sorted(len(one.endpoints) for one in slices(cluster)) == [50, 100, 100]

    simulate(scenario, nodes=10)
