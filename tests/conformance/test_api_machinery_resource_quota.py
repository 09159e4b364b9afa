"""sig-api-machinery: a quota counts each kind for as long as its objects live, within its scopes, and says no above."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from knarr.api.apps.v1 import ReplicaSet
from knarr.api.core.v1 import (
    ConfigMap,
    Pod,
    ReplicationController,
    ResourceQuota,
    ResourceQuotaStatus,
    Secret,
    Service,
)
from knarr.api.errors import Forbidden, Invalid, NotFound
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.types import replace
from knarr.client.client import MERGE_PATCH
from tests.cluster import Cluster, simulate
from tests.conformance.workloads import controller, pod

EXTENDED = "example.com/dongle"
CLASS = "gold.storageclass.storage.k8s.io"
HARD = {
    "pods": "5",
    "services": "10",
    "services.nodeports": "1",
    "services.loadbalancers": "1",
    "replicationcontrollers": "10",
    "resourcequotas": "1",
    "cpu": "1",
    "memory": "500Mi",
    "configmaps": "10",
    "secrets": "10",
    "persistentvolumeclaims": "10",
    "requests.storage": "10Gi",
    "ephemeral-storage": "50Gi",
    f"{CLASS}/persistentvolumeclaims": "10",
    f"{CLASS}/requests.storage": "10Gi",
    "count/replicasets.apps": "5",
    f"requests.{EXTENDED}": "3",
}
NOTHING = dict.fromkeys(HARD, "0") | {"resourcequotas": "1", "configmaps": "1"}
"""Used where there is nothing but the quota itself, and the root certificates that every namespace is given."""


def quota(name: str = "test-quota", hard: dict[str, str] | None = None, **more: Any) -> ResourceQuota:
    labels = more.pop("labels", {})
    metadata = {"name": name, "namespace": "default", "labels": labels}
    return msgspec.convert({"metadata": metadata, "spec": {"hard": hard or HARD, **more}}, ResourceQuota)


def status(cluster: Cluster, name: str) -> ResourceQuotaStatus:
    found = cluster.informers.of(ResourceQuota).get(f"default/{name}")
    return found.status if found and found.status else ResourceQuotaStatus()


async def counted(cluster: Cluster, used: dict[str, str], name: str = "test-quota") -> None:
    try:
        await cluster.until(lambda: status(cluster, name).used == used, within_s=10)
    except AssertionError:
        shown = status(cluster, name).used
        raise AssertionError({key: shown.get(key) for key in used if shown.get(key) != used[key]}) from None


async def ready(cluster: Cluster) -> None:
    """The quota is there, and has been counted."""
    maps = cluster.informers.of(ConfigMap)
    await cluster.until(lambda: maps.get("default/kube-root-ca.crt"))
    await cluster.create(quota())
    await counted(cluster, NOTHING)
    assert status(cluster, "test-quota").hard == HARD


def life(make: Any, name: str, kind: type[Any], used: dict[str, str]) -> None:
    """What is made takes `used` of the quota until it is deleted."""

    async def scenario(cluster: Cluster) -> None:
        await ready(cluster)
        await cluster.create(make)
        await counted(cluster, NOTHING | used)
        await cluster.client.delete(kind, name, "default")
        await counted(cluster, NOTHING)

    simulate(scenario)


def test_a_new_quota_is_counted_promptly() -> None:
    """[sig-api-machinery] ResourceQuota should create a ResourceQuota and ensure its status is promptly
    calculated."""
    simulate(ready)


def test_a_config_map_counts_while_it_lives() -> None:
    """[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a configMap."""
    made = ConfigMap(metadata=ObjectMeta(name="a", namespace="default"), data={"a": "b"})
    life(made, "a", ConfigMap, {"configmaps": "2"})


def test_a_secret_counts_while_it_lives() -> None:
    """[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a secret."""
    life(Secret(metadata=ObjectMeta(name="a", namespace="default")), "a", Secret, {"secrets": "1"})


def test_a_replication_controller_counts_while_it_lives() -> None:
    """[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a replication
    controller."""
    life(controller("a", 0), "a", ReplicationController, {"replicationcontrollers": "1"})


def test_a_replica_set_counts_while_it_lives() -> None:
    """[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a replica set."""
    labels = {"name": "a"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "one"}]}}
    spec = {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}
    made = msgspec.convert({"metadata": {"name": "a", "namespace": "default"}, "spec": spec}, ReplicaSet)
    life(made, "a", ReplicaSet, {"count/replicasets.apps": "1"})


def service(name: str, type_: str, **spec: Any) -> Service:
    spec = {"type": type_, "ports": [{"port": 80, "targetPort": 80}], **spec}
    return msgspec.convert({"metadata": {"name": name, "namespace": "default"}, "spec": spec}, Service)


def test_services_count_while_they_live_with_their_node_ports() -> None:
    """[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a service."""

    async def scenario(cluster: Cluster) -> None:
        await ready(cluster)
        await cluster.create(service("plain", "ClusterIP"))
        await counted(cluster, NOTHING | {"services": "1"})
        await cluster.create(service("port", "NodePort"))
        await counted(cluster, NOTHING | {"services": "2", "services.nodeports": "1"})
        with pytest.raises(Forbidden, match=r"exceeded quota: test-quota, requested: services.nodeports=1"):
            await cluster.create(service("balanced", "LoadBalancer"))
        without = service("balanced", "LoadBalancer", allocateLoadBalancerNodePorts=False)
        await cluster.create(without)
        await counted(cluster, NOTHING | {"services": "3", "services.nodeports": "1", "services.loadbalancers": "1"})
        for name in ("plain", "port", "balanced"):
            await cluster.client.delete(Service, name, "default")
        await counted(cluster, NOTHING)

    simulate(scenario)


def test_a_pod_counts_what_it_asks_for_while_it_lives() -> None:
    """[sig-api-machinery] ResourceQuota should create a ResourceQuota and capture the life of a pod."""

    def asking(name: str, dongles: str, **requests: str) -> Pod:
        resources = {"requests": {**requests, EXTENDED: dongles}, "limits": {EXTENDED: dongles}}
        return pod(name, container={"resources": resources})

    async def scenario(cluster: Cluster) -> None:
        await ready(cluster)
        few = {"ephemeral-storage": "1Gi"}
        some = {"cpu": "500m", "memory": "252Mi", "ephemeral-storage": "30Gi"}
        await cluster.create(asking("test-pod", "2", **some))
        taken = NOTHING | some | {"pods": "1", f"requests.{EXTENDED}": "2"}
        await counted(cluster, taken)
        with pytest.raises(Forbidden, match=r"exceeded quota: test-quota, requested: cpu=600m, used: cpu=500m"):
            await cluster.create(asking("fail-pod", "1", cpu="600m", memory="100Mi", **few))
        with pytest.raises(Forbidden, match=rf"requested: requests.{EXTENDED}=2, used: requests.{EXTENDED}=2"):
            await cluster.create(asking("fail-dongle", "2", cpu="1m", memory="1Mi", **few))
        more = {"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "600m"}}}]}}
        with pytest.raises(Invalid, match="pod updates may not change fields other than"):
            await cluster.client.patch(Pod, "test-pod", more, "default")
        await cluster.clock.sleep(10)
        assert status(cluster, "test-quota").used == taken
        await cluster.client.delete(Pod, "test-pod", "default", grace_period_s=0)
        await counted(cluster, NOTHING)

    simulate(scenario)


def scoped(
    hard: dict[str, str], scopes: tuple[str, str], pods: tuple[Pod, Pod], taken: tuple[dict[str, str], dict[str, str]]
) -> None:
    """Two quotas of opposite scopes: the first pod counts in the first of them only, the second in the second."""
    none = dict.fromkeys(hard, "0")

    async def scenario(cluster: Cluster) -> None:
        for scope in scopes:
            await cluster.create(quota(f"of-{scope.lower()}", hard, scopes=[scope]))
            await counted(cluster, none, f"of-{scope.lower()}")
        for place, made in enumerate(pods):
            mine, other = scopes[place].lower(), scopes[1 - place].lower()
            await cluster.create(made)
            await counted(cluster, taken[place], f"of-{mine}")
            assert status(cluster, f"of-{other}").used == none
            await cluster.client.delete(Pod, made.metadata.name or "", "default", grace_period_s=0)
            await counted(cluster, none, f"of-{mine}")

    simulate(scenario)


def test_scopes_tell_pods_that_ask_for_something_from_those_that_do_not() -> None:
    """[sig-api-machinery] ResourceQuota should verify ResourceQuota with best effort scope."""
    asking = {"resources": {"requests": {"cpu": "500m", "memory": "200Mi"}, "limits": {"cpu": "1", "memory": "400Mi"}}}
    pods = pod("besteffort"), pod("burstable", container=asking)
    scoped({"pods": "5"}, ("BestEffort", "NotBestEffort"), pods, ({"pods": "1"}, {"pods": "1"}))


def test_scopes_tell_pods_that_end_from_those_that_run_on() -> None:
    """[sig-api-machinery] ResourceQuota should verify ResourceQuota with terminating scopes."""
    hard = {"pods": "5", "requests.cpu": "1", "requests.memory": "500Mi", "limits.cpu": "2", "limits.memory": "1Gi"}
    asking = {"resources": {"requests": {"cpu": "500m", "memory": "200Mi"}, "limits": {"cpu": "1", "memory": "400Mi"}}}
    used = {
        "pods": "1",
        "requests.cpu": "500m",
        "requests.memory": "200Mi",
        "limits.cpu": "1",
        "limits.memory": "400Mi",
    }
    pods = pod("runs", container=asking), pod("ends", container=asking, activeDeadlineSeconds=3600)
    scoped(hard, ("NotTerminating", "Terminating"), pods, (used, used))


def test_a_quota_is_updated_and_deleted() -> None:
    """[sig-api-machinery] ResourceQuota should be able to update and delete ResourceQuota."""

    async def scenario(cluster: Cluster) -> None:
        await cluster.create(quota("q", {"cpu": "1", "memory": "500Mi"}))
        found = await cluster.client.get(ResourceQuota, "q", "default")
        assert found.spec
        await cluster.until(lambda: status(cluster, "q").hard == {"cpu": "1", "memory": "500Mi"})
        found = await cluster.client.get(ResourceQuota, "q", "default")
        more = {"cpu": "2", "memory": "1Gi"}
        assert found.spec
        updated = await cluster.client.update(replace(found, spec=replace(found.spec, hard=more)))
        assert updated.spec
        assert updated.spec.hard == more
        await cluster.until(lambda: status(cluster, "q").hard == more, within_s=10)
        await cluster.client.delete(ResourceQuota, "q", "default")
        with pytest.raises(NotFound):
            await cluster.client.get(ResourceQuota, "q", "default")

    simulate(scenario)


def test_quotas_are_listed_patched_and_deleted_together() -> None:
    """[sig-api-machinery] ResourceQuota should manage the lifecycle of a ResourceQuota"""
    label = "e2e-rq-label"

    async def scenario(cluster: Cluster) -> None:
        await cluster.create(quota("q", {"cpu": "500m", "memory": "500Mi"}, labels={label: "x"}))
        listed = await cluster.client.list(ResourceQuota, label_selector=f"{label}=x")
        assert [each.metadata.name for each in listed.items] == ["q"]
        more = {"cpu": "750m", "memory": "750Mi"}
        patch = {"metadata": {"labels": {"q": "patched"}}, "spec": {"hard": more}}
        patched = await cluster.client.patch(ResourceQuota, "q", patch, "default")
        assert patched.metadata.labels == {label: "x", "q": "patched"}
        assert patched.spec
        assert patched.spec.hard == more
        await cluster.client.delete_collection(ResourceQuota, "default", label_selector="q=patched")
        assert (await cluster.client.list(ResourceQuota, label_selector=f"{label}=x")).items == []

    simulate(scenario)


def test_the_status_of_a_quota_is_changed_apart_from_it_and_follows_it() -> None:
    """[sig-api-machinery] ResourceQuota should apply changes to a resourcequota status"""
    one, two = {"cpu": "500m", "memory": "500Mi"}, {"cpu": "1", "memory": "1Gi"}

    def follows(cluster: Cluster, hard: dict[str, str]) -> Callable[[], Awaitable[Any]]:
        return lambda: cluster.until(lambda: status(cluster, "q").hard == hard, within_s=10)

    async def scenario(cluster: Cluster) -> None:
        await cluster.create(quota("q", one))
        await follows(cluster, one)()
        found = await cluster.client.get(ResourceQuota, "q", "default")
        assert found.status
        updated = await cluster.client.update_status(replace(found, status=replace(found.status, hard=two)))
        assert updated.status
        assert updated.status.hard == two
        await follows(cluster, one)()
        patched = await cluster.client.patch(ResourceQuota, "q", {"spec": {"hard": two}}, "default")
        assert patched.spec
        assert patched.spec.hard == two
        await follows(cluster, two)()
        patched = await cluster.client.patch(
            ResourceQuota,
            "q",
            {"spec": {"hard": {"cpu": "7"}}, "status": {"hard": one}},
            "default",
            subresource="status",
            content_type=MERGE_PATCH,
        )
        assert patched.status
        assert patched.status.hard == one
        assert patched.spec
        assert patched.spec.hard == two, "nothing but the status is changed by its patch"
        await follows(cluster, two)()

    simulate(scenario)
