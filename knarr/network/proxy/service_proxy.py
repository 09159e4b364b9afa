"""The service proxy: keeps the kernel's rules on this node in step with Services and EndpointSlices.

It reacts to the first change at once; what changes while a transaction runs goes into the next one, so a burst costs
two transactions and not a hundred. `synced(revision)` answers when the kernel shows a given write: who drains a pod can
wait until no new connection can reach it. Every `resync_period_s` the rules are checked, and rewritten whole if anyone
else has touched them. Established connections are never cut.

Node ports are answered where `node_ports` says; which addresses that means is looked at again with every check.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from typing import Any, Literal, TypeVar

import msgspec

from knarr.api.core.node_addresses import ip_addresses
from knarr.api.core.node_agents import Place, agents
from knarr.api.core.v1 import Node, Service
from knarr.api.discovery.v1 import EndpointSlice
from knarr.client.events import EventRecorder
from knarr.client.informer import Informer, Informers
from knarr.clock import Clock
from knarr.network import netlink as kernel
from knarr.network.commands import CommandFailed
from knarr.network.in_force import InForce, keep_in_step
from knarr.network.proxy.conntrack import forget_stale_flows
from knarr.network.proxy.figures import ProxyFigures
from knarr.network.proxy.iptables import Iptables
from knarr.network.proxy.liveliness import ProxyHealth, is_eligible
from knarr.network.proxy.mode import ProxyMode
from knarr.network.proxy.model import (
    FAMILIES,
    HEADLESS_LABEL,
    SERVICE_NAME_LABEL,
    ZONE_LABEL,
    Family,
    HealthCheck,
    NodeView,
    PortRules,
    family_of,
    health_check,
    refused_addresses,
    service_rules,
)
from knarr.network.proxy.nftables import Nftables
from knarr.network.proxy.node_ports import DEFAULTS, PRIMARY, answering_addresses, includes_loopback, route_loopback
from knarr.network.rule_watch import RuleWatch

T = TypeVar("T")
log = logging.getLogger(__name__)

MINIMUM_INTERVAL_S = 0.01
"""Between two transactions: what changes within it shares one."""
RESYNC_PERIOD_S = 30.0
"""How often the rules are checked for changes by others; upstream's --iptables-sync-period."""
TRIGGERS_MAX = 10_000
SLICES_BY_SERVICE = "slices by service"


TRIGGER_ANNOTATION = "endpoints.kubernetes.io/last-change-trigger-time"
"""On slices: when the change of a pod or a service happened that made them change."""


