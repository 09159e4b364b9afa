"""Users of Deployments, StatefulSets and DaemonSets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from knarr.api.apps.v1 import ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet
from knarr.api.core.v1 import Node, Pod, ReplicationController
from tests.simulate.objects import is_going, node_name, owner_uid
from tests.simulate.stories.story import ADOPTED_S, BAD, GOOD, KNOWN_S, POLICIES, Story


class DeploymentStory(Story):
    kinds = (Deployment,)

    async def play(self) -> None:
        chance = self.chance
        self.replicas, self.image, self.there, self.orphans = chance.randint(1, 4), "one", True, False
        await self._create()
        steps = (
            self._scale,
            self._scale,
            self._roll,
            self._roll,
            self._roll,
            self._pause,
            self.trouble_a_pod,
            self._end,
            self._end,
        )
        for _ in range(chance.randint(1, 4)):
            await self.rest()
            await chance.choice(steps)()
            if not self.there:
                return
        await self.rest()
        await self.patch(Deployment, {"spec": {"paused": None}})

    async def _create(self) -> None:
        chance = self.chance
        surge, unavailable = chance.choice(((1, 0), (0, 1), (1, 1), (2, 0), ("25%", "25%"), ("50%", "34%"), (0, 2)))
        rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}
        strategy = {"type": "Recreate"} if chance.random() < 0.15 else rolling
        spec = {
            "replicas": self.replicas,
            "selector": {"matchLabels": {"app": self.name}},
            "template": self.template(self.image),
            "strategy": strategy,
            "minReadySeconds": chance.choice((0, 0, 0, 2)),
            "revisionHistoryLimit": chance.choice((0, 1, 10)),
        }
        await self.create(Deployment, {"spec": spec})

    async def _scale(self) -> None:
        self.replicas = self.chance.randint(0, 5)
        await self.patch(Deployment, {"spec": {"replicas": self.replicas}})

    async def _roll(self) -> None:
        """To another template, or back to one that was there."""
        self.image = self.chance.choice(GOOD if self.chance.random() < 0.75 else BAD)
        await self.patch(Deployment, {"spec": {"template": self.template(self.image)}})

    async def _pause(self) -> None:
        await self.patch(Deployment, {"spec": {"paused": True}})
        await self.rest()
        await self.chance.choice((self._scale, self._roll))()
        await self.rest()
        await self.patch(Deployment, {"spec": {"paused": None}})

    async def _end(self) -> None:
        policy = self.chance.choice((*POLICIES, "Orphan"))
        known_s = self.world.clock.time_s() - KNOWN_S
        had = any(each.metadata.creation_timestamp.timestamp() < known_s for each in self.own(ReplicaSet))
        await self.delete(Deployment, policy)
        await self.gone(Deployment)
        if self.chance.random() < 0.5:
            await self._create()
            await self.world.clock.sleep(ADOPTED_S)
        else:
            self.there, self.orphans, self.left = False, policy == "Orphan", had

    def wrong(self) -> Iterator[str]:
        if not self.there:
            if self.orphans:
                for replica_set in self.own(ReplicaSet):
                    if owner_uid(replica_set):
                        yield f"{replica_set.metadata.name} still has an owner"
                if self.left and not self.own(ReplicaSet):
                    yield "the ReplicaSets that were to stay are gone"
            else:
                yield from self.nothing_left(ReplicaSet, Pod)
            return
        deployment = self.get(Deployment)
        if deployment is None or is_going(deployment):
            yield f"Deployment {self.name} is not there"
            return
        if (
            dict(self.images()) != ({self.image: self.replicas} if self.replicas else {})
            or len(self.own(Pod)) != self.replicas
        ):
            yield f"{self.name} has {dict(self.images())} ({len(self.own(Pod))} pods), not {self.replicas} {self.image}"
        status = deployment.status
        counts = [status.replicas, status.updated_replicas, status.available_replicas] if status else []
        if [count or 0 for count in counts] != [self.replicas] * 3:
            yield f"the status of {self.name} says {counts}"
        if (status.observed_generation if status else 0) != deployment.metadata.generation:
            yield f"the status of {self.name} is old"
        sizes = sorted(each.spec.replicas or 0 for each in self.own(ReplicaSet))
        if sum(sizes) != self.replicas or sum(size > 0 for size in sizes) > 1:
            yield f"the ReplicaSets of {self.name} have {sizes}"
        if any(owner_uid(each) != deployment.metadata.uid for each in self.own(ReplicaSet)):
            yield f"a ReplicaSet of {self.name} is not its own"
        if len(sizes) > 1 + (
            10 if deployment.spec.revision_history_limit is None else deployment.spec.revision_history_limit
        ):
            yield f"{self.name} keeps {len(sizes)} ReplicaSets"


class ControllerStory(Story):
    """A ReplicationController: scaled, troubled, deleted."""

    kinds = (ReplicationController,)

    async def play(self) -> None:
        chance = self.chance
        self.replicas, self.there = chance.randint(1, 4), True
        spec = {"replicas": self.replicas, "selector": {"app": self.name}, "template": self.template("one")}
        await self.create(ReplicationController, {"spec": spec | {"minReadySeconds": chance.choice((0, 2))}})
        for _ in range(chance.randint(1, 4)):
            await self.rest()
            await chance.choice((self._scale, self._scale, self.trouble_a_pod, self._end))()
            if not self.there:
                return

    async def _scale(self) -> None:
        self.replicas = self.chance.randint(0, 5)
        await self.patch(ReplicationController, {"spec": {"replicas": self.replicas}})

    async def _end(self) -> None:
        self.there = False
        await self.delete(ReplicationController, self.chance.choice(POLICIES[:2]))

    def wrong(self) -> Iterator[str]:
        if not self.there:
            yield from self.nothing_left(Pod)
            return
        controller = self.get(ReplicationController)
        if self.images().total() != self.replicas or len(self.own(Pod)) != self.replicas:
            yield f"{self.name} has {dict(self.images())} ({len(self.own(Pod))} pods), not {self.replicas}"
        status = controller.status
        if [status.replicas or 0, status.available_replicas or 0] != [self.replicas] * 2:
            yield f"the status of {self.name} says {status.replicas}, {status.available_replicas}"


class StatefulSetStory(Story):
    kinds = (StatefulSet,)

    async def play(self) -> None:
        chance = self.chance
        self.replicas, self.image, self.there = chance.randint(1, 4), "one", True
        self.partition = chance.choice((0, 0, 0, 1))
        self.first = chance.choice((0, 0, 2))
        rolling: dict[str, Any] = {"partition": self.partition}
        if chance.random() < 0.3:
            rolling["maxUnavailable"] = 2
        spec = {
            "replicas": self.replicas,
            "serviceName": self.name,
            "selector": {"matchLabels": {"app": self.name}},
            "template": self.template(self.image),
            "podManagementPolicy": chance.choice(("OrderedReady", "OrderedReady", "Parallel")),
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": rolling},
            "ordinals": {"start": self.first},
            "minReadySeconds": chance.choice((0, 0, 1)),
            "revisionHistoryLimit": chance.choice((0, 1, 10)),
        }
        self.on_delete = chance.random() < 0.2
        if self.on_delete:
            spec["updateStrategy"] = {"type": "OnDelete"}
        self.spec = spec
        await self.create(StatefulSet, {"spec": spec})
        for _ in range(chance.randint(1, 4)):
            await self.rest()
            await chance.choice((self._scale, self._scale, self._roll, self._roll, self.trouble_a_pod, self._end))()
            if not self.there:
                return
        await self.rest()
        if self.on_delete:
            await self.replace_old(self.image)
            return
        self.partition = 0
        await self.patch(StatefulSet, {"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}})

    async def _scale(self) -> None:
        self.replicas = self.chance.randint(0, 5)
        await self.patch(StatefulSet, {"spec": {"replicas": self.replicas}})

    async def _roll(self) -> None:
        self.image = self.chance.choice(GOOD)
        await self.patch(StatefulSet, {"spec": {"template": self.template(self.image)}})

    async def _end(self) -> None:
        """For good; or to come back, and to find the pods that it left."""
        policy = self.chance.choice((*POLICIES, "Orphan"))
        self.there = policy == "Orphan"
        await self.delete(StatefulSet, policy)
        if self.there:
            await self.gone(StatefulSet)
            now = {"replicas": self.replicas, "template": self.template(self.image)}
            await self.create(StatefulSet, {"spec": self.spec | now})
            await self.world.clock.sleep(ADOPTED_S)

    def wrong(self) -> Iterator[str]:
        if not self.there:
            yield from self.nothing_left(Pod, ControllerRevision)
            return
        stateful_set = self.get(StatefulSet)
        if stateful_set is None or stateful_set.status is None:
            yield f"StatefulSet {self.name} is not there"
            return
        wanted = {f"{self.name}-{ordinal}" for ordinal in range(self.first, self.first + self.replicas)}
        if {pod.metadata.name for pod in self.own(Pod)} != wanted:
            yield f"{self.name} has {sorted(pod.metadata.name or '' for pod in self.own(Pod))}, not {sorted(wanted)}"
        if dict(self.images()) != ({self.image: self.replicas} if self.replicas else {}):
            yield f"{self.name} has {dict(self.images())}, not {self.replicas} {self.image}"
        status = stateful_set.status
        counts = [status.replicas, status.ready_replicas, status.updated_replicas, status.available_replicas]
        if [count or 0 for count in counts] != [self.replicas] * 4:
            yield f"the status of {self.name} says {counts}"
        if status.current_revision != status.update_revision and not self.on_delete:
            yield f"{self.name} is between two revisions"


class DaemonSetStory(Story):
    kinds = (DaemonSet,)

    async def play(self) -> None:
        chance = self.chance
        self.image, self.there = "one", True
        surge, unavailable = chance.choice(((0, 1), (0, 1), (0, 2), (1, 0), ("50%", 0)))
        spec = {
            "selector": {"matchLabels": {"app": self.name}},
            "template": self.template(self.image),
            "updateStrategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable},
            },
            "minReadySeconds": chance.choice((0, 0, 2)),
            "revisionHistoryLimit": chance.choice((0, 1, 10)),
        }
        self.on_delete = chance.random() < 0.2
        if self.on_delete:
            spec["updateStrategy"] = {"type": "OnDelete"}
        await self.create(DaemonSet, {"spec": spec})
        for _ in range(chance.randint(1, 3)):
            await self.rest()
            await chance.choice((self._roll, self._roll, self.trouble_a_pod, self._end))()
            if not self.there:
                return
        if self.on_delete:
            await self.replace_old(self.image)

    async def _roll(self) -> None:
        self.image = self.chance.choice(GOOD if self.chance.random() < 0.8 else BAD)
        await self.patch(DaemonSet, {"spec": {"template": self.template(self.image)}})

    async def _end(self) -> None:
        self.there = False
        await self.delete(DaemonSet, self.chance.choice(POLICIES[:2]))

    def wrong(self) -> Iterator[str]:
        if not self.there:
            yield from self.nothing_left(Pod, ControllerRevision)
            return
        nodes = sorted(node.metadata.name for node in self.world.state.all(Node))
        on = sorted(node_name(pod) for pod in self.own(Pod))
        if on != nodes:
            yield f"{self.name} is on {on}"
        if dict(self.images()) != {self.image: len(nodes)}:
            yield f"{self.name} has {dict(self.images())}, not {self.image}"
        daemon_set = self.get(DaemonSet)
        status = daemon_set.status if daemon_set else None
        counts = [status.number_ready, status.updated_number_scheduled, status.number_available] if status else []
        if [count or 0 for count in counts] != [len(nodes)] * 3:
            yield f"the status of {self.name} says {counts}"
