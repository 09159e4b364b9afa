"""Pods of one application are spread over zones, nodes, or whatever a topology key names.

A constraint DoNotSchedule refuses nodes where the pod would make the difference between the fullest and the emptiest
domain larger than maxSkew; ScheduleAnyway only prefers emptier ones. A pod without constraints of its own is spread by
the default ones over nodes and zones, together with the pods of its Services and its ReplicaSet.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from knarr.api.core.node_affinity import matches
from knarr.api.core.taints import tolerates
from knarr.api.core.v1 import Pod, PodSpec, TopologySpreadConstraint
from knarr.api.meta.owners import selector_for
from knarr.api.selectors import Operator, Requirement, Selector
from knarr.scheduler.cache import Cache, NodeInfo, PodInfo
from knarr.scheduler.framework import SCORE_MAX, Plugin, Refusal

HOSTNAME = "kubernetes.io/hostname"
ZONE = "topology.kubernetes.io/zone"
DEFAULT_CONSTRAINTS = (
    TopologySpreadConstraint(topology_key=HOSTNAME, when_unsatisfiable="ScheduleAnyway", max_skew=3),
    TopologySpreadConstraint(topology_key=ZONE, when_unsatisfiable="ScheduleAnyway", max_skew=5),
)
GROUPS_MAX = 256
"""Groups of pods whose places are counted all the time; another one is counted anew when it is needed."""

NO_LABEL = Refusal(
    "PodTopologySpread",
    ("node(s) didn't match pod topology spread constraints (missing required label)",),
    curable=False,
)
SKEWED = Refusal("PodTopologySpread", ("node(s) didn't match pod topology spread constraints",))


class Hard(Struct):
    """A constraint that must hold, and how full its domains are."""

    key: str
    max_skew: int
    counts: Mapping[str, int]
    emptiest: int
    own: int
    """1 when the pod counts itself."""


class Soft(Struct):
    """A constraint that should hold."""

    domains: Mapping[str, str] | None
    """Domain of each node; None when each node is its own."""
    counts: Mapping[str, int]
    weight: float
    max_skew: int


class TopologySpread(Plugin):
    name = "PodTopologySpread"
    weight = 2
    local = False
    comparing = True
    spans = True

    def __init__(self, cache: Cache) -> None:
        super().__init__(cache)
        self.group_of: Callable[[Pod], Selector | None] = lambda pod: None
        """Which pods serve the same end as a pod without constraints; set by the scheduler."""
        self._groups = Groups(cache)
        self._topology = -1
        self._domains: dict[str, dict[str, str]] = {}

    def prepare(self, pod: PodInfo) -> list[Hard] | None:
        spec = pod.pod.spec
        assert spec is not None
        return [
            self._hard(pod, spec, constraint)
            for constraint in spec.topology_spread_constraints
            if constraint.when_unsatisfiable == "DoNotSchedule"
        ] or None

    def filter(self, prepared: list[Hard], node: NodeInfo) -> Refusal | None:
        assert node.node is not None
        for constraint in prepared:
            domain = node.node.metadata.labels.get(constraint.key)
            if domain is None:
                return NO_LABEL
            if constraint.counts.get(domain, 0) + constraint.own - constraint.emptiest > constraint.max_skew:
                return SKEWED
        return None

    def prepare_score(self, pod: PodInfo) -> list[Soft] | None:
        spec = pod.pod.spec
        assert spec is not None
        if spec.topology_spread_constraints:
            found = [
                self._soft(pod, constraint, _selector(constraint, pod.pod))
                for constraint in spec.topology_spread_constraints
                if constraint.when_unsatisfiable == "ScheduleAnyway"
            ]
        else:
            group = self.group_of(pod.pod)
            if group is None:
                return None
            found = [self._soft(pod, constraint, group) for constraint in DEFAULT_CONSTRAINTS]
        return [soft for soft in found if soft is not None] or None

    def score(self, prepared: list[Soft], node: NodeInfo) -> float:
        total = 0.0
        for soft in prepared:
            domain = node.name if soft.domains is None else soft.domains.get(node.name)
            if domain is not None:
                total += soft.counts.get(domain, 0) * soft.weight + soft.max_skew - 1
        return round(total)

    def normalize(self, prepared: list[Soft], scores: Sequence[float]) -> Sequence[float]:
        """The emptiest is best."""
        most, least = max(scores), min(scores)
        return [SCORE_MAX * (most + least - score) // most if most else SCORE_MAX for score in scores]

    def _hard(self, pod: PodInfo, spec: PodSpec, constraint: TopologySpreadConstraint) -> Hard:
        key = constraint.topology_key
        selector = _selector(constraint, pod.pod)
        group = self._groups.of(pod.pod.metadata.namespace or "", selector)
        counts: Counter[str] = Counter()
        for node in self.cache.nodes:
            domain = node.node.metadata.labels.get(key) if node.node else None
            if domain is not None and _is_eligible(constraint, spec, node):
                counts[domain] += group.get(node.name, 0)
        emptiest = min(counts.values(), default=0)
        if constraint.min_domains and len(counts) < constraint.min_domains:
            emptiest = 0
        return Hard(key, constraint.max_skew, counts, emptiest, int(selector.matches(pod.pod.metadata.labels)))

    def _soft(self, pod: PodInfo, constraint: TopologySpreadConstraint, selector: Selector) -> Soft | None:
        group = self._groups.of(pod.pod.metadata.namespace or "", selector)
        if constraint.topology_key == HOSTNAME:
            return Soft(None, group, math.log(len(self.cache.nodes) + 2), constraint.max_skew)
        domains = self._domains_of(constraint.topology_key)
        if not domains:
            return None
        counts: Counter[str] = Counter()
        for node_name, count in group.items():
            if node_name in domains:
                counts[domains[node_name]] += count
        return Soft(domains, counts, math.log(len(set(domains.values())) + 2), constraint.max_skew)

    def _domains_of(self, key: str) -> dict[str, str]:
        """The domain of each node that has one."""
        if self._topology != self.cache.topology:
            self._domains.clear()
            self._topology = self.cache.topology
        if key not in self._domains:
            self._domains[key] = {
                node.name: node.node.metadata.labels[key]
                for node in self.cache.nodes
                if node.node and key in node.node.metadata.labels
            }
        return self._domains[key]


class Groups:
    """How many pods of a group (namespace and selector) are on each node, kept up to date."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._counts: OrderedDict[tuple[str, str], tuple[Selector, Counter[str]]] = OrderedDict()
        self._by_namespace: dict[str, dict[str, None]] = {}
        cache.listen(self._changed)

    def of(self, namespace: str, selector: Selector) -> Mapping[str, int]:
        key = (namespace, str(selector))
        if key in self._counts:
            self._counts.move_to_end(key)
            return self._counts[key][1]
        counts: Counter[str] = Counter(
            node_name for pod, node_name in self._cache.pods() if _is_of(pod, namespace, selector)
        )
        self._counts[key] = (selector, counts)
        self._by_namespace.setdefault(namespace, {})[key[1]] = None
        if len(self._counts) > GROUPS_MAX:
            (oldest, text), _ = self._counts.popitem(last=False)
            del self._by_namespace[oldest][text]
        return counts

    def _changed(self, pod: PodInfo, node_name: str, change: int) -> None:
        namespace = pod.pod.metadata.namespace or ""
        for text in self._by_namespace.get(namespace, ()):
            selector, counts = self._counts[namespace, text]
            if _is_of(pod, namespace, selector):
                counts[node_name] += change
                if not counts[node_name]:
                    del counts[node_name]


