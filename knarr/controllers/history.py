"""ControllerRevisions: the templates that a StatefulSet or a DaemonSet had, by which it updates and is rolled back.

A revision holds, as a strategic merge patch, all of the workload that a rollback brings back: its pod template. Numbers
rise; a template that was there before gets the newest number again instead of a second revision (upstream's
pkg/controller/history). `kubectl rollout history` and `undo` read them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from knarr.api.apps.v1 import ControllerRevision
from knarr.api.core.v1 import PodTemplateSpec
from knarr.api.errors import AlreadyExists, Conflict, NotFound
from knarr.api.meta.owners import controller_of, owner_reference
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.selectors import Selector
from knarr.client.client import MERGE_PATCH, Client
from knarr.client.informer import Informer
from knarr.controllers.ownership import claim, is_going, orphans, owner_index
from knarr.controllers.revisions import SAFE_ALPHABET

REVISION_LABEL = "controller-revision-hash"
"""On pods: which revision they were made of."""
NAME_BASE_MAX = 223
"""Characters of the workload's name in a revision's."""
COLLISIONS_MAX = 100
"""Names tried for one revision."""


class History:
    """The revisions of the workloads of one kind."""

    def __init__(self, client: Client, revisions: Informer[ControllerRevision], hash_label: str) -> None:
        """`hash_label`: under which label a revision tells its hash."""
        self._client = client
        self._revisions = revisions
        self._hash_label = hash_label
        revisions.add_index("owner", owner_index)

    async def of(self, owner: Any, selector: Selector | None) -> list[ControllerRevision]:
        """Those of `owner`, oldest first, after adopting and releasing."""
        loose = self._revisions.by_index("owner", orphans(owner.metadata.namespace or ""))
        owned = self._revisions.by_index("owner", owner.metadata.uid or "")
        return sorted(await claim(self._client, owner, selector, owned, loose), key=_age)

    async def newest(
        self, owner: Any, template: PodTemplateSpec, known: Sequence[ControllerRevision], collisions: int
    ) -> tuple[ControllerRevision, int]:
        """The revision of `template`, the newest of all when this returns; and how many names were taken so far.

        For an owner that is being deleted none is written: it would be collected, made again, and so on.
        """
        data = patch_of(template)
        equal = [revision for revision in known if revision.data == data]
        if is_going(owner):
            return (equal[-1] if equal else self._made(owner, template, data, _next(known), collisions)), collisions
        if not equal:
            return await self._create(owner, template, data, _next(known), collisions)
        if equal[-1] is known[-1]:
            return equal[-1], collisions
        return await self._renumber(equal[-1], _next(known)), collisions

    async def truncate(self, known: Sequence[ControllerRevision], live: Collection[str | None], limit: int) -> None:
        """Delete the oldest, but for the `limit` newest of those that no pod and no status names (`live`)."""
        history = [revision for revision in known if revision.metadata.name not in live]
        for revision in history[: max(0, len(history) - limit)]:
            try:
                await self._client.delete(ControllerRevision, revision.metadata.name or "", revision.metadata.namespace)
            except NotFound:
                pass

    async def _create(
        self, owner: Any, template: PodTemplateSpec, data: Mapping[str, Any], number: int, collisions: int
    ) -> tuple[ControllerRevision, int]:
        for tried in range(collisions, collisions + COLLISIONS_MAX):
            revision = self._made(owner, template, data, number, tried)
            try:
                return await self._client.create(revision), tried
            except AlreadyExists:
                name, namespace = revision.metadata.name or "", revision.metadata.namespace
                there = await self._client.get(ControllerRevision, name, namespace)
                if there.data == data and _may_be_taken(there, owner):
                    return there, tried  # made before a crash, or let go: the cache is about to show it
        raise AlreadyExists(f"no free name for a revision of {owner.kind} {owner.metadata.name}")

    async def _renumber(self, revision: ControllerRevision, number: int) -> ControllerRevision:
        name, namespace = revision.metadata.name or "", revision.metadata.namespace
        patch = {"revision": number}
        return await self._client.patch(ControllerRevision, name, patch, namespace, content_type=MERGE_PATCH)

    def _made(
        self, owner: Any, template: PodTemplateSpec, data: Mapping[str, Any], number: int, collisions: int
    ) -> ControllerRevision:
        hashed = hash_of(data, collisions)
        labels = template.metadata.labels if template.metadata else {}
        return ControllerRevision(
            metadata=ObjectMeta(
                name=f"{owner.metadata.name[:NAME_BASE_MAX]}-{hashed}",
                namespace=owner.metadata.namespace,
                labels={**labels, self._hash_label: hashed},
                annotations=owner.metadata.annotations,
                owner_references=[owner_reference(owner)],
            ),
            data=dict(data),
            revision=number,
        )


def patch_of(template: PodTemplateSpec) -> dict[str, Any]:
    """The template as the patch that brings it back whole.

    Keys are in order: kubectl compares the bytes with its own, and skips a rollback to what is there.
    """
    written: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(template, order="sorted"))
    return {"spec": {"template": {"$patch": "replace", **written}}}


def template_of(revision: ControllerRevision) -> PodTemplateSpec:
    """The template that a revision brings back."""
    data = revision.data or {}
    written = dict(data.get("spec", {}).get("template", {}))
    written.pop("$patch", None)
    return msgspec.convert(written, PodTemplateSpec)


def hash_of(data: Mapping[str, Any], collisions: int) -> str:
    """A short stable hash; another one for each collision."""
    written = msgspec.json.encode(data, order="sorted")
    digest = hashlib.blake2b(written, digest_size=5, salt=collisions.to_bytes(8, "big")).digest()
    return "".join(SAFE_ALPHABET[ord(digit) % len(SAFE_ALPHABET)] for digit in str(int.from_bytes(digest, "big")))


def _next(known: Sequence[ControllerRevision]) -> int:
    return known[-1].revision + 1 if known else 1


def _age(revision: ControllerRevision) -> tuple[int, Any, str]:
    metadata = revision.metadata
    return revision.revision, metadata.creation_timestamp, metadata.name or ""


def _may_be_taken(revision: ControllerRevision, owner: Any) -> bool:
    """It is the owner's or nobody's. Raises Conflict when it is of one that had the owner's name before."""
    holder = controller_of(revision)
    if holder is None or holder.uid == owner.metadata.uid:
        return True
    if (holder.kind, holder.name) == (owner.kind, owner.metadata.name):
        raise Conflict(f"revision {revision.metadata.name} of the {owner.kind} before has not gone yet")
    return False
