"""The volumes of a pod's claims: on a node where they can be had, and bound before the pod is (KEP-490, KEP-1472).

A claim that is bound says by its volume where it can be had. One that waits for its first pod gets a volume that
suits it on the node, or, where its class makes volumes, the name of the node for whoever makes them; the pod follows
when all its claims are bound. Any other unbound claim has to be bound first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import Any, ClassVar

from msgspec import Struct

from knarr.api.core.v1 import Node, PersistentVolume, PersistentVolumeClaim, Pod, TopologySelectorTerm
from knarr.api.core.volume_matching import (
    NO_PROVISIONER,
    SELECTED_NODE,
    asked,
    best_on,
    claim_class,
    claim_spec,
    claims_of,
    is_completely_bound,
    is_made_for,
    kept_for,
    not_made_for,
    reaches,
    volume_class,
)
from knarr.api.errors import APIError
from knarr.api.meta.owners import selector_for
from knarr.api.quantity import parse_quantity
from knarr.api.storage.v1 import CSIDriver, CSIStorageCapacity, StorageClass
from knarr.api.types import replace
from knarr.client.informer import Informer, key_of
from knarr.scheduler.cache import NodeInfo, PodInfo
from knarr.scheduler.framework import BindingRefused, Connections, Outside, Refusal
from knarr.scheduler.happenings import Happening, Hint, What

NAME = "VolumeBinding"
BIND_S_MAX = 600.0
"""A pod whose claims are not bound by then is placed anew."""
NODE_CONFLICT = "node(s) didn't match PersistentVolume's node affinity"
NOTHING_TO_BIND = "node(s) didn't find available persistent volumes to bind"
NO_SPACE = "node(s) did not have enough free storage"
VOLUME_GONE = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"
UNBOUND = "pod has unbound immediate PersistentVolumeClaims"


class Wanted(Struct, frozen=True):
    """A pod's claims: those that are bound, with their volumes, and those that its node decides about."""

    bound: list[tuple[PersistentVolumeClaim, PersistentVolume | None]]
    delayed: list[PersistentVolumeClaim]


class Decision(Struct, frozen=True):
    """What is to become of the claims that wait, on one node."""

    found: list[tuple[PersistentVolumeClaim, PersistentVolume]]
    to_make: list[PersistentVolumeClaim]


