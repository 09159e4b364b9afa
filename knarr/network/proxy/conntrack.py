"""Forget UDP flows that lead to an endpoint that is gone.

The kernel keeps sending the packets of a known flow where the first one went. A TCP connection to an endpoint that is
gone ends by itself (and one to an endpoint that merely left the service may finish), but a UDP client such as a
resolver would go on into the void for as long as it keeps sending. So, as upstream does, flows to a service that are
not answered by one of its endpoints are deleted after each change of that service.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterable

from knarr.network import netlink as kernel
from knarr.network.netlink import Netlink, TrackedConnection
from knarr.network.proxy.model import PortRules

UDP = socket.IPPROTO_UDP


def stale_flows(
    flows: Iterable[TrackedConnection],
    ports: Collection[PortRules],
    gone: Collection[PortRules],
    node_addresses: Collection[str],
) -> list[TrackedConnection]:
    """Those of `flows` that lead to a service port, but not to one of its endpoints.

    `ports` are the changed service ports as they are now, `gone` those that are no more: nobody may serve these.
    """
    endpoints_of: dict[tuple[str, int], set[tuple[str, int]]] = {}
    endpoints_of_node_port: dict[int, set[tuple[str, int]]] = {}
    for rules, serving in (*((each, False) for each in gone), *((each, True) for each in ports)):
        endpoints = {(each.address, each.port) for each in rules.endpoints} if serving else set()
        for address in rules.frontends:
            endpoints_of[address, rules.port] = endpoints
        if rules.node_port:
            endpoints_of_node_port[rules.node_port] = endpoints
    stale = []
    for flow in flows:
        wanted = endpoints_of.get((flow.original_destination, flow.original_destination_port))
        if wanted is None and flow.original_destination in node_addresses:
            wanted = endpoints_of_node_port.get(flow.original_destination_port)
        if wanted is not None and (flow.reply_source, flow.reply_source_port) not in wanted:
            stale.append(flow)
    return stale


def forget_stale_flows(ports: Collection[PortRules], gone: Collection[PortRules]) -> int:
    """Delete stale UDP flows in the calling thread's network namespace; answers how many. Blocks."""
    ports = [each for each in ports if each.protocol == "udp"]
    gone = [each for each in gone if each.protocol == "udp"]
    if not ports and not gone:
        return 0
    with Netlink() as route:
        addresses = kernel.local_addresses(route)
    with Netlink(kernel.NETLINK_NETFILTER) as netfilter:
        flows = list(kernel.tracked_connections(netfilter, UDP))
        return kernel.delete_tracked(netfilter, stale_flows(flows, ports, gone, addresses))
