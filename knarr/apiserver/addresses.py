"""The addresses of Services: cluster IPs and node ports, allocated or chosen, never given twice.

A cluster IP in use is an IPAddress object that names its Service (KEP-1880), a node port in use a key of the store
(`ranges/nodeports//30080`); both are written and deleted in one commit with the Service: nothing leaks, whatever
crashes. Of two Services that take the same one at the same time, one commit fails and begins again.

Cluster IPs come from the range that the server was started with, and from those of further ServiceCIDRs.
"""

from __future__ import annotations

import ipaddress
import itertools
import uuid
from collections.abc import Sequence

import msgspec

from knarr.api.core.v1 import Service, ServiceSpec
from knarr.api.errors import Cause, Forbidden, InternalError, Invalid, invalid
from knarr.api.networking.addresses import address_of
from knarr.api.networking.policies import Network, network
from knarr.api.networking.v1 import ServiceCIDR
from knarr.apiserver.admission import Attributes, Plugin
from knarr.apiserver.admission.index import Index
from knarr.clock import Clock, utc
from knarr.store.contract import Store, Write

TRIES_MAX = 1000
"""Random addresses looked at before the range is searched in order."""
ADDRESSES = "ipaddresses.networking.k8s.io//"


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
        self._network = ipaddress.ip_network(service_cidrs[0])
        self._ranges = Index(store, "servicecidrs.networking.k8s.io", ServiceCIDR)
        self._node_ports = node_ports

    async def mutate(self, attributes: Attributes) -> None:
        service: Service = attributes.obj
        old: Service | None = attributes.old
        if service.spec is None:
            return
        await self._cluster_ip(service, service.spec, old.spec if old else None)
        await self._ports(service, service.spec, old.spec if old else None)

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

    async def _networks(self) -> list[Network]:
        """The ranges that addresses may come from, the server's own first."""
        found = [self._network]
        for each in await self._ranges.all():
            ready = (
                any(one.type == "Ready" and one.status == "True" for one in each.status.conditions)
                if each.status
                else False
            )
            if not ready or each.metadata.deletion_timestamp or each.spec is None:
                continue
            written = (network(cidr) for cidr in each.spec.cidrs)
            found += [one for one in written if one and one.version == self._network.version and one not in found]
        return found

    async def _cluster_ip(self, service: Service, spec: ServiceSpec, old: ServiceSpec | None) -> None:
        if spec.type == "ExternalName":
            spec.cluster_ip, spec.cluster_ips, spec.ip_families, spec.ip_family_policy = None, [], [], None
            return
        spec.ip_families = spec.ip_families or [f"IPv{self._network.version}"]
        spec.ip_family_policy = spec.ip_family_policy or "SingleStack"
        if not spec.cluster_ip and spec.cluster_ips:
            spec.cluster_ip = spec.cluster_ips[0]
        if spec.cluster_ip == "None" or (old and old.cluster_ip and old.cluster_ip == spec.cluster_ip):
            spec.cluster_ips = spec.cluster_ips or [spec.cluster_ip]
            return
        if old and old.cluster_ip and old.type != "ExternalName":
            return  # A change that validation refuses.
        if spec.cluster_ip:
            await self._check_chosen(service, spec.cluster_ip)
        else:
            spec.cluster_ip = await self._free_address()
        spec.cluster_ips = [spec.cluster_ip]

    async def _check_chosen(self, service: Service, address: str) -> None:
        path = "spec.clusterIPs"
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            cause = invalid(f"{path}[0]", address, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")
            raise _refused(service, cause) from None
        networks = await self._networks()
        if not any(
            parsed in each and (each.num_addresses < 3 or parsed not in (each[0], each[-1])) for each in networks
        ):
            detail = f"failed to allocate IP {address}: the provided IP ({address}) is not in the valid range. "
            ranges = ", ".join(map(str, networks))
            raise _refused(service, invalid(path, [address], detail + f"The range of valid IPs is {ranges}"))
        if await self._store.get(f"{ADDRESSES}{address}"):
            detail = f"failed to allocate IP {address}: provided IP is already allocated"
            raise _refused(service, invalid(path, [address], detail))

    async def _free_address(self) -> str:
        for each in await self._networks():
            if address := await self._free_in(each):
                return address
        raise InternalError(f"failed to allocate a serviceIP: range {self._network} is full")

    async def _free_in(self, network: Network) -> str | None:
        size = network.num_addresses
        for _ in range(TRIES_MAX if size > 2 else 0):
            # The first addresses are left to those who choose (the API server's and DNS's among them), as upstream.
            low = min(max(16, size // 16), 256)
            address = str(network[self._clock.random.randrange(min(low, size - 2), size - 1)])
            if not await self._store.get(f"{ADDRESSES}{address}"):
                return address
        taken = {record.key.removeprefix(ADDRESSES) for record in (await self._store.range(ADDRESSES)).records}
        return next((str(each) for each in network.hosts() if str(each) not in taken), None)

    async def _ports(self, service: Service, spec: ServiceSpec, old: ServiceSpec | None) -> None:
        wanted = spec.type == "NodePort" or (
            spec.type == "LoadBalancer" and spec.allocate_load_balancer_node_ports is not False
        )
        held = {port.node_port for port in old.ports if port.node_port} if old else set()
        if spec.type not in ("NodePort", "LoadBalancer"):
            for port in spec.ports:
                if port.node_port and port.node_port in held:
                    port.node_port = None
            return
        for index, port in enumerate(spec.ports):
            if port.node_port:
                await self._check_port(service, index, port.node_port, held)
                held.add(port.node_port)
        for port in spec.ports:
            if not port.node_port and wanted:
                port.node_port = await self._free_port(held)
                held.add(port.node_port)

    async def _check_port(self, service: Service, index: int, port: int, held: set[int]) -> None:
        low, high = self._node_ports
        path = f"spec.ports[{index}].nodePort"
        if not low <= port <= high:
            detail = f"provided port is not in the valid range. The range of valid ports is {low}-{high}"
            raise _refused(service, invalid(path, port, detail))
        if port not in held and await self._store.get(f"ranges/nodeports//{port}"):
            raise _refused(service, invalid(path, port, "provided port is already allocated"))

    async def _free_port(self, held: set[int]) -> int:
        low, high = self._node_ports
        start: int = self._clock.random.randrange(low, high + 1)
        for port in itertools.chain(range(start, high + 1), range(low, start)):
            if port not in held and not await self._store.get(f"ranges/nodeports//{port}"):
                return port
        raise Forbidden(f"failed to allocate a nodePort: range {low}-{high} is full")


def _keys(service: Service | None) -> set[str]:
    if service is None or service.spec is None:
        return set()
    spec = service.spec
    addresses = {f"{ADDRESSES}{address}" for address in spec.cluster_ips if address not in ("", "None")}
    return addresses | {f"ranges/nodeports//{port.node_port}" for port in spec.ports if port.node_port}


def _refused(service: Service, cause: Cause) -> Invalid:
    return Invalid.of("", "Service", service.metadata.name or "", [cause])
