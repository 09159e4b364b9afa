"""Nodes: notice when one falls silent, say so, and keep pods away from it.

A node that neither renews its Lease nor changes its status for NODE_SILENT_S has conditions Unknown. Conditions become
taints: NoSchedule keeps new pods off, NoExecute (see `tainteviction`) makes those that are there leave in time; how
many nodes may get the latter is limited zone by zone (see `nodezones`).
Heartbeats are timed by when this loop saw them, not by what the node's clock says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from knarr.api.coordination.v1 import Lease
from knarr.api.core.pod_state import is_ready
from knarr.api.core.taints import NOT_READY, PRESSURE, UNREACHABLE, UNSCHEDULABLE
from knarr.api.core.v1 import Node, NodeCondition, NodeSpec, NodeStatus, Pod, Taint
from knarr.api.errors import NotFound
from knarr.api.types import replace
from knarr.client.controller import Controller
from knarr.client.informer import key_of
from knarr.clock import utc
from knarr.controllers.nodezones import Zones
from knarr.controllers.together import together

NODE_SILENT_S = 50.0
"""Upstream's --node-monitor-grace-period: five heartbeats of 10 s."""
NODE_STARTUP_S = 60.0
"""A node that has never said anything gets so long (--node-startup-grace-period)."""
LEASE_NAMESPACE = "kube-node-lease"
WATCHED_CONDITIONS = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")

OWN_KEYS = frozenset({NOT_READY, UNREACHABLE, UNSCHEDULABLE, *PRESSURE.values()})


class Heartbeat(Struct):
    """The last sign of life of a node."""

    sign: tuple[Any, ...]
    seen_s: float


class NodeLifecycle(Controller):
    """Conditions and taints of v1 Nodes."""

    name = "node-controller"

    def watch(self) -> None:
        self._beats: dict[str, Heartbeat] = {}
        self._registered: dict[str, Node] = {}
        self._zones = Zones()
        self.nodes = self.informer(Node)
        self.leases = self.informer(Lease)
        self.pods = self.informer(Pod)
        self.pods.add_index("node", node_index)
        self.on(self.nodes, key_of)
        self.leases.add_handler(lambda _, lease: self._note_lease(lease))
        self.nodes.add_handler(lambda _, node: self._note_status(node))
        self.nodes.add_handler(self._note_zone)

    async def reconcile(self, key: str) -> float | None:
        self._settle_zones()
        node = self.nodes.get(key)
        if node is None:
            self._forget(key)
            return None
        self._register(node)
        now_s = self.clock.monotonic_s()
        left_s = self._silence_allowed_s(node) - (now_s - self._beats[key].seen_s)
        if left_s <= 0:
            node = await self._mark_unknown(node)
        wait_s = await self._taint(node)
        if ready_status(node) == "Unknown":
            await self._mark_pods(key)
        return min((wait + 0.001 for wait in (left_s, wait_s) if wait and wait > 0), default=None)

    async def _mark_unknown(self, node: Node) -> Node:
        status = silent_status(node, self.clock.time_s())
        if status == node.status:
            return node
        was_ready = ready_status(node) == "True"
        node = await self.client.update_status(replace(node, status=status))
        if was_ready:
            name = node.metadata.name
            self.events.normal(node, "NodeNotReady", f"Node {name} status is now: NodeNotReady")
        return node

    async def _taint(self, node: Node) -> float | None:
        """Answers in how many seconds to look again, if its pods can't be driven out yet."""
        spec, wait_s = node.spec or NodeSpec(), None
        taints = taints_of(node, self.clock.time_s(), drive_out=not self._zones.all_lost)
        if drives_out(taints) and not drives_out(spec.taints):
            now_s, limit = self.clock.monotonic_s(), self._zones.limit_of(node)
            wait_s = limit.left_s(now_s)
            if wait_s == 0.0:
                limit.take(now_s)
            else:
                taints = taints_of(node, self.clock.time_s(), drive_out=False)
        if taints != spec.taints:
            await self.client.update(replace(node, spec=replace(spec, taints=taints)))
        return wait_s

    async def _mark_pods(self, name: str) -> None:
        """Nobody can tell whether they are ready: they get no traffic."""
        ready = [pod for pod in self.pods.by_index("node", name) if is_ready(pod)]
        await together(self._mark_pod(pod) for pod in ready)

    async def _mark_pod(self, pod: Pod) -> None:
        condition = {"type": "Ready", "status": "False", "lastTransitionTime": utc(self.clock.time_s())}
        patch = {"metadata": {"uid": pod.metadata.uid}, "status": {"conditions": [condition]}}
        try:
            await self.client.patch(Pod, pod.metadata.name or "", patch, pod.metadata.namespace, subresource="status")
        except NotFound:
            return
        self.events.warning(pod, "NodeNotReady", "Node is not ready")

    # Signs of life

    def _note_lease(self, lease: Lease | None) -> None:
        if lease is not None and lease.metadata.namespace == LEASE_NAMESPACE and lease.spec:
            self._note(lease.metadata.name or "", "lease", lease.spec.renew_time)

    def _note_status(self, node: Node | None) -> None:
        if node is not None:
            conditions = node.status.conditions if node.status else []
            signs = tuple((c.type, c.last_heartbeat_time, c.status) for c in conditions if c.status != "Unknown")
            self._note(node.metadata.name or "", "status", (node.metadata.uid, signs))

    def _note_zone(self, old: Node | None, new: Node | None) -> None:
        node = new or old
        if node is not None:
            self._zones.note(node.metadata.name or "", new, new is not None and ready_status(new) == "True")

    def _settle_zones(self) -> None:
        """After a change of how zones fare, look at every node that isn't ready."""
        now_s, all_lost = self.clock.monotonic_s(), self._zones.all_lost
        if not self._zones.settle(now_s):
            return
        if self._zones.all_lost != all_lost:
            self.log.info("%s", "no node is ready: pods stay" if not all_lost else "some node is ready again")
        if all_lost and not self._zones.all_lost:
            for beat in self._beats.values():
                beat.seen_s = now_s  # we could not hear them
        for node in self.nodes.all():
            if ready_status(node) in ("False", "Unknown"):
                self.queue.add(key_of(node))

    def _note(self, name: str, source: str, sign: Any) -> None:
        before = self._beats.get(name)
        known = dict(before.sign) if before else {}
        if before is None or known.get(source) != sign:
            known[source] = sign
            self._beats[name] = Heartbeat(tuple(known.items()), self.clock.monotonic_s())

    def _silence_allowed_s(self, node: Node) -> float:
        return NODE_SILENT_S if node.status and node.status.conditions else NODE_STARTUP_S

    def _register(self, node: Node) -> None:
        name = node.metadata.name or ""
        if name not in self._registered:
            message = f"Node {name} event: Registered Node {name} in Controller"
            self.events.normal(node, "RegisteredNode", message)
        self._registered[name] = node

    def _forget(self, name: str) -> None:
        self._beats.pop(name, None)
        node = self._registered.pop(name, None)
        if node is not None:
            message = f"Node {name} event: Removing Node {name} from Controller"
            self.events.normal(node, "RemovingNode", message)


