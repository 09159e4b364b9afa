"""Who is tried again when something happens (KEP-4247).

Only pods are looked at that a plugin refused which is concerned by what happened; its hint decides. When what happened
is about one node, and the pod fits there now, it is tried at once. When it doesn't, for a reason that is known already,
it is left alone: only its other reasons can change that. But when others went from the node for its sake, and it can't
have the room that they left, it is tried again: it looks elsewhere then, and no room is kept for it in vain.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from knarr.api.core.v1 import Node, Pod
from knarr.scheduler.cache import Cache, NodeInfo
from knarr.scheduler.choice import signature_of
from knarr.scheduler.framework import EXTENDER, Plugin, Refusal
from knarr.scheduler.happenings import Happening, Hint, What
from knarr.scheduler.permits import HeldPods
from knarr.scheduler.profile import Framework, profile_of
from knarr.scheduler.queue import SchedulingQueue, Waiting

NO_NODES = "no nodes"
"""In place of a plugin's name, where there was no node to be refused."""

_Answer = tuple[Hint, bool]
"""A hint, and whether it is about more than the one node."""


class Waking:
    """Tells the queue whom something helps."""

    def __init__(
        self, queue: SchedulingQueue, cache: Cache, frameworks: Mapping[str, Framework], permits: HeldPods
    ) -> None:
        self._queue = queue
        self._cache = cache
        self._frameworks = frameworks
        self._permits = permits
        self._concerned: dict[tuple[type[Any], What], frozenset[str]] = {}

    @property
    def kinds(self) -> set[type[Any]]:
        """All that plugins want to hear of, besides nodes and pods."""
        plugins = (plugin for framework in self._frameworks.values() for plugin in framework.plugins.values())
        return {kind for plugin in plugins for kind in plugin.helped_by} - {Node, Pod}

    def happened(self, happening: Happening) -> None:
        concerned = self._concerned_by(happening)
        for held in self._permits.all():
            held.missed |= not concerned.isdisjoint(held.asked)
        known: dict[object, _Answer] = {}
        refusals: dict[object, Refusal | None] = {}
        for waiting in self._queue.refused_by(concerned):
            framework = self._frameworks[profile_of(waiting.pod.pod)]
            hint, wide = self._hint(waiting, framework, concerned, happening, known)
            if happening.node is not None and self._cache.nominated_node(waiting.pod.key) == happening.node.name:
                hint, wide = max(hint, Hint.QUEUE), True
            if hint is Hint.AT_ONCE:
                self._queue.wake(waiting, sure=True)
            elif hint is Hint.QUEUE:
                self._consider(waiting, framework, happening.node, wide, refusals)

    def _consider(
        self,
        waiting: Waiting,
        framework: Framework,
        node: NodeInfo | None,
        wide: bool,
        known: dict[object, Refusal | None],
    ) -> None:
        if node is None or node.node is None:
            self._queue.wake(waiting, sure=False)
            return
        likeness = framework.choice.likeness(waiting.pod)
        key = likeness and (framework, likeness)
        refusal = known[key] if key in known else framework.choice.refusal_on(waiting.pod, node)
        if key:
            known[key] = refusal
        if refusal is None:
            self._queue.wake(waiting, sure=True)
        elif wide or refusal.plugin not in waiting.plugins:
            self._queue.wake(waiting, sure=False)

    def _hint(
        self,
        waiting: Waiting,
        framework: Framework,
        concerned: Collection[str],
        happening: Happening,
        known: dict[object, _Answer],
    ) -> _Answer:
        """Plugins about one node say the same of all pods that ask for the same."""
        key = framework, signature_of(waiting.pod), waiting.plugins
        answer = known.get(key)
        if answer is not None:
            return answer
        hint, wide, alike = Hint.SKIP, False, True
        for name in waiting.plugins:
            if name not in concerned:
                continue
            plugin = framework.plugins.get(name)
            own = plugin.hint(waiting.pod, happening) if plugin is not None else Hint.QUEUE
            hint = max(hint, own)
            if not isinstance(plugin, Plugin):
                alike = False
                wide |= own is not Hint.SKIP
        if alike:
            known[key] = hint, wide
        return hint, wide

    def _concerned_by(self, happening: Happening) -> frozenset[str]:
        kind, what = happening.kind, happening.what
        found = self._concerned.get((kind, what))
        if found is None:
            names = {
                name
                for framework in self._frameworks.values()
                for name, plugin in framework.plugins.items()
                if plugin.helped_by.get(kind, What(0)) & what
            }
            names.add(EXTENDER)  # nothing is known of what helps it
            if kind is Node and What.ADDED in what:
                names.add(NO_NODES)
            found = self._concerned[kind, what] = frozenset(names)
        return found
