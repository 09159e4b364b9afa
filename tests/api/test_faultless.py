"""Checks that remember what has passed them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from knarr.api import faultless
from knarr.api.errors import Cause, required
from knarr.api.faultless import remembered

asked: list[Any] = []


@remembered
def names_given(value: Any, path: str) -> Iterable[Cause]:
    asked.append(value)
    for index, item in enumerate(value):
        if not item.get("name"):
            yield required(f"{path}[{index}].name")


def test_what_has_passed_is_not_looked_through_again_but_each_fault_is_told_at_its_own_path() -> None:
    asked.clear()
    right, wrong = [{"name": "a"}], [{"name": ""}]
    for path in ("one", "other"):
        assert not list(names_given(right, path))
        assert [cause.field for cause in names_given(wrong, path)] == [f"{path}[0].name"]
    assert asked == [right, wrong, wrong]


def test_a_value_that_was_changed_is_looked_through_again() -> None:
    value = [{"name": "b"}]
    assert not list(names_given(value, "p"))
    value.append({"name": ""})
    assert [cause.field for cause in names_given(value, "p")] == ["p[1].name"]


def test_what_is_remembered_is_bounded() -> None:
    asked.clear()
    first = [{"name": "first"}]
    for value in (first, *([{"name": f"n{number}"}] for number in range(faultless.REMEMBERED_MAX)), first):
        assert not list(names_given(value, "p"))
    assert asked.count(first) == 2
    asked.clear()
    long = [{"name": "x" * faultless.VALUE_MAX_BYTES}]
    for _ in range(2):
        assert not list(names_given(long, "p"))
    assert len(asked) == 2
