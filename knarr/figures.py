"""What the parts of a process count, for whoever reads /metrics.

To count costs an addition; names, labels and text are put together only when somebody reads. A part answers its figures
by a function, and the API server's /metrics (knarr.apiserver.metrics) asks all that it was told of.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any, Literal

from msgspec import Struct


def exponential(start: float, factor: float, count: int) -> tuple[float, ...]:
    """Bounds of buckets, each `factor` times the one before."""
    return tuple(start * factor**number for number in range(count))


class Distribution:
    """How often values fell between bounds (a histogram)."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """By bucket; the last is for what is above all bounds."""
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Each bound with how many values are not above it, as Prometheus wants them."""
        names = [*map(str, map(float, self.bounds)), "+Inf"]
        return list(zip(names, map(float, accumulate(self.counts)), strict=True))


class Figure(Struct, frozen=True):
    """One metric: upstream's name, and a value for each combination of its labels' values."""

    kind: Literal["counter", "gauge", "histogram"]
    name: str
    text: str
    labels: Sequence[str]
    values: Mapping[Any, float | Distribution]
    """By the values of its labels: a tuple."""


Source = Callable[[], Iterable[Figure]]
"""Answers figures as they are now."""
