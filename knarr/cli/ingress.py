"""What a user has configured about Ingress, read into the edge that serves it, once there is something to serve."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from knarr.api.coordination import data_planes
from knarr.api.core.node_agents import KUBELET_PORT
from knarr.cli import machine
from knarr.client.client import Client
from knarr.client.informer import Informers
from knarr.clock import Clock
from knarr.config import Config
from knarr.edge.ingress.classes import first
from knarr.figures import Figure
from knarr.network.acknowledgement import Acknowledgement
from knarr.network.dns.forward import Forwarder
from knarr.network.dns.wire import Type, name_of

if TYPE_CHECKING:
    from knarr.edge.ingress.edge import IngressEdge
    from knarr.edge.ingress.model import Endpoint

ACCOUNT = "ingress-controller"
DNS_PORT = 53


class LazyEdge:
    """Imports and makes the edge when the first Ingress of ours is seen: who has none pays for nothing."""

    name = "ingress"

    def __init__(self, informers: Informers, make: Callable[[], IngressEdge]) -> None:
        self._informers = informers
        self._make = make
        self._edge: IngressEdge | None = None

    async def run(self) -> None:
        await first(self._informers)
        await asyncio.to_thread(import_module, "knarr.edge.ingress.edge")
        self._edge = self._make()
        await self._edge.run()

    async def close(self) -> None:
        if self._edge is not None:
            await self._edge.close()

    def figures(self) -> Iterable[Figure]:
        return self._edge.figures() if self._edge is not None else ()


def ingress(
    config: Config, client: Client, client_of: Callable[..., Client], informers: Informers, clock: Clock
) -> LazyEdge | None:
    """None where none is wanted, or where pods have no address. `client_of` answers the client of a user."""
    if config.ingress_class == "none" or config.runtime != "oci":
        return None
    node = client_of(f"system:node:{config.node_name}", "system:nodes")
    return LazyEdge(informers, lambda: edge_of(config, client, node, informers, clock))


def edge_of(config: Config, client: Client, node: Client, informers: Informers, clock: Clock) -> IngressEdge:
    from knarr.edge.ingress.edge import IngressEdge
    from knarr.edge.ingress.envoy import Serving
    from knarr.edge.ingress.ports import every_address

    def beside(edge: IngressEdge) -> Sequence[Callable[[], Awaitable[None]]]:
        name = config.node_name
        told = Acknowledgement(node, informers, clock, edge, node_name=name, kind=data_planes.EDGE)
        return (told.run,)

    return IngressEdge(
        client,
        informers,
        clock,
        folder=config.data_path / "logs" / "ingress",
        serving=Serving(
            every_address(), config.ingress_http_port, config.ingress_https_port, config.ingress_metrics_port
        ),
        addresses=[config.advertise_address],
        refuse=refusing(config),
        resolve=_resolver(config, clock),
        beside=beside,
    )


def refusing(config: Config) -> Callable[[Endpoint], bool]:
    """Which endpoints nobody may reach through us: this machine's own inside, and its agent."""
    from knarr.edge.ingress.backends import is_unreachable

    own = {config.advertise_address, machine.node_gateway(config), *config.cluster_dns_addresses}
    ports = {config.listen_port, KUBELET_PORT}

    def refuse(endpoint: Endpoint) -> bool:
        if is_unreachable(endpoint.address) or endpoint.address == config.api_service_ip:
            return True
        return endpoint.address in own and endpoint.port in ports

    return refuse


def _resolver(config: Config, clock: Clock) -> Callable[[str], Awaitable[tuple[str, ...]]]:
    """External names are asked for at the cluster's own DNS, as a pod would."""
    forwarder = Forwarder(clock, [(address, DNS_PORT) for address in config.cluster_dns_addresses])

    async def resolve(name: str) -> tuple[str, ...]:
        found: list[str] = []
        for kind in (Type.A, Type.AAAA):
            records = await forwarder.addresses(name_of(name), kind)
            found += [str(each.data) for each in records if each.type == kind]
        if not found:
            raise OSError(f"{name} has no address")
        return tuple(found)

    return resolve
