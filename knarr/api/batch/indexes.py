"""Indexes of an indexed Job as they are written: `1,3-5,7` (KEP-2214)."""

from __future__ import annotations

import re


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
