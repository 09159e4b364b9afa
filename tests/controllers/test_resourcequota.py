"""Quotas in a running cluster: counted, charged, given back at once; and what a workload tells of a refusal.

The scenarios follow what upstream's conformance asserts of ResourceQuota, and its other tests of LimitRange.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from knarr.api.apps.v1 import Deployment
from knarr.api.core.v1 import ConfigMap, LimitRange, Pod, ResourceQuota, Secret, Service
from knarr.api.errors import Forbidden
from knarr.api.meta.v1 import ObjectMeta
from tests.cluster import Cluster, deployment, simulate


def quota(name: str = "q", **spec: Any) -> ResourceQuota:
    return msgspec.convert({"metadata": {"name": name, "namespace": "default"}, "spec": spec}, ResourceQuota)


def pod(name: str, **resources: Any) -> Pod:
    container = {"name": "c", "image": "one", "resources": resources}
    body = {"metadata": {"name": name, "namespace": "default"}, "spec": {"containers": [container]}}
    return msgspec.convert(body, Pod)


async def used(cluster: Cluster, name: str = "q") -> dict[str, Any]:
    found = await cluster.client.get(ResourceQuota, name, "default")
    return dict(found.status.used) if found.status else {}


async def counted(cluster: Cluster, expected: dict[str, Any], within_s: float = 5.0) -> None:
    """Wait until the quota says so."""
    informer = cluster.informers.of(ResourceQuota)

    def shown() -> bool:
        found = informer.get("default/q")
        return bool(found and found.status and found.status.used == expected)

    try:
        await cluster.until(shown, within_s)
    except AssertionError:
        raise AssertionError(f"{await used(cluster)} is not {expected}") from None


def test_a_new_quota_counts_what_is_there() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(deployment("web", 3))
        await cluster.until(lambda: cluster.done("web"))
        hard = {"pods": "10", "requests.cpu": "1", "count/deployments.apps": "5", "count/replicasets.apps": "5"}
        await cluster.create(quota(hard=hard | {"services": "4", "configmaps": "10", "limits.cpu": "1"}))
        taken = {"pods": "3", "requests.cpu": "30m", "count/deployments.apps": "1", "count/replicasets.apps": "1"}
        await counted(cluster, taken | {"services": "0", "configmaps": "1", "limits.cpu": "0"}, within_s=1)

    simulate(scenario)


def test_what_is_deleted_or_comes_to_its_end_is_given_back_at_once() -> None:
    async def scenario(cluster: Cluster) -> None:
        hard = {"pods": "5", "cpu": "1", "memory": "1Gi", "configmaps": "9", "secrets": "9", "services": "9"}
        await cluster.create(quota(hard=hard))
        empty = {"pods": "0", "cpu": "0", "memory": "0", "configmaps": "1", "secrets": "0", "services": "0"}
        await counted(cluster, empty)
        metadata = ObjectMeta(name="a", namespace="default")
        await cluster.client.create(ConfigMap(metadata=metadata))
        await cluster.client.create(Secret(metadata=ObjectMeta(name="a", namespace="default")))
        body = {"metadata": {"name": "a", "namespace": "default"}, "spec": {"ports": [{"port": 80}]}}
        await cluster.client.create(msgspec.convert(body, Service))
        await cluster.client.create(pod("a", requests={"cpu": "500m", "memory": "252Mi"}))
        full = {"pods": "1", "cpu": "500m", "memory": "252Mi", "configmaps": "2", "secrets": "1", "services": "1"}
        assert await used(cluster) == full, "written in one commit with each object"
        with pytest.raises(Forbidden, match=r"exceeded quota: q, requested: cpu=600m, used: cpu=500m, limited: cpu=1"):
            await cluster.client.create(pod("b", requests={"cpu": "600m", "memory": "1Mi"}))
        for kind in (ConfigMap, Secret, Service):
            await cluster.client.delete(kind, "a", "default")
        await counted(cluster, full | {"configmaps": "1", "secrets": "0", "services": "0"}, within_s=1)
        await cluster.until(lambda: cluster.ready_pods() == 1)
        await cluster.patch(Pod, "a", {"metadata": {"labels": {"a": "b"}}})
        current = await cluster.client.get(Pod, "a", "default")
        assert current.status
        current.status.phase = "Succeeded"
        await cluster.client.update_status(current)
        await counted(cluster, empty, within_s=1)

    simulate(scenario)


def test_a_quota_that_changes_is_counted_anew_and_one_that_goes_holds_nothing() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(quota(hard={"pods": "1"}))
        await counted(cluster, {"pods": "0"})
        await cluster.client.create(pod("a"))
        with pytest.raises(Forbidden):
            await cluster.client.create(pod("b"))
        await cluster.patch(ResourceQuota, "q", {"spec": {"hard": {"pods": "2", "count/pods": "5"}}})
        await counted(cluster, {"pods": "1", "count/pods": "1"}, within_s=1)
        await cluster.client.create(pod("b"))
        await cluster.client.delete(ResourceQuota, "q", "default")
        await cluster.client.create(pod("c"))

    simulate(scenario)


def test_scoped_quotas_count_only_their_own() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(quota("best", hard={"pods": "5"}, scopes=["BestEffort"]))
        await cluster.create(quota("q", hard={"pods": "5"}, scopes=["NotBestEffort"]))
        await counted(cluster, {"pods": "0"})
        await cluster.client.create(pod("a", requests={"cpu": "1m"}))
        assert await used(cluster, "best") == {"pods": "0"}
        await counted(cluster, {"pods": "1"})
        await cluster.client.delete(Pod, "a", "default", grace_period_s=0)
        await counted(cluster, {"pods": "0"})

    simulate(scenario)


def test_a_workload_tells_why_it_has_fewer_pods_and_goes_on_when_it_may() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(quota(hard={"pods": "2"}))
        await counted(cluster, {"pods": "0"})
        await cluster.create(deployment("web", 3))
        await cluster.until(lambda: cluster.condition("web", "ReplicaFailure") == ("True", "FailedCreate"))
        await cluster.until(lambda: cluster.status("web").available_replicas == 2)
        (told,) = [each for each in cluster.status("web").conditions if each.type == "ReplicaFailure"]
        assert told.message
        assert told.message.startswith('pods "web-')
        assert told.message.endswith(
            "is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2"
        )
        events = await cluster.events("FailedCreate")
        assert events
        assert events[0].startswith('Error creating: pods "web-')
        assert len(cluster.pods.all()) == 2
        await cluster.patch(ResourceQuota, "q", {"spec": {"hard": {"pods": "5"}}})
        await cluster.until(lambda: cluster.done("web"))
        assert cluster.condition("web", "ReplicaFailure") == ("", "")
        await counted(cluster, {"pods": "3"})

    simulate(scenario)


def test_a_rollout_within_a_quota_never_goes_over_it() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(quota(hard={"pods": "4", "requests.cpu": "40m"}))
        await counted(cluster, {"pods": "0", "requests.cpu": "0"})
        await cluster.create(deployment("web", 3))
        await cluster.until(lambda: cluster.done("web"))
        most = 0

        def looked() -> bool:
            nonlocal most
            most = max(most, len(cluster.pods.all()))
            return cluster.done("web") and cluster.images() == ["two"] * 3

        await cluster.set_image("web", "two")
        await cluster.until(looked)
        assert most <= 4
        await counted(cluster, {"pods": "3", "requests.cpu": "30m"})

    simulate(scenario)


def test_defaults_of_a_limit_range_are_what_a_quota_counts() -> None:
    async def scenario(cluster: Cluster) -> None:
        body = {
            "metadata": {"name": "l", "namespace": "default"},
            "spec": {"limits": [{"type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"}}]},
        }
        await cluster.create(msgspec.convert(body, LimitRange))
        await cluster.create(quota(hard={"requests.cpu": "150m", "limits.cpu": "1"}))
        await counted(cluster, {"requests.cpu": "0", "limits.cpu": "0"})
        await cluster.client.create(pod("a"))
        assert await used(cluster) == {"requests.cpu": "100m", "limits.cpu": "500m"}
        with pytest.raises(Forbidden, match=r"requested: requests.cpu=100m, used: requests.cpu=100m, limited: .*=150m"):
            await cluster.client.create(pod("b"))

    simulate(scenario)


def test_deployments_themselves_are_counted() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(quota(hard={"count/deployments.apps": "1"}))
        await counted(cluster, {"count/deployments.apps": "0"})
        await cluster.create(deployment("one", 1))
        with pytest.raises(Forbidden, match=r'deployments.apps "two" is forbidden: exceeded quota: q'):
            await cluster.create(deployment("two", 1))
        await cluster.client.delete(Deployment, "one", "default")
        await counted(cluster, {"count/deployments.apps": "0"})
        await cluster.create(deployment("two", 1))

    simulate(scenario)
