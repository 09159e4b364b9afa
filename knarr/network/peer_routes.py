"""The way to the pods of other nodes, as the kernel has it: one route for each range of theirs.

A node in the same network is the next hop itself. One that is further away is reached through a tunnel: its packets are
wrapped into UDP for its own address (VXLAN, RFC 7348), since routers in between know nothing of pods. A tunnel of the
kernel's carries packets of both families, itself over one: there is one over each that is needed. What belongs to us is
told by the routes' protocol number, so a restart, or a removal after a crash, needs no record.

`plan` decides, `apply` brings the kernel to it, `remove` takes everything away.
"""

from __future__ import annotations

import errno
import hashlib
import ipaddress
import socket
import struct
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from msgspec import Struct

from knarr.network import netlink as kernel
from knarr.network.netlink import Netlink, attribute, attributes, nested

PROTOCOL = 107
"""rtm_protocol of our routes; no routing daemon in iproute2's list has it."""
TUNNEL_PORT = 4789
"""IANA's for VXLAN."""
OVERHEAD_BYTES = {4: 50, 6: 70}
"""Of the tunnel, by the version that carries it: outer IP, UDP, VXLAN and inner Ethernet headers."""

_GET_ROUTE, _NEW_LINK, _NEW_NEIGHBOUR = 26, 16, 28
_CREATE, _REPLACE, _EXCLUSIVE = 0x400, 0x100, 0x200
_TABLE_MAIN = 254
_ROUTE_UNICAST, _ROUTE_LOCAL = 1, 2
_AF_BRIDGE, _NTF_SELF, _PERMANENT = 7, 0x02, 0x80
_IFF_UP = 1


class Peer(Struct, frozen=True):
    """Another node."""

    name: str
    addresses: tuple[str, ...]
    ranges: tuple[str, ...]
    """Of its pods."""


class Way(Struct, frozen=True):
    """How the kernel would send to an address."""

    index: int
    """Of the interface."""
    is_direct: bool
    """No router is in between."""
    source: str = ""
    """This node's address that it would send from."""


class Route(Struct, frozen=True):
    """Packets for `destination` go to `gateway` by an interface; None stands for the tunnel that leads there."""

    destination: str
    gateway: str
    index: int | None


class Wrapped(Struct, frozen=True):
    """What a tunnel needs to know of a node behind it."""

    hardware_address: bytes
    endpoint: str
    gateways: tuple[str, ...]
    """The node's addresses in its ranges, which routes through the tunnel name as next hops."""
    carrier: int
    """The interface by which the endpoint is reached."""


class Plan(Struct, frozen=True):
    routes: tuple[Route, ...] = ()
    wrapped: tuple[Wrapped, ...] = ()
    awaited: frozenset[int] = frozenset()
    """Versions over which some peer may send by a tunnel, though nothing is sent to it that way."""


def plan(peers: Iterable[Peer], way_to: Callable[[str], Way | None], own: Collection[str] = ()) -> Plan:
    """The routes to all peers. `way_to` answers None for what is here, or can't be reached; `own` are the addresses by
    which the peers know this node.

    Each end decides for itself. A peer that is the next hop itself finds this node behind a router all the same where
    it knows it by an address of another network: what it sends then comes by the tunnel, which must be there.
    """
    routes: list[Route] = []
    wrapped: list[Wrapped] = []
    awaited = set()
    for peer in sorted(peers, key=lambda peer: peer.name):
        ways = {address: way for address in peer.addresses if (way := way_to(address)) is not None}
        through: list[str] = []
        for cidr in peer.ranges if ways else ():
            direct = next(
                (each for each, way in ways.items() if way.is_direct and _version(each) == _version(cidr)), None
            )
            if direct is None:
                through.append(_gateway(cidr))
                routes.append(Route(cidr, through[-1], None))
                continue
            routes.append(Route(cidr, direct, ways[direct].index))
            if ways[direct].source not in ("", *own):
                awaited.add(_version(_endpoint(ways, own)))
        if through:
            endpoint = _endpoint(ways, own)
            wrapped.append(Wrapped(hardware_address(peer.name), endpoint, tuple(through), ways[endpoint].index))
    return Plan(tuple(routes), tuple(wrapped), frozenset(awaited))


