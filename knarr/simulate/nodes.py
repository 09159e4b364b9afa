"""Hollow nodes: hundreds of nodes on which nothing runs, and pods that come up as if something did.

One loop serves them all: it registers the nodes, renews their Leases, and writes the status that each pod would have
after the time that it would take. For scale and for simulation; what goes wrong on nodes is a matter of `Faults`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import datetime
from ipaddress import ip_address
from typing import TypeVar

from msgspec import Struct, field

from knarr.api.coordination.v1 import Lease, LeaseSpec
from knarr.api.core.pod_state import is_terminal
from knarr.api.core.v1 import (
    ContainerState,
    ContainerStateRunning,
    ContainerStateTerminated,
    ContainerStateWaiting,
    ContainerStatus,
    HostIP,
    Namespace,
    Node,
    NodeAddress,
    NodeCondition,
    NodeStatus,
    NodeSystemInfo,
    Pod,
    PodCondition,
    PodIP,
    PodStatus,
)
from knarr.api.errors import AlreadyExists, APIError, NotFound
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.types import Quantity, replace
from knarr.client.client import MERGE_PATCH, Client
from knarr.client.controller import Controller
from knarr.client.informer import Informers, key_of
from knarr.clock import Clock, micro_time, utc
from knarr.controllers.nodelifecycle import LEASE_NAMESPACE, node_index
from knarr.controllers.together import together

T = TypeVar("T")

HEARTBEAT_S = 10.0
LEASE_DURATION_S = 40
REGISTER_AT_ONCE = 50
KILLED = 137
"""Exit code of a container that is killed."""
CRASH_BACKOFF_MIN_S = 10.0
CRASH_BACKOFF_MAX_S = 300.0
FIRST_POD_ADDRESS = ip_address("10.64.0.1")
FIRST_NODE_ADDRESS = ip_address("10.32.0.1")
CAPACITY: dict[str, Quantity] = {"cpu": "32", "memory": "64Gi", "pods": "110", "ephemeral-storage": "100Gi"}
CONDITIONS = (
    ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
)


class Ending(Struct, frozen=True):
    """How the containers of an image end by themselves; they aren't started again."""

    failing: float = 0.0
    """How likely with an error."""
    after_s: tuple[float, float] = (1.0, 1.0)
    """Least and most time that they run."""


class Faults(Struct):
    """What goes wrong. Images are matched as pods write them."""

    silent_nodes: set[str] = field(default_factory=set)
    """They neither send heartbeats nor do anything about their pods."""
    missing_images: set[str] = field(default_factory=set)
    crashing_images: set[str] = field(default_factory=set)
    unready_images: set[str] = field(default_factory=set)
    """They run, and never become ready."""
    endings: dict[str, Ending] = field(default_factory=dict)


class _Life(Struct):
    """What the node knows of a pod that the API server doesn't."""

    uid: str
    ready_s: float
    address: str
    gone_s: float | None = None
    ends_s: float | None = None
    fails: bool = False


