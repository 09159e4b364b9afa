"""Pods that want to be near other pods, or away from them, in the same node, zone, or whatever a topology key names.

Required terms decide whether a node will do; the required anti-affinity of pods that are there already decides too.
Preferred terms, of the pod and of those that are there, make domains more or less liked. A pod whose affinity nobody
satisfies yet, but which would satisfy it itself, may be the first (upstream's plugins/interpodaffinity).

How many pods each term selects, and how many hold it, is counted by domain and kept up to date as pods come and go.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence

from msgspec import Struct, field

from knarr.api.core.v1 import Pod, PodAffinityTerm
from knarr.api.meta.owners import selector_for
from knarr.api.selectors import Operator, Requirement, Selector
from knarr.scheduler.cache import Cache, NodeInfo, PodInfo
from knarr.scheduler.framework import SCORE_MAX, Plugin, Refusal

HARD_AFFINITY_WEIGHT = 1
"""How much a pod there that requires pods like this one draws it."""
SELECTED_MAX = 256
"""Groups of terms whose pods are counted all the time; another one is counted anew when it is needed."""

FAR = Refusal("InterPodAffinity", ("node(s) didn't match pod affinity rules",), curable=False)
NEAR = Refusal("InterPodAffinity", ("node(s) didn't match pod anti-affinity rules",))
UNWELCOME = Refusal("InterPodAffinity", ("node(s) didn't satisfy existing pods anti-affinity rules",))

Counts = Counter[str]
"""Pods by domain."""


class Matcher(Struct, frozen=True):
    """The pods that a term is about."""

    namespaces: frozenset[str]
    namespace_selector: Selector | None
    selector: Selector | None

    def matches(self, pod: Pod, labels_of: Callable[[str], Mapping[str, str]]) -> bool:
        namespace = pod.metadata.namespace or ""
        if self.selector is None:
            return False
        if namespace not in self.namespaces and not (
            self.namespace_selector is not None and self.namespace_selector.matches(labels_of(namespace))
        ):
            return False
        return self.selector.matches(pod.metadata.labels)

    @property
    def key(self) -> str:
        return f"{sorted(self.namespaces)} {self.namespace_selector} {self.selector}"


class Term(Struct, frozen=True):
    """A term, and what it does: `anti` keeps away, a weight only draws (or repels when it is negative)."""

    matcher: Matcher
    topology_key: str
    anti: bool = False
    weight: int = 0

    @property
    def key(self) -> tuple[str, str, bool, int]:
        return self.matcher.key, self.topology_key, self.anti, self.weight


class Terms(Struct):
    """What one pod says of others."""

    affinity: list[Term] = field(default_factory=list)
    anti: list[Term] = field(default_factory=list)
    preferred: list[Term] = field(default_factory=list)

    def all(self) -> Iterator[Term]:
        yield from self.affinity
        yield from self.anti
        yield from self.preferred


class Hard(Struct):
    """What must hold: topology key and counts of each term."""

    near: list[tuple[str, Counts]]
    may_be_first: bool
    away: list[tuple[str, Counts]]
    unwelcome: list[tuple[str, Counts]]


class InterPodAffinity(Plugin):
    name = "InterPodAffinity"
    weight = 2
    local = False
    comparing = True
    spans = True

    def __init__(self, cache: Cache) -> None:
        super().__init__(cache)
        self.labels_of: Callable[[str], Mapping[str, str]] = lambda namespace: {}
        """Labels of a namespace; set by the scheduler."""
        self._selected: OrderedDict[tuple[str, ...], tuple[tuple[Matcher, ...], str, Counts]] = OrderedDict()
        self._held: dict[tuple[str, str, bool, int], tuple[Term, Counts]] = {}
        self._topology = -1
        cache.listen(self._changed)

    def prepare(self, pod: PodInfo) -> Hard | None:
        self._refresh()
        terms = terms_of(pod.pod)
        matchers = tuple(term.matcher for term in terms.affinity)
        near = [(term.topology_key, self._counts(matchers, term.topology_key)) for term in terms.affinity]
        away = [(term.topology_key, self._counts((term.matcher,), term.topology_key)) for term in terms.anti]
        unwelcome = [
            (term.topology_key, counts)
            for term, counts in self._held.values()
            if term.anti and not term.weight and self._matches(term.matcher, pod.pod)
        ]
        if not near and not away and not unwelcome:
            return None
        first = not any(counts for _, counts in near) and all(self._matches(each, pod.pod) for each in matchers)
        return Hard(near, first, away, unwelcome)

    def filter(self, prepared: Hard, node: NodeInfo) -> Refusal | None:
        assert node.node is not None
        labels = node.node.metadata.labels
        if prepared.near:
            if any(key not in labels for key, _ in prepared.near):
                return FAR
            if not prepared.may_be_first and any(not counts.get(labels[key]) for key, counts in prepared.near):
                return FAR
        if any(counts.get(labels.get(key, "")) for key, counts in prepared.away):
            return NEAR
        if any(counts.get(labels.get(key, "")) for key, counts in prepared.unwelcome):
            return UNWELCOME
        return None

    def prepare_score(self, pod: PodInfo) -> dict[str, Counts] | None:
        """How much each domain of each topology key is liked."""
        self._refresh()
        liked: dict[str, Counts] = {}

        def add(term: Term, weight: int, counts: Counts) -> None:
            likes = liked.setdefault(term.topology_key, Counter())
            for domain, count in counts.items():
                likes[domain] += weight * count

        for term in terms_of(pod.pod).preferred:
            add(term, term.weight, self._counts((term.matcher,), term.topology_key))
        for term, counts in self._held.values():
            weight = term.weight or (0 if term.anti else HARD_AFFINITY_WEIGHT)
            if weight and self._matches(term.matcher, pod.pod):
                add(term, weight, counts)
        return liked or None

    def score(self, prepared: dict[str, Counts], node: NodeInfo) -> float:
        assert node.node is not None
        labels = node.node.metadata.labels
        return sum(counts.get(labels.get(key, ""), 0) for key, counts in prepared.items())

    def normalize(self, prepared: dict[str, Counts], scores: Sequence[float]) -> Sequence[float]:
        least, most = min(scores), max(scores)
        return [int(SCORE_MAX * (score - least) / (most - least)) if most > least else 0 for score in scores]

    def is_drawn_by(self, pod: PodInfo, come: Pod) -> bool:
        """Whether a pod that has come to a node is one that `pod` wants to be near."""
        return any(self._matches(term.matcher, come) for term in terms_of(pod.pod).affinity)

    def namespaces_changed(self) -> None:
        """The labels of a namespace are others now."""
        self._topology = -1

    # Counting

    def _matches(self, matcher: Matcher, pod: Pod) -> bool:
        return matcher.matches(pod, self.labels_of)

    def _counts(self, matchers: tuple[Matcher, ...], topology_key: str) -> Counts:
        """By domain: the pods that all of these select."""
        key = (topology_key, *(matcher.key for matcher in matchers))
        if key in self._selected:
            self._selected.move_to_end(key)
            return self._selected[key][2]
        counts: Counts = Counter()
        self._selected[key] = (matchers, topology_key, counts)
        for pod, node_name in self.cache.pods():
            if all(self._matches(matcher, pod.pod) for matcher in matchers):
                self._count(counts, topology_key, node_name, 1)
        if len(self._selected) > SELECTED_MAX:
            self._selected.popitem(last=False)
        return counts

    def _refresh(self) -> None:
        """Domains are other ones when nodes come, go, or change their labels: then all is counted anew."""
        if self._topology == self.cache.topology:
            return
        self._topology = self.cache.topology
        self._selected.clear()
        self._held.clear()
        for pod, node_name in self.cache.pods():
            self._hold(pod, node_name, 1)

    def _changed(self, pod: PodInfo, node_name: str, change: int) -> None:
        if self._topology != self.cache.topology:
            return  # it will all be counted anew
        for matchers, topology_key, counts in self._selected.values():
            if all(self._matches(matcher, pod.pod) for matcher in matchers):
                self._count(counts, topology_key, node_name, change)
        self._hold(pod, node_name, change)

    def _hold(self, pod: PodInfo, node_name: str, change: int) -> None:
        for term in terms_of(pod.pod).all():
            held = self._held.setdefault(term.key, (term, Counter()))
            self._count(held[1], term.topology_key, node_name, change)
            if not held[1]:
                del self._held[term.key]

    def _count(self, counts: Counts, topology_key: str, node_name: str, change: int) -> None:
        node = self.cache.get(node_name)
        domain = node.node.metadata.labels.get(topology_key) if node and node.node else None
        if domain is not None:
            counts[domain] += change
            if not counts[domain]:
                del counts[domain]


def terms_of(pod: Pod) -> Terms:
    """What a pod says of others."""
    terms = Terms()
    affinity = pod.spec.affinity if pod.spec else None
    if affinity is None:
        return terms
    for side, sign in ((affinity.pod_affinity, 1), (affinity.pod_anti_affinity, -1)):
        if side is None:
            continue
        required = side.required_during_scheduling_ignored_during_execution
        (terms.affinity if sign > 0 else terms.anti).extend(
            Term(_matcher(term, pod), term.topology_key, sign < 0) for term in required
        )
        terms.preferred += (
            Term(
                _matcher(each.pod_affinity_term, pod), each.pod_affinity_term.topology_key, sign < 0, sign * each.weight
            )
            for each in side.preferred_during_scheduling_ignored_during_execution
        )
    return terms


def _matcher(term: PodAffinityTerm, pod: Pod) -> Matcher:
    """Without namespaces, the pod's own is meant; (mis)matchLabelKeys take the pod's own values (KEP-3633)."""
    namespaces = frozenset(term.namespaces)
    of_namespace = selector_for(term.namespace_selector) if term.namespace_selector is not None else None
    if not namespaces and term.namespace_selector is None:
        namespaces = frozenset((pod.metadata.namespace or "",))
    selector = selector_for(term.label_selector)
    labels = pod.metadata.labels
    more = [
        Requirement(key, operator, frozenset((labels[key],)))
        for keys, operator in ((term.match_label_keys, Operator.IN), (term.mismatch_label_keys, Operator.NOT_IN))
        for key in keys
        if key in labels
    ]
    if selector is not None and more:
        selector = Selector((*selector.requirements, *more))
    return Matcher(namespaces, of_namespace, selector)
