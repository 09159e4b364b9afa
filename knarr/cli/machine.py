"""What `knarr up` makes of the configuration on this very machine: addresses, proxy mode, its node.

`NodeSettings` is all that a node with real containers is told. The process that runs it (`node_parts`) and the command
that cleans up after it (`teardown`) share it: both must mean the same bridge, tables and folders.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from knarr.api.core.cluster_info import ClusterSettings
from knarr.clock import Clock
from knarr.config import Config

if TYPE_CHECKING:
    from knarr.network.podnet import PodNetwork
    from knarr.node.runtime.oci import OciRuntime


_ANYWHERE = {4: "192.0.2.1", 6: "2001:db8::1"}
"""Addresses for documentation (RFC 5737, RFC 3849): beyond every default route."""


class NodeSettings(ClusterSettings, frozen=True, kw_only=True, rename="camel"):
    """One node with real containers on this machine."""

    name: str
    data_dir: str
    internal_ips: tuple[str, ...]
    pod_cidrs: tuple[str, ...]
    """The ranges of this node's pods."""
    provider_id: str = ""
    """The machine's name at its cloud."""
    port: int = 0
    """At which the API server reaches it; 0 where both are one process."""
    proxy_mode: Literal["nftables", "iptables"]
    bridge_name: str

    @property
    def data_path(self) -> Path:
        return Path(self.data_dir)

    @property
    def volume_folder(self) -> Path:
        """Of the class `local`."""
        return self.data_path / "volumes"

    @property
    def balancer_record(self) -> Path:
        """Which load balancers' addresses this machine answers for."""
        return self.data_path / "network" / "load-balancer-addresses.json"

    @property
    def policy_table(self) -> str:
        """Name of the nftables table of network policies."""
        return f"{self.bridge_name}-policies"

    @property
    def service_table(self) -> str:
        """Name of the nftables table of service rules; the pod network's own is named like the bridge."""
        return f"{self.bridge_name}-services"

    @property
    def answering(self) -> tuple[str, ...] | None:
        """Where node ports are answered. With nftables also at 127.0.0.1, unlike upstream's: a cluster on a laptop is
        used from there. None is the mode's default."""
        if not self.nodeport_addresses and self.proxy_mode == "nftables":
            return ("primary", "127.0.0.0/8")
        return self.nodeport_addresses or None


def resolved(config: Config) -> Config:
    """`config` with what it leaves to this machine filled in."""
    advertised = config.advertise_address or route_address(config) or node_gateway(config)
    return msgspec.structs.replace(
        config,
        proxy_mode=usable_proxy_mode(config.proxy_mode),
        advertise_address=str(ip_address(advertised)),  # as the API has it, however it was written
    )


def usable_proxy_mode(wanted: Literal["auto", "nftables", "iptables"]) -> Literal["nftables", "iptables"]:
    if wanted != "auto":
        return wanted
    return "nftables" if installed("nft") else "iptables"


def route_address(config: Config) -> str | None:
    """This machine's address on the default route of the cluster's first family; None without one. No packet is sent:
    connecting a datagram socket only asks the kernel for the route. (The addresses are for documentation: RFC 5737,
    RFC 3849.)"""
    try:
        return address_towards(_ANYWHERE[6 if ":" in config.service_cidrs[0] else 4])
    except OSError:
        return None


def internal_ips(first: str, cluster_cidrs: Iterable[str]) -> tuple[str, ...]:
    """`first`, and where pods have addresses of both families, the machine's other one, if there is a way out."""
    other = _ANYWHERE[4 if ":" in first else 6]
    if not any((":" in cidr) == (":" in other) for cidr in cluster_cidrs):
        return (first,)
    try:
        return (first, address_towards(other))
    except OSError:
        return (first,)


def address_towards(host: str) -> str:
    """This machine's address on its route to `host`. Raises OSError where there is none."""
    family, kind, protocol, _, where = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as asking:
        asking.connect(where)
        address: str = asking.getsockname()[0]
        return address


def node_gateway(config: Config) -> str:
    """The node's address among its pods: reachable by all of them, whatever the machine's other networks are."""
    return str(ip_network(config.node_ranges[0][0])[1])


def installed(command: str) -> bool:
    """Whether `command` is on the path, or where Debian keeps what only root runs."""
    folders = [*os.environ.get("PATH", "").split(":"), "/usr/sbin", "/sbin"]
    return any(os.access(Path(folder or ".") / command, os.X_OK) for folder in folders)


def node_settings(config: Config) -> NodeSettings:
    """The node of `knarr up` itself, by a configuration that is `resolved`."""
    assert config.proxy_mode != "auto"
    return NodeSettings(
        name=config.node_name,
        data_dir=config.data_dir,
        internal_ips=internal_ips(config.advertise_address, config.cluster_cidrs),
        pod_cidrs=tuple(config.node_ranges[0]),
        provider_id=config.provider_id,
        proxy_mode=config.proxy_mode,
        bridge_name=config.bridge_name,
        **msgspec.structs.asdict(cluster_settings(config)),
    )


def cluster_settings(config: Config) -> ClusterSettings:
    """What this machine's node and those that join have in common."""
    return ClusterSettings(
        cluster_cidrs=tuple(config.cluster_cidrs),
        service_cidrs=tuple(config.service_cidrs),
        cluster_dns=tuple(config.cluster_dns_addresses),
        cluster_domain=config.cluster_domain,
        dns_forward=tuple(config.dns_resolvers),
        dns_stub_domains=config.dns_stub_resolvers,
        nodeport_addresses=tuple(config.node_port_addresses),
        load_balancer=config.load_balancer,
        load_balancer_pools=config.load_balancer_pools,
        drain_timeout=config.drain_timeout,
    )


def pod_network(settings: NodeSettings, clock: Clock) -> PodNetwork:
    from knarr.network.podnet import PodNetwork

    return PodNetwork(
        pod_cidrs=settings.pod_cidrs,
        cluster_cidrs=settings.cluster_cidrs,
        service_cidrs=settings.service_cidrs,
        state_directory=settings.data_path / "network",
        interface=settings.bridge_name,
        clock=clock,
    )


def oci_runtime(settings: NodeSettings, clock: Clock, network: PodNetwork) -> OciRuntime:
    from knarr.node.runtime.oci import OciRuntime

    return OciRuntime(str(settings.data_path / "runtime"), clock, network)
