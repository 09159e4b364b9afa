"""Forget UDP flows that lead to an endpoint that is gone.

The kernel keeps sending the packets of a known flow where the first one went. A TCP connection to an endpoint that is
gone ends by itself (and one to an endpoint that merely left the service may finish), but a UDP client such as a
resolver would go on into the void for as long as it keeps sending. So, as upstream does, flows to a service that are
not answered by one of its serving endpoints are deleted after each change of that service: those to an endpoint that is
gone, those that began before there was one, and those to an address or node port that is no service's any more. A
change of policy or hints moves no flow.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterable

from knarr.network import netlink as kernel
from knarr.network.netlink import Netlink, TrackedConnection
from knarr.network.proxy.model import FAMILIES, PortRules, family_of

UDP = socket.IPPROTO_UDP
FAMILY_NUMBERS = {"IPv4": socket.AF_INET, "IPv6": socket.AF_INET6}


def stale_flows(
    flows: Iterable[TrackedConnection],
    ports: Collection[PortRules],
    gone: Collection[PortRules],
    node_addresses: Collection[str],
) -> list[TrackedConnection]:
    """Those of `flows` that lead to a service port, but not to one of its endpoints.

    `ports` are the changed service ports as they are now, `gone` those that are no more: nobody may serve these.
    """
    serving_at: dict[tuple[str, int], set[tuple[str, int]]] = {}
    serving_node_port: dict[tuple[str, int], set[tuple[str, int]]] = {}
    """By family and port."""
    for rules, there in (*((each, False) for each in gone), *((each, True) for each in ports)):
        serving = {(each.address, each.port) for each in rules.serving} if there else set()
        for address in rules.frontends:
            serving_at[address, rules.port] = serving
        if rules.node_port:
            serving_node_port[rules.family, rules.node_port] = serving
    stale = []
    for flow in flows:
        wanted = serving_at.get((flow.original_destination, flow.original_destination_port))
        if wanted is None and flow.original_destination in node_addresses:
            wanted = serving_node_port.get((family_of(flow.original_destination), flow.original_destination_port))
        if wanted is not None and (flow.reply_source, flow.reply_source_port) not in wanted:
            stale.append(flow)
    return stale


def forget_stale_flows(netfilter: Netlink, ports: Collection[PortRules], gone: Collection[PortRules]) -> int:
    """Delete stale UDP flows in the network namespace of `netfilter`, which the calling thread must be in; answers how
    many. Blocks."""
    ports = [each for each in ports if each.protocol == "udp"]
    gone = [each for each in gone if each.protocol == "udp"]
    families = [family for family in FAMILIES if any(each.family == family for each in (*ports, *gone))]
    if not families:
        return 0
    with Netlink() as route:
        addresses = kernel.local_addresses(route)
    deleted = 0
    for family in families:
        flows = list(kernel.tracked_connections(netfilter, UDP, FAMILY_NUMBERS[family]))
        deleted += kernel.delete_tracked(netfilter, stale_flows(flows, ports, gone, addresses))
    return deleted
