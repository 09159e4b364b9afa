"""Preemption: who gives way to whom, in tables and in a whole cluster."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import msgspec
import pytest

from knarr.api.core.v1 import Node, Pod
from knarr.api.errors import ServiceUnavailable
from knarr.api.policy.v1 import PodDisruptionBudget
from knarr.api.scheduling.v1 import PriorityClass
from knarr.client.transport import Answer, Request
from knarr.clock import utc
from knarr.scheduler.cache import PodInfo
from knarr.scheduler.framework import Unschedulable
from knarr.scheduler.preemption import Budgets, Preemption, cheapest
from tests.cluster import Cluster, simulate
from tests.scheduler.test_choice import World, node
from tests.scheduler.test_choice import pod as bare_pod
from tests.scheduler.test_scheduler import SMALL, node_of, scheduled
from tests.scheduler.test_scheduler import pod as cluster_pod


def pod(name: str, cpu: str, priority: int, *, started_s: float = 0.0, app: str = "", **spec: Any) -> Pod:
    made = bare_pod(name, cpu=cpu, labels={"app": app} if app else {}, priority=priority, **spec)
    return msgspec.convert(
        {**msgspec.to_builtins(made), "status": {"startTime": utc(started_s).isoformat()}}, Pod, strict=False
    )


def budget(app: str, allowed: int, **status: Any) -> PodDisruptionBudget:
    return msgspec.convert(
        {
            "metadata": {"name": app, "namespace": "default"},
            "spec": {"selector": {"matchLabels": {"app": app}}},
            "status": {"disruptionsAllowed": allowed, **status},
        },
        PodDisruptionBudget,
    )


def chosen(world: World, one: Pod, *budgets: PodDisruptionBudget) -> tuple[str, list[str]] | None:
    """Node and victims."""
    info = PodInfo(one)
    with pytest.raises(Unschedulable) as refused:
        world.choice.node_for(info)
    preemption = Preemption(world.cache, world.choice, random.Random(1))
    before = {node.name: set(node.pods) for node in world.cache.nodes}
    found = cheapest(preemption.candidates(info, refused.value.curable, Budgets(budgets)))
    assert {node.name: set(node.pods) for node in world.cache.nodes} == before  # thoughts leave no trace
    return (found.node.name, sorted(victim.key.partition("/")[2] for victim in found.victims)) if found else None


def test_only_as_many_go_as_must_the_least_important_first() -> None:
    world = World(node("a", cpu="3"))
    for name, cpu, priority in (("low", "1", 1), ("middle", "1", 5), ("high", "1", 9)):
        world.put(pod(name, cpu, priority), "a")
    assert chosen(world, pod("p", "1", 10)) == ("a", ["low"])
    assert chosen(world, pod("p", "2", 10)) == ("a", ["low", "middle"])
    assert chosen(world, pod("p", "2", 6)) == ("a", ["low", "middle"])
    assert chosen(world, pod("p", "3", 6)) is None
    assert chosen(world, pod("p", "1", 1)) is None


def test_the_node_with_the_lowest_victims_is_chosen() -> None:
    world = World(node("a", cpu="2"), node("b", cpu="2"), node("c", cpu="2"))
    for place, priorities in (("a", (5, 5)), ("b", (3, 4)), ("c", (3, 3))):
        for number, priority in enumerate(priorities):
            world.put(pod(f"{place}{number}", "1", priority), place)
    assert chosen(world, pod("p", "2", 10)) == ("c", ["c0", "c1"])
    assert (chosen(world, pod("p", "1", 10)) or ("",))[0] in ("b", "c")


def test_among_equals_fewer_and_younger_go() -> None:
    world = World(node("a", cpu="2"), node("b", cpu="2"))
    world.put(pod("a0", "1", 3), "a")
    world.put(pod("a1", "1", 3), "a")
    world.put(pod("b0", "2", 3), "b")
    assert chosen(world, pod("p", "2", 10)) == ("b", ["b0"])
    world = World(node("a", cpu="1"), node("b", cpu="1"))
    world.put(pod("old", "1", 3, started_s=100), "a")
    world.put(pod("young", "1", 3, started_s=200), "b")
    assert chosen(world, pod("p", "1", 10)) == ("b", ["young"])


def test_budgets_are_kept_if_there_is_another_way() -> None:
    world = World(node("a", cpu="1"), node("b", cpu="1"))
    world.put(pod("guarded", "1", 1, app="guarded"), "a")
    world.put(pod("free", "1", 5), "b")
    assert chosen(world, pod("p", "1", 10), budget("guarded", 0)) == ("b", ["free"])
    assert chosen(world, pod("p", "1", 10), budget("guarded", 1)) == ("a", ["guarded"])
    assert chosen(world, pod("p", "1", 4), budget("guarded", 0)) == ("a", ["guarded"])  # there is none
    charged = budget("guarded", 0, disruptedPods={"guarded": utc(0).isoformat()})
    assert chosen(world, pod("p", "1", 10), charged) == ("a", ["guarded"])


def test_what_going_pods_would_not_cure_is_no_candidate() -> None:
    world = World(node("a", cpu="1", taints=[{"key": "k", "effect": "NoSchedule"}]))
    world.put(pod("low", "1", 1), "a")
    assert chosen(world, pod("p", "1", 10)) is None


def test_anti_affinity_is_cured_by_the_going_of_those_that_it_is_about() -> None:
    term = {"labelSelector": {"matchLabels": {"app": "x"}}, "topologyKey": "kubernetes.io/hostname"}
    affinity = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    world = World(node("a", cpu="4"))
    world.put(pod("x", "1", 1, app="x"), "a")
    world.put(pod("y", "1", 1, app="y"), "a")
    assert chosen(world, pod("p", "1", 10, affinity=affinity)) == ("a", ["x"])


def test_room_that_was_made_for_a_pod_is_left_to_it() -> None:
    world = World(node("a", cpu="1"))
    nominated = PodInfo(pod("nominated", "1", 10))
    world.cache.nominate(nominated, "a")
    assert "Insufficient cpu" in world.why_not(pod("q", "500m", 5))
    assert world.choice.fits(nominated, world.cache.nodes[0])
    assert world.place(pod("more-important", "1", 20)) == "a"


def test_a_node_where_no_budget_breaks_is_looked_for_beyond_the_sample() -> None:
    """Upstream's sample is large enough only when it has a candidate that breaks no budget."""
    world = World(*(node(f"n{number}", cpu="1") for number in range(250)))
    for number in range(250):
        world.put(
            pod(f"p{number}", "1", 5 if number == 77 else 1, app="free" if number == 77 else "guarded"), f"n{number}"
        )
    assert chosen(world, pod("p", "1", 10), budget("guarded", 0)) == ("n77", ["p77"])


