"""Preemption: pods of lower priority give way to one that fits nowhere.

For each node that could be cured, the fewest and least important pods are found whose going would let the pod in; of
these nodes the one is chosen where least is lost (upstream's DefaultPreemption): fewest broken disruption budgets,
lowest highest priority, smallest sum of priorities, fewest pods, youngest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random

from msgspec import Struct

from knarr.api.core.v1 import Pod
from knarr.api.meta.owners import selector_for
from knarr.api.policy.v1 import PodDisruptionBudget
from knarr.api.selectors import Selector
from knarr.scheduler.cache import Cache, NodeInfo, PodInfo
from knarr.scheduler.choice import Choice

CANDIDATES_MIN = 100
CANDIDATES_PERCENT = 10
"""Nodes looked at: so many candidates are enough."""
PRIORITY_SHIFT = 2**31
"""Makes all priorities positive, so that more victims never sum up to less."""


class Candidate(Struct, frozen=True):
    """A node, and who would have to go from it."""

    node: NodeInfo
    victims: tuple[PodInfo, ...]
    """The most important first."""
    violations: int
    """Of disruption budgets."""


class Budgets:
    """What the disruption budgets of a moment still allow."""

    def __init__(self, budgets: Iterable[PodDisruptionBudget]) -> None:
        self._budgets: list[tuple[PodDisruptionBudget, Selector]] = []
        for budget in budgets:
            selector = selector_for(budget.spec.selector if budget.spec else None)
            if selector is not None:
                self._budgets.append((budget, selector))

    def split(self, pods: Sequence[PodInfo]) -> tuple[list[PodInfo], list[PodInfo]]:
        """Those that would break a budget if all went in this order, and the others."""
        left = {id(budget): _allowed(budget) for budget, _ in self._budgets}
        breaking: list[PodInfo] = []
        free: list[PodInfo] = []
        for pod in pods:
            broken = False
            for budget, selector in self._budgets:
                if _is_about(budget, selector, pod.pod):
                    left[id(budget)] -= 1
                    broken |= left[id(budget)] < 0
            (breaking if broken else free).append(pod)
        return breaking, free


class Preemption:
    """Finds who has to go."""

    def __init__(self, cache: Cache, choice: Choice, random: Random) -> None:
        self._cache = cache
        self._choice = choice
        self._random = random

    def candidates(self, pod: PodInfo, nodes: Sequence[NodeInfo], budgets: Budgets) -> list[Candidate]:
        """Enough of these nodes that pods could be made to leave for it; none when it would not be enough."""
        if not nodes or not self.could_help(pod):
            return []
        enough = max(CANDIDATES_MIN, len(self._cache.nodes) * CANDIDATES_PERCENT // 100)
        begin = self._random.randrange(len(nodes))
        found: list[Candidate] = []
        for node in (*nodes[begin:], *nodes[:begin]):
            candidate = self._on(pod, node, budgets)
            if candidate is not None:
                found.append(candidate)
                if len(found) >= enough:
                    break
        return found

    def could_help(self, pod: PodInfo) -> bool:
        """Some pod has a lower priority."""
        return any(priority < pod.priority for priority in self._cache.priorities)

    def _on(self, pod: PodInfo, node: NodeInfo, budgets: Budgets) -> Candidate | None:
        lower = sorted((each for each in node.pods.values() if each.priority < pod.priority), key=importance)
        if not lower:
            return None
        breaking, free = budgets.split(lower)
        victims: list[PodInfo] = []
        violations = 0
        with self._cache.without(node, lower):
            if not self._choice.fits(pod, node):
                return None
            # Who can stay does; first those whose going would break a budget, the most important first.
            for each in (*breaking, *free):
                self._cache.enter(each, node.name)
                if not self._choice.fits(pod, node):
                    self._cache.leave(each, node.name)
                    victims.append(each)
                    violations += each in breaking
        return Candidate(node, tuple(sorted(victims, key=importance)), violations)


def cheapest(candidates: Iterable[Candidate]) -> Candidate | None:
    """Where least is lost."""
    return min(candidates, key=_cost, default=None)


def importance(pod: PodInfo) -> tuple[int, float, str]:
    """The most important first: by priority, then who runs longer."""
    return -pod.priority, _started_s(pod.pod), pod.key


def _started_s(pod: Pod) -> float:
    started = (pod.status.start_time if pod.status else None) or pod.metadata.creation_timestamp
    return started.timestamp() if started else float("inf")


def _cost(candidate: Candidate) -> tuple[float, ...]:
    highest = max((victim.priority for victim in candidate.victims), default=-PRIORITY_SHIFT)
    total = sum(victim.priority + PRIORITY_SHIFT for victim in candidate.victims)
    of_highest = [_started_s(victim.pod) for victim in candidate.victims if victim.priority == highest]
    return (candidate.violations, highest, total, len(candidate.victims), -min(of_highest, default=0.0))


def _allowed(budget: PodDisruptionBudget) -> int:
    return (budget.status.disruptions_allowed if budget.status else 0) or 0


def _is_about(budget: PodDisruptionBudget, selector: Selector, pod: Pod) -> bool:
    """A pod whose going was granted already is charged for."""
    if budget.metadata.namespace != pod.metadata.namespace or not selector.matches(pod.metadata.labels):
        return False
    return not (budget.status and pod.metadata.name in budget.status.disrupted_pods)
