"""The agents of nodes: the addresses and ports at which they answer the API server, and nobody else by way of it."""

from __future__ import annotations

from collections.abc import Iterable

from knarr.api.core.v1 import Node

KUBELET_PORT = 10250
"""Where an agent answers that was not told otherwise; upstream's kubelet port."""
ADDRESS_TYPES = ("InternalIP", "ExternalIP")


def agents(nodes: Iterable[Node]) -> set[tuple[str, int]]:
    """Address and port of each. A node whose agent is within the API server's process has none."""
    found = set()
    for node in nodes:
        endpoints = node.status.daemon_endpoints if node.status else None
        port = endpoints.kubelet_endpoint.port if endpoints and endpoints.kubelet_endpoint else 0
        for address in node.status.addresses if node.status and port else ():
            if address.type in ADDRESS_TYPES:
                found.add((address.address, port))
    return found
