"""Indexes of indexed Jobs as they are written."""

from __future__ import annotations

import pytest

from knarr.api.batch.indexes import first_overlap, parse_indexes


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
