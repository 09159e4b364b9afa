"""The pod network: every pod of this node gets an address that all other pods and the node can reach.

Each pod has one end of a virtual Ethernet pair as its `eth0`; the node routes the pod's address (/32) to the
other end. Packets between pods are thus routed by the node like any others, never bridged: service rules see
them in both directions without br_netfilter, a pod that reaches itself through a service needs no hairpin port,
and pods can't spoof at the link layer. Neighbour entries are permanent on both ends, so nothing is ever asked by ARP.

An *anchor* interface (a bridge without ports, named like `knarr0`) holds the pods' gateway address and, for
`knarr.network.dns`, the cluster DNS address; `ip link del` of it and the pods' own interfaces is all that there
is to clean up, besides the nft tables that masquerade what leaves the cluster and map hostPorts (`pod_rules`).
Pods have an address of each family that the node has a range of.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import ipaddress
import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from knarr.clock import Clock
from knarr.network import netlink as kernel
from knarr.network import peer_routes, pod_rules, settings
from knarr.network.addresses import AddressPool
from knarr.network.commands import CommandFailed, run_command
from knarr.network.pod_rules import Family
from knarr.node.runtime.contract import PortMapping

T = TypeVar("T")

POD_INTERFACE = "eth0"
POD_LINK_PREFIX = "kn"
"""Of the names of the node's ends of pods' links."""
ETHERNET_MTU_BYTES = 1500
INTERFACE_NAME_CHARACTERS_MAX = 15
"""IFNAMSIZ less its closing zero byte."""


class RangeTaken(OSError):
    """Addresses that pods or services are to have are those of a network that this machine is in already."""


class PodNetwork:
    """The network of one node's pods. `start` first, `close` last; all methods may be called concurrently."""

    def __init__(
        self,
        *,
        pod_cidrs: Sequence[str],
        cluster_cidrs: Sequence[str],
        state_directory: Path,
        clock: Clock,
        interface: str = "knarr0",
        mtu_bytes: int | None = None,
        service_cidrs: Sequence[str] = (),
        network_namespace: str | None = None,
    ) -> None:
        """`interface` names the anchor and the nft table and sets this network apart from others on the machine.

        `mtu_bytes` None takes that of the interface that the default route leaves by. `network_namespace` (a path)
        is where the node's side lives, None for the namespace of this process.
        """
        if len(interface) > INTERFACE_NAME_CHARACTERS_MAX:
            raise ValueError(f"interface name {interface!r} is longer than {INTERFACE_NAME_CHARACTERS_MAX}")
        self._pod_cidrs = tuple(pod_cidrs)
        self.cluster_cidrs = tuple(cluster_cidrs)
        self.service_cidrs = tuple(service_cidrs)
        self._interface = interface
        self._table = interface
        self._families = pod_rules.families(pod_cidrs)
        self.tunnel_interface = f"kv{hashlib.sha256(interface.encode()).hexdigest()[:12]}"
        """To nodes that are not in the same network; how the names of tunnels begin (see peer_routes)."""
        self._mtu_bytes = mtu_bytes or ETHERNET_MTU_BYTES
        self._find_mtu = mtu_bytes is None
        self._namespace = network_namespace
        self._state_directory = state_directory
        self._clock = clock
        self._pool: AddressPool | None = None
        self._host_ports: dict[str, tuple[tuple[str, ...], tuple[PortMapping, ...]]] = {}
        self._rules_lock = asyncio.Lock()
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pod-network")
        self._netlink: kernel.Netlink | None = None
        self._anchor_index = 0

    @property
    def gateways(self) -> tuple[str, ...]:
        """The node's address in each pod range: the pods' next hop, and the source of the node's own traffic."""
        return tuple(str(ipaddress.ip_network(cidr)[1]) for cidr in self._pod_cidrs)

    async def start(self) -> None:
        """Make the anchor, routes and rules; what an earlier run left is taken over."""
        await self._in_worker(self._open)
        await self._in_worker(self._prepare_node)
        async with self._rules_lock:
            await self._apply_rules()
        await self._open_forward_policy()

    async def attach(self, sandbox_id: str, network_namespace: str) -> tuple[str, ...]:
        """Connect a pod's network namespace; answers its addresses. The same again for one that is attached."""
        return await self._in_worker(lambda: self._attach(sandbox_id, network_namespace))

    async def detach(self, sandbox_id: str, network_namespace: str | None = None) -> None:
        """Disconnect a pod and free its addresses. Idempotent; the namespace may be gone already."""
        await self.unmap_ports(sandbox_id)
        await self._in_worker(lambda: self._detach(sandbox_id))

    async def retain(self, sandbox_ids: Iterable[str]) -> None:
        """Detach everything but these: what a crash or a reboot left over."""
        kept = set(sandbox_ids)
        leftover = [holder for holder in self._opened_pool().holders() if holder not in kept]
        for sandbox_id in {*leftover, *(self._host_ports.keys() - kept)}:
            await self.detach(sandbox_id)

    async def map_ports(self, sandbox_id: str, addresses: Sequence[str], mappings: Sequence[PortMapping]) -> None:
        """hostPort: have ports of the node lead to a pod. CommandFailed when the kernel refuses."""
        if not mappings:
            return
        async with self._rules_lock:
            before = self._host_ports.get(sandbox_id)
            self._host_ports[sandbox_id] = (tuple(addresses), tuple(mappings))
            try:
                await self._apply_rules()
            except CommandFailed:
                if before is None:
                    del self._host_ports[sandbox_id]
                else:
                    self._host_ports[sandbox_id] = before
                raise
            await asyncio.to_thread(self._save_host_ports)

    async def unmap_ports(self, sandbox_id: str) -> None:
        """Take a pod's hostPorts away. Idempotent."""
        async with self._rules_lock:
            if self._host_ports.pop(sandbox_id, None) is None:
                return
            await self._apply_rules()
            await asyncio.to_thread(self._save_host_ports)

    async def add_node_address(self, address: str) -> None:
        """Have the node answer to one more address, e.g. that of the cluster DNS. Never chosen as a source."""
        await self._in_worker(lambda: self._add_node_address(address))

    async def close(self, *, remove: bool) -> None:
        """Stop. With `remove` no interface, address, route or rule of this network stays, nor its records."""
        if remove and self._netlink is not None:
            await self._in_worker(self._remove_interfaces)
            await self._delete_table()
            await self._close_forward_policy()
            await asyncio.to_thread(self._remove_records)
            await self._in_worker(lambda: settings.release(self._interface))
        if self._netlink is not None:
            await self._in_worker(self._netlink.close)
            self._netlink = None
        self._worker.shutdown(wait=False)

    # The worker thread: all netlink work, one request after the other, in the node's network namespace.

    async def _in_worker(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)

    async def with_netlink(self, work: Callable[[kernel.Netlink], T]) -> T:
        """Have something done in the node's network namespace, between what the pod network does there."""
        return await self._in_worker(lambda: work(self._opened()))

    def _open(self) -> None:
        if self._namespace:
            kernel.enter(self._namespace)
        self._netlink = kernel.Netlink()
        self._pool = AddressPool(self._pod_cidrs, self._state_directory / "addresses.json")
        self._load_host_ports()

    def _opened(self) -> kernel.Netlink:
        if self._netlink is None:
            raise RuntimeError("the pod network is not started")
        return self._netlink

    def _opened_pool(self) -> AddressPool:
        if self._pool is None:
            raise RuntimeError("the pod network is not started")
        return self._pool

    def _refuse_taken_ranges(self, netlink: kernel.Netlink) -> None:
        """A network of the machine inside of our ranges would be cut off: our routes would take its place."""
        names = {link.index: link.name for link in kernel.links(netlink)}
        for index, text in kernel.interface_addresses(netlink):
            network = ipaddress.ip_interface(text).network
            name = names.get(index, "")
            if self._is_own(name):
                continue
            for kind, ranges in (("pods'", self.cluster_cidrs), ("services'", self.service_cidrs)):
                for cidr in map(ipaddress.ip_network, ranges):
                    if network.version == cidr.version and network.subnet_of(cidr):  # type: ignore[arg-type]
                        raise RangeTaken(
                            f"the {kind} range {cidr} holds {text}, which interface {name} of this machine has;"
                            " choose another range"
                        )

    def _is_own(self, interface: str) -> bool:
        """Of this cluster or another one like it."""
        return interface == self._interface or interface.startswith((self.tunnel_interface, POD_LINK_PREFIX))

    def _prepare_node(self) -> None:
        netlink = self._opened()
        self._refuse_taken_ranges(netlink)
        anchor = kernel.link(netlink, self._interface)
        if anchor is None:
            kernel.add_bridge(netlink, self._interface)
            anchor = kernel.link(netlink, self._interface)
            assert anchor is not None
        self._anchor_index = anchor.index
        kernel.set_up(netlink, anchor.index)
        for gateway in self.gateways:
            kernel.add_address(netlink, anchor.index, f"{gateway}/{_host_prefix(gateway)}")
        for cidr in self._pod_cidrs:
            # A pod that is gone is answered for at once, instead of by whoever the default route leads to.
            kernel.add_unreachable_route(netlink, cidr)
        for cidr in self.service_cidrs:
            # Without a default route the node could not even send the packet that the service rules redirect.
            source = next((each for each in self.gateways if (":" in each) == (":" in cidr)), None)
            kernel.add_route(netlink, cidr, anchor.index, source=source)
        settings.need("ipv4/ip_forward", "1", self._interface, along=["ipv4/conf/all/accept_redirects"])
        if pod_rules.IPV6 in self._families:
            others = [link.name for link in kernel.links(netlink) if not self._is_own(link.name)]
            _forward_version_6(others, self._interface)
        if self._find_mtu:
            index = kernel.default_route_interface(netlink)
            uplink = next((link for link in kernel.links(netlink) if link.index == index), None)
            self._mtu_bytes = uplink.mtu if uplink else ETHERNET_MTU_BYTES

    def _attach(self, sandbox_id: str, network_namespace: str) -> tuple[str, ...]:
        netlink, pool = self._opened(), self._opened_pool()
        name = self.interface_of(sandbox_id)
        before = pool.held(sandbox_id)
        if before is not None and kernel.link(netlink, name) is not None:
            return before
        addresses = pool.take(sandbox_id)
        try:
            self._connect(netlink, name, addresses, network_namespace)
        except BaseException:
            kernel.delete_link(netlink, name)
            pool.free(sandbox_id)
            raise
        return addresses

    def _connect(self, netlink: kernel.Netlink, name: str, addresses: Sequence[str], network_namespace: str) -> None:
        node_hardware, pod_hardware = _hardware_address(name, "node"), _hardware_address(name, "pod")
        descriptor = os.open(network_namespace, os.O_RDONLY | os.O_CLOEXEC)
        try:
            kernel.add_veth(
                netlink,
                name,
                POD_INTERFACE,
                descriptor,
                mtu=self._mtu_bytes,
                hardware_address=node_hardware,
                peer_hardware_address=pod_hardware,
            )
        finally:
            os.close(descriptor)
        with kernel.entered(network_namespace), kernel.Netlink() as inside:
            self._configure_pod(inside, addresses, node_hardware)
        pair = kernel.link(netlink, name)
        if pair is None:
            raise OSError(errno.ENODEV, f"interface {name} vanished while it was set up")
        # Lets the node reach NodePorts at 127.0.0.1: the redirected packet leaves with a loopback source at first.
        kernel.write_setting(f"ipv4/conf/{name}/route_localnet", "1")
        for address in addresses:
            kernel.add_neighbour(netlink, pair.index, address, pod_hardware)
            kernel.add_route(netlink, f"{address}/{_host_prefix(address)}", pair.index)

    def _configure_pod(self, inside: kernel.Netlink, addresses: Sequence[str], node_hardware: bytes) -> None:
        loopback, interface = kernel.link(inside, "lo"), kernel.link(inside, POD_INTERFACE)
        if loopback is None or interface is None:
            raise OSError(errno.ENODEV, "the pod's network namespace lacks lo or eth0")
        kernel.set_up(inside, loopback.index)
        kernel.set_up(inside, interface.index)
        for address, gateway in zip(addresses, self.gateways, strict=True):
            kernel.add_address(inside, interface.index, f"{address}/{_host_prefix(address)}")
            kernel.add_neighbour(inside, interface.index, gateway, node_hardware)
            everything = "0.0.0.0/0" if ":" not in address else "::/0"
            kernel.add_route(inside, everything, interface.index, gateway=gateway)

    def _detach(self, sandbox_id: str) -> None:
        # The interface goes first: an address is free only when nobody answers to it any more.
        kernel.delete_link(self._opened(), self.interface_of(sandbox_id))
        self._opened_pool().free(sandbox_id)

    def interface_of(self, sandbox_id: str) -> str:
        """Name of the node's end of a pod's link."""
        digest = hashlib.sha256(f"{self._interface}/{sandbox_id}".encode()).hexdigest()
        return f"{POD_LINK_PREFIX}{digest[:12]}"

    def _add_node_address(self, address: str) -> None:
        with_length = f"{address}/{_host_prefix(address)}"
        kernel.add_address(self._opened(), self._anchor_index, with_length, scope=kernel.SCOPE_HOST)

    def _remove_interfaces(self) -> None:
        netlink, pool = self._opened(), self._opened_pool()
        for sandbox_id in pool.holders():
            kernel.delete_link(netlink, self.interface_of(sandbox_id))
            pool.free(sandbox_id)
        peer_routes.remove(netlink, self.tunnel_interface, self.cluster_cidrs)
        for cidr in self._pod_cidrs:
            kernel.delete_route(netlink, cidr, unreachable=True)
        kernel.delete_link(netlink, self._interface)

    # Rules: an nft table for each family, written whole each time (they are small: a line for each hostPort).

    async def _apply_rules(self) -> None:
        await run_command(self._clock, "nft", "-f", "-", stdin=self.rules(), network_namespace=self._namespace)

    def rules(self) -> str:
        """The tables' whole text, as one transaction that replaces them."""
        ranges = pod_rules.Ranges(self._pod_cidrs, self.cluster_cidrs, self.service_cidrs)
        tables = [
            pod_rules.table(family, self._table, ranges, self._host_ports, self.tunnel_interface)
            for family in self._families
        ]
        return "".join(tables)

    async def _delete_table(self) -> None:
        names = [f"{family.name} {self._table}" for family in self._families]
        text = "".join(f"add table {name}\ndelete table {name}\n" for name in names)
        await run_command(self._clock, "nft", "-f", "-", stdin=text, network_namespace=self._namespace)

    # Docker and many firewalls set the FORWARD policy to DROP; no other table can overrule that, so say there
    # (and only there) that pods may talk.

    async def _open_forward_policy(self) -> None:
        for family in self._families:
            if await self._is_forwarding_refused(family):
                await self._change_forward_policy(family, "-I")

    async def _is_forwarding_refused(self, family: Family) -> bool:
        try:
            chain = await run_command(
                self._clock,
                "nft",
                "list",
                "chain",
                family.name,
                "filter",
                "FORWARD",
                network_namespace=self._namespace,
            )
        except CommandFailed:
            return False  # no such chain: nothing is refused
        return "policy drop" in chain and self._forward_comment not in chain

    async def _close_forward_policy(self) -> None:
        for family in self._families:
            with suppress(CommandFailed):  # there were none
                await self._change_forward_policy(family, "-D")

    async def _change_forward_policy(self, family: Family, change: str) -> None:
        lines = [
            f"{change} FORWARD {side} {cidr} -m comment --comment {self._forward_comment} -j ACCEPT"
            for cidr in family.only(self._pod_cidrs)
            for side in ("-s", "-d")
        ]
        text = "\n".join(["*filter", *lines, "COMMIT", ""])
        await run_command(
            self._clock,
            family.command,
            "--noflush",
            "-w",
            "5",
            stdin=text,
            network_namespace=self._namespace,
        )

    @property
    def _forward_comment(self) -> str:
        return f"knarr-{self._interface}"

    # Records

    def _load_host_ports(self) -> None:
        record = self._state_directory / "host-ports.json"
        if record.exists():
            for sandbox_id, (addresses, mappings) in json.loads(record.read_text()).items():
                self._host_ports[sandbox_id] = (tuple(addresses), tuple(PortMapping(*each) for each in mappings))

    def _save_host_ports(self) -> None:
        record = {
            sandbox_id: (
                addresses,
                [(each.protocol, each.container_port, each.host_port, each.host_ip) for each in mappings],
            )
            for sandbox_id, (addresses, mappings) in self._host_ports.items()
        }
        self._state_directory.mkdir(parents=True, exist_ok=True)
        written = self._state_directory / "host-ports.new"
        written.write_text(json.dumps(record))
        os.replace(written, self._state_directory / "host-ports.json")

    def _remove_records(self) -> None:
        for name in ("addresses.json", "host-ports.json"):
            (self._state_directory / name).unlink(missing_ok=True)


def _host_prefix(address: str) -> int:
    return 32 if ":" not in address else 128


def _hardware_address(name: str, side: str) -> bytes:
    """A locally administered unicast address, the same for the same interface: reproducible, never changing."""
    return b"\x0a" + hashlib.sha256(f"{name}/{side}".encode()).digest()[:5]


def _forward_version_6(interfaces: Iterable[str], user: str) -> None:
    """A machine that forwards ignores router advertisements, unless told otherwise: it would lose its own route out."""
    for name in interfaces:
        with suppress(FileNotFoundError):
            if kernel.read_setting(accept := f"ipv6/conf/{name}/accept_ra") != "0":
                settings.need(accept, "2", user)
    settings.need("ipv6/conf/all/forwarding", "1", user)
