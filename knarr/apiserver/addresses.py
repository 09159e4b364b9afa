"""The addresses of Services: cluster IPs and node ports, allocated or chosen, never given twice.

A cluster IP in use is an IPAddress object that names its Service (KEP-1880), a node port in use a key of the store
(`ranges/nodeports//30080`); both are written and deleted in one commit with the Service: nothing leaks, whatever
crashes. Of two Services that take the same one at the same time, one commit fails and begins again.

Cluster IPs come from the ServiceCIDRs that are ready; the one called `kubernetes` has the ranges that the server was
started with. A Service has an address of each of its families.
"""

from __future__ import annotations

import ipaddress
import uuid
from collections.abc import Iterator, Sequence

import msgspec

from knarr.api.core.service_families import keeps_its_families, settle_families
from knarr.api.core.v1 import Service, ServiceSpec
from knarr.api.core.validate_addresses import canonical
from knarr.api.errors import InternalError, Invalid, invalid
from knarr.api.networking.addresses import DEFAULT_CIDR, address_of
from knarr.api.networking.policies import Network, network
from knarr.api.networking.v1 import ServiceCIDR
from knarr.apiserver.admission import Attributes, Plugin
from knarr.apiserver.admission.index import Index
from knarr.apiserver.node_ports import PORTS, NodePorts, held_ports
from knarr.clock import Clock, utc
from knarr.store.contract import Store, Write

TRIES_MAX = 1000
"""Random addresses looked at before the range is searched in order."""
ADDRESSES = "ipaddresses.networking.k8s.io//"
CHOSEN_MIN, CHOSEN_MAX, CHOSEN_SHARE = 16, 256, 16
"""How many addresses at the start of a range are left to those who choose (KEP-3070): a 16th, within these bounds."""