class VolumeBinding(Outside):
    name = NAME
    helped_by: ClassVar = {
        Node: What.ADDED | What.LABELS,
        PersistentVolumeClaim: What.ADDED | What.CHANGED | What.GONE,
        PersistentVolume: What.ADDED | What.CHANGED,
        StorageClass: What.ADDED | What.CHANGED,
        CSIDriver: What.ADDED | What.CHANGED,
        CSIStorageCapacity: What.ADDED | What.CHANGED,
    }

    def hint(self, pod: PodInfo, happening: Happening) -> Hint:
        """Its own claims make the difference at once; volumes, and who makes them, may suit one of them."""
        if happening.kind is PersistentVolumeClaim:
            key = key_of(happening.new or happening.old)
            return Hint.AT_ONCE if key in claims_of(pod.pod) else Hint.SKIP
        return Hint.QUEUE

    def connect(self, to: Connections) -> Sequence[Informer[Any]]:
        self._client, self._clock = to.client, to.clock
        self._pods = to.informers.of(Pod)
        self._claims = to.informers.of(PersistentVolumeClaim)
        self._volumes = to.informers.of(PersistentVolume)
        self._volumes.add_index("class", lambda volume: [volume_class(volume)])
        self._classes = to.informers.of(StorageClass)
        self._drivers = to.informers.of(CSIDriver)
        self._capacities = to.informers.of(CSIStorageCapacity)
        self._taken: dict[str, str] = {}
        """Volumes that were chosen and don't say so yet → the claim."""
        self._reserved: dict[str, Decision] = {}
        """Pod → what was decided for its node."""
        self._stirred = asyncio.Event()
        for informer in (self._claims, self._volumes, self._pods):
            informer.add_handler(lambda _old, _new: self._stirred.set())
        return self._claims, self._volumes, self._classes, self._drivers, self._capacities

    # -- whether

    def prepare(self, pod: PodInfo) -> Wanted | Refusal | None:
        wanted = Wanted([], [])
        for key in claims_of(pod.pod):
            claim = self._claims.get(key)
            refusal = self._unusable(pod.pod, key, claim)
            if claim is None or refusal:
                return Refusal(NAME, (refusal,), curable=False)
            named = claim_spec(claim).volume_name
            if is_completely_bound(claim):
                wanted.bound.append((claim, self._volumes.get(named or "")))
            elif self._is_delayed(claim) and not named:
                wanted.delayed.append(claim)
            else:
                return Refusal(NAME, (UNBOUND,), curable=False)
        wanted.delayed.sort(key=asked)
        return wanted if wanted.bound or wanted.delayed else None

    def _unusable(self, pod: Pod, key: str, claim: PersistentVolumeClaim | None) -> str:
        """Why the pod can't have a claim on any node; empty when it can."""
        name = key.partition("/")[2]
        volumes = pod.spec.volumes if pod.spec else []
        own = any(each.ephemeral and f"{pod.metadata.name}-{each.name}" == name for each in volumes)
        if claim is None and own:
            return f'waiting for ephemeral volume controller to create the persistentvolumeclaim "{name}"'
        if claim is None:
            return f'persistentvolumeclaim "{name}" not found'
        if claim.status and claim.status.phase == "Lost":
            named = claim_spec(claim).volume_name
            return f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume "{named}"'
        if claim.metadata.deletion_timestamp is not None:
            return f'persistentvolumeclaim "{name}" is being deleted'
        return not_made_for(claim, pod) if own and not is_made_for(claim, pod) else ""

    def _is_delayed(self, claim: PersistentVolumeClaim) -> bool:
        storage_class = self._classes.get(claim_class(claim))
        return storage_class is not None and storage_class.volume_binding_mode == "WaitForFirstConsumer"

    def filter(self, prepared: Wanted, node: NodeInfo) -> Refusal | None:
        assert node.node is not None
        reasons = []
        if any(volume is None for _, volume in prepared.bound):
            reasons.append(VOLUME_GONE)
        if not all(volume is None or reaches(volume, node.node) for _, volume in prepared.bound):
            reasons.insert(0, NODE_CONFLICT)
        if prepared.delayed:
            decision = self._decide(prepared.delayed, node.node)
            if isinstance(decision, str):
                reasons.append(decision)
        return Refusal(NAME, tuple(reasons), curable=False) if reasons else None

    def _decide(self, claims: Sequence[PersistentVolumeClaim], node: Node) -> Decision | str:
        """What to do about each claim on a node, or why it can't be done."""
        decision = Decision([], [])
        name = node.metadata.name or ""
        for claim in claims:
            selected = claim.metadata.annotations.get(SELECTED_NODE)
            if selected is not None and selected != name:
                return NOTHING_TO_BIND
            taken = {volume for volume, whose in self._taken.items() if whose != key_of(claim)}
            taken |= {volume.metadata.name or "" for _, volume in decision.found}
            volume = self._found(claim, node, taken) if selected is None else None
            if volume is not None:
                decision.found.append((claim, volume))
                continue
            refusal = self._cannot_make(claim, node)
            if refusal:
                return refusal
            decision.to_make.append(claim)
        return decision

    def _found(self, claim: PersistentVolumeClaim, node: Node, taken: Collection[str]) -> PersistentVolume | None:
        return best_on(claim, self._volumes.by_index("class", claim_class(claim)), node, taken)

    def _cannot_make(self, claim: PersistentVolumeClaim, node: Node) -> str:
        storage_class = self._classes.get(claim_class(claim))
        if storage_class is None or storage_class.provisioner in ("", NO_PROVISIONER):
            return NOTHING_TO_BIND
        terms = storage_class.allowed_topologies
        if terms and not any(is_within(term, node) for term in terms):
            return NOTHING_TO_BIND
        driver = self._drivers.get(storage_class.provisioner)
        if driver is None or not driver.spec.storage_capacity:
            return ""
        return "" if any(self._holds(each, claim, node) for each in self._capacities.all()) else NO_SPACE

    def _holds(self, there: CSIStorageCapacity, claim: PersistentVolumeClaim, node: Node) -> bool:
        """Whether a driver has said that there is room for the claim where the node can reach it."""
        selector = selector_for(there.node_topology) if there.node_topology else None
        largest = there.maximum_volume_size if there.maximum_volume_size is not None else there.capacity
        return (
            there.storage_class_name == claim_class(claim)
            and selector is not None
            and selector.matches(node.metadata.labels)
            and largest is not None
            and parse_quantity(largest) >= asked(claim)
        )

    # -- what follows

    def reserve(self, pod: PodInfo, node: NodeInfo) -> None:
        prepared = self.prepare(pod)
        if not isinstance(prepared, Wanted) or not prepared.delayed or node.node is None:
            return
        decision = self._decide(prepared.delayed, node.node)
        assert not isinstance(decision, str), "the node was found good a moment ago"
        self._reserved[pod.key] = decision
        for claim, volume in decision.found:
            self._taken[volume.metadata.name or ""] = key_of(claim)

    def unreserve(self, pod: PodInfo) -> None:
        decision = self._reserved.pop(pod.key, None)
        for _, volume in decision.found if decision else ():
            self._taken.pop(volume.metadata.name or "", None)

    def before_binding(self, pod: PodInfo, node_name: str) -> Callable[[], Awaitable[None]] | None:
        decision = self._reserved.get(pod.key)
        return partial(self._bind, pod, decision, node_name) if decision is not None else None

    async def _bind(self, pod: PodInfo, decision: Decision, node_name: str) -> None:
        """Write what was decided, and wait until the binder and who makes volumes have done their part."""
        try:
            for claim, volume in decision.found:
                kept = kept_for(volume, claim)
                if kept is not volume:
                    await self._client.update(kept)
            for claim in decision.to_make:
                if SELECTED_NODE not in claim.metadata.annotations:
                    annotations = {**claim.metadata.annotations, SELECTED_NODE: node_name}
                    metadata = replace(claim.metadata, annotations=annotations)
                    await self._client.update(replace(claim, metadata=metadata))
                # What comes from the caches from here on shows the annotation, or its having been taken back.
            async with self._clock.timeout(BIND_S_MAX):
                await self._all_bound(pod, decision, node_name)
            self.unreserve(pod)  # the claims say by themselves now what they have
        except APIError as error:
            raise BindingRefused(f'running PreBind plugin "{NAME}": binding volumes: {error}') from error
        except TimeoutError as error:
            about = "binding volumes: context deadline exceeded"
            raise BindingRefused(f'running PreBind plugin "{NAME}": {about}') from error

    async def _all_bound(self, pod: PodInfo, decision: Decision, node_name: str) -> None:
        waiting = {key_of(claim): claim for claim, _ in decision.found}
        made = {key_of(claim): claim for claim in decision.to_make}
        chosen: set[str] = set()
        while True:
            self._stirred.clear()
            if (now := self._pods.get(pod.key)) is None or now.metadata.uid != pod.pod.metadata.uid:
                raise BindingRefused("")
            done = True
            for key in (*waiting, *made):
                claim = self._claims.get(key)
                if claim is None:
                    about = f'persistentvolumeclaim "{key.partition("/")[2]}" not found'
                    raise BindingRefused(f'running PreBind plugin "{NAME}": binding volumes: {about}')
                if is_completely_bound(claim):
                    continue
                done = False
                selected = claim.metadata.annotations.get(SELECTED_NODE)
                if selected == node_name:
                    chosen.add(key)
                elif key in chosen:
                    about = f'provisioning failed for PVC "{key.partition("/")[2]}"'
                    raise BindingRefused(f'running PreBind plugin "{NAME}": binding volumes: {about}')
            if done:
                return
            await self._stirred.wait()


def is_within(term: TopologySelectorTerm, node: Node) -> bool:
    labels = node.metadata.labels
    return all(labels.get(each.key) in each.values for each in term.match_label_expressions)
