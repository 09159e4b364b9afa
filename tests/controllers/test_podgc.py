"""Pods that no node will ever delete: they are failed, and go."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from knarr.api.core.pod_state import is_ready
from knarr.api.core.v1 import Node, Pod
from knarr.client.client import MERGE_PATCH
from knarr.controllers import podgc
from tests.cluster import Cluster, simulate
from tests.controllers.jobs import ended, job, status


def test_a_job_that_replaces_what_has_failed_is_not_held_up_by_a_pod_that_never_had_a_node() -> None:
    async def scenario(cluster: Cluster) -> None:
        containers = [{"name": "c", "image": "one"}]
        template = {"spec": {"restartPolicy": "Never", "containers": containers, "nodeSelector": {"no": "where"}}}
        await cluster.create(job(podReplacementPolicy="Failed", template=template, backoffLimit=0))
        await cluster.until(lambda: len(cluster.pods.all()) == 1)
        (pod,) = cluster.pods.all()
        await cluster.client.delete(Pod, pod.metadata.name or "", "default")
        await cluster.until(lambda: ended(cluster) == "Failed")
        assert status(cluster)["failed"] == 1
        await cluster.until(lambda: not cluster.pods.all())

    simulate(scenario)


def bare(name: str, **spec: Any) -> Pod:
    containers = [{"name": "c", "image": "one"}]
    return msgspec.convert(
        {"metadata": {"name": name, "namespace": "default"}, "spec": {"containers": containers, **spec}}, Pod
    )


def names(cluster: Cluster) -> set[str]:
    return {pod.metadata.name or "" for pod in cluster.pods.all()}


def test_pods_that_are_going_on_a_silent_node_go_when_it_is_declared_out_of_service() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(bare("going"))
        await cluster.create(bare("staying", tolerations=[{"operator": "Exists"}]))
        await cluster.until(lambda: all(map(is_ready, cluster.pods.all())))
        cluster.nodes.faults.silent_nodes.add("hollow-0")
        await cluster.client.delete(Pod, "going", "default")
        await cluster.clock.sleep(120)
        taint = {"key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute"}
        assert names(cluster) == {"going", "staying"}
        node = await cluster.client.get(Node, "hollow-0")
        assert node.spec
        taints = [*msgspec.to_builtins(node.spec.taints), taint]
        await cluster.client.patch(Node, "hollow-0", {"spec": {"taints": taints}}, content_type=MERGE_PATCH)
        await cluster.until(lambda: names(cluster) == {"staying"})
        await cluster.client.delete(Pod, "staying", "default")
        await cluster.until(lambda: not names(cluster))

    simulate(scenario, nodes=1)


def test_a_node_that_works_keeps_its_pods_though_it_is_declared_out_of_service() -> None:
    async def scenario(cluster: Cluster) -> None:
        taint = {"key": "node.kubernetes.io/out-of-service", "effect": "NoSchedule"}
        await cluster.create(bare("going", terminationGracePeriodSeconds=30))
        await cluster.until(lambda: all(map(is_ready, cluster.pods.all())) and cluster.pods.all())
        await cluster.client.patch(Node, "hollow-0", {"spec": {"taints": [taint]}}, content_type=MERGE_PATCH)
        cluster.nodes.faults.silent_nodes.add("hollow-0")
        await cluster.client.delete(Pod, "going", "default")
        await cluster.clock.sleep(20)
        assert names(cluster) == {"going"}

    simulate(scenario, nodes=1)


def test_of_pods_that_have_ended_only_so_many_stay_the_evicted_and_the_oldest_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(podgc, "TERMINATED_MAX", 2)

    async def scenario(cluster: Cluster) -> None:
        await cluster.create(bare("running"))
        for number, told in enumerate(
            ({"phase": "Succeeded"}, {"phase": "Failed"}, {"phase": "Failed", "reason": "Evicted"}, {"phase": "Failed"})
        ):
            await cluster.create(bare(f"ended-{number}", schedulerName="nobody"))
            patch = {"status": told}
            await cluster.client.patch(
                Pod, f"ended-{number}", patch, "default", content_type=MERGE_PATCH, subresource="status"
            )
            await cluster.clock.sleep(2)
        await cluster.until(lambda: names(cluster) == {"running", "ended-1", "ended-3"})

    simulate(scenario)