@pytest.mark.parametrize("seed", range(30))
def test_a_thought_about_a_copy_and_one_that_is_remembered_come_to_the_same_as_the_real_thing(seed: int) -> None:
    chance = random.Random(seed)
    world = World(*(node(f"n{number}", cpu=str(chance.randint(1, 4))) for number in range(6)))

    def fill(name: str) -> None:
        cpu, app = chance.choice(("500m", "1")), chance.choice("ab")
        port = {"ports": [{"containerPort": 80, "hostPort": chance.choice((80, 81))}]} if chance.random() < 0.4 else {}
        asks = {"requests": {"cpu": cpu}}
        containers = [{"name": "c", "image": "i", "resources": asks, **port}]
        started_s = chance.randrange(1000)
        made = pod(name, cpu, chance.randint(1, 5), started_s=started_s, app=app, containers=containers)
        world.put(made, f"n{chance.randrange(6)}")

    for number in range(14):
        fill(f"p{number}")
    for number in range(2):
        world.cache.nominate(PodInfo(pod(f"nominated-{number}", "500m", chance.randint(1, 9))), f"n{number}")
    budgets = [budget("a", chance.randint(0, 2))] if chance.random() < 0.7 else []
    container = {"name": "c", "image": "i", "resources": {"requests": {"cpu": "1"}}}
    ports: dict[str, Any] = {"containers": [container | {"ports": [{"containerPort": 80, "hostPort": 80}]}]}
    preemption = Preemption(world.cache, world.choice, random.Random(1))
    for step in range(12):
        asker = PodInfo(pod(f"asker-{step}", "1", chance.randint(3, 8), **ports))
        quick = {each.node.name: each for each in preemption.candidates(asker, world.cache.nodes, Budgets(budgets))}
        asker.solitary = False
        slow = Preemption(world.cache, world.choice, random.Random(1))
        real = {each.node.name: each for each in slow.candidates(asker, world.cache.nodes, Budgets(budgets))}
        assert quick == real
        if step % 2:
            fill(f"late-{step}")
        elif step % 4 == 0:
            world.cache.nominate(PodInfo(pod(f"nominated-{step}", "500m", 9)), "n3")
        else:
            budgets = [budget("a", chance.randint(0, 2))]


