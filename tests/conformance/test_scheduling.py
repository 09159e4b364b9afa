"""sig-scheduling: pods go where there is room and where they want to be, and the important ones make room."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from knarr.api.apps.v1 import ReplicaSet
from knarr.api.core.v1 import Node, Pod
from knarr.api.errors import Invalid
from knarr.api.scheduling.v1 import PriorityClass
from knarr.api.types import replace
from knarr.client.client import MERGE_PATCH
from tests.cluster import Cluster, simulate
from tests.conformance.workloads import pod
from tests.scheduler.test_scheduler import node_of, scheduled

EXTENDED = "scheduling.k8s.io/foo"
CAPACITY = {"cpu": "10", "memory": "8Gi", "pods": "110"}
SCARCE = {**CAPACITY, EXTENDED: "5"}


def asking(name: str, amount: str, resource: str = EXTENDED, **more: Any) -> Pod:
    """A pod that requests as much of a resource as it is limited to."""
    finalizers = more.pop("finalizers", None)
    resources = {"requests": {resource: amount}, "limits": {resource: amount}}
    return pod(name, finalizers=finalizers, container={"resources": resources}, **more)


async def priority_class(cluster: Cluster, name: str, value: int) -> PriorityClass:
    return await cluster.create(msgspec.convert({"metadata": {"name": name}, "value": value}, PriorityClass))


async def placed(cluster: Cluster, *pods: Pod) -> None:
    for each in pods:
        await cluster.create(each)
    await cluster.until(lambda: all(node_of(cluster, each.metadata.name or "") for each in pods))


def condition(cluster: Cluster, name: str, type_: str) -> tuple[str, str | None] | None:
    found = cluster.pods.get(f"default/{name}")
    conditions = found.status.conditions if found and found.status else []
    return next(((each.status, each.reason) for each in conditions if each.type == type_), None)


def test_a_pod_that_asks_for_more_than_is_left_anywhere_waits() -> None:
    """[sig-scheduling] SchedulerPredicates [Serial] validates resource limits of pods that are allowed to run"""

    async def scenario(cluster: Cluster) -> None:
        await placed(cluster, *(asking(f"filler-{number}", "7", "cpu") for number in range(3)))
        await cluster.create(asking("additional", "5", "cpu"))
        await cluster.until(lambda: scheduled(cluster, "additional")[0] == "False")
        assert scheduled(cluster, "additional")[1] == "Unschedulable"
        (message,) = await cluster.events("FailedScheduling")
        assert message.startswith("0/3 nodes are available: 3 Insufficient cpu.")
        assert node_of(cluster, "additional") is None

    simulate(scenario, capacity=CAPACITY)


def test_a_selector_that_no_node_matches_keeps_a_pod_waiting() -> None:
    """[sig-scheduling] SchedulerPredicates [Serial] validates that NodeSelector is respected if not matching"""

    async def scenario(cluster: Cluster) -> None:
        await cluster.create(pod("restricted", nodeSelector={"label": "nonempty"}))
        await cluster.until(lambda: scheduled(cluster, "restricted")[0] == "False")
        (message,) = await cluster.events("FailedScheduling")
        assert message.startswith("0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector.")
        assert node_of(cluster, "restricted") is None

    simulate(scenario)


def test_a_selector_that_one_node_matches_leads_there() -> None:
    """[sig-scheduling] SchedulerPredicates [Serial] validates that NodeSelector is respected if matching"""

    async def scenario(cluster: Cluster) -> None:
        await cluster.patch(Node, "hollow-2", {"metadata": {"labels": {"kubernetes.io/e2e-42": "42"}}})
        await placed(cluster, *(pod(f"p{number}", nodeSelector={"kubernetes.io/e2e-42": "42"}) for number in range(5)))
        assert {node_of(cluster, f"p{number}") for number in range(5)} == {"hollow-2"}

    simulate(scenario)


def test_a_port_of_every_address_is_taken_for_each_address() -> None:
    """[sig-scheduling] SchedulerPredicates [Serial] validates that there exists conflict between pods with same
    hostPort and protocol but one using 0.0.0.0 hostIP
    """

    def listening(name: str, address: str) -> Pod:
        ports = [{"containerPort": 80, "hostPort": 54322, "protocol": "TCP", "hostIP": address}]
        selector = {"kubernetes.io/hostname": "hollow-0"}
        return pod(name, container={"ports": ports}, nodeSelector=selector)

    async def scenario(cluster: Cluster) -> None:
        await placed(cluster, listening("everywhere", ""))
        await cluster.create(listening("here", "10.32.0.1"))
        await cluster.until(lambda: scheduled(cluster, "here")[0] == "False")
        assert "1 node(s) didn't have free ports for the requested pod ports" in (scheduled(cluster, "here")[2] or "")

    simulate(scenario)


def test_an_important_pod_takes_the_place_of_the_least_important() -> None:
    """[sig-scheduling] SchedulerPreemption [Serial] validates basic preemption works"""

    async def scenario(cluster: Cluster) -> None:
        for name, value in (("low", 1), ("medium", 100), ("high", 1000)):
            await priority_class(cluster, name, value)
        await cluster.clock.sleep(1)
        places = [{"kubernetes.io/hostname": f"hollow-{number // 2}"} for number in range(4)]
        victim, *others = (
            asking(f"p{number}", "2", nodeSelector=place, priorityClassName="medium" if number else "low")
            for number, place in enumerate(places)
        )
        await placed(cluster, victim, *others)
        await placed(cluster, asking("preemptor", "2", priorityClassName="high", nodeSelector=places[0]))
        assert cluster.pods.get("default/p0") is None
        assert all(node_of(cluster, f"p{number}") for number in (1, 2, 3))

    simulate(scenario, nodes=2, capacity=SCARCE)


def test_a_critical_pod_takes_the_place_of_another() -> None:
    """[sig-scheduling] SchedulerPreemption [Serial] validates lower priority pod preemption by critical pod"""

    async def scenario(cluster: Cluster) -> None:
        for name, value in (("low", 1), ("medium", 100)):
            await priority_class(cluster, name, value)
        await cluster.clock.sleep(1)
        await placed(cluster, *(asking(f"low-{number}", "2", priorityClassName="low") for number in range(1)))
        await placed(cluster, *(asking(f"medium-{number}", "2", priorityClassName="medium") for number in range(3)))
        await placed(cluster, asking("critical", "2", priorityClassName="system-cluster-critical"))
        assert cluster.pods.get("default/low-0") is None
        assert all(node_of(cluster, f"medium-{number}") for number in range(3))

    simulate(scenario, nodes=2, capacity=SCARCE)


def test_who_gives_way_is_told_so_by_a_condition() -> None:
    """[sig-scheduling] SchedulerPreemption [Serial] validates pod disruption condition is added to the preempted pod"""

    async def scenario(cluster: Cluster) -> None:
        await priority_class(cluster, "high", 1000)
        await cluster.clock.sleep(1)
        await placed(cluster, asking("victim", "5", finalizers=["example.com/test-finalizer"]))
        await cluster.create(asking("preemptor", "5", priorityClassName="high"))

        def ending() -> bool:
            found = cluster.pods.get("default/victim")
            return found is not None and found.metadata.deletion_timestamp is not None

        await cluster.until(ending)
        assert condition(cluster, "victim", "DisruptionTarget") == ("True", "PreemptionByScheduler")
        await cluster.patch(Pod, "victim", {"metadata": {"finalizers": None}})
        await cluster.until(lambda: node_of(cluster, "preemptor"))
        assert cluster.pods.get("default/victim") is None

    simulate(scenario, nodes=1, capacity=SCARCE)


def test_of_four_levels_the_highest_takes_from_the_lowest_only() -> None:
    """[sig-scheduling] SchedulerPreemption [Serial] PreemptionExecutionPath runs ReplicaSets to verify preemption
    running path
    """

    def replicas(name: str, count: int, amount: str) -> ReplicaSet:
        resources = {"requests": {EXTENDED: amount}, "limits": {EXTENDED: amount}}
        container = {"name": "c", "image": "one", "resources": resources}
        spec = {
            "replicas": count,
            "selector": {"matchLabels": {"name": name}},
            "template": {
                "metadata": {"labels": {"name": name}},
                "spec": {"priorityClassName": name, "containers": [container]},
            },
        }
        return msgspec.convert({"metadata": {"name": name, "namespace": "default"}, "spec": spec}, ReplicaSet)

    async def scenario(cluster: Cluster) -> None:
        for level in (1, 2, 3, 4):
            await priority_class(cluster, f"p{level}", level)
        await cluster.clock.sleep(1)
        created: list[str] = []

        def look(old: Pod | None, new: Pod | None) -> None:
            if old is None and new is not None:
                created.append(new.metadata.labels["name"])

        cluster.pods.add_handler(look)

        def available(name: str) -> int:
            found = cluster.replica_sets.get(f"default/{name}")
            return (found.status.available_replicas if found and found.status else 0) or 0

        for name, count, amount in (("p1", 1, "1"), ("p2", 1, "1"), ("p3", 1, "3")):
            await cluster.create(replicas(name, count, amount))
            await cluster.until(lambda name=name, count=count: available(name) == count)
        await cluster.create(replicas("p4", 1, "2"))
        await cluster.until(lambda: available("p4") == 1)
        await cluster.clock.sleep(60)
        assert [available(name) for name in ("p1", "p2", "p3", "p4")] == [0, 0, 1, 1]
        assert created.count("p3") == created.count("p4") == 1
        assert created.count("p1") == created.count("p2") == 2

    simulate(scenario, nodes=1, capacity=SCARCE)


def test_the_value_of_a_priority_class_stays_and_its_description_may_change() -> None:
    """[sig-scheduling] SchedulerPreemption [Serial] PriorityClass endpoints verify PriorityClass endpoints can be
    operated with different HTTP methods
    """

    async def scenario(cluster: Cluster) -> None:
        made = [await priority_class(cluster, name, value) for name, value in (("p1", 1), ("p2", 2))]
        listed = (await cluster.client.list(PriorityClass)).items
        assert {each.metadata.name for each in listed} >= {"p1", "p2", "system-cluster-critical"}
        for each in made:
            name = each.metadata.name or ""
            patch = {"value": each.value * 10}
            with pytest.raises(Invalid, match=r"value: Forbidden: may not be changed in an update\."):
                await cluster.client.patch(PriorityClass, name, patch, content_type=MERGE_PATCH)
            patched = await cluster.client.patch(PriorityClass, name, {"description": "patched"})
            assert (patched.value, patched.description) == (each.value, "patched")
            with pytest.raises(Invalid, match=r"value: Forbidden: may not be changed in an update\."):
                await cluster.client.update(replace(patched, value=each.value * 10))
            updated = await cluster.client.update(replace(patched, description="updated"))
            assert (await cluster.client.get(PriorityClass, name)).description == updated.description == "updated"

    simulate(scenario)
