"""The agents of nodes: the addresses and ports at which they answer the API server, and nobody else by way of it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache

from knarr.api.core.v1 import Node

KUBELET_PORT = 10250
"""Where an agent answers that was not told otherwise; upstream's kubelet port."""
ADDRESS_TYPES = ("InternalIP", "ExternalIP")
ADDRESSES_KNOWN_MAX = 65_536

Place = tuple[str, int]
"""Address, as `canonical` has it, and port."""


def agents(nodes: Iterable[Node]) -> set[Place]:
    """Where each answers. A node whose agent is within the API server's process answers nowhere."""
    return {(address, port) for node in nodes if (port := agent_port(node)) for address in addresses_of(node)}


def agent_port(node: Node) -> int:
    """0 for none."""
    endpoints = node.status.daemon_endpoints if node.status else None
    return (endpoints.kubelet_endpoint.port if endpoints and endpoints.kubelet_endpoint else 0) or 0


def addresses_of(node: Node) -> set[str]:
    """By which a node is known to be reached: those that it tells, and its own among its pods, their gateway."""
    told = {each.address for each in (node.status.addresses if node.status else ()) if each.type in ADDRESS_TYPES}
    ranges = (node.spec.pod_cidrs or [node.spec.pod_cidr or ""]) if node.spec else []
    return {canonical(each) for each in (*told, *map(_gateway, ranges)) if each}


@lru_cache(ADDRESSES_KNOWN_MAX)
def canonical(address: str) -> str:
    """An address as it is compared: one way to write each, and an IPv4 address inside an IPv6 one is what it is."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)


def _gateway(cidr: str) -> str:
    try:
        return str(ipaddress.ip_network(cidr)[1])
    except (ValueError, IndexError):
        return ""