def _endpoint(ways: Iterable[str], own: Collection[str]) -> str:
    """Where a tunnel ends: at an address of IPv4 when both nodes are known by one, so both choose the same."""
    versions = {_version(each) for each in own} or {4, 6}
    return min(ways, key=lambda each: (_version(each) not in versions, _version(each)))


def hardware_address(node: str) -> bytes:
    """Of a node's end of the tunnel: every other node knows it by the node's name."""
    return b"\x0a" + hashlib.sha256(f"tunnel/{node}".encode()).digest()[:5]


class Tunnel(Struct, frozen=True):
    """This node's own ends."""

    interface: str
    """Of the one over IPv4; see `interfaces`."""
    node: str
    network_number: int
    """VXLAN's VNI: the same for all nodes of a cluster, another for others."""
    sources: tuple[str, ...]
    """The node's addresses among its pods, of each family: what it sends itself comes from them."""


def interfaces(name: str) -> dict[int, str]:
    """The tunnels' interfaces, by the version that carries them."""
    return {4: name, 6: f"{name}6"}


def network_number(cluster_cidrs: Iterable[str], service_cidrs: Iterable[str]) -> int:
    """24 bits that clusters with different ranges have different."""
    text = ",".join([*cluster_cidrs, *service_cidrs])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:3], "big")


def way_to(netlink: Netlink, address: str) -> Way | None:
    """Ask the kernel."""
    packed = ipaddress.ip_address(address).packed
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    header = struct.pack("=BBBBBBBBI", family, len(packed) * 8, 0, 0, 0, 0, 0, 0, 0)
    try:
        body = netlink.query(_GET_ROUTE, header + attribute(1, packed))
    except OSError:
        return None
    found = dict(attributes(body[12:]))
    if body[7] != _ROUTE_UNICAST or 4 not in found:
        return None
    source = str(ipaddress.ip_address(found[7])) if 7 in found else ""
    return Way(struct.unpack("=I", found[4])[0], is_direct=5 not in found and 18 not in found, source=source)


def apply(netlink: Netlink, wanted: Plan, tunnel: Tunnel, cluster_cidrs: Sequence[str]) -> int:
    """Bring the kernel to the plan; answers how many routes were changed."""
    by_version: dict[int, list[Wrapped]] = {version: [] for version in wanted.awaited}
    for each in wanted.wrapped:
        by_version.setdefault(_version(each.endpoint), []).append(each)
    tunnels: dict[str, int] = {}
    """Interfaces, by the next hop beyond."""
    for version, name in interfaces(tunnel.interface).items():
        if version not in by_version:
            kernel.delete_link(netlink, name)
            continue
        index = _ensure_tunnel(netlink, name, version, by_version[version], tunnel)
        for each in by_version[version]:
            _add_forwarding(netlink, index, each.hardware_address, each.endpoint)
            for gateway in each.gateways:
                kernel.add_neighbour(netlink, index, gateway, each.hardware_address)
                tunnels[gateway] = index
    there = set(ours(netlink, cluster_cidrs))
    routes = {_placed(route, tunnels) for route in wanted.routes}
    kept = {route.destination for route in routes if _version(route.destination) == 4}
    for stale in there - routes:
        # A changed route of version 4 is replaced. Version 6 refuses a next hop to which the old one still leads.
        if stale.destination not in kept:
            kernel.delete_route(netlink, stale.destination, protocol=PROTOCOL)
    for route in routes - there:
        assert route.index is not None
        source = _of_family(tunnel.sources, route.destination) if route.index in tunnels.values() else None
        kernel.add_route(
            netlink, route.destination, route.index, gateway=route.gateway, source=source, protocol=PROTOCOL
        )
    return len(there ^ routes)


def remove(netlink: Netlink, interface: str, cluster_cidrs: Sequence[str]) -> None:
    """Take the tunnels and all routes to other nodes away."""
    for route in ours(netlink, cluster_cidrs):
        kernel.delete_route(netlink, route.destination, protocol=PROTOCOL)
    for name in interfaces(interface).values():
        kernel.delete_link(netlink, name)


