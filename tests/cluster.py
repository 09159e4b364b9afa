"""A whole control plane in one process, in virtual time: store, API server, loops, scheduler, hollow nodes.

def test_something():
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(deployment("web", 3))
        await cluster.until(lambda: cluster.deployment("web").status.available_replicas == 3)
    simulate(scenario, nodes=3)
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import msgspec

from knarr.api.apps.v1 import Deployment, DeploymentStatus, ReplicaSet
from knarr.api.core.pod_state import is_ready
from knarr.api.core.v1 import Event, Namespace, Node, Pod, Service
from knarr.api.errors import NotFound
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.registry import built_in
from knarr.apiserver.bootstrap import local_class, priority_classes
from knarr.apiserver.server import APIServer, InProcessTransport
from knarr.client.client import Client
from knarr.client.informer import Informer, Informers, version_of
from knarr.client.transport import User
from knarr.clock import Clock
from knarr.controllers import controllers
from knarr.node.local_volumes import HollowFolders, LocalVolumes
from knarr.scheduler import Scheduler
from knarr.scheduler.configuration import Profile
from knarr.scheduler.extenders import Extender
from knarr.scheduler.framework import Aspect
from knarr.scheduler.plugins import ALL
from knarr.simulate.clock import VirtualClock, run
from knarr.simulate.nodes import HollowNodes
from knarr.store.memory import MemoryStore

T = TypeVar("T")

ADMINISTRATOR = User("admin", ("system:masters", "system:authenticated"))
UNTIL_MAX_S = 300.0
STEP_S = 0.1


class Cluster:
    """A running cluster, and caches to look at it by."""

    def __init__(
        self,
        clock: Clock,
        nodes: int,
        *,
        profiles: Sequence[Profile] = (Profile(),),
        plugins: Sequence[type[Aspect]] = ALL,
        extenders: Sequence[Extender] = (),
        **hollow: Any,
    ) -> None:
        self.clock = clock
        self.store = MemoryStore()
        self.server = APIServer(self.store, built_in(), clock)
        self.client = Client(InProcessTransport(self.server), built_in(), ADMINISTRATOR)
        self.informers = Informers(self.client, clock)
        self.pods: Informer[Pod] = self.informers.of(Pod)
        self.deployments: Informer[Deployment] = self.informers.of(Deployment)
        self.replica_sets: Informer[ReplicaSet] = self.informers.of(ReplicaSet)
        self.services: Informer[Service] = self.informers.of(Service)
        self.node_cache: Informer[Node] = self.informers.of(Node)
        self.nodes = HollowNodes(self.client, self.informers, clock, nodes, **hollow)
        self.loops = controllers(self.client, self.informers, clock, root_ca="-----BEGIN CERTIFICATE-----\n")
        self.volumes = LocalVolumes(self.client, self.informers, clock, self.nodes.names, HollowFolders())
        self.scheduler = Scheduler(self.client, self.informers, clock, profiles, plugins, extenders)

    async def run(self, scenario: Callable[[Cluster], Awaitable[T]]) -> T:
        """Run everything until the scenario is over."""
        async with asyncio.TaskGroup() as group:
            for name in ("default", "kube-node-lease"):
                await self.client.create(Namespace(metadata=ObjectMeta(name=name)))
            await priority_classes(self.client)
            await local_class(self.client)
            parts = [self.informers, self.nodes, *self.loops, self.volumes, self.scheduler]
            tasks = [group.create_task(part.run()) for part in parts]
            try:
                await self.until(lambda: len(self.node_cache.all()) == len(self.nodes.names))
                return await scenario(self)
            finally:
                for task in tasks:
                    task.cancel()

    async def create(self, obj: T) -> T:
        return await self._shown(await self.client.create(obj))

    async def until(self, holds: Callable[[], object], within_s: float = UNTIL_MAX_S) -> float:
        """Wait until `holds` answers something true; the time that it took."""
        began_s = self.clock.monotonic_s()
        while not holds():
            await self.clock.sleep(STEP_S)
            if self.clock.monotonic_s() - began_s > within_s:
                raise AssertionError(f"not within {within_s} s; pods: {self.summary()}")
        return self.clock.monotonic_s() - began_s

    async def patch(self, kind: type[T], name: str, patch: dict[str, Any]) -> T:
        """In the namespace default; the caches show it when this returns."""
        return await self._shown(await self.client.patch(kind, name, patch, "default"))

    async def _shown(self, obj: T) -> T:
        informer = self.informers.of(type(obj))
        await informer.synced.wait()
        await informer.reached(version_of(obj))
        return obj

    async def set_image(self, name: str, image: str) -> None:
        containers = [{"name": "c", "image": image}]
        await self.patch(Deployment, name, {"spec": {"template": {"spec": {"containers": containers}}}})

    def deployment(self, name: str) -> Deployment:
        found = self.deployments.get(f"default/{name}")
        if found is None:
            raise NotFound(name)
        return found

    def status(self, name: str) -> DeploymentStatus:
        return self.deployment(name).status or DeploymentStatus()

    def condition(self, name: str, type_: str) -> tuple[str, str]:
        """Status and reason."""
        for condition in self.status(name).conditions:
            if condition.type == type_:
                return condition.status, condition.reason or ""
        return "", ""

    def done(self, name: str) -> bool:
        """The rollout is complete, as `kubectl rollout status` sees it."""
        deployment, status = self.deployment(name), self.status(name)
        wanted = deployment.spec.replicas if deployment.spec else None
        return (status.observed_generation or 0) >= (deployment.metadata.generation or 0) and (
            status.updated_replicas or 0
        ) == (status.replicas or 0) == (status.available_replicas or 0) == wanted

    def images(self) -> list[str]:
        """Of the pods that are not on their way out."""
        return sorted(
            pod.spec.containers[0].image or ""
            for pod in self.pods.all()
            if pod.spec and pod.metadata.deletion_timestamp is None
        )

    def ready_pods(self) -> int:
        return sum(is_ready(pod) and pod.metadata.deletion_timestamp is None for pod in self.pods.all())

    async def events(self, reason: str = "") -> list[str]:
        """Messages, in the order of their time."""
        found = [event for event in (await self.client.list(Event)).items if reason in ("", event.reason)]
        found.sort(key=lambda event: event.metadata.name.rpartition(".")[2] if event.metadata.name else "")
        return [event.message or "" for event in found]

    def summary(self) -> list[str]:
        return [
            f"{pod.metadata.name} {pod.status.phase if pod.status else None} on {pod.spec.node_name}"
            for pod in self.pods.all()
            if pod.spec
        ]


def simulate(scenario: Callable[[Cluster], Awaitable[T]], *, nodes: int = 3, seed: int = 0, **hollow: Any) -> T:
    """Run a scenario on a fresh cluster in virtual time."""

    async def main(clock: VirtualClock) -> T:
        return await Cluster(clock, nodes, **hollow).run(scenario)

    return run(main, seed)


def deployment(name: str = "web", replicas: int = 3, image: str = "one", **spec: Any) -> Deployment:
    labels = {"app": name}
    template = spec.pop("template", {})
    return msgspec.convert(
        {
            "metadata": {"name": name, "namespace": "default"},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {
                        "containers": [{"name": "c", "image": image, "resources": {"requests": {"cpu": "10m"}}}],
                        **template,
                    },
                },
                **spec,
            },
        },
        Deployment,
    )