class HollowNodes(Controller):
    """Nodes hollow-0 … hollow-N. Knobs may be changed while it runs."""

    name = "hollow-nodes"
    workers = 32

    def __init__(
        self,
        client: Client,
        informers: Informers,
        clock: Clock,
        count: int,
        *,
        start_s: tuple[float, float] = (0.0, 0.0),
        stop_s: tuple[float, float] = (0.0, 0.0),
        heartbeat_s: float = HEARTBEAT_S,
        capacity: dict[str, Quantity] | None = None,
        zones: int = 0,
        faults: Faults | None = None,
    ) -> None:
        self.names = [f"hollow-{number}" for number in range(count)]
        self.start_s = start_s
        """Least and most time between a pod's binding and its readiness."""
        self.stop_s = stop_s
        self.heartbeat_s = heartbeat_s
        self.faults = faults or Faults()
        self._addresses = {name: str(FIRST_NODE_ADDRESS + number) for number, name in enumerate(self.names)}
        self._capacity = capacity or CAPACITY
        self._zones = zones
        self._lives: dict[str, _Life] = {}
        self._pod_addresses = 0
        self._crashes: dict[str, tuple[int, float]] = {}
        super().__init__(client, informers, clock)

    def watch(self) -> None:
        self.pods = self.informer(Pod)
        self.pods.add_index("node", node_index)
        self.nodes = self.informer(Node)
        self.on_change(self.pods, self._key_of_pod)

    async def run(self) -> None:
        await self.register()
        await self.serve()

    async def serve(self) -> None:
        """Heartbeats and pods of the nodes, once they are known."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._heartbeats(), name="hollow heartbeats")
            group.create_task(super().run(), name="hollow pods")

    async def register(self) -> None:
        """Make the nodes and their Leases known."""
        await _create(self.client, Namespace(metadata=ObjectMeta(name=LEASE_NAMESPACE)))
        for batch in _batches(list(enumerate(self.names))):
            await together(self._register_node(number, name) for number, name in batch)
            await together(_create(self.client, self._lease(name)) for _, name in batch)

    async def _register_node(self, number: int, name: str) -> None:
        node = self._node(number, name)
        try:
            created = await self.client.create(node)
        except AlreadyExists:
            return
        if created.status != node.status:
            await self.client.update_status(replace(created, status=node.status))

    async def reconcile(self, key: str) -> float | None:
        pod = self.pods.get(key)
        if pod is None or pod.spec is None or pod.spec.node_name in self.faults.silent_nodes:
            return None
        if pod.metadata.deletion_timestamp is None and is_terminal(pod):
            return None
        life = self._life(key, pod)
        now_s = self.clock.monotonic_s()
        if pod.metadata.deletion_timestamp is not None:
            if life.gone_s is None:
                life.gone_s = now_s + self.clock.random.uniform(*self.stop_s)
            if now_s < life.gone_s:
                return life.gone_s - now_s
            await self._delete(pod)
            return None
        if now_s < life.ready_s:
            return life.ready_s - now_s
        return await self._bring_up(pod, life)

    def look_again(self) -> None:
        """After `faults` were changed: every pod is brought to what it would be now."""
        for pod in self.pods.all():
            if pod.spec and pod.spec.node_name in self._addresses:
                self.queue.add(key_of(pod))

    async def crash(self, key: str) -> None:
        """The containers of a pod end with an error, and start again at once."""
        pod = self.pods.get(key)
        if pod is not None and pod.status is not None and pod.metadata.uid and pod.spec and pod.spec.node_name:
            count, _ = self._crashes.get(pod.metadata.uid, (0, 0.0))
            self._crashes[pod.metadata.uid] = (count + 1, self.clock.time_s())
            await self.client.update_status(replace(pod, status=self._status(pod, self._life(key, pod), "")))

    async def _bring_up(self, pod: Pod, life: _Life) -> float | None:
        image = next((c.image or "" for c in pod.spec.containers), "") if pod.spec else ""
        again_s: float | None = None
        trouble = ""
        if image in self.faults.endings:
            ending = self.faults.endings[image]
            again_s = self._ends_in_s(life, ending)
            if not again_s:
                await self.client.update_status(replace(pod, status=self._ended(pod, life)))
                return None
        if image in self.faults.missing_images:
            trouble = "ImagePullBackOff"
        elif image in self.faults.crashing_images:
            trouble, again_s = "CrashLoopBackOff", self._crash_again_s(life)
        elif image in self.faults.unready_images:
            trouble = "Unready"
        status = self._status(pod, life, trouble)
        if status != pod.status:
            await self.client.update_status(replace(pod, status=status))
        return again_s

    def _ends_in_s(self, life: _Life, ending: Ending) -> float:
        now_s = self.clock.monotonic_s()
        if life.ends_s is None:
            life.ends_s = now_s + self.clock.random.uniform(*ending.after_s)
            life.fails = self.clock.random.random() < ending.failing
        return max(0.0, life.ends_s - now_s)

    def _ended(self, pod: Pod, life: _Life) -> PodStatus:
        """The status of a pod whose containers have ended for good."""
        running = self._status(pod, life, "Unready")
        code, reason = (1, "Error") if life.fails else (0, "Completed")
        ended = ContainerStateTerminated(
            exit_code=code, reason=reason, started_at=running.start_time, finished_at=utc(self.clock.time_s())
        )
        statuses = [replace(each, state=ContainerState(terminated=ended)) for each in running.container_statuses]
        phase = "Failed" if life.fails else "Succeeded"
        return replace(running, phase=phase, container_statuses=statuses)

    def _crash_again_s(self, life: _Life) -> float:
        """It starts, ends, and waits longer each time."""
        count, at_s = self._crashes.get(life.uid, (0, 0.0))
        wait_s = min(CRASH_BACKOFF_MIN_S * 2.0 ** min(count, 10), CRASH_BACKOFF_MAX_S)
        now_s = self.clock.time_s()
        if now_s >= at_s + wait_s or not count:
            self._crashes[life.uid] = (count + 1, now_s)
            return wait_s
        return at_s + wait_s - now_s

    async def _delete(self, pod: Pod) -> None:
        """One that stays for a finalizer says first how it ended."""
        try:
            if pod.metadata.finalizers and not is_terminal(pod):
                await self.client.update_status(replace(pod, status=_killed(pod, utc(self.clock.time_s()))))
            await self.client.delete(
                Pod, pod.metadata.name or "", pod.metadata.namespace, grace_period_s=0, uid=pod.metadata.uid
            )
        except NotFound:
            pass

    def _life(self, key: str, pod: Pod) -> _Life:
        life = self._lives.get(key)
        if life is None or life.uid != pod.metadata.uid:
            self._pod_addresses += 1
            life = self._lives[key] = _Life(
                pod.metadata.uid or "",
                self.clock.monotonic_s() + self.clock.random.uniform(*self.start_s),
                str(FIRST_POD_ADDRESS + self._pod_addresses),
            )
        return life

    def _status(self, pod: Pod, life: _Life, trouble: str) -> PodStatus:
        """How the pod is; its times are those of the status that it has, as far as nothing changed."""
        assert pod.spec is not None
        before = pod.status or PodStatus()
        now = utc(self.clock.time_s())
        ready = not trouble
        running = trouble in ("", "Unready")
        crashes, _ = self._crashes.get(life.uid, (0, 0.0))
        started = before.start_time or now
        states = ContainerState(running=ContainerStateRunning(started_at=started))
        if not running:
            states = ContainerState(waiting=ContainerStateWaiting(reason=trouble, message=f"hollow: {trouble}"))
        last = ContainerState(terminated=ContainerStateTerminated(exit_code=1, reason="Error")) if crashes else None
        node_address = self._addresses[pod.spec.node_name or ""]
        reason = None if ready else "ContainersNotReady"
        message = None if ready else f"containers with unready status: [{pod.spec.containers[0].name}]"
        old = {condition.type: condition for condition in before.conditions}

        def condition(type_: str, value: bool, reason: str | None = None, message: str | None = None) -> PodCondition:
            status = "True" if value else "False"
            same = type_ in old and old[type_].status == status
            return PodCondition(
                type=type_,
                status=status,
                reason=reason,
                message=message,
                last_transition_time=old[type_].last_transition_time if same else now,
            )

        return replace(
            before,
            phase="Pending" if trouble == "ImagePullBackOff" else "Running",
            start_time=started,
            host_ip=node_address,
            host_ips=[HostIP(ip=node_address)],
            pod_ip=life.address,
            pod_ips=[PodIP(ip=life.address)],
            conditions=[
                condition("PodReadyToStartContainers", True),
                condition("Initialized", True),
                condition("Ready", ready, reason, message),
                condition("ContainersReady", ready, reason, message),
                condition("PodScheduled", True),
            ],
            container_statuses=[
                ContainerStatus(
                    name=container.name,
                    image=container.image or "",
                    image_id=f"hollow://{container.image}" if running else "",
                    container_id=f"hollow://{life.uid}/{container.name}" if running else None,
                    ready=ready,
                    started=running,
                    restart_count=crashes,
                    state=states,
                    last_state=last,
                )
                for container in pod.spec.containers
            ],
        )

    def _key_of_pod(self, old: Pod | None, new: Pod | None) -> str | None:
        """Bound to one of these nodes, and changed by somebody else than this loop."""
        if new is None:
            if old is not None:
                self._lives.pop(key_of(old), None)
                self._crashes.pop(old.metadata.uid or "", None)
            return None
        if new.spec is None or new.spec.node_name not in self._addresses:
            return None
        bound = old is None or not old.spec or not old.spec.node_name or old.metadata.uid != new.metadata.uid
        deleted = new.metadata.deletion_timestamp is not None and (not old or not old.metadata.deletion_timestamp)
        return key_of(new) if bound or deleted else None

    async def _heartbeats(self) -> None:
        while True:
            await self.clock.sleep(self.heartbeat_s)
            for batch in _batches([name for name in self.names if name not in self.faults.silent_nodes]):
                await together(self._beat(name) for name in batch)
                for name in batch:
                    if not _is_ready(self.nodes.get(name)):
                        await self._is_back(name)

    async def _is_back(self, name: str) -> None:
        """A node that was not heard says how it is, and how its pods are: they were taken for not ready meanwhile."""
        try:
            node = await self.client.get(Node, name)
            conditions = _conditions(utc(self.clock.time_s()))
            await self.client.update_status(
                replace(node, status=replace(node.status or NodeStatus(), conditions=conditions))
            )
        except APIError as error:
            self.log.warning("%s: its status could not be written: %s", name, error)
            return
        for pod in self.pods.by_index("node", name):
            self.queue.add(key_of(pod))

    async def _beat(self, name: str) -> None:
        patch = {"spec": {"renewTime": micro_time(self.clock.time_s())}}
        try:
            await self.client.patch(Lease, name, patch, LEASE_NAMESPACE, content_type=MERGE_PATCH)
        except NotFound:
            await _create(self.client, self._lease(name))
        except APIError as error:
            self.log.warning("%s: no heartbeat: %s", name, error)

    def _lease(self, name: str) -> Lease:
        return Lease(
            metadata=ObjectMeta(name=name, namespace=LEASE_NAMESPACE),
            spec=LeaseSpec(
                holder_identity=name,
                lease_duration_seconds=LEASE_DURATION_S,
                renew_time=micro_time(self.clock.time_s()),
            ),
        )

    def _node(self, number: int, name: str) -> Node:
        now = utc(self.clock.time_s())
        labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
        if self._zones:
            labels["topology.kubernetes.io/zone"] = f"zone-{number % self._zones}"
        return Node(
            metadata=ObjectMeta(name=name, labels=labels),
            status=NodeStatus(
                addresses=[
                    NodeAddress(type="InternalIP", address=self._addresses[name]),
                    NodeAddress(type="Hostname", address=name),
                ],
                capacity=self._capacity,
                allocatable=self._capacity,
                conditions=_conditions(now),
                node_info=NodeSystemInfo(operating_system="linux", architecture="amd64", kubelet_version="hollow"),
            ),
        )


def _is_ready(node: Node | None) -> bool:
    """Gone counts as ready: there is nothing to say."""
    conditions = node.status.conditions if node is not None and node.status else ()
    return all(each.status == "True" for each in conditions if each.type == "Ready")


def _conditions(now: datetime) -> list[NodeCondition]:
    return [
        NodeCondition(
            type=type_,
            status=status,
            reason=reason,
            message=message,
            last_heartbeat_time=now,
            last_transition_time=now,
        )
        for type_, status, reason, message in CONDITIONS
    ]


def _killed(pod: Pod, now: datetime) -> PodStatus:
    status = pod.status or PodStatus()
    ended = ContainerState(terminated=ContainerStateTerminated(exit_code=KILLED, reason="Error", finished_at=now))
    return replace(
        status,
        phase="Failed",
        conditions=[
            replace(condition, status="False", reason="PodFailed", message=None, last_transition_time=now)
            if condition.type in ("Ready", "ContainersReady")
            else condition
            for condition in status.conditions
        ],
        container_statuses=[
            replace(container, ready=False, started=False, state=ended) for container in status.container_statuses
        ],
    )


async def _create(client: Client, obj: Namespace | Lease) -> None:
    try:
        await client.create(obj)
    except AlreadyExists:
        pass


def _batches(names: list[T]) -> Iterable[list[T]]:
    for start in range(0, len(names), REGISTER_AT_ONCE):
        yield names[start : start + REGISTER_AT_ONCE]
