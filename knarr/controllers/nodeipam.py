"""Each node gets its range of pod addresses: spec.podCIDR, and spec.podCIDRs with one of each family.

Upstream's node-ipam-controller (--allocate-node-cidrs). A node that comes with a range keeps it; one without gets the
next that is free. What a deleted node had is free again, but comes last in turn: somebody may still have routes to it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from knarr.api.core.v1 import Node
from knarr.api.errors import NotFound
from knarr.client.client import Client
from knarr.client.controller import Controller
from knarr.client.informer import Informers, key_of
from knarr.clock import Clock

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

ASK_AGAIN_S = 30.0
"""A node for which there was no range: another may have gone."""


class Ranges:
    """The ranges of one family: a cluster's, cut into nodes' shares of the length `prefix`."""

    def __init__(self, cluster: str, prefix: int, reserved: Iterable[str] = ()) -> None:
        """`reserved` are never given away."""
        self._cluster: Network = ipaddress.ip_network(cluster)
        self._prefix = prefix
        self._count = 1 << (prefix - self._cluster.prefixlen)
        self._next = 0
        self._holders: dict[str, Network] = {}
        self._used: set[int] = set()
        """Places of the shares that are taken."""
        self._wide: list[Network] = []
        """What was taken in larger pieces, by others than us."""
        self._reserved = {place for each in reserved if (place := self._place(ipaddress.ip_network(each))) is not None}

    def hold(self, node: str, ranges: Iterable[str]) -> None:
        """A node has these; those of the other family or of elsewhere don't matter."""
        for text in ranges:
            network = _parsed(text)
            if network is None or network.version != self._cluster.version or self._holders.get(node) == network:
                continue
            self.free(node)
            self._holders[node] = network
            place = self._place(network)
            if place is not None:
                self._used.add(place)
            elif network.overlaps(self._cluster):
                self._wide.append(network)

    def free(self, node: str) -> None:
        network = self._holders.pop(node, None)
        if network is None or network in self._holders.values():
            return
        place = self._place(network)
        if place is not None:
            self._used.discard(place)
        elif network in self._wide:
            self._wide.remove(network)

    def take(self, node: str) -> str | None:
        """A share for a node, the same again for one that holds one; None when all are taken."""
        if node in self._holders:
            return str(self._holders[node])
        if len(self._used | self._reserved) >= self._count:
            return None
        for offset in range(self._count):
            place = (self._next + offset) % self._count
            share = self._share(place)
            if place in self._used or place in self._reserved or any(share.overlaps(each) for each in self._wide):
                continue
            self._next = (place + 1) % self._count
            self.hold(node, [str(share)])
            return str(share)
        return None

    def _share(self, place: int) -> Network:
        size = 1 << (self._cluster.max_prefixlen - self._prefix)
        return ipaddress.ip_network((int(self._cluster.network_address) + place * size, self._prefix))

    def _place(self, network: Network) -> int | None:
        """Which share a range is, or is in; None when it is more than one, or of elsewhere."""
        if network.version != self._cluster.version or network.prefixlen < self._prefix:
            return None
        beyond = int(network.network_address) - int(self._cluster.network_address)
        place = beyond >> (self._cluster.max_prefixlen - self._prefix)
        return place if beyond >= 0 and place < self._count else None


class NodeRanges(Controller):
    """Sets spec.podCIDRs of v1 Nodes that have none."""

    name = "node-ipam-controller"

    def __init__(self, client: Client, informers: Informers, clock: Clock, families: Sequence[Ranges]) -> None:
        self._families = families
        super().__init__(client, informers, clock)

    def watch(self) -> None:
        self.nodes = self.informer(Node)
        self.nodes.add_handler(self._note)
        self.on(self.nodes, key_of)

    def _note(self, old: Node | None, new: Node | None) -> None:
        node = new or old
        assert node is not None
        for family in self._families:
            if new is None:
                family.free(node.metadata.name or "")
            else:
                family.hold(node.metadata.name or "", ranges_of(node))

    async def reconcile(self, key: str) -> float | None:
        node = self.nodes.get(key)
        if node is None or node.metadata.deletion_timestamp or ranges_of(node):
            return None
        taken = [family.take(key) for family in self._families]
        ranges = [each for each in taken if each is not None]
        if len(ranges) < len(taken):
            for family in self._families:
                family.free(key)
            self.events.normal(node, "CIDRNotAvailable", f"Node {key} status is now: CIDRNotAvailable")
            return ASK_AGAIN_S
        try:
            await self.client.patch(Node, key, {"spec": {"podCIDR": ranges[0], "podCIDRs": ranges}})
        except NotFound:
            for family in self._families:
                family.free(key)
        return None


def ranges_of(node: Node) -> list[str]:
    """A node's ranges of pod addresses, one of each family."""
    if node.spec is None:
        return []
    return list(node.spec.pod_cidrs) or ([node.spec.pod_cidr] if node.spec.pod_cidr else [])


def _parsed(text: str) -> Network | None:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        return None
