"""Users who delete owners, and namespaces with all that is in them."""

from __future__ import annotations

from collections.abc import Iterator

from knarr.api.core.v1 import ConfigMap, Namespace
from tests.simulate.stories.story import POLICIES, Story, named
from tests.simulate.stories.workloads import DeploymentStory


class OwnersStory(Story):
    """A small graph of ConfigMaps that own each other, deleted from in the three modes."""

    async def play(self) -> None:
        chance, client = self.chance, self.world.client
        self.owners: dict[str, list[str]] = {}
        self.alive: set[str] = set()
        uids: dict[str, str] = {}
        for number in range(chance.randint(3, 6)):
            name = f"{self.name}-{number}"
            owners = chance.sample(sorted(self.alive), min(len(self.alive), chance.choice((0, 1, 1, 2))))
            references = [
                {"apiVersion": "v1", "kind": "ConfigMap", "name": each, "uid": uids[each], "blockOwnerDeletion": True}
                for each in owners
            ]
            metadata = {"name": name, "labels": {"app": self.name}, "ownerReferences": references}
            self.owners[name] = owners
            self.alive.add(name)
            await self.create(ConfigMap, {"metadata": metadata})
            made = await client.get(ConfigMap, name, self.namespace)
            uids[name] = made.metadata.uid or ""
        for _ in range(chance.randint(1, 2)):
            await self.world.clock.sleep(chance.uniform(12, 20))
            if not self.alive:
                return
            name, policy = chance.choice(sorted(self.alive)), chance.choice(POLICIES)
            await self.delete(ConfigMap, policy, name)
            self._goes(name, orphan=policy == "Orphan")

    def _goes(self, name: str, *, orphan: bool = False) -> None:
        """The model: who has owners and loses the last one goes too."""
        self.alive.discard(name)
        for dependent in [each for each, owners in self.owners.items() if name in owners and each in self.alive]:
            self.owners[dependent].remove(name)
            if not self.owners[dependent] and not orphan:
                self._goes(dependent)

    def wrong(self) -> Iterator[str]:
        there = {obj.metadata.name for obj in self.own(ConfigMap)}
        if there != self.alive:
            yield f"{self.name}: {sorted(there)} are there, not {sorted(self.alive)}"
        for obj in self.own(ConfigMap):
            owners = sorted(each.name for each in obj.metadata.owner_references)
            if owners != sorted(self.owners[obj.metadata.name]):
                yield f"{obj.metadata.name} has owners {owners}, not {self.owners[obj.metadata.name]}"


class NamespaceStory(DeploymentStory):
    """A namespace with a workload in it is deleted."""

    async def play(self) -> None:
        self.namespace = self.name
        await self.world.client.create(Namespace(metadata=named(self.name)))
        self.replicas, self.image, self.there, self.orphans = self.chance.randint(1, 4), "one", True, False
        await self._create()
        await self.create(ConfigMap, {"metadata": {"finalizers": ["example.com/held"]}})
        await self.rest()
        self.tell("delete the namespace")
        await self.world.client.delete(Namespace, self.name)
        await self.world.clock.sleep(self.chance.uniform(1, 10))
        await self.patch(ConfigMap, {"metadata": {"finalizers": None}})

    def wrong(self) -> Iterator[str]:
        for kind, objects in self.world.state.objects.items():
            for key, obj in objects.items():
                if obj.metadata.namespace == self.name or (kind is Namespace and key == self.name):
                    yield f"{kind.__name__} {key} is left"
