"""ResourceQuota: nothing is made that would take more than its namespace may use; exact under any number of writers.

What an object takes is written into the status of each quota that it comes under, in one commit with the object: both
are there, or neither. A quota is expected at the revision that the decision was made by, so API servers that share a
store can't spend the same thing twice. In this process the writes of a namespace that has quotas go one after another,
in the order of their coming: so nobody begins again and again because others were quicker. (They could share a commit,
but then objects of a kind would share a revision, and a watch that breaks off between two of them would resume behind
both.)

Upstream's order: the last plugin. What a quota allows and has given is what its status says; the loop
`resourcequota-controller` writes what is given back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial

import msgspec

from knarr.api.core.pod_amounts import Amounts, minus, plus
from knarr.api.core.quota_usage import counts, in_scopes, is_counted, unsaid, usage
from knarr.api.core.v1 import PersistentVolumeClaim, Pod, ResourceQuota, ResourceQuotaStatus, Service
from knarr.api.errors import Conflict
from knarr.api.quantity import parse_quantity
from knarr.api.resources import Resource
from knarr.api.types import Quantity, replace
from knarr.apiserver.admission import Attributes, Plugin
from knarr.apiserver.admission.index import Entry, Index
from knarr.clock import Clock
from knarr.store.contract import Mismatch, Store, Write

TRIES_MAX = 100
"""A request begins again so often when the quota was changed by others (another API server, a user, the loop)."""

Entries = Mapping[str, Entry[ResourceQuota]]


class Lane(msgspec.Struct):
    """The requests of a namespace go through it one by one."""

    free: asyncio.Lock = msgspec.field(default_factory=asyncio.Lock)
    users: int = 0


class ResourceQuotas(Plugin):
    name = "ResourceQuota"

    def __init__(self, store: Store, clock: Clock, quotas: Index[ResourceQuota]) -> None:
        self._store = store
        self._clock = clock
        self._quotas = quotas
        self._lanes: dict[str, Lane] = {}

    def concerns(self, resource: Resource, operation: str, subresource: str) -> bool:
        if not is_counted(resource):
            return False
        if resource.type is Pod and (operation, subresource) == ("UPDATE", "resize"):
            return True
        if resource.type in (Service, PersistentVolumeClaim) and operation == "UPDATE":
            return not subresource
        return operation == "CREATE" and not subresource

    async def validate(self, attributes: Attributes) -> None:
        entries = await self._quotas.entries(attributes.namespace)
        if not entries:
            return
        taken = self._taken(attributes)
        if charged(attributes, taken, entries) and not attributes.dry_run:
            attributes.commit = partial(self._commit, attributes, taken)

    def _taken(self, attributes: Attributes) -> Amounts:
        """What the request takes more than before; nothing is given back here."""
        resource, now_s = attributes.resource, self._clock.time_s()
        taken = usage(resource, attributes.obj, now_s)
        if attributes.old is not None:
            for name, before in usage(resource, attributes.old, now_s).items():
                if name in taken:
                    taken[name] = minus(taken[name], before)
        return {name: amount for name, amount in taken.items() if parse_quantity(amount) > 0}

    async def _commit(self, attributes: Attributes, taken: Amounts, writes: Sequence[Write]) -> int:
        """The object's commit, with what it takes. Raises Forbidden, Conflict, and what the store raises."""
        namespace = attributes.namespace
        own = {write.key for write in writes}
        lane = self._lanes.setdefault(namespace, Lane())
        lane.users += 1
        try:
            async with lane.free:
                for _ in range(TRIES_MAX):
                    entries = await self._quotas.entries(namespace)
                    after = charged(attributes, taken, entries)
                    more = [Write(entries[name].key, _encoded(quota), entries[name].revision) for name, quota in after]
                    try:
                        return await self._store.commit(*writes, *more)
                    except Mismatch as mismatch:
                        if mismatch.key in own:
                            raise
        finally:
            lane.users -= 1
            if not lane.users:
                del self._lanes[namespace]
        about = "the quotas of its namespace change too often; please try again"
        raise Conflict.of(attributes.resource.group, attributes.resource.plural, attributes.obj.metadata.name, about)


def charged(attributes: Attributes, taken: Amounts, entries: Entries) -> list[tuple[str, ResourceQuota]]:
    """The quotas that change, as they will be. Raises Forbidden."""
    resource = attributes.resource
    concerned: list[tuple[str, ResourceQuota, ResourceQuotaStatus]] = []
    for name in sorted(entries):
        quota = entries[name].obj
        status = quota.status or ResourceQuotaStatus()
        names = [each for each in status.hard if counts(resource, each)]
        if not names or not in_scopes(quota.spec, attributes.obj):
            continue
        if resource.type is Pod and (missing := unsaid(attributes.obj, names)):
            raise attributes.refused(f"failed quota: {name}: must specify {missing}")
        if any(each not in status.used for each in names):
            raise attributes.refused(f"status unknown for quota: {name}, resources: {','.join(sorted(names))}")
        concerned.append((name, quota, status))
    after: list[tuple[str, ResourceQuota]] = []
    for name, quota, status in concerned:
        asked = {each: amount for each, amount in taken.items() if each in status.hard}
        used = status.used | {each: plus(status.used[each], amount) for each, amount in asked.items()}
        over = [each for each in sorted(asked) if parse_quantity(used[each]) > parse_quantity(status.hard[each])]
        if over:
            about = f"exceeded quota: {name}, requested: {_shown(asked, over)}, used: {_shown(status.used, over)}, "
            raise attributes.refused(f"{about}limited: {_shown(status.hard, over)}")
        if asked:
            after.append((name, replace(quota, status=replace(status, used=used))))
    return after


def _shown(amounts: Mapping[str, Quantity], names: Sequence[str]) -> str:
    return ",".join(f"{name}={amounts[name]}" for name in names)


def _encoded(quota: ResourceQuota) -> bytes:
    """As the store keeps it."""
    return msgspec.json.encode(replace(quota, metadata=replace(quota.metadata, resource_version=None)))
