"""Indexes of an indexed Job as they are written: `1,3-5,7` (KEP-2214)."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable

Intervals = list[tuple[int, int]]
"""First and last of each, rising."""


def parse_indexes(written: str, completions: int) -> list[tuple[int, int]]:
    """First and last of each interval, rising. Raises ValueError with what is wrong."""
    found: list[tuple[int, int]] = []
    for fragment in written.split(",") if written else ():
        first, last = _interval(fragment, completions)
        if found and found[-1][1] >= first:
            raise ValueError(f"non-increasing order, previous: {found[-1][1]}, current: {first}")
        found.append((first, last))
    return found


def first_overlap(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> int | None:
    """The first index that is in both."""
    left, right = 0, 0
    while left < len(one) and right < len(other):
        (first, last), (begin, end) = one[left], other[right]
        if first <= end and begin <= last:
            return max(first, begin)
        if first <= begin:
            left += 1
        else:
            right += 1
    return None


def _interval(fragment: str, completions: int) -> tuple[int, int]:
    limits = fragment.split("-")
    if len(limits) > 2:
        raise ValueError(
            f'the fragment "{fragment}" violates the requirement that an index interval can have at most two parts '
            "separated by '-'"
        )
    numbers = [_index(limit, completions) for limit in limits]
    if len(numbers) == 2 and numbers[0] >= numbers[1]:
        raise ValueError(f"non-increasing order, previous: {numbers[0]}, current: {numbers[1]}")
    return numbers[0], numbers[-1]


def _index(written: str, completions: int) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", written):
        raise ValueError(f'cannot convert string to integer for index: "{written}"')
    if int(written) >= completions:
        raise ValueError(f'too large index: "{written}"')
    return int(written)


# Indexes as a set, kept as intervals: there may be 100,000 of them


def read_indexes(written: str | None, completions: int) -> Intervals:
    """Those that a status or a rule names; what lies beyond `completions` (they may have become fewer) is left out."""
    try:
        known = parse_indexes(written or "", 1 << 31)
    except ValueError:
        return []  # nothing that the API server would have let in
    return with_indexes([(first, min(last, completions - 1)) for first, last in known if first < completions])


def with_indexes(known: Intervals, more: Iterable[int] = ()) -> Intervals:
    """`known` and `more` together; intervals that touch become one."""
    merged: Intervals = []
    for first, last in sorted([*known, *((index, index) for index in more)]):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def has_index(known: Intervals, index: int) -> bool:
    place = bisect_right(known, index, key=lambda interval: interval[0])
    return place > 0 and index <= known[place - 1][1]


def count_indexes(known: Intervals) -> int:
    return sum(last - first + 1 for first, last in known)


def write_indexes(known: Intervals) -> str:
    """`1,3-5,7`; two that follow each other are written `3,4`."""
    return ",".join(
        str(first) if first == last else f"{first}{',' if last == first + 1 else '-'}{last}" for first, last in known
    )
