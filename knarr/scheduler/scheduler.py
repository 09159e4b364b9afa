"""The scheduler: gives every pod that has no node one.

One pod at a time is placed, in memory, on the best node for it; binding it there, and telling that it fits nowhere,
happen beside that, many at once. What is known of nodes and pods comes from the shared caches.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from msgspec.structs import replace

from knarr.api.apps.v1 import ReplicaSet, StatefulSet
from knarr.api.core.pod_state import is_terminal
from knarr.api.core.v1 import (
    Namespace,
    Node,
    Pod,
    PodCondition,
    ReplicationController,
    Service,
)
from knarr.api.errors import APIError, NotFound
from knarr.api.meta.owners import controller_of, selector_for
from knarr.api.policy.v1 import PodDisruptionBudget
from knarr.api.selectors import Selector, selector_of_labels
from knarr.client.client import Client
from knarr.client.events import EventRecorder
from knarr.client.informer import Informer, Informers, key_of
from knarr.clock import Clock, utc
from knarr.figures import Figure
from knarr.scheduler.binding import Bindings, Course, Write
from knarr.scheduler.cache import Cache, PodInfo
from knarr.scheduler.configuration import Profile
from knarr.scheduler.extenders import Extender, ExtenderFailed, narrowed, node_for
from knarr.scheduler.framework import Aspect, Connections, Step, Unschedulable
from knarr.scheduler.happenings import Happening, What, difference, node_difference
from knarr.scheduler.http_extender import HTTPExtender
from knarr.scheduler.permits import HeldPods
from knarr.scheduler.plugins import ALL
from knarr.scheduler.preemption import Budgets, Candidate, cheapest
from knarr.scheduler.profile import Framework, profile_of
from knarr.scheduler.queue import SchedulingQueue, Waiting
from knarr.scheduler.waking import NO_NODES, Waking

WRITERS = 64
"""Bindings and refusals written at once: enough to share the store's commits."""
WRITES_MAX = 2000
"""Choices made ahead of their bindings."""

log = logging.getLogger("knarr.scheduler")