def _is_of(pod: PodInfo, namespace: str, selector: Selector) -> bool:
    """Pods on their way out don't count."""
    metadata = pod.pod.metadata
    return metadata.namespace == namespace and metadata.deletion_timestamp is None and selector.matches(metadata.labels)


def _selector(constraint: TopologySpreadConstraint, pod: Pod) -> Selector:
    """The constraint's own, narrowed to the pod's values of matchLabelKeys; without one it selects nothing."""
    selector = selector_for(constraint.label_selector)
    if selector is None:
        return Selector((Requirement("", Operator.IN),))
    more = [
        Requirement(key, Operator.IN, frozenset((pod.metadata.labels[key],)))
        for key in constraint.match_label_keys
        if key in pod.metadata.labels
    ]
    return Selector((*selector.requirements, *more))


def _is_eligible(constraint: TopologySpreadConstraint, spec: PodSpec, node: NodeInfo) -> bool:
    """Nodes that the pod can't go to for other reasons don't make a domain (KEP-3094)."""
    assert node.node is not None
    if constraint.node_affinity_policy != "Ignore" and not matches(spec, node.node):
        return False
    if constraint.node_taints_policy == "Honor":
        return all(any(tolerates(t, taint) for t in spec.tolerations) for taint in node.hard_taints)
    return True
