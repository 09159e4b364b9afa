"""Indexes of indexed Jobs as they are written, and as a set: against Python's own sets."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as some

from knarr.api.batch.indexes import (
    count_indexes,
    first_overlap,
    has_index,
    parse_indexes,
    read_indexes,
    with_indexes,
    write_indexes,
)

SOME = some.sets(some.integers(0, 40))


@pytest.mark.parametrize(("written", "intervals"), [("", []), ("1", [(1, 1)]), ("0,2-4,9", [(0, 0), (2, 4), (9, 9)])])
def test_intervals(written: str, intervals: list[tuple[int, int]]) -> None:
    assert parse_indexes(written, 10) == intervals


@pytest.mark.parametrize(
    ("written", "fault"),
    [
        ("10", 'too large index: "10"'),
        ("1-20", 'too large index: "20"'),
        ("x", 'cannot convert string to integer for index: "x"'),
        ("1-", 'cannot convert string to integer for index: ""'),
        ("3-2", "non-increasing order, previous: 3, current: 2"),
        ("3,2", "non-increasing order, previous: 3, current: 2"),
        (
            "1-2-3",
            'the fragment "1-2-3" violates the requirement that an index interval can have at most two parts '
            "separated by '-'",
        ),
    ],
)
def test_what_is_none(written: str, fault: str) -> None:
    with pytest.raises(ValueError) as error:
        parse_indexes(written, 10)
    assert str(error.value) == fault


@pytest.mark.parametrize(
    ("one", "other", "overlap"), [("1-3", "3-5", 3), ("0,5", "1-4", None), ("0-9", "4", 4), ("", "1", None)]
)
def test_overlaps(one: str, other: str, overlap: int | None) -> None:
    assert first_overlap(parse_indexes(one, 10), parse_indexes(other, 10)) == overlap


@given(SOME, SOME)
def test_they_are_what_a_set_would_be(known: set[int], more: set[int]) -> None:
    both = with_indexes(with_indexes([], known), more)
    assert count_indexes(both) == len(known | more)
    assert {index for index in range(50) if has_index(both, index)} == known | more
    assert read_indexes(write_indexes(both), 50) == both
    assert all(last + 1 < first for (_, last), (first, _) in pairwise(both))


@given(SOME, some.integers(0, 50))
def test_what_lies_beyond_the_completions_is_left_out(known: set[int], completions: int) -> None:
    found = read_indexes(write_indexes(with_indexes([], known)), completions)
    assert found == with_indexes([], {index for index in known if index < completions})


def test_how_they_are_written() -> None:
    assert write_indexes(with_indexes([], {1, 3, 4, 5, 7, 8})) == "1,3-5,7,8"
    assert write_indexes([]) == ""
    assert read_indexes(None, 9) == []
