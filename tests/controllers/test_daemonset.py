"""DaemonSets in a whole cluster, in virtual time: where pods go, how they are updated, what a status tells."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from knarr.api.apps.v1 import ControllerRevision, DaemonSet, DaemonSetStatus
from knarr.api.core.pod_state import is_ready
from knarr.api.core.v1 import Node, Pod, ResourceQuota, ResourceQuotaSpec
from knarr.api.meta.v1 import ObjectMeta
from knarr.client.client import JSON_PATCH, MERGE_PATCH
from knarr.controllers.daemonset_pods import node_of
from tests.cluster import Cluster, simulate

LABELS = {"app": "agent"}


def daemon_set(image: str = "one", template: dict[str, Any] | None = None, **spec: Any) -> DaemonSet:
    return msgspec.convert(
        {
            "metadata": {"name": "agent", "namespace": "default"},
            "spec": {
                "selector": {"matchLabels": LABELS},
                "template": {
                    "metadata": {"labels": LABELS},
                    "spec": {"containers": [{"name": "c", "image": image}], **(template or {})},
                },
                **spec,
            },
        },
        DaemonSet,
    )


def rolling(**bounds: Any) -> dict[str, Any]:
    return {"type": "RollingUpdate", "rollingUpdate": bounds}


def status(cluster: Cluster) -> DaemonSetStatus:
    found = cluster.informers.of(DaemonSet).get("default/agent")
    return (found.status if found else None) or DaemonSetStatus()


def places(cluster: Cluster) -> list[str]:
    return sorted(node_of(pod) for pod in cluster.pods.all() if not pod.metadata.deletion_timestamp)


def images(cluster: Cluster) -> Counter[str]:
    return Counter(
        pod.spec.containers[0].image or ""
        for pod in cluster.pods.all()
        if pod.spec and not pod.metadata.deletion_timestamp
    )


def complete(cluster: Cluster, nodes: int = 3) -> bool:
    """As `kubectl rollout status` sees it."""
    found = status(cluster)
    return found.updated_number_scheduled == found.number_available == found.desired_number_scheduled == nodes


async def change(cluster: Cluster, **spec: Any) -> None:
    await cluster.patch(DaemonSet, "agent", {"spec": spec})


def of_image(image: str) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "c", "image": image}]}}


async def taint(cluster: Cluster, node: str, key: str, effect: str) -> None:
    patch = {"spec": {"taints": [{"key": key, "effect": effect}]}}
    await cluster.client.patch(Node, node, patch, content_type=MERGE_PATCH)


def test_every_node_gets_one_pod_and_a_new_one_too() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(daemon_set())
        await cluster.until(lambda: complete(cluster))
        assert places(cluster) == sorted(cluster.nodes.names)
        (pod, *_) = cluster.pods.all()
        revision = next(r for r in cluster.informers.of(ControllerRevision).all())
        hashed = revision.metadata.labels["controller-revision-hash"]
        assert pod.metadata.labels == {
            **LABELS,
            "controller-revision-hash": hashed,
            "pod-template-generation": "1",
        }
        assert revision.metadata.name == f"agent-{hashed}"
        assert len(await cluster.events("SuccessfulCreate")) == 3
        found = status(cluster)
        assert (found.current_number_scheduled, found.number_ready, found.number_misscheduled) == (3, 3, 0)
        assert found.number_unavailable is None

    simulate(scenario)


def test_a_pod_that_is_deleted_comes_back_where_it_was() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(daemon_set())
        await cluster.until(lambda: complete(cluster))
        pod = cluster.pods.all()[0]
        await cluster.client.delete(Pod, pod.metadata.name or "", "default")
        await cluster.until(
            lambda: complete(cluster) and pod.metadata.uid not in {each.metadata.uid for each in cluster.pods.all()}
        )
        assert places(cluster) == sorted(cluster.nodes.names)

    simulate(scenario)


def test_labels_of_nodes_decide_and_pods_follow_when_they_change() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(daemon_set(template={"nodeSelector": {"disk": "fast"}}))
        await cluster.until(lambda: status(cluster).observed_generation == 1)
        assert places(cluster) == []
        first, second, *_ = cluster.nodes.names
        await cluster.client.patch(Node, second, {"metadata": {"labels": {"disk": "fast"}}})
        await cluster.until(lambda: places(cluster) == [second] and complete(cluster, 1))
        await cluster.client.patch(Node, second, {"metadata": {"labels": {"disk": "slow"}}})
        await cluster.client.patch(Node, first, {"metadata": {"labels": {"disk": "fast"}}})
        await cluster.until(lambda: places(cluster) == [first] and complete(cluster, 1))

    simulate(scenario)


def test_node_affinity_is_kept_to_the_node_and_decides_where_pods_go() -> None:
    async def scenario(cluster: Cluster) -> None:
        wanted = cluster.nodes.names[1]
        term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [wanted]}]}
        affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}
        await cluster.create(daemon_set(template={"affinity": affinity}))
        await cluster.until(lambda: complete(cluster, 1))
        assert places(cluster) == [wanted]

    simulate(scenario)


def test_taints_keep_pods_away_or_drive_them_out() -> None:
    async def scenario(cluster: Cluster) -> None:
        first, second, third = cluster.nodes.names
        await taint(cluster, first, "dedicated", "NoSchedule")
        await cluster.create(daemon_set())
        await cluster.until(lambda: complete(cluster, 2))
        assert places(cluster) == sorted([second, third])
        await taint(cluster, second, "dedicated", "NoSchedule")  # one that runs may stay
        await cluster.until(lambda: status(cluster).number_misscheduled == 1)
        await cluster.clock.sleep(30)
        assert places(cluster) == sorted([second, third])
        await taint(cluster, second, "dedicated", "NoExecute")
        await cluster.until(lambda: places(cluster) == [third])
        tolerations = [{"key": "dedicated", "operator": "Exists"}]
        await change(cluster, template={"spec": {"tolerations": tolerations}})
        await cluster.until(lambda: complete(cluster))

    simulate(scenario)


def test_a_cordoned_node_and_a_lost_one_keep_their_daemons() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(daemon_set())
        await cluster.until(lambda: complete(cluster))
        cordoned, lost, _ = cluster.nodes.names
        pods = {pod.metadata.uid for pod in cluster.pods.all()}
        await cluster.client.patch(Node, cordoned, {"spec": {"unschedulable": True}})
        cluster.nodes.faults.silent_nodes.add(lost)
        await cluster.clock.sleep(900)
        assert {pod.metadata.uid for pod in cluster.pods.all()} == pods
        assert not any(pod.metadata.deletion_timestamp for pod in cluster.pods.all())
        # As upstream: a pod may stay where none would be started now.
        assert (status(cluster).desired_number_scheduled, status(cluster).number_misscheduled) == (2, 1)

    simulate(scenario)


def test_an_update_replaces_pods_within_max_unavailable() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(daemon_set(updateStrategy=rolling(maxUnavailable=2)))
        await cluster.until(lambda: complete(cluster, 6))
        ready: list[int] = []
        cluster.pods.add_handler(
            lambda old, new: ready.append(
                sum(is_ready(pod) and not pod.metadata.deletion_timestamp for pod in cluster.pods.all())
            )
        )
        await change(cluster, template=of_image("two"))
        await cluster.until(lambda: complete(cluster, 6) and images(cluster) == {"two": 6})
        assert min(ready) == 4

    simulate(scenario, nodes=6)


def test_a_surge_starts_the_new_pod_before_the_old_one_goes() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(daemon_set(updateStrategy=rolling(maxUnavailable=0, maxSurge="50%")))
        await cluster.until(lambda: complete(cluster, 4))
        ready: list[int] = []
        most: list[int] = []

        def look(old: Pod | None, new: Pod | None) -> None:
            pods = [pod for pod in cluster.pods.all() if not pod.metadata.deletion_timestamp]
            ready.append(len({node_of(pod) for pod in pods if is_ready(pod)}))
            most.append(len(pods))

        cluster.pods.add_handler(look)
        await change(cluster, template=of_image("two"))
        await cluster.until(lambda: complete(cluster, 4) and images(cluster) == {"two": 4})
        assert min(ready) == 4
        assert max(most) == 6

    simulate(scenario, nodes=4)


def test_a_broken_update_stops_and_is_rolled_back_by_the_old_template() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(daemon_set())
        await cluster.until(lambda: complete(cluster))
        cluster.nodes.faults.missing_images.add("broken")
        await change(cluster, template=of_image("broken"))
        await cluster.until(lambda: images(cluster) == {"one": 2, "broken": 1})
        await cluster.clock.sleep(120)
        assert images(cluster) == {"one": 2, "broken": 1}
        kept = {pod.metadata.uid for pod in cluster.pods.all() if is_ready(pod)}
        await change(cluster, template=of_image("one"))
        await cluster.until(lambda: complete(cluster) and images(cluster) == {"one": 3})
        assert kept < {pod.metadata.uid for pod in cluster.pods.all()}  # those that were right were left alone
        assert sorted(r.revision for r in cluster.informers.of(ControllerRevision).all()) == [2, 3]

    simulate(scenario)


def test_on_delete_leaves_the_pods_to_the_user() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(daemon_set(updateStrategy={"type": "OnDelete"}))
        await cluster.until(lambda: complete(cluster))
        await change(cluster, template=of_image("two"))
        await cluster.until(lambda: status(cluster).updated_number_scheduled is None)
        await cluster.clock.sleep(60)
        assert images(cluster) == {"one": 3}
        await cluster.client.delete(Pod, cluster.pods.all()[0].metadata.name or "", "default")
        await cluster.until(lambda: images(cluster) == {"one": 2, "two": 1})

    simulate(scenario)


@pytest.mark.parametrize(("phase", "reason"), [("Failed", "FailedDaemonPod"), ("Succeeded", "SucceededDaemonPod")])
def test_a_pod_that_ended_is_replaced_and_told_of(phase: str, reason: str) -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(daemon_set())
        await cluster.until(lambda: complete(cluster))
        pod = cluster.pods.all()[0]
        name, node = pod.metadata.name or "", node_of(pod)
        patch = {"status": {"phase": phase}}
        await cluster.client.patch(Pod, name, patch, "default", content_type=MERGE_PATCH, subresource="status")
        await cluster.until(lambda: cluster.pods.get(f"default/{name}") is None and complete(cluster))
        (message,) = await cluster.events(reason)
        verb = "kill" if phase == "Failed" else "delete"
        assert message == f"Found {phase.lower()} daemon pod default/{name} on node {node}, will try to {verb} it"

    simulate(scenario, nodes=3)


def test_pods_that_keep_failing_are_replaced_ever_more_seldom() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(daemon_set())
        await cluster.until(lambda: complete(cluster, 1))
        made: list[float] = []
        cluster.pods.add_handler(lambda old, new: made.append(cluster.clock.time_s()) if old is None else None)
        for count in range(2, 9):
            patch = {"status": {"phase": "Failed"}}
            pod = cluster.pods.all()[0]
            name = pod.metadata.name or ""
            await cluster.client.patch(Pod, name, patch, "default", content_type=MERGE_PATCH, subresource="status")
            await cluster.until(lambda count=count: len(made) == count and complete(cluster, 1))  # type: ignore[misc]
        gaps = [later - earlier for earlier, later in pairwise(made[1:])]
        assert gaps == sorted(gaps)
        assert gaps[-1] > 10 * gaps[0]

    simulate(scenario, nodes=1)


def test_a_node_that_goes_takes_its_pod_from_the_count() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(daemon_set())
        await cluster.until(lambda: complete(cluster))
        lost = cluster.nodes.names[0]
        cluster.nodes.faults.silent_nodes.add(lost)
        await cluster.client.delete(Node, lost)
        await cluster.until(lambda: complete(cluster, 2))

    simulate(scenario)


def test_pods_are_adopted_after_an_orphaning_delete() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(daemon_set())
        await cluster.until(lambda: complete(cluster))
        pods = {pod.metadata.uid for pod in cluster.pods.all()}
        await cluster.client.delete(DaemonSet, "agent", "default", propagation_policy="Orphan")
        await cluster.until(lambda: all(not pod.metadata.owner_references for pod in cluster.pods.all()))
        await cluster.create(daemon_set())
        await cluster.until(lambda: complete(cluster))
        assert {pod.metadata.uid for pod in cluster.pods.all()} == pods
        assert all(pod.metadata.owner_references for pod in cluster.pods.all())

    simulate(scenario)


def test_a_quota_that_refuses_is_told_and_the_rest_is_made_later() -> None:
    async def scenario(cluster: Cluster) -> None:
        quota = ResourceQuota(
            metadata=ObjectMeta(name="few", namespace="default"), spec=ResourceQuotaSpec(hard={"pods": "2"})
        )
        await cluster.client.create(quota)
        await cluster.create(daemon_set())
        await cluster.until(lambda: status(cluster).number_available == 2)
        messages = await cluster.events("FailedCreate")
        assert messages
        assert "exceeded quota: few" in messages[0]
        patch = [{"op": "replace", "path": "/spec/hard/pods", "value": "3"}]
        await cluster.client.patch(ResourceQuota, "few", patch, "default", content_type=JSON_PATCH)
        await cluster.until(lambda: complete(cluster), 1500)

    simulate(scenario)
