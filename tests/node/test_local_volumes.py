"""Claims of the class `local`: a folder on the node of their first pod, for as long as they are."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, Mock

import msgspec
import pytest

from knarr.api.apps.v1 import StatefulSet
from knarr.api.core.v1 import PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimStatus, Pod
from knarr.api.core.volume_matching import PROVISIONERS
from knarr.api.errors import ServiceUnavailable
from knarr.api.types import replace
from knarr.client.informer import Informer
from knarr.controllers.persistentvolume import VolumeBinder
from knarr.node.local_volumes import HostFolders, node_of, wants_more
from tests.cluster import Cluster, simulate
from tests.storage import claim, mounting, storage_class


def claims(cluster: Cluster) -> Informer[PersistentVolumeClaim]:
    return cluster.informers.of(PersistentVolumeClaim)


def volumes(cluster: Cluster) -> list[PersistentVolume]:
    return cluster.informers.of(PersistentVolume).all()


def phase(cluster: Cluster, name: str = "data") -> str:
    found = claims(cluster).get(f"default/{name}")
    return (found.status.phase or "") if found and found.status else ""


def test_a_claim_gets_a_volume_on_the_node_of_its_first_pod_and_takes_it_along() -> None:
    async def scenario(cluster: Cluster) -> None:
        made = await cluster.create(claim(storageClassName=None))
        assert made.spec
        assert made.spec.storage_class_name == "local"
        await cluster.clock.sleep(30)
        assert phase(cluster) == "Pending"
        await cluster.create(mounting("web", "data", nodeSelector={"kubernetes.io/hostname": "hollow-2"}))
        await cluster.until(lambda: phase(cluster) == "Bound")
        (volume,) = volumes(cluster)
        assert volume.spec
        assert volume.metadata.name == f"pvc-{made.metadata.uid}"
        assert node_of(volume) == "hollow-2"
        assert volume.spec.persistent_volume_reclaim_policy == "Delete"
        assert volume.metadata.annotations["pv.kubernetes.io/provisioned-by"] == "knarr.dev/local"
        await cluster.until(lambda: cluster.ready_pods() == 1)
        assert await cluster.events("ProvisioningSucceeded") == [
            f"Successfully provisioned volume {volume.metadata.name}"
        ]
        await cluster.client.delete(Pod, "web", "default", grace_period_s=0)
        await cluster.create(mounting("again", "data"))
        await cluster.until(lambda: (pod := cluster.pods.get("default/again")) and pod.spec and pod.spec.node_name)
        again = cluster.pods.get("default/again")
        assert again
        assert again.spec
        assert again.spec.node_name == "hollow-2"
        await cluster.client.delete(PersistentVolumeClaim, "data", "default")
        await cluster.clock.sleep(10)
        assert volumes(cluster), "it is in use"
        await cluster.client.delete(Pod, "again", "default", grace_period_s=0)
        await cluster.until(lambda: not volumes(cluster) and not claims(cluster).all())

    simulate(scenario)


def test_a_volume_that_is_to_be_retained_stays_and_belongs_to_nobody_else() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(storage_class("kept", "knarr.dev/local", reclaimPolicy="Retain"))
        await cluster.create(claim(storageClassName="kept"))
        await cluster.until(lambda: phase(cluster) == "Bound")
        assert [node_of(each) for each in volumes(cluster)] == ["hollow-0"], "no pod decides: the first node"
        await cluster.client.delete(PersistentVolumeClaim, "data", "default")
        await cluster.until(lambda: [each.status.phase for each in volumes(cluster) if each.status] == ["Released"])
        await cluster.client.delete(PersistentVolume, volumes(cluster)[0].metadata.name or "")
        await cluster.until(lambda: not volumes(cluster))

    simulate(scenario)


def test_a_claim_that_was_seen_before_its_class_gets_its_volume_when_the_class_is_seen() -> None:
    async def scenario(cluster: Cluster) -> None:
        early = claim(storageClassName="later")
        told = dict.fromkeys(PROVISIONERS, "knarr.dev/local")  # as the binder does, whose cache knew the class sooner
        await cluster.create(replace(early, metadata=replace(early.metadata, annotations=told)))
        await cluster.clock.sleep(5)
        await cluster.create(storage_class("later", "knarr.dev/local"))
        await cluster.until(lambda: phase(cluster) == "Bound")

    simulate(scenario)


def test_a_claim_whose_volume_is_removed_before_it_is_bound_gets_another_one() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(storage_class("now", "knarr.dev/local"))
        late = next(loop for loop in cluster.loops if isinstance(loop, VolumeBinder))
        bind, late.reconcile = late.reconcile, AsyncMock(return_value=None)  # type: ignore[method-assign]
        made = await cluster.create(claim(storageClassName="now"))
        await bind(f"claim default/{made.metadata.name}")
        await cluster.until(lambda: volumes(cluster))
        (volume,) = volumes(cluster)
        await cluster.client.delete(PersistentVolume, volume.metadata.name or "")
        await cluster.until(lambda: [each.metadata.uid for each in volumes(cluster)] not in ([], [volume.metadata.uid]))

    simulate(scenario)


def test_a_claim_that_is_gone_gets_no_volume_though_the_cache_still_shows_it() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(storage_class("now", "knarr.dev/local"))
        gone = claim(storageClassName="now")
        gone = replace(gone, metadata=replace(gone.metadata, uid="1"))
        await cluster.volumes._provision(gone)
        assert (await cluster.client.list(PersistentVolume)).items == []
        await cluster.create(claim(storageClassName="now"))  # another one of that name
        await cluster.until(lambda: phase(cluster) == "Bound")
        await cluster.volumes._provision(gone)
        assert len((await cluster.client.list(PersistentVolume)).items) == 1

    simulate(scenario)


def test_a_claim_grows_though_its_volume_is_seen_after_it() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(storage_class("now", "knarr.dev/local"))
        await cluster.create(claim(storageClassName="now"))
        await cluster.until(lambda: phase(cluster) == "Bound")
        (volume,) = volumes(cluster)
        assert cluster.volumes._with_volume(None, volume) == "claim default/data"
        assert cluster.volumes._with_volume(volume, volume) is None

    simulate(scenario)


def test_a_claim_grows_by_saying_so() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(claim(storageClassName="local"))
        await cluster.create(mounting("web", "data"))
        await cluster.until(lambda: phase(cluster) == "Bound")
        await cluster.patch(PersistentVolumeClaim, "data", {"spec": {"resources": {"requests": {"storage": "3Gi"}}}})

        def grown() -> Any:
            found = claims(cluster).get("default/data")
            return found and found.status and found.status.capacity == {"storage": "3Gi"}

        await cluster.until(grown)
        assert [each.spec.capacity for each in volumes(cluster) if each.spec] == [{"storage": "3Gi"}]
        assert await cluster.events("VolumeResizeSuccessful") == ["Resize volume succeeded"]

    simulate(scenario)


@pytest.mark.parametrize(
    ("phase", "has", "more"),
    [("Pending", {}, False), ("Bound", {"storage": "1Gi"}, False), ("Bound", {"storage": "500Mi"}, True)],
)
def test_a_claim_that_has_just_got_its_volume_does_not_grow(phase: str, has: dict[str, Any], more: bool) -> None:
    made = claim(volumeName="disk", metadata={"annotations": {"pv.kubernetes.io/bind-completed": "yes"}})
    made.status = PersistentVolumeClaimStatus(phase=phase, capacity=has)
    assert wants_more(made) is more


def test_what_a_folder_cannot_be_is_refused_with_the_reason() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(storage_class("now", "knarr.dev/local"))
        await cluster.create(claim("block", storageClassName="now", volumeMode="Block"))
        await cluster.create(claim("chosen", storageClassName="now", selector={"matchLabels": {"a": "b"}}))
        told: list[str] = []
        for _ in range(20):
            await cluster.clock.sleep(1)
            told = await cluster.events("ProvisioningFailed")
        assert set(told) == {
            'failed to provision volume with StorageClass "now": block volumes are not supported',
            'failed to provision volume with StorageClass "now": claim.Spec.Selector is not supported',
        }

    simulate(scenario)


def test_an_ephemeral_volume_lives_as_long_as_its_pod() -> None:
    async def scenario(cluster: Cluster) -> None:
        spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
        await cluster.create(
            mounting("web", volumes=[{"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": spec}}}])
        )
        await cluster.until(lambda: cluster.ready_pods() == 1)
        assert phase(cluster, "web-scratch") == "Bound"
        await cluster.client.delete(Pod, "web", "default")
        await cluster.until(lambda: not claims(cluster).all() and not volumes(cluster))

    simulate(scenario)


def test_a_stateful_set_gets_its_volumes_back_when_it_is_scaled_up_again() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(msgspec.convert(stateful_set(), StatefulSet))
        await cluster.until(lambda: cluster.ready_pods() == 2)
        before = {each.metadata.name: each.spec.volume_name for each in claims(cluster).all() if each.spec}
        assert set(before) == {"data-db-0", "data-db-1"}
        places = {pod.metadata.name: pod.spec.node_name for pod in cluster.pods.all() if pod.spec}
        await cluster.patch(StatefulSet, "db", {"spec": {"replicas": 0}})
        await cluster.until(lambda: not cluster.pods.all())
        await cluster.patch(StatefulSet, "db", {"spec": {"replicas": 2}})
        await cluster.until(lambda: cluster.ready_pods() == 2)
        assert before == {each.metadata.name: each.spec.volume_name for each in claims(cluster).all() if each.spec}
        assert places == {pod.metadata.name: pod.spec.node_name for pod in cluster.pods.all() if pod.spec}

    simulate(scenario)


def stateful_set() -> dict[str, Any]:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return {
        "metadata": {"name": "db", "namespace": "default"},
        "spec": {
            "replicas": 2,
            "serviceName": "db",
            "selector": {"matchLabels": {"app": "db"}},
            "template": {
                "metadata": {"labels": {"app": "db"}},
                "spec": {"containers": [{"name": "c", "image": "one"}]},
            },
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": spec}],
        },
    }


class Folders:
    """Where nothing is ever in a folder."""

    def __init__(self) -> None:
        self.there: set[str] = set()

    def path(self, name: str) -> str:
        return f"/hollow/{name}"

    async def make(self, name: str) -> None:
        self.there.add(name)

    async def remove(self, name: str) -> None:
        self.there.discard(name)

    async def empty(self) -> list[str]:
        return sorted(self.there)


def test_a_folder_whose_volume_could_not_be_written_goes_after_its_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(cluster: Cluster) -> None:
        folders = Folders()
        monkeypatch.setattr(cluster.volumes, "_folders", folders)
        await cluster.create(claim("kept", storageClassName=None))
        await cluster.create(mounting("user", "kept"))
        await cluster.until(lambda: phase(cluster, "kept") == "Bound")
        refusing = Mock(wraps=cluster.client, create=AsyncMock(side_effect=ServiceUnavailable("no")))
        monkeypatch.setattr(cluster.volumes, "client", refusing)
        await cluster.create(claim("lost", storageClassName=None))
        await cluster.create(claim("late", storageClassName=None))
        for name in ("lost", "late"):
            await cluster.create(mounting(name, name))
        await cluster.until(lambda: len(folders.there) == 3)
        for kind in (Pod, PersistentVolumeClaim):
            await cluster.client.delete(kind, "lost", "default")
        await cluster.until(lambda: len(folders.there) == 2)
        monkeypatch.setattr(cluster.volumes, "client", cluster.client)
        await cluster.until(lambda: phase(cluster, "late") == "Bound", 600)
        assert folders.there == {volume.metadata.name for volume in volumes(cluster)}

    simulate(scenario)


def test_what_is_empty_is_known_of_a_folder(tmp_path: Path) -> None:
    folders = HostFolders(tmp_path / "volumes")
    assert asyncio.run(folders.empty()) == []
    for name in ("empty", "full"):
        asyncio.run(folders.make(name))
    (tmp_path / "volumes" / "full" / "file").write_text("x")
    assert asyncio.run(folders.empty()) == ["empty"]


def test_folders_are_made_for_everybody_and_removed_with_what_is_in_them(tmp_path: Path) -> None:
    folders = HostFolders(tmp_path / "volumes")
    path = Path(folders.path("one"))
    for _again in range(2):
        asyncio.run(folders.make("one"))
    assert path.stat().st_mode & 0o777 == 0o777
    (path / "inside").mkdir()
    (path / "inside" / "file").write_text("x")
    for _again in range(2):
        asyncio.run(folders.remove("one"))
    assert not path.exists()
