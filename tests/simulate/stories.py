"""What users do in a run: each story makes a workload, changes it at random times, and knows how it must end.

A story draws all its choices from a source of chance of its own, so that it does the same whatever the weather. `play`
does it; `wrong` tells what is not yet as declared: after the faults have stopped it must come to answer nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any, ClassVar

import msgspec

from knarr.api.apps.v1 import ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet
from knarr.api.batch.v1 import Job
from knarr.api.core.v1 import ConfigMap, Namespace, Node, Pod, ResourceQuota
from knarr.api.errors import APIError, NotFound
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.policy.v1 import Eviction, PodDisruptionBudget
from knarr.api.quantity import parse_quantity
from knarr.client.client import MERGE_PATCH
from tests.simulate.invariants import is_going, is_over, is_ready, is_terminal, node_name, owner_uid, phase, request
from tests.simulate.world import World

GOOD = ("one", "two", "three")
BAD = ("crashing", "unready", "missing")
POLICIES = ("Background", "Foreground", "Orphan")
PAUSE_MAX_S = 9.0
KNOWN_S = 4.0
"""What was made so long ago, the collector knows of, however late its caches are."""
ADOPTED_S = 20.0
"""Who comes anew has found what it left after so long; deleted sooner, it would leave it for good."""
TOLERATIONS = [
    {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 4}
    for key in ("not-ready", "unreachable")
]
"""Pods leave a node that is lost soon: so a run is short."""


class Story:
    """One user, and what they own."""

    kinds: ClassVar[tuple[type[Any], ...]] = ()

    def __init__(self, world: World, chance: random.Random, name: str) -> None:
        self.world = world
        self.chance = chance
        self.name = name
        self.namespace = "default"
        self.log: list[str] = []

    async def play(self) -> None:
        raise NotImplementedError

    def wrong(self) -> Iterator[str]:
        raise NotImplementedError

    # What users do

    async def create(self, kind: type[Any], written: dict[str, Any]) -> None:
        metadata = {"name": self.name, "namespace": self.namespace} | written.pop("metadata", {})
        self.tell(f"create {kind.__name__} {written}")
        await self.world.client.create(msgspec.convert({"metadata": metadata} | written, kind))

    async def patch(self, kind: type[Any], patch: dict[str, Any], name: str = "") -> None:
        self.tell(f"patch {kind.__name__} {patch}")
        await self.world.client.patch(kind, name or self.name, patch, self.namespace, content_type=MERGE_PATCH)

    async def delete(self, kind: type[Any], policy: str = "Background", name: str = "") -> None:
        self.tell(f"delete {kind.__name__} {name} {policy}")
        try:
            await self.world.client.delete(kind, name or self.name, self.namespace, propagation_policy=policy)
        except NotFound:
            pass

    async def gone(self, kind: type[Any]) -> None:
        while self.get(kind) is not None:
            await self.world.clock.sleep(0.5)

    async def rest(self) -> None:
        await self.world.clock.sleep(self.chance.choice((0.0, 0.3, 2.0, PAUSE_MAX_S)) * self.chance.random())

    async def trouble_a_pod(self) -> None:
        """One of its pods is deleted by hand, or its containers crash."""
        pods = self.pods()
        if pods:
            pod = pods[int(self.chance.random() * len(pods))]
            if self.chance.random() < 0.5:
                await self.delete(Pod, name=pod.metadata.name or "")
            else:
                self.tell(f"crash {pod.metadata.name}")
                try:
                    await self.world.nodes.crash(f"{self.namespace}/{pod.metadata.name}")
                except APIError as error:
                    self.tell(f"the node could not say so: {error}")

    def tell(self, what: str) -> None:
        self.log.append(f"{self.world.clock.monotonic_s():8.3f} {self.name}: {what}")

    # What is there

    def get(self, kind: type[Any]) -> Any | None:
        return self.world.state.get(kind, f"{self.namespace}/{self.name}")

    def own(self, kind: type[Any]) -> list[Any]:
        """By their label, whoever owns them."""
        found = self.world.state.all(kind, self.namespace)
        return [obj for obj in found if obj.metadata.labels.get("app") == self.name]

    def pods(self) -> list[Pod]:
        return [pod for pod in self.own(Pod) if not is_going(pod) and not is_terminal(pod)]

    def template(self, image: str, **spec: Any) -> dict[str, Any]:
        container = {"name": "c", "image": image, "resources": {"requests": {"cpu": "100m", "memory": "10Mi"}}}
        metadata = {"labels": {"app": self.name}}
        return {"metadata": metadata, "spec": {"containers": [container], "tolerations": TOLERATIONS, **spec}}

    def images(self) -> Counter[str]:
        return Counter(pod.spec.containers[0].image or "" for pod in self.pods() if pod.spec and is_ready(pod))

    def nothing_left(self, *kinds: type[Any]) -> Iterator[str]:
        for kind in kinds:
            for obj in self.own(kind):
                yield f"{kind.__name__} {obj.metadata.name} is left"


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

    async def _evict(self, pod: Pod) -> None:
        name = pod.metadata.name or ""
        self.tell(f"evict {name}")
        try:
            await self.world.client.post(Pod, name, self.namespace, "eviction", Eviction(metadata=_named(name)))
        except APIError as error:
            self.tell(f"refused: {error}")


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
        self.spec = spec
        await self.create(StatefulSet, {"spec": spec})
        for _ in range(chance.randint(1, 4)):
            await self.rest()
            await chance.choice((self._scale, self._scale, self._roll, self._roll, self.trouble_a_pod, self._end))()
            if not self.there:
                return
        await self.rest()
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
        if status.current_revision != status.update_revision:
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
        await self.create(DaemonSet, {"spec": spec})
        for _ in range(chance.randint(1, 3)):
            await self.rest()
            await chance.choice((self._roll, self._roll, self.trouble_a_pod, self._end))()
            if not self.there:
                return

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


class JobStory(Story):
    kinds = (Job,)

    async def play(self) -> None:
        chance = self.chance
        self.there = True
        self.completions = chance.randint(1, 5)
        self.indexed = chance.random() < 0.4
        self.image = chance.choice(("works", "works", "flaky", "fails"))
        spec = {
            "completions": self.completions,
            "parallelism": chance.randint(1, 3),
            "backoffLimit": 1 if self.image == "fails" else 20,
            "completionMode": "Indexed" if self.indexed else "NonIndexed",
            "template": self.template(self.image, restartPolicy="Never"),
        }
        if chance.random() < 0.2:
            spec["podReplacementPolicy"] = "Failed"
        await self.create(Job, {"spec": spec})
        for _ in range(chance.randint(0, 3)):
            await self.rest()
            await chance.choice((self._parallel, self._suspend, self.trouble_a_pod, self._end))()
            if not self.there:
                return

    async def _parallel(self) -> None:
        await self.patch(Job, {"spec": {"parallelism": self.chance.randint(1, 4)}})

    async def _suspend(self) -> None:
        try:
            await self.patch(Job, {"spec": {"suspend": True}})
            await self.rest()
            await self.patch(Job, {"spec": {"suspend": False}})
        except APIError as error:
            self.tell(f"refused: {error}")

    async def _end(self) -> None:
        self.there = False
        await self.delete(Job, self.chance.choice(POLICIES[:2]))

    def wrong(self) -> Iterator[str]:
        if not self.there:
            yield from self.nothing_left(Pod)
            return
        job = self.get(Job)
        if job is None or not is_over(job):
            yield f"Job {self.name} has not ended"
            return
        ends = {each.type for each in job.status.conditions if each.status == "True"}
        wanted = "Failed" if self.image == "fails" else "Complete"
        if wanted not in ends:
            yield f"Job {self.name} ended {ends}, not {wanted}"
        if wanted == "Complete" and job.status.succeeded != self.completions:
            yield f"Job {self.name} counts {job.status.succeeded} of {self.completions}"
        if self.indexed and wanted == "Complete":
            every = f"0-{self.completions - 1}" if self.completions > 2 else ",".join(map(str, range(self.completions)))
            if job.status.completed_indexes != every:
                yield f"Job {self.name} says {job.status.completed_indexes}, not {every}"
        counted = job.status.uncounted_terminated_pods
        if job.status.active or (counted and (counted.succeeded or counted.failed)):
            yield f"Job {self.name} has {job.status.active} active, {counted} uncounted"
        for pod in self.own(Pod):
            if not is_terminal(pod):
                yield f"{pod.metadata.name} still is {phase(pod)}"
            if pod.metadata.finalizers:
                yield f"{pod.metadata.name} is held by {pod.metadata.finalizers}"


class QuotaStory(DeploymentStory):
    """More is asked than a namespace may have: several workloads push at once."""

    kinds = (Deployment, ResourceQuota)

    async def play(self) -> None:
        chance = self.chance
        self.namespace = self.name
        await self.world.client.create(Namespace(metadata=_named(self.name)))
        self.limit = chance.randint(1, 4)
        hard = {"pods": str(self.limit)} if chance.random() < 0.5 else {"requests.cpu": f"{self.limit * 100}m"}
        await self.create(ResourceQuota, {"spec": {"hard": hard}})
        await self.world.clock.sleep(4)
        self.replicas, self.image, self.there, self.orphans = chance.randint(1, 6), "one", True, False
        await self._create()
        for _ in range(chance.randint(1, 3)):
            await self.rest()
            await chance.choice((self._scale, self._loose, self.trouble_a_pod))()
        self.replicas = self.limit
        for pod in self.world.state.all(Pod, self.namespace):
            if not owner_uid(pod):
                await self.delete(Pod, name=pod.metadata.name)
        await self.patch(Deployment, {"spec": {"replicas": self.replicas}})

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


class CrowdStory(Story):
    """Single pods, more than may fit: all at once, and some go again."""

    async def play(self) -> None:
        chance = self.chance
        self.cpu_m = chance.choice((200, 400, 500))
        names = [f"{self.name}-{number}" for number in range(chance.randint(3, 9))]
        await asyncio.gather(*(self._come(name) for name in names))
        for _ in range(chance.randint(0, 2)):
            await self.rest()
            for name in chance.sample(names, 2):
                names.remove(name)
                await self.delete(Pod, name=name)
            names.append(f"{self.name}-again-{len(names)}-{chance.randrange(1000)}")
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


class NamespaceStory(DeploymentStory):
    """A namespace with a workload in it is deleted."""

    async def play(self) -> None:
        self.namespace = self.name
        await self.world.client.create(Namespace(metadata=_named(self.name)))
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


def _named(name: str) -> Any:
    return ObjectMeta(name=name)


STORIES: tuple[type[Story], ...] = (
    DeploymentStory,
    DeploymentStory,
    StatefulSetStory,
    StatefulSetStory,
    DaemonSetStory,
    JobStory,
    JobStory,
    BudgetStory,
    QuotaStory,
    OwnersStory,
    OwnersStory,
    CrowdStory,
    NamespaceStory,
)
