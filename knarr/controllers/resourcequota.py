"""Resource quotas: what a namespace uses is counted anew when a quota changes, and when something is given back.

What is taken is written into a quota by the API server, in one commit with the object that takes it. This loop writes
the rest: a new quota's first count, and what goes, ends or shrinks. It never writes less than what is used: it counts
from caches that show everything up to the quota's own revision (or else asks the server), and writes only if the quota
is still at that revision, so that nothing can have been taken in between.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from knarr.api.core.pod_amounts import Amounts
from knarr.api.core.quota_usage import counts, is_counted, total, usage
from knarr.api.core.v1 import ResourceQuota, ResourceQuotaSpec, ResourceQuotaStatus
from knarr.api.quantity import parse_quantity
from knarr.api.resources import Resource
from knarr.api.types import replace
from knarr.client.controller import Controller
from knarr.client.informer import Informer, key_of, version_of

COUNT_AGAIN_S = 300.0
"""Everything is counted so often in any case, as upstream."""
YOUNG_S = 5.0
"""What was on its way when a quota was made did not know of it: a new quota is counted again after so long."""


class ResourceQuotaUsage(Controller):
    """The status of v1 ResourceQuotas."""

    name = "resourcequota-controller"
    min_interval_s = 0.05

    def watch(self) -> None:
        self.quotas = self.informer(ResourceQuota)
        self.on(self.quotas, key_of)
        self.counted: list[tuple[Resource, Informer[Any]]] = []
        for resource in self.client.registry:
            if is_counted(resource) and resource.conversion is None and {"list", "watch"} <= set(resource.verbs):
                informer = self.informer(resource.type)
                self.counted.append((resource, informer))
                self._wake_when_less(resource, informer)

    def _wake_when_less(self, resource: Resource, informer: Informer[Any]) -> None:
        def keys(old: Any, new: Any) -> Iterable[str]:
            """Quotas that come to know of something given back, or of what changed behind their back."""
            if old is None or not self.quotas.count("namespace", old.metadata.namespace or ""):
                return ()
            now_s = self.clock.time_s()
            if new is not None and usage(resource, old, now_s) == usage(resource, new, now_s):
                return ()
            quotas = self.quotas.all(old.metadata.namespace)
            return [key_of(quota) for quota in quotas if any(counts(resource, name) for name in _hard(quota))]

        self.on_change(informer, keys)

    async def reconcile(self, key: str) -> float | None:
        quota = self.quotas.get(key)
        if quota is None or quota.metadata.deletion_timestamp is not None:
            return None
        spec, before = quota.spec or ResourceQuotaSpec(), quota.status or ResourceQuotaStatus()
        used: Amounts = {}
        for resource, informer in self.counted:
            if any(counts(resource, name) for name in spec.hard):
                objs = await self._objects(resource, informer, quota)
                used |= total(resource, objs, spec, self.clock.time_s())
        status = replace(before, hard=dict(spec.hard), used=used)
        if not _same(status.hard, before.hard) or not _same(status.used, before.used):
            await self.client.update_status(replace(quota, status=status))
        made = quota.metadata.creation_timestamp
        young = made is not None and self.clock.time_s() - made.timestamp() < YOUNG_S
        return YOUNG_S if young else COUNT_AGAIN_S

    async def _objects(self, resource: Resource, informer: Informer[Any], quota: ResourceQuota) -> list[Any]:
        """The kind's objects in the namespace, as of the quota's revision or later."""
        namespace = quota.metadata.namespace
        if informer.revision >= version_of(quota):
            return informer.all(namespace)
        return list((await self.client.list(resource.type, namespace)).items)


def _hard(quota: ResourceQuota) -> Iterable[str]:
    return quota.spec.hard if quota.spec else ()


def _same(one: Amounts, other: Amounts) -> bool:
    """Whether the amounts are equal, however they are written."""
    if one.keys() != other.keys():
        return False
    return all(parse_quantity(amount) == parse_quantity(other[name]) for name, amount in one.items())
