"""One node's share of the load balancers' addresses that are of pools: it answers for those that it is elected for.

Every node has an announcer, and each says once a second that it is alive, by a Lease (announcer.<node> in kube-system).
All of them elect by the same rule (`election`), so exactly one answers for an address, and when a node dies another
does within LEASE_RENEWALS seconds. A node that doesn't see its own Lease renewed can't judge the others: it changes
nothing, unless it hears on the LAN that another has one of its addresses. So addresses stay reachable while the API
server is away, and a node that is cut off from it gives way to the one that took over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from knarr.api.coordination import data_planes
from knarr.api.coordination.v1 import Lease, LeaseSpec
from knarr.api.core.v1 import Node, Service
from knarr.api.discovery.v1 import EndpointSlice
from knarr.api.errors import AlreadyExists, APIError, NotFound
from knarr.api.meta.v1 import ObjectMeta, OwnerReference
from knarr.client.client import MERGE_PATCH, Client
from knarr.client.informer import Informer, Informers, key_of
from knarr.clock import Clock, micro_time
from knarr.edge.election import able_nodes, announced, candidates, owner_of
from knarr.edge.lan import Lan
from knarr.edge.loadbalancer import target_of
from knarr.edge.providers.local import SLICES_BY_SERVICE, Pool, service_of

log = logging.getLogger(__name__)

RENEW_S = 1.0
RENEW_EACH_S = 0.05
RENEW_MAX_S = 10.0
"""n announcers renew each n × RENEW_EACH_S, at least RENEW_S: every renewal reaches all of them."""
LEASE_RENEWALS = 5
"""An announcer that has missed so many renewals is dead."""
LENT_RENEWALS = 3
"""For how long the kernel has an address: it takes it away (within a second) before another node comes to it."""
TICK_S = 0.25
"""How often it is looked whether somebody has died."""
PAUSE_S = 0.02
"""Changes that come in a burst are looked at together."""
GIVE_UP_S = 1.0
"""An end doesn't wait longer for an API server that may be ending too."""
TELLS = 5
"""How often a new address is announced, a second apart: a frame may get lost, a switch may be slow to learn."""


class _Heard(Struct):
    """The last sign of an announcer, by this machine's own clock: clocks of machines differ."""

    renewed: str
    at_s: float
    lease_s: float


