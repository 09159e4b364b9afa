"""The scheduler: gives every pod that has no node one.

One pod at a time is placed, in memory, on the best node for it; binding it there, and telling that it fits nowhere,
happen beside that, many at once. What is known of nodes and pods comes from the shared caches.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace

from knarr.api.apps.v1 import ReplicaSet
from knarr.api.core.pod_state import is_terminal
from knarr.api.core.v1 import Binding, Node, ObjectReference, Pod, PodCondition, Service
from knarr.api.errors import APIError, NotFound
from knarr.api.meta.owners import controller_of, selector_for
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.selectors import Selector, selector_of_labels
from knarr.client.client import Client
from knarr.client.events import EventRecorder
from knarr.client.informer import Informers, key_of
from knarr.clock import Clock, utc
from knarr.scheduler.cache import Cache, NodeInfo, PodInfo
from knarr.scheduler.choice import Choice
from knarr.scheduler.framework import Unschedulable
from knarr.scheduler.plugins import ALL
from knarr.scheduler.plugins.topology_spread import TopologySpread
from knarr.scheduler.queue import SchedulingQueue, Waiting

NAME = "default-scheduler"
WRITERS = 64
"""Bindings and refusals written at once: enough to share the store's commits."""
WRITES_MAX = 2000
"""Choices made ahead of their bindings."""

log = logging.getLogger("knarr.scheduler")


