"""The scheduler in a whole cluster, in virtual time."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from knarr.api.apps.v1 import Deployment
from knarr.api.core.v1 import Node, Pod
from tests.cluster import Cluster, deployment, simulate

SMALL = {"cpu": "1", "memory": "1Gi", "pods": "110"}


def pod(name: str, cpu: str = "100m", **spec: Any) -> Pod:
    container = {"name": "c", "image": "one", "resources": {"requests": {"cpu": cpu}}}
    return msgspec.convert(
        {
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"containers": [container], **spec},
        },
        Pod,
    )


def node_of(cluster: Cluster, name: str) -> str | None:
    found = cluster.pods.get(f"default/{name}")
    return found.spec.node_name if found and found.spec else None


def scheduled(cluster: Cluster, name: str) -> tuple[str, str | None, str | None]:
    found = cluster.pods.get(f"default/{name}")
    for condition in found.status.conditions if found and found.status else ():
        if condition.type == "PodScheduled":
            return condition.status, condition.reason, condition.message
    return "", None, None


def test_a_pod_is_bound_and_told_so() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(pod("p"))
        await cluster.until(lambda: node_of(cluster, "p"), within_s=1)
        await cluster.clock.sleep(1)
        assert scheduled(cluster, "p")[0] == "True"
        assert await cluster.events("Scheduled") == [f"Successfully assigned default/p to {node_of(cluster, 'p')}"]

    simulate(scenario)


def test_a_pod_that_fits_nowhere_is_told_why_and_placed_as_soon_as_it_fits() -> None:
    async def scenario(cluster: Cluster) -> None:
        for number in range(3):
            await cluster.create(pod(f"big-{number}", "900m"))
        await cluster.until(lambda: all(node_of(cluster, f"big-{number}") for number in range(3)))
        await cluster.create(pod("late", "500m"))
        await cluster.until(lambda: scheduled(cluster, "late")[0] == "False")
        message = (
            "0/3 nodes are available: 3 Insufficient cpu. no new claims to deallocate, preemption: "
            "0/3 nodes are available: 3 No preemption victims found for incoming pod."
        )
        assert scheduled(cluster, "late") == ("False", "Unschedulable", message)
        await cluster.clock.sleep(1)
        assert await cluster.events("FailedScheduling") == [message]
        await cluster.clock.sleep(60)
        assert node_of(cluster, "late") is None
        figures = {figure.name.removeprefix("scheduler_"): figure.values for figure in cluster.scheduler.figures()}
        assert figures["schedule_attempts_total"]["default-scheduler", "scheduled"] == 3
        assert figures["schedule_attempts_total"]["default-scheduler", "unschedulable"] >= 1
        assert figures["pending_pods"] == {("active",): 0, ("backoff",): 0, ("gated",): 0, ("unschedulable",): 1}
        freed = node_of(cluster, "big-1")
        await cluster.client.delete(Pod, "big-1", "default")
        await cluster.until(lambda: node_of(cluster, "late") == freed, within_s=1)

    simulate(scenario, capacity=SMALL)


def test_a_change_of_a_node_helps_at_once_without_waiting_for_the_backoff() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(pod("p", nodeSelector={"disk": "ssd"}))
        await cluster.until(lambda: scheduled(cluster, "p")[0] == "False")
        assert "3 node(s) didn't match Pod's node affinity/selector" in (scheduled(cluster, "p")[2] or "")
        await cluster.client.patch(Node, "hollow-1", {"metadata": {"labels": {"disk": "ssd"}}})
        await cluster.until(lambda: node_of(cluster, "p") == "hollow-1", within_s=0.3)

    simulate(scenario)


def test_what_is_told_late_of_a_pod_that_has_its_node_by_then_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The writes of the scheduler wait for each other: a refusal may be written when the pod is bound already."""

    async def scenario(cluster: Cluster) -> None:
        late: list[Any] = []
        refuse = cluster.scheduler._refuse

        async def slow(*refusal: Any, **more: Any) -> None:
            late.append((refusal, more))

        monkeypatch.setattr(cluster.scheduler, "_refuse", slow)
        await cluster.create(pod("p", nodeSelector={"disk": "ssd"}))
        await cluster.until(lambda: late, within_s=1)
        await cluster.client.patch(Node, "hollow-1", {"metadata": {"labels": {"disk": "ssd"}}})
        await cluster.until(lambda: node_of(cluster, "p") == "hollow-1", within_s=1)
        await cluster.clock.sleep(1)
        (refusal, more), *_ = late
        await refuse(*refusal, **more)
        await cluster.clock.sleep(1)
        assert scheduled(cluster, "p")[0] == "True"

    simulate(scenario)