# In a whole cluster


async def priority(cluster: Cluster, name: str, value: int, **more: Any) -> None:
    made = msgspec.convert({"metadata": {"name": name}, "value": value, **more}, PriorityClass)
    await cluster.client.create(made)
    await cluster.clock.sleep(0.5)


def test_a_pod_of_low_priority_is_ended_in_order_and_the_other_comes() -> None:
    async def scenario(cluster: Cluster) -> None:
        await priority(cluster, "high", 1000)
        await cluster.create(cluster_pod("low", "800m"))
        await cluster.until(lambda: node_of(cluster, "low"))
        seen: list[tuple[str | None, str | None]] = []

        def look(old: Pod | None, new: Pod | None) -> None:
            if new and new.status and new.metadata.name == "urgent":
                nominated = new.status.nominated_node_name
                seen.extend((each.message, nominated) for each in new.status.conditions if each.status == "False")

        cluster.pods.add_handler(look)
        urgent = await cluster.create(cluster_pod("urgent", "800m", priorityClassName="high"))
        await cluster.until(lambda: node_of(cluster, "urgent") == "hollow-0", within_s=40)
        assert ("0/1 nodes are available: 1 Insufficient cpu.", "hollow-0") in seen
        assert cluster.pods.get("default/low") is None
        (message,) = await cluster.events("Preempted")
        assert message == f"Preempted by pod {urgent.metadata.uid} on node hollow-0"

    simulate(scenario, nodes=1, capacity=SMALL)


def test_a_pod_that_never_preempts_waits() -> None:
    async def scenario(cluster: Cluster) -> None:
        await priority(cluster, "patient", 1000, preemptionPolicy="Never")
        await cluster.create(cluster_pod("low", "800m"))
        await cluster.until(lambda: node_of(cluster, "low"))
        await cluster.create(cluster_pod("p", "800m", priorityClassName="patient"))
        await cluster.until(lambda: scheduled(cluster, "p")[0] == "False")
        assert (scheduled(cluster, "p")[2] or "").endswith("preemption: not eligible due to preemptionPolicy=Never.")
        await cluster.clock.sleep(60)
        assert node_of(cluster, "low")

    simulate(scenario, nodes=1, capacity=SMALL)


def test_no_more_than_needed_are_preempted_when_many_come_at_once() -> None:
    async def scenario(cluster: Cluster) -> None:
        await priority(cluster, "high", 1000)
        for number in range(20):
            await cluster.create(cluster_pod(f"low-{number}", "450m"))
        await cluster.until(lambda: all(node_of(cluster, f"low-{n}") for n in range(20)))
        for number in range(5):
            await cluster.create(cluster_pod(f"high-{number}", "450m", priorityClassName="high"))
        await cluster.until(lambda: all(node_of(cluster, f"high-{n}") for n in range(5)))
        assert len([pod for pod in cluster.pods.all() if (pod.metadata.name or "").startswith("low")]) == 15

    simulate(scenario, nodes=10, capacity=SMALL)


def test_a_cordoned_node_is_not_emptied() -> None:
    async def scenario(cluster: Cluster) -> None:
        await priority(cluster, "high", 1000)
        await cluster.create(cluster_pod("low", "800m"))
        await cluster.until(lambda: node_of(cluster, "low"))
        await cluster.client.patch(Node, "hollow-0", {"spec": {"unschedulable": True}})
        await cluster.clock.sleep(1)
        await cluster.create(cluster_pod("p", "800m", priorityClassName="high"))
        await cluster.until(lambda: scheduled(cluster, "p")[0] == "False")
        await cluster.clock.sleep(60)
        assert node_of(cluster, "low")

    simulate(scenario, nodes=1, capacity=SMALL)