class Scheduler:
    """Binds pods of `schedulerName` NAME to nodes. `run` works until cancelled."""

    def __init__(self, client: Client, informers: Informers, clock: Clock) -> None:
        self._client = replace(client, field_manager="kube-scheduler")
        self._clock = clock
        self._events = EventRecorder(client, clock, NAME)
        self._cache = Cache()
        self._queue = SchedulingQueue(clock)
        plugins = [plugin(self._cache) for plugin in ALL]
        for plugin in plugins:
            if isinstance(plugin, TopologySpread):
                plugin.group_of = self._group_of
        self._choice = Choice(self._cache, plugins, clock.random)
        self._writes: asyncio.Queue[Callable[[], Awaitable[None]]] = asyncio.Queue(WRITES_MAX)
        self._nodes = informers.of(Node)
        self._pods = informers.of(Pod)
        self._services = informers.of(Service)
        self._replica_sets = informers.of(ReplicaSet)
        self._nodes.add_handler(self._node_changed)
        self._pods.add_handler(self._pod_changed)

    async def run(self) -> None:
        for informer in (self._nodes, self._pods, self._services, self._replica_sets):
            await informer.synced.wait()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._events.run(), name="scheduler events")
            group.create_task(self._queue.run_timers(), name="scheduler timers")
            for number in range(WRITERS):
                group.create_task(self._write(), name=f"scheduler writer {number}")
            group.create_task(self._schedule(), name="scheduler")

    async def _schedule(self) -> None:
        while True:
            waiting = await self._queue.take()
            try:
                write = self._place(waiting)
            except Exception:
                log.exception("%s: scheduling failed", waiting.pod.key)
                self._queue.park(waiting)
                continue
            await self._writes.put(write)
            await asyncio.sleep(0)  # let the others run: a burst of pods must not hold up the whole process

    def _place(self, waiting: Waiting) -> Callable[[], Awaitable[None]]:
        """Decide about one pod; what is to be written comes back."""
        pod = waiting.pod
        try:
            node = self._choice.node_for(pod)
        except Unschedulable as refusal:
            message = str(refusal)
            self._queue.park(waiting, refusal.plugins or frozenset({"nodes"}))
            return lambda: self._refuse(waiting, message)
        self._cache.assume(pod, node.name)
        return lambda: self._bind(waiting, node.name)

    async def _write(self) -> None:
        while True:
            write = await self._writes.get()
            try:
                await write()
            except Exception:
                log.exception("a write of the scheduler failed")

    async def _bind(self, waiting: Waiting, node_name: str) -> None:
        pod = waiting.pod.pod
        metadata = pod.metadata
        name, namespace = metadata.name or "", metadata.namespace
        binding = Binding(
            metadata=ObjectMeta(name=name, namespace=namespace, uid=metadata.uid),
            target=ObjectReference(kind="Node", name=node_name),
        )
        try:
            await self._client.post(Pod, name, namespace, "binding", binding)
        except APIError as error:
            self._cache.forget(waiting.pod)
            if isinstance(error, NotFound):
                self._queue.remove(waiting.pod.key)
                return
            log.warning("%s: binding to %s failed: %s", waiting.pod.key, node_name, error)
            self._events.warning(pod, "FailedScheduling", f"binding rejected: {error}")
            self._queue.park(waiting)
            return
        if self._queue.get(waiting.pod.key) is waiting:
            self._queue.remove(waiting.pod.key)
        self._events.normal(pod, "Scheduled", f"Successfully assigned {namespace}/{name} to {node_name}")

    async def _refuse(self, waiting: Waiting, message: str) -> None:
        """Tell why it has no node."""
        pod = waiting.pod.pod
        self._events.warning(pod, "FailedScheduling", message)
        if waiting.message == message:
            return
        waiting.message = message
        old = next((c for c in pod.status.conditions if c.type == "PodScheduled"), None) if pod.status else None
        now = utc(self._clock.time_s())
        condition = PodCondition(
            type="PodScheduled",
            status="False",
            reason="Unschedulable",
            message=message,
            observed_generation=pod.metadata.generation,
            last_transition_time=old.last_transition_time if old and old.status == "False" else now,
        )
        patch = {"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}}
        try:
            await self._client.patch(Pod, pod.metadata.name or "", patch, pod.metadata.namespace, subresource="status")
        except APIError as error:
            waiting.message = ""
            log.debug("%s: its condition could not be written: %s", waiting.pod.key, error)

    # What the caches tell

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        if new is None:
            self._cache.node_gone((old.metadata.name if old else None) or "")
            return
        changed = self._cache.node_changed(new)
        if changed is not None:
            self._help(changed)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        pod = new or old
        assert pod is not None
        key = key_of(pod)
        if new is None:
            self._queue.remove(key)
            self._freed(self._cache.pod_gone(key))
        elif is_terminal(new) or (new.spec and new.spec.node_name):
            self._queue.remove(key)
            if self._cache.pod_changed(new):
                self._freed((new.spec.node_name if new.spec else None) or "")
        elif not _is_to_be_scheduled(new):
            self._queue.remove(key)
        elif not self._cache.is_assumed(key) or (old and old.metadata.uid != new.metadata.uid):
            self._cache.pod_changed(new)
            self._consider(key, new)

    def _consider(self, key: str, pod: Pod) -> None:
        """A pod without a node: new, or changed in a way that may help it."""
        waiting = self._queue.get(key)
        if waiting is not None and _asks_the_same(waiting.pod.pod, pod):
            waiting.pod.pod = pod
            return
        self._queue.add(PodInfo(pod))

    def _freed(self, node_name: str | None) -> None:
        node = self._cache.get(node_name) if node_name else None
        if node is not None:
            self._help(node)

    def _help(self, node: NodeInfo) -> None:
        """A node has changed, or has more room: try the pods again that it would help."""
        for waiting in self._queue.parked():
            if self._choice.fits(waiting.pod, node):
                self._queue.wake(waiting, sure=True)
            elif TopologySpread.name in waiting.plugins:
                self._queue.wake(waiting, sure=False)

    def _group_of(self, pod: Pod) -> Selector | None:
        """The pods of the same Services and the same ReplicaSet."""
        requirements = [
            requirement
            for service in self._services.by_index("namespace", pod.metadata.namespace or "")
            if service.spec and service.spec.selector and service.spec.selector.items() <= pod.metadata.labels.items()
            for requirement in selector_of_labels(service.spec.selector).requirements
        ]
        owner = controller_of(pod)
        if owner is not None and owner.kind == "ReplicaSet":
            replica_set = self._replica_sets.get(f"{pod.metadata.namespace}/{owner.name}")
            selector = selector_for(replica_set.spec.selector) if replica_set and replica_set.spec else None
            requirements += selector.requirements if selector else ()
        return Selector(tuple(dict.fromkeys(requirements))) if requirements else None


def _is_to_be_scheduled(pod: Pod) -> bool:
    return (
        pod.spec is not None
        and pod.spec.scheduler_name in (None, "", NAME)
        and pod.metadata.deletion_timestamp is None
        and not pod.spec.scheduling_gates
    )


def _asks_the_same(before: Pod, after: Pod) -> bool:
    return (
        before.metadata.uid == after.metadata.uid
        and before.metadata.labels == after.metadata.labels
        and before.spec == after.spec
    )
