"""What belongs to something that is gone goes too; what has another owner stays."""

from __future__ import annotations

from typing import Any

import pytest

from knarr.api.apps.v1 import Deployment, ReplicaSet
from knarr.api.core.v1 import ConfigMap, Namespace
from knarr.api.meta.v1 import ObjectMeta, OwnerReference
from tests.cluster import Cluster, deployment, simulate


def owned_by(owner: Any, *, uid: str | None = None, block: bool = False) -> OwnerReference:
    return OwnerReference(
        api_version=owner.api_version,
        kind=owner.kind,
        name=owner.metadata.name,
        uid=uid or owner.metadata.uid,
        block_owner_deletion=block or None,
    )


def config_map(name: str, *owners: OwnerReference, namespace: str = "default", **more: Any) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name=name, namespace=namespace, owner_references=list(owners), **more))


def maps(cluster: Cluster, namespace: str = "default") -> list[str]:
    found = cluster.informers.of(ConfigMap).all(namespace)
    return sorted(name for one in found if (name := one.metadata.name or "") != "kube-root-ca.crt")


def test_dependents_go_when_their_owner_goes() -> None:
    async def scenario(cluster: Cluster) -> None:
        owner = await cluster.create(config_map("owner"))
        child = await cluster.create(config_map("child", owned_by(owner)))
        await cluster.create(config_map("grandchild", owned_by(child)))
        await cluster.create(config_map("stranger"))
        await cluster.clock.sleep(5)
        assert maps(cluster) == ["child", "grandchild", "owner", "stranger"]
        await cluster.client.delete(ConfigMap, "owner", "default")
        await cluster.until(lambda: maps(cluster) == ["stranger"], within_s=10)

    simulate(scenario)


def test_with_another_owner_it_stays_and_loses_the_reference() -> None:
    async def scenario(cluster: Cluster) -> None:
        one, two = await cluster.create(config_map("one")), await cluster.create(config_map("two"))
        await cluster.create(config_map("child", owned_by(one), owned_by(two)))
        await cluster.client.delete(ConfigMap, "one", "default")
        await cluster.clock.sleep(5)
        child = await cluster.client.get(ConfigMap, "child", "default")
        assert [reference.name for reference in child.metadata.owner_references] == ["two"]

    simulate(scenario)


def test_an_owner_of_the_same_name_but_another_uid_is_not_the_owner() -> None:
    async def scenario(cluster: Cluster) -> None:
        owner = await cluster.create(config_map("owner"))
        await cluster.create(config_map("child", owned_by(owner, uid="00000000-dead")))
        await cluster.until(lambda: maps(cluster) == ["owner"], within_s=10)

    simulate(scenario)


def test_an_owner_in_another_namespace_counts_as_absent_and_is_told() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(Namespace(metadata=ObjectMeta(name="other")))
        await cluster.clock.sleep(1)
        owner = await cluster.create(config_map("owner"))
        await cluster.create(config_map("child", owned_by(owner), namespace="other"))
        await cluster.until(lambda: maps(cluster, "other") == [], within_s=10)
        assert maps(cluster) == ["owner"]
        await cluster.clock.sleep(1)
        (message,) = await cluster.events("OwnerRefInvalidNamespace")
        assert message.endswith('does not exist in namespace "other"')

    simulate(scenario)


def test_a_cycle_without_an_outside_owner_stays_until_one_of_it_goes() -> None:
    async def scenario(cluster: Cluster) -> None:
        a = await cluster.create(config_map("a"))
        b = await cluster.create(config_map("b", owned_by(a)))
        await cluster.patch(ConfigMap, "a", {"metadata": {"ownerReferences": [owned_by(b)]}})
        await cluster.clock.sleep(5)
        assert maps(cluster) == ["a", "b"]
        await cluster.client.delete(ConfigMap, "a", "default")
        await cluster.until(lambda: maps(cluster) == [], within_s=10)

    simulate(scenario)


def test_in_the_foreground_the_owner_goes_last() -> None:
    async def scenario(cluster: Cluster) -> None:
        order: list[str] = []
        cluster.informers.of(ConfigMap).add_handler(
            lambda old, new: order.append(old.metadata.name or "") if old and new is None else None
        )
        owner = await cluster.create(config_map("owner"))
        await cluster.create(config_map("blocking", owned_by(owner, block=True), finalizers=["example.com/wait"]))
        await cluster.create(config_map("loose", owned_by(owner)))
        await cluster.client.delete(ConfigMap, "owner", "default", propagation_policy="Foreground")
        await cluster.clock.sleep(5)
        assert maps(cluster) == ["blocking", "owner"]
        await cluster.patch(ConfigMap, "blocking", {"metadata": {"finalizers": None}})
        await cluster.until(lambda: maps(cluster) == [], within_s=10)
        assert order == ["loose", "blocking", "owner"]

    simulate(scenario)


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("all_at_once", [False, True])
def test_a_circle_of_owners_that_wait_for_each_other_goes(size: int, all_at_once: bool) -> None:
    async def scenario(cluster: Cluster) -> None:
        made = [await cluster.create(config_map(f"m{number}")) for number in range(size)]
        for place, one in enumerate(made):
            owner = owned_by(made[place - 1], block=True)
            await cluster.patch(ConfigMap, one.metadata.name or "", {"metadata": {"ownerReferences": [owner]}})
        await cluster.clock.sleep(1)
        for one in made if all_at_once else made[:1]:
            await cluster.client.delete(ConfigMap, one.metadata.name or "", "default", propagation_policy="Foreground")
        await cluster.until(lambda: maps(cluster) == [], within_s=10)

    simulate(scenario)


def test_orphans_are_let_go_before_their_owner_goes() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(deployment(replicas=3))
        await cluster.until(lambda: cluster.done("web"))
        pods = {pod.metadata.uid for pod in cluster.pods.all()}
        await cluster.client.delete(Deployment, "web", "default", propagation_policy="Orphan")
        await cluster.until(lambda: not cluster.deployments.all(), within_s=10)
        await cluster.clock.sleep(10)
        (replica_set,) = cluster.replica_sets.all()
        assert replica_set.metadata.owner_references == []
        assert {pod.metadata.uid for pod in cluster.pods.all()} == pods
        again = await cluster.create(deployment(replicas=3))
        await cluster.until(lambda: bool(cluster.replica_sets.all()[0].metadata.owner_references))
        assert cluster.replica_sets.all()[0].metadata.owner_references[0].uid == again.metadata.uid
        assert {pod.metadata.uid for pod in cluster.pods.all()} == pods

    simulate(scenario)


@pytest.mark.parametrize("policy", ["Background", "Foreground"])
def test_a_whole_application_goes_either_way(policy: str) -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(deployment(replicas=20))
        await cluster.until(lambda: cluster.done("web"))
        await cluster.client.delete(Deployment, "web", "default", propagation_policy=policy)
        await cluster.until(
            lambda: not (cluster.pods.all() or cluster.informers.of(ReplicaSet).all() or cluster.deployments.all()),
            within_s=30,
        )

    simulate(scenario, stop_s=(1, 3))
