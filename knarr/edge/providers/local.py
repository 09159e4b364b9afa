"""Load balancers of the machines themselves: they need no cloud and no configuration.

Without pools a Service is reached at the nodes' own addresses, as with k3s' ServiceLB: the first Service that wants a
port of them has it, and a second one stays without, until the port is free. So it is on nodes where something else
has the port (`knarr.edge.taken_ports`), while the others serve. With pools each Service has an address of its own,
which one of the nodes answers for on the LAN (`knarr.edge.announcer`).

There is nothing to make: the service proxy on every node reads status.loadBalancer.ingress and does the rest. What is
given out is what those statuses say, together with what was given out a moment ago and is not yet written.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Collection, Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address

from msgspec import Struct

from knarr.api.core.v1 import LoadBalancerIngress, Node, PortStatus, Service
from knarr.api.discovery.v1 import EndpointSlice
from knarr.client.informer import Informer, Informers, key_of
from knarr.clock import Clock
from knarr.edge.providers.contract import ADDRESSES, Ingress, LoadBalancer, Note, ProviderFailure, Target, Wake
from knarr.edge.taken_ports import changed, holder, name_of, ports_of, report_of, was_looked_at

CLASS = "knarr.dev/local"
SERVICE_NAME = "kubernetes.io/service-name"
SLICES_BY_SERVICE = "service of a load balancer"

NODES_MAX = 32
"""Whose addresses a Service gets, so that its status stays small; every node leads to all of its endpoints anyway."""

NOTED_MAX = 5
"""Reasons in one event."""

LOOK_S_MAX = 2.0
"""How long nodes are waited for that haven't looked at a Service's ports yet. Those that are later come in later."""

Claim = tuple[str, int, str]
"""An address, and a port with its protocol; port 0 stands for the address as a whole."""
Address = IPv4Address | IPv6Address
Held = Callable[[int, str], str]
"""Who else has a port (and protocol) of the nodes at present, in words; empty where nobody has."""


def nobody(port: int, protocol: str) -> str:
    return ""


class Pool(Struct, frozen=True):
    """A range of addresses that Services may get."""

    first: Address
    last: Address

    def __contains__(self, address: object) -> bool:
        if not isinstance(address, (IPv4Address, IPv6Address)) or address.version != self.first.version:
            return False
        return int(self.first) <= int(address) <= int(self.last)

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"

    @property
    def size(self) -> int:
        return int(self.last) - int(self.first) + 1

    @property
    def family(self) -> str:
        return family_of(self.first)


def parse_pools(text: str) -> tuple[Pool, ...]:
    """ "10.0.0.240-10.0.0.250,192.168.7.0/28,fd00::/120"; ValueError says what is wrong.

    Of an IPv4 network, its own and its broadcast address are left out.
    """
    pools: list[Pool] = []
    for part in filter(None, (each.strip() for each in text.split(","))):
        pool = _parse_pool(part)
        for address in (pool.first, pool.last):
            if address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified:
                raise ValueError(f"{part!r} has addresses that nobody can be reached at ({address})")
        for other in pools:
            if pool.first in other or other.first in pool:
                raise ValueError(f"{part!r} overlaps {other}")
        pools.append(pool)
    return tuple(pools)


def contains(pools: Iterable[Pool], address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    return any(parsed in pool for pool in pools)


def _parse_pool(part: str) -> Pool:
    if "/" in part:
        network = ipaddress.ip_network(part)
        first, last = network.network_address, network.broadcast_address
        if isinstance(network, ipaddress.IPv4Network) and network.prefixlen < 31:
            return Pool(first + 1, last - 1)
        return Pool(first, last)
    start, separator, end = (piece.strip() for piece in part.partition("-"))
    first, last = ipaddress.ip_address(start), ipaddress.ip_address(end if separator else start)
    if first.version != last.version or int(first) > int(last):
        raise ValueError(f"{part!r} is no range: its first address must come before its last")
    return Pool(first, last)


class Local:
    """The provider `local`."""

    name = "local"
    load_balancer_class = CLASS
    sees_readiness = True

    def __init__(
        self,
        informers: Informers,
        clock: Clock,
        pools: Sequence[Pool] = (),
        reserved: Iterable[tuple[int, str]] = (),
        held: Held = nobody,
    ) -> None:
        """`reserved` are ports of the nodes' own, such as the API server's: (port, protocol).

        `held` ports are others', as long as they need them; `retry` says that it may be different now.
        """
        self._clock = clock
        self._held = held
        self._pools = tuple(pools)
        self._reserved = frozenset(reserved)
        self._services: Informer[Service] = informers.of(Service)
        self._slices: Informer[EndpointSlice] = informers.of(EndpointSlice)
        self._slices.add_index(SLICES_BY_SERVICE, service_of)
        self._nodes: Informer[Node] = informers.of(Node)
        self._told = asyncio.Event()
        """Set, and another one put in its place, whenever a node tells about its ports."""
        self._claims: dict[Claim, str] = {}
        self._claimed: dict[str, frozenset[Claim]] = {}
        self._node_ports: dict[tuple[int, str], str] = {}
        self._pending: set[str] = set()
        """Services that did not get what they want."""
        self._noted: dict[str, frozenset[str]] = {}
        """Why Services are not at every node: what their owners were told."""

    def begin(self, wake: Wake, note: Note) -> None:
        self._wake = wake
        self._note = note
        self._services.add_handler(self._service_changed)
        self._slices.add_handler(self._slice_changed)
        self._nodes.add_handler(self._node_changed)

    async def status(self, balancer: LoadBalancer) -> Ingress | None:
        claims = self._claimed.get(balancer.key)
        return _ingress(balancer, sorted({address for address, _, _ in claims})) if claims else None

    async def ensure(self, balancer: LoadBalancer, nodes: Sequence[Target]) -> Ingress:
        try:
            addresses = self._pool_addresses(balancer) if self._pools else await self._node_addresses(balancer, nodes)
        except ProviderFailure:
            self._pending.add(balancer.key)
            raise
        self._pending.discard(balancer.key)
        self._claim(balancer.key, self._claims_of(balancer, addresses))
        return _ingress(balancer, addresses)

    async def update_nodes(self, balancer: LoadBalancer, nodes: Sequence[Target]) -> Ingress:
        return await self.ensure(balancer, nodes)

    async def delete(self, balancer: LoadBalancer) -> None:
        self._release(balancer.key)

    async def close(self) -> None:
        return

    def retry(self) -> None:
        """Services that did not get what they want are to try again."""
        self._wake_pending()

    # Which addresses

    def _pool_addresses(self, balancer: LoadBalancer) -> list[str]:
        """One of each family: what is asked for, else what it has, else the first free one."""
        requested = _by_family(balancer.requested)
        for address in (each for addresses in requested.values() for each in addresses):
            if family_of(address) not in balancer.families:
                raise ProviderFailure(f"address {address} is asked for, but the Service has no {family_of(address)}")
            if not any(address in pool for pool in self._pools):
                raise ProviderFailure(f"address {address} is asked for, but is in no pool ({self._pool_names()})")
        held = {address for address, _, _ in self._claimed.get(balancer.key, ())}
        found: list[str] = []
        problem = None
        for family in balancer.families:
            try:
                found.append(str(self._pool_address(balancer.key, family, requested.get(family, []), held)))
            except ProviderFailure as failure:
                if balancer.both_families or family in requested:
                    raise
                problem = problem or failure  # an address of its other family will do
        if not found and problem is not None:
            raise problem
        return found

    def _pool_names(self) -> str:
        return ", ".join(map(str, self._pools))

    def _pool_address(self, key: str, family: str, requested: Sequence[Address], held: Collection[str]) -> Address:
        for wanted in requested:
            holder = self._claims.get((str(wanted), 0, ""), key)
            if holder == key:
                return wanted
            raise ProviderFailure(f"address {wanted} is asked for, but the Service {holder} has it")
        pools = [pool for pool in self._pools if pool.family == family]
        for address in map(ipaddress.ip_address, sorted(held)):
            if any(address in pool for pool in pools):
                return address
        taken = {ipaddress.ip_address(text) for text, port, _ in self._claims if port == 0}
        for pool in pools:
            # One more than there are taken ones: however large a pool is, no more needs to be looked at.
            for offset in range(min(pool.size, len(taken) + 1)):
                if pool.first + offset not in taken:
                    return pool.first + offset
        if not pools:
            raise ProviderFailure(f"no pool has {family} addresses ({self._pool_names()})")
        raise ProviderFailure(f"no {family} address is left in the pools ({self._pool_names()})")

    async def _node_addresses(self, balancer: LoadBalancer, nodes: Sequence[Target]) -> list[str]:
        """Those of the nodes at which its ports are free."""
        for port in balancer.ports:
            if (port.port, port.protocol) in self._reserved:
                raise ProviderFailure(f"port {port.port}/{port.protocol} of the nodes is the cluster's own")
        serving = [node for node in nodes if node.ready] or list(nodes)
        if balancer.local_only:
            with_endpoints = self._nodes_with_endpoints(balancer.key)
            serving = [node for node in serving if node.name in with_endpoints]
        candidates: dict[str, str] = {}
        for node in sorted(serving, key=lambda node: node.name)[:NODES_MAX]:
            for address in _addresses_of(node, serving, balancer.families):
                candidates.setdefault(address, node.name)
        if balancer.requested:
            candidates = {address: name for address, name in candidates.items() if address in balancer.requested}
            if not candidates:
                raise ProviderFailure(f"no node has the address that is asked for ({', '.join(balancer.requested)})")
        await self._looked_at(balancer, set(candidates.values()))
        conflicts = {address: self._conflict(balancer, address, name) for address, name in candidates.items()}
        if conflicts and all(conflicts.values()):
            raise ProviderFailure(next(iter(conflicts.values())))
        looked = {name for name in candidates.values() if self._has_looked(balancer, name)}
        self._tell_left_out(balancer.key, [each for each in conflicts.items() if candidates[each[0]] in looked])
        return [address for address, conflict in conflicts.items() if not conflict]

    def _tell_left_out(self, key: str, conflicts: Iterable[tuple[str, str]]) -> None:
        """Once, as long as it is so. The other nodes serve, so nothing has failed."""
        found = frozenset(conflict for _, conflict in conflicts if conflict)
        if found and found != self._noted.get(key):
            shown = "; ".join(sorted(found)[:NOTED_MAX])
            self._note(key, "PortUnavailable", f"{shown}; the Service is reached at other nodes")
        self._noted[key] = found

    def _has_looked(self, balancer: LoadBalancer, node: str) -> bool:
        ports = [(port.port, port.protocol) for port in balancer.ports]
        return was_looked_at(report_of(self._nodes.get(node)), ports)

    async def _looked_at(self, balancer: LoadBalancer, nodes: Collection[str]) -> None:
        """Wait until the nodes have told about its ports, if they tell at all."""
        try:
            async with self._clock.timeout(LOOK_S_MAX):
                while not all(self._has_looked(balancer, name) for name in nodes):
                    await self._told.wait()
        except TimeoutError:
            pass

    def _conflict(self, balancer: LoadBalancer, address: str, node: str) -> str:
        """Why it can't have its ports at this address of a node; empty where it can. What it has, it keeps."""
        report = report_of(self._nodes.get(node))
        for port in balancer.ports:
            claimed = self._claims.get((address, port.port, port.protocol))
            if claimed not in (None, balancer.key):
                return f"port {port.port}/{port.protocol} of {address} is taken by the Service {claimed}"
            elsewhere = self._held(port.port, port.protocol)
            if elsewhere and not claimed:
                return f"port {port.port}/{port.protocol} of the nodes is {elsewhere}"
            program = holder(report, (port.port, port.protocol), address)
            if program and not claimed:
                return f"port {port.port}/{port.protocol} of {address} is taken by {program} on the node {node}"
            if not claimed and not was_looked_at(report, [(port.port, port.protocol)]):
                return f"the node {node} has not said yet whether its port {port.port}/{port.protocol} is free"
            other = self._node_ports.get((port.port, port.protocol), balancer.key)
            if other != balancer.key:
                return f"port {port.port}/{port.protocol} of the nodes is a node port of the Service {other}"
        return ""

    def _nodes_with_endpoints(self, key: str) -> set[str]:
        """Those that have a ready endpoint of a Service."""
        return {name for slice_ in self._slices.by_index(SLICES_BY_SERVICE, key) for name in _nodes_of(slice_)}

    # Who has what

    def _claims_of(self, balancer: LoadBalancer, addresses: Iterable[str]) -> frozenset[Claim]:
        if self._pools:
            return frozenset((address, 0, "") for address in addresses)
        return frozenset((address, port.port, port.protocol) for address in addresses for port in balancer.ports)

    def _claim(self, key: str, claims: frozenset[Claim]) -> None:
        before = self._claimed.get(key, frozenset())
        for claim in before - claims:
            del self._claims[claim]
        for claim in claims:
            self._claims[claim] = key
        self._claimed[key] = claims
        if before - claims:
            self._wake_pending()

    def _release(self, key: str) -> None:
        self._claim(key, frozenset())
        del self._claimed[key]
        self._pending.discard(key)
        self._noted.pop(key, None)

    def _wake_pending(self) -> None:
        if self._pending:
            self._wake(tuple(self._pending))

    def _service_changed(self, old: Service | None, new: Service | None) -> None:
        before, after = (_node_ports_of(each) if each else frozenset() for each in (old, new))
        key = key_of(new or old)
        for port in before - after:
            self._node_ports.pop(port, None)
        for port in after:
            self._node_ports[port] = key
        if before - after:
            self._wake_pending()
        if new is None or not is_ours(new):
            if key in self._claimed:
                self._release(key)
        elif old is None and key not in self._claimed:
            self._take_over(key, new)

    def _take_over(self, key: str, service: Service) -> None:
        """What the Service was given before this process began."""
        status = service.status.load_balancer if service.status else None
        addresses = [ingress.ip for ingress in (status.ingress if status else []) if ingress.ip]
        ports = [(port.port, port.protocol or "TCP") for port in (service.spec.ports if service.spec else [])]
        wanted = [(0, "")] if self._pools else ports
        claims = frozenset((address, port, protocol) for address in addresses for port, protocol in wanted)
        free = frozenset(claim for claim in claims if claim not in self._claims)
        if free:
            self._claim(key, free)

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        """What a node tells about its ports matters to the Services that ask for them."""
        news = set() if self._pools else changed(report_of(old), report_of(new))
        if news:
            self._told.set()
            self._told = asyncio.Event()
            ours = (each for each in self._services.all() if is_ours(each))
            self._wake(key_of(each) for each in ours if news & {name_of(port) for port in ports_of(each)})

    def _slice_changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        """Without pools, a Service with externalTrafficPolicy Local is reached at nodes that have its endpoints."""
        if self._pools or _nodes_of(old) == _nodes_of(new):
            return
        keys = {key for each in (old, new) if each for key in service_of(each)}
        self._wake(key for key in keys if key in self._claimed)


