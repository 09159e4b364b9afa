"""sig-api-machinery: what goes with its owner, what outlives it, and what an owner waits for."""

from __future__ import annotations

from knarr.api.apps.v1 import Deployment
from knarr.api.core.v1 import Pod, ReplicationController
from knarr.api.meta.owners import controller_of
from knarr.api.meta.v1 import OwnerReference
from tests.cluster import Cluster, deployment, simulate
from tests.conformance.workloads import controller, pod

REPLICAS = 50
A_WHILE_S = 30.0


def controllers(cluster: Cluster) -> list[ReplicationController]:
    return cluster.informers.of(ReplicationController).all()


async def started(cluster: Cluster, name: str, replicas: int) -> ReplicationController:
    made = await cluster.create(controller(name, replicas))
    await cluster.until(lambda: cluster.ready_pods() == replicas)
    return made


async def remove(cluster: Cluster, name: str, policy: str, uid: str | None = None) -> None:
    await cluster.client.delete(ReplicationController, name, "default", propagation_policy=policy, uid=uid)


def test_pods_of_a_controller_go_in_the_background() -> None:
    """[sig-api-machinery] Garbage collector should delete pods created by rc when not orphaning"""

    async def scenario(cluster: Cluster) -> None:
        await cluster.create(controller("simple", 2))
        await cluster.until(lambda: bool(cluster.pods.all()))
        await remove(cluster, "simple", "Background")
        assert controllers(cluster) == [] or controllers(cluster)[0].metadata.name == "simple"
        await cluster.until(lambda: not controllers(cluster), within_s=1)
        await cluster.until(lambda: not cluster.pods.all(), within_s=60)

    simulate(scenario)


def test_pods_of_a_controller_are_orphaned_when_asked_to() -> None:
    """[sig-api-machinery] Garbage collector should orphan pods created by rc if delete options say so [Serial]"""

    async def scenario(cluster: Cluster) -> None:
        owner = await started(cluster, "simple", REPLICAS)
        await remove(cluster, "simple", "Orphan", owner.metadata.uid)
        await cluster.until(lambda: not controllers(cluster), within_s=10)
        await cluster.clock.sleep(A_WHILE_S)
        assert cluster.ready_pods() == len(cluster.pods.all()) == REPLICAS
        assert not any(one.metadata.owner_references for one in cluster.pods.all())

    simulate(scenario)


def test_a_replica_set_and_its_pods_go_with_their_deployment() -> None:
    """[sig-api-machinery] Garbage collector should delete RS created by deployment when not orphaning"""

    async def scenario(cluster: Cluster) -> None:
        await cluster.create(deployment("simple", 2))
        await cluster.until(lambda: bool(cluster.replica_sets.all()))
        await cluster.client.delete(Deployment, "simple", "default", propagation_policy="Background")
        await cluster.until(lambda: not cluster.replica_sets.all() and not cluster.pods.all(), within_s=60)

    simulate(scenario)


def test_a_replica_set_is_orphaned_by_its_deployment_when_asked_to() -> None:
    """[sig-api-machinery] Garbage collector should orphan RS created by deployment when
    deleteOptions.PropagationPolicy is Orphan"""

    async def scenario(cluster: Cluster) -> None:
        await cluster.create(deployment("simple", 2))
        await cluster.until(lambda: cluster.done("simple"))
        await cluster.client.delete(Deployment, "simple", "default", propagation_policy="Orphan")
        await cluster.until(lambda: not cluster.deployments.all(), within_s=10)
        await cluster.clock.sleep(A_WHILE_S)
        (replica_set,) = cluster.replica_sets.all()
        assert controller_of(replica_set) is None
        assert cluster.ready_pods() == len(cluster.pods.all()) == 2
        for one in cluster.pods.all():
            owner = controller_of(one)
            assert owner
            assert owner.uid == replica_set.metadata.uid

    simulate(scenario)


def test_in_the_foreground_a_controller_outlives_its_pods() -> None:
    """[sig-api-machinery] Garbage collector should keep the rc around until all its pods are deleted if the
    deleteOptions says so [Serial]"""

    async def scenario(cluster: Cluster) -> None:
        owner = await started(cluster, "simple", REPLICAS)
        left: list[int] = []
        cluster.informers.of(ReplicationController).add_handler(
            lambda old, new: left.append(len(cluster.pods.all())) if new is None else None
        )
        await remove(cluster, "simple", "Foreground", owner.metadata.uid)
        (going,) = [await cluster.client.get(ReplicationController, "simple", "default")]
        assert going.metadata.deletion_timestamp is not None
        assert going.metadata.finalizers == ["foregroundDeletion"]
        await cluster.until(lambda: not controllers(cluster), within_s=60)
        assert left == [0], "pods that were there when it went"
        assert (await cluster.client.list(Pod, "default")).items == []

    simulate(scenario, stop_s=(1, 5))


def test_pods_with_another_owner_stay_when_one_waits_for_them() -> None:
    """[sig-api-machinery] Garbage collector should not delete dependents that have both valid owner and owner that's
    waiting for dependents to be deleted [Serial]"""

    async def scenario(cluster: Cluster) -> None:
        going = await started(cluster, "to-be-deleted", REPLICAS)
        staying = await cluster.create(controller("to-stay", 0))
        second = OwnerReference(
            api_version="v1", kind="ReplicationController", name="to-stay", uid=staying.metadata.uid or ""
        )
        shared = {one.metadata.name for one in cluster.pods.all()[: REPLICAS // 2]}
        for name in shared:
            await cluster.patch(Pod, name or "", {"metadata": {"ownerReferences": [second]}})
        await remove(cluster, "to-be-deleted", "Foreground", going.metadata.uid)
        await cluster.until(lambda: [one.metadata.name for one in controllers(cluster)] == ["to-stay"], within_s=60)
        await cluster.clock.sleep(A_WHILE_S)
        assert {one.metadata.name for one in cluster.pods.all()} == shared
        for one in cluster.pods.all():
            assert one.metadata.deletion_timestamp is None
            assert [owner.uid for owner in one.metadata.owner_references] == [staying.metadata.uid]

    simulate(scenario)


def test_a_circle_of_owners_goes_as_a_whole() -> None:
    """[sig-api-machinery] Garbage collector should not be blocked by dependency circle"""

    async def scenario(cluster: Cluster) -> None:
        made = [await cluster.create(pod(f"pod{number}")) for number in (1, 2, 3)]
        await cluster.until(lambda: cluster.ready_pods() == 3)
        for place, one in enumerate(made):
            owner = made[place - 1].metadata
            reference = OwnerReference(
                api_version="v1",
                kind="Pod",
                name=owner.name or "",
                uid=owner.uid or "",
                controller=True,
                block_owner_deletion=True,
            )
            await cluster.patch(Pod, one.metadata.name or "", {"metadata": {"ownerReferences": [reference]}})
        await cluster.client.delete(Pod, "pod1", "default", propagation_policy="Foreground")
        await cluster.until(lambda: not cluster.pods.all(), within_s=60)

    simulate(scenario, stop_s=(1, 3))
