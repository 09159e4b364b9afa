"""Pods that want to be near other pods, or away from them, in the same node, zone, or whatever a topology key names.

Required terms decide whether a node will do; the required anti-affinity of pods that are there already decides too.
Preferred terms, of the pod and of those that are there, make domains more or less liked. A pod whose affinity nobody
satisfies yet, but which would satisfy it itself, may be the first (upstream's plugins/interpodaffinity).

How many pods each term selects, and how many hold it, is counted by domain and kept up to date as pods come and go.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import ClassVar

import msgspec

from knarr.api.core.v1 import Namespace, Node, Pod, PodAffinity, PodAffinityTerm, PodAntiAffinity
from knarr.api.meta.owners import selector_for
from knarr.api.selectors import Operator, Requirement, Selector
from knarr.scheduler.cache import Cache, PodInfo
from knarr.scheduler.framework import SCORE_MAX, Barrier, Pick, Refusal, Spanning
from knarr.scheduler.happenings import Happening, Hint, What
from knarr.scheduler.tally import Counts, Kind, certain_label

TERMS_MAX = 4096
"""Affinities remembered as terms, and kinds of pods remembered with the terms of others that are about them."""

FAR = Refusal("InterPodAffinity", ("node(s) didn't match pod affinity rules",), curable=False)
NEAR = Refusal("InterPodAffinity", ("node(s) didn't match pod anti-affinity rules",))
UNWELCOME = Refusal("InterPodAffinity", ("node(s) didn't satisfy existing pods anti-affinity rules",))


class Matcher(msgspec.Struct, frozen=True):
    """The pods that a term is about."""

    namespaces: frozenset[str]
    namespace_selector: Selector | None
    selector: Selector | None

    def matches(self, kind: Kind, labels_of: Callable[[str], Mapping[str, str]]) -> bool:
        namespace = kind.namespace
        if self.selector is None:
            return False
        if namespace not in self.namespaces and not (
            self.namespace_selector is not None and self.namespace_selector.matches(labels_of(namespace))
        ):
            return False
        return self.selector.matches(dict(kind.labels))


class Term(msgspec.Struct, frozen=True):
    """A term, and what it does: `anti` keeps away, a weight only draws (or repels when it is negative)."""

    matcher: Matcher
    topology_key: str
    anti: bool = False
    weight: int = 0


class Terms(msgspec.Struct, frozen=True):
    """What one pod says of others."""

    affinity: tuple[Term, ...] = ()
    anti: tuple[Term, ...] = ()
    preferred: tuple[Term, ...] = ()

    @property
    def all(self) -> tuple[Term, ...]:
        return (*self.affinity, *self.anti, *self.preferred)


NO_TERMS = Terms()


class InterPodAffinity(Spanning):
    name = "InterPodAffinity"
    weight = 2
    helped_by: ClassVar = {
        Node: What.ADDED | What.LABELS,
        Pod: What.PLACED | What.LEFT | What.LABELS,
        Namespace: What.ADDED | What.CHANGED,
    }

    def __init__(self, cache: Cache) -> None:
        super().__init__(cache)
        self.labels_of: Callable[[str], Mapping[str, str]] = lambda namespace: {}
        """Labels of a namespace; set by the scheduler."""
        self.hard_affinity_weight = 1
        """How much a pod there that requires pods like this one draws it."""
        self._held: dict[Term, Counts] = {}
        """By domain: the pods that hold each term."""
        self._about: dict[Kind, list[Term]] = {}
        """Held terms that are about each kind."""
        self._topology = -1
        cache.listen(self._changed)

    def barriers(self, pod: PodInfo) -> list[Barrier]:
        self._refresh()
        terms = terms_of(pod.pod)
        found = self._near(pod, terms.affinity) if terms.affinity else []
        for term in terms.anti:
            found.append(Barrier(term.topology_key, self._counts((term.matcher,), term.topology_key).get, NEAR))
        for term in self._terms_about(pod.kind):
            if term.anti and not term.weight:
                found.append(Barrier(term.topology_key, self._held[term].get, UNWELCOME))
        return found

    def _near(self, pod: PodInfo, terms: Sequence[Term]) -> list[Barrier]:
        """Each term must be satisfied in the node's domain, by pods that satisfy all of them."""
        matchers = tuple(term.matcher for term in terms)
        counted = [(term.topology_key, self._counts(matchers, term.topology_key)) for term in terms]
        first = not any(counts for _, counts in counted) and all(self._matches(each, pod.kind) for each in matchers)
        barriers = []
        for key, counts in counted:
            too_far = frozenset[str]() if first else self.cache.area(key).domains - counts.keys()
            barriers.append(Barrier(key, too_far.__contains__, FAR, FAR))
        return barriers

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
        for term in self._terms_about(pod.kind):
            weight = term.weight or (0 if term.anti else self.hard_affinity_weight)
            if weight:
                add(term, weight, self._held[term])
        return liked or None

    def scores(self, prepared: dict[str, Counts], pick: Pick) -> Sequence[float]:
        rows = [[likes.get(domain, 0) for domain in pick(self.cache.domains(key))] for key, likes in prepared.items()]
        return [sum(likes) for likes in zip(*rows, strict=True)]

    def normalize(self, prepared: dict[str, Counts], scores: Sequence[float]) -> Sequence[float]:
        least, most = min(scores), max(scores)
        return [int(SCORE_MAX * (score - least) / (most - least)) if most > least else 0 for score in scores]

    def hint(self, pod: PodInfo, happening: Happening) -> Hint:
        """One that it wants to be near has come; one that kept it away has gone; or domains are others."""
        terms = terms_of(pod.pod)
        if happening.kind is Namespace:
            chosen = any(term.matcher.namespace_selector for term in (*terms.affinity, *terms.anti))
            return Hint.QUEUE if chosen else Hint.SKIP
        if happening.kind is Node:
            if What.ADDED in happening.what:
                return Hint.QUEUE
            changed = dict(happening.old.metadata.labels.items() ^ happening.new.metadata.labels.items())
            keys = {term.topology_key for term in (*terms.affinity, *terms.anti, *self._terms_about(pod.kind))}
            return Hint.SKIP if keys.isdisjoint(changed) else Hint.QUEUE
        come, gone = happening.new, happening.old
        if come is not None and any(self._matches(term.matcher, come.kind) for term in terms.affinity):
            return Hint.AT_ONCE
        if gone is None:
            return Hint.SKIP
        apart = any(self._matches(term.matcher, gone.kind) for term in (*terms.anti, *terms.affinity))
        return Hint.QUEUE if apart or self._is_apart(gone, pod) else Hint.SKIP

    def namespaces_changed(self) -> None:
        """The labels of a namespace are others now."""
        self._topology = -1
        self.cache.tallies.clear()

    def _is_apart(self, other: PodInfo, pod: PodInfo) -> bool:
        """The other wants to be away from it."""
        return any(self._matches(term.matcher, pod.kind) for term in terms_of(other.pod).anti)

    # Counting

    def _matches(self, matcher: Matcher, kind: Kind) -> bool:
        return matcher.matches(kind, self.labels_of)

    def _counts(self, matchers: tuple[Matcher, ...], topology_key: str) -> Counts:
        """By domain: the pods that all of these select."""

        def counts(kind: Kind) -> bool:
            return all(self._matches(matcher, kind) for matcher in matchers)

        selector = matchers[0].selector
        label = certain_label(selector) if selector is not None else None
        asked = (self.name, topology_key, matchers)
        return self.cache.tallies.of(asked, counts, label, self.cache.area(topology_key))

    def _terms_about(self, kind: Kind) -> Sequence[Term]:
        """Of those that pods on nodes hold."""
        if not self._held:
            return ()
        found = self._about.get(kind)
        if found is None:
            if len(self._about) >= TERMS_MAX:
                self._about.clear()
            found = self._about[kind] = [term for term in self._held if self._matches(term.matcher, kind)]
        return found

    def _refresh(self) -> None:
        """Domains are other ones when nodes come, go, or change their labels: then all is counted anew."""
        if self._topology == self.cache.topology:
            return
        self._topology = self.cache.topology
        self._held.clear()
        self._about.clear()
        for pod, node_name in self.cache.pods():
            self._hold(pod, node_name, 1)

    def _changed(self, pod: PodInfo, node_name: str, change: int) -> None:
        if self._topology == self.cache.topology:  # otherwise it will all be counted anew
            self._hold(pod, node_name, change)

    def _hold(self, pod: PodInfo, node_name: str, change: int) -> None:
        for term in terms_of(pod.pod).all:
            domain = self.cache.area(term.topology_key).domain_of.get(node_name)
            if domain is None:
                continue
            held = self._held.get(term)
            if held is None:
                held = self._held[term] = Counter()
                self._about.clear()
            held[domain] += change
            if not held[domain]:
                del held[domain]
                if not held:
                    del self._held[term]
                    self._about.clear()


