"""A small cluster for one seeded run: the real control plane over a store that tells of each write as it happens.

Three processes, each with caches of its own, go through the weather: the loops (`manager`), the scheduler, the nodes.
A loop that crashes loses its memory; sometimes its whole process goes, with its caches. Users are not in the weather.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from knarr.api.apps.v1 import ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet
from knarr.api.autoscaling.v2 import HorizontalPodAutoscaler
from knarr.api.batch.v1 import CronJob, Job
from knarr.api.certificates.v1 import CertificateSigningRequest
from knarr.api.coordination.v1 import Lease
from knarr.api.core.v1 import (
    Binding,
    ConfigMap,
    Endpoints,
    Event,
    Namespace,
    Node,
    PersistentVolume,
    PersistentVolumeClaim,
    Pod,
    ReplicationController,
    ResourceQuota,
    Secret,
    Service,
    ServiceAccount,
)
from knarr.api.decode import decoder
from knarr.api.discovery.v1 import EndpointSlice
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.networking.v1 import IPAddress, ServiceCIDR
from knarr.api.policy.v1 import PodDisruptionBudget
from knarr.api.rbac.v1 import ClusterRole
from knarr.api.registry import built_in
from knarr.api.resources import Registry
from knarr.api.scheduling.v1 import PriorityClass
from knarr.api.storage.v1 import StorageClass
from knarr.apiserver.bootstrap import local_class, priority_classes
from knarr.apiserver.default_range import ensure_default_range
from knarr.apiserver.server import APIServer, InProcessTransport
from knarr.client.client import Client
from knarr.client.controller import Controller
from knarr.client.informer import Informers
from knarr.client.transport import User
from knarr.clock import Clock
from knarr.controllers.clusterrole_aggregation import ClusterRoleAggregation
from knarr.controllers.cronjob import CronJobs
from knarr.controllers.csr_serving import ServingApproval
from knarr.controllers.daemonset import DaemonSets
from knarr.controllers.deployment import Deployments
from knarr.controllers.disruption import DisruptionBudgets
from knarr.controllers.disruption_stale import StaleDisruptions
from knarr.controllers.endpoints import EndpointsOfServices
from knarr.controllers.endpointslice import EndpointSlices
from knarr.controllers.endpointslicemirroring import EndpointSliceMirroring
from knarr.controllers.ephemeralvolume import EphemeralVolumes
from knarr.controllers.garbagecollector import GarbageCollector
from knarr.controllers.horizontalpodautoscaler import HorizontalPodAutoscalers
from knarr.controllers.job import Jobs
from knarr.controllers.job_orphans import JobOrphans
from knarr.controllers.namespace import Namespaces
from knarr.controllers.nodeipam import NodeRanges, Ranges
from knarr.controllers.nodelifecycle import NodeLifecycle
from knarr.controllers.persistentvolume import VolumeBinder
from knarr.controllers.podgc import PodGarbageCollector
from knarr.controllers.replicaset import ReplicaSets
from knarr.controllers.replicationcontroller import ReplicationControllers
from knarr.controllers.resourcequota import ResourceQuotaUsage
from knarr.controllers.rollback import Rollbacks
from knarr.controllers.serviceaccount import ServiceAccounts
from knarr.controllers.servicecidrs import ServiceCIDRs
from knarr.controllers.servicerepair import ServiceRepair
from knarr.controllers.statefulset import StatefulSets
from knarr.controllers.storageprotection import ClaimProtection, VolumeProtection
from knarr.controllers.tainteviction import TaintEviction
from knarr.controllers.tokencleaner import TokenCleaner
from knarr.controllers.ttlafterfinished import FinishedJobs
from knarr.controllers.volumeexpansion import VolumeExpansion
from knarr.node.local_volumes import LocalVolumes
from knarr.scheduler import Scheduler
from knarr.simulate.clock import VirtualClock
from knarr.simulate.faults import CALM, FaultyTransport, Odds, Weather, asking
from knarr.simulate.nodes import HollowNodes
from knarr.store.contract import Write
from knarr.store.memory import MemoryStore
from tests.simulate.outside import Folders, Loads, MeasuredTransport


class FewRanges(NodeRanges):
    """With one range more than there are nodes at most."""

    def __init__(self, client: Client, informers: Informers, clock: Clock) -> None:
        super().__init__(client, informers, clock, [Ranges("10.64.0.0/22", 24)])


ADMINISTRATOR = User("admin", ("system:masters", "system:authenticated"))
ALWAYS: tuple[type[Controller], ...] = (
    Namespaces,
    ServiceAccounts,
    GarbageCollector,
    NodeLifecycle,
    TaintEviction,
    PodGarbageCollector,
)
"""Loops that every run has; the others come with the kinds that it is about."""
LOOPS: dict[type[Any], tuple[type[Controller], ...]] = {
    Deployment: (Deployments, Rollbacks, ReplicaSets),
    ReplicationController: (ReplicationControllers,),
    StatefulSet: (StatefulSets,),
    DaemonSet: (DaemonSets,),
    Job: (Jobs, JobOrphans, FinishedJobs),
    CronJob: (CronJobs,),
    HorizontalPodAutoscaler: (HorizontalPodAutoscalers,),
    PodDisruptionBudget: (DisruptionBudgets, StaleDisruptions),
    ResourceQuota: (ResourceQuotaUsage,),
    PersistentVolume: (VolumeBinder, VolumeExpansion, EphemeralVolumes, ClaimProtection, VolumeProtection),
    Service: (EndpointSlices, EndpointsOfServices, EndpointSliceMirroring),
    IPAddress: (ServiceCIDRs, ServiceRepair),
    ClusterRole: (ClusterRoleAggregation,),
    Node: (FewRanges,),
    Secret: (TokenCleaner,),
    CertificateSigningRequest: (ServingApproval,),
}
ALWAYS_OBSERVED: tuple[type[Any], ...] = (
    ConfigMap,
    ControllerRevision,
    DaemonSet,
    Deployment,
    Job,
    Namespace,
    Node,
    PersistentVolumeClaim,
    Pod,
    PodDisruptionBudget,
    ReplicaSet,
    ReplicationController,
    ResourceQuota,
    Service,
    ServiceAccount,
    StatefulSet,
)
OBSERVED = (
    *ALWAYS_OBSERVED,
    CertificateSigningRequest,
    ClusterRole,
    CronJob,
    EndpointSlice,
    Endpoints,
    HorizontalPodAutoscaler,
    IPAddress,
    PersistentVolume,
    PriorityClass,
    Secret,
    ServiceCIDR,
    StorageClass,
)
KINDS = (*ALWAYS_OBSERVED, Binding, Event, Lease)
"""What every cluster serves; the rest only where a story is about it, as the loops watch all that there is."""
WORKERS = 3
"""Keys that a loop works on at once: few, as there are few."""
DOWN_MAX_S = 1.0
"""A crashed part is away for at most so long."""
PROCESS_CRASHES = 0.2
"""So many of the crashes of a loop take its whole process, and all caches, along."""


@dataclass(frozen=True, slots=True)
class Change:
    """One write that took effect."""

    kind: type[Any]
    key: str
    old: Any
    new: Any
    """None when it is gone."""
    part: str
    """Who asked for it: a loop's name, scheduler, hollow-nodes, user."""
    revision: int
    now_s: float

    def __str__(self) -> str:
        what = "deleted" if self.new is None else "created" if self.old is None else "changed"
        return f"{self.now_s:8.3f} {self.part:28} {what} {self.kind.__name__} {self.key} @{self.revision}"


