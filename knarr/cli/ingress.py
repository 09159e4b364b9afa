"""What a user has configured about Ingress, read into the edges that serve it, once there is something to serve.

cluster_ingress    on the machine of the control plane: its own Envoy; what people are told, for all nodes; and what
                   the other nodes are handed
joined_ingress     on a machine that joined: its own Envoy, by what it is handed
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import cache
from importlib import import_module
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from knarr.api.coordination import data_planes
from knarr.api.core.v1 import Node
from knarr.api.networking.v1 import Ingress
from knarr.api.selectors import parse_selector
from knarr.cli import machine
from knarr.cli.machine import NodeSettings
from knarr.client.client import Client
from knarr.client.informer import Informers
from knarr.client.transport import Answer, Request, User
from knarr.clock import Clock
from knarr.config import Config
from knarr.edge.ingress.classes import first
from knarr.edge.ingress.terms import Terms
from knarr.figures import Figure
from knarr.network.acknowledgement import Acknowledgement
from knarr.network.dns.forward import Forwarder
from knarr.network.dns.wire import Type, name_of

if TYPE_CHECKING:
    from knarr.edge.ingress.envoy import Serving
    from knarr.edge.ingress.guard import Guard
    from knarr.edge.ingress.handover import Handed, Handover
    from knarr.edge.ingress.report import Reports

ACCOUNT = "ingress-controller"
DNS_PORT = 53

Page = Callable[[Request, User], Awaitable[Answer]]
"""Answers at PATH."""


class Made(Struct):
    """An edge, and what belongs to it."""

    edge: Any
    """IngressEdge; only its users import it."""
    loops: Sequence[Callable[[], Awaitable[None]]] = ()
    """To run beside it."""


Hand = Callable[[], "Handed"]


class LazyEdge:
    """Imports and makes the edge when the first Ingress of ours is seen: who has none pays for nothing."""

    name = "ingress"

    def __init__(self, informers: Informers, make: Callable[[Handed | None], Made], hand: Hand | None = None) -> None:
        """With `hand`, everything waits for what is handed over, and the leave to serve."""
        self._informers = informers
        self._make = make
        self._hand = hand
        self._made: Made | None = None

    async def run(self) -> None:
        await first(self._informers)
        async with asyncio.TaskGroup() as group:
            handed = self._hand() if self._hand is not None else None
            if handed is not None:
                group.create_task(handed.run(), name="certificates of Ingress")
                await handed.synced.wait()
            await asyncio.to_thread(import_module, "knarr.edge.ingress.edge")
            made = self._made = self._make(handed)
            for loop in (made.edge.run, *made.loops):
                group.create_task(_running(loop), name="ingress")

    async def close(self) -> None:
        if self._made is not None:
            await self._made.edge.close()

    def figures(self) -> Iterable[Figure]:
        return self._made.edge.figures() if self._made is not None else ()


def cluster_ingress(
    config: Config, client: Client, node: Client, informers: Informers, clock: Clock, api_port: int
) -> tuple[LazyEdge, Page]:
    """The edge, and what answers the nodes that ask. `client` writes what people are told; `node` is the client of this
    machine's node."""
    selector = parse_selector(config.ingress_nodes)
    terms = Terms(
        http_port=config.ingress_http_port,
        https_port=config.ingress_https_port,
        metrics_port=config.ingress_metrics_port,
        api_server=(config.advertise_address, api_port),
    )
    nodes = informers.of(Node)

    def serves(node: Node) -> bool:
        return selector.matches(node.metadata.labels)

    def serves_here() -> bool:
        own = nodes.get(config.node_name)
        return own is not None and serves(own)

    def make(handed: Handed | None) -> Made:
        from knarr.edge.ingress.report import Reports
        from knarr.edge.ingress.serving_nodes import ServingNodes

        serving = ServingNodes(informers, clock, serves, lambda: reports.look_again())
        reports = Reports(client, informers.of(Ingress), clock, serving.addresses)
        made = _made(machine.node_settings(config), node, informers, clock, terms, reports, serves_here)
        made.loops = (serving.run,)

        def node_changed(old: Node | None, new: Node | None) -> None:
            if (old and serves(old)) != (new and serves(new)):
                made.edge.look_again()

        nodes.add_handler(node_changed)
        return made

    @cache
    def handover() -> Handover:
        from knarr.edge.ingress.handover import Handover  # who has one machine needs none

        return Handover(informers, clock, terms, serves)

    async def answer(request: Request, user: User) -> Answer:
        return await handover().answer(request, user)

    return LazyEdge(informers, make), answer