def test_gates_hold_a_pod_back_until_the_last_is_gone() -> None:
    async def scenario(cluster: Cluster) -> None:
        made = await cluster.create(pod("p", schedulingGates=[{"name": "example.com/a"}]))
        assert [(each.type, each.status, each.reason, each.message) for each in made.status.conditions] == [
            ("PodScheduled", "False", "SchedulingGated", "Scheduling is blocked due to non-empty scheduling gates")
        ]
        await cluster.clock.sleep(30)
        assert node_of(cluster, "p") is None
        patch = {"spec": {"schedulingGates": [{"$patch": "delete", "name": "example.com/a"}]}}
        await cluster.patch(Pod, "p", patch)
        await cluster.until(lambda: node_of(cluster, "p"), within_s=1)
        assert scheduled(cluster, "p")[0] == "True"

    simulate(scenario)


def test_pods_of_another_scheduler_are_left_alone() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(pod("theirs", schedulerName="other"))
        await cluster.clock.sleep(30)
        assert node_of(cluster, "theirs") is None
        assert await cluster.events("FailedScheduling") == []

    simulate(scenario)


def test_no_node_is_ever_overcommitted() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(deployment(replicas=400))
        containers = [{"name": "c", "resources": {"requests": {"cpu": "100m"}}}]
        await cluster.patch(Deployment, "web", {"spec": {"template": {"spec": {"containers": containers}}}})
        await cluster.clock.sleep(30)
        on: dict[str, int] = {}
        for one in cluster.pods.all():
            cpu = (
                one.spec.containers[0].resources.requests["cpu"] if one.spec and one.spec.containers[0].resources else 0
            )
            if one.spec and one.spec.node_name:
                on[one.spec.node_name] = on.get(one.spec.node_name, 0) + int(str(cpu).removesuffix("m"))
        assert max(on.values()) <= 1000
        assert sum(on.values()) > 9000  # and hardly anything is left unused

    simulate(scenario, nodes=10, capacity=SMALL)


def test_pods_are_spread_over_zones() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(deployment(replicas=9))
        await cluster.until(lambda: cluster.done("web"))
        zones: dict[str, int] = {}
        for one in cluster.pods.all():
            node = cluster.node_cache.get((one.spec.node_name if one.spec else None) or "")
            zone = node.metadata.labels["topology.kubernetes.io/zone"] if node else ""
            zones[zone] = zones.get(zone, 0) + 1
        assert zones == {"zone-0": 3, "zone-1": 3, "zone-2": 3}

    simulate(scenario, nodes=9, zones=3)


def test_higher_priority_goes_first() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.client.patch(Node, "hollow-0", {"spec": {"unschedulable": True}})
        await cluster.clock.sleep(1)
        await cluster.create(pod("low", "600m"))
        await cluster.create(pod("high", "600m", priorityClassName="system-cluster-critical"))
        await cluster.until(lambda: scheduled(cluster, "high")[0] == "False")
        await cluster.client.patch(Node, "hollow-0", {"spec": {"unschedulable": None}})
        await cluster.until(lambda: node_of(cluster, "high") == "hollow-0", within_s=15)
        assert node_of(cluster, "low") is None

    simulate(scenario, nodes=1, capacity=SMALL)


def test_a_pod_of_its_group_that_comes_to_the_emptiest_domain_helps_a_pod_that_must_be_spread() -> None:
    constraint = {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule"}
    constraint["labelSelector"] = {"matchLabels": {"app": "web"}}

    def web(name: str, cpu: str, **spec: Any) -> Pod:
        made = pod(name, cpu, **spec)
        made.metadata.labels = {"app": "web"}
        return made

    def on(node: str) -> dict[str, str]:
        return {"kubernetes.io/hostname": node}

    async def scenario(cluster: Cluster) -> None:
        await cluster.create(web("first", "100m", nodeSelector=on("hollow-0")))
        await cluster.create(pod("filler", "800m", nodeSelector=on("hollow-1")))
        await cluster.until(lambda: node_of(cluster, "first") and node_of(cluster, "filler"))
        await cluster.create(web("spread", "500m", topologySpreadConstraints=[constraint]))
        await cluster.until(lambda: scheduled(cluster, "spread")[0] == "False")
        await cluster.clock.sleep(30)
        assert node_of(cluster, "spread") is None
        await cluster.create(web("second", "100m", nodeSelector=on("hollow-1")))
        await cluster.until(lambda: node_of(cluster, "spread") == "hollow-0", within_s=12)

    simulate(scenario, nodes=2, zones=2, capacity=SMALL)