def terms_of(pod: Pod) -> Terms:
    """What a pod says of others."""
    affinity = pod.spec.affinity if pod.spec else None
    if affinity is None or (affinity.pod_affinity is None and affinity.pod_anti_affinity is None):
        return NO_TERMS
    written = msgspec.json.encode((affinity.pod_affinity, affinity.pod_anti_affinity))
    own = tuple(sorted(pod.metadata.labels.items())) if b"atchLabelKeys" in written else ()
    return _terms(written, pod.metadata.namespace or "", own)


@lru_cache(TERMS_MAX)
def _terms(written: bytes, namespace: str, labels: tuple[tuple[str, str], ...]) -> Terms:
    near, away = msgspec.json.decode(written, type=tuple[PodAffinity | None, PodAntiAffinity | None])
    affinity: list[Term] = []
    anti: list[Term] = []
    preferred: list[Term] = []
    own = dict(labels)
    for side, sign in ((near, 1), (away, -1)):
        if side is None:
            continue
        required = side.required_during_scheduling_ignored_during_execution
        (affinity if sign > 0 else anti).extend(
            Term(_matcher(term, namespace, own), term.topology_key, sign < 0) for term in required
        )
        preferred += (
            Term(_matcher(one.pod_affinity_term, namespace, own), one.pod_affinity_term.topology_key, sign < 0, weight)
            for one in side.preferred_during_scheduling_ignored_during_execution
            if (weight := sign * one.weight)
        )
    return Terms(tuple(affinity), tuple(anti), tuple(preferred))


def _matcher(term: PodAffinityTerm, namespace: str, labels: Mapping[str, str]) -> Matcher:
    """Without namespaces, the pod's own is meant; (mis)matchLabelKeys take the pod's own values (KEP-3633)."""
    namespaces = frozenset(term.namespaces)
    of_namespace = selector_for(term.namespace_selector) if term.namespace_selector is not None else None
    if not namespaces and term.namespace_selector is None:
        namespaces = frozenset((namespace,))
    selector = selector_for(term.label_selector)
    more = [
        Requirement(key, operator, frozenset((labels[key],)))
        for keys, operator in ((term.match_label_keys, Operator.IN), (term.mismatch_label_keys, Operator.NOT_IN))
        for key in keys
        if key in labels
    ]
    if selector is not None and more:
        selector = Selector((*selector.requirements, *more))
    return Matcher(namespaces, of_namespace, selector)
