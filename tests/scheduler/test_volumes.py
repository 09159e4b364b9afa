"""Pods whose claims decide where they can run."""

from __future__ import annotations

from typing import Any

import msgspec

from knarr.api.core.v1 import PersistentVolume, PersistentVolumeClaim, Pod
from knarr.api.storage.v1 import CSINode
from knarr.client.informer import Informer
from tests.cluster import Cluster, simulate
from tests.storage import claim, mounting, storage_class, volume


def why(pod: Pod | None) -> str:
    conditions = pod.status.conditions if pod and pod.status else []
    return next((each.message or "" for each in conditions if each.type == "PodScheduled"), "")


def place(cluster: Cluster, name: str) -> str:
    pod = cluster.pods.get(f"default/{name}")
    return (pod.spec.node_name or "") if pod and pod.spec else ""


def claims(cluster: Cluster) -> Informer[PersistentVolumeClaim]:
    return cluster.informers.of(PersistentVolumeClaim)


def refused(reasons: str, nodes: int = 3) -> str:
    return (
        f"0/{nodes} nodes are available: {reasons}. no new claims to deallocate, preemption: "
        f"0/{nodes} nodes are available: {nodes} Preemption is not helpful for scheduling."
    )


def test_a_pod_waits_for_its_claim_to_be_there_and_to_be_bound() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(mounting("web", "data"))
        key = "default/web"
        await cluster.until(lambda: why(cluster.pods.get(key)) == refused('persistentvolumeclaim "data" not found'))
        await cluster.create(claim("data"))
        unbound = refused("pod has unbound immediate PersistentVolumeClaims")
        await cluster.until(lambda: why(cluster.pods.get(key)) == unbound)
        waited = "no persistent volumes available for this claim and no storage class is set"
        assert waited in await cluster.events("FailedBinding")
        await cluster.create(volume("disk", node="hollow-1"))
        await cluster.until(lambda: place(cluster, "web") == "hollow-1")

    simulate(scenario)


def test_a_pod_does_not_come_where_its_volume_is_not() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(volume("disk", node="elsewhere"))
        await cluster.create(claim("data"))
        await cluster.until(lambda: (found := claims(cluster).get("default/data")) and found.status.phase == "Bound")
        await cluster.create(mounting("web", "data"))
        expected = refused("3 node(s) didn't match PersistentVolume's node affinity")
        await cluster.until(lambda: why(cluster.pods.get("default/web")) == expected)

    simulate(scenario)


def test_claims_that_wait_for_their_pod_are_bound_where_all_of_them_can_be() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(storage_class("late", volumeBindingMode="WaitForFirstConsumer"))
        for name, node in (("a", "hollow-0"), ("b", "hollow-1"), ("c", "hollow-1")):
            await cluster.create(volume(name, node=node, storageClassName="late"))
        for name in ("one", "two"):
            await cluster.create(claim(name, storageClassName="late"))
        await cluster.clock.sleep(30)
        assert {each.status.phase for each in claims(cluster).all() if each.status} == {"Pending"}
        assert "waiting for first consumer to be created before binding" in await cluster.events("WaitForFirstConsumer")
        await cluster.create(mounting("web", "one", "two"))
        await cluster.until(lambda: place(cluster, "web") == "hollow-1")
        bound = {each.spec.volume_name for each in claims(cluster).all() if each.spec}
        assert bound == {"b", "c"}
        await cluster.create(claim("three", storageClassName="late"))
        await cluster.create(claim("four", storageClassName="late"))
        await cluster.create(mounting("more", "three", "four"))
        expected = refused("3 node(s) didn't find available persistent volumes to bind")
        await cluster.until(lambda: why(cluster.pods.get("default/more")) == expected)

    simulate(scenario)


def test_pods_that_come_at_once_never_get_the_same_volume() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(storage_class("late", volumeBindingMode="WaitForFirstConsumer"))
        for number in range(8):
            await cluster.create(volume(f"disk-{number}", storageClassName="late"))
            await cluster.create(claim(f"data-{number}", storageClassName="late"))
        for number in range(8):
            await cluster.create(mounting(f"web-{number}", f"data-{number}"))
        await cluster.until(lambda: all(place(cluster, f"web-{number}") for number in range(8)), 20)
        assert len({each.spec.volume_name for each in claims(cluster).all() if each.spec}) == 8

    simulate(scenario)