def family_of(address: Address) -> str:
    return f"IPv{address.version}"


def _by_family(requested: Iterable[str]) -> dict[str, list[Address]]:
    found: dict[str, list[Address]] = {}
    for text in requested:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            raise ProviderFailure(f"{text[:64]!r} is asked for ({ADDRESSES}), but is no IP address") from None
        found.setdefault(family_of(address), []).append(address)
    return found


def _addresses_of(node: Target, nodes: Iterable[Target], families: Collection[str]) -> list[str]:
    """The external ones where nodes have such, else the internal ones; the first of each family."""
    external = any(each.external_addresses for each in nodes)
    found: dict[str, str] = {}
    for text in node.external_addresses if external else node.addresses:
        family = family_of(ipaddress.ip_address(text))
        if family in families:
            found.setdefault(family, text)
    return list(found.values())


def _ingress(balancer: LoadBalancer, addresses: Iterable[str]) -> Ingress:
    ports = [PortStatus(port=port.port, protocol=port.protocol) for port in balancer.ports]
    return tuple(LoadBalancerIngress(ip=address, ip_mode="VIP", ports=ports) for address in addresses)


def is_ours(service: Service) -> bool:
    spec = service.spec
    return spec is not None and spec.type == "LoadBalancer" and spec.load_balancer_class in (None, CLASS)


def _node_ports_of(service: Service) -> frozenset[tuple[int, str]]:
    spec = service.spec
    if spec is None or spec.type not in ("NodePort", "LoadBalancer"):
        return frozenset()
    return frozenset((port.node_port, port.protocol or "TCP") for port in spec.ports if port.node_port)


def service_of(slice_: EndpointSlice) -> Iterable[str]:
    """The Service that a slice belongs to, whoever made it."""
    name = slice_.metadata.labels.get(SERVICE_NAME)
    return (f"{slice_.metadata.namespace}/{name}",) if name else ()


def _nodes_of(slice_: EndpointSlice | None) -> set[str]:
    """The nodes of its ready endpoints."""
    endpoints = slice_.endpoints if slice_ else []
    ready = (each for each in endpoints if each.conditions is None or each.conditions.ready is not False)
    return {each.node_name or "" for each in ready}
