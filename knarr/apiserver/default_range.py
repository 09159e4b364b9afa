"""The ServiceCIDR `kubernetes`: the ranges that the server was started with, as the object that others read (KEP-1880).

It is there from the first moment, and comes back when somebody deletes it. It grows by the second family when a cluster
becomes dual-stack; otherwise it stays as it was made, and an event says so when the server was started with others.
"""

from __future__ import annotations

from collections.abc import Sequence

from knarr.api.errors import AlreadyExists, NotFound
from knarr.api.meta.v1 import Condition, ObjectMeta
from knarr.api.networking.addresses import CIDR_FINALIZER, DEFAULT_CIDR
from knarr.api.networking.v1 import ServiceCIDR, ServiceCIDRSpec, ServiceCIDRStatus
from knarr.api.types import replace
from knarr.client.client import Client
from knarr.client.controller import Controller
from knarr.client.informer import Informers, key_of
from knarr.clock import Clock

READY = "Kubernetes default Service CIDR is ready"


async def ensure_default_range(client: Client, service_cidrs: Sequence[str]) -> None:
    """Make what is missing of it. May be repeated."""
    wanted = ServiceCIDRSpec(cidrs=list(service_cidrs))
    try:
        found = await client.get(ServiceCIDR, DEFAULT_CIDR)
    except NotFound:
        metadata = ObjectMeta(name=DEFAULT_CIDR, finalizers=[CIDR_FINALIZER])
        try:
            found = await client.create(ServiceCIDR(metadata=metadata, spec=wanted))
        except AlreadyExists:
            return
    else:
        before = found.spec.cidrs if found.spec else []
        if len(before) == 1 and before == wanted.cidrs[:1] and wanted.cidrs != before:
            found = await client.update(replace(found, spec=wanted))  # A cluster that becomes dual-stack.
    if found.status and found.status.conditions:
        return
    ready = Condition(
        type="Ready", status="True", message=READY, last_transition_time=found.metadata.creation_timestamp
    )
    await client.update_status(replace(found, status=ServiceCIDRStatus(conditions=[ready])))


class DefaultRange(Controller):
    """Keeps the ServiceCIDR `kubernetes`."""

    name = "kubernetes-service-cidr-controller"
    needs = (ServiceCIDR,)

    def __init__(self, client: Client, informers: Informers, clock: Clock, service_cidrs: Sequence[str]) -> None:
        self._cidrs = list(service_cidrs)
        super().__init__(client, informers, clock)

    def watch(self) -> None:
        self.ranges = self.informer(ServiceCIDR)
        self.on(self.ranges, lambda one: key_of(one) if one.metadata.name == DEFAULT_CIDR else None)

    async def reconcile(self, key: str) -> None:
        found = self.ranges.get(key)
        if found is None:
            await ensure_default_range(self.client, self._cidrs)
        elif found.metadata.deletion_timestamp is None and found.spec and found.spec.cidrs != self._cidrs:
            there, told = " ".join(found.spec.cidrs), " ".join(self._cidrs)
            message = f"The default ServiceCIDR [{there}] does not match the flag configurations [{told}]"
            self.events.warning(found, "KubernetesDefaultServiceCIDRInconsistent", message)
