"""Which node answers for a load balancer's address: the same answer everywhere, with no one to ask.

Of the nodes that can, the one with the highest hash of itself and the address (rendezvous hashing): each address has an
order of the nodes of its own. So addresses are spread over the nodes, and when a node goes only its own addresses move.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from hashlib import blake2b

from knarr.api.core.v1 import Node, Service
from knarr.api.discovery.v1 import EndpointSlice
from knarr.edge.loadbalancer import current_ingress, is_ready, target_of, wants_one
from knarr.edge.providers.local import CLASS, Pool, contains


def owner_of(address: str, nodes: Iterable[str]) -> str | None:
    """None where there is no node at all."""
    return max(nodes, key=lambda node: blake2b(f"{node}\0{address}".encode()).digest(), default=None)


def able_nodes(nodes: Iterable[Node], alive: Collection[str]) -> list[str]:
    """Nodes that could answer: heard of, ready and not excluded. One that is not ready is better than none."""
    heard = [node for node in nodes if node.metadata.name in alive and target_of(node, with_readiness=False)]
    return [node.metadata.name or "" for node in [each for each in heard if is_ready(each)] or heard]


def candidates(service: Service, able: Sequence[str], slices: Iterable[EndpointSlice]) -> Sequence[str]:
    """Of these nodes those that may answer for a Service: with externalTrafficPolicy Local those with an endpoint."""
    if service.spec is None or service.spec.external_traffic_policy != "Local":
        return able
    serving = {
        endpoint.node_name
        for slice_ in slices
        for endpoint in slice_.endpoints
        if endpoint.conditions is None or endpoint.conditions.ready is not False
    }
    return [name for name in able if name in serving]


def announced(service: Service, pools: Sequence[Pool]) -> list[str]:
    """Its addresses that are to be answered for on the LAN."""
    if not wants_one(service) or service.metadata.deletion_timestamp is not None:
        return []
    if service.spec is None or service.spec.load_balancer_class not in (None, CLASS):
        return []
    return [each.ip for each in current_ingress(service) if each.ip and contains(pools, each.ip)]
