"""The choice of a node for a pod: filter, score, pick.

Pods that ask for the same (a *class*) share what was found out about each node until the node changes. So after the
first pod of a ReplicaSet each further one costs one node's evaluation and a comparison of numbers. In a large cluster
not every node is looked at: upstream's share of nodes, in turn, is enough to find a good one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from random import Random
from typing import Any

import msgspec

from knarr.scheduler.cache import Cache, NodeInfo, PodInfo
from knarr.scheduler.framework import Plugin, Refusal, Unschedulable

CLASSES_MAX = 16
"""Classes remembered; one keeps a verdict for each node."""
NODES_MIN = 100
"""So many feasible nodes are always looked for."""
SHARE_MIN_PERCENT = 5


class Verdict(msgspec.Struct):
    """What a class's local plugins say of a node, as of its generation."""

    generation: int
    refusal: Refusal | None
    score: float = 0.0
    compared: tuple[float, ...] = ()
    """Raw scores that mean something only beside those of other nodes."""


class PodClass(msgspec.Struct):
    """Pods that ask for the same."""

    filters: list[tuple[Plugin, Any]]
    scorers: list[tuple[Plugin, Any]]
    comparers: list[tuple[Plugin, Any]]
    verdicts: dict[str, Verdict] = msgspec.field(default_factory=dict)


class Choice:
    """Chooses nodes, by all plugins."""

    def __init__(self, cache: Cache, plugins: Sequence[Plugin], random: Random) -> None:
        self._cache = cache
        self._local = [plugin for plugin in plugins if plugin.local]
        self._global = [plugin for plugin in plugins if not plugin.local]
        self._random = random
        self._classes: OrderedDict[bytes, PodClass] = OrderedDict()
        self._begin = 0

    def node_for(self, pod: PodInfo) -> NodeInfo:
        """The best node. Raises Unschedulable."""
        nodes = self._cache.nodes
        pod_class = self._class_of(pod)
        filters = [(p, prepared) for p in self._global if p.filters and (prepared := p.prepare(pod)) is not None]
        enough = _enough(len(nodes))
        feasible: list[NodeInfo] = []
        verdicts: list[Verdict] = []
        refusals: list[tuple[NodeInfo, Refusal]] = []
        known = pod_class.verdicts
        seen = 0
        begin = self._begin % len(nodes) if nodes else 0
        for node in (*nodes[begin:], *nodes[:begin]) if enough < len(nodes) else nodes:
            seen += 1
            verdict = known.get(node.name)
            if verdict is None or verdict.generation != node.generation:
                verdict = known[node.name] = _judge(pod_class, node)
            refusal = verdict.refusal
            if refusal is None:
                for plugin, prepared in filters:
                    refusal = plugin.filter(prepared, node)
                    if refusal is not None:
                        break
            if refusal is None:
                refusal = self._refused_for_others(pod, node)
            if refusal is not None:
                refusals.append((node, refusal))
                continue
            feasible.append(node)
            verdicts.append(verdict)
            if len(feasible) >= enough:
                break
        self._begin = begin + seen
        if not feasible:
            raise Unschedulable(refusals, len(nodes))
        if len(feasible) == 1:
            return feasible[0]
        return self._best(pod, pod_class, feasible, verdicts)

    def fits(self, pod: PodInfo, node: NodeInfo) -> bool:
        """Whether one node would do."""
        return self._refusal(pod, node) is None and self._refused_for_others(pod, node) is None

    def _refusal(self, pod: PodInfo, node: NodeInfo) -> Refusal | None:
        refusal = _judge(self._class_of(pod), node).refusal
        if refusal is not None:
            return refusal
        for plugin in self._global:
            prepared = plugin.prepare(pod) if plugin.filters else None
            refusal = plugin.filter(prepared, node) if prepared is not None else None
            if refusal is not None:
                return refusal
        return None

    def _refused_for_others(self, pod: PodInfo, node: NodeInfo) -> Refusal | None:
        """Whether there would be no room left for pods of higher priority for which others had to go from the node."""
        expected = self._cache.expected(node.name, pod)
        if not expected:
            return None
        with self._cache.along_with(node, expected):
            return self._refusal(pod, node)

    def _best(
        self, pod: PodInfo, pod_class: PodClass, feasible: Sequence[NodeInfo], verdicts: Sequence[Verdict]
    ) -> NodeInfo:
        totals = [verdict.score for verdict in verdicts]
        for place, (plugin, prepared) in enumerate(pod_class.comparers):
            _add_compared(totals, plugin, prepared, [verdict.compared[place] for verdict in verdicts])
        for plugin in self._global:
            prepared = plugin.prepare_score(pod) if plugin.weight else None
            if prepared is not None:
                score = plugin.score
                _add_compared(totals, plugin, prepared, [score(prepared, node) for node in feasible])
        best = max(totals)
        return feasible[self._random.choice([place for place, total in enumerate(totals) if total == best])]

    def _class_of(self, pod: PodInfo) -> PodClass:
        signature = _signature(pod)
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


def _judge(pod_class: PodClass, node: NodeInfo) -> Verdict:
    for plugin, prepared in pod_class.filters:
        refusal = plugin.filter(prepared, node)
        if refusal is not None:
            return Verdict(node.generation, refusal)
    return Verdict(
        node.generation,
        None,
        sum(plugin.weight * plugin.score(prepared, node) for plugin, prepared in pod_class.scorers),
        tuple(plugin.score(prepared, node) for plugin, prepared in pod_class.comparers),
    )


def _add_compared(totals: list[float], plugin: Plugin, prepared: Any, scores: list[float]) -> None:
    if max(scores) == min(scores):
        return  # it makes no difference
    weight = plugin.weight
    for place, score in enumerate(plugin.normalize(prepared, scores)):
        totals[place] += weight * score


def _enough(nodes: int) -> int:
    """How many feasible nodes are enough (upstream's adaptive percentageOfNodesToScore)."""
    percent = max(50 - nodes // 125, SHARE_MIN_PERCENT)
    return max(NODES_MIN, nodes * percent // 100)


def _signature(pod: PodInfo) -> bytes:
    """All that local plugins look at."""
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
