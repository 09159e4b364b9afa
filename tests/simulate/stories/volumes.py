"""Users of claims, and of the volumes that they are bound to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from knarr.api.apps.v1 import StatefulSet
from knarr.api.core.v1 import PersistentVolume, PersistentVolumeClaim, Pod
from knarr.api.errors import APIError, NotFound
from knarr.api.storage.v1 import StorageClass
from tests.simulate.objects import is_going, is_ready, ordinal_of, size_of
from tests.simulate.stories.story import Story
from tests.simulate.stories.workloads import StatefulSetStory

VOLUME_KINDS = (PersistentVolume, PersistentVolumeClaim, StorageClass)
SIZES = ("1Gi", "2Gi", "3Gi")


class VolumeStory(Story):
    """Claims of three kinds, pods that use them, and users who delete both while they are in use."""

    kinds = VOLUME_KINDS

    async def play(self) -> None:
        chance = self.chance
        self.claims: dict[str, str] = {}
        """Name → class, of those that are to be there."""
        self.used_by: dict[str, str] = {}
        """Name of a pod → its claim; those of their own have one by their name."""
        self.static = f"{self.name}-static"
        await self._make_class(f"{self.name}-now", "knarr.dev/local", "Immediate")
        await self._make_class(self.static, "kubernetes.io/no-provisioner", chance.choice(("Immediate", WAITS)))
        for number in range(chance.randint(1, 3)):
            await self._make_volume(number)
        for _ in range(chance.randint(2, 4)):
            await self._claim()
        steps = (
            self._claim,
            self._use,
            self._use,
            self._use_own,
            self._bring,
            self._bring,
            self._snatch,
            self._delete_claim,
            self._delete_claim,
            self._delete_pod,
            self._delete_volume,
            self._grow,
            self._again,
        )
        for _ in range(chance.randint(3, 9)):
            await self.rest()
            await chance.choice(steps)()
        for pod, claim in list(self.used_by.items()):
            if claim not in self.claims and claim != f"{pod}-own":
                await self._delete_pod(pod)

    # What they do

    async def _make_class(self, name: str, provisioner: str, mode: str) -> None:
        written = {"metadata": {"name": name, "namespace": None}, "provisioner": provisioner, "volumeBindingMode": mode}
        await self.create(StorageClass, written | {"allowVolumeExpansion": True})

    async def _make_volume(self, number: int) -> None:
        spec = {
            "capacity": {"storage": self.chance.choice(SIZES)},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": self.static,
            "hostPath": {"path": f"/data/{number}"},
        }
        metadata = {"name": f"{self.name}-volume-{number}", "namespace": None, "labels": {"app": self.name}}
        await self.create(PersistentVolume, {"metadata": metadata, "spec": spec})

    async def _claim(self, name: str = "", storage_class: str = "") -> None:
        name = name or self.fresh()
        classes = ("local", "local", f"{self.name}-now", self.static, self.static)
        self.claims[name] = storage_class or self.chance.choice(classes)
        spec = _claim_spec(self.claims[name], self.chance.choice(SIZES))
        metadata = {"name": name, "labels": {"app": self.name}}
        await self.create(PersistentVolumeClaim, {"metadata": metadata, "spec": spec})

    async def _use(self, claim: str = "") -> None:
        """Pods may share a claim."""
        if self.claims:
            claim = claim or self.chance.choice(sorted(self.claims))
            volume = {"name": "data", "persistentVolumeClaim": {"claimName": claim}}
            await self._pod(claim, volume)

    async def _bring(self) -> None:
        """A claim and its first pod at once: some of the loops see the pod first, or what others did with both."""
        name = self.fresh()
        await self._claim(name, self.chance.choice(("local", self.static, self.static)))
        await self._use(name)

    async def _snatch(self) -> None:
        """A claim is deleted just as a pod comes to it: not all of the loops see that it is in use."""
        if self.claims:
            name = self.chance.choice(sorted(self.claims))
            await self._use(name)
            await self.world.clock.sleep(self.chance.uniform(0, 1.5))
            await self._delete_claim(name)

    async def _use_own(self) -> None:
        """A claim that is made for the pod, and goes with it."""
        spec = _claim_spec(self.chance.choice(("local", f"{self.name}-now")), "1Gi")
        template = {"metadata": {"labels": {"app": self.name}}, "spec": spec}
        await self._pod("", {"name": "own", "ephemeral": {"volumeClaimTemplate": template}})

    async def _pod(self, claim: str, volume: dict[str, Any]) -> None:
        name = self.fresh()
        self.used_by[name] = claim or f"{name}-own"
        written = self.template("one", volumes=[volume])
        written["metadata"] |= {"name": name}
        await self.create(Pod, written)

    async def _delete_claim(self, name: str = "") -> None:
        if self.claims:
            name = name or self.chance.choice(sorted(self.claims))
            del self.claims[name]
            await self.delete(PersistentVolumeClaim, name=name)

    async def _again(self) -> None:
        """Another claim of the same name: it gets none of the data of the first."""
        if not self.claims:
            return
        name = self.chance.choice(sorted(self.claims))
        await self._delete_claim_for_good(name)
        await self._claim(name)

    async def _delete_claim_for_good(self, name: str) -> None:
        for pod in [pod for pod, claim in self.used_by.items() if claim == name]:
            await self._delete_pod(pod)
        await self.delete(PersistentVolumeClaim, name=name)
        while self.world.state.get(PersistentVolumeClaim, f"{self.namespace}/{name}") is not None:
            await self.world.clock.sleep(0.5)

    async def _delete_pod(self, name: str = "") -> None:
        if self.used_by:
            name = name or self.chance.choice(sorted(self.used_by))
            del self.used_by[name]
            await self.delete(Pod, name=name)

    async def _delete_volume(self) -> None:
        """It stays while a claim is bound to it."""
        volumes = sorted(each.metadata.name for each in self.world.state.all(PersistentVolume))
        if volumes:
            name = self.chance.choice(volumes)
            self.tell(f"delete volume {name}")
            try:
                await self.world.client.delete(PersistentVolume, name)
            except NotFound:
                pass

    async def _grow(self) -> None:
        grown = sorted(name for name, storage_class in self.claims.items() if storage_class != self.static)
        if grown:
            try:
                spec = {"resources": {"requests": {"storage": "4Gi"}}}
                await self.patch(PersistentVolumeClaim, {"spec": spec}, self.chance.choice(grown))
            except APIError as error:
                self.tell(f"refused: {error}")  # only those that are bound grow

    # How it must end

    def wrong(self) -> Iterator[str]:
        state = self.world.state
        there = {pod.metadata.name for pod in self.own(Pod)}
        own = {f"{pod}-own" for pod, claim in self.used_by.items() if pod in there and claim == f"{pod}-own"}
        claims = {each.metadata.name: each for each in self.own(PersistentVolumeClaim)}
        if claims.keys() != self.claims.keys() | own:
            yield f"{self.name} has the claims {sorted(claims)}, not {sorted(self.claims.keys() | own)}"
            return
        volumes = {each.metadata.name: each for each in state.all(PersistentVolume)}
        for name, claim in claims.items():
            yield from self._wrong_claim(name, claim, volumes)
        everybodys = {each.metadata.uid: each for each in state.all(PersistentVolumeClaim)}
        for name, volume in volumes.items():
            yield from _wrong_volume(name, volume, everybodys)
        made = {name for name in volumes if name.startswith("pvc-")}
        if self.world.folders.there != made:
            yield f"there are the folders {sorted(self.world.folders.there)}"
        for pod in self.own(Pod):
            claim = claims.get(self.used_by.get(pod.metadata.name, ""))
            if claim is not None and claim.status.phase == "Bound" and not is_ready(pod) and not is_going(pod):
                yield f"{pod.metadata.name} is not ready, though it has its volume"

    def _wrong_claim(self, name: str, claim: Any, volumes: dict[str, Any]) -> Iterator[str]:
        volume = volumes.get(claim.spec.volume_name or "")
        if claim.status.phase == "Lost":
            return  # a user has deleted its volume before the claim was bound to it
        if volume is not None:
            if (claim.status.phase, volume.status.phase) != ("Bound", "Bound"):
                yield f"{name} is {claim.status.phase}, its volume {volume.status.phase}"
            if volume.spec.claim_ref is None or volume.spec.claim_ref.uid != claim.metadata.uid:
                yield f"{name} has the volume of another claim"
            if size_of(claim.status.capacity) < size_of(claim.spec.resources.requests):
                yield f"{name} has {claim.status.capacity}, not {claim.spec.resources.requests}"
        elif claim.spec.storage_class_name == f"{self.name}-now":
            yield f"{name} has no volume"
        elif claim.spec.storage_class_name == self.static and not self._waits(claim):
            free = [
                each.metadata.name
                for each in volumes.values()
                if each.spec.claim_ref is None
                and not is_going(each)
                and each.spec.storage_class_name == self.static
                and size_of(each.spec.capacity) >= size_of(claim.spec.resources.requests)
            ]
            if free:
                yield f"{name} has no volume, though {free} would do"

    def _waits(self, claim: Any) -> bool:
        """For its first pod."""
        storage_class = self.world.state.get(StorageClass, claim.spec.storage_class_name)
        used = any(name == claim.metadata.name for name in self.used_by.values())
        return bool(storage_class.volume_binding_mode == WAITS and not used)


WAITS = "WaitForFirstConsumer"


def _wrong_volume(name: str, volume: Any, claims: dict[str, Any]) -> Iterator[str]:
    reference = volume.spec.claim_ref
    claim = claims.get(reference.uid) if reference else None
    if claim is not None and claim.spec.volume_name == name:
        return
    if name.startswith("pvc-"):
        yield f"volume {name} is left"
    elif is_going(volume):
        yield f"volume {name} does not go"
    elif volume.status.phase != ("Released" if reference and reference.uid else "Available"):
        yield f"volume {name} is {volume.status.phase}"


def _claim_spec(storage_class: str, size: str) -> dict[str, Any]:
    return {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": storage_class,
        "resources": {"requests": {"storage": size}},
    }


ROLLING_S = 60.0
"""For so long an update may have taken pods away that are to come again."""


class KeeperStory(StatefulSetStory):
    """A StatefulSet whose pods have claims of their own: kept, or deleted with what they were made for."""

    kinds = (StatefulSet, *VOLUME_KINDS)

    async def play(self) -> None:
        self.retention = {key: self.chance.choice(("Retain", "Delete")) for key in ("whenScaled", "whenDeleted")}
        self.by_hand: set[int] = set()
        """Ordinals whose pods a user has deleted: if the set shrinks then, nobody notes that its claim goes too."""
        self.left: set[int] = set()
        """Ordinals whose claims may be without a pod just when they become too many: then nobody tells them to go."""
        self.rolled_s = -ROLLING_S
        await super().play()

    async def _roll(self) -> None:
        self.rolled_s = self.world.clock.monotonic_s()
        await super()._roll()

    async def _scale(self) -> None:
        if self.world.clock.monotonic_s() - self.rolled_s < ROLLING_S:
            self.left |= {ordinal_of(each) for each in self._claims()}
        await super()._scale()

    async def create(self, kind: type[Any], written: dict[str, Any]) -> None:
        if kind is StatefulSet:
            claim = {"metadata": {"name": "data"}, "spec": _claim_spec("local", "1Gi")}
            more = {"volumeClaimTemplates": [claim], "persistentVolumeClaimRetentionPolicy": self.retention}
            written = written | {"spec": written["spec"] | more}
            self.left |= {ordinal_of(each) for each in self._claims()}
        await super().create(kind, written)

    async def delete(self, kind: type[Any], policy: str = "Background", name: str = "") -> None:
        if kind is Pod:
            self.by_hand.add(int(name.rpartition("-")[2]))
        await super().delete(kind, policy, name)

    def wrong(self) -> Iterator[str]:
        yield from super().wrong()
        claims = {ordinal_of(each): each for each in self._claims()}
        wanted = set(range(self.first, self.first + self.replicas)) if self.there else set()
        if not wanted <= claims.keys():
            yield f"{self.name} has claims for {sorted(claims)}, not for {sorted(wanted)}"
        gone = "whenScaled" if self.there else "whenDeleted"
        # A claim that came, and its pod did not before the set was made smaller, stays, as upstream.
        sure = not (self.world.odds.uncertain or self.world.odds.refused)
        if sure and self.retention[gone] == "Delete" and claims.keys() - self.by_hand - self.left - wanted:
            yield f"{self.name} keeps the claims of {sorted(claims.keys() - wanted)}, and {gone} is Delete"
        volumes = {each.spec.claim_ref.uid for each in self.world.state.all(PersistentVolume) if each.spec.claim_ref}
        for ordinal, claim in claims.items():
            if claim.status.phase == "Bound" and claim.metadata.uid not in volumes:
                yield f"the claim of {ordinal} has no volume"

    def _claims(self) -> list[Any]:
        prefix = f"data-{self.name}-"
        found = self.world.state.all(PersistentVolumeClaim, self.namespace)
        return [each for each in found if each.metadata.name.startswith(prefix)]