class Announcer:
    """`run` until cancelled, then `close`."""

    name = "announcer"

    def __init__(
        self,
        client: Client,
        informers: Informers,
        clock: Clock,
        *,
        node_name: str,
        pools: Sequence[Pool],
        record: Path,
        network_namespace: str | None = None,
    ) -> None:
        """`client` is the node's. `record` is a file that remembers what is held."""
        self._client = client
        self._clock = clock
        self._node_name = node_name
        self._lease_name = data_planes.lease_name(data_planes.ANNOUNCER, node_name)
        self._pools = tuple(pools)
        self.lan = Lan(record, network_namespace)
        self._services: Informer[Service] = informers.of(Service)
        self._nodes: Informer[Node] = informers.of(Node)
        self._slices: Informer[EndpointSlice] = informers.of(EndpointSlice)
        self._leases: Informer[Lease] = informers.of(
            Lease, namespace=data_planes.NAMESPACE, label_selector=data_planes.ANNOUNCER_LABEL
        )
        self._heard: dict[str, _Heard] = {}
        self._lost: set[str] = set()
        """Addresses that another took while this node could not see who is to have them."""
        self._saw = False
        """Whether it could see the others when it looked last."""
        self._others = False
        """There are other announcers, as far as is known."""
        self._tells: dict[str, int] = {}
        self._news = asyncio.Event()
        self._slices.add_index(SLICES_BY_SERVICE, service_of)
        self._services.add_handler(self._service_changed)
        self._nodes.add_handler(self._node_changed)
        self._slices.add_handler(self._slice_changed)
        self._leases.add_handler(self._lease_changed)

    async def run(self) -> None:
        await self.lan.open(self._taken)
        for informer in (self._services, self._nodes, self._slices, self._leases):
            await informer.synced.wait()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._renew(), name="announcer lease")
            group.create_task(self._follow(), name="announcer election")
            group.create_task(self._repeat(), name="announcer repeats")

    async def close(self, *, remove: bool) -> None:
        """With `remove` the addresses are given up, and others needn't wait until this node's Lease has run out."""
        await self.lan.close(remove=remove)
        if remove:
            try:
                async with self._clock.timeout(GIVE_UP_S):
                    await self._client.delete(Lease, self._lease_name, data_planes.NAMESPACE)
            except (APIError, TimeoutError) as error:
                log.debug("lease %s: %s", self._lease_name, error)

    # Being alive

    async def _renew(self) -> None:
        while True:
            try:
                await self._write_lease()
            except APIError as error:
                log.warning("lease %s: %s; trying again", self._lease_name, error)
            await self._clock.sleep(self._renew_s())

    def _renew_s(self) -> float:
        return min(max(RENEW_S, len(self._heard) * RENEW_EACH_S), RENEW_MAX_S)

    async def _write_lease(self) -> None:
        spec = LeaseSpec(
            holder_identity=self._node_name,
            lease_duration_seconds=round(self._renew_s() * LEASE_RENEWALS),
            renew_time=micro_time(self._clock.time_s()),
        )
        metadata: dict[str, Any] = {"labels": {data_planes.ANNOUNCER_LABEL: ""}}
        patch = {"metadata": metadata, "spec": spec}
        try:
            await self._client.patch(Lease, self._lease_name, patch, data_planes.NAMESPACE, content_type=MERGE_PATCH)
        except NotFound:
            await self._create_lease(metadata["labels"], spec)

    async def _create_lease(self, labels: dict[str, str], spec: LeaseSpec) -> None:
        """It goes with its Node."""
        node = await self._client.get(Node, self._node_name)
        owner = OwnerReference(api_version="v1", kind="Node", name=self._node_name, uid=node.metadata.uid or "")
        metadata = ObjectMeta(
            name=self._lease_name, namespace=data_planes.NAMESPACE, labels=labels, owner_references=[owner]
        )
        try:
            await self._client.create(Lease(metadata=metadata, spec=spec))
        except AlreadyExists:
            pass

    def _lease_changed(self, old: Lease | None, new: Lease | None) -> None:
        lease = new or old
        assert lease is not None
        spec = lease.spec or LeaseSpec()
        node = spec.holder_identity or ""
        if new is None:
            self._heard.pop(node, None)
            self._news.set()
            return
        renewed = str(spec.renew_time or "")
        heard = self._heard.get(node)
        if heard is None or heard.renewed != renewed:
            self._heard[node] = _Heard(renewed, self._clock.monotonic_s(), float(spec.lease_duration_seconds or 0))

    # What matters of a change: every heartbeat of a node is one, and every pod that comes or goes

    def _service_changed(self, old: Service | None, new: Service | None) -> None:
        if any(each is not None and announced(each, self._pools) for each in (old, new)):
            self._news.set()

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        before, after = (each and target_of(each, with_readiness=True) for each in (old, new))
        if before != after:
            self._news.set()

    def _slice_changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        for key in {key for each in (old, new) if each is not None for key in service_of(each)}:
            service = self._services.get(key)
            if service and service.spec and service.spec.external_traffic_policy == "Local":
                self._news.set()

    def _alive(self) -> frozenset[str]:
        now_s = self._clock.monotonic_s()
        return frozenset(node for node, heard in self._heard.items() if now_s - heard.at_s <= heard.lease_s)

    # Who has what

    async def _follow(self) -> None:
        alive: frozenset[str] = frozenset()
        lent_s = 0.0
        while True:
            before, alive = alive, self._alive()
            now_s = self._clock.monotonic_s()
            if self._node_name in alive:
                self._lost.clear()
            if self._news.is_set() or alive != before or now_s - lent_s >= RENEW_S or self._lost & self.lan.held:
                self._news.clear()
                lent_s = now_s
                await self._hold(alive)
                await self._clock.sleep(PAUSE_S)
            try:
                async with self._clock.timeout(TICK_S):
                    await self._news.wait()
            except TimeoutError:
                pass

    async def _hold(self, alive: frozenset[str]) -> None:
        sees = self._node_name in alive
        again, self._saw = sees and not self._saw, sees
        wanted = self.elected(alive) if sees else self.lan.held - self._lost
        if sees:
            self._others = len(alive) > 1
        # Where nobody else would take over, it answers whatever becomes of this process.
        valid_s = round(self._renew_s() * LENT_RENEWALS) if self._others else None
        try:
            fresh = await self.lan.hold(wanted, valid_s)
        except OSError as error:
            log.warning("load balancer addresses: %s; trying again", error)
            self._news.set()
            await self._clock.sleep(RENEW_S)
            return
        if again:
            # Others may have had its addresses meanwhile, and whoever talks to them goes on doing so until he is told.
            await self.lan.announce(self.lan.held - fresh)
            fresh = self.lan.held
        self._tells.update(dict.fromkeys(fresh, TELLS - 1))

    def elected(self, alive: frozenset[str]) -> frozenset[str]:
        """The addresses that are this node's."""
        able = able_nodes(self._nodes.all(), alive)
        mine = set()
        for service in self._services.all():
            addresses = announced(service, self._pools)
            if addresses:
                slices = self._slices.by_index(SLICES_BY_SERVICE, key_of(service))
                these = candidates(service, able, slices)
                mine |= {address for address in addresses if owner_of(address, these) == self._node_name}
        return frozenset(mine)

    def _taken(self, address: str) -> None:
        """Another says that it has it. Who sees the others knows whether that is right; who doesn't gives way."""
        if self._node_name in self._alive():
            self._tells.setdefault(address, 1)
        else:
            self._lost.add(address)
            self._news.set()

    async def _repeat(self) -> None:
        while True:
            await self._clock.sleep(RENEW_S)
            now, self._tells = (
                self._tells,
                {address: left - 1 for address, left in self._tells.items() if left > 1 and address in self.lan.held},
            )
            await self.lan.announce(now)