def joined_ingress(settings: NodeSettings, node: Client, informers: Informers, clock: Clock) -> LazyEdge:
    """`node` is the node's client: it only writes what is about this node."""

    def hand() -> Handed:
        from knarr.edge.ingress.handover import Handed

        return Handed(node, informers, clock, settings.name)

    def make(handed: Handed | None) -> Made:
        from knarr.edge.ingress.report import Reports

        assert handed is not None
        terms = handed.terms
        assert terms is not None
        reports = Reports(node, informers.of(Ingress), clock, host=settings.name)
        made = _made(settings, node, informers, clock, terms, reports, lambda: handed.terms is not None, handed)

        def leave_changed() -> None:
            if handed.terms is not None:
                made.edge.serve_at(_serving(handed.terms))
            made.edge.look_again()

        handed.add_leave_handler(leave_changed)
        return made

    return LazyEdge(informers, make, hand)


def _made(
    settings: NodeSettings,
    node: Client,
    informers: Informers,
    clock: Clock,
    terms: Terms,
    reports: Reports,
    serves: Callable[[], bool],
    secrets: Handed | None = None,
) -> Made:
    """One machine's edge. Without `secrets` it may read them itself."""
    from knarr.edge.ingress.edge import IngressEdge

    guard = guard_of(settings, informers, terms)
    edge = IngressEdge(
        node,
        informers,
        clock,
        folder=settings.data_path / "logs" / "ingress",
        serving=_serving(terms),
        addresses=settings.internal_ips,
        refuse=guard.refuses,
        resolve=_resolver(settings, clock),
        node_name=settings.name,
        reports=reports,
        secrets=secrets,
        serves=serves,
        beside=lambda edge: (lease.run,),
    )
    guard.add_handler(edge.look_again)
    lease = Acknowledgement(
        node,
        informers,
        clock,
        edge,
        node_name=settings.name,
        kind=data_planes.EDGE,
        also=lambda: {data_planes.SERVED_PORTS: ",".join(map(str, edge.served_ports))},
    )
    edge.add_ports_handler(lease.tell)
    return Made(edge)


def guard_of(settings: NodeSettings, informers: Informers, terms: Terms) -> Guard:
    from knarr.edge.ingress.guard import Guard

    return Guard(
        informers,
        api_server=terms.api_server,
        # The `kubernetes` Service has the first address, as upstream has it.
        api_services=[str(ip_network(each)[1]) for each in settings.service_cidrs],
        own_addresses=settings.cluster_dns,
        pod_ranges=settings.cluster_cidrs,
    )


def _serving(terms: Terms) -> Serving:
    from knarr.edge.ingress.envoy import Serving
    from knarr.edge.ingress.ports import every_address

    return Serving(every_address(), terms.http_port, terms.https_port, terms.metrics_port)


def _resolver(settings: NodeSettings, clock: Clock) -> Callable[[str], Awaitable[tuple[str, ...]]]:
    """External names are asked for at the cluster's own DNS, as a pod would."""
    forwarder = Forwarder(clock, [(address, DNS_PORT) for address in settings.cluster_dns])

    async def resolve(name: str) -> tuple[str, ...]:
        found: list[str] = []
        for kind in (Type.A, Type.AAAA):
            records = await forwarder.addresses(name_of(name), kind)
            found += [str(each.data) for each in records if each.type == kind]
        if not found:
            raise OSError(f"{name} has no address")
        return tuple(found)

    return resolve


async def _running(loop: Callable[[], Awaitable[None]]) -> None:
    await loop()
