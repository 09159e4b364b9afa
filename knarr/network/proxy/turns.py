"""Whose turn is it: counters in the kernel by which services take their endpoints one after the other.

A chain `turn-<protocol>-<endpoints>-<number>` counts the connections that pass it and leads each to the next endpoint
of its service. A service borrows such a chain for as long as it has that many endpoints, so that no two services share
a counter: with a shared one, a client that asks two services alternately would always meet the same endpoints. Chains
are made a few at a time and kept for whoever needs one next; what is left to change for a service is then a few
elements of maps. Beyond COUNTERS_MAX services with the same number of endpoints, the next ones share a chain that
chooses at random.
"""

from __future__ import annotations

import heapq
from collections import Counter

from msgspec import Struct, field

COUNTERS_MAX = 256
"""For each number of endpoints."""
SPARE = 8
"""Made at once when none is left."""
READY_MADE = 4
"""Up to so many endpoints, chains for TCP are there from the start: to make one takes far longer than all the rest."""

Borrower = tuple[str, str, bool]
"""A service port's name, its protocol, and whether it is about this node's endpoints only."""


class Chain(Struct, frozen=True):
    """A chain that leads to one of a number of endpoints."""

    protocol: str
    local: bool
    """It is about this node's endpoints."""
    endpoints: int
    number: int
    """Which of its kind; SHARED for the one that chooses at random."""

    @property
    def name(self) -> str:
        kind = ("local-" if self.local else "") + ("random" if self.number == SHARED else "turn")
        return f"{kind}-{self.protocol}-{self.endpoints}" + ("" if self.number == SHARED else f"-{self.number}")

    @property
    def first(self) -> Chain:
        """The one that always leads to the first endpoint."""
        return Chain(self.protocol, self.local, 1, 0)


SHARED = -1


class _Counters(Struct):
    """The chains for one number of endpoints."""

    made: int = 0
    free: list[int] = field(default_factory=list)
    """The smallest number goes first, so that an idle chain is met again soon."""


class Turns:
    """Who has which chain."""

    def __init__(self) -> None:
        self._counters: dict[tuple[str, bool, int], _Counters] = {}
        """By protocol, whether it is about this node's endpoints only, and their number."""
        self._borrowed: dict[Borrower, Chain] = {}
        self._known: set[Chain] = set()
        self._new: list[Chain] = []
        for count in range(1, READY_MADE + 1):
            borrower = ("", "tcp", False)
            self.chain(borrower, count)
            self.give_back(borrower)

    def chain(self, borrower: Borrower, endpoints: int) -> Chain:
        """The chain of a service that has `endpoints` of them: the same as before while their number stays."""
        borrowed = self._borrowed.get(borrower)
        if borrowed is None or borrowed.endpoints != endpoints:
            self.give_back(borrower)
            _, protocol, local = borrower
            borrowed = self._borrowed[borrower] = self._take(protocol, local, endpoints)
        return borrowed

    def give_back(self, borrower: Borrower) -> None:
        chain = self._borrowed.pop(borrower, None)
        if chain is not None and chain.number != SHARED and chain.endpoints > 1:
            heapq.heappush(self._counters[chain.protocol, chain.local, chain.endpoints].free, chain.number)

    def prepare(self) -> None:
        """Have chains for services that get an endpoint more or one less: while the maps are empty they cost little."""
        borrowers = Counter((each.protocol, each.local, each.endpoints) for each in self._borrowed.values())
        for (protocol, local, endpoints), count in borrowers.items():
            for near in (endpoints - 1, endpoints + 1):
                if near > 1:
                    self._make(protocol, local, near, count)

    def new_chains(self) -> list[Chain]:
        """Chains that are wanted and were not told yet: the caller makes them."""
        new, self._new = self._new, []
        return new

    def _take(self, protocol: str, local: bool, endpoints: int) -> Chain:
        if endpoints == 1:
            return self._told(Chain(protocol, local, 1, 0))  # there is nothing to count: one for all
        counters = self._counters.setdefault((protocol, local, endpoints), _Counters())
        if not counters.free:
            if counters.made >= COUNTERS_MAX:
                return self._told(Chain(protocol, local, endpoints, SHARED))
            self._make(protocol, local, endpoints, counters.made + SPARE)
        return Chain(protocol, local, endpoints, heapq.heappop(counters.free))

    def _make(self, protocol: str, local: bool, endpoints: int, count: int) -> None:
        """Have `count` chains in all."""
        counters = self._counters.setdefault((protocol, local, endpoints), _Counters())
        for number in range(counters.made, min(count, COUNTERS_MAX)):
            self._told(Chain(protocol, local, endpoints, number))
            heapq.heappush(counters.free, number)
        counters.made = max(counters.made, min(count, COUNTERS_MAX))

    def _told(self, chain: Chain) -> Chain:
        if chain not in self._known:
            if chain != chain.first:
                self._told(chain.first)  # it goes on there
            self._known.add(chain)
            self._new.append(chain)
        return chain
