"""One user and what they own: the base of all stories, and what users do in them."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any, ClassVar

import msgspec

from knarr.api.core.v1 import Pod
from knarr.api.errors import APIError, NotFound
from knarr.api.meta.v1 import ObjectMeta
from knarr.client.client import MERGE_PATCH
from tests.simulate.objects import is_going, is_ready, is_terminal
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
    """What it is about, beside pods: its loops run, and its kinds are served."""
    alone: ClassVar[bool] = False
    """It leaves no room to others."""

    def __init__(self, world: World, chance: random.Random, name: str) -> None:
        self.world = world
        self.chance = chance
        self.name = name
        self.namespace = "default"
        self.log: list[str] = []
        self._names = itertools.count()

    async def play(self) -> None:
        raise NotImplementedError

    def wrong(self) -> Iterator[str]:
        raise NotImplementedError

    # What users do

    def fresh(self) -> str:
        """A name that it has not used."""
        return f"{self.name}-{next(self._names)}"

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

    async def replace_old(self, image: str) -> None:
        """Pods are replaced only when they are deleted: those with another image, once all know which it is to be."""
        await self.world.clock.sleep(ADOPTED_S)
        for pod in self.own(Pod):
            if pod.spec.containers[0].image != image:
                await self.delete(Pod, name=pod.metadata.name or "")

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


def named(name: str) -> ObjectMeta:
    return ObjectMeta(name=name)
