"""What the scheduler knows of nodes: what each offers, and what the pods on it take.

A pod is *assumed* on its node as soon as the scheduler has chosen it, long before the API server says so: the next
choice counts on it. What the API server says replaces the assumption; a binding that failed takes it back.

A node's *place* is its number in the list of nodes: what others remember of nodes, they keep in lists by place, and
ask which places have changed since.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from knarr.api.core.pod_state import is_terminal
from knarr.api.core.v1 import Node, Pod, PodSpec, Taint
from knarr.client.informer import key_of
from knarr.scheduler.requests import PODS, Amounts, Port, amounts, host_ports, pod_requests, pod_weight
from knarr.scheduler.tally import Area, Kind, Tallies

PODS_UNSAID = 110
"""Pods of a node that doesn't say how many it takes."""

CHANGES_MAX = 20_000
"""Changes remembered; who is further behind looks at all nodes again."""


class PodInfo:
    """A pod and what it asks, computed once."""

    __slots__ = ("cpu", "key", "kind", "memory", "pod", "ports", "priority", "requests", "signature", "solitary")

    def __init__(self, pod: Pod) -> None:
        assert pod.spec is not None
        self.pod = pod
        self.key = key_of(pod)
        self.requests = pod_requests(pod.spec)
        self.cpu, self.memory = pod_weight(pod.spec)
        self.ports = host_ports(pod.spec)
        self.priority = pod.spec.priority or 0
        self.signature: bytes | None = None
        """What it asks, in one piece; made when it is needed first."""
        self.solitary = _is_solitary(pod.spec)
        """It has no wishes about other pods or volumes."""
        metadata = pod.metadata
        ending = metadata.deletion_timestamp is not None
        self.kind = Kind(metadata.namespace or "", tuple(sorted(metadata.labels.items())), ending)


