"""Routes to the pods of all other nodes, kept as the Node objects say: their addresses and their spec.podCIDRs.

A node that comes, changes or goes changes its routes at once; every RESYNC_S all are looked at, for others may have
removed some (an interface that goes down takes its routes with it).
"""

from __future__ import annotations

import asyncio
import logging

from knarr.api.core.node_addresses import ip_addresses
from knarr.api.core.v1 import Node
from knarr.client.informer import Informer, Informers
from knarr.clock import Clock
from knarr.network import peer_routes
from knarr.network.peer_routes import Peer, Tunnel
from knarr.network.podnet import PodNetwork

log = logging.getLogger(__name__)

RESYNC_S = 30.0
RETRY_S = 1.0


class NodeRoutes:
    """One node's routes to the others. They stay when `run` ends; the pod network takes them away with itself."""

    def __init__(self, informers: Informers, clock: Clock, node_name: str, network: PodNetwork) -> None:
        self._clock = clock
        self._node_name = node_name
        self._network = network
        number = peer_routes.network_number(network.cluster_cidrs, network.service_cidrs)
        self._tunnel = Tunnel(network.tunnel_interface, node_name, number, network.gateways)
        self._wake = asyncio.Event()
        self._nodes: Informer[Node] = informers.of(Node)
        self._nodes.add_handler(self._changed)

    def _changed(self, old: Node | None, new: Node | None) -> None:
        """Heartbeats change nothing."""
        if (old and peer_of(old)) != (new and peer_of(new)):
            self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        await self._nodes.synced.wait()
        while True:
            self._wake.clear()
            wait_s = RESYNC_S
            try:
                if changed := await self.apply():
                    log.info("routes to other nodes: %s changed", changed)
            except OSError as failure:
                log.warning("routes to other nodes: %s; trying again", failure)
                wait_s = RETRY_S
            try:
                async with self._clock.timeout(wait_s):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def apply(self) -> int:
        """Bring the kernel to what the Nodes say now; answers how many routes that changed."""
        nodes = {node.metadata.name: peer_of(node) for node in self._nodes.all()}
        own = nodes.pop(self._node_name, None)
        addresses = own.addresses if own is not None else ()
        network, tunnel = self._network, self._tunnel
        return await network.with_netlink(
            lambda netlink: peer_routes.apply(
                netlink,
                peer_routes.plan(nodes.values(), lambda address: peer_routes.way_to(netlink, address), addresses),
                tunnel,
                network.cluster_cidrs,
            )
        )


def peer_of(node: Node) -> Peer:
    """What routes to a node are made of."""
    spec = node.spec
    ranges = (list(spec.pod_cidrs) or ([spec.pod_cidr] if spec.pod_cidr else [])) if spec else []
    return Peer(node.metadata.name or "", tuple(ip_addresses(node)), tuple(ranges))
