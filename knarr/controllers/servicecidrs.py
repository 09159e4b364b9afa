"""ServiceCIDRs: a range of cluster IPs is ready once it is protected, and goes when no address needs it (KEP-1880)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from knarr.api.meta.v1 import Condition
from knarr.api.networking.addresses import CIDR_FINALIZER
from knarr.api.networking.policies import Network, network
from knarr.api.networking.v1 import IPAddress, ServiceCIDR, ServiceCIDRStatus
from knarr.api.types import replace
from knarr.client.controller import Controller
from knarr.client.informer import key_of
from knarr.clock import utc

GRACE_S = 10.0
"""How long a range that nobody needs stays, for those who are taking an address from it."""
READY = "Kubernetes Service CIDR is ready"
IN_USE = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR"


class ServiceCIDRs(Controller):
    """The finalizer and the condition Ready of networking.k8s.io/v1 ServiceCIDRs."""

    name = "service-cidrs-controller"
    needs = (ServiceCIDR, IPAddress)

    def watch(self) -> None:
        self.ranges = self.informer(ServiceCIDR)
        self.addresses = self.informer(IPAddress)
        self.on(self.ranges, lambda one: (key_of(one), *self._deleted()))
        self.on_change(self.addresses, lambda old, new: self._deleted() if new is None else ())

    def _deleted(self) -> list[str]:
        return [key_of(one) for one in self.ranges.all() if one.metadata.deletion_timestamp]

    async def reconcile(self, key: str) -> float | None:
        found = self.ranges.get(key)
        if found is None:
            return None
        deleted = found.metadata.deletion_timestamp
        if deleted is None:
            if CIDR_FINALIZER not in found.metadata.finalizers:
                finalizers = [*found.metadata.finalizers, CIDR_FINALIZER]
                found = await self.client.update(
                    replace(found, metadata=replace(found.metadata, finalizers=finalizers))
                )
            await self._report(found, "True", "", READY)
            return None
        if CIDR_FINALIZER not in found.metadata.finalizers:
            return None
        others = [one for one in self.ranges.all() if key_of(one) != key]
        if not dispensable(found, others, (one.metadata.name or "" for one in self.addresses.all())):
            await self._report(found, "False", "Terminating", IN_USE)
            return None
        left_s = GRACE_S - (self.clock.time_s() - deleted.timestamp())
        if left_s > 0:
            return left_s
        finalizers = [one for one in found.metadata.finalizers if one != CIDR_FINALIZER]
        await self.client.update(replace(found, metadata=replace(found.metadata, finalizers=finalizers)))
        return None

    async def _report(self, found: ServiceCIDR, status: str, reason: str, message: str) -> None:
        conditions = found.status.conditions if found.status else []
        if any(one.type == "Ready" and one.status == status for one in conditions):
            return
        others = [one for one in conditions if one.type != "Ready"]
        now = utc(self.clock.time_s())
        ready = Condition(type="Ready", status=status, reason=reason, message=message, last_transition_time=now)
        await self.client.update_status(replace(found, status=ServiceCIDRStatus(conditions=[*others, ready])))


def dispensable(found: ServiceCIDR, others: Iterable[ServiceCIDR], addresses: Iterable[str]) -> bool:
    """Whether no address in use would be without a range."""
    rest = [one for other in others for one in networks_of(other)]
    mine = networks_of(found)
    if all(any(_within(one, other) for other in rest) for one in mine):
        return True
    used = [ipaddress.ip_address(address) for address in addresses]
    return not any(
        any(address in one for one in mine) and not any(address in other for other in rest) for address in used
    )


def _within(one: Network, other: Network) -> bool:
    return one.version == other.version and other[0] <= one[0] and one[-1] <= other[-1]  # type: ignore[operator]


def networks_of(found: ServiceCIDR) -> list[Network]:
    written = (network(cidr) for cidr in (found.spec.cidrs if found.spec else ()))
    return [one for one in written if one is not None]
