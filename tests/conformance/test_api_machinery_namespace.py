"""sig-api-machinery: namespaces are changed as any object, and go when their content has gone, pods first."""

from __future__ import annotations

import msgspec
import pytest

from knarr.api.core.v1 import ConfigMap, Namespace, NamespaceCondition, NamespaceStatus, Pod, Service, ServiceAccount
from knarr.api.errors import NotFound
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.types import replace
from knarr.client.client import MERGE_PATCH
from tests.cluster import Cluster, simulate
from tests.conformance.workloads import pod

NAME = "nsdeletetest"


async def made(cluster: Cluster, name: str = NAME) -> Namespace:
    """A namespace with its account."""
    namespace = await cluster.create(Namespace(metadata=ObjectMeta(name=name)))
    accounts = cluster.informers.of(ServiceAccount)
    await cluster.until(lambda: accounts.get(f"{name}/default"), within_s=10)
    return namespace


async def is_gone(cluster: Cluster, within_s: float = 90.0) -> None:
    namespaces = cluster.informers.of(Namespace)
    await cluster.until(lambda: namespaces.get(NAME) is None, within_s)
    with pytest.raises(NotFound):
        await cluster.client.get(Namespace, NAME)


def test_pods_go_with_their_namespace() -> None:
    """[sig-api-machinery] Namespaces [Serial] should ensure that all pods are removed when a namespace is deleted"""

    async def scenario(cluster: Cluster) -> None:
        await made(cluster)
        await cluster.create(pod("test-pod", NAME))
        await cluster.until(lambda: cluster.ready_pods() == 1)
        await cluster.client.delete(Namespace, NAME)
        await is_gone(cluster)
        await made(cluster)
        with pytest.raises(NotFound):
            await cluster.client.get(Pod, "test-pod", NAME)

    simulate(scenario, stop_s=(1, 5))


