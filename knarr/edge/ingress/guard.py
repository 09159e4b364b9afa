"""What nobody reaches through Ingress, whatever slices and names say: nodes' agents, the API server, machines' insides.

The agents are where the Nodes tell that they are. The API server is at all addresses of its machine, which is known by
the one address that everybody is told, and at its Service's. What nodes answer themselves at cluster IPs (DNS) leads to
the same sockets. Loopback and link-local addresses are the machine's own, and its cloud's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from knarr.api.core.node_agents import KUBELET_PORT, Place, addresses_of, agent_port, canonical
from knarr.api.core.v1 import Node
from knarr.client.informer import Informer, Informers
from knarr.edge.ingress.backends import is_unreachable
from knarr.edge.ingress.model import Endpoint
from knarr.network.proxy.model import leads_to_agent


class Guard:
    """Says which endpoints are none, by the Nodes as they are."""

    def __init__(
        self,
        informers: Informers,
        *,
        api_server: Place,
        api_services: Collection[str],
        own_addresses: Sequence[str],
        pod_ranges: Sequence[str],
    ) -> None:
        """`api_services` are cluster IPs of the API server, `own_addresses` those that each node answers itself."""
        self._api_server = api_server
        self._api_services = frozenset(map(canonical, api_services))
        self._own_addresses = tuple(own_addresses)
        self._pod_ranges = tuple(pod_ranges)
        self._nodes: Informer[Node] = informers.of(Node)
        self._places: frozenset[Place] = guarded((), api_server, own_addresses)
        self._changed: list[Callable[[], None]] = []
        self._nodes.add_handler(self._node_changed)

    def add_handler(self, changed: Callable[[], None]) -> None:
        """Call it when other endpoints are none."""
        self._changed.append(changed)

    def refuses(self, endpoint: Endpoint) -> bool:
        if is_unreachable(endpoint.address) or canonical(endpoint.address) in self._api_services:
            return True
        return leads_to_agent(endpoint.address, endpoint.port, self._places, self._pod_ranges)

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        """Heartbeats change nothing."""
        if old is not None and new is not None and _place(old) == _place(new):
            return
        places = guarded(self._nodes.all(), self._api_server, self._own_addresses)
        if places != self._places:
            self._places = places
            for changed in self._changed:
                changed()


def guarded(nodes: Iterable[Node], api_server: Place, own_addresses: Sequence[str]) -> frozenset[Place]:
    """Address and port of all that is no backend. A node without an agent of its own has nothing at the usual port."""
    address, port = canonical(api_server[0]), api_server[1]
    places = {(address, port)}
    for node in nodes:
        addresses, agent = _place(node)
        places |= {(each, agent) for each in addresses}
        if address in addresses:
            places |= {(each, port) for each in addresses}
    places |= {(canonical(each), number) for each in own_addresses for number in {port for _, port in places}}
    return frozenset(places)


def _place(node: Node) -> tuple[set[str], int]:
    return addresses_of(node), agent_port(node) or KUBELET_PORT
