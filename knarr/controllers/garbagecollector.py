"""Garbage collection: what belongs to something that is gone goes too.

Every object may name its owners by uid. The collector keeps the graph of owners and dependents from the caches of all
kinds. When an owner goes, its dependents are looked at: those without any owner left are deleted, the others lose the
reference. That an owner is absent is always asked of the API server, never concluded from a cache. Owners are looked
for in the namespace of the dependent, so an owner in another namespace counts as absent.

With propagationPolicy Foreground an owner waits (finalizer foregroundDeletion) until the dependents that block it are
gone; with Orphan (finalizer orphan) they are let go first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any

from msgspec import DecodeError, Struct

from knarr.api.core.v1 import Event
from knarr.api.errors import APIError, Conflict, Invalid, NotFound
from knarr.api.meta.v1 import OwnerReference
from knarr.api.resources import Resource
from knarr.client.client import MERGE_PATCH
from knarr.client.controller import Controller
from knarr.client.informer import Informer, key_of
from knarr.controllers.together import together

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
ABSENT_MAX = 500
"""Owners known to be gone; uids never come back, so the memory needs no end but this."""
UNKNOWN_KIND_AGAIN_S = 30.0
"""An owner of a kind that isn't served may be of a kind that will be."""
ORPHANED_AT_ONCE = 50
"""Dependents let go in one batch."""


class Vertex(Struct, frozen=True):
    """An object in the graph."""

    resource: Resource
    key: str
    namespace: str | None
    uid: str
    owners: tuple[OwnerReference, ...]
    deleting: bool
    foreground: bool
    """It is being deleted, and waits for its dependents."""
    orphaning: bool
    """It is being deleted, and lets its dependents go first."""


class Owners(Struct):
    """The owners of an object, sorted by what they mean to it."""

    solid: list[OwnerReference]
    dangling: list[OwnerReference]
    waiting: list[OwnerReference]
    """They are being deleted in the foreground: they wait for this object to go."""


