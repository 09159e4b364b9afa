"""Claims and volumes that are deleted stay until nobody uses them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from knarr.api.core.v1 import PersistentVolume, PersistentVolumeClaim, Pod
from knarr.api.errors import NotFound
from knarr.api.registry import built_in
from knarr.api.resources import Registry, Strategy, served
from tests import cluster as clusters
from tests.cluster import Cluster, simulate


class WithStatus(Strategy[Any]):
    has_status = True


def with_storage() -> Registry:
    registry = built_in()
    known = {resource.type for resource in registry}
    if PersistentVolumeClaim not in known:
        registry.add(
            served(PersistentVolumeClaim, "persistentvolumeclaims", subresources=("status",), strategy=WithStatus())
        )
    if PersistentVolume not in known:
        registry.add(
            served(
                PersistentVolume,
                "persistentvolumes",
                namespaced=False,
                subresources=("status",),
                strategy=WithStatus(),
            )
        )
    return registry


@pytest.fixture(autouse=True)
def _storage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "built_in", with_storage)


def claim(name: str) -> PersistentVolumeClaim:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return msgspec.convert({"metadata": {"name": name, "namespace": "default"}, "spec": spec}, PersistentVolumeClaim)


def pod(name: str, claim: str, **spec: Any) -> Pod:
    volume = {"name": "v", "persistentVolumeClaim": {"claimName": claim}}
    spec = {"containers": [{"name": "c", "image": "one"}], "volumes": [volume], **spec}
    return msgspec.convert({"metadata": {"name": name, "namespace": "default"}, "spec": spec}, Pod)


async def gone(cluster: Cluster, kind: type[Any], name: str, namespace: str | None = None) -> None:
    for _ in range(100):
        try:
            await cluster.client.get(kind, name, namespace)
        except NotFound:
            return
        await cluster.clock.sleep(0.1)
    raise AssertionError(f"{name} is still there")


def test_a_claim_stays_while_a_pod_that_runs_has_it() -> None:
    async def scenario(cluster: Cluster) -> None:
        made = await cluster.client.create(claim("data"))
        assert made.metadata.finalizers == ["kubernetes.io/pvc-protection"]
        await cluster.create(pod("user", "data"))
        await cluster.until(lambda: cluster.ready_pods() == 1)
        await cluster.client.delete(PersistentVolumeClaim, "data", "default")
        await cluster.clock.sleep(10)
        kept = await cluster.client.get(PersistentVolumeClaim, "data", "default")
        assert kept.metadata.deletion_timestamp
        await cluster.client.delete(Pod, "user", "default")
        await gone(cluster, PersistentVolumeClaim, "data", "default")

    simulate(scenario)


@pytest.mark.parametrize("user", ["nobody", "unplaced", "another's"])
def test_a_claim_that_nobody_runs_with_goes(user: str) -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.client.create(claim("data"))
        if user == "unplaced":
            await cluster.create(pod("user", "data", schedulingGates=[{"name": "a.b/wait"}]))
        if user == "another's":
            await cluster.client.create(claim("other"))
            await cluster.create(pod("user", "other"))
            await cluster.until(lambda: cluster.ready_pods() == 1)
        await cluster.client.delete(PersistentVolumeClaim, "data", "default")
        await gone(cluster, PersistentVolumeClaim, "data", "default")

    simulate(scenario)


def test_a_volume_stays_while_it_is_bound() -> None:
    async def scenario(cluster: Cluster) -> None:
        spec = {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": "/tmp/x"},
            "persistentVolumeReclaimPolicy": "Retain",
        }
        body = {"metadata": {"name": "disk"}, "spec": spec}
        made = await cluster.client.create(msgspec.convert(body, PersistentVolume))
        assert made.metadata.finalizers == ["kubernetes.io/pv-protection"]
        wanted = claim("data")
        assert wanted.spec
        wanted.spec.storage_class_name = ""
        await cluster.client.create(wanted)
        claims = cluster.informers.of(PersistentVolumeClaim)
        await cluster.until(lambda: (now := claims.get("default/data")) and now.status and now.status.phase == "Bound")
        await cluster.client.delete(PersistentVolume, "disk")
        await cluster.clock.sleep(10)
        assert (await cluster.client.get(PersistentVolume, "disk")).metadata.deletion_timestamp
        await cluster.client.delete(PersistentVolumeClaim, "data", "default")
        await gone(cluster, PersistentVolume, "disk")

    simulate(scenario)