class ObservedStore(MemoryStore):
    """A store that tells of each write before anybody else can act on it."""

    def __init__(self, observe: Callable[[int, Write, bytes | None], None]) -> None:
        super().__init__()
        self._observe = observe
        self.is_full = False
        """It takes nothing any more: in calm weather, endless writes may be all at one moment, which never ends."""

    async def commit(self, *writes: Write) -> int:
        if self.is_full:
            raise RuntimeError("the store is full")
        before = [self.history.get(write.key) for write in writes]
        revision = await super().commit(*writes)
        for write, record in zip(writes, before, strict=True):
            self._observe(revision, write, record.value if record else None)
        return revision


@dataclass(slots=True)
class State:
    """What is in the store now, decoded."""

    objects: dict[type[Any], dict[str, Any]] = field(default_factory=lambda: {kind: {} for kind in OBSERVED})
    by_uid: dict[str, Any] = field(default_factory=dict)
    loads: Loads = field(default_factory=Loads)
    """What users ask of the workloads: autoscalers measure it."""

    def all(self, kind: type[Any], namespace: str | None = None) -> list[Any]:
        found = self.objects[kind].values()
        return [obj for obj in found if namespace is None or obj.metadata.namespace == namespace]

    def get(self, kind: type[Any], key: str) -> Any | None:
        return self.objects[kind].get(key)

    def put(self, change: Change) -> None:
        if change.old is not None and (change.new is None or change.new.metadata.uid != change.old.metadata.uid):
            self.by_uid.pop(change.old.metadata.uid, None)
        if change.new is None:
            self.objects[change.kind].pop(change.key, None)
        else:
            self.objects[change.kind][change.key] = change.new
            self.by_uid[change.new.metadata.uid] = change.new


