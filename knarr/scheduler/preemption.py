"""Preemption: pods of lower priority give way to one that fits nowhere.

For each node that could be cured, the fewest and least important pods are found whose going would let the pod in; of
these nodes the one is chosen where least is lost (upstream's DefaultPreemption): fewest broken disruption budgets,
lowest highest priority, smallest sum of priorities, fewest pods, youngest.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from operator import is_
from random import Random

from msgspec import Struct

from knarr.api.core.v1 import Pod
from knarr.api.meta.owners import selector_for
from knarr.api.policy.v1 import PodDisruptionBudget
from knarr.api.selectors import Selector
from knarr.scheduler.cache import Cache, NodeInfo, PodInfo
from knarr.scheduler.choice import Choice, signature_of

CANDIDATES_MIN = 100
CANDIDATES_PERCENT = 10
"""Nodes looked at: so many candidates are enough."""
LIKENESSES_MAX = 16
"""Kinds of pods for which the thoughts about each node are remembered."""
PRIORITY_SHIFT = 2**31
"""Makes all priorities positive, so that more victims never sum up to less."""


class Candidate(Struct, frozen=True):
    """A node, and who would have to go from it."""

    node: NodeInfo
    victims: tuple[PodInfo, ...]
    """The most important first."""
    violations: int
    """Of disruption budgets."""


class _Thought(Struct, frozen=True):
    """What came of a node for pods that are alike, and all that this depends on."""

    about: tuple[object, ...]
    candidate: Candidate | None


class Budgets:
    """What the disruption budgets of a moment still allow."""

    def __init__(self, budgets: Iterable[PodDisruptionBudget]) -> None:
        self._budgets: list[tuple[PodDisruptionBudget, Selector]] = []
        for budget in budgets:
            selector = selector_for(budget.spec.selector if budget.spec else None)
            if selector is not None:
                self._budgets.append((budget, selector))

    @property
    def all(self) -> list[PodDisruptionBudget]:
        return [budget for budget, _ in self._budgets]

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
        self._thoughts: OrderedDict[Hashable, dict[str, _Thought]] = OrderedDict()
        self._budgets: list[PodDisruptionBudget] = []
        """That these were thought with."""

    def candidates(self, pod: PodInfo, nodes: Sequence[NodeInfo], budgets: Budgets) -> list[Candidate]:
        """Enough of these nodes that pods could be made to leave for it; none when it would not be enough."""
        if not nodes or not self.could_help(pod):
            return []
        enough = max(CANDIDATES_MIN, len(self._cache.nodes) * CANDIDATES_PERCENT // 100)
        begin = self._random.randrange(len(nodes))
        alone = self._choice.is_alone(pod)
        thoughts = self._thoughts_about(pod, budgets) if alone else {}
        found: list[Candidate] = []
        harmless = False
        for node in (*nodes[begin:], *nodes[:begin]):
            candidate = self._remembered(pod, node, budgets, thoughts) if alone else self._on(pod, node, budgets)
            if candidate is not None:
                found.append(candidate)
                harmless |= not candidate.violations
                if harmless and len(found) >= enough:
                    break
        return found

    def could_help(self, pod: PodInfo) -> bool:
        """Some pod has a lower priority."""
        return any(priority < pod.priority for priority in self._cache.priorities)

    def _thoughts_about(self, pod: PodInfo, budgets: Budgets) -> dict[str, _Thought]:
        if not _are_same(self._budgets, budgets.all):
            self._thoughts.clear()
            self._budgets = budgets.all
        likeness = signature_of(pod), pod.priority
        found = self._thoughts.setdefault(likeness, {})
        self._thoughts.move_to_end(likeness)
        if len(self._thoughts) > LIKENESSES_MAX:
            self._thoughts.popitem(last=False)
        return found

    def _remembered(
        self, pod: PodInfo, node: NodeInfo, budgets: Budgets, thoughts: dict[str, _Thought]
    ) -> Candidate | None:
        """For the pods of a burst that are alike, a node is thought about once, until something there changes."""
        expected = self._cache.expected(node.name, pod)
        if not all(each.solitary for each in expected):
            return self._on(pod, node, budgets)
        about = (node.node, *[each.pod for each in node.pods.values()], *expected)
        thought = thoughts.get(node.name)
        if thought is None or not _are_same(thought.about, about):
            candidate = self._on(pod, node, budgets, expected)
            thought = thoughts[node.name] = _Thought(about, candidate)
        return thought.candidate

    def _on(
        self, pod: PodInfo, node: NodeInfo, budgets: Budgets, alone_with: Sequence[PodInfo] | None = None
    ) -> Candidate | None:
        """With `alone_with` nothing matters but the node, its pods and those that are expected there."""
        lower = sorted((each for each in node.pods.values() if each.priority < pod.priority), key=importance)
        if not lower:
            return None
        breaking, free = budgets.split(lower)
        if alone_with is not None:
            going = self._going_alone(pod, node, alone_with, lower, (*breaking, *free))
        else:
            going = self._going(pod, node, lower, (*breaking, *free))
        if going is None:
            return None
        violations = sum(each in breaking for each in going) if breaking else 0
        return Candidate(node, tuple(sorted(going, key=importance)), violations)

    def _going(
        self, pod: PodInfo, node: NodeInfo, lower: Sequence[PodInfo], spared: Sequence[PodInfo]
    ) -> list[PodInfo] | None:
        """Who has to go. Who can stay does: first those whose going would break a budget, the most important first."""
        going: list[PodInfo] = []
        with self._cache.without(node, lower):
            if not self._choice.fits(pod, node):
                return None
            for each in spared:
                self._cache.enter(each, node.name)
                if not self._choice.fits(pod, node):
                    self._cache.leave(each, node.name)
                    going.append(each)
        return going

    def _going_alone(
        self,
        pod: PodInfo,
        node: NodeInfo,
        expected: Sequence[PodInfo],
        lower: Sequence[PodInfo],
        spared: Sequence[PodInfo],
    ) -> list[PodInfo] | None:
        """The same on a copy of the node, for a pod that nothing else matters to. Nobody has to be told of that."""
        thought = node.thought()
        for each in expected:
            thought.add(each)
        for each in lower:
            thought.remove(each.key)
        if self._choice.refusal_alone(pod, thought) is not None:
            return None
        going: list[PodInfo] = []
        for each in spared:
            thought.add(each)
            if self._choice.refusal_alone(pod, thought) is not None:
                thought.remove(each.key)
                going.append(each)
        return going


def _are_same(left: Sequence[object], right: Sequence[object]) -> bool:
    """The very same objects: what comes from the caches is replaced when it changes."""
    return len(left) == len(right) and all(map(is_, left, right))


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