def test_a_class_that_makes_volumes_is_told_the_node_and_the_pod_follows_when_it_has_made_one() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(storage_class("made", "example.com/maker", volumeBindingMode="WaitForFirstConsumer"))
        await cluster.create(claim("data", storageClassName="made"))
        await cluster.create(mounting("web", "data", nodeSelector={"kubernetes.io/hostname": "hollow-2"}))
        selected = "volume.kubernetes.io/selected-node"
        claimed = claims(cluster)
        await cluster.until(lambda: (found := claimed.get("default/data")) and found.metadata.annotations.get(selected))
        found = claimed.get("default/data")
        assert found
        assert found.metadata.annotations[selected] == "hollow-2"
        await cluster.until(lambda: "volume.kubernetes.io/storage-provisioner" in _annotations(claimed))
        assert not place(cluster, "web")
        reference = {"namespace": "default", "name": "data", "uid": found.metadata.uid}
        await cluster.create(volume("made", node="hollow-2", storageClassName="made", claimRef=reference))
        await cluster.until(lambda: place(cluster, "web") == "hollow-2")

    simulate(scenario)


def _annotations(claimed: Informer[PersistentVolumeClaim]) -> dict[str, str]:
    found = claimed.get("default/data")
    return found.metadata.annotations if found else {}


def test_a_maker_that_gives_the_node_back_has_the_pod_placed_anew() -> None:
    async def scenario(cluster: Cluster) -> None:
        selected = "volume.kubernetes.io/selected-node"
        await cluster.create(storage_class("made", "example.com/maker", volumeBindingMode="WaitForFirstConsumer"))
        await cluster.create(claim("data", storageClassName="made"))
        await cluster.create(mounting("web", "data"))
        await cluster.until(lambda: selected in _annotations(claims(cluster)))
        await cluster.clock.sleep(1)
        await cluster.patch(PersistentVolumeClaim, "data", {"metadata": {"annotations": {selected: None}}})
        about = 'running PreBind plugin "VolumeBinding": binding volumes: provisioning failed for PVC "data"'
        await cluster.until(lambda: selected in _annotations(claims(cluster)), 30)
        assert about in await cluster.events("FailedScheduling")

    simulate(scenario)


def test_a_claim_for_one_pod_is_not_given_to_a_second() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(volume("disk", accessModes=["ReadWriteOncePod"]))
        await cluster.create(claim("data", accessModes=["ReadWriteOncePod"]))
        await cluster.create(mounting("first", "data"))
        await cluster.until(lambda: place(cluster, "first"))
        await cluster.create(mounting("second", "data"))
        about = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"
        await cluster.until(lambda: f"3 {about}" in why(cluster.pods.get("default/second")))
        await cluster.client.delete(Pod, "first", "default", grace_period_s=0)
        await cluster.until(lambda: place(cluster, "second"))

    simulate(scenario)


def test_a_disk_that_attaches_once_keeps_others_away() -> None:
    async def scenario(cluster: Cluster) -> None:
        disk = [{"name": "d", "awsElasticBlockStore": {"volumeID": "vol-1"}}]
        await cluster.create(mounting("first", volumes=disk))
        await cluster.until(lambda: place(cluster, "first"))
        await cluster.create(mounting("second", volumes=disk))
        await cluster.until(lambda: "1 node(s) had no available disk" in why(cluster.pods.get("default/second")))

    simulate(scenario, nodes=1)


def test_a_node_takes_no_more_volumes_of_a_driver_than_it_says() -> None:
    async def scenario(cluster: Cluster) -> None:
        driver = {"name": "disk.example.com", "nodeID": "n", "allocatable": {"count": 1}}
        fields: dict[str, Any] = {"metadata": {"name": "hollow-0"}, "spec": {"drivers": [driver]}}
        await cluster.create(msgspec.convert(fields, CSINode))
        for number in range(2):
            handle = {"driver": "disk.example.com", "volumeHandle": str(number)}
            await cluster.create(volume(f"disk-{number}", hostPath=None, csi=handle))
            await cluster.create(claim(f"data-{number}"))
        bound = claims(cluster)
        await cluster.until(lambda: [c.status.phase for c in bound.all() if c.status] == ["Bound", "Bound"])
        await cluster.create(mounting("first", "data-0"))
        await cluster.until(lambda: place(cluster, "first"))
        await cluster.create(mounting("again", "data-0"))
        await cluster.until(lambda: place(cluster, "again"))
        await cluster.create(mounting("second", "data-1"))
        await cluster.until(lambda: "1 node(s) exceed max volume count" in why(cluster.pods.get("default/second")))

    simulate(scenario, nodes=1)


def test_a_volume_of_a_zone_draws_its_pod_there() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(volume("disk", metadata={"labels": {"topology.kubernetes.io/zone": "zone-1__zone-7"}}))
        await cluster.create(claim("data"))
        await cluster.create(mounting("web", "data"))
        await cluster.until(lambda: place(cluster, "web") == "hollow-1")
        patch = {"metadata": {"labels": {"topology.kubernetes.io/zone": "zone-9"}}}
        await cluster._shown(await cluster.client.patch(PersistentVolume, "disk", patch))
        await cluster.create(mounting("lost", "data"))
        expected = refused("2 node(s) had no available volume zone", 2)
        await cluster.until(lambda: why(cluster.pods.get("default/lost")) == expected)

    simulate(scenario, nodes=2, zones=2)