class NodeInfo:
    """A node, and the sum of its pods."""

    __slots__ = (
        "allocatable",
        "cpu",
        "hard_taints",
        "memory",
        "name",
        "node",
        "place",
        "pods",
        "pods_max",
        "ports",
        "requested",
        "soft_taints",
        "unschedulable",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.node: Node | None = None
        self.place = -1
        self.pods: dict[str, PodInfo] = {}
        self.requested: Amounts = {}
        self.cpu = 0
        self.memory = 0
        self.ports: Counter[Port] = Counter()
        self.allocatable: Amounts = {}
        self.pods_max = 0
        self.hard_taints: list[Taint] = []
        self.soft_taints: list[Taint] = []
        self.unschedulable = False

    def set_node(self, node: Node | None) -> None:
        self.node = node
        offered = amounts(node.status.allocatable or node.status.capacity) if node and node.status else {}
        self.pods_max = offered.pop(PODS, PODS_UNSAID)
        self.allocatable = offered
        taints = node.spec.taints if node and node.spec else []
        self.hard_taints = [taint for taint in taints if taint.effect in ("NoSchedule", "NoExecute")]
        self.soft_taints = [taint for taint in taints if taint.effect == "PreferNoSchedule"]
        self.unschedulable = bool(node and node.spec and node.spec.unschedulable)

    def add(self, pod: PodInfo) -> None:
        self.pods[pod.key] = pod
        for resource, amount in pod.requests.items():
            self.requested[resource] = self.requested.get(resource, 0) + amount
        self.cpu += pod.cpu
        self.memory += pod.memory
        if pod.ports:
            self.ports.update(pod.ports)

    def remove(self, key: str) -> None:
        pod = self.pods.pop(key, None)
        if pod is None:
            return
        for resource, amount in pod.requests.items():
            self.requested[resource] -= amount
        self.cpu -= pod.cpu
        self.memory -= pod.memory
        if pod.ports:
            self.ports.subtract(pod.ports)
            self.ports += Counter()  # drops what has come to zero

    def thought(self) -> NodeInfo:
        """One that is like it, to add pods and take them away for a thought."""
        made = NodeInfo.__new__(NodeInfo)
        for slot in NodeInfo.__slots__:
            setattr(made, slot, getattr(self, slot))
        made.pods = self.pods.copy()
        made.requested = self.requested.copy()
        made.ports = Counter(self.ports) if self.ports else Counter()
        return made

    def free(self, resource: str) -> int:
        return self.allocatable.get(resource, 0) - self.requested.get(resource, 0)


Listener = Callable[[PodInfo, str, int], None]
"""listener(pod, node, +1 or −1): a pod came to a node, or left it."""


class Cache:
    """All nodes, and where each pod is."""

    def __init__(self) -> None:
        self.nodes: list[NodeInfo] = []
        """Those that exist, in the order in which they came."""
        self._infos: dict[str, NodeInfo] = {}
        self._places: dict[str, str] = {}
        self._assumed: dict[str, str] = {}
        """Pods that nobody but the scheduler knows the node of: key → uid."""
        self._listeners: list[Listener] = []
        self._nominated: dict[str, str] = {}
        self._expected: dict[str, dict[str, PodInfo]] = {}
        self.priorities: Counter[int] = Counter()
        """How many pods on nodes have each priority."""
        self.topology = 0
        """Rises when nodes come, go, or change their labels or taints."""
        self.tallies = Tallies()
        self._domains: dict[str, list[str | None]] = {}
        self._areas: dict[str, Area] = {}
        self._changes: list[int] = []
        self._changes_before = 0
        """Changes that are no longer remembered."""

    def listen(self, listener: Listener) -> None:
        self._listeners.append(listener)

    def get(self, name: str) -> NodeInfo | None:
        info = self._infos.get(name)
        return info if info and info.node is not None else None

    def pods(self) -> Iterator[tuple[PodInfo, str]]:
        for info in self._infos.values():
            for pod in info.pods.values():
                yield pod, info.name

    def node_changed(self, node: Node) -> NodeInfo | None:
        """The node, when something changed that a pod may care about; a mere heartbeat is not."""
        info = self._info(node.metadata.name or "")
        before = info.node
        if before is not None and _offers(before) == _offers(node):
            info.node = node
            return None
        info.set_node(node)
        if before is None:
            info.place = len(self.nodes)
            self.nodes.append(info)
        if before is None or _where(before) != _where(node):
            self._topology_changed()
        self._changes.append(info.place)
        return info

    def node_gone(self, name: str) -> None:
        info = self._infos.get(name)
        if info is None or info.node is None:
            return
        info.set_node(None)
        del self.nodes[info.place]
        for place, each in enumerate(self.nodes[info.place :], info.place):
            each.place = place
        info.place = -1
        self._changes_before += len(self._changes) + 1  # all places may be others' now
        self._changes.clear()
        self._topology_changed()
        if not info.pods:
            del self._infos[name]

    # What others remember by place

    @property
    def change(self) -> int:
        """The number of the last change."""
        return self._changes_before + len(self._changes)

    def changed_since(self, change: int) -> Sequence[int] | None:
        """Places of nodes that have changed; None when all may have."""
        return self._changes[change - self._changes_before :] if change >= self._changes_before else None

    def domains(self, topology_key: str) -> Sequence[str | None]:
        """The domain of each node, by place."""
        found = self._domains.get(topology_key)
        if found is None:
            found = [info.node.metadata.labels.get(topology_key) if info.node else None for info in self.nodes]
            self._domains[topology_key] = found
        return found

    def area(self, topology_key: str) -> Area:
        """All nodes that have a topology key."""
        found = self._areas.get(topology_key)
        if found is None:
            domains = zip(self.nodes, self.domains(topology_key), strict=True)
            domain_of = {info.name: domain for info, domain in domains if domain is not None}
            found = self._areas[topology_key] = Area(domain_of, frozenset(domain_of.values()))
        return found

    def _topology_changed(self) -> None:
        self.topology += 1
        self._domains.clear()
        self._areas.clear()
        self.tallies.clear()

    def _touch(self, info: NodeInfo) -> None:
        if info.place < 0:
            return
        self._changes.append(info.place)
        if len(self._changes) > CHANGES_MAX:
            forgotten = len(self._changes) - CHANGES_MAX // 2
            del self._changes[:forgotten]
            self._changes_before += forgotten

    def assume(self, pod: PodInfo, node_name: str) -> None:
        self._put(pod, node_name)
        self._assumed[pod.key] = pod.pod.metadata.uid or ""

    def forget(self, pod: PodInfo) -> None:
        """The binding failed."""
        if self._assumed.get(pod.key) == pod.pod.metadata.uid:
            self._take(pod.key)

    def is_assumed(self, key: str) -> bool:
        return key in self._assumed

    def is_known(self, key: str) -> bool:
        """It is on a node, or assumed to be."""
        return key in self._places

    def pod_changed(self, pod: Pod) -> bool:
        """What the API server says of a pod; True when it takes up less of its node than before."""
        key = key_of(pod)
        node_name = pod.spec.node_name if pod.spec else None
        if is_terminal(pod):
            return self._take(key) is not None
        if not node_name:
            if self._assumed.get(key) not in (None, pod.metadata.uid):
                self._take(key)
            return False
        before = self._pod(key)
        confirmed = False
        if before is not None and self._places[key] == node_name and before.pod.metadata.uid == pod.metadata.uid:
            confirmed = self._assumed.pop(key, None) is not None
            if _is_same(before.pod, pod):
                before.pod = pod
                return False
        self._put(PodInfo(pod), node_name)
        return before is not None and not confirmed

    def pod_gone(self, key: str) -> str | None:
        """The node that it was on."""
        return self._take(key)

    def _pod(self, key: str) -> PodInfo | None:
        place = self._places.get(key)
        return self._infos[place].pods.get(key) if place is not None else None

    def _put(self, pod: PodInfo, node_name: str) -> None:
        self._take(pod.key)
        self._places[pod.key] = node_name
        self.enter(pod, node_name)

    def _take(self, key: str) -> str | None:
        self._assumed.pop(key, None)
        place = self._places.pop(key, None)
        if place is None:
            return None
        info = self._infos[place]
        self.leave(info.pods[key], place)
        if info.node is None and not info.pods:
            del self._infos[place]
        return place

    def enter(self, pod: PodInfo, node_name: str) -> None:
        """Count a pod on a node, be it only for a thought (see `without` and `along_with`)."""
        info = self._info(node_name)
        info.add(pod)
        self._touch(info)
        self.tallies.changed(pod.kind, node_name, 1)
        self.priorities[pod.priority] += 1
        for listener in self._listeners:
            listener(pod, node_name, 1)

    def leave(self, pod: PodInfo, node_name: str) -> None:
        info = self._infos[node_name]
        info.remove(pod.key)
        self._touch(info)
        self.tallies.changed(pod.kind, node_name, -1)
        self.priorities[pod.priority] -= 1
        if not self.priorities[pod.priority]:
            del self.priorities[pod.priority]
        for listener in self._listeners:
            listener(pod, node_name, -1)

    @contextmanager
    def without(self, node: NodeInfo, pods: Sequence[PodInfo]) -> Iterator[None]:
        """As if these were not on their node. What enters or leaves meanwhile is undone as well."""
        before = dict(node.pods)
        for pod in pods:
            self.leave(pod, node.name)
        try:
            yield
        finally:
            for key in [key for key in node.pods if key not in before]:
                self.leave(node.pods[key], node.name)
            for key, pod in before.items():
                if key not in node.pods:
                    self.enter(pod, node.name)

    @contextmanager
    def along_with(self, node: NodeInfo, pods: Sequence[PodInfo]) -> Iterator[None]:
        """As if these were on the node already."""
        for pod in pods:
            self.enter(pod, node.name)
        try:
            yield
        finally:
            for pod in pods:
                self.leave(pod, node.name)

    # Nominated: pods for which others had to go

    def nominate(self, pod: PodInfo, node_name: str) -> None:
        """The pod is to come to a node as soon as there is room; pods of lower priority leave that room to it."""
        self.withdraw(pod.key)
        self._nominated[pod.key] = node_name
        self._expected.setdefault(node_name, {})[pod.key] = pod

    def withdraw(self, key: str) -> str:
        """It is not expected any more; the node where it was."""
        node_name = self._nominated.pop(key, "")
        if node_name:
            self._expected[node_name].pop(key)
            if not self._expected[node_name]:
                del self._expected[node_name]
        return node_name

    def nominated_node(self, key: str) -> str:
        return self._nominated.get(key, "")

    def waited_for(self) -> bool:
        """Some node is nominated by some pod."""
        return bool(self._expected)

    def expected(self, node_name: str, pod: PodInfo) -> list[PodInfo]:
        """Nominated pods that go before `pod` on a node."""
        waiting = self._expected.get(node_name)
        if not waiting:
            return []
        return [each for each in waiting.values() if each.priority >= pod.priority and each.key != pod.key]

    def outranked(self, node_name: str, pod: PodInfo) -> list[PodInfo]:
        """Nominated pods that would go after `pod` on a node."""
        return [each for each in self._expected.get(node_name, {}).values() if each.priority < pod.priority]

    def _info(self, name: str) -> NodeInfo:
        info = self._infos.get(name)
        if info is None:
            info = self._infos[name] = NodeInfo(name)
        return info


def _is_solitary(spec: PodSpec) -> bool:
    affinity = spec.affinity
    return (
        not spec.topology_spread_constraints
        and (affinity is None or (affinity.pod_affinity is None and affinity.pod_anti_affinity is None))
        and all(
            volume.projected or volume.config_map or volume.secret or volume.empty_dir or volume.downward_api
            for volume in spec.volumes
        )
    )


def _is_same(before: Pod, after: Pod) -> bool:
    """Nothing changed that others count on. (A pod may be resized in place.)"""
    assert before.spec is not None
    assert after.spec is not None
    if before.metadata.labels != after.metadata.labels:
        return False
    if (before.metadata.deletion_timestamp is None) != (after.metadata.deletion_timestamp is None):
        return False
    if before.spec.containers == after.spec.containers:
        return True
    asked = pod_requests(before.spec), host_ports(before.spec)
    return asked == (pod_requests(after.spec), host_ports(after.spec))


def _offers(node: Node) -> tuple[object, ...]:
    """All of a node that the choice depends on."""
    status, spec = node.status, node.spec
    return (
        node.metadata.uid,
        node.metadata.labels,
        (status.allocatable, status.capacity, status.images) if status else None,
        (spec.taints, spec.unschedulable) if spec else None,
    )


def _where(node: Node) -> tuple[object, ...]:
    """What makes domains."""
    return node.metadata.uid, node.metadata.labels, node.spec.taints if node.spec else None
