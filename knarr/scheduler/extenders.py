"""Extenders: others that have a say in where pods go, after the plugins (KEP-1819).

    filter       of the nodes that will do, those that will do for the extender too
    prioritize   how good each of them is, from 0 to EXTENDER_SCORE_MAX
    preempt      of the nodes that could be cleared for a pod, those where it would help
    bind         writes that a pod is on its node, in place of the bind plugins

Each is asked in its turn, and only about pods that it is interested in. One that fails has the pod tried again later,
unless it may be ignored. While an extender is asked, no other pod is placed, as upstream has it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping, Sequence

from msgspec import Struct, field

from knarr.api.core.v1 import Node, Pod
from knarr.scheduler.cache import NodeInfo, PodInfo
from knarr.scheduler.choice import Choice
from knarr.scheduler.framework import EXTENDER, SCORE_MAX, Refusal, Unschedulable
from knarr.scheduler.preemption import Candidate, importance

EXTENDER_SCORE_MAX = 10

log = logging.getLogger("knarr.scheduler")


class ExtenderFailed(Exception):
    """It could not be asked, or said that it could not do it."""


class Filtered(Struct, frozen=True):
    """What an extender says of nodes."""

    fit: frozenset[str]
    refused: Mapping[str, str] = field(default_factory=dict)
    """Why others will not do."""
    incurable: Mapping[str, str] = field(default_factory=dict)
    """The same, where it would not help if pods went."""


class Victims(Struct, frozen=True):
    """Who would have to go from a node, by uid, and how many disruption budgets that would break."""

    uids: tuple[str, ...]
    violations: int


class Extender:
    """One of them. What it does not do, it leaves out."""

    name = ""
    ignorable = False
    """A pod goes on without it when it fails."""
    weight = 0
    """Of its scores; 0 when it gives none."""
    preempts = False
    binds = False

    def is_interested(self, pod: Pod) -> bool:
        return True

    async def filter(self, pod: Pod, nodes: Sequence[Node]) -> Filtered:
        """All of these raise ExtenderFailed."""
        return Filtered(frozenset(node.metadata.name or "" for node in nodes))

    async def prioritize(self, pod: Pod, nodes: Sequence[Node]) -> Mapping[str, int]:
        return {}

    async def preempt(
        self, pod: Pod, candidates: Mapping[str, Sequence[Pod]], violations: Mapping[str, int]
    ) -> Mapping[str, Victims]:
        """Of nodes with the pods that would have to go: those that will do, perhaps with others to go."""
        raise NotImplementedError

    async def bind(self, pod: Pod, node_name: str) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        """The scheduler ends."""


async def node_for(choice: Choice, pod: PodInfo, extenders: Sequence[Extender]) -> NodeInfo:
    """The best node, as plugins and extenders see it. Raises Unschedulable, ExtenderFailed."""
    left = choice.feasible(pod)
    refusals: dict[str, Refusal] = {}
    for extender in extenders:
        if not left:
            break
        try:
            filtered = await extender.filter(pod.pod, _nodes(left))
        except ExtenderFailed as error:
            if not extender.ignorable:
                raise
            log.info("%s goes on without the extender %s: %s", pod.key, extender.name, error)
            continue
        refusals |= {name: Refusal(EXTENDER, (reason,)) for name, reason in filtered.refused.items()}
        refusals |= {name: Refusal(EXTENDER, (reason,), curable=False) for name, reason in filtered.incurable.items()}
        left = [node for node in left if node.name in filtered.fit]
    liked = await _liked(pod, left, extenders) if len(left) > 1 else {}
    node = choice.best_of(pod, left, liked)
    if node is None:
        raise Unschedulable(choice.refusals(pod, refusals), choice.nodes, also=EXTENDER)
    return node


async def _liked(pod: PodInfo, nodes: Sequence[NodeInfo], extenders: Sequence[Extender]) -> Counter[str]:
    """What the extenders' scores add to those of the plugins; all are asked at once, and may fail."""

    async def ask(extender: Extender) -> Mapping[str, int]:
        try:
            return await extender.prioritize(pod.pod, _nodes(nodes))
        except ExtenderFailed as error:
            log.info("%s: no scores from the extender %s: %s", pod.key, extender.name, error)
            return {}

    asked = [extender for extender in extenders if extender.weight]
    total: Counter[str] = Counter()
    for extender, scores in zip(asked, await asyncio.gather(*map(ask, asked)), strict=True):
        for name, score in scores.items():
            total[name] += score * extender.weight * (SCORE_MAX // EXTENDER_SCORE_MAX)
    return total


async def narrowed(pod: PodInfo, candidates: Sequence[Candidate], extenders: Sequence[Extender]) -> Sequence[Candidate]:
    """The candidates for preemption that the extenders leave. Raises ExtenderFailed."""
    for extender in extenders:
        if not extender.preempts or not candidates:
            continue
        by_name = {candidate.node.name: candidate for candidate in candidates}
        victims = {name: [victim.pod for victim in each.victims] for name, each in by_name.items()}
        try:
            answer = await extender.preempt(pod.pod, victims, {name: each.violations for name, each in by_name.items()})
            candidates = [_candidate(extender, by_name.get(name), name, of) for name, of in answer.items()]
        except ExtenderFailed as error:
            if not extender.ignorable:
                raise
            log.info("%s goes on without the extender %s: %s", pod.key, extender.name, error)
    return candidates


def _candidate(extender: Extender, asked: Candidate | None, name: str, victims: Victims) -> Candidate:
    if asked is None or not victims.uids:
        what = "is not one of those asked about" if asked is None else "would lose no pods"
        raise ExtenderFailed(f'extender "{extender.name}" names the node "{name}", which {what}')
    there = {pod.pod.metadata.uid or "": pod for pod in asked.node.pods.values()}
    for uid in victims.uids:
        if uid not in there:
            about = f"claims to preempt pod (UID: {uid}) on node: {name}, but the pod is not found on that node"
            raise ExtenderFailed(f"extender: {extender.name} {about}")
    gone = tuple(sorted((there[uid] for uid in victims.uids), key=importance))
    return Candidate(asked.node, gone, victims.violations)


async def bound_by(extenders: Sequence[Extender], pod: Pod, node_name: str) -> bool:
    """Whether one of them has bound the pod. Raises ExtenderFailed."""
    for extender in extenders:
        if not extender.binds or not extender.is_interested(pod):
            continue
        try:
            await extender.bind(pod, node_name)
        except ExtenderFailed as error:
            if not extender.ignorable:
                raise
            log.info("%s goes on without the extender %s: %s", pod.metadata.name, extender.name, error)
            continue
        return True
    return False


def _nodes(infos: Sequence[NodeInfo]) -> list[Node]:
    return [info.node for info in infos if info.node is not None]
