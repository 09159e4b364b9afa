"""Pods that a node can't have, whoever gave them to it: they have failed, with upstream's reasons and messages."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from knarr.api.core.v1 import Node, Pod, PodSpec
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.quantity import whole
from knarr.api.scheduling.resources import SYSTEM
from knarr.api.scheduling.v1 import PriorityClass
from knarr.client.client import MERGE_PATCH
from knarr.node.admission import Rejection, rejection
from knarr.node.room import NoRoom, who_gives_way
from tests.node.cluster import NODE, NodeCluster, pod
from tests.node.test_pod_life import simulate


def asking(**amounts: str) -> Pod:
    return pod("p", {"resources": {"requests": amounts}})


def port(number: int, address: str = "", name: str = "p") -> Pod:
    return pod(name, {"ports": [{"containerPort": 80, "hostPort": number, "hostIP": address}]})


CAPACITY = {"cpu": "2", "memory": "1Gi", "pods": "3"}
HERE = msgspec.convert({"metadata": {"name": NODE, "labels": {"zone": "a"}}}, Node)
PORTS = Rejection("NodePorts", "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports")


@pytest.mark.parametrize(
    ("wanted", "others", "expected"),
    [
        (pod("p"), [pod("q")] * 2, None),
        (
            pod("p"),
            [pod("q")] * 3,
            Rejection("OutOfpods", "Node didn't have enough resource: pods, requested: 1, used: 3, capacity: 3"),
        ),
        (
            asking(cpu="1500m"),
            [asking(cpu="600m")],
            Rejection("OutOfcpu", "Node didn't have enough resource: cpu, requested: 1500, used: 600, capacity: 2000"),
        ),
        (asking(cpu="1400m"), [asking(cpu="600m")], None),
        (
            asking(memory="2Gi"),
            [],
            Rejection(
                "OutOfmemory",
                "Node didn't have enough resource: memory, requested: 2147483648, used: 0, capacity: 1073741824",
            ),
        ),
        (asking(**{"example.com/unknown": "1"}), [], None),
        (pod("p", nodeSelector={"zone": "a"}), [], None),
        (
            pod("p", nodeSelector={"zone": "b"}),
            [],
            Rejection(
                "NodeAffinity",
                "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
                doubtful=True,
            ),
        ),
        (port(80), [port(81)], None),
        (port(80), [port(80)], PORTS),
        (port(80, "192.0.2.1"), [port(80)], PORTS),
        (port(80, "192.0.2.1"), [port(80, "192.0.2.2")], None),
    ],
)
def test_what_a_node_can_not_have(wanted: Pod, others: list[Pod], expected: Rejection | None) -> None:
    assert rejection(wanted, [each.spec or PodSpec() for each in others], CAPACITY, HERE) == expected


MIB = 1 << 20


def bulky(name: str, cpu: str = "", memory: str = "", *, limited: bool = False, priority: int = 0) -> Pod:
    amounts = {key: amount for key, amount in (("cpu", cpu), ("memory", memory)) if amount}
    container = {"resources": {"requests": amounts, **({"limits": amounts} if limited else {})}} if amounts else {}
    return pod(name, container, **({"priority": priority} if priority else {}))


OTHERS = [
    bulky("best effort"),
    bulky("burstable", "100m", "100Mi"),
    bulky("large burstable", "300m", "300Mi"),
    bulky("guaranteed", "100m", "100Mi", limited=True),
    bulky("large guaranteed", "300m", "300Mi", limited=True),
    bulky("critical", "1", "1Gi", priority=2_000_000_000),
]


@pytest.mark.parametrize(
    ("lacking", "expected"),
    [
        ({"pods": 1}, ["best effort"]),
        ({"cpu": 100}, ["burstable"]),
        ({"cpu": 101}, ["large burstable"]),
        ({"cpu": 301}, ["large burstable", "burstable"]),
        ({"cpu": 401}, ["large burstable", "burstable", "guaranteed"]),
        ({"memory": 550 * MIB}, ["large burstable", "large guaranteed"]),
        ({"cpu": 50, "memory": 250 * MIB}, ["large burstable"]),
        ({"pods": 2}, ["best effort", "burstable"]),
    ],
)
def test_who_gives_way_to_a_critical_pod(lacking: dict[str, int], expected: list[str]) -> None:
    chosen = who_gives_way(bulky("new", priority=2_000_001_000), OTHERS[:5], lacking)
    assert [each.metadata.name for each in chosen] == expected


def test_critical_pods_give_way_to_more_important_ones_only() -> None:
    with pytest.raises(NoRoom, match=r"no set of running pods found to reclaim resources: \[\(res: cpu, q: 700\), \]$"):
        who_gives_way(bulky("new", priority=2_000_000_000), OTHERS, {"cpu": 1500})
    chosen = who_gives_way(bulky("new", priority=2_000_001_000), OTHERS[-1:], {"cpu": 1})
    assert [each.metadata.name for each in chosen] == ["critical"]


def test_others_end_for_a_critical_pod(tmp_path: Path) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        for name, value in SYSTEM.items():
            await cluster.client.create(PriorityClass(metadata=ObjectMeta(name=name), value=value))
        half = whole(cluster.agent._object.capacity["memory"]) // 2
        await cluster.create(bulky("kept", "10m", str(half // 8), limited=True))
        await cluster.create(bulky("large", memory=str(half)))
        await cluster.until(lambda: cluster.phase("large") == cluster.phase("kept") == "Running")
        amounts = {"resources": {"requests": {"memory": str(half + half // 8)}}}
        for name in ("critical", "too-late"):  # at once: what the first one waits for isn't the second one's
            await cluster.create(pod(name, amounts, priorityClassName="system-node-critical"))
        await cluster.until(lambda: cluster.phase("critical") == "Running")
        await cluster.until(lambda: cluster.phase("large") == "Failed")
        ended = cluster.get("large")
        assert ended is not None
        assert ended.status is not None
        assert (ended.status.phase, ended.status.reason) == ("Failed", "Preempting")
        assert ended.status.message == "Preempted in order to admit critical pod"
        (told,) = [each for each in ended.status.conditions if each.type == "DisruptionTarget"]
        assert (told.status, told.reason) == ("True", "TerminationByKubelet")
        assert ("Preempting", "Preempted in order to admit critical pod") in await cluster.events("large")
        assert cluster.phase("kept") == "Running"

        amounts = {"resources": {"requests": {"memory": str(4 * half)}}}
        await cluster.create(pod("second", amounts, priorityClassName="system-cluster-critical"))
        await cluster.until(lambda: cluster.phase("second") == "Failed")
        refused = cluster.get("second")
        assert refused is not None
        assert refused.status is not None
        assert refused.status.reason == "UnexpectedAdmissionError"
        assert cluster.phase("too-late") == "Failed"
        assert cluster.phase("kept") == "Running"  # nobody ends for what would not come of it

    simulate(scenario, tmp_path)


def test_one_that_takes_the_name_of_a_critical_pod_that_waited_is_begun_once(tmp_path: Path) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        for name, value in SYSTEM.items():
            await cluster.client.create(PriorityClass(metadata=ObjectMeta(name=name), value=value))
        half = whole(cluster.agent._object.capacity["memory"]) // 2
        await cluster.create(bulky("large", memory=str(half)))
        await cluster.until(lambda: cluster.phase("large") == "Running")
        amounts = {"resources": {"requests": {"memory": str(half + half // 8)}}}
        await cluster.create(pod("critical", amounts, priorityClassName="system-node-critical"))
        await cluster.until(lambda: cluster.agent._awaiting_room)
        await cluster.delete("critical", 0)
        another = await cluster.create(bulky("critical", memory="1Mi"))
        uid = another.metadata.uid or ""
        await cluster.until(lambda: uid in cluster.agent._workers)
        begun = cluster.agent._workers[uid]
        assert cluster.agent._awaiting_room
        await cluster.until(lambda: not cluster.agent._awaiting_room)
        assert cluster.agent._workers[uid] is begun

    simulate(scenario, tmp_path)


def test_a_pod_that_does_not_fit_fails_and_can_be_deleted(tmp_path: Path) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        await cluster.create(port(8080, name="first"))
        await cluster.until(lambda: cluster.phase("first") == "Running")
        await cluster.create(port(8080, name="second"))
        await cluster.until(lambda: cluster.phase("second") == "Failed")
        await cluster.clock.sleep(5)
        found = cluster.get("second")
        assert found is not None
        assert found.status is not None
        assert (found.status.reason, found.status.message) == ("NodePorts", f"Pod was rejected: {PORTS.message}")
        # Nothing is said of containers: kubectl shows the reason.
        assert not found.status.container_statuses
        assert await cluster.events("second") == [("NodePorts", PORTS.message)]
        assert cluster.phase("first") == "Running"
        await cluster.delete("second")
        await cluster.until(lambda: cluster.get("second") is None)
        await cluster.delete("first", grace_s=1)
        await cluster.until(lambda: cluster.get("first") is None)
        await cluster.create(port(8080, name="third"))
        await cluster.until(lambda: cluster.phase("third") == "Running")

    simulate(scenario, tmp_path)


def test_labels_that_the_node_got_later_count(tmp_path: Path) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        patch = {"metadata": {"labels": {"zone": "late"}}}
        await cluster.client.patch(Node, NODE, patch, content_type=MERGE_PATCH)
        await cluster.pod("p", nodeSelector={"zone": "late"})
        await cluster.until(lambda: cluster.phase("p") == "Running")
        await cluster.pod("q", nodeSelector={"zone": "never"})
        await cluster.until(lambda: cluster.phase("q") == "Failed")

    simulate(scenario, tmp_path)


def test_a_rejection_that_can_not_be_written_is_written_later(tmp_path: Path) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        cluster.door.refused = "/status"
        await cluster.pod("p", {"resources": {"requests": {"cpu": "100"}}})
        await cluster.clock.sleep(12)
        assert cluster.phase("p") == "Pending"
        cluster.door.refused = ""
        await cluster.until(lambda: cluster.phase("p") == "Failed")
        assert await cluster.runtime.containers() == []

    simulate(scenario, tmp_path)