def test_services_go_with_their_namespace() -> None:
    """[sig-api-machinery] Namespaces [Serial] should ensure that all services are removed when a namespace is
    deleted"""

    async def scenario(cluster: Cluster) -> None:
        await made(cluster)
        body = {"metadata": {"name": "s", "namespace": NAME}, "spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]}}
        await cluster.create(msgspec.convert(body, Service))
        await cluster.client.delete(Namespace, NAME)
        await is_gone(cluster)
        await made(cluster)
        with pytest.raises(NotFound):
            await cluster.client.get(Service, "s", NAME)

    simulate(scenario)


def test_pods_go_before_anything_else() -> None:
    """[sig-api-machinery] OrderedNamespaceDeletion namespace deletion should delete pod first"""

    async def scenario(cluster: Cluster) -> None:
        await made(cluster)
        await cluster.create(pod("test-pod", NAME, finalizers=["e2e.example.com/finalizer"]))
        await cluster.until(lambda: cluster.ready_pods() == 1)
        await cluster.create(ConfigMap(metadata=ObjectMeta(name="test-configmap", namespace=NAME)))
        await cluster.client.delete(Namespace, NAME)

        namespaces = cluster.informers.of(Namespace)

        def processed() -> bool:
            found = namespaces.get(NAME)
            assert found, "it went with a pod in it"
            status = found.status or NamespaceStatus()
            return status.phase == "Terminating" and any(
                condition.type == "NamespaceDeletionContentFailure" for condition in status.conditions
            )

        await cluster.until(processed, within_s=10)
        for _ in range(3):
            await cluster.clock.sleep(20)
            await cluster.client.get(ConfigMap, "test-configmap", NAME)
            held = await cluster.client.get(Pod, "test-pod", NAME)
            assert held.metadata.deletion_timestamp is not None
        found = await cluster.client.get(Namespace, NAME)
        assert found.status
        told = {each.type: (each.status, each.reason, each.message) for each in found.status.conditions}
        assert told["NamespaceContentRemaining"] == (
            "True",
            "SomeResourcesRemain",
            "Some resources are remaining: pods. has 1 resource instances",
        )
        assert told["NamespaceFinalizersRemaining"] == (
            "True",
            "SomeFinalizersRemain",
            "Some content in the namespace has finalizers remaining: e2e.example.com/finalizer in 1 resource instances",
        )
        await cluster.client.update(replace(held, metadata=replace(held.metadata, finalizers=[])))
        await cluster.until(lambda: cluster.pods.get(f"{NAME}/test-pod") is None, within_s=10)
        await is_gone(cluster)

    simulate(scenario)


def test_a_namespace_is_patched() -> None:
    """[sig-api-machinery] Namespaces [Serial] should patch a Namespace"""

    async def scenario(cluster: Cluster) -> None:
        before = await made(cluster)
        patched = await cluster.client.patch(Namespace, NAME, {"metadata": {"labels": {"testLabel": "testValue"}}})
        assert int(patched.metadata.resource_version or 0) > int(before.metadata.resource_version or 0)
        found = await cluster.client.get(Namespace, NAME)
        assert found.metadata.labels == {"testLabel": "testValue", "kubernetes.io/metadata.name": NAME}

    simulate(scenario)


def test_a_namespace_is_updated() -> None:
    """[sig-api-machinery] Namespaces [Serial] should apply an update to a Namespace"""

    async def scenario(cluster: Cluster) -> None:
        found = await made(cluster)
        labels = found.metadata.labels | {NAME: "updated"}
        updated = await cluster.client.update(replace(found, metadata=replace(found.metadata, labels=labels)))
        assert updated.metadata.labels[NAME] == "updated"

    simulate(scenario)


def test_the_status_of_a_namespace_is_patched_and_updated() -> None:
    """[sig-api-machinery] Namespaces [Serial] should apply changes to a namespace status"""

    async def scenario(cluster: Cluster) -> None:
        found = await made(cluster)
        assert found.status
        assert found.status.phase == "Active"
        condition = {"type": "StatusPatch", "status": "True", "reason": "E2E", "message": "Patched by a test"}
        patch = {"metadata": {"annotations": {"patched": NAME}}, "status": {"conditions": [condition]}}
        patched = await cluster.client.patch(Namespace, NAME, patch, subresource="status", content_type=MERGE_PATCH)
        assert patched.metadata.annotations["patched"] == NAME
        assert patched.status
        assert msgspec.to_builtins(patched.status.conditions[-1]) == condition
        more = NamespaceCondition(type="StatusUpdate", status="True", reason="E2E", message="Updated by a test")
        status = replace(patched.status, conditions=[*patched.status.conditions, more])
        updated = await cluster.client.update_status(replace(patched, status=status))
        assert updated.status
        assert [each.type for each in updated.status.conditions] == ["StatusPatch", "StatusUpdate"]
        assert updated.status.phase == "Active"

    simulate(scenario)


def test_a_finalizer_is_put_on_a_namespace_and_taken_off() -> None:
    """[sig-api-machinery] Namespaces [Serial] should apply a finalizer to a Namespace"""
    fake = "e2e.example.com/fakeFinalizer"

    async def scenario(cluster: Cluster) -> None:
        found = await made(cluster)
        assert found.spec
        with_it = replace(found, spec=replace(found.spec, finalizers=[*found.spec.finalizers, fake]))
        ignored = await cluster.client.update(with_it)
        assert ignored.spec
        assert ignored.spec.finalizers == ["kubernetes"], "only /finalize changes them"
        added = await cluster.client.update(replace(with_it, metadata=ignored.metadata), subresource="finalize")
        assert added.spec
        assert added.spec.finalizers == ["kubernetes", fake]
        without = replace(added, spec=replace(added.spec, finalizers=["kubernetes"]))
        removed = await cluster.client.update(without, subresource="finalize")
        assert removed.spec
        assert removed.spec.finalizers == ["kubernetes"]

    simulate(scenario)