def silent_status(node: Node, now_s: float) -> NodeStatus:
    """The status of a node that has fallen silent: all that only it could know is Unknown."""
    status = node.status or NodeStatus()
    conditions = list(status.conditions)
    for type_ in WATCHED_CONDITIONS:
        place = next((i for i, condition in enumerate(conditions) if condition.type == type_), None)
        if place is None:
            conditions.append(
                NodeCondition(
                    type=type_,
                    status="Unknown",
                    reason="NodeStatusNeverUpdated",
                    message="Kubelet never posted node status.",
                    last_heartbeat_time=node.metadata.creation_timestamp,
                    last_transition_time=utc(now_s),
                )
            )
        elif conditions[place].status != "Unknown":
            conditions[place] = replace(
                conditions[place],
                status="Unknown",
                reason="NodeStatusUnknown",
                message="Kubelet stopped posting node status.",
                last_transition_time=utc(now_s),
            )
    return replace(status, conditions=conditions)


def taints_of(node: Node, now_s: float, *, drive_out: bool = True) -> list[Taint]:
    """The taints that a node should have: those of others as they are, and ours as its conditions say.

    Without `drive_out` a node that fails keeps its pods.
    """
    wanted: list[tuple[str, str]] = []
    ready = ready_status(node)
    if ready in ("False", "Unknown"):
        key = NOT_READY if ready == "False" else UNREACHABLE
        wanted += [(key, "NoSchedule"), *([(key, "NoExecute")] if drive_out else [])]
    for condition in node.status.conditions if node.status else ():
        if condition.type in PRESSURE and condition.status == "True":
            wanted.append((PRESSURE[condition.type], "NoSchedule"))
    if node.spec and node.spec.unschedulable:
        wanted.append((UNSCHEDULABLE, "NoSchedule"))
    if ready is None:
        # A node that has not said anything yet keeps the taint that it was born with.
        wanted += [(NOT_READY, taint.effect) for taint in _taints(node) if taint.key == NOT_READY]

    kept = [
        taint
        for taint in _taints(node)
        if taint.key not in OWN_KEYS or taint.effect == "PreferNoSchedule" or (taint.key, taint.effect) in wanted
    ]
    there = {(taint.key, taint.effect) for taint in kept}
    added = [
        Taint(key=key, effect=effect, time_added=utc(now_s)) for key, effect in wanted if (key, effect) not in there
    ]
    return [*kept, *added]


def drives_out(taints: Sequence[Taint]) -> bool:
    """They make pods leave because the node fails."""
    return any(taint.key in (NOT_READY, UNREACHABLE) and taint.effect == "NoExecute" for taint in taints)


def ready_status(node: Node) -> str | None:
    for condition in node.status.conditions if node.status else ():
        if condition.type == "Ready":
            return condition.status
    return None


def node_index(pod: Pod) -> Sequence[str]:
    return (pod.spec.node_name,) if pod.spec and pod.spec.node_name else ()


def _taints(node: Node) -> list[Taint]:
    return node.spec.taints if node.spec else []
