"""Users who ask for more than there is, or than they may have: budgets, quotas, full nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from knarr.api.apps.v1 import Deployment
from knarr.api.core.v1 import Namespace, Node, Pod, ResourceQuota, ServiceAccount
from knarr.api.errors import APIError, NotFound
from knarr.api.policy.v1 import Eviction, PodDisruptionBudget
from knarr.api.quantity import parse_quantity
from knarr.api.scheduling.v1 import PriorityClass
from knarr.clock import utc
from tests.simulate.objects import is_ready, is_terminal, node_name, owner_uid, request
from tests.simulate.stories.story import Story, named
from tests.simulate.stories.workloads import DeploymentStory


class BudgetStory(DeploymentStory):
    """A Deployment with a budget, whose pods are evicted several at once."""

    kinds = (Deployment, PodDisruptionBudget)

    async def play(self) -> None:
        chance = self.chance
        self.replicas, self.image, self.there, self.orphans = chance.randint(2, 5), "one", True, False
        await self._create()
        bound = {"minAvailable": chance.randint(1, self.replicas)}
        if chance.random() < 0.4:
            bound = {"maxUnavailable": chance.randint(0, 2)}
        await self.create(PodDisruptionBudget, {"spec": {"selector": {"matchLabels": {"app": self.name}}, **bound}})
        for _ in range(chance.randint(2, 4)):
            await self.world.clock.sleep(chance.uniform(1, 8))
            step = chance.random()
            if step < 0.2:
                await self._roll()
            elif step < 0.3:
                await self.trouble_a_pod()
            await asyncio.gather(*(self._evict(pod) for pod in self.pods()[: chance.randint(1, 4)]))

        if chance.random() < 0.4 and self.pods():
            await self._threaten(self.pods()[0])

    async def _threaten(self, pod: Pod) -> None:
        """To say that it goes, and then not to delete it: that is taken back."""
        told = {"type": "DisruptionTarget", "status": "True", "reason": "Test", "lastTransitionTime": self._now()}
        name = pod.metadata.name or ""
        self.tell(f"threaten {name}")
        try:
            await self.world.client.patch(
                Pod, name, {"status": {"conditions": [told]}}, self.namespace, subresource="status"
            )
        except NotFound:
            pass

    def _now(self) -> Any:
        return utc(self.world.clock.time_s())

    def wrong(self) -> Iterator[str]:
        yield from super().wrong()
        for pod in self.pods():
            if any(each.type == "DisruptionTarget" and each.status == "True" for each in pod.status.conditions):
                yield f"{pod.metadata.name} is said to go, and does not"

    async def _evict(self, pod: Pod) -> None:
        name = pod.metadata.name or ""
        self.tell(f"evict {name}")
        try:
            await self.world.client.post(Pod, name, self.namespace, "eviction", Eviction(metadata=named(name)))
        except APIError as error:
            self.tell(f"refused: {error}")


class QuotaStory(DeploymentStory):
    """More is asked than a namespace may have: several workloads push at once."""

    kinds = (Deployment, ResourceQuota)

    async def play(self) -> None:
        chance = self.chance
        self.namespace = self.name
        await self.world.client.create(Namespace(metadata=named(self.name)))
        self.limit = chance.randint(1, 4)
        hard = {"pods": str(self.limit)} if chance.random() < 0.5 else {"requests.cpu": f"{self.limit * 100}m"}
        await self.create(ResourceQuota, {"spec": {"hard": hard}})
        await self.world.clock.sleep(4)
        self.replicas, self.image, self.there, self.orphans = chance.randint(1, 6), "one", True, False
        await self._create()
        for _ in range(chance.randint(1, 3)):
            await self.rest()
            await chance.choice((self._scale, self._loose, self.trouble_a_pod, self._lose_account))()
        self.replicas = self.limit
        for pod in self.world.state.all(Pod, self.namespace):
            if not owner_uid(pod):
                await self.delete(Pod, name=pod.metadata.name)
        await self.patch(Deployment, {"spec": {"replicas": self.replicas}})

    async def _lose_account(self) -> None:
        """Every namespace has one of this name; it comes again."""
        await self.delete(ServiceAccount, name="default")

    def wrong(self) -> Iterator[str]:
        yield from super().wrong()
        if self.world.state.get(ServiceAccount, f"{self.namespace}/default") is None:
            yield f"{self.namespace} has no ServiceAccount"

    async def _loose(self) -> None:
        """Pods of nobody, all at once."""

        async def one(number: int) -> None:
            written = self.template("one")
            written["metadata"] = {"name": f"loose-{number}"}
            try:
                await self.create(Pod, written)
            except APIError as error:
                self.tell(f"refused: {error}")

        await asyncio.gather(*(one(self.chance.randrange(10_000)) for _ in range(3)))


class CrowdStory(Story):
    """Single pods, more than may fit: all at once, and some go again."""

    alone = True

    async def play(self) -> None:
        chance = self.chance
        self.cpu_m = chance.choice((200, 400, 500))
        names = [self.fresh() for _ in range(chance.randint(3, 9))]
        await asyncio.gather(*(self._come(name) for name in names))
        for _ in range(chance.randint(0, 2)):
            await self.rest()
            for name in chance.sample(names, 2):
                names.remove(name)
                await self.delete(Pod, name=name)
            names.append(self.fresh())
            await self._come(names[-1])

    async def _come(self, name: str) -> None:
        written = self.template("one")
        written["metadata"] |= {"name": name}
        written["spec"]["containers"][0]["resources"] = {"requests": {"cpu": f"{self.cpu_m}m", "memory": "10Mi"}}
        await self.create(Pod, written)

    def wrong(self) -> Iterator[str]:
        free = {
            node.metadata.name: parse_quantity(node.status.allocatable["cpu"]) for node in self.world.state.all(Node)
        }
        for pod in self.world.state.all(Pod):
            if node_name(pod) and not is_terminal(pod):
                free[node_name(pod)] -= request(pod, "cpu")
        for pod in self.own(Pod):
            if node_name(pod) and not is_ready(pod):
                yield f"{pod.metadata.name} is not ready"
            elif not node_name(pod) and max(free.values()) * 1000 >= self.cpu_m:
                yield f"{pod.metadata.name} has no node, though one has room"


class PriorityStory(Story):
    """Pods that matter more come to a cluster that is full of others."""

    kinds = (PriorityClass,)
    alone = True

    async def play(self) -> None:
        chance = self.chance
        for name, value, policy in PRIORITIES:
            metadata = {"name": f"{self.name}-{name}", "namespace": None}
            await self.create(PriorityClass, {"metadata": metadata, "value": value, "preemptionPolicy": policy})
        self.count = 0
        await asyncio.gather(*(self._come("low") for _ in range(chance.randint(3, 8))))
        for _ in range(chance.randint(1, 3)):
            await self.world.clock.sleep(chance.uniform(0.5, 8))
            name = chance.choice(("low", "middle", "high", "high", "patient"))
            await asyncio.gather(*(self._come(name) for _ in range(chance.randint(1, 3))))
            if chance.random() < 0.4:
                await self.trouble_a_pod()

    async def _come(self, priority: str) -> None:
        self.count += 1
        cpu_m = self.chance.choice((200, 300, 500))
        written = self.template("one", priorityClassName=f"{self.name}-{priority}")
        written["metadata"] |= {"name": f"{self.name}-{self.count}-{priority}"}
        written["spec"]["containers"][0]["resources"] = {"requests": {"cpu": f"{cpu_m}m", "memory": "10Mi"}}
        await self.create(Pod, written)

    def wrong(self) -> Iterator[str]:
        here = [pod for pod in self.world.state.all(Pod) if node_name(pod) and not is_terminal(pod)]
        for pod in self.own(Pod):
            if node_name(pod):
                if not is_ready(pod):
                    yield f"{pod.metadata.name} is not ready"
                continue
            for node in self.world.state.all(Node):
                free = parse_quantity(node.status.allocatable["cpu"])
                for other in here:
                    stays = pod.spec.preemption_policy == "Never" or other.spec.priority >= pod.spec.priority
                    if node_name(other) == node.metadata.name and stays:
                        free -= request(other, "cpu")
                if free >= request(pod, "cpu"):
                    yield f"{pod.metadata.name} has no node, though {node.metadata.name} has room, or could have"


PRIORITIES = (
    ("low", -10, "PreemptLowerPriority"),
    ("middle", 100, "PreemptLowerPriority"),
    ("high", 1000, "PreemptLowerPriority"),
    ("patient", 1000, "Never"),
)
