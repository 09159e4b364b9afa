"""One node's parts, as they run in `knarr up` and on machines that joined it. A new part of a node goes in here.

    open       pod network and container runtime, which find again what still runs from last time
    assemble   what works for the API's objects, given a client and informers: agent, service proxy (and how
               far it has come), DNS
    serve      the cluster's DNS, on its Service's address
    leave      others need not wait for it any more
    close      all of it, with or without what it put into the kernel

`NodeParts` is a node with real containers, `HollowParts` one on which nothing really runs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

from knarr.cli import machine, teardown
from knarr.cli.balancing import announcer, port_watch
from knarr.cli.life import Loop
from knarr.cli.machine import NodeSettings
from knarr.client.client import Client
from knarr.client.events import EventRecorder
from knarr.client.informer import Informers
from knarr.clock import Clock
from knarr.config import Config
from knarr.network.acknowledgement import Acknowledgement, withdraw
from knarr.network.dns.pages import dns_pages
from knarr.network.dns.server import DnsServer, host_resolvers
from knarr.network.node_routes import NodeRoutes
from knarr.network.policy.enforcer import PolicyEnforcer
from knarr.network.proxy.health import ServiceHealth
from knarr.network.proxy.service_proxy import ServiceProxy
from knarr.node.agent import NodeAgent
from knarr.node.backend import NodeBackend
from knarr.node.config import NodeConfig
from knarr.node.local_volumes import FOLDER_ANNOTATION
from knarr.node.runtime.contract import Runtime
from knarr.node.runtime.sim import SimRuntime

if TYPE_CHECKING:
    from knarr.edge.announcer import Announcer

DNS_PORT = 53


class Parts(Protocol):
    """What a process needs of a node."""

    name: str
    runtime: Runtime
    backend: NodeBackend
    """For who asks for logs and streams; after `assemble`."""

    async def open(self) -> None: ...

    def assemble(self, client: Client, informers: Informers) -> list[tuple[str, Loop]]:
        """Answers what is to run, by name. `client` is the node's own; `informers` are their owner's to run."""

    async def serve(self) -> None:
        """After `assemble`."""

    async def leave(self, *, keep: bool) -> None:
        """While the API server may still be there: without `keep`, others need not wait for this node any more."""

    async def close(self, *, keep: bool) -> list[str]:
        """When no loop runs any more. Without `keep` nothing stays in the kernel; answers what could not be removed."""


class NodeParts:
    """A node with real containers."""

    def __init__(self, settings: NodeSettings, clock: Clock) -> None:
        self.settings = settings
        self.name = settings.name
        self._clock = clock
        self.network = machine.pod_network(settings, clock)
        self._oci = machine.oci_runtime(settings, clock, self.network)
        self.runtime: Runtime = self._oci
        self._announcer: Announcer | None = None
        self._closing: list[Callable[[], Awaitable[None]]] = []
        """What else is to be closed, in the order of opening."""

    async def open(self) -> None:
        await self.network.start()
        await self.runtime.start()
        await self.network.retain([sandbox.id for sandbox in await self.runtime.sandboxes()])

    def assemble(self, client: Client, informers: Informers) -> list[tuple[str, Loop]]:
        settings, self._client = self.settings, client
        config = NodeConfig(
            name=settings.name,
            root=settings.data_path / "node",
            log_root=settings.data_path / "logs",
            internal_ips=settings.internal_ips,
            pod_cidrs=settings.pod_cidrs,
            provider_id=settings.provider_id,
            port=settings.port,
            annotations={FOLDER_ANNOTATION: str(settings.volume_folder)} if settings.port else {},
            cluster_dns=settings.cluster_dns,
            cluster_domain=settings.cluster_domain,
            drain_s_max=settings.drain_timeout,
        )
        policies = PolicyEnforcer(
            informers,
            self._clock,
            node_name=settings.name,
            dns_addresses=settings.cluster_dns,
            table=settings.policy_table,
        )
        agent = self.agent = NodeAgent(client, self._clock, self.runtime, config, informers, self.network, policies)
        self.backend = NodeBackend(agent, self.runtime)
        proxy = ServiceProxy(
            informers,
            self._clock,
            node_name=settings.name,
            cluster_cidrs=settings.cluster_cidrs,
            service_cidrs=settings.service_cidrs,
            node_port_addresses=settings.answering,
            mode=settings.proxy_mode,
            own_addresses=settings.cluster_dns,
            events=(events := EventRecorder(client, self._clock, "kube-proxy", settings.name)),
            table=settings.service_table,
        )
        health = ServiceHealth(proxy, self._clock, events, node_name=settings.name)
        routes = NodeRoutes(informers, self._clock, settings.name, self.network)
        # Its rules go, or stay, with everything else in the kernel.
        self._closing.append(lambda: proxy.close(remove=False))
        acknowledgement = Acknowledgement(client, informers, self._clock, proxy, node_name=settings.name)
        self._dns = DnsServer(
            informers,
            self._clock,
            listen=[(address, DNS_PORT) for address in settings.cluster_dns],
            forward=settings.dns_forward or host_resolvers(),
            stub_domains=settings.dns_stub_domains,
            domain=settings.cluster_domain,
        )
        loops: list[tuple[str, Loop]] = [
            (f"node {self.name}", agent.run),
            ("routes", routes.run),
            ("service proxy", proxy.run),
            ("service health", health.run),
            ("service events", events.run),
            (policies.name, policies.run),
            (acknowledgement.name, acknowledgement.run),
        ]
        self._announcer = announcer(settings, client, informers, self._clock)
        watch = port_watch(settings, client, informers, self._clock)
        return loops + [(each.name, each.run) for each in (self._announcer, watch) if each]

    async def serve(self) -> None:
        """The node takes the DNS Service's addresses as its own."""
        for address in self.settings.cluster_dns:
            await self.network.add_node_address(address)
        for part in (self._dns, dns_pages(self._dns, self.settings.cluster_dns)):
            await part.start()
            self._closing.append(part.close)

    async def leave(self, *, keep: bool) -> None:
        if self._announcer:
            await self._announcer.close(remove=not keep)
        if not keep:
            await withdraw(self._client, self._clock, self.name)

    async def close(self, *, keep: bool) -> list[str]:
        while self._closing:
            await self._closing.pop()()
        left = [] if keep else await teardown.remove_all(self.settings, self._oci, self._clock)
        await self._oci.close()
        if keep:
            await self.network.close(remove=False)
            return left
        return left + await teardown.remove_network(self.network)