class ServiceAddresses(Plugin):
    """Gives a Service its addresses, and tells which of them change with a write."""

    kinds = (Service,)
    operations = ("CREATE", "UPDATE")
    subresources = ("",)

    def __init__(
        self,
        store: Store,
        clock: Clock,
        service_cidrs: Sequence[str] = ("10.96.0.0/16",),
        node_ports: tuple[int, int] = (30000, 32767),
    ) -> None:
        self._store = store
        self._clock = clock
        self._configured: list[Network] = [ipaddress.ip_network(each) for each in service_cidrs]
        self._ranges = Index(store, "servicecidrs.networking.k8s.io", ServiceCIDR)
        self._node_ports = NodePorts(store, clock, *node_ports)

    async def mutate(self, attributes: Attributes) -> None:
        service: Service = attributes.obj
        spec = service.spec
        if spec is None:
            return
        old: ServiceSpec | None = attributes.old.spec if attributes.old else None
        families = [f"IPv{each.version}" for each in self._configured]
        if causes := settle_families(spec, old, families):
            raise Invalid.of("", "Service", service.metadata.name or "", causes)
        if not keeps_its_families(spec, old):
            await self._cluster_ips(service, spec, old)
        await self._node_ports.settle(service, spec, old)

    async def companions(self, new: Service | None, old: Service | None) -> Sequence[Write]:
        """What is to be taken and released in one commit with the Service."""
        before, after = _keys(old), _keys(new)
        owner = new or old
        assert owner is not None
        # Somebody may have deleted the IPAddress of a Service.
        released = [key for key in sorted(before - after) if await self._store.get(key)]
        taken = [Write(key, self._taken(key, owner), 0) for key in sorted(after - before)]
        return [*taken, *(Write(key, None) for key in released)]

    def _taken(self, key: str, owner: Service) -> bytes:
        """What stands for an address or a port that is in use."""
        name, metadata = key.removeprefix(ADDRESSES), owner.metadata
        if name == key:
            return msgspec.json.encode({"metadata": {"name": metadata.name, "namespace": metadata.namespace}})
        address = address_of(name, metadata)
        address.metadata.uid = str(uuid.UUID(int=self._clock.random.getrandbits(128), version=4))
        address.metadata.creation_timestamp = utc(self._clock.time_s())
        return msgspec.json.encode(address)

    async def _cluster_ips(self, service: Service, spec: ServiceSpec, old: ServiceSpec | None) -> None:
        """An address for each family that has none yet; those that were chosen must be free."""
        if spec.type == "ExternalName" or spec.cluster_ip == "None":
            return
        first = 0
        if old is not None and old.type != "ExternalName":
            if old.cluster_ip == "None" or (len(old.ip_families), len(spec.ip_families)) != (1, 2):
                return  # What else changed is for validation to refuse, or nothing.
            first = 1  # The Service becomes dual-stack.
        addresses = [*spec.cluster_ips, "", ""][: len(spec.ip_families)]
        for index, family in enumerate(spec.ip_families[first:], first):
            networks = await self._networks(int(family[-1]))
            if addresses[index]:
                await self._check_chosen(service, spec, addresses[index], networks)
            else:
                addresses[index] = await self._free_address(networks)
        spec.cluster_ips, spec.cluster_ip = addresses, addresses[0]

    async def _networks(self, version: int) -> list[Network]:
        """The ranges of a family that addresses may come from."""
        ranges = list(await self._ranges.all())
        found: list[Network] = []
        if all(each.metadata.name != DEFAULT_CIDR for each in ranges):
            found += self._configured
        for each in sorted(ranges, key=lambda one: one.metadata.name != DEFAULT_CIDR):
            if _is_ready(each) and each.spec:
                found += [one for cidr in each.spec.cidrs if (one := network(cidr))]
        return [each for each in dict.fromkeys(found) if each.version == version]

    async def _check_chosen(
        self, service: Service, spec: ServiceSpec, address: str, networks: Sequence[Network]
    ) -> None:
        parsed = ipaddress.ip_address(address)
        fault = ""
        if not any(parsed in each and usable(each)[0] <= parsed <= usable(each)[1] for each in networks):  # type: ignore[operator]
            fault = "the provided network does not match the current range"
        elif await self._store.get(f"{ADDRESSES}{parsed}"):
            fault = "provided IP is already allocated"
        if fault:
            cause = invalid("spec.clusterIPs", spec.cluster_ips, f"failed to allocate IP {address}: {fault}")
            raise Invalid.of("", "Service", service.metadata.name or "", [cause])

    async def _free_address(self, networks: Sequence[Network]) -> str:
        for each in networks:
            if address := await self._free_in(each):
                return address
        raise InternalError("Internal error occurred: failed to allocate a serviceIP: range is full")

    async def _free_in(self, network: Network) -> str | None:
        for address in self._random(network):
            if not await self._store.get(f"{ADDRESSES}{address}"):
                return address
        taken = {record.key.removeprefix(ADDRESSES) for record in (await self._store.range(ADDRESSES)).records}
        return next((address for address in _in_order(network) if address not in taken), None)

    def _random(self, network: Network) -> Iterator[str]:
        """Addresses of the part that nobody chooses from."""
        first, last = map(int, usable(network))
        first += left_to_choosers(network.num_addresses)
        for _ in range(min(TRIES_MAX, last - first + 1)):
            yield str(_address(network, self._clock.random.randrange(first, last + 1)))


def usable(network: Network) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, ...]:
    """First and last: not the address of the range itself, and of IPv4 not that of everybody in it."""
    return network[1 if network.num_addresses > 1 else 0], network[-2 if network.version == 4 else -1]


def left_to_choosers(size: int) -> int:
    """Addresses at the start of a range of that size that are given out last."""
    return 0 if size <= CHOSEN_MIN else min(max(size // CHOSEN_SHARE, CHOSEN_MIN), CHOSEN_MAX)


def _in_order(network: Network) -> Iterator[str]:
    """All addresses: the upper part, then what is left to those who choose."""
    first, last = map(int, usable(network))
    middle = first + left_to_choosers(network.num_addresses)
    for begin, end in ((middle, last), (first, middle - 1)):
        yield from (str(_address(network, number)) for number in range(begin, end + 1))


def _address(network: Network, number: int) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.IPv4Address(number) if network.version == 4 else ipaddress.IPv6Address(number)


def _is_ready(found: ServiceCIDR) -> bool:
    """Nothing said counts as ready, so that addresses are given while nobody looks after the ranges."""
    if found.metadata.deletion_timestamp:
        return False
    conditions = found.status.conditions if found.status else []
    return all(each.status == "True" for each in conditions if each.type == "Ready")


def _keys(service: Service | None) -> set[str]:
    if service is None or service.spec is None:
        return set()
    spec = service.spec
    addresses = [] if spec.type == "ExternalName" else spec.cluster_ips
    keys = {f"{ADDRESSES}{canonical(each)}" for each in addresses if each not in ("", "None")}
    return keys | {f"{PORTS}{port}" for port in held_ports(spec)}
