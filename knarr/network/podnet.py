"""The pod network: every pod of this node gets an address that all other pods and the node can reach.

Each pod has one end of a virtual Ethernet pair as its `eth0`; the node routes the pod's address (/32) to the
other end. Packets between pods are thus routed by the node like any others, never bridged: service rules see
them in both directions without br_netfilter, a pod that reaches itself through a service needs no hairpin port,
and pods can't spoof at the link layer. Neighbour entries are permanent on both ends, so nothing is ever asked by ARP.

An *anchor* interface (a bridge without ports, named like `knarr0`) holds the pods' gateway address and, for
`knarr.network.dns`, the cluster DNS address; `ip link del` of it and the pods' own interfaces is all that there
is to clean up, besides one nft table that masquerades what leaves the cluster and maps hostPorts.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import ipaddress
import json
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from knarr.clock import Clock
from knarr.network import netlink as kernel
from knarr.network.addresses import AddressPool
from knarr.network.commands import CommandFailed, run_command
from knarr.node.runtime.contract import PortMapping

log = logging.getLogger(__name__)

T = TypeVar("T")

POD_INTERFACE = "eth0"
ETHERNET_MTU_BYTES = 1500
INTERFACE_NAME_CHARACTERS_MAX = 15
"""IFNAMSIZ less its closing zero byte."""


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
        self._cluster_cidrs = tuple(cluster_cidrs)
        self._service_cidrs = tuple(service_cidrs)
        self._interface = interface
        self._table = interface
        self._mtu_bytes = mtu_bytes or ETHERNET_MTU_BYTES
        self._find_mtu = mtu_bytes is None
        self._namespace = network_namespace
        self._state_directory = state_directory
        self._clock = clock
        self._pool: AddressPool | None = None
        self._host_ports: dict[str, tuple[str, tuple[PortMapping, ...]]] = {}
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

    async def map_ports(self, sandbox_id: str, address: str, mappings: Sequence[PortMapping]) -> None:
        """hostPort: have ports of the node lead to a pod. CommandFailed when the kernel refuses."""
        if not mappings:
            return
        async with self._rules_lock:
            before = self._host_ports.get(sandbox_id)
            self._host_ports[sandbox_id] = (address, tuple(mappings))
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
        await self._in_worker(lambda: self._change_node_address(address, present=True))

    async def remove_node_address(self, address: str) -> None:
        """Undo `add_node_address`. Idempotent."""
        await self._in_worker(lambda: self._change_node_address(address, present=False))

    async def close(self, *, remove: bool) -> None:
        """Stop. With `remove` no interface, address, route or rule of this network stays, nor its records."""
        if remove and self._netlink is not None:
            await self._in_worker(self._remove_interfaces)
            await self._delete_table()
            await self._close_forward_policy()
            await asyncio.to_thread(self._remove_records)
        if self._netlink is not None:
            await self._in_worker(self._netlink.close)
            self._netlink = None
        self._worker.shutdown(wait=False)

    # The worker thread: all netlink work, one request after the other, in the node's network namespace.

    async def _in_worker(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)

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

    def _prepare_node(self) -> None:
        netlink = self._opened()
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
        for cidr in self._service_cidrs:
            # Without a default route the node could not even send the packet that the service rules redirect.
            kernel.add_route(netlink, cidr, anchor.index, source=self.gateways[0])
        _write_setting("ipv4/ip_forward", "1")
        if any(":" in cidr for cidr in self._pod_cidrs):
            _write_setting("ipv6/conf/all/forwarding", "1")
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
        _write_setting(f"ipv4/conf/{name}/route_localnet", "1")
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
        return f"kn{digest[:12]}"

    def _change_node_address(self, address: str, *, present: bool) -> None:
        with_length = f"{address}/{_host_prefix(address)}"
        if present:
            kernel.add_address(self._opened(), self._anchor_index, with_length, scope=kernel.SCOPE_HOST)
        else:
            kernel.delete_address(self._opened(), self._anchor_index, with_length)

    def _remove_interfaces(self) -> None:
        netlink, pool = self._opened(), self._opened_pool()
        for sandbox_id in pool.holders():
            kernel.delete_link(netlink, self.interface_of(sandbox_id))
            pool.free(sandbox_id)
        for cidr in self._pod_cidrs:
            kernel.delete_route(netlink, cidr, unreachable=True)
        kernel.delete_link(netlink, self._interface)

    # Rules: one nft table, written whole each time (it is small: a line for each hostPort).

    async def _apply_rules(self) -> None:
        await run_command(self._clock, "nft", "-f", "-", stdin=self.rules(), network_namespace=self._namespace)

    def rules(self) -> str:
        """The table's whole text, as one transaction that replaces it."""
        pods, cluster = _only_ipv4(self._pod_cidrs), _only_ipv4(self._cluster_cidrs)
        services = _only_ipv4(self._service_cidrs)
        any_address: list[str] = []
        one_address: list[str] = []
        hairpin: set[str] = set()
        for address, mappings in self._host_ports.values():
            hairpin.add(f"{address} . {address}")
            for mapping in mappings:
                target = f"{address} . {mapping.container_port}"
                port = f"{mapping.protocol.lower()} . {mapping.host_port}"
                if mapping.host_ip in ("", "0.0.0.0"):
                    any_address.append(f"{port} : {target}")
                else:
                    one_address.append(f"{mapping.host_ip} . {port} : {target}")
        table = f"ip {self._table}"
        return f"""
add table {table}
delete table {table}
table {table} {{
  comment "knarr: pod network"
  map host-ports {{
    type inet_proto . inet_service : ipv4_addr . inet_service
    {_elements(any_address)}
  }}
  map host-address-ports {{
    type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
    {_elements(one_address)}
  }}
  set hairpin {{
    type ipv4_addr . ipv4_addr
    {_elements(sorted(hairpin))}
  }}
  chain host-ports-redirect {{
    dnat ip to ip daddr . meta l4proto . th dport map @host-address-ports
    dnat ip to meta l4proto . th dport map @host-ports
  }}
  chain prerouting {{
    type nat hook prerouting priority dstnat + 5; policy accept;
    meta l4proto {{ tcp, udp, sctp }} fib daddr type local jump host-ports-redirect
  }}
  chain output {{
    type nat hook output priority -95; policy accept;
    meta l4proto {{ tcp, udp, sctp }} fib daddr type local jump host-ports-redirect
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat + 5; policy accept;
    ct status dnat oifname "kn*" ip saddr 127.0.0.0/8 masquerade
    ct status dnat ip saddr . ip daddr @hairpin masquerade
    ip saddr {{ {", ".join(pods)} }} ip daddr != {{ {", ".join([*cluster, *services, "224.0.0.0/4"])} }} \
oifname != "kn*" masquerade
  }}
  chain input {{
    type filter hook input priority filter; policy accept;
    iifname "kn*" ip daddr 127.0.0.0/8 ct status & dnat == 0 ct state != {{ established, related }} drop
  }}
}}
"""

    async def _delete_table(self) -> None:
        text = f"add table ip {self._table}\ndelete table ip {self._table}\n"
        await run_command(self._clock, "nft", "-f", "-", stdin=text, network_namespace=self._namespace)

    # Docker and many firewalls set the FORWARD policy to DROP; no other table can overrule that, so say there
    # (and only there) that pods may talk.

    async def _open_forward_policy(self) -> None:
        try:
            chain = await run_command(
                self._clock,
                "nft",
                "list",
                "chain",
                "ip",
                "filter",
                "FORWARD",
                network_namespace=self._namespace,
            )
        except CommandFailed:
            return  # no such chain: nothing is refused
        if "policy drop" in chain and self._forward_comment not in chain:
            await self._change_forward_policy("-I")

    async def _close_forward_policy(self) -> None:
        try:
            await self._change_forward_policy("-D")
        except CommandFailed:
            return  # there were none

    async def _change_forward_policy(self, change: str) -> None:
        lines = [
            f"{change} FORWARD {side} {cidr} -m comment --comment {self._forward_comment} -j ACCEPT"
            for cidr in _only_ipv4(self._pod_cidrs)
            for side in ("-s", "-d")
        ]
        text = "\n".join(["*filter", *lines, "COMMIT", ""])
        await run_command(
            self._clock,
            "iptables-restore",
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
            for sandbox_id, (address, mappings) in json.loads(record.read_text()).items():
                self._host_ports[sandbox_id] = (address, tuple(PortMapping(*each) for each in mappings))

    def _save_host_ports(self) -> None:
        record = {
            sandbox_id: (
                address,
                [(each.protocol, each.container_port, each.host_port, each.host_ip) for each in mappings],
            )
            for sandbox_id, (address, mappings) in self._host_ports.items()
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


def _only_ipv4(cidrs: Sequence[str]) -> list[str]:
    return [cidr for cidr in cidrs if ":" not in cidr]


def _elements(elements: Sequence[str]) -> str:
    return f"elements = {{ {', '.join(elements)} }}" if elements else ""


def _hardware_address(name: str, side: str) -> bytes:
    """A locally administered unicast address, the same for the same interface: reproducible, never changing."""
    return b"\x0a" + hashlib.sha256(f"{name}/{side}".encode()).digest()[:5]


def _write_setting(name: str, value: str) -> None:
    """A /proc/sys/net setting of the network namespace that the calling thread is in."""
    path = f"/proc/sys/net/{name}"
    with open(path) as setting:
        if setting.read().strip() == value:
            return
    with open(path, "w") as setting:
        setting.write(value)
