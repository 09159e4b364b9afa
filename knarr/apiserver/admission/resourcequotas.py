"""ResourceQuota: nothing is made that would take more than its namespace may use; exact under any number of writers.

What an object takes is written into the status of each quota that it comes under, in one commit with the object: both
are there, or neither. A quota is expected at the revision that the decision was made by, so API servers that share a
store can't spend the same thing twice. In this process the writes of a namespace wait in one lane, and those that wait
together become one commit: many writers cost one another nothing, and nobody begins again and again.

Upstream's order: the last plugin. What a quota allows and has given is what its status says; the loop
`resourcequota-controller` writes what is given back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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

TOGETHER_MAX = 64
"""Requests that share a commit: enough for the disk not to matter, few enough to answer the first of them soon."""
TRIES_MAX = 100
"""A request begins again so often when the quota was changed by others (another API server, a user, the loop)."""

Entries = Mapping[str, Entry[ResourceQuota]]


@dataclass(slots=True, eq=False)
class Charge:
    """A request that takes something."""

    attributes: Attributes
    taken: Amounts
    writes: Sequence[Write] = ()
    tries: int = 0
    revision: int = 0
    error: Exception | None = None

    @property
    def settled(self) -> bool:
        return bool(self.revision or self.error)


@dataclass(slots=True)
class Lane:
    """The requests of a namespace that wait for their turn."""

    waiting: deque[Charge] = field(default_factory=deque)
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0


class ResourceQuotas(Plugin):
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
        charge = Charge(attributes, self._taken(attributes))
        if charged(charge, entries, {}) and not attributes.dry_run:
            attributes.commit = partial(self._commit, charge)

    def _taken(self, attributes: Attributes) -> Amounts:
        """What the request takes more than before; nothing is given back here."""
        resource, now_s = attributes.resource, self._clock.time_s()
        taken = usage(resource, attributes.obj, now_s)
        if attributes.old is not None:
            for name, before in usage(resource, attributes.old, now_s).items():
                if name in taken:
                    taken[name] = minus(taken[name], before)
        return {name: amount for name, amount in taken.items() if parse_quantity(amount) > 0}

    async def _commit(self, charge: Charge, writes: Sequence[Write]) -> int:
        """The object's commit, shared with others of its namespace. Raises Forbidden, Conflict, and as the store."""
        namespace = charge.attributes.namespace
        charge.writes, charge.tries, charge.revision, charge.error = writes, 0, 0, None
        lane = self._lanes.setdefault(namespace, Lane())
        lane.users += 1
        lane.waiting.append(charge)
        try:
            async with lane.busy:
                while not charge.settled:
                    await self._round(namespace, lane)
        finally:
            lane.users -= 1
            if charge in lane.waiting:
                lane.waiting.remove(charge)
            if not lane.users:
                del self._lanes[namespace]
        if charge.error:
            raise charge.error
        return charge.revision

    async def _round(self, namespace: str, lane: Lane) -> None:
        """Settle some of those that wait."""
        entries = await self._quotas.entries(namespace)
        changed: dict[str, ResourceQuota] = {}
        accepted: list[Charge] = []
        for charge in _next(lane.waiting):
            try:
                changed |= charged(charge, entries, changed)
            except Exception as error:  # Whatever it is, it is that request's alone.
                charge.error = error
            else:
                accepted.append(charge)
        if not accepted:
            return
        writes = [write for charge in accepted for write in charge.writes]
        writes += [Write(entries[name].key, _encoded(quota), entries[name].revision) for name, quota in changed.items()]
        commit = asyncio.ensure_future(self._store.commit(*writes))
        try:
            await asyncio.shield(commit)
        except asyncio.CancelledError:
            # The others of this round must be told what became of theirs.
            await asyncio.wait([commit])
            raise
        except Exception:  # Is told to whom it concerns.
            pass
        finally:
            if commit.done():
                _settle(lane, accepted, commit)


def _settle(lane: Lane, accepted: Sequence[Charge], commit: asyncio.Future[int]) -> None:
    """Tell how it went; who is not to blame for a failure waits for the next round."""
    error = None if commit.cancelled() else commit.exception()
    if error is None and not commit.cancelled():
        for charge in accepted:
            charge.revision = commit.result()
        return
    if not isinstance(error, Mismatch):
        for charge in accepted:
            charge.error = error if isinstance(error, Exception) else Conflict("the write was cut off")
        return
    again = []
    for charge in accepted:
        charge.tries += 1
        if any(write.key == error.key for write in charge.writes):
            charge.error = error
        elif charge.tries >= TRIES_MAX:
            resource, name = charge.attributes.resource, charge.attributes.obj.metadata.name
            about = "the quotas of its namespace change too often; please try again"
            charge.error = Conflict.of(resource.group, resource.plural, name, about)
        else:
            again.append(charge)
    lane.waiting.extendleft(reversed(again))


def _next(waiting: deque[Charge]) -> list[Charge]:
    """The first that wait and write no key twice; the others stay."""
    chosen: list[Charge] = []
    keys: set[str] = set()
    while waiting and len(chosen) < TOGETHER_MAX:
        own = {write.key for write in waiting[0].writes}
        if own & keys:
            break
        keys |= own
        chosen.append(waiting.popleft())
    return chosen


def charged(charge: Charge, entries: Entries, changed: Mapping[str, ResourceQuota]) -> dict[str, ResourceQuota]:
    """The quotas as they will be, with what others of the commit take (`changed`) in. Raises Forbidden."""
    attributes, resource = charge.attributes, charge.attributes.resource
    concerned: list[tuple[str, ResourceQuota, ResourceQuotaStatus]] = []
    for name in sorted(entries):
        quota = changed.get(name) or entries[name].obj
        status = quota.status or ResourceQuotaStatus()
        names = [each for each in status.hard if counts(resource, each)]
        if not names or not in_scopes(quota.spec, attributes.obj):
            continue
        if resource.type is Pod and (missing := unsaid(attributes.obj, names)):
            raise attributes.refused(f"failed quota: {name}: must specify {missing}")
        if any(each not in status.used for each in names):
            raise attributes.refused(f"status unknown for quota: {name}, resources: {','.join(sorted(names))}")
        concerned.append((name, quota, status))
    after: dict[str, ResourceQuota] = {}
    for name, quota, status in concerned:
        asked = {each: amount for each, amount in charge.taken.items() if each in status.hard}
        used = status.used | {each: plus(status.used[each], amount) for each, amount in asked.items()}
        over = [each for each in sorted(asked) if parse_quantity(used[each]) > parse_quantity(status.hard[each])]
        if over:
            about = f"exceeded quota: {name}, requested: {_shown(asked, over)}, used: {_shown(status.used, over)}, "
            raise attributes.refused(f"{about}limited: {_shown(status.hard, over)}")
        if asked:
            after[name] = replace(quota, status=replace(status, used=used))
    return after


def _shown(amounts: Mapping[str, Quantity], names: Sequence[str]) -> str:
    return ",".join(f"{name}={amounts[name]}" for name in names)


def _encoded(quota: ResourceQuota) -> bytes:
    """As the store keeps it."""
    return msgspec.json.encode(replace(quota, metadata=replace(quota.metadata, resource_version=None)))