def nominated(cluster: Cluster, name: str) -> str | None:
    found = cluster.pods.get(f"default/{name}")
    return found.status.nominated_node_name if found and found.status else None


def test_pods_whose_room_was_taken_by_one_that_matters_more_do_not_keep_each_other_out() -> None:
    async def scenario(cluster: Cluster) -> None:
        await priority(cluster, "high", 1000)
        await priority(cluster, "patient", 2000, preemptionPolicy="Never")
        for number in range(2):
            await cluster.create(cluster_pod(f"low-{number}", "500m"))
        await cluster.until(lambda: all(node_of(cluster, f"low-{n}") for n in range(2)))
        for name, cpu in (("big", "500m"), ("small", "300m")):
            await cluster.create(cluster_pod(name, cpu, priorityClassName="high"))
            await cluster.until(partial(nominated, cluster, name), within_s=1)
            await cluster.clock.sleep(5)
        await cluster.create(cluster_pod("p", "500m", priorityClassName="patient"))
        await cluster.until(lambda: node_of(cluster, "p"), within_s=60)
        assert node_of(cluster, "big") is node_of(cluster, "small") is None  # there is room for one of them
        await cluster.until(lambda: node_of(cluster, "big") or node_of(cluster, "small"), within_s=60)
        left = "small" if node_of(cluster, "big") else "big"
        assert nominated(cluster, left) is None

    simulate(scenario, nodes=1, capacity=SMALL, stop_s=(20.0, 20.0))


def test_room_is_not_kept_for_a_pod_that_nobody_can_give_way_to_any_more() -> None:
    """As it may be after a restart of the scheduler: the pod says where it is expected, and nobody leaves."""

    async def scenario(cluster: Cluster) -> None:
        await priority(cluster, "high", 1000)
        await cluster.create(cluster_pod("peer", "500m", priorityClassName="high"))
        await cluster.until(lambda: node_of(cluster, "peer"))
        urgent = cluster_pod("urgent", "800m", priorityClassName="high", schedulingGates=[{"name": "example.com/a"}])
        await cluster.create(urgent)
        await cluster.client.patch(
            Pod, "urgent", {"status": {"nominatedNodeName": "hollow-0"}}, "default", subresource="status"
        )
        cluster.scheduler._cache.nominate(PodInfo(urgent), "hollow-0")
        await cluster.create(cluster_pod("small", "300m"))
        await cluster.until(lambda: scheduled(cluster, "small")[0] == "False")
        await cluster.patch(Pod, "urgent", {"spec": {"schedulingGates": None}})
        await cluster.until(lambda: node_of(cluster, "small"), within_s=1)
        await cluster.until(lambda: nominated(cluster, "urgent") is None, within_s=1)

    simulate(scenario, nodes=1, capacity=SMALL)


class Refusing:
    """The scheduler's way to the API server: the first deletion of a pod is refused."""

    def __init__(self, cluster: Cluster) -> None:
        self._inner = cluster.scheduler._client.transport
        self.refused = False
        cluster.scheduler._client.transport = self

    async def send(self, request: Request) -> Answer:
        if request.method == "DELETE" and not self.refused:
            self.refused = True
            raise ServiceUnavailable("connection refused")
        return await self._inner.send(request)

    async def close(self) -> None:
        await self._inner.close()


def test_a_pod_that_could_not_be_ended_is_ended_later() -> None:
    async def scenario(cluster: Cluster) -> None:
        refusing = Refusing(cluster)
        await priority(cluster, "high", 1000)
        await cluster.create(cluster_pod("low", "800m"))
        await cluster.until(lambda: node_of(cluster, "low"))
        await cluster.create(cluster_pod("urgent", "800m", priorityClassName="high"))
        await cluster.until(lambda: node_of(cluster, "urgent"), within_s=40)
        assert refusing.refused

    simulate(scenario, nodes=1, capacity=SMALL)
