"""Namespaces come with what every pod needs, and go with all that is in them."""

from __future__ import annotations

import pytest

from knarr.api.core.v1 import ConfigMap, Namespace, Pod, Secret, Service, ServiceAccount, ServicePort, ServiceSpec
from knarr.api.errors import Forbidden, NotFound
from knarr.api.meta.v1 import ObjectMeta
from tests.cluster import Cluster, deployment, simulate


async def namespace(cluster: Cluster, name: str) -> Namespace | None:
    try:
        return await cluster.client.get(Namespace, name)
    except NotFound:
        return None


async def fill(cluster: Cluster) -> None:
    await cluster.create(Namespace(metadata=ObjectMeta(name="shop")))
    await cluster.clock.sleep(1)
    web = deployment(replicas=3)
    web.metadata.namespace = "shop"
    await cluster.create(web)
    await cluster.create(Secret(metadata=ObjectMeta(name="s", namespace="shop")))
    spec = ServiceSpec(selector={"app": "web"}, ports=[ServicePort(port=80)])
    await cluster.create(Service(metadata=ObjectMeta(name="web", namespace="shop"), spec=spec))
    await cluster.until(lambda: cluster.ready_pods() == 3)


def test_every_namespace_gets_an_account_and_the_root_certificate() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(Namespace(metadata=ObjectMeta(name="shop")))
        await cluster.clock.sleep(1)
        for name in ("default", "shop"):
            await cluster.client.get(ServiceAccount, "default", name)
            published = await cluster.client.get(ConfigMap, "kube-root-ca.crt", name)
            assert published.data["ca.crt"].startswith("-----BEGIN")

    simulate(scenario)


def test_what_every_namespace_has_comes_back_when_deleted_or_changed() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.clock.sleep(1)
        await cluster.client.delete(ServiceAccount, "default", "default")
        await cluster.patch(ConfigMap, "kube-root-ca.crt", {"data": {"ca.crt": "forged"}})
        await cluster.clock.sleep(1)
        await cluster.client.get(ServiceAccount, "default", "default")
        published = await cluster.client.get(ConfigMap, "kube-root-ca.crt", "default")
        assert published.data["ca.crt"].startswith("-----BEGIN")

    simulate(scenario)


def test_it_goes_with_everything_in_it() -> None:
    async def scenario(cluster: Cluster) -> None:
        await fill(cluster)
        await cluster.client.delete(Namespace, "shop")
        going = await namespace(cluster, "shop")
        assert going is not None
        assert going.status is not None
        assert going.status.phase == "Terminating"
        with pytest.raises(Forbidden):
            await cluster.create(ConfigMap(metadata=ObjectMeta(name="late", namespace="shop")))
        for _ in range(60):
            if await namespace(cluster, "shop") is None:
                break
            await cluster.clock.sleep(1)
        assert await namespace(cluster, "shop") is None
        for resource in cluster.client.registry:
            assert not (await cluster.store.range(f"{resource.qualified}/shop/")).records

    simulate(scenario, stop_s=(3, 8))


def test_pods_go_before_what_they_may_need() -> None:
    async def scenario(cluster: Cluster) -> None:
        await fill(cluster)
        await cluster.client.delete(Namespace, "shop")
        while any(pod.metadata.namespace == "shop" for pod in cluster.pods.all()):
            await cluster.client.get(Secret, "s", "shop")
            await cluster.clock.sleep(0.5)
        await cluster.clock.sleep(2)
        assert await namespace(cluster, "shop") is None

    simulate(scenario, stop_s=(3, 8))


def test_what_holds_it_up_is_told() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(Namespace(metadata=ObjectMeta(name="shop")))
        metadata = ObjectMeta(name="held", namespace="shop", finalizers=["example.com/hold"])
        await cluster.create(ConfigMap(metadata=metadata))
        await cluster.client.delete(Namespace, "shop")
        await cluster.clock.sleep(10)
        going = await namespace(cluster, "shop")
        assert going is not None
        assert going.status is not None
        told = {c.type: (c.status, c.reason, c.message) for c in going.status.conditions}
        assert list(told) == [
            "NamespaceDeletionDiscoveryFailure",
            "NamespaceDeletionGroupVersionParsingFailure",
            "NamespaceDeletionContentFailure",
            "NamespaceContentRemaining",
            "NamespaceFinalizersRemaining",
        ]
        assert told["NamespaceContentRemaining"] == (
            "True",
            "SomeResourcesRemain",
            "Some resources are remaining: configmaps. has 1 resource instances",
        )
        assert told["NamespaceFinalizersRemaining"] == (
            "True",
            "SomeFinalizersRemain",
            "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances",
        )
        await cluster.client.patch(ConfigMap, "held", {"metadata": {"finalizers": None}}, "shop")
        await cluster.clock.sleep(10)
        assert await namespace(cluster, "shop") is None

    simulate(scenario)


def test_other_namespaces_are_left_alone() -> None:
    async def scenario(cluster: Cluster) -> None:
        await fill(cluster)
        await cluster.create(deployment("other", replicas=2))
        await cluster.until(lambda: cluster.done("other"))
        await cluster.client.delete(Namespace, "shop")
        await cluster.clock.sleep(60)
        assert await namespace(cluster, "shop") is None
        assert [pod.metadata.namespace for pod in cluster.informers.of(Pod).all()] == ["default"] * 2

    simulate(scenario)
