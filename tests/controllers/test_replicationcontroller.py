"""ReplicationControllers keep their number of pods, as ReplicaSets do, and tell of it in their own words."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from knarr.api.core.v1 import Pod, ReplicationController, ResourceQuota
from tests.cluster import Cluster, simulate


def controller(replicas: int = 2, name: str = "web", **spec: Any) -> ReplicationController:
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "one"}]}}
    body = {"metadata": {"name": name, "namespace": "default"}, "spec": {"replicas": replicas, "template": template}}
    return msgspec.convert(body, ReplicationController)


def status(cluster: Cluster, name: str = "web") -> Any:
    found = cluster.informers.of(ReplicationController).get(f"default/{name}")
    return msgspec.to_builtins(found.status) if found and found.status else {}


def test_it_counts_its_pods_and_scales_them() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(controller(3))
        await cluster.until(lambda: status(cluster).get("availableReplicas") == 3)
        assert status(cluster) == {
            "replicas": 3,
            "fullyLabeledReplicas": 3,
            "readyReplicas": 3,
            "availableReplicas": 3,
            "observedGeneration": 1,
        }
        (owner,) = {pod.metadata.owner_references[0].kind for pod in cluster.pods.all()}
        assert owner == "ReplicationController"
        await cluster.patch(ReplicationController, "web", {"spec": {"replicas": 1}})
        await cluster.until(lambda: len(cluster.pods.all()) == 1 and status(cluster)["replicas"] == 1)
        assert len(await cluster.events("SuccessfulCreate")) == 3

    simulate(scenario)


def test_a_pod_whose_label_changes_is_released_and_one_that_fits_is_adopted() -> None:
    async def scenario(cluster: Cluster) -> None:
        loose = {"metadata": {"name": "loose", "namespace": "default", "labels": {"app": "web"}}}
        await cluster.create(msgspec.convert(loose | {"spec": {"containers": [{"name": "c", "image": "one"}]}}, Pod))
        await cluster.create(controller(1))
        await cluster.until(lambda: bool(cluster.pods.all()[0].metadata.owner_references))
        await cluster.patch(Pod, "loose", {"metadata": {"labels": {"app": "other"}}})
        await cluster.until(lambda: len(cluster.pods.all()) == 2)
        await cluster.until(lambda: not found(cluster, "loose").metadata.owner_references)

    simulate(scenario)


def test_a_quota_is_told_as_a_failure_until_it_is_raised() -> None:
    async def scenario(cluster: Cluster) -> None:
        quota = {"metadata": {"name": "q", "namespace": "default"}, "spec": {"hard": {"pods": "2"}}}
        await cluster.create(msgspec.convert(quota, ResourceQuota))
        await cluster.create(controller(3))
        await cluster.until(lambda: [each["type"] for each in status(cluster).get("conditions", ())])
        (condition,) = status(cluster)["conditions"]
        assert (condition["type"], condition["reason"]) == ("ReplicaFailure", "FailedCreate")
        assert "exceeded quota: q" in condition["message"]
        await cluster.patch(ReplicationController, "web", {"spec": {"replicas": 2}})
        await cluster.until(lambda: not status(cluster).get("conditions"))

    simulate(scenario)


def found(cluster: Cluster, name: str) -> Pod:
    pod = cluster.pods.get(f"default/{name}")
    assert pod is not None
    return pod


@pytest.mark.parametrize("policy", ["Background", "Foreground"])
def test_it_goes_with_its_pods(policy: str) -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(controller(5))
        await cluster.until(lambda: cluster.ready_pods() == 5)
        await cluster.client.delete(ReplicationController, "web", "default", propagation_policy=policy)
        await cluster.until(
            lambda: not (cluster.pods.all() or cluster.informers.of(ReplicationController).all()), within_s=60
        )

    simulate(scenario)
