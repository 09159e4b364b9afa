"""Many nodes fail at once: how fast their pods are driven out, zone by zone."""

from __future__ import annotations

import pytest

from knarr.api.core.v1 import Node
from knarr.api.meta.v1 import ObjectMeta
from knarr.controllers.nodezones import EXCLUDED, Limit, State, Zones, rate_per_s, state_of, zone_of
from tests.cluster import Cluster, deployment, simulate
from tests.controllers.test_nodelifecycle import ready, taints

UNREACHABLE = "node.kubernetes.io/unreachable:NoExecute"


@pytest.mark.parametrize(
    ("good", "bad", "state"),
    [
        (0, 0, State.NORMAL),
        (1, 0, State.NORMAL),
        (0, 1, State.FULL),
        (0, 9, State.FULL),
        (1, 2, State.NORMAL),
        (2, 3, State.PARTIAL),
        (3, 3, State.NORMAL),
        (45, 55, State.PARTIAL),
        (46, 54, State.NORMAL),
    ],
)
def test_a_zone_is_disrupted_when_most_of_at_least_three_nodes_are_lost(good: int, bad: int, state: State) -> None:
    assert state_of(good, bad) is state


@pytest.mark.parametrize(
    ("state", "size", "rate"),
    [
        (State.NORMAL, 1, 0.1),
        (State.FULL, 1, 0.1),
        (State.PARTIAL, 50, 0.0),
        (State.PARTIAL, 51, 0.01),
    ],
)
def test_large_zones_are_slow_and_small_ones_stop(state: State, size: int, rate: float) -> None:
    assert rate_per_s(state, size) == rate


def test_a_limit_lets_one_through_and_a_new_rate_does_not_free_who_waits() -> None:
    limit = Limit()
    assert limit.left_s(100.0) == 0.0
    limit.take(100.0)
    assert limit.left_s(104.0) == 6.0
    limit.change(0.01, 104.0)
    assert limit.left_s(104.0) == 100.0
    limit.change(0.0, 110.0)
    assert limit.left_s(1000.0) is None
    limit.change(0.1, 1000.0)
    assert limit.left_s(1000.0) == 10.0


def node(name: str, **labels: str) -> Node:
    return Node(metadata=ObjectMeta(name=name, labels={key.replace("_", "/"): value for key, value in labels.items()}))


def test_zones_are_named_by_region_and_zone_and_nodes_may_be_excluded() -> None:
    labels = {"topology.kubernetes.io/region": "eu", "failure-domain.beta.kubernetes.io/zone": "b"}
    assert zone_of(node("a", **labels)) == "eu/b"
    assert zone_of(node("a")) == "/"
    zones = Zones()
    zones.note("a", node("a"), False)
    assert zones.settle(0.0)
    assert zones.all_lost
    zones.note("a", node("a", **{EXCLUDED: ""}), False)
    assert zones.settle(0.0)
    assert not zones.all_lost
    assert not zones.settle(0.0), "nothing has changed"


def driven(cluster: Cluster) -> set[str]:
    """Nodes that pods have to leave."""
    return {name for name in cluster.nodes.names if UNREACHABLE in taints(cluster, name)}


def lost(cluster: Cluster) -> int:
    return sum(ready(cluster, name) == "Unknown" for name in cluster.nodes.names)


def in_zone(cluster: Cluster, zone: int, zones: int = 2) -> list[str]:
    return [name for number, name in enumerate(cluster.nodes.names) if number % zones == zone]


def test_nodes_of_a_zone_are_driven_out_one_every_ten_seconds() -> None:
    async def scenario(cluster: Cluster) -> None:
        cluster.nodes.faults.silent_nodes.update(in_zone(cluster, 0)[:3], in_zone(cluster, 1)[:1])
        await cluster.until(lambda: lost(cluster) == 4)
        for count in (2, 3, 4):
            await cluster.until(lambda count=count: len(driven(cluster)) == count, within_s=10.5)
            await cluster.clock.sleep(9 if count < 4 else 0)
            assert len(driven(cluster)) == count, "each zone by itself"

    simulate(scenario, nodes=16, zones=2)


def test_a_small_zone_that_is_mostly_lost_keeps_its_pods_and_another_does_not() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(deployment(replicas=24))
        await cluster.until(lambda: cluster.done("web"))
        cluster.nodes.faults.silent_nodes.update(in_zone(cluster, 0)[:4])
        await cluster.until(lambda: lost(cluster) == 4)
        first = driven(cluster)
        assert len(first) <= 1, "before it was clear"
        other = in_zone(cluster, 1)[0]
        cluster.nodes.faults.silent_nodes.add(other)
        await cluster.until(lambda: other in driven(cluster))
        await cluster.clock.sleep(600)
        assert driven(cluster) == first | {other}
        ended = {pod.spec.node_name for pod in cluster.pods.all() if pod.spec and pod.metadata.deletion_timestamp}
        assert ended == first | {other}
        # One is back: the zone is as it should be, and those that are still lost are driven out in turn.
        back = next(name for name in in_zone(cluster, 0)[:4] if name not in first)
        await come_back(cluster, back)
        await cluster.until(lambda: len(driven(cluster)) == 4, within_s=40)

    simulate(scenario, nodes=12, zones=2)


async def come_back(cluster: Cluster, name: str) -> None:
    cluster.nodes.faults.silent_nodes.discard(name)
    condition = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
    await cluster.client.patch(Node, name, {"status": {"conditions": [condition]}}, subresource="status")


def test_when_every_node_is_lost_no_pod_is_driven_out() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(deployment(replicas=6))
        await cluster.until(lambda: cluster.done("web"))
        before = {pod.metadata.uid for pod in cluster.pods.all()}
        cluster.nodes.faults.silent_nodes.update(cluster.nodes.names)
        await cluster.until(lambda: lost(cluster) == 3)
        await cluster.until(lambda: not driven(cluster), within_s=1)
        assert all("unreachable:NoSchedule" in str(taints(cluster, name)) for name in cluster.nodes.names)
        await cluster.clock.sleep(1000)
        assert not driven(cluster)
        assert not any(pod.metadata.deletion_timestamp for pod in cluster.pods.all())
        await come_back(cluster, "hollow-1")
        for count, least_s in ((1, 9), (2, 9)):
            took_s = await cluster.until(lambda count=count: len(driven(cluster)) == count, within_s=11)
            assert took_s >= least_s
        assert driven(cluster) == {"hollow-0", "hollow-2"}
        assert {pod.metadata.uid for pod in cluster.pods.all()} == before

    simulate(scenario)
