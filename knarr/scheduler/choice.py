"""The choice of a node for a pod: filter, score, pick.

Pods that ask for the same (a *class*) share what was found out about each node until the node changes. So after the
first pod of a ReplicaSet each further one costs one node's evaluation and a comparison of numbers. In a large cluster
not every node is looked at: upstream's share of nodes, in turn, is enough to find a good one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import compress
from operator import add, itemgetter
from random import Random
from typing import Any

import msgspec

from knarr.scheduler.cache import Cache, NodeInfo, PodInfo
from knarr.scheduler.framework import Aspect, Barrier, Outside, Pick, Plugin, Refusal, Spanning, Unschedulable

CLASSES_MAX = 16
"""Classes remembered; one keeps a verdict for each node."""
NODES_MIN = 100
"""So many feasible nodes are always looked for."""
SHARE_MIN_PERCENT = 5
STRETCH_MIN = 64
"""Nodes looked at together."""

Checks = Sequence[tuple[Outside, Any]]
"""Plugins that a pod concerns, each with what it prepared."""


class PodClass(msgspec.Struct):
    """Pods that ask for the same, and what their plugins say of each node, by place."""

    filters: list[tuple[Plugin, Any]]
    scorers: list[tuple[Plugin, Any]]
    comparers: list[tuple[Plugin, Any]]
    refusals: list[Refusal | None] = msgspec.field(default_factory=list)
    fits: list[bool] = msgspec.field(default_factory=list)
    scores: list[float] = msgspec.field(default_factory=list)
    compared: list[list[float]] = msgspec.field(default_factory=list)
    """Raw scores of each comparer: they mean something only beside those of other nodes."""
    stale: set[int] = msgspec.field(default_factory=set)
    """To be judged when they are looked at."""
    change: int = -1
    """Of the cache: so far this is up to date."""

    def refresh(self, cache: Cache) -> None:
        """Forget what is no longer true."""
        changed = cache.changed_since(self.change)
        self.change = cache.change
        if changed is not None:
            self.stale.update(changed)
        nodes = len(cache.nodes)
        if changed is None or len(self.fits) < nodes:
            known = len(self.fits) if changed is not None else 0
            self.refusals[known:] = [None] * (nodes - known)
            self.fits[known:] = [False] * (nodes - known)
            self.scores[known:] = [0.0] * (nodes - known)
            self.compared = self.compared or [[] for _ in self.comparers]
            for row in self.compared:
                row[known:] = [0.0] * (nodes - known)
            self.stale.update(range(known, nodes))

    def judge(self, places: Iterable[int], nodes: Sequence[NodeInfo]) -> None:
        for place in places:
            node = nodes[place]
            refusal = self.refusals[place] = self.refusal_of(node)
            self.fits[place] = refusal is None
            if refusal is None:
                self.scores[place] = sum(plugin.weight * plugin.score(prep, node) for plugin, prep in self.scorers)
                for row, (plugin, prepared) in zip(self.compared, self.comparers, strict=True):
                    row[place] = plugin.score(prepared, node)
        self.stale.difference_update(places)

    def refusal_of(self, node: NodeInfo) -> Refusal | None:
        for plugin, prepared in self.filters:
            refusal = plugin.filter(prepared, node)
            if refusal is not None:
                return refusal
        return None


class Choice:
    """Chooses nodes, by all plugins."""

    def __init__(self, cache: Cache, plugins: Sequence[Aspect], random: Random, nodes_percent: int = 0) -> None:
        self._cache = cache
        self._nodes_percent = nodes_percent
        self._local = [plugin for plugin in plugins if isinstance(plugin, Plugin)]
        self._spanning = [plugin for plugin in plugins if isinstance(plugin, Spanning)]
        self._outside = [plugin for plugin in plugins if isinstance(plugin, Outside)]
        self._random = random
        self._classes: OrderedDict[bytes, PodClass] = OrderedDict()
        self._begin = 0

    def node_for(self, pod: PodInfo) -> NodeInfo:
        """The best node; the one that others have left for it, if that will do. Raises Unschedulable."""
        nominated = self._cache.get(self._cache.nominated_node(pod.key))
        if nominated is not None and self.fits(pod, nominated):
            return nominated
        nodes, found = self._cache.nodes, self._found(pod)
        return nodes[found[0] if len(found) == 1 else self._best(pod, self._class_of(pod), found)]

    def feasible(self, pod: PodInfo) -> list[NodeInfo]:
        """Enough nodes that will do, for others to choose from. Raises Unschedulable."""
        return [self._cache.nodes[place] for place in self._found(pod)]

    def best_of(self, pod: PodInfo, nodes: Sequence[NodeInfo], liked: Mapping[str, float]) -> NodeInfo | None:
        """The best of nodes that would do a moment ago, when some of them are liked by others too."""
        places = [node.place for node in nodes if node.place >= 0 and self.fits(pod, node)]
        if not places:
            return None
        pod_class = self._class_of(pod)
        pod_class.refresh(self._cache)
        pod_class.judge([place for place in places if place in pod_class.stale], self._cache.nodes)
        extra = [liked.get(self._cache.nodes[place].name, 0) for place in places]
        return self._cache.nodes[places[0] if len(places) == 1 else self._best(pod, pod_class, places, extra)]

    @property
    def nodes(self) -> int:
        return len(self._cache.nodes)

    def refusals(self, pod: PodInfo, others: Mapping[str, Refusal]) -> list[tuple[NodeInfo, Refusal]]:
        """Why nodes will not do, as far as that is known."""
        found = ((node, self._refusal(pod, node) or others.get(node.name)) for node in self._cache.nodes)
        return [(node, refusal) for node, refusal in found if refusal is not None]

    def _found(self, pod: PodInfo) -> list[int]:
        """Places of nodes that will do. Raises Unschedulable."""
        nodes = self._cache.nodes
        checks = self._checks(pod)
        for _, prepared in checks:
            if isinstance(prepared, Refusal):
                raise Unschedulable([(node, prepared) for node in nodes], len(nodes), whole=True)
        pod_class = self._class_of(pod)
        pod_class.refresh(self._cache)
        barriers = self._barriers(pod)
        places = self._feasible(pod, pod_class, checks, barriers)
        if not places:
            raise Unschedulable(self._refusals(pod, pod_class, checks, barriers), len(nodes))
        return places

    def fits(self, pod: PodInfo, node: NodeInfo) -> bool:
        """Whether one node would do."""
        return self.refusal_on(pod, node) is None

    def refusal_on(self, pod: PodInfo, node: NodeInfo) -> Refusal | None:
        """Why one node would not do."""
        return self._refusal(pod, node) or self._refused_for_others(pod, node)

    def _feasible(self, pod: PodInfo, pod_class: PodClass, checks: Checks, barriers: Sequence[Barrier]) -> list[int]:
        """Places of enough nodes that will do, from where the last search ended."""
        nodes = self._cache.nodes
        enough = _enough(len(nodes), self._nodes_percent)
        place = self._begin % len(nodes) if nodes and enough < len(nodes) else 0
        found: list[int] = []
        left = len(nodes)
        while left and len(found) < enough:
            end = min(place + max(enough - len(found), STRETCH_MIN), place + left, len(nodes))
            found += self._feasible_between(place, end, pod, pod_class, checks, barriers)
            left -= end - place
            place = end % len(nodes)
        if len(found) > enough:
            del found[enough:]
            place = found[-1] + 1
        self._begin = place
        return found

    def _feasible_between(
        self, begin: int, end: int, pod: PodInfo, pod_class: PodClass, checks: Checks, barriers: Sequence[Barrier]
    ) -> list[int]:
        nodes, stale = self._cache.nodes, pod_class.stale
        if stale:
            few = stale if len(stale) < end - begin else range(begin, end)
            pod_class.judge([place for place in few if place in stale and begin <= place < end], nodes)
        places = list(compress(range(begin, end), pod_class.fits[begin:end]))
        for barrier in barriers:
            domains, refuses = self._cache.domains(barrier.key), barrier.refuses
            if barrier.missing is None:
                places = [place for place in places if (domain := domains[place]) is None or not refuses(domain)]
            else:
                places = [place for place in places if (domain := domains[place]) is not None and not refuses(domain)]
        if checks:
            places = [place for place in places if _checked(nodes[place], checks) is None]
        if self._cache.waited_for():
            places = [place for place in places if self._refused_for_others(pod, nodes[place]) is None]
        return places

    def _refusals(
        self, pod: PodInfo, pod_class: PodClass, checks: Checks, barriers: Sequence[Barrier]
    ) -> list[tuple[NodeInfo, Refusal]]:
        """Why none of the nodes will do."""
        found = []
        for node, refusal in zip(self._cache.nodes, pod_class.refusals, strict=True):
            refusal = refusal or _checked(node, checks) or self._barred(node, barriers)
            refusal = refusal or self._refused_for_others(pod, node)
            assert refusal is not None
            found.append((node, refusal))
        return found

    def _refusal(self, pod: PodInfo, node: NodeInfo) -> Refusal | None:
        refusal = self._class_of(pod).refusal_of(node) or _checked(node, self._checks(pod))
        return refusal or self._barred(node, self._barriers(pod))

    def refusal_alone(self, pod: PodInfo, node: NodeInfo) -> Refusal | None:
        """Why a node would not do, be it one that is only thought of, as far as that depends on nothing else."""
        return self._class_of(pod).refusal_of(node)

    def is_alone(self, pod: PodInfo) -> bool:
        """Nothing but a node and its pods decides whether the pod fits there, and it only gets easier when pods go."""
        return pod.solitary and not self._barriers(pod) and not self._checks(pod)

    def likeness(self, pod: PodInfo) -> Hashable | None:
        """Pods that have the same fit the same nodes; None for one that is like no other."""
        if not pod.solitary or self._cache.nominated_node(pod.key):
            return None
        return signature_of(pod), pod.priority, pod.kind

    def _checks(self, pod: PodInfo) -> Checks:
        return [(plugin, prepared) for plugin in self._outside if (prepared := plugin.prepare(pod)) is not None]

    def _barriers(self, pod: PodInfo) -> list[Barrier]:
        return [barrier for plugin in self._spanning if plugin.filters for barrier in plugin.barriers(pod)]

    def _barred(self, node: NodeInfo, barriers: Sequence[Barrier]) -> Refusal | None:
        for barrier in barriers:
            refusal = barrier.refusal_of(self._cache.domains(barrier.key)[node.place])
            if refusal is not None:
                return refusal
        return None

    def _refused_for_others(self, pod: PodInfo, node: NodeInfo) -> Refusal | None:
        """Whether there would be no room left for pods of higher priority for which others had to go from the node."""
        expected = self._cache.expected(node.name, pod)
        if not expected:
            return None
        if all(each.solitary for each in expected) and self.is_alone(pod):
            thought = node.thought()
            for each in expected:
                thought.add(each)
            return self.refusal_alone(pod, thought)
        with self._cache.along_with(node, expected):
            return self._refusal(pod, node)

    def _best(
        self, pod: PodInfo, pod_class: PodClass, places: Sequence[int], extra: Sequence[float] | None = None
    ) -> int:
        pick: Pick = itemgetter(*places)
        totals = pick(pod_class.scores)
        if extra is not None:
            totals = list(map(add, totals, extra))
        for row, (plugin, prepared) in zip(pod_class.compared, pod_class.comparers, strict=True):
            totals = _with_compared(totals, plugin, prepared, pick(row))
        for spanning in self._spanning:
            prepared = spanning.prepare_score(pod) if spanning.weight else None
            if prepared is not None:
                totals = _with_compared(totals, spanning, prepared, spanning.scores(prepared, pick))
        best = max(totals)
        return self._random.choice(list(compress(places, map(best.__eq__, totals))))

    def _class_of(self, pod: PodInfo) -> PodClass:
        signature = signature_of(pod)
        pod_class = self._classes.get(signature)
        if pod_class is not None:
            self._classes.move_to_end(signature)
            return pod_class
        filters = [(p, prepared) for p in self._local if p.filters and (prepared := p.prepare(pod)) is not None]
        scoring = [(p, prepared) for p in self._local if p.weight and (prepared := p.prepare_score(pod)) is not None]
        pod_class = self._classes[signature] = PodClass(
            filters,
            [(plugin, prepared) for plugin, prepared in scoring if not plugin.comparing],
            [(plugin, prepared) for plugin, prepared in scoring if plugin.comparing],
        )
        if len(self._classes) > CLASSES_MAX:
            self._classes.popitem(last=False)
        return pod_class


def _checked(node: NodeInfo, checks: Checks) -> Refusal | None:
    for plugin, prepared in checks:
        refusal = prepared if isinstance(prepared, Refusal) else plugin.filter(prepared, node)
        if refusal is not None:
            return refusal
    return None


def _with_compared(totals: Sequence[float], plugin: Aspect, prepared: Any, scores: Sequence[float]) -> Sequence[float]:
    different = list(set(scores))
    if len(different) == 1:
        return totals  # it makes no difference
    weighted = [plugin.weight * score for score in plugin.normalize(prepared, different)]
    return list(map(add, totals, map(dict(zip(different, weighted, strict=True)).__getitem__, scores)))


def _enough(nodes: int, percent: int) -> int:
    """How many feasible nodes are enough (percentageOfNodesToScore; without one, upstream's adaptive share)."""
    percent = percent or max(50 - nodes // 125, SHARE_MIN_PERCENT)
    return max(NODES_MIN, nodes * percent // 100)


def signature_of(pod: PodInfo) -> bytes:
    """All that local plugins look at."""
    if pod.signature is None:
        pod.signature = _signature(pod)
    return pod.signature


def _signature(pod: PodInfo) -> bytes:
    spec = pod.pod.spec
    assert spec is not None
    images = [container.image for container in (*spec.containers, *spec.init_containers)]
    return msgspec.json.encode(
        (
            spec.node_name,
            spec.node_selector,
            spec.affinity and spec.affinity.node_affinity,
            spec.tolerations,
            pod.requests,
            pod.cpu,
            pod.memory,
            pod.ports,
            images,
        )
    )
