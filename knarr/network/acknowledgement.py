"""A data plane acknowledges: it tells everyone up to which revision of EndpointSlices its rules are in force.

Whoever stops a pod can so wait until no new connection is led to it, and a rollout until a new pod gets its share (see
docs/drain.md). It is told by a Lease (`api/coordination/data_planes.py`), the same way in one process and between
machines. It is written after each change that the data plane has taken over, one write at a time: what changes
meanwhile goes with the next. Each write reaches every node, so the more data planes there are, the longer each waits
between two.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

from knarr.api.coordination import data_planes
from knarr.api.coordination.v1 import Lease, LeaseSpec
from knarr.api.core.v1 import Node
from knarr.api.discovery.v1 import EndpointSlice
from knarr.api.errors import AlreadyExists, APIError, NotFound
from knarr.api.meta.v1 import ObjectMeta, OwnerReference
from knarr.client.client import MERGE_PATCH, Client
from knarr.client.informer import Informer, Informers
from knarr.clock import Clock, micro_time

log = logging.getLogger(__name__)

LEASE_S = 15
"""A data plane that hasn't been heard of for so long is dead."""
RENEW_S = 5.0
INTERVAL_MIN_S = 0.05
INTERVAL_EACH_S = 0.01
INTERVAL_MAX_S = 1.0
"""Between two writes, for each data plane there is: n of them make at most 100 writes a second, read by n nodes. The
first change after a rest is told at once."""
RETRY_MIN_S = 0.1
RETRY_MAX_S = 5.0
RETRY_HEARTBEAT_S = 1.0
GIVE_UP_S = 1.0
"""An end doesn't wait longer for an API server that may be ending too."""


class DataPlane(Protocol):
    """What leads connections to pods by EndpointSlices: the rules of a kernel, an Envoy."""

    @property
    def applied_revision(self) -> int:
        """The newest revision of EndpointSlices that is in force."""
        ...

    async def synced(self, revision: int) -> None:
        """Wait until `revision` is in force."""
        ...


class Acknowledgement:
    """The lease of one data plane of one node. `run` until cancelled."""

    def __init__(
        self,
        client: Client,
        informers: Informers,
        clock: Clock,
        data_plane: DataPlane,
        *,
        node_name: str,
        kind: str = data_planes.SERVICE_RULES,
        also: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        """`client` is the node's. `informers` are those that the data plane follows itself: revisions are theirs.

        `also` answers what else is to be told, as annotations.
        """
        self._client = client
        self._clock = clock
        self._data_plane = data_plane
        self._node_name = node_name
        self._kind = kind
        self._also = also
        self.name = data_planes.lease_name(kind, node_name)
        self._slices: Informer[EndpointSlice] = informers.of(EndpointSlice)
        self._leases: Informer[Lease] = informers.of(
            Lease, namespace=data_planes.NAMESPACE, label_selector=data_planes.LABEL
        )
        self._news = asyncio.Event()
        self._writing = asyncio.Lock()
        self._written_at_s = 0.0
        self._slices.add_handler(lambda old, new: self._news.set())

    async def run(self) -> None:
        """From the first revision on that is in force: until then an earlier run's lease stands."""
        await self._slices.synced.wait()
        await self._data_plane.synced(self._slices.revision)
        self._news.set()
        self._written_at_s = self._clock.monotonic_s()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow(), name=f"{self.name} follows")
            group.create_task(self._renew(), name=f"{self.name} renews")

    async def _follow(self) -> None:
        delay_s = RETRY_MIN_S
        while True:
            await self._news.wait()
            self._news.clear()
            await self._data_plane.synced(self._slices.revision)
            try:
                await self._write()
            except APIError as error:
                log.warning("lease %s: %s; trying again", self.name, error)
                self._news.set()
                await self._clock.sleep(delay_s * (0.5 + self._clock.random.random()))
                delay_s = min(delay_s * 2, RETRY_MAX_S)
            else:
                delay_s = RETRY_MIN_S
                await self._clock.sleep(self._interval_s())

    async def _renew(self) -> None:
        """The heartbeat goes on while a change can't be taken over: then others know for whom they wait."""
        while True:
            rest_s = self._written_at_s + RENEW_S - self._clock.monotonic_s()
            if rest_s > 0:
                await self._clock.sleep(rest_s)
                continue
            try:
                await self._write()
            except APIError as error:
                log.warning("lease %s: %s; trying again", self.name, error)
                await self._clock.sleep(RETRY_HEARTBEAT_S)

    def _interval_s(self) -> float:
        return min(max(len(self._leases.all()) * INTERVAL_EACH_S, INTERVAL_MIN_S), INTERVAL_MAX_S)

    async def _write(self) -> None:
        async with self._writing:
            annotations = {data_planes.APPLIED_REVISION: str(self._data_plane.applied_revision), **self._also()}
            spec = LeaseSpec(
                holder_identity=self._node_name,
                lease_duration_seconds=LEASE_S,
                renew_time=micro_time(self._clock.time_s()),
            )
            metadata = {"annotations": annotations, "labels": {data_planes.LABEL: self._kind}}
            patch: dict[str, Any] = {"metadata": metadata, "spec": spec}
            try:
                await self._client.patch(Lease, self.name, patch, data_planes.NAMESPACE, content_type=MERGE_PATCH)
            except NotFound:
                await self._create(annotations, spec)
            self._written_at_s = self._clock.monotonic_s()

    def tell(self) -> None:
        """Something that `also` answers is otherwise."""
        self._news.set()

    async def _create(self, annotations: dict[str, str], spec: LeaseSpec) -> None:
        """The lease goes with its Node."""
        node = await self._client.get(Node, self._node_name)
        metadata = ObjectMeta(
            name=self.name,
            namespace=data_planes.NAMESPACE,
            labels={data_planes.LABEL: self._kind},
            annotations=annotations,
            owner_references=[
                OwnerReference(api_version="v1", kind="Node", name=self._node_name, uid=node.metadata.uid or "")
            ],
        )
        with suppress(AlreadyExists):
            await self._client.create(Lease(metadata=metadata, spec=spec))


async def withdraw(client: Client, clock: Clock, node_name: str) -> None:
    """The data planes of a node that ends in order are waited for by nobody: their leases go before they run out."""
    try:
        async with clock.timeout(GIVE_UP_S):
            for name in data_planes.leases_of(node_name):
                with suppress(NotFound):
                    await client.delete(Lease, name, data_planes.NAMESPACE)
    except (APIError, TimeoutError) as error:
        log.debug("leases of node %s: %s", node_name, error)
