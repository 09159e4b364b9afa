"""The shape of the scheduler's plugins, and what it says when no node will do.

A plugin looks at one aspect. `prepare` reads the pod once and answers what it has to know later, or None when the pod
asks nothing of this aspect; then the plugin is left out. `filter` says why a node will not do, `score` how good it is
(0 to SCORE_MAX), `normalize` brings raw scores into that range when only their comparison means something.

A plugin is *local* when its answer depends on the pod and on the node alone, not on other nodes. Local answers are
remembered until the node changes, and shared by pods that ask for the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

from msgspec import Struct

from knarr.scheduler.cache import Cache, NodeInfo, PodInfo

SCORE_MAX = 100


class Refusal(Struct, frozen=True):
    """Why a node will not do."""

    plugin: str
    reasons: tuple[str, ...]
    curable: bool = True
    """Pods leaving the node could change it."""


class Plugin:
    """One aspect of the choice of a node. Answers must depend on nothing but the arguments and the cache."""

    name: ClassVar[str] = ""
    weight: ClassVar[int] = 0
    """Of its score; 0 when it doesn't score."""
    local: ClassVar[bool] = True
    filters: ClassVar[bool] = True
    comparing: ClassVar[bool] = False
    """Its raw scores go through `normalize`."""
    spans: ClassVar[bool] = False
    """What happens on one node can change its answer for others."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache

    def prepare(self, pod: PodInfo) -> Any:
        """What `filter` will need; None when every node will do."""
        return None

    def prepare_score(self, pod: PodInfo) -> Any:
        """What `score` will need; None when all nodes are equal to it."""
        return None

    def filter(self, prepared: Any, node: NodeInfo) -> Refusal | None:
        return None

    def score(self, prepared: Any, node: NodeInfo) -> float:
        return 0

    def normalize(self, prepared: Any, scores: Sequence[float]) -> Sequence[float]:
        return scores


class Unschedulable(Exception):
    """No node will do. The messages are upstream's, word for word."""

    def __init__(self, refusals: Sequence[tuple[NodeInfo, Refusal]], nodes: int) -> None:
        self.plugins = frozenset(refusal.plugin for _, refusal in refusals)
        self.curable = [node for node, refusal in refusals if refusal.curable]
        """Nodes where it would help if pods went."""
        self._nodes = nodes
        self._helpless = len(refusals) - len(self.curable)
        self._reasons = Counter(reason for _, refusal in refusals for reason in refusal.reasons)
        super().__init__(self.message())

    def message(self) -> str:
        """Why, when nobody can give way."""
        preemption = Counter(
            {
                "Preemption is not helpful for scheduling": self._helpless,
                "No preemption victims found for incoming pod": len(self.curable),
            }
        )
        return self.message_with(f"0/{self._nodes} nodes are available: {_counted(+preemption)}.")

    def message_with(self, preemption: str) -> str:
        """Why, and what became of the thought that others could give way ("": they do)."""
        if not self._nodes:
            return "no nodes available to schedule pods"
        refused = f"0/{self._nodes} nodes are available: {_counted(self._reasons)}."
        return f"{refused} no new claims to deallocate, preemption: {preemption}" if preemption else refused


def _counted(reasons: Counter[str]) -> str:
    return ", ".join(sorted(f"{count} {reason}" for reason, count in reasons.items()))


def reversed_by_most(scores: Sequence[float]) -> list[float]:
    """Scores that count what is bad: the most is 0, none is SCORE_MAX."""
    most = max(scores, default=0)
    return [SCORE_MAX] * len(scores) if not most else [SCORE_MAX - int(SCORE_MAX * score / most) for score in scores]


def by_most(scores: Sequence[float]) -> list[float]:
    """Scores that count what is good: the most is SCORE_MAX."""
    most = max(scores, default=0)
    return list(scores) if not most else [int(SCORE_MAX * score / most) for score in scores]
