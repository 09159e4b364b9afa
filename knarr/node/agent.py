"""The node agent: makes this machine a node of the cluster, and runs the pods that the scheduler gives to it.

    Node object and lease     node_object.py
    pods of this node    ──►  one PodWorker each (pod_worker.py), woken by changes in the API and by exits
    containers without a pod  ended and removed

It reads and writes through the client only, and works through the `Runtime` contract only: the same agent runs real
containers and hollow ones.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from knarr.api.core.pod_amounts import pod_requests
from knarr.api.core.v1 import Node, Pod, PodCondition, PodSpec, Service
from knarr.api.errors import APIError, NotFound
from knarr.api.quantity import milli, whole
from knarr.client.client import Client
from knarr.client.events import EventRecorder
from knarr.client.informer import Informer, Informers, version_of
from knarr.clock import Clock, utc
from knarr.node import admission, log_rotation, pod_files, room
from knarr.node.claimed_volumes import ClaimedVolumes
from knarr.node.config import NodeConfig
from knarr.node.environment import MASTER_SERVICE
from knarr.node.handlers import Handlers, HollowHandlers, HostHandlers
from knarr.node.measurements import Measurements
from knarr.node.node_object import NodeObject
from knarr.node.node_services import HostPorts, Isolation, NodeServices
from knarr.node.pod_worker import PodWorker
from knarr.node.pulls import Pulls
from knarr.node.references import References
from knarr.node.runtime.contract import Runtime, RuntimeFailure
from knarr.node.status import Ending
from knarr.node.tokens import Tokens
from knarr.node.traffic import Traffic
from knarr.node.volumes import HollowVolumes, HostVolumes, Volumes

log = logging.getLogger(__name__)

RELIST_S = 60.0
"""All pods look again so often: a net under the exits that the runtime tells."""
PREEMPTED = Ending("Preempting", "Preempted in order to admit critical pod")
WORKER_RETRY_S = 5.0
"""A worker that failed begins anew after so long."""


class NodeAgent:
    """One node. `run` is its life; what still runs when it ends, runs on."""

    def __init__(
        self,
        client: Client,
        clock: Clock,
        runtime: Runtime,
        config: NodeConfig,
        informers: Informers | None = None,
        host_ports: HostPorts | None = None,
        isolation: Isolation | None = None,
    ) -> None:
        """`informers`: those of the process, when it has some already (they are run by their owner).

        `host_ports`: who makes ports of the node lead to pods, e.g. the pod network; None where nobody does.
        `isolation`: who closes pods as NetworkPolicies want it, before they start.
        """
        self._client = client
        self._clock = clock
        self._runtime = runtime
        self.config = config
        self._owns_informers = informers is None
        self._informers = informers or Informers(client, clock)
        self._pods: Informer[Pod] = Informer(client, Pod, clock, field_selector=f"spec.nodeName={config.name}")
        self._services = self._informers.of(Service)
        self._workers: dict[str, PodWorker] = {}
        self.measurements = Measurements(runtime, clock, hollow=config.hollow)
        self._events = EventRecorder(client, clock, "kubelet", config.name)
        self._object = NodeObject(client, clock, runtime, config, self._informers.of(Node), self._events)
        self._references = References(client, clock, self._references_changed)
        tokens = Tokens(client, clock)
        volumes: Volumes = HollowVolumes() if config.hollow else _host_volumes(client, clock, config, tokens)
        handlers: Handlers = HollowHandlers(runtime, clock) if config.hollow else HostHandlers(runtime, clock)
        self._node = NodeServices(
            client,
            clock,
            runtime,
            config,
            self._events,
            volumes,
            self._references,
            Pulls(runtime, clock, self._references.secret),
            tokens,
            handlers,
            self._services_of,
            host_ports,
            isolation,
            self._traffic(informers),
            allocatable=self._object.capacity,
            memory_bytes=whole(self._object.capacity.get("memory", 1)),
            requested=self._requested,
        )
        self._rejecting: set[str] = set()
        """Pods, by uid, of which it is being said that they can't be here."""
        self._awaiting_room: dict[str, Pod] = {}
        """Critical pods, by uid, for which others are ending."""
        self._owners: dict[str, str] = {}
        """The pod of each container that has been seen."""
        self._group: asyncio.TaskGroup | None = None
        self.ready = asyncio.Event()
        """The node is registered and its pods are known."""

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                watching = asyncio.Event()
                if self._owns_informers:
                    group.create_task(self._informers.run(), name="informers")
                group.create_task(self._events.run(), name="node events")
                group.create_task(self._references.run(watching), name="references")
                group.create_task(self._object.run(), name="node")
                await watching.wait()
                group.create_task(self._pods.run(), name="informer Pod of this node")
                await asyncio.gather(self._pods.synced.wait(), self._services.synced.wait())
                if self._node.traffic is not None:
                    await self._node.traffic.synced()
                self._pods.add_handler(self._pod_changed)
                await self._remove_orphans()
                group.create_task(self._watch_exits(), name="exits")
                group.create_task(self._relist(), name="relist")
                if not self.config.hollow:
                    group.create_task(log_rotation.run(self._runtime, self._clock), name="log rotation")
                    group.create_task(self.measurements.run(), name="measurements")
                self.ready.set()
        finally:
            await self._node.handlers.close()

    def worker(self, uid: str) -> PodWorker | None:
        """The worker of a pod, for logs and streams."""
        return self._workers.get(uid)

    @property
    def pods(self) -> list[Pod]:
        """The pods that are given to this node."""
        return list(self._pods.all())

    @property
    def pods_held(self) -> int:
        """Pods of which something is left on this node, those that the API no longer has included."""
        return len(self._workers)

    # -- pods

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        if old is not None and (new is None or new.metadata.uid != old.metadata.uid):
            worker = self._workers.get(old.metadata.uid or "")
            if worker is not None:
                worker.vanish()
        if new is None:
            return
        uid = new.metadata.uid or ""
        worker = self._workers.get(uid)
        if worker is not None:
            worker.update(new)
        elif uid not in self._rejecting and uid not in self._awaiting_room:
            self._admit(new)

    def _admit(self, pod: Pod) -> None:
        """Begin with it, make room for it first, or reject it."""
        assert self._group is not None
        uid = pod.metadata.uid or ""
        if not admission.is_new(pod):
            self._begin(PodWorker(pod, self._node))
            return
        found, chosen = self._rejection(pod, self._object.node), list[PodWorker]()
        if found is None:
            try:
                chosen = self._who_gives_way(pod)
            except room.NoRoom as error:
                found = admission.no_room(error)
        if found is not None:
            self._rejecting.add(uid)
            self._group.create_task(self._reject(pod, found), name=f"reject pod {uid}")
        elif chosen:
            self._awaiting_room[uid] = pod
            self._group.create_task(self._make_room(pod, chosen), name=f"room for pod {uid}")
        else:
            self._begin(PodWorker(pod, self._node))

    def _rejection(self, pod: Pod, node: Node | None) -> admission.Rejection | None:
        return admission.rejection(pod, self._specs(), self._object.capacity, node)

    def _specs(self) -> list[PodSpec]:
        """Of the pods that hold something of the node, or will as soon as others have ended for them."""
        pods = [*(worker.pod for worker in self._holding()), *self._awaiting_room.values()]
        return [pod.spec for pod in pods if pod.spec is not None]

    def _holding(self) -> list[PodWorker]:
        return [each for each in self._workers.values() if not (each.is_over or each.is_gone)]

    def _who_gives_way(self, pod: Pod) -> list[PodWorker]:
        """Nobody, but to a critical pod that lacks room. Raises NoRoom."""
        lacking = admission.lacking(pod, self._specs(), self._object.capacity)
        holding = {worker.uid: worker for worker in self._holding()}
        chosen = room.who_gives_way(pod, [worker.pod for worker in holding.values()], lacking) if lacking else ()
        return [holding[each.metadata.uid or ""] for each in chosen]

    async def _make_room(self, pod: Pod, chosen: Sequence[PodWorker]) -> None:
        """A critical pod begins once others have ended for it."""
        for each in chosen:
            await self._say_disrupted(each.pod)
            await each.give_way(PREEMPTED)
        del self._awaiting_room[pod.metadata.uid or ""]
        self._begin_now(pod)

    async def _say_disrupted(self, pod: Pod) -> None:
        """KEP-3329: controllers tell this end from a failure of the pod's own."""
        condition = PodCondition(
            type="DisruptionTarget",
            status="True",
            reason="TerminationByKubelet",
            message="Pod was preempted by Kubelet to accommodate a critical pod.",
            last_transition_time=utc(self._clock.time_s()),
            observed_generation=pod.metadata.generation,
        )
        patch = {"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}}
        try:
            await self._client.patch(Pod, pod.metadata.name or "", patch, pod.metadata.namespace, subresource="status")
        except APIError as error:  # the critical pod doesn't wait for it
            log.warning("pod %s/%s: %s", pod.metadata.namespace, pod.metadata.name, error)

    async def _reject(self, pod: Pod, found: admission.Rejection) -> None:
        """Say that it has failed. What this agent knows of its Node's labels may be old: these are asked for first."""
        metadata, uid = pod.metadata, pod.metadata.uid or ""
        now: Pod | None = None
        while now is None:
            try:
                if found.doubtful and self._rejection(pod, await self._client.get(Node, self.config.name)) is None:
                    now = pod
                    break
                now = await self._client.patch(
                    Pod, metadata.name or "", admission.failed(pod, found), metadata.namespace, subresource="status"
                )
                self._events.warning(pod, found.reason, found.message)
            except NotFound:
                break
            except APIError as error:
                log.warning("rejecting pod %s/%s: %s", metadata.namespace, metadata.name, error)
                await self._clock.sleep(WORKER_RETRY_S)
        if now is not None:
            self._begin_now(now)
        self._rejecting.discard(uid)

    def _begin_now(self, pod: Pod) -> None:
        """With what took its time, as it is by now, unless it is gone."""
        there = self._pods.get(f"{pod.metadata.namespace}/{pod.metadata.name}")
        if there is not None and there.metadata.uid == pod.metadata.uid:
            self._begin(PodWorker(max(there, pod, key=version_of), self._node))

    def _begin(self, worker: PodWorker) -> None:
        assert self._group is not None
        self._workers[worker.uid] = worker
        self._group.create_task(self._work(worker), name=f"pod {worker.uid}")

    async def _work(self, worker: PodWorker) -> None:
        """Run a worker to its end; one that fails is replaced, and fails alone."""
        while True:
            try:
                await worker.run()
            except Exception:
                log.exception("the worker of pod %s/%s failed", worker.pod.metadata.namespace, worker.pod.metadata.name)
                await self._clock.sleep(WORKER_RETRY_S)
                fresh = PodWorker(worker.pod, self._node)
                if worker.is_gone:
                    fresh.vanish()
                worker = self._workers[worker.uid] = fresh
            else:
                del self._workers[worker.uid]
                for other in self._workers.values():
                    other.room()
                for container_id in [each for each, uid in self._owners.items() if uid == worker.uid]:
                    del self._owners[container_id]
                return

    # -- what the runtime tells

    async def _watch_exits(self) -> None:
        async for container_id in self._runtime.exits():
            uid = self._owners.get(container_id)
            if uid is None:
                await self._find_owners()
                uid = self._owners.get(container_id)
            worker = self._workers.get(uid or "")
            if worker is not None:
                worker.wake()

    async def _find_owners(self) -> None:
        pods = {sandbox.id: sandbox.config.pod_uid for sandbox in await self._runtime.sandboxes()}
        self._owners = {
            container.id: pods[container.sandbox_id]
            for container in await self._runtime.containers()
            if container.sandbox_id in pods
        }

    async def _relist(self) -> None:
        while True:
            await self._clock.sleep(RELIST_S)
            for worker in list(self._workers.values()):
                worker.wake()
            with suppress(RuntimeFailure, OSError):
                await self._remove_orphans()

    async def _remove_orphans(self) -> None:
        """What is left of pods that are no longer in the API, as after a time in which the agent didn't run."""
        known = {pod.metadata.uid or "" for pod in self._pods.all()}
        sandboxes = await self._runtime.sandboxes()
        sandboxed = {sandbox.config.pod_uid for sandbox in sandboxes}
        for sandbox in sandboxes:
            uid = sandbox.config.pod_uid
            if uid not in known and uid not in self._workers:
                log.info(
                    "pod %s/%s is gone: removing its containers", sandbox.config.pod_namespace, sandbox.config.pod_name
                )
                assert self._group is not None
                self._group.create_task(self._remove_orphan(sandbox.id, uid), name=f"orphan {uid}")

        for uid in await self._node.volumes.present():
            if uid not in known and uid not in self._workers and uid not in sandboxed:
                await self._node.volumes.remove(uid)
        if not self.config.hollow:
            await self._remove_logs({*known, *sandboxed})

    async def _remove_logs(self, known: set[str]) -> None:
        """The logs of pods of which nothing else is left."""
        found = await asyncio.to_thread(pod_files.log_folders, self.config)
        # The workers are asked after the folders: a pod that came in between has its folder by its worker only.
        gone = [folder for uid, folders in found.items() if uid not in {*known, *self._workers} for folder in folders]
        await asyncio.to_thread(pod_files.remove_folders, gone)

    async def _remove_orphan(self, sandbox_id: str, uid: str) -> None:
        try:
            for container in await self._runtime.containers():
                if container.sandbox_id == sandbox_id:
                    await self._runtime.stop_container(container.id, 2.0)
            await self._runtime.remove_sandbox(sandbox_id)
            await self._node.volumes.remove(uid)
        except (RuntimeFailure, OSError) as failure:
            log.warning("removing what is left of pod %s: %s", uid, failure)

    def _requested(self, but: str) -> tuple[int, int]:
        """What the pods here request that aren't over, but for one: thousandths of a core, bytes."""
        specs = [each.pod.spec for uid, each in self._workers.items() if uid != but and not each.is_over]
        requests = [pod_requests(spec) for spec in specs if spec is not None]
        return sum(milli(each.get("cpu", 0)) for each in requests), sum(
            whole(each.get("memory", 0)) for each in requests
        )

    def _traffic(self, informers: Informers | None) -> Traffic | None:
        """Where the process follows EndpointSlices, the agent looks on; of its own accord it doesn't."""
        if informers is None or self.config.drain_s_max <= 0:
            return None
        of_namespace = partial(self._services.by_index, "namespace")
        return Traffic(informers, self._clock, of_namespace, self._wake, self.config.drain_s_max)

    def _wake(self, uid: str) -> None:
        worker = self._workers.get(uid)
        if worker is not None:
            worker.wake()

    # -- what pods read

    def _references_changed(self, uids: set[str]) -> None:
        for uid in uids:
            worker = self._workers.get(uid)
            if worker is not None:
                worker.references_changed()

    def _services_of(self, namespace: str) -> list[Service]:
        found = self._services.by_index("namespace", namespace)
        master = self._services.get("/".join(MASTER_SERVICE))
        return [*found, master] if master is not None and namespace != MASTER_SERVICE[0] else found


def _host_volumes(client: Client, clock: Clock, config: NodeConfig, tokens: Tokens) -> HostVolumes:
    return HostVolumes(config.root / "pods", clock, tokens.token, ClaimedVolumes(client))