class Scheduler:
    """Binds pods whose `schedulerName` is that of a profile to nodes. `run` works until cancelled."""

    def __init__(
        self,
        client: Client,
        informers: Informers,
        clock: Clock,
        profiles: Sequence[Profile] = (Profile(),),
        plugins: Sequence[type[Aspect]] = ALL,
        extenders: Sequence[Extender] = (),
    ) -> None:
        self._client = replace(client, field_manager="kube-scheduler")
        self._clock = clock
        self._cache = Cache()
        steps = {plugin.name: plugin(self._cache) for plugin in plugins if issubclass(plugin, Step)}
        self._permits = HeldPods(clock)
        to = Connections(self._client, informers, clock, self._permits)
        self._connected: list[Informer[Any]] = [each for step in steps.values() for each in step.connect(to)]
        self._extenders = [*map(HTTPExtender, profiles[0].extenders), *extenders]
        self._frameworks = {
            profile.name: Framework(
                profile,
                self._cache,
                plugins,
                steps,
                EventRecorder(client, clock, profile.name),
                clock,
                self._extenders,
                group_of=self._group_of,
                labels_of=self._labels_of,
            )
            for profile in profiles
        }
        (sort,) = next(iter(self._frameworks.values())).at["queueSort"]
        self._queue = SchedulingQueue(clock, sort.order, self._gate)
        self._bindings = Bindings(self._client, clock, self._cache, self._queue, self._permits, self._not_bound)
        self._waking = Waking(self._queue, self._cache, self._frameworks, self._permits)
        self._preemptions = 0
        self._writes: asyncio.Queue[Write] = asyncio.Queue(WRITES_MAX)
        self._nodes = informers.of(Node)
        self._pods = informers.of(Pod)
        self._services = informers.of(Service)
        self._replica_sets = informers.of(ReplicaSet)
        self._stateful_sets = informers.of(StatefulSet)
        self._controllers = informers.of(ReplicationController)
        self._namespaces = informers.of(Namespace)
        self._budgets = informers.of(PodDisruptionBudget)
        self._namespaces.add_handler(self._namespace_changed)
        self._nodes.add_handler(self._node_changed)
        self._pods.add_handler(self._pod_changed)
        for kind in self._waking.kinds:
            informers.of(kind).add_handler(partial(self._other_changed, kind))

    async def run(self) -> None:
        caches: tuple[Informer[Any], ...] = (
            self._nodes,
            self._pods,
            self._services,
            self._replica_sets,
            self._stateful_sets,
            self._controllers,
            self._namespaces,
            self._budgets,
            *self._connected,
        )
        for informer in caches:
            await informer.synced.wait()
        async with asyncio.TaskGroup() as group:
            self._bindings.run_in(group)
            for name, framework in self._frameworks.items():
                group.create_task(framework.events.run(), name=f"{name} events")
            group.create_task(self._queue.run_timers(), name="scheduler timers")
            for number in range(WRITERS):
                group.create_task(self._write(), name=f"scheduler writer {number}")
            group.create_task(self._schedule(), name="scheduler")
            if self._extenders:
                group.create_task(self._close_extenders(), name="scheduler extenders")

    async def _close_extenders(self) -> None:
        """When the scheduler ends."""
        try:
            await asyncio.Event().wait()
        finally:
            for extender in self._extenders:
                await extender.close()

    async def _schedule(self) -> None:
        while True:
            waiting = await self._queue.take()
            began_s = self._clock.monotonic_s()
            try:
                write = await self._place(waiting)
                refused = "unschedulable" if waiting.plugins else "error"
                self._count(waiting, refused if waiting.parked else "scheduled", began_s)
            except Exception:
                log.exception("%s: scheduling failed", waiting.pod.key)
                self._count(waiting, "error", began_s)
                self._queue.park(waiting)
                continue
            await self._writes.put(write)
            await asyncio.sleep(0)  # let the others run: a burst of pods must not hold up the whole process

    def _count(self, waiting: Waiting, result: str, began_s: float) -> None:
        attempts = self._framework(waiting.pod).attempts
        attempts[result].observe(self._clock.monotonic_s() - began_s)

    def figures(self) -> Iterator[Figure]:
        """What upstream's scheduler counts, as far as there is the same thing here."""
        labels = "profile", "result"
        times = {
            (name, result): each
            for name, framework in self._frameworks.items()
            for result, each in framework.attempts.items()
        }
        counts = {key: sum(each.counts) for key, each in times.items()}
        text = "Attempts to find a node for a pod, by how they ended."
        yield Figure("counter", "scheduler_schedule_attempts_total", text, labels, counts)
        text = "How long such an attempt took, without the binding."
        yield Figure("histogram", "scheduler_scheduling_attempt_duration_seconds", text, labels, times)
        waiting = {(queue,): n for queue, n in self._queue.counts().items()}
        yield Figure(
            "gauge", "scheduler_pending_pods", "Pods without a node, by what they wait for.", ("queue",), waiting
        )
        text = "Attempts to make room for a pod by ending others."
        yield Figure("counter", "scheduler_preemption_attempts_total", text, (), {(): self._preemptions})

    async def _place(self, waiting: Waiting) -> Write:
        """Decide about one pod; what is to be written comes back. Waits for nothing but extenders."""
        pod, framework = waiting.pod, self._framework(waiting.pod)
        extenders = [each for each in framework.extenders if each.is_interested(pod.pod)]
        try:
            if extenders:
                node = await node_for(framework.choice, pod, extenders)
            else:
                node = framework.choice.node_for(pod)
        except Unschedulable as refusal:
            self._queue.park(waiting, refusal.plugins or frozenset({NO_NODES}))
            return await self._make_room(waiting, refusal, extenders)
        except ExtenderFailed as error:
            return self._failed(waiting, str(error))
        if extenders and self._queue.get(pod.key) is not waiting:
            return _nothing  # gone or changed while extenders were asked
        expected_on = self._cache.withdraw(pod.key)
        write = self._bindings.begin(waiting, node, framework)
        if not waiting.parked:
            self._waking.happened(Happening(Pod, What.PLACED, new=pod, node=node))
        if expected_on != node.name:
            self._left(pod, expected_on)
        return write

    async def _make_room(self, waiting: Waiting, refusal: Unschedulable, extenders: Sequence[Extender]) -> Write:
        """Let others give way to a pod that fits nowhere, if that would help; what is to be written comes back."""
        pod = waiting.pod
        spec, message = pod.pod.spec, refusal.message()
        preemption = self._framework(pod).preemption
        nominated = self._cache.nominated_node(pod.key)
        if preemption is None or not (nominated or preemption.could_help(pod)):
            return lambda: self._refuse(waiting, message)
        if spec and spec.preemption_policy == "Never":
            message = refusal.message_with("not eligible due to preemptionPolicy=Never.")
            return lambda: self._refuse(waiting, message)
        if self._is_making_room(pod, nominated) and any(node.name == nominated for node in refusal.curable):
            message = refusal.message_with("not eligible due to a terminating pod on the nominated node.")
            return lambda: self._refuse(waiting, message)
        self._preemptions += 1
        candidates: Sequence[Candidate] = preemption.candidates(pod, refusal.curable, Budgets(self._budgets.all()))
        try:
            candidates = await narrowed(pod, candidates, extenders)
        except ExtenderFailed as error:
            return self._failed(waiting, str(error))
        candidate = cheapest(candidates)
        if self._queue.get(pod.key) is not waiting:
            return _nothing
        if candidate is None:
            self._left(pod, self._cache.withdraw(pod.key))
            return lambda: self._refuse(waiting, message, nominated="")
        outranked = self._cache.outranked(candidate.node.name, pod)
        for each in outranked:
            self._cache.withdraw(each.key)
        self._cache.nominate(pod, candidate.node.name)
        return lambda: self._preempt(waiting, candidate, outranked, refusal.message_with(""))

    def _failed(self, waiting: Waiting, message: str) -> Write:
        """Whether it fits is not known; it is tried again after its backoff."""
        self._queue.park(waiting)
        return lambda: self._refuse(waiting, message, reason="SchedulerError")

    def _is_making_room(self, pod: PodInfo, node_name: str) -> bool:
        """Pods of lower priority are on their way out of the node."""
        node = self._cache.get(node_name)
        return node is not None and any(
            each.priority < pod.priority and each.pod.metadata.deletion_timestamp is not None
            for each in node.pods.values()
        )

    async def _write(self) -> None:
        while True:
            write = await self._writes.get()
            try:
                await write()
            except Exception:
                log.exception("a write of the scheduler failed")

    def _not_bound(self, course: Course, plugin: str | None, message: str) -> Write:
        """The choice came to nothing: others may have the node, and the pod is placed anew."""
        waiting = course.waiting
        self._left(course.pod, course.node_name)
        missed = course.held is not None and course.held.missed
        self._queue.park(waiting, frozenset() if plugin is None or missed else frozenset((plugin,)))
        if not message or self._queue.get(waiting.pod.key) is not waiting:
            return _nothing
        if plugin is None:
            return lambda: self._refuse(waiting, message, nominated="", reason="SchedulerError")
        return lambda: self._refuse(waiting, f"0/1 nodes are available: 1 {message}.", nominated="")

    async def _preempt(
        self, waiting: Waiting, candidate: Candidate, outranked: Sequence[PodInfo], message: str
    ) -> None:
        """Say for which node the pod waits, and end the pods that are in its way."""
        pod, node_name = waiting.pod.pod, candidate.node.name
        await self._refuse(waiting, message, nominated=node_name)
        for other in outranked:
            await self._patch_status(other.pod, {"nominatedNodeName": None})
        ended = [await self._end(victim.pod, pod, node_name) for victim in candidate.victims]
        if not all(ended) and waiting.parked and self._queue.get(waiting.pod.key) is waiting:
            self._queue.wake(waiting, sure=False)  # nothing else may happen that would

    async def _end(self, victim: Pod, pod: Pod, node_name: str) -> bool:
        condition = PodCondition(
            type="DisruptionTarget",
            status="True",
            reason="PreemptionByScheduler",
            message=f"{profile_of(pod)}: preempting to accommodate a higher priority pod",
            observed_generation=victim.metadata.generation,
            last_transition_time=utc(self._clock.time_s()),
        )
        metadata = victim.metadata
        if not await self._patch_status(victim, {"conditions": [condition]}):
            return False
        try:
            await self._client.delete(Pod, metadata.name or "", metadata.namespace, uid=metadata.uid)
        except NotFound:
            return True
        except APIError as error:
            log.warning("%s could not be preempted: %s", key_of(victim), error)
            return False
        self._events_of(pod).normal(victim, "Preempted", f"Preempted by pod {pod.metadata.uid} on node {node_name}")
        return True

    async def _patch_status(self, pod: Pod, status: dict[str, Any]) -> bool:
        patch = {"metadata": {"uid": pod.metadata.uid}, "status": status}
        try:
            await self._client.patch(Pod, pod.metadata.name or "", patch, pod.metadata.namespace, subresource="status")
        except APIError as error:
            log.debug("%s: its status could not be written: %s", key_of(pod), error)
            return False
        return True

    async def _refuse(
        self, waiting: Waiting, message: str, nominated: str | None = None, reason: str = "Unschedulable"
    ) -> None:
        """Tell why it has no node, and which one it waits for, if others give way there ("": none any more)."""
        pod = waiting.pod.pod
        self._events_of(pod).warning(pod, "FailedScheduling", message)
        before = (pod.status.nominated_node_name if pod.status else None) or ""
        if waiting.message == message and nominated in (None, before):
            return
        if self._queue.get(waiting.pod.key) is not waiting or (nominated is None and not waiting.parked):
            return  # it has a node by now, or is about to be told anew
        waiting.message = message
        old = next((c for c in pod.status.conditions if c.type == "PodScheduled"), None) if pod.status else None
        now = utc(self._clock.time_s())
        condition = PodCondition(
            type="PodScheduled",
            status="False",
            reason=reason,
            message=message,
            observed_generation=pod.metadata.generation,
            last_transition_time=old.last_transition_time if old and old.status == "False" else now,
        )
        status: dict[str, Any] = {"conditions": [condition]}
        if nominated not in (None, before):
            status["nominatedNodeName"] = nominated or None
        if not await self._patch_status(pod, status):
            waiting.message = ""

    def _framework(self, pod: PodInfo) -> Framework:
        return self._frameworks[profile_of(pod.pod)]

    def _events_of(self, pod: Pod) -> EventRecorder:
        return self._frameworks[profile_of(pod)].events

    # What the caches tell

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        if new is None:
            self._cache.node_gone((old.metadata.name if old else None) or "")
            self._waking.happened(Happening(Node, What.GONE, old))
            return
        changed = self._cache.node_changed(new)
        what = node_difference(old, new)
        if changed is not None and what:
            self._waking.happened(Happening(Node, what, old, new, changed))

    def _other_changed(self, kind: type[Any], old: Any, new: Any) -> None:
        self._waking.happened(Happening(kind, difference(old, new), old, new))

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        pod = new or old
        assert pod is not None
        key = key_of(pod)
        if old is not None and new is not None and old.metadata.uid != new.metadata.uid:
            self._drop(key, old.metadata.uid)
        if new is None:
            expected_on = self._drop(key, pod.metadata.uid)
            self._left(PodInfo(pod), self._cache.pod_gone(key) or expected_on)
        elif is_terminal(new) or (new.spec and new.spec.node_name):
            node_name = (new.spec.node_name if new.spec else None) or ""
            expected_on = self._drop(key, pod.metadata.uid)
            known = self._cache.is_known(key)
            if self._cache.pod_changed(new):
                self._changed_there(old, new, node_name)
            elif expected_on and expected_on != node_name:
                self._left(PodInfo(new), expected_on)
            if not known and self._cache.is_known(key):
                node = self._cache.get(node_name)
                self._waking.happened(Happening(Pod, What.PLACED, new=PodInfo(new), node=node))
        elif profile_of(new) not in self._frameworks or not _is_to_be_scheduled(new):
            if expected_on := self._drop(key, pod.metadata.uid):
                self._left(PodInfo(pod), expected_on)
        elif not self._cache.is_assumed(key) or (old and old.metadata.uid != new.metadata.uid):
            self._cache.pod_changed(new)
            self._consider(key, new)

    def _changed_there(self, old: Pod | None, new: Pod, node_name: str) -> None:
        """A pod takes up less of its node, or others see something else of it."""
        what = What.LEFT if is_terminal(new) else What.SHRUNK | What.LABELS
        before, after = PodInfo(old or new), PodInfo(new)
        self._waking.happened(Happening(Pod, what, before, after, self._cache.get(node_name)))

    def _left(self, pod: PodInfo, node_name: str) -> None:
        """It is not on a node any more, or is not expected there any more."""
        if node_name:
            self._waking.happened(Happening(Pod, What.LEFT, pod, None, self._cache.get(node_name)))

    def _drop(self, key: str, uid: str | None) -> str:
        """It needs no node, or no more; the node where it was expected."""
        self._queue.remove(key)
        expected_on = self._cache.withdraw(key)
        held = self._permits.get(uid or "")
        if held is not None:
            held.reject("", "removed")
        return expected_on

    def _gate(self, pod: PodInfo) -> str:
        """The plugin that doesn't let it be tried yet."""
        steps = self._framework(pod).at["preEnqueue"]
        return next((step.name for step in steps if step.admit(pod)), "")

    def _consider(self, key: str, pod: Pod) -> None:
        """A pod without a node: new, or changed in a way that may help it."""
        waiting = self._queue.get(key)
        nominated = pod.status.nominated_node_name if pod.status else None
        if waiting is None and nominated:
            self._cache.nominate(PodInfo(pod), nominated)  # from before a restart
        if waiting is not None and _asks_the_same(waiting.pod.pod, pod):
            waiting.pod.pod = pod
            return
        info = PodInfo(pod)
        self._queue.add(info)
        if waiting is None:
            self._waking.happened(Happening(Pod, What.ADDED, new=info))

    def _namespace_changed(self, old: Namespace | None, new: Namespace | None) -> None:
        if old is None or new is None or old.metadata.labels != new.metadata.labels:
            for framework in self._frameworks.values():
                framework.affinity.namespaces_changed()

    def _labels_of(self, namespace: str) -> Mapping[str, str]:
        found = self._namespaces.get(namespace)
        return found.metadata.labels if found else {}

    def _group_of(self, pod: Pod) -> Selector | None:
        """The pods of the same Services and of the same workload."""
        requirements = [
            requirement
            for service in self._services.by_index("namespace", pod.metadata.namespace or "")
            if service.spec and service.spec.selector and service.spec.selector.items() <= pod.metadata.labels.items()
            for requirement in selector_of_labels(service.spec.selector).requirements
        ]
        owner = controller_of(pod)
        selector = self._selector_of(owner.kind, f"{pod.metadata.namespace}/{owner.name}") if owner else None
        requirements += selector.requirements if selector else ()
        return Selector(tuple(dict.fromkeys(requirements))) if requirements else None

    def _selector_of(self, kind: str, key: str) -> Selector | None:
        """Of a workload whose pods are alike."""
        if kind == "ReplicationController":
            controller = self._controllers.get(key)
            return selector_of_labels(controller.spec.selector) if controller and controller.spec else None
        informers: dict[str, Informer[Any]] = {"ReplicaSet": self._replica_sets, "StatefulSet": self._stateful_sets}
        workload = informers[kind].get(key) if kind in informers else None
        return selector_for(workload.spec.selector) if workload and workload.spec else None


def _is_to_be_scheduled(pod: Pod) -> bool:
    return pod.spec is not None and pod.metadata.deletion_timestamp is None


async def _nothing() -> None:
    """Nothing is to be written."""


def _asks_the_same(before: Pod, after: Pod) -> bool:
    return (
        before.metadata.uid == after.metadata.uid
        and before.metadata.labels == after.metadata.labels
        and before.spec == after.spec
    )