class GarbageCollector(Controller):
    """Deletes dependents of what is gone. Keys are uids."""

    name = "garbage-collector-controller"
    workers = 20

    def watch(self) -> None:
        self._vertices: dict[str, Vertex] = {}
        self._dependents: dict[str, dict[str, None]] = {}
        """uid of an owner, there or not → uids of those that name it."""
        self._absent: OrderedDict[tuple[str, str | None], None] = OrderedDict()
        self._caches: dict[Resource, Informer[Any]] = {}
        for resource in self.client.registry:
            left_out = resource.conversion is not None or resource.type is Event
            if {"list", "watch", "delete"} <= set(resource.verbs) and not left_out:
                self._follow(resource)

    async def reconcile(self, key: str) -> float | None:
        vertex = self._vertices.get(key)
        if vertex is None:
            return None
        if vertex.foreground:
            await self._await_dependents(vertex)
        elif vertex.orphaning:
            await self._let_go(vertex)
        if vertex.owners and (not vertex.deleting or vertex.foreground):
            return await self._weigh(vertex)
        return None

    # An object whose owners may be gone

    async def _weigh(self, vertex: Vertex) -> float | None:
        owners = Owners([], [], [])
        for reference in vertex.owners:
            there = await self._is_there(vertex, reference)
            if there is None:
                return UNKNOWN_KIND_AGAIN_S
            owner = self._vertices.get(reference.uid)
            if not there:
                owners.dangling.append(reference)
            elif owner is not None and owner.foreground:
                owners.waiting.append(reference)
            else:
                owners.solid.append(reference)
        if owners.solid:
            if owners.dangling or owners.waiting:
                await self._drop_references(vertex, [*owners.dangling, *owners.waiting])
        elif not vertex.deleting:
            await self._delete(vertex, foreground=bool(owners.waiting and self._dependents.get(vertex.uid)))
        return None

    async def _is_there(self, vertex: Vertex, reference: OwnerReference) -> bool | None:
        """Whether the owner exists where `vertex` may look for it; None when its kind isn't served."""
        group, _, version = reference.api_version.rpartition("/")
        resource = self.client.registry.by_kind(group, version, reference.kind)
        if resource is None:
            return await self._is_elsewhere(vertex, reference)
        if resource.namespaced and vertex.namespace is None:
            return None
        namespace = vertex.namespace if resource.namespaced else None
        owner = self._vertices.get(reference.uid)
        if owner is not None:
            if owner.namespace == namespace:
                return True
            self._tell_wrong_namespace(vertex, reference)
        if (reference.uid, namespace) in self._absent:
            return False
        try:
            live = await self.client.get(resource.type, reference.name, namespace)
        except NotFound:
            pass
        else:
            if live.metadata.uid == reference.uid:
                return True
        self._absent[reference.uid, namespace] = None
        if len(self._absent) > ABSENT_MAX:
            self._absent.popitem(last=False)
        return False

    async def _is_elsewhere(self, vertex: Vertex, reference: OwnerReference) -> bool | None:
        """As `_is_there`, of an owner of a kind that others serve, if anybody does."""
        base = f"/apis/{reference.api_version}"
        try:
            told = (await self.client.get_plain(base)).get("resources") or ()
            named = [each for each in told if each["kind"] == reference.kind and "/" not in each["name"]]
            if not named or (named[0].get("namespaced") and vertex.namespace is None):
                return None
            where = f"/namespaces/{vertex.namespace}" if named[0].get("namespaced") else ""
            path = f"{base}{where}/{named[0]['name']}/{reference.name}"
        except (APIError, DecodeError, AttributeError, KeyError, TypeError):
            return None
        try:
            live = await self.client.get_plain(path)
            return bool(live["metadata"]["uid"] == reference.uid)
        except NotFound:
            return False
        except (APIError, DecodeError, KeyError, TypeError):
            return None

    async def _delete(self, vertex: Vertex, *, foreground: bool) -> None:
        """Delete it just as the cache shows it: were its owners changed meanwhile, the revision would not be right."""
        obj = self._caches[vertex.resource].get(vertex.key)
        if obj is None:
            return
        if ORPHAN in obj.metadata.finalizers:
            policy = "Orphan"
        elif foreground or FOREGROUND in obj.metadata.finalizers:
            policy = "Foreground"
        else:
            policy = "Background"
        try:
            await self.client.delete(
                vertex.resource.type,
                obj.metadata.name,
                vertex.namespace,
                propagation_policy=policy,
                uid=vertex.uid,
                resource_version=obj.metadata.resource_version,
            )
        except NotFound:
            pass

    async def _drop_references(self, vertex: Vertex, references: Iterable[OwnerReference]) -> None:
        dropped = [{"$patch": "delete", "uid": reference.uid} for reference in references]
        patch = {"metadata": {"uid": vertex.uid, "ownerReferences": dropped}}
        try:
            await self.client.patch(vertex.resource.type, _name(vertex), patch, vertex.namespace)
        except NotFound:
            pass
        except Invalid:
            pass  # another object has its name now

    # An owner that waits for its dependents

    async def _await_dependents(self, vertex: Vertex) -> None:
        blocking = [dependent for dependent in self._dependents_of(vertex.uid) if _blocks(dependent, vertex.uid)]
        if not blocking:
            await self._remove_finalizer(vertex, FOREGROUND)
        for dependent in blocking:
            if not dependent.deleting:
                self.queue.add(dependent.uid)
        if blocking and self._waits_for_itself(vertex):
            await self._give_way(vertex)

    def _waits_for_itself(self, vertex: Vertex) -> bool:
        """It waits for a dependent that waits for one, and so on, that waits for `vertex`: they would for ever."""
        seen, waiting = {vertex.uid}, [vertex]
        while waiting:
            owner = waiting.pop()
            for dependent in self._dependents_of(owner.uid):
                if not dependent.foreground or not _blocks(dependent, owner.uid):
                    continue
                if dependent.uid == vertex.uid:
                    return True
                if dependent.uid not in seen:
                    seen.add(dependent.uid)
                    waiting.append(dependent)
        return False

    async def _give_way(self, vertex: Vertex) -> None:
        """Let its owners go before it."""
        freed = [{"uid": owner.uid, "blockOwnerDeletion": False} for owner in vertex.owners]
        patch = {"metadata": {"uid": vertex.uid, "ownerReferences": freed}}
        try:
            await self.client.patch(vertex.resource.type, _name(vertex), patch, vertex.namespace)
        except NotFound:
            pass

    async def _let_go(self, vertex: Vertex) -> None:
        references = [OwnerReference(uid=vertex.uid)]
        dependents = list(self._dependents_of(vertex.uid))
        for start in range(0, len(dependents), ORPHANED_AT_ONCE):
            batch = dependents[start : start + ORPHANED_AT_ONCE]
            await together(self._drop_references(dependent, references) for dependent in batch)
        await self._remove_finalizer(vertex, ORPHAN)

    async def _remove_finalizer(self, vertex: Vertex, finalizer: str) -> None:
        try:
            live = await self.client.get(vertex.resource.type, _name(vertex), vertex.namespace)
        except NotFound:
            return
        if live.metadata.uid != vertex.uid or finalizer not in live.metadata.finalizers:
            return
        left = [name for name in live.metadata.finalizers if name != finalizer]
        patch = {"metadata": {"resourceVersion": live.metadata.resource_version, "finalizers": left or None}}
        try:
            await self.client.patch(
                vertex.resource.type, _name(vertex), patch, vertex.namespace, content_type=MERGE_PATCH
            )
        except NotFound:
            pass
        except Conflict:
            self.queue.retry(vertex.uid)

    # The graph

    def _follow(self, resource: Resource) -> None:
        cache = self.informer(resource.type)
        self._caches[resource] = cache
        cache.add_handler(lambda old, new: self._changed(resource, old, new))

    def _changed(self, resource: Resource, old: Any | None, new: Any | None) -> None:
        if new is not None and old is not None and old.metadata.uid == new.metadata.uid:
            before, after = old.metadata, new.metadata
            if (
                before.owner_references == after.owner_references
                and before.finalizers == after.finalizers
                and before.deletion_timestamp == after.deletion_timestamp
            ):
                return
        elif old is not None:
            self._forget(old.metadata.uid)
        if new is not None:
            self._learn(resource, new)

    def _learn(self, resource: Resource, obj: Any) -> None:
        metadata = obj.metadata
        deleting = metadata.deletion_timestamp is not None
        vertex = Vertex(
            resource,
            key_of(obj),
            metadata.namespace,
            metadata.uid,
            tuple(metadata.owner_references),
            deleting,
            deleting and FOREGROUND in metadata.finalizers,
            deleting and ORPHAN in metadata.finalizers,
        )
        before = self._vertices.get(vertex.uid)
        self._vertices[vertex.uid] = vertex
        self._unlink(before)
        for owner in vertex.owners:
            self._dependents.setdefault(owner.uid, {})[vertex.uid] = None
        if vertex.foreground or vertex.orphaning or any(self._is_doubtful(vertex, owner) for owner in vertex.owners):
            self.queue.add(vertex.uid)
        if vertex.foreground and not (before and before.foreground):
            for dependent in self._dependents.get(vertex.uid, ()):
                self.queue.add(dependent)
        self._wake_waiting([*vertex.owners, *(before.owners if before else ())])

    def _forget(self, uid: str) -> None:
        vertex = self._vertices.pop(uid, None)
        self._unlink(vertex)
        for dependent in self._dependents.get(uid, ()):
            self.queue.add(dependent)
        if vertex:
            self._wake_waiting(vertex.owners)

    def _unlink(self, vertex: Vertex | None) -> None:
        for owner in vertex.owners if vertex else ():
            siblings = self._dependents.get(owner.uid)
            if siblings is not None:
                siblings.pop(vertex.uid, None)  # type: ignore[union-attr]
                if not siblings:
                    del self._dependents[owner.uid]

    def _is_doubtful(self, vertex: Vertex, reference: OwnerReference) -> bool:
        """The owner isn't known, is somewhere else, or is on its way out in the foreground."""
        owner = self._vertices.get(reference.uid)
        return owner is None or owner.foreground or owner.namespace not in (None, vertex.namespace)

    def _wake_waiting(self, references: Iterable[OwnerReference]) -> None:
        for reference in references:
            owner = self._vertices.get(reference.uid)
            if owner is not None and (owner.foreground or owner.orphaning):
                self.queue.add(owner.uid)

    def _dependents_of(self, uid: str) -> Iterator[Vertex]:
        for dependent in list(self._dependents.get(uid, ())):
            if dependent in self._vertices:
                yield self._vertices[dependent]

    def _tell_wrong_namespace(self, vertex: Vertex, reference: OwnerReference) -> None:
        obj = self._caches[vertex.resource].get(vertex.key)
        if obj is not None:
            named = (
                f"[{reference.api_version}/{reference.kind}, namespace: {vertex.namespace or ''}, "
                f"name: {reference.name}, uid: {reference.uid}]"
            )
            message = f'ownerRef {named} does not exist in namespace "{vertex.namespace or ""}"'
            self.events.warning(obj, "OwnerRefInvalidNamespace", message)


def _blocks(dependent: Vertex, uid: str) -> bool:
    """Whether an owner that goes in the foreground waits for it."""
    return any(owner.uid == uid and owner.block_owner_deletion for owner in dependent.owners)


def _name(vertex: Vertex) -> str:
    return vertex.key.rpartition("/")[2]
