"""Addresses of Services are repaired: a cluster IP in use has its IPAddress, and an IPAddress has its Service.

The API server writes both in one commit, but an administrator may delete an IPAddress, and then its address could be
given to a second Service. A cluster IP that is in no range any more is told of. Upstream's API server looks after that
too (its service IP repair controllers, KEP-1880).
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TypeVar

from knarr.api.core.v1 import Service
from knarr.api.core.validate_addresses import canonical
from knarr.api.errors import AlreadyExists, NotFound
from knarr.api.networking.addresses import MANAGER, MANAGER_LABEL, address_of
from knarr.api.networking.v1 import IPAddress, ServiceCIDR
from knarr.client.controller import Controller
from knarr.client.informer import key_of
from knarr.controllers.servicecidrs import networks_of

T = TypeVar("T")

ADDRESS_PREFIX = "address "
"""Of keys that are about an IPAddress, not a Service."""


class ServiceRepair(Controller):
    """The IPAddresses of Services."""

    name = "service-ip-repair-controller"
    needs = (Service, IPAddress, ServiceCIDR)

    def watch(self) -> None:
        self.services = self.informer(Service)
        self.addresses = self.informer(IPAddress)
        self.ranges = self.informer(ServiceCIDR)
        self.on(self.services, lambda service: [key_of(service), *_address_keys(service)])
        self.on(self.addresses, self._keys_of_address)

    async def reconcile(self, key: str) -> None:
        if key.startswith(ADDRESS_PREFIX):
            await self._clean_up(key.removeprefix(ADDRESS_PREFIX))
            return
        service = self.services.get(key)
        if service is None or service.metadata.deletion_timestamp:
            return
        metadata = service.metadata
        for address in cluster_ips(service):
            if not self._is_in_a_range(address):
                message = f"Cluster IP [{_family(address)}]: {address} is not within any configured Service CIDR"
                self.events.warning(service, "ClusterIPOutOfRange", f"{message}; please recreate service")
                continue
            # Service and IPAddress are one commit, but two caches: the one that lags behind must not be believed.
            there = self.addresses.get(address) or await self._live(IPAddress, address, None)
            if there is None:
                live = await self._live(Service, metadata.name or "", metadata.namespace)
                if live is not None and address in cluster_ips(live):
                    await self._allocate(live, address)
            elif parent_key(there) != key and self.services.get(parent_key(there)):
                other = parent_key(there)
                message = f"Cluster IP {address} was assigned to multiple services {other} and {key}; please recreate"
                self.events.warning(service, "ClusterIPAlreadyAllocated", message)

    async def _allocate(self, service: Service, address: str) -> None:
        message = f"Cluster IP [{_family(address)}]: {address} is not allocated; repairing"
        self.events.warning(service, "ClusterIPNotAllocated", message)
        try:
            await self.client.create(address_of(address, service.metadata))
        except AlreadyExists:
            pass

    def _is_in_a_range(self, address: str) -> bool:
        """Of any ServiceCIDR, ready or not; while there is none, nothing is said."""
        ranges = [one for each in self.ranges.all() for one in networks_of(each)]
        return not ranges or any(ip_address(address) in one for one in ranges)

    async def _clean_up(self, address: str) -> None:
        """An IPAddress of ours whose Service is gone, or has other addresses, has leaked."""
        there = self.addresses.get(address)
        if there is None or there.metadata.labels.get(MANAGER_LABEL) != MANAGER:
            return
        service = self.services.get(parent_key(there))
        if service is not None and address in cluster_ips(service):
            return
        # The cache may show another Service of that name, which is gone. Who is given an address says so first.
        there = await self._live(IPAddress, address, None)
        if there is None:
            return
        namespace, _, name = parent_key(there).partition("/")
        service = await self._live(Service, name, namespace)
        if service is not None and address in cluster_ips(service):
            return
        message = f"IPAddress: {address} for Service {parent_key(there)} appears to have leaked: cleaning up"
        self.events.warning(there, "IPAddressNotAllocated", message)
        version, uid = there.metadata.resource_version, there.metadata.uid
        try:
            await self.client.delete(IPAddress, address, uid=uid, resource_version=version)
        except NotFound:
            pass

    async def _live(self, kind: type[T], name: str, namespace: str | None) -> T | None:
        try:
            return await self.client.get(kind, name, namespace)
        except NotFound:
            return None

    def _keys_of_address(self, address: IPAddress) -> list[str]:
        return [parent_key(address), f"{ADDRESS_PREFIX}{address.metadata.name}"]


def _family(address: str) -> str:
    return f"IPv{ip_address(address).version}"


def cluster_ips(service: Service) -> list[str]:
    """Addresses that it holds."""
    return [canonical(each) for each in service.spec.cluster_ips if each not in ("", "None")] if service.spec else []


def parent_key(address: IPAddress) -> str:
    """The Service that an address says it is for."""
    parent = address.spec.parent_ref if address.spec else None
    return f"{parent.namespace}/{parent.name}" if parent else ""


def _address_keys(service: Service) -> list[str]:
    return [f"{ADDRESS_PREFIX}{address}" for address in cluster_ips(service)]
