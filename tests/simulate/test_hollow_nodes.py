"""Hollow nodes: pods come up in their time, and faults show as they would."""

from __future__ import annotations

import pytest

from knarr.api.core.v1 import Pod
from knarr.simulate.nodes import Faults
from tests.cluster import Cluster, deployment, simulate


def state(pod: Pod) -> tuple[str | None, str | None, int]:
    """Phase, why it waits, restarts."""
    assert pod.status is not None
    (container,) = pod.status.container_statuses
    waiting = container.state.waiting if container.state else None
    return pod.status.phase, waiting.reason if waiting else None, container.restart_count


def test_pods_become_ready_after_their_delay_with_addresses_of_their_own() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(deployment(replicas=20))
        took_s = await cluster.until(lambda: cluster.ready_pods() == 20)
        assert 5 <= took_s <= 8.5
        assert len({pod.status.pod_ip for pod in cluster.pods.all() if pod.status}) == 20

    simulate(scenario, start_s=(5, 8))


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("missing", ("Pending", "ImagePullBackOff", 0)),
        ("crashing", ("Running", "CrashLoopBackOff", 1)),
        ("unready", ("Running", None, 0)),
    ],
)
def test_faulty_images(image: str, expected: tuple[str, str | None, int]) -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(deployment(replicas=1, image=image))
        await cluster.until(lambda: any(pod.status and pod.status.container_statuses for pod in cluster.pods.all()))
        assert state(cluster.pods.all()[0]) == expected
        assert cluster.ready_pods() == 0

    faults = Faults(missing_images={"missing"}, crashing_images={"crashing"}, unready_images={"unready"})
    simulate(scenario, faults=faults)


def test_a_crash_restarts_the_containers_in_place() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(deployment(replicas=1))
        await cluster.until(lambda: cluster.done("web"))
        (pod,) = cluster.pods.all()
        await cluster.nodes.crash(f"default/{pod.metadata.name}")
        await cluster.clock.sleep(1)
        (after,) = cluster.pods.all()
        assert after.metadata.uid == pod.metadata.uid
        assert state(after) == ("Running", None, 1)

    simulate(scenario)


def test_deleted_pods_are_gone_after_their_delay() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(deployment(replicas=1))
        await cluster.until(lambda: cluster.done("web"))
        (pod,) = cluster.pods.all()
        await cluster.client.delete(Pod, pod.metadata.name or "", "default")
        key = f"default/{pod.metadata.name}"
        assert 9.9 <= await cluster.until(lambda: cluster.pods.get(key) is None) <= 10.3

    simulate(scenario, stop_s=(10, 10))
