"""How fast pods may be driven off nodes that fail, zone by zone (upstream's node lifecycle controller).

One node that fails is its own fault; many that fail at once are more likely the network's or ours, and moving all of
their pods would make it worse. So the taint that drives pods out is given to EVICTIONS_PER_S nodes of a zone. Where
most nodes of a zone are not ready it goes slower, or, in a small zone, not at all; and when no node anywhere is ready
it is taken from all: then it is surely we who see nothing.
"""

from __future__ import annotations

from collections import Counter
from enum import Enum

from msgspec import Struct, field

from knarr.api.core.v1 import Node

EVICTIONS_PER_S = 0.1
"""--node-eviction-rate"""
SLOW_EVICTIONS_PER_S = 0.01
"""--secondary-node-eviction-rate, in large zones of which most is lost."""
LARGE_ZONE = 50
"""--large-cluster-size-threshold: zones of more nodes are large."""
UNHEALTHY_PART = 0.55
"""--unhealthy-zone-threshold"""
UNHEALTHY_MIN = 3
"""Fewer nodes than that are no disruption of a zone."""
EXCLUDED = "node.kubernetes.io/exclude-disruption"
"""Nodes with this label are not counted."""
REGIONS = ("topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region")
ZONES = ("topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone")


class State(Enum):
    """Of a zone."""

    NORMAL = "normal"
    PARTIAL = "partially disrupted"
    FULL = "fully disrupted"


def zone_of(node: Node) -> str:
    """Region and zone; all nodes without such labels are one zone."""
    labels = node.metadata.labels
    region, zone = (next((labels[key] for key in keys if key in labels), "") for keys in (REGIONS, ZONES))
    return f"{region}/{zone}"


def state_of(ready: int, not_ready: int) -> State:
    if not ready and not_ready:
        return State.FULL
    lost = not_ready >= UNHEALTHY_MIN and not_ready / (ready + not_ready) >= UNHEALTHY_PART
    return State.PARTIAL if lost else State.NORMAL


def rate_per_s(state: State, size: int) -> float:
    """A zone that is lost altogether while others live is a real loss: its pods move at the normal rate."""
    if state is State.PARTIAL:
        return SLOW_EVICTIONS_PER_S if size > LARGE_ZONE else 0.0
    return EVICTIONS_PER_S


class Limit(Struct):
    """One eviction at a time, then a pause."""

    rate_per_s: float = EVICTIONS_PER_S
    free_s: float = 0.0
    """The next is allowed then."""

    def left_s(self, now_s: float) -> float | None:
        """Seconds until one is allowed; None while none is."""
        return max(0.0, self.free_s - now_s) if self.rate_per_s else None

    def take(self, now_s: float) -> None:
        self.free_s = now_s + 1 / self.rate_per_s

    def change(self, rate_per_s: float, now_s: float) -> None:
        """Who waits now goes on waiting, by the new rate."""
        if rate_per_s == self.rate_per_s:
            return
        waiting = self.left_s(now_s) != 0.0
        self.rate_per_s = rate_per_s
        if waiting and rate_per_s:
            self.take(now_s)


class Zones(Struct):
    """Which nodes are ready, by zone, and how fast each zone may be evicted."""

    all_lost: bool = False
    """No node anywhere is ready."""
    _nodes: dict[str, tuple[str, bool]] = field(default_factory=dict)
    """Node → zone, ready."""
    _counts: Counter[tuple[str, bool]] = field(default_factory=Counter)
    _limits: dict[str, Limit] = field(default_factory=dict)
    _changed: bool = False

    def note(self, name: str, node: Node | None, ready: bool) -> None:
        """A node as it is now; None when it is gone."""
        now = (zone_of(node), ready) if node is not None and EXCLUDED not in node.metadata.labels else None
        before = self._nodes.get(name)
        if now == before:
            return
        self._changed = True
        if before is not None:
            self._counts[before] -= 1
            del self._nodes[name]
        if now is not None:
            self._counts[now] += 1
            self._nodes[name] = now

    def settle(self, now_s: float) -> bool:
        """Bring rates up to what was noted; whether something changed by which nodes must be looked at again."""
        if not self._changed:
            return False
        self._changed = False
        states: dict[str, tuple[State, int]] = {}
        for zone in sorted({zone for (zone, _), count in self._counts.items() if count}):
            ready, not_ready = self._counts[zone, True], self._counts[zone, False]
            states[zone] = state_of(ready, not_ready), ready + not_ready
        all_lost = bool(states) and all(state is State.FULL for state, _ in states.values())
        before = self.all_lost, {zone: limit.rate_per_s for zone, limit in self._limits.items()}
        self.all_lost = all_lost
        for zone, (state, size) in states.items():
            self._limit(zone).change(0.0 if all_lost else rate_per_s(state, size), now_s)
        return before != (all_lost, {zone: limit.rate_per_s for zone, limit in self._limits.items()})

    def limit_of(self, node: Node) -> Limit:
        return self._limit(zone_of(node))

    def _limit(self, zone: str) -> Limit:
        return self._limits.setdefault(zone, Limit())