class ServiceProxy:
    """The service rules of one node. `run` until cancelled, then `close`."""

    def __init__(
        self,
        informers: Informers,
        clock: Clock,
        *,
        node_name: str,
        cluster_cidrs: Sequence[str],
        mode: Literal["nftables", "iptables"] = "nftables",
        service_cidrs: Sequence[str] = (),
        node_port_addresses: Sequence[str] | None = None,
        own_addresses: Sequence[str] = (),
        events: EventRecorder | None = None,
        table: str = "knarr",
        network_namespace: str | None = None,
        minimum_interval_s: float = MINIMUM_INTERVAL_S,
        resync_period_s: float = RESYNC_PERIOD_S,
    ) -> None:
        """`own_addresses` are cluster IPs that the node answers itself (cluster DNS): they get no rules.
        `node_port_addresses` is as in `node_ports`, None for upstream's default; `service_cidrs` hold cluster IPs only.

        `table` names the nftables table; iptables chains have upstream's names, so that mode serves one cluster in a
        network namespace.
        """
        self._clock = clock
        self._table = table
        self._namespace = network_namespace
        self._minimum_interval_s = minimum_interval_s
        self._resync_period_s = resync_period_s
        self._node = NodeView(node_name, own_addresses=frozenset(own_addresses), pod_ranges=tuple(cluster_cidrs))
        self._node_ports = tuple(DEFAULTS[mode] if node_port_addresses is None else node_port_addresses)
        self._events = events
        self.mode = mode
        modes: dict[str, ProxyMode] = {
            "nftables": Nftables(
                clock,
                cluster_cidrs=cluster_cidrs,
                service_cidrs=service_cidrs,
                name=table,
                network_namespace=network_namespace,
            ),
            "iptables": Iptables(clock, cluster_cidrs=cluster_cidrs, network_namespace=network_namespace),
        }
        self._mode = modes.pop(mode)
        self._other_modes = list(modes.values())
        self._services: Informer[Service] = informers.of(Service)
        self._slices: Informer[EndpointSlice] = informers.of(EndpointSlice)
        self._nodes: Informer[Node] = informers.of(Node)
        self._agents: dict[str, set[Place]] = {}
        """By node."""
        self._rules: dict[str, tuple[PortRules, ...]] = {}
        self._refused: dict[str, frozenset[str]] = {}
        """Addresses that services name and that they must not lead to: each is told of once."""
        self._dirty: set[str] = set()
        self._rewrite = True
        self._wake = asyncio.Event()
        self._writing = asyncio.Lock()
        self._in_force = InForce({Service: self._services, EndpointSlice: self._slices}, self._wake)
        self._triggers: list[tuple[Family, float]] = []
        """When what the rules don't show yet happened."""
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="service-proxy")
        self._worker_entered = False
        self._netfilter: kernel.Netlink | None = None
        self._watch = RuleWatch(network_namespace)
        self.transactions = 0
        """How often rules were written."""
        self.figures = ProxyFigures(mode)
        self.health = ProxyHealth(clock)
        self.health_checks: dict[str, HealthCheck] = {}
        """What load balancers may ask about, by service."""
        self.news = asyncio.Event()
        """Set when rules or health checks may be others; for one who waits, and clears it."""
        self._slices.add_index(SLICES_BY_SERVICE, _service_of)
        self._local_addresses: frozenset[str] = frozenset()
        self._services.add_handler(self._service_changed)
        self._slices.add_handler(self._slice_changed)
        self._nodes.add_handler(self._node_changed)

    @property
    def applied_revision(self) -> int:
        """The newest revision of EndpointSlices that the kernel's rules are known to show."""
        return self._in_force.of(EndpointSlice)

    @property
    def seen(self) -> NodeView:
        """From where the rules are seen."""
        return self._node

    @property
    def node_port_addresses(self) -> tuple[str, ...]:
        """Where node ports are answered."""
        return self._node.node_port_addresses

    def service(self, name: str) -> Service | None:
        """By namespace/name."""
        return self._services.get(name)

    async def synced(self, revision: int, kind: type[Any] = EndpointSlice) -> None:
        """Wait until the rules show `revision`: that of a write to an EndpointSlice (or, by `kind`, a Service)."""
        await self._in_force.reached(revision, kind)

    async def run(self) -> None:
        """Keep the rules right until cancelled. The rules stay when it ends."""
        for informer in (self._services, self._slices, self._nodes):
            await informer.synced.wait()
        await self._remove_other_modes()
        await self._look_at_addresses()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._check_periodically(), name="service proxy check")
            group.create_task(self._keep_synced(), name="service proxy sync")

    async def close(self, *, remove: bool) -> None:
        """After `run` has ended; idempotent. With `remove`, leave no chain, set or rule of ours in the kernel."""
        if remove:
            await asyncio.to_thread(route_loopback, False, self._table, self._namespace)
            await self._mode.remove()
        for mode in (self._mode, *self._other_modes):
            await mode.close()
        self._watch.close()
        if self._netfilter is not None:
            await self._in_worker(self._netfilter.close)
            self._netfilter = None
        self._worker.shutdown(wait=False)

    async def _remove_other_modes(self) -> None:
        """What a run in another mode left when it was killed would compete with our rules."""
        for mode in self._other_modes:
            try:
                if await mode.is_there():
                    await mode.remove()
            except CommandFailed as failure:
                log.debug("the rules of another mode can't be looked for: %s", failure)

    # What changed

    def _service_changed(self, old: Service | None, new: Service | None) -> None:
        service = new or old
        assert service is not None
        self.figures.changed("service", self._clock.time_s())
        self._mark(f"{service.metadata.namespace}/{service.metadata.name}")

    def _slice_changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        self.figures.changed("endpoint", self._clock.time_s())
        if new is not None:
            self._note_trigger(new)
        for each in (old, new):
            for key in _service_of(each) if each is not None else ():
                self._mark(key)

    def _note_trigger(self, changed: EndpointSlice) -> None:
        """Remember since when the rules have been behind, to tell how long it took."""
        text = changed.metadata.annotations.get(TRIGGER_ANNOTATION)
        if not text or changed.address_type not in FAMILIES or len(self._triggers) >= TRIGGERS_MAX:
            return
        with suppress(ValueError):
            family: Family = "IPv6" if changed.address_type == "IPv6" else "IPv4"
            self._triggers.append((family, datetime.fromisoformat(text).timestamp()))

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        node = new or old
        assert node is not None
        name = node.metadata.name or ""
        self._see_agents(name, agents([new]) if new is not None else set())
        if name != self._node.name:
            return
        self.health.node_eligible = is_eligible(new)
        if new is not None:
            self._see(zone=new.metadata.labels.get(ZONE_LABEL, ""), addresses=_addresses_of(new))

    def _see_agents(self, node: str, places: set[Place]) -> None:
        """Services that name the port of an agent that came or went are looked at again."""
        before = self._agents.get(node, set())
        if places == before:
            return
        self._agents[node] = places
        if not places:
            del self._agents[node]
        everywhere: set[Place] = set().union(*self._agents.values())
        # What the node answers itself at a cluster IP, its agent is reached at too.
        everywhere |= {(address, port) for address in self._node.own_addresses for _, port in everywhere}
        self._node = msgspec.structs.replace(self._node, agents=frozenset(everywhere))
        ports = {port for _, port in places ^ before}
        for each in self._slices.all():
            if any(port.port in ports for port in each.ports):
                for key in _service_of(each):
                    self._mark(key)

    def _see(self, **changes: Any) -> None:
        """Look from another place, and at every service again when it is another."""
        seen = msgspec.structs.replace(self._node, **changes)
        answering = answering_addresses(
            self._node_ports, seen.addresses, self._local_addresses, any_address=self.mode == "iptables"
        )
        seen = msgspec.structs.replace(seen, node_port_addresses=answering)
        if seen != self._node:
            self._node = seen
            for service in self._services.all():
                self._mark(f"{service.metadata.namespace}/{service.metadata.name}")

    async def _look_at_addresses(self) -> None:
        """The machine's own addresses may change without anybody telling."""
        self._local_addresses = await self._in_worker(self._read_addresses)
        self._see()

    def _mark(self, service: str) -> None:
        self._dirty.add(service)
        self.health.queued()
        self._wake.set()

    # The loop

    async def _keep_synced(self) -> None:
        await keep_in_step(
            self._sync,
            self._wake,
            self._clock,
            what="service rules",
            minimum_interval_s=self._minimum_interval_s,
            failed=self._failed,
        )

    def _failed(self) -> None:
        self.figures.failures += 1

    async def _sync(self) -> None:
        """One transaction that brings the rules to what the informers show now."""
        self._wake.clear()
        shown = self._in_force.seen()
        dirty, self._dirty = self._dirty, set()
        triggers, self._triggers = self._triggers, []
        self.figures.taken()
        before = {name: self._rules.get(name, ()) for name in dirty}
        wanted = {name: self._wanted(name) for name in dirty}
        changed = {name for name in dirty if wanted[name] != before[name]}
        if self._rewrite or changed:
            rules = {**self._rules, **{name: wanted[name] for name in changed}}
            for name in [name for name in changed if not rules[name]]:
                del rules[name]
            whole = self._rewrite
            self._rewrite = True  # until the kernel has said yes
            try:
                await self._write(rules, None if whole else changed)
            except BaseException:
                self._dirty |= dirty
                raise
            self._rules, self._rewrite = rules, False
            await self._forget_flows(rules if whole else changed, before)
        for name in dirty:
            self._note(name, wanted[name])
        self._in_force.show(shown)
        if not self._dirty:
            self.health.updated()
        now_s = self._clock.time_s()
        for family, since_s in triggers:
            self.figures.programmed(family, max(0.0, now_s - since_s))
        self.news.set()

    def _note(self, name: str, ports: tuple[PortRules, ...]) -> None:
        """What others may ask of a service that the rules show."""
        self.figures.ports(name, ports)
        service = self._services.get(name)
        check = health_check(service, self._slices.by_index(SLICES_BY_SERVICE, name), self._node) if service else None
        if check:
            self.health_checks[name] = check
        else:
            self.health_checks.pop(name, None)

    def _wanted(self, name: str) -> tuple[PortRules, ...]:
        service = self._services.get(name)
        if service is None:
            self._refused.pop(name, None)
            return ()
        slices = self._slices.by_index(SLICES_BY_SERVICE, name)
        self._tell_of_refused(name, service, refused_addresses(service, slices))
        return service_rules(service, slices, self._node)

    def _tell_of_refused(self, name: str, service: Service, addresses: Sequence[str]) -> None:
        """Once for each address that a service must not lead to."""
        new = [each for each in addresses if each not in self._refused.get(name, ())]
        if addresses:
            self._refused[name] = frozenset(addresses)
        else:
            self._refused.pop(name, None)
        for address in new:
            message = f"no rules are made for {address}: loopback, link-local and multicast addresses serve nobody else"
            log.warning("service %s: %s", name, message)
            if self._events:
                self._events.warning(service, "InvalidServiceAddress", message)

    async def _write(self, rules: dict[str, tuple[PortRules, ...]], changed: set[str] | None) -> None:
        started_s = self._clock.monotonic_s()
        async with self._writing:
            await self._in_worker(lambda: self._watch.begin(self._mode.tables))
            commits = await self._mode.apply(rules, changed)
            await self._in_worker(lambda: self._watch.end(self._mode.tables, commits, whole=changed is None))
        self.transactions += 1
        took_s = self._clock.monotonic_s() - started_s
        families = {port.family for name in (rules if changed is None else changed) for port in rules.get(name, ())}
        self.figures.synced(took_s, self._clock.time_s(), families, whole=changed is None)
        log.debug(
            "service rules: %s services written in %.1f ms", "all" if changed is None else len(changed), took_s * 1e3
        )

    async def _forget_flows(
        self, names: Sequence[str] | set[str] | dict[str, Any], before: dict[str, tuple[PortRules, ...]]
    ) -> None:
        now = [port for name in names for port in self._rules.get(name, ())]
        gone = [port for name in names for port in before.get(name, ())]
        if any(port.protocol == "udp" for port in (*now, *gone)):
            forgotten = await self._in_worker(lambda: forget_stale_flows(self._opened_netfilter(), now, gone))
            self.figures.forgot(forgotten)

    async def _check_periodically(self) -> None:
        while True:
            await self._clock.sleep(self._resync_period_s)
            await self._look_at_addresses()
            async with self._writing:
                if not await self._in_worker(lambda: self._watch.intact(self._mode.tables)):
                    # Somebody changed rules of ours, or nobody can tell.
                    self._rewrite = True
                    self._wake.set()

    # The worker thread

    async def _in_worker(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, self._inside, work)

    def _inside(self, work: Callable[[], T]) -> T:
        if self._namespace and not self._worker_entered:
            kernel.enter(self._namespace)
        self._worker_entered = True
        return work()

    def _read_addresses(self) -> frozenset[str]:
        """Only where ranges of them are meant."""
        if not any(each != PRIMARY for each in self._node_ports):
            return frozenset()
        if includes_loopback(self._node_ports):
            route_loopback(True, self._table)
        with kernel.Netlink() as route:
            return frozenset(kernel.local_addresses(route))

    def _opened_netfilter(self) -> kernel.Netlink:
        if self._netfilter is None:
            self._netfilter = kernel.Netlink(kernel.NETLINK_NETFILTER)
        return self._netfilter


def _addresses_of(node: Node) -> tuple[str, ...]:
    """A node's own addresses, its first of each family."""
    for wanted in ("InternalIP", "ExternalIP"):
        first: dict[str, str] = {}
        for address in ip_addresses(node, wanted):
            first.setdefault(family_of(address), address)
        if first:
            return tuple(first.values())
    return ()


def _service_of(each: EndpointSlice) -> tuple[str, ...]:
    """The service that a slice belongs to; none for headless ones, which need no rules."""
    labels = each.metadata.labels
    if SERVICE_NAME_LABEL not in labels or HEADLESS_LABEL in labels:
        return ()
    return (f"{each.metadata.namespace}/{labels[SERVICE_NAME_LABEL]}",)
