"""A pod that is ready, but not yet in the rules of every data plane, is not available, whoever counts it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from knarr.api.apps.v1 import DaemonSet, StatefulSet
from knarr.api.core.v1 import Pod, ReplicationController
from knarr.client.informer import Informer
from tests.cluster import Cluster, simulate
from tests.controllers.test_daemonset import daemon_set
from tests.controllers.test_replicaset import replica_set
from tests.controllers.test_statefulset import stateful_set

LABELS = {"app": "web"}


def replication_controller() -> ReplicationController:
    template = {"metadata": {"labels": LABELS}, "spec": {"containers": [{"name": "c", "image": "one"}]}}
    spec = {"replicas": 3, "selector": LABELS, "template": template}
    return msgspec.convert({"metadata": {"name": "web", "namespace": "default"}, "spec": spec}, ReplicationController)


async def in_service(cluster: Cluster, pod: Pod, status: str, reason: str) -> None:
    """As the agent of its node tells it."""
    condition = {"type": "knarr.dev/InService", "status": status, "reason": reason}
    patch = {"status": {"conditions": [condition]}}
    await cluster.client.patch(Pod, pod.metadata.name or "", patch, "default", subresource="status")


@pytest.mark.parametrize("min_ready_s", [0, 5])
@pytest.mark.parametrize("make", [replica_set, replication_controller, stateful_set, daemon_set])
def test_it_counts_as_ready_and_not_as_available(make: Callable[..., Any], min_ready_s: int) -> None:
    async def scenario(cluster: Cluster) -> None:
        obj = make() if make is not replica_set else replica_set(3)
        obj.spec.min_ready_seconds = min_ready_s or None
        informer: Informer[Any] = cluster.informers.of(type(obj))
        made = await cluster.create(obj)
        key = f"default/{made.metadata.name}"

        def counts() -> tuple[int, int]:
            status = informer.get(key).status  # type: ignore[union-attr]
            if isinstance(made, DaemonSet):
                return status.number_ready or 0, status.number_available or 0
            return status.ready_replicas or 0, status.available_replicas or 0

        await cluster.until(lambda: counts() == (3, 3))
        pod = cluster.pods.all()[0]
        await in_service(cluster, pod, "False", "WaitingForDataPlanes")
        await cluster.until(lambda: counts() == (3, 2), within_s=1.0)
        await in_service(cluster, pod, "True", "NotAcknowledged")
        await cluster.until(lambda: counts() == (3, 3), within_s=1.0)

    simulate(scenario, nodes=3)


def test_a_stateful_set_goes_on_with_the_next_pod_once_the_one_before_is_in_service() -> None:
    async def scenario(cluster: Cluster) -> None:
        made = await cluster.create(stateful_set(replicas=1))
        await cluster.until(lambda: cluster.ready_pods() == 1)
        await in_service(cluster, cluster.pods.all()[0], "False", "WaitingForDataPlanes")
        await cluster.clock.sleep(1.0)
        await cluster.patch(StatefulSet, made.metadata.name or "", {"spec": {"replicas": 2}})
        await cluster.clock.sleep(30.0)
        assert len(cluster.pods.all()) == 1
        await in_service(cluster, cluster.pods.all()[0], "True", "Acknowledged")
        await cluster.until(lambda: cluster.ready_pods() == 2)

    simulate(scenario, nodes=1)