class HollowParts:
    """A node on which nothing really runs, and that has no network."""

    def __init__(self, config: NodeConfig, clock: Clock) -> None:
        self.name = config.name
        self._config = config
        self._clock = clock
        self.runtime: Runtime = SimRuntime(clock, ",".join(config.pod_cidrs))

    async def open(self) -> None:
        await self.runtime.start()

    def assemble(self, client: Client, informers: Informers) -> list[tuple[str, Loop]]:
        agent = NodeAgent(client, self._clock, self.runtime, self._config, informers)
        self.backend = NodeBackend(agent, self.runtime)
        return [(f"node {self.name}", agent.run)]

    async def serve(self) -> None:
        return

    async def leave(self, *, keep: bool) -> None:
        return

    async def close(self, *, keep: bool) -> list[str]:
        await self.runtime.close()
        return []


def parts_of(config: Config, clock: Clock) -> list[Parts]:
    """The nodes of `knarr up`: one with real containers, or as many hollow ones as are wanted."""
    if config.runtime == "oci":
        return [NodeParts(machine.node_settings(config), clock)]
    names = [f"{config.node_name}-{number}" for number in range(config.sim_nodes)]
    return [
        HollowParts(_hollow(config, config.node_name if config.sim_nodes == 1 else name, tuple(ranges)), clock)
        for name, ranges in zip(names, config.node_ranges, strict=True)
    ]


def _hollow(config: Config, name: str, pod_cidrs: tuple[str, ...]) -> NodeConfig:
    return NodeConfig(
        name=name,
        root=config.data_path / "node",
        log_root=config.data_path / "logs",
        internal_ips=(config.advertise_address,),
        pod_cidrs=pod_cidrs,
        provider_id=config.provider_id if config.sim_nodes == 1 else "",
        cluster_dns=tuple(config.cluster_dns_addresses),
        cluster_domain=config.cluster_domain,
        hollow=True,
        drain_s_max=config.drain_timeout,
    )
