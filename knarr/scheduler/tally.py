"""How many of the pods that a selector is about are in each domain of a topology key, kept up to date.

Spreading and pod affinity ask this for every pod that they place. So it is counted once, and then follows the pods that
come and go. Pods are told apart by their *kind*: all that a selector can see of them. Kinds and tallies are indexed by
a label that must have a certain value, so that a thousand applications don't have to be compared with each other.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import NamedTuple

from msgspec import Struct

from knarr.api.selectors import Operator, Selector

TALLIES_MAX = 4096
"""More than this are counted anew when they are needed again."""

Counts = Counter[str]
"""Pods by domain, without the empty ones."""
Label = tuple[str, str]


class Kind(NamedTuple):
    """What selectors see of a pod."""

    namespace: str
    labels: tuple[Label, ...]
    ending: bool
    """On its way out."""


class Area(Struct, frozen=True):
    """The nodes that count, each with its domain."""

    domain_of: Mapping[str, str]
    domains: frozenset[str]


class _Tally(Struct, eq=False):
    matches: Callable[[Kind], bool]
    label: Label | None
    area: Area
    counts: Counts


class Tallies:
    """All that is counted, by the key under which it was asked for."""

    def __init__(self) -> None:
        self._tallies: OrderedDict[Hashable, _Tally] = OrderedDict()
        self._tallies_by_label: defaultdict[Label | None, dict[Hashable, _Tally]] = defaultdict(dict)
        self._places: dict[Kind, Counts] = {}
        """By kind: how many are on each node."""
        self._kinds_by_label: defaultdict[Label, dict[Kind, None]] = defaultdict(dict)
        self._concerned: dict[Kind, list[_Tally]] = {}
        """The tallies that a kind counts for."""

    def of(self, key: Hashable, matches: Callable[[Kind], bool], label: Label | None, area: Area) -> Counts:
        """What `matches` is about, by domain; it can only match pods that have `label`, if that is given."""
        tally = self._tallies.get(key)
        if tally is not None:
            self._tallies.move_to_end(key)
            return tally.counts
        tally = self._tallies[key] = _Tally(matches, label, area, Counter())
        self._tallies_by_label[label][key] = tally
        kinds: Iterable[Kind] = self._places if label is None else self._kinds_by_label.get(label, ())
        for kind in kinds:
            if matches(kind):
                self._concerned[kind].append(tally)
                for node_name, count in self._places[kind].items():
                    _count(tally, node_name, count)
        if len(self._tallies) > TALLIES_MAX:
            self._drop_oldest()
        return tally.counts

    def clear(self) -> None:
        """Domains, or what selectors are compared with, are other ones now."""
        self._tallies.clear()
        self._tallies_by_label.clear()
        for concerned in self._concerned.values():
            concerned.clear()

    def changed(self, kind: Kind, node_name: str, change: int) -> None:
        """Pods of a kind came to a node, or left it."""
        places = self._places.get(kind)
        if places is None:
            places = self._add(kind)
        places[node_name] += change
        if not places[node_name]:
            del places[node_name]
        for tally in self._concerned[kind]:
            _count(tally, node_name, change)
        if not places:
            self._remove(kind)

    def _add(self, kind: Kind) -> Counts:
        for label in kind.labels:
            self._kinds_by_label[label][kind] = None
        self._concerned[kind] = [
            tally
            for label in (None, *kind.labels)
            for tally in self._tallies_by_label.get(label, {}).values()
            if tally.matches(kind)
        ]
        places = self._places[kind] = Counter()
        return places

    def _remove(self, kind: Kind) -> None:
        del self._places[kind], self._concerned[kind]
        for label in kind.labels:
            del self._kinds_by_label[label][kind]
            if not self._kinds_by_label[label]:
                del self._kinds_by_label[label]

    def _drop_oldest(self) -> None:
        key, oldest = self._tallies.popitem(last=False)
        del self._tallies_by_label[oldest.label][key]
        for concerned in self._concerned.values():
            if oldest in concerned:
                concerned.remove(oldest)


def _count(tally: _Tally, node_name: str, change: int) -> None:
    domain = tally.area.domain_of.get(node_name)
    if domain is not None:
        tally.counts[domain] += change
        if not tally.counts[domain]:
            del tally.counts[domain]


def certain_label(selector: Selector) -> Label | None:
    """A label that all pods of a selector have."""
    for requirement in selector.requirements:
        if requirement.operator is Operator.IN and len(requirement.values) == 1:
            return requirement.key, next(iter(requirement.values))
    return None
