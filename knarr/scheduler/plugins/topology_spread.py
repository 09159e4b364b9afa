"""Pods of one application are spread over zones, nodes, or whatever a topology key names.

A constraint DoNotSchedule refuses nodes where the pod would make the difference between the fullest and the emptiest
domain larger than maxSkew; ScheduleAnyway only prefers emptier ones. A pod without constraints of its own is spread by
the default ones over nodes and zones, together with the pods of its Services and its ReplicaSet.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from operator import add
from typing import ClassVar

import msgspec

from knarr.api.core.node_affinity import matches
from knarr.api.core.taints import tolerates
from knarr.api.core.v1 import Node, Pod, PodSpec, TopologySpreadConstraint
from knarr.api.meta.owners import selector_for
from knarr.api.selectors import Operator, Requirement, Selector
from knarr.scheduler.cache import Cache, NodeInfo, PodInfo
from knarr.scheduler.framework import SCORE_MAX, Barrier, Pick, Refusal, Spanning
from knarr.scheduler.happenings import Happening, Hint, What
from knarr.scheduler.plugins.node_affinity import asks
from knarr.scheduler.tally import Area, Counts, Kind, certain_label

HOSTNAME = "kubernetes.io/hostname"
ZONE = "topology.kubernetes.io/zone"
DEFAULT_CONSTRAINTS = (
    TopologySpreadConstraint(topology_key=HOSTNAME, when_unsatisfiable="ScheduleAnyway", max_skew=3),
    TopologySpreadConstraint(topology_key=ZONE, when_unsatisfiable="ScheduleAnyway", max_skew=5),
)
AREAS_MAX = 256
"""Sets of nodes that pods with wishes of their own may go to; they are found anew when there are more."""
NO_LABEL = Refusal(
    "PodTopologySpread",
    ("node(s) didn't match pod topology spread constraints (missing required label)",),
    curable=False,
)
SKEWED = Refusal("PodTopologySpread", ("node(s) didn't match pod topology spread constraints",))


class Soft(msgspec.Struct):
    """A constraint that should hold."""

    domains: Sequence[str | None]
    """Of each node, by place."""
    counts: Mapping[str, int]
    of_nodes: bool
    """Each node is a domain of its own."""
    strict: bool
    """Nodes without a domain are the last to be taken."""
    max_skew: int


class TopologySpread(Spanning):
    name = "PodTopologySpread"
    weight = 2
    helped_by: ClassVar = {
        Node: What.ADDED | What.GONE | What.LABELS | What.TAINTS,
        Pod: What.PLACED | What.LEFT | What.LABELS,
    }

    def __init__(self, cache: Cache) -> None:
        super().__init__(cache)
        self.group_of: Callable[[Pod], Selector | None] = lambda pod: None
        """Which pods serve the same end as a pod without constraints; set by the scheduler."""
        self.default_constraints: Sequence[TopologySpreadConstraint] | None = None
        """Of pods without constraints, in place of DEFAULT_CONSTRAINTS."""
        self._topology = -1
        self._areas: dict[tuple[str, bytes], Area] = {}

    def barriers(self, pod: PodInfo) -> list[Barrier]:
        spec = pod.pod.spec
        assert spec is not None
        if not spec.topology_spread_constraints:
            return []
        hard = [one for one in spec.topology_spread_constraints if one.when_unsatisfiable == "DoNotSchedule"]
        keys = tuple(sorted({constraint.topology_key for constraint in hard}))
        return [self._barrier(pod, spec, constraint, keys) for constraint in hard]

    def prepare_score(self, pod: PodInfo) -> list[Soft] | None:
        spec = pod.pod.spec
        assert spec is not None
        if spec.topology_spread_constraints:
            soft = [one for one in spec.topology_spread_constraints if one.when_unsatisfiable == "ScheduleAnyway"]
            found = [self._soft(pod, spec, constraint, _selector(constraint, pod.pod)) for constraint in soft]
        else:
            group = self.group_of(pod.pod)
            if group is None:
                return None
            default = DEFAULT_CONSTRAINTS if self.default_constraints is None else self.default_constraints
            found = [self._soft(pod, spec, constraint, group) for constraint in default]
        return found or None

    def scores(self, prepared: list[Soft], pick: Pick) -> Sequence[float]:
        """How full the domains of each node are."""
        totals: Sequence[float] = ()
        for soft in prepared:
            domains = pick(soft.domains)
            weight = math.log((len(domains) if soft.of_nodes else len({*domains} - {None})) + 2)
            count_of, least = soft.counts.get, soft.max_skew - 1
            scores: Sequence[float] = [count_of(domain, 0) * weight + least for domain in domains]
            if None in domains:
                missing = -math.inf if soft.strict else 0.0
                scores = [missing if domain is None else score for domain, score in zip(domains, scores, strict=True)]
            totals = list(map(add, totals, scores)) if totals else scores
        return totals

    def normalize(self, prepared: list[Soft], scores: Sequence[float]) -> Sequence[float]:
        """The emptiest is best; nodes that lack a key are liked least."""
        counted = [round(score) for score in scores if score >= 0]
        most, least = max(counted, default=0), min(counted, default=0)
        return [
            0 if score < 0 else SCORE_MAX * (most + least - round(score)) // most if most else SCORE_MAX
            for score in scores
        ]

    def hint(self, pod: PodInfo, happening: Happening) -> Hint:
        """A pod that is counted has come or gone, and may have changed the emptiest domain; or domains are others."""
        spec = pod.pod.spec
        assert spec is not None
        hard = [one for one in spec.topology_spread_constraints if one.when_unsatisfiable == "DoNotSchedule"]
        if happening.kind is Node:
            keys = {constraint.topology_key for constraint in hard}
            nodes = [node for node in (happening.old, happening.new) if node is not None]
            return Hint.QUEUE if any(node.metadata.labels.keys() >= keys for node in nodes) else Hint.SKIP
        counted = any(
            pod.kind.namespace == other.kind.namespace
            and any(_selector(constraint, pod.pod).matches(other.pod.metadata.labels) for constraint in hard)
            for other in (happening.old, happening.new)
            if other is not None
        )
        return Hint.QUEUE if counted else Hint.SKIP

    def _barrier(
        self, pod: PodInfo, spec: PodSpec, constraint: TopologySpreadConstraint, keys: tuple[str, ...]
    ) -> Barrier:
        key = constraint.topology_key
        selector = _selector(constraint, pod.pod)
        area = self._area(spec, constraint, keys)
        counts = self._counts(pod, spec, constraint, keys, selector)
        emptiest = 0 if len(counts) < len(area.domains) else min(counts.values(), default=0)
        if constraint.min_domains and len(area.domains) < constraint.min_domains:
            emptiest = 0
        most = constraint.max_skew + emptiest - int(selector.matches(pod.pod.metadata.labels))
        full = {domain for domain, count in counts.items() if count > most}
        return Barrier(key, full.__contains__, SKEWED, NO_LABEL)

    def _soft(self, pod: PodInfo, spec: PodSpec, constraint: TopologySpreadConstraint, selector: Selector) -> Soft:
        key = constraint.topology_key
        counts = self._counts(pod, spec, constraint, (), selector)
        strict = bool(spec.topology_spread_constraints) or self.default_constraints is not None
        return Soft(self.cache.domains(key), counts, key == HOSTNAME, strict, constraint.max_skew)

    def _counts(
        self,
        pod: PodInfo,
        spec: PodSpec,
        constraint: TopologySpreadConstraint,
        keys: tuple[str, ...],
        selector: Selector,
    ) -> Counts:
        """Pods of the constraint by domain, on nodes that count."""
        namespace = pod.kind.namespace

        def counts(kind: Kind) -> bool:
            return kind.namespace == namespace and not kind.ending and selector.matches(dict(kind.labels))

        asked = (self.name, namespace, selector, constraint.topology_key, keys, _wishes(spec, constraint))
        return self.cache.tallies.of(asked, counts, certain_label(selector), self._area(spec, constraint, keys))

    def _area(self, spec: PodSpec, constraint: TopologySpreadConstraint, keys: tuple[str, ...]) -> Area:
        """Nodes with all the keys that the pod could go to otherwise: others don't make a domain (KEP-3094)."""
        wishes = _wishes(spec, constraint)
        if not wishes and len(keys) <= 1:
            return self.cache.area(constraint.topology_key)
        if self._topology != self.cache.topology or len(self._areas) > AREAS_MAX:
            self._areas.clear()
            self._topology = self.cache.topology
        found = self._areas.get((constraint.topology_key, wishes + b"".join(key.encode() for key in keys)))
        if found is None:
            domain_of = {
                node.name: node.node.metadata.labels[constraint.topology_key]
                for node in self.cache.nodes
                if node.node is not None
                and node.node.metadata.labels.keys() >= {constraint.topology_key, *keys}
                and _is_eligible(constraint, spec, node)
            }
            found = Area(domain_of, frozenset(domain_of.values()))
            self._areas[constraint.topology_key, wishes + b"".join(key.encode() for key in keys)] = found
        return found


def _wishes(spec: PodSpec, constraint: TopologySpreadConstraint) -> bytes:
    """All of a pod that says which nodes count for a constraint."""
    affinity = asks(spec) and constraint.node_affinity_policy != "Ignore"
    taints = constraint.node_taints_policy == "Honor"
    if not affinity and not taints:
        return b""
    wanted = (spec.node_selector, spec.affinity and spec.affinity.node_affinity) if affinity else None
    return msgspec.json.encode((wanted, spec.tolerations if taints else None))


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
