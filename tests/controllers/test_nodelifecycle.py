"""A node falls silent, comes back, or vanishes; what becomes of it and of its pods."""

from __future__ import annotations

from knarr.api.core.v1 import Node, Pod
from knarr.api.meta.v1 import ObjectMeta
from knarr.controllers.nodelifecycle import NODE_SILENT_S
from tests.cluster import Cluster, deployment, simulate


def ready(cluster: Cluster, name: str) -> str:
    node = cluster.node_cache.get(name)
    conditions = node.status.conditions if node and node.status else []
    return next((c.status for c in conditions if c.type == "Ready"), "")


def taints(cluster: Cluster, name: str) -> list[str]:
    node = cluster.node_cache.get(name)
    return [f"{taint.key}:{taint.effect}" for taint in (node.spec.taints if node and node.spec else [])]


def on(cluster: Cluster, name: str) -> list[Pod]:
    return [pod for pod in cluster.pods.all() if pod.spec and pod.spec.node_name == name]


def test_a_silent_node_is_noticed_and_its_pods_move_after_five_minutes() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(deployment(replicas=6))
        await cluster.until(lambda: cluster.done("web"))
        assert ready(cluster, "hollow-0") == "True"
        cluster.nodes.faults.silent_nodes.add("hollow-0")
        took_s = await cluster.until(lambda: ready(cluster, "hollow-0") == "Unknown")
        assert NODE_SILENT_S - 10 <= took_s <= NODE_SILENT_S + 1
        await cluster.until(lambda: len(taints(cluster, "hollow-0")) == 2, within_s=1)
        assert sorted(taints(cluster, "hollow-0")) == [
            "node.kubernetes.io/unreachable:NoExecute",
            "node.kubernetes.io/unreachable:NoSchedule",
        ]
        # They get no traffic at once, and are replaced when their toleration has run out.
        await cluster.until(lambda: cluster.ready_pods() == 4, within_s=1)
        took_s = await cluster.until(
            lambda: all(pod.metadata.deletion_timestamp for pod in on(cluster, "hollow-0")), within_s=400
        )
        assert 295 <= took_s <= 302
        await cluster.until(lambda: cluster.ready_pods() == 6, within_s=5)
        assert all(
            not pod.metadata.deletion_timestamp for name in ("hollow-1", "hollow-2") for pod in on(cluster, name)
        )
        assert "Node hollow-0 status is now: NodeNotReady" in await cluster.events("NodeNotReady")

    simulate(scenario)


def test_a_node_that_comes_back_in_time_keeps_its_pods() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(deployment(replicas=3))
        await cluster.until(lambda: cluster.done("web"))
        before = {pod.metadata.uid for pod in cluster.pods.all()}
        cluster.nodes.faults.silent_nodes.add("hollow-0")
        await cluster.until(lambda: ready(cluster, "hollow-0") == "Unknown")
        await cluster.clock.sleep(100)
        cluster.nodes.faults.silent_nodes.clear()
        condition = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
        await cluster.client.patch(Node, "hollow-0", {"status": {"conditions": [condition]}}, subresource="status")
        await cluster.until(lambda: taints(cluster, "hollow-0") == [], within_s=1)
        await cluster.clock.sleep(600)
        assert {pod.metadata.uid for pod in cluster.pods.all()} == before
        assert ready(cluster, "hollow-0") == "True"
        cancelled = await cluster.events("TaintManagerEviction")
        assert [message.partition(" of ")[0] for message in cancelled] == ["Cancelling deletion"]

    simulate(scenario)


def test_heartbeats_alone_keep_a_node_ready_for_a_day() -> None:
    async def scenario(cluster: Cluster) -> None:
        before = cluster.node_cache.get("hollow-0")
        await cluster.clock.sleep(24 * 3600)
        assert cluster.node_cache.get("hollow-0") == before

    simulate(scenario, nodes=1)


def test_that_a_node_came_and_went_is_told() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.client.create(Node(metadata=ObjectMeta(name="new")))
        await cluster.until(lambda: cluster.node_cache.get("new"))
        await cluster.clock.sleep(5)
        await cluster.client.delete(Node, "new")
        await cluster.clock.sleep(5)
        assert "Node new event: Registered Node new in Controller" in await cluster.events("RegisteredNode")
        assert await cluster.events("RemovingNode") == ["Node new event: Removing Node new from Controller"]

    simulate(scenario)


def test_a_cordoned_node_has_the_taint_and_gets_no_pods() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.client.patch(Node, "hollow-0", {"spec": {"unschedulable": True}})
        await cluster.until(lambda: taints(cluster, "hollow-0") == ["node.kubernetes.io/unschedulable:NoSchedule"])
        await cluster.create(deployment(replicas=6))
        await cluster.until(lambda: cluster.done("web"))
        assert on(cluster, "hollow-0") == []
        await cluster.client.patch(Node, "hollow-0", {"spec": {"unschedulable": None}})
        await cluster.until(lambda: taints(cluster, "hollow-0") == [])

    simulate(scenario)


def test_pods_of_a_node_that_vanished_are_failed_and_replaced() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(deployment(replicas=3))
        await cluster.until(lambda: cluster.done("web"))
        lost = {pod.metadata.uid for pod in on(cluster, "hollow-0")}
        assert lost
        cluster.nodes.faults.silent_nodes.add("hollow-0")
        await cluster.client.delete(Node, "hollow-0")
        await cluster.until(lambda: not on(cluster, "hollow-0"), within_s=60)
        await cluster.until(lambda: cluster.ready_pods() == 3, within_s=5)

    simulate(scenario)


def test_a_user_s_no_execute_taint_drives_out_those_who_do_not_tolerate_it() -> None:
    async def scenario(cluster: Cluster) -> None:
        tolerant = [{"key": "drain", "operator": "Exists", "effect": "NoExecute"}]
        await cluster.create(deployment("stays", replicas=3, template={"tolerations": tolerant}))
        await cluster.create(deployment("goes", replicas=3))
        await cluster.until(lambda: cluster.done("stays") and cluster.done("goes"))
        stays = {pod.metadata.uid for pod in on(cluster, "hollow-0") if pod.metadata.labels["app"] == "stays"}
        taint = {"key": "drain", "value": "", "effect": "NoExecute"}
        await cluster.client.patch(Node, "hollow-0", {"spec": {"taints": [taint]}})
        await cluster.until(lambda: {pod.metadata.uid for pod in on(cluster, "hollow-0")} == stays, within_s=5)
        await cluster.until(lambda: cluster.done("goes"))

    simulate(scenario)
