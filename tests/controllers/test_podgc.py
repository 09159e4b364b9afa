"""Pods that no node will ever delete: they are failed, and go."""

from __future__ import annotations

from knarr.api.core.v1 import Pod
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