def loops_of(kinds: Collection[type[Any]]) -> list[type[Controller]]:
    """The loops of a run that is about these kinds."""
    return [*ALWAYS, *(loop for kind, loops in LOOPS.items() if kind in kinds for loop in loops)]


class World:
    """The parts of the cluster, and what is watched of them."""

    def __init__(
        self,
        clock: VirtualClock,
        kinds: Iterable[type[Any]],
        odds: Odds,
        *,
        nodes: int,
        collector_apart: bool,
        watch: Callable[[Change], None],
        **hollow: Any,
    ) -> None:
        self.clock = clock
        self.state = State()
        self.store = ObservedStore(self._observe)
        self.server = APIServer(self.store, built_in(), clock)
        self.weather = Weather(clock, self.crash)
        self.odds = odds
        self.broken: list[str] = []
        """What went wrong, the first thing first."""
        self.last_write_s = 0.0
        self.crashes = 0
        self.crashed_s: dict[str, float] = {}
        self._watch = watch
        self._collector_apart = collector_apart
        """The garbage collector has caches of its own, as upstream's: it may know more than the others, or less."""
        whole = {resource.type: resource for resource in self.server.registry}
        self._kinds = {whole[kind].qualified: kind for kind in OBSERVED}
        wanted = set(kinds)
        self._registry = Registry(resource for kind, resource in whole.items() if kind in KINDS or kind in wanted)
        self._loops = loops_of(wanted)
        self.folders = Folders(self.state, self.broken)
        self._has_volumes = PersistentVolume in wanted
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._starts: dict[str, asyncio.TimerHandle] = {}
        """Parts that are down, by name, until they start anew."""
        self.client = self._client("user", calm=True)
        self._manager = self._collector = Informers(self._client("manager"), clock)
        nodes_client = self._client("hollow-nodes", crashes=False)
        self._node_caches = Informers(nodes_client, clock)
        self.nodes = HollowNodes(nodes_client, self._node_caches, clock, nodes, **hollow)

    def _client(self, part: str, *, calm: bool = False, crashes: bool = True, whole: bool = False) -> Client:
        """With `whole` for one that reads other kinds than those that runs are about."""
        weather = Weather(self.clock, self.crash) if calm else self.weather
        measured = MeasuredTransport(InProcessTransport(self.server), self.state, weather)
        transport = FaultyTransport(measured, part, weather, crashes=crashes)
        return Client(transport, self.server.registry if whole else self._registry, ADMINISTRATOR)

    def client_of_node(self, name: str) -> Client:
        """Not in the weather, as users aren't."""
        groups = ("system:nodes", "system:authenticated")
        return Client(InProcessTransport(self.server), self._registry, User(f"system:node:{name}", groups))

    async def run(self, scenario: Callable[[World], Awaitable[None]]) -> None:
        for name in ("default", "kube-node-lease"):
            await self.client.create(Namespace(metadata=ObjectMeta(name=name)))
        bare = Client(InProcessTransport(self.server), self.server.registry, ADMINISTRATOR)
        await priority_classes(bare)
        await ensure_default_range(bare, self.server.settings.service_cidrs)
        if self._has_volumes:
            await local_class(bare)
            self._start_volumes()
        self._start("node caches", self._node_caches.run)
        self._start("hollow-nodes", self.nodes.run)
        self._start_manager()
        self._start_scheduler()
        try:
            await self.clock.sleep(0.5)
            self.weather.odds = self.odds
            await scenario(self)
        finally:
            self.weather.odds = CALM
            for timer in self._starts.values():
                timer.cancel()
            tasks = list(self._tasks.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # Parts that start, and crash

    def _start_manager(self) -> None:
        self._manager = Informers(self._client("manager"), self.clock)
        self._collector = Informers(self._client("collector"), self.clock) if self._collector_apart else self._manager
        for kind in self._loops:
            self._start_loop(kind)
        self._start("manager", self._manager.run)
        if self._collector_apart:
            self._start("collector", self._collector.run)

    def _start_loop(self, kind: type[Controller]) -> None:
        caches = self._collector if kind is GarbageCollector else self._manager
        loop = kind(self._client(kind.name), caches, self.clock)
        loop.workers = WORKERS
        self._start(kind.name, loop.run)

    def _start_scheduler(self) -> None:
        client = self._client("scheduler", whole=True)
        caches = Informers(client, self.clock)
        scheduler = Scheduler(client, caches, self.clock)
        self._start("scheduler caches", caches.run)
        self._start("scheduler", scheduler.run)

    def _start_volumes(self) -> None:
        """The provisioner of the nodes: a process of its own."""
        client = self._client(LocalVolumes.name)
        caches = Informers(client, self.clock)
        self._start("volume caches", caches.run)
        volumes = LocalVolumes(client, caches, self.clock, self.nodes.names, self.folders)
        self._start(LocalVolumes.name, volumes.run)

    def _start(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        async def part() -> None:
            try:
                await run()
            except asyncio.CancelledError:
                raise
            except BaseException as error:
                logging.getLogger("tests.simulate").exception("%s ended", name)
                self.broken.append(f"{name} ended: {error!r}")

        self._tasks[name] = asyncio.get_running_loop().create_task(part(), name=name)

    def crash(self, part: str) -> None:
        """Take a part down, and start it anew a moment later."""
        if part not in self._tasks:
            return
        self.crashes += 1
        self.crashed_s[part] = self.clock.monotonic_s()
        down_s = self.clock.random.uniform(0, DOWN_MAX_S)
        if part == "scheduler":
            self._take_down(("scheduler", "scheduler caches"), down_s, self._start_scheduler)
        elif part == LocalVolumes.name:
            self._take_down((part, "volume caches"), down_s, self._start_volumes)
        elif self.clock.random.random() < PROCESS_CRASHES:
            names = tuple(kind.name for kind in self._loops)
            self.crashed_s |= dict.fromkeys(names, self.clock.monotonic_s())
            self._take_down((*names, "collector", "manager"), down_s, self._start_manager)
        else:
            kind = next(each for each in self._loops if each.name == part)
            self._take_down((part,), down_s, lambda: self._start_loop(kind))

    def _take_down(self, names: tuple[str, ...], down_s: float, again: Callable[[], None]) -> None:
        for name in names:
            if (task := self._tasks.pop(name, None)) is not None:
                task.cancel()
            if (start := self._starts.pop(name, None)) is not None:
                start.cancel()

        def start_anew() -> None:
            del self._starts[names[-1]]
            again()

        self._starts[names[-1]] = asyncio.get_running_loop().call_later(down_s, start_anew)

    # What is seen

    def _observe(self, revision: int, write: Write, before: bytes | None) -> None:
        resource, _, rest = write.key.partition("/")
        kind = self._kinds.get(resource)
        if kind is None:
            return
        decode = decoder(kind).decode
        key = rest.removeprefix("/")
        record = self.store.history.get(write.key)
        old = self.state.objects[kind].get(key)
        new = decode(record.value) if write.value is not None and record is not None else None
        self.last_write_s = self.clock.monotonic_s()
        change = Change(kind, key, old, new, asking.get(), revision, self.last_write_s)
        self.state.put(change)
        self._watch(change)