def ours(netlink: Netlink, cluster_cidrs: Sequence[str]) -> list[Route]:
    """The routes to other nodes' pods that are there: other clusters on this machine have theirs."""
    clusters = [ipaddress.ip_network(cidr) for cidr in cluster_cidrs]
    found = []
    for family in (socket.AF_INET, socket.AF_INET6):
        for body in netlink.dump(_GET_ROUTE, struct.pack("=BBBBBBBBI", family, 0, 0, 0, 0, 0, 0, 0, 0)):
            given, length, _, _, table, protocol, _, kind, _ = struct.unpack_from("=BBBBBBBBI", body)
            values = dict(attributes(body[12:]))
            if (given, table, protocol, kind) != (family, _TABLE_MAIN, PROTOCOL, _ROUTE_UNICAST) or 1 not in values:
                continue
            network = ipaddress.ip_network((values[1], length))
            if any(network.version == each.version and network.subnet_of(each) for each in clusters):  # type: ignore[arg-type]
                gateway = str(ipaddress.ip_address(values[5])) if 5 in values else ""
                found.append(Route(str(network), gateway, struct.unpack("=I", values.get(4, bytes(4)))[0]))
    return found


def _ensure_tunnel(netlink: Netlink, name: str, version: int, wrapped: Sequence[Wrapped], tunnel: Tunnel) -> int:
    """The tunnel's interface: there, up, with a size that fits what carries it. Answers its index."""
    carriers = {each.carrier for each in wrapped}
    sizes = [each.mtu for each in kernel.links(netlink) if each.index in carriers]
    mtu = min(sizes, default=1500) - OVERHEAD_BYTES[version]
    found = kernel.link(netlink, name)
    if found is None:
        _add_tunnel(netlink, name, version, tunnel, mtu)
        found = kernel.link(netlink, name)
        if found is None:
            raise OSError(errno.ENODEV, f"the tunnel {name} vanished while it was set up")
    if found.mtu != mtu or not found.up:
        header = struct.pack("=BBHiII", 0, 0, 0, found.index, _IFF_UP, _IFF_UP)
        netlink.request(_NEW_LINK, 0, header + attribute(4, struct.pack("=I", mtu)))
    for source in tunnel.sources:
        # What is masqueraded on its way into the tunnel must come from an address that is ours among pods.
        kernel.add_address(netlink, found.index, f"{source}/{32 if ':' not in source else 128}")
    return found.index


def _add_tunnel(netlink: Netlink, name: str, version: int, tunnel: Tunnel, mtu: int) -> None:
    options = (
        *([attribute(17, bytes(16))] if version == 6 else ()),  # from any address, of this version
        attribute(1, struct.pack("=I", tunnel.network_number)),
        attribute(7, b"\0"),  # learn nothing from packets: who is where is said by Node objects
        attribute(15, struct.pack("!H", TUNNEL_PORT)),
    )
    body = (
        struct.pack("=BBHiII", 0, 0, 0, 0, _IFF_UP, _IFF_UP)
        + attribute(3, name.encode() + b"\0")
        + attribute(1, hardware_address(tunnel.node))
        + attribute(4, struct.pack("=I", mtu))
        + nested(18, attribute(1, b"vxlan"), nested(2, *options))
    )
    netlink.request(_NEW_LINK, _CREATE | _EXCLUSIVE, body)


def _add_forwarding(netlink: Netlink, index: int, hardware: bytes, endpoint: str) -> None:
    """Frames for a hardware address leave the tunnel at the node with that address (bridge fdb replace)."""
    body = struct.pack("=BBHiHBB", _AF_BRIDGE, 0, 0, index, _PERMANENT, _NTF_SELF, 0)
    body += attribute(2, hardware) + attribute(1, ipaddress.ip_address(endpoint).packed)
    netlink.request(_NEW_NEIGHBOUR, _CREATE | _REPLACE, body)


def _placed(route: Route, tunnels: Mapping[str, int]) -> Route:
    """The tunnel has an interface by now."""
    return route if route.index is not None else Route(route.destination, route.gateway, tunnels[route.gateway])


def _of_family(addresses: Sequence[str], like: str) -> str | None:
    return next((each for each in addresses if _version(each) == _version(like)), None)


def _gateway(cidr: str) -> str:
    return str(ipaddress.ip_network(cidr)[1])


def _version(text: str) -> int:
    return 6 if ":" in text else 4
