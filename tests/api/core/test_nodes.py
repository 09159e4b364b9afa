"""What of a Node can't be changed any more."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from knarr.api.core.simple import NodeStrategy
from knarr.api.core.v1 import Node

ONCE = 'node updates may not change {} except from "" to valid'


def faults(before: dict[str, Any], after: dict[str, Any]) -> list[tuple[str | None, str]]:
    old, new = (msgspec.convert({"metadata": {"name": "n"}, "spec": each}, Node) for each in (before, after))
    return [(cause.field, cause.message) for cause in NodeStrategy().validate_update(new, old)]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"providerID": "aws:///z/i-1", "podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24"]}),
        ({"providerID": "a"}, {"providerID": "a", "unschedulable": True}),
        ({"podCIDRs": ["10.0.0.0/24"]}, {"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24"]}),
        ({"providerID": ""}, {}),
    ],
)
def test_what_is_empty_can_be_given(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert faults(before, after) == []


@pytest.mark.parametrize("after", ["b", ""])
def test_a_machines_name_at_its_cloud_stays(after: str) -> None:
    ((field, message),) = faults({"providerID": "a"}, {"providerID": after})
    assert (field, message) == ("spec.providerID", f"Forbidden: {ONCE.format('providerID')}")


@pytest.mark.parametrize(
    ("after", "count"), [(["10.0.1.0/24"], 1), ([], 1), (["10.0.1.0/24", "fd01::/64"], 2), (["10.0.0.0/24"], 1)]
)
def test_ranges_stay(after: list[str], count: int) -> None:
    found = faults({"podCIDRs": ["10.0.0.0/24", "fd00::/64"]}, {"podCIDRs": after})
    assert found == [("spec.podCIDRs", f"Forbidden: {ONCE.format('podCIDR')}")] * count


def test_the_old_name_stays() -> None:
    assert faults({"externalID": "a"}, {}) == [("spec.externalID", "Forbidden: may not be updated")]
