"""IP addresses and ranges of them: rules, and how they are shown."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.made import cells, faults, resource, update_faults

PARENT = {"resource": "services", "namespace": "default", "name": "web"}


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("10.0.0.1", None),
        ("2001:db8::1", None),
        ("10.0.0", "must be a valid IP address"),
        ("2001:DB8::1", 'must be in canonical form ("2001:db8::1")'),
    ],
)
def test_an_address_is_called_by_itself(name: str, fault: str | None) -> None:
    found = resource("IPAddress").strategy.name_faults(name)
    assert [each.partition(", ")[0] for each in found] == ([fault] if fault else [])


@pytest.mark.parametrize(
    ("parent", "expected"),
    [
        (PARENT, []),
        ({"resource": "", "name": ""}, [".resource: Required value", ".name: Required value"]),
        (
            PARENT | {"resource": "a/b", "name": "..", "namespace": "a%"},
            [
                ".resource: Invalid value: \"a/b\": may not contain '/'",
                ".name: Invalid value: \"..\": may not be '..'",
                ".namespace: Invalid value: \"a%\": may not contain '%'",
            ],
        ),
    ],
)
def test_whose_an_address_may_be(parent: dict[str, Any], expected: list[str]) -> None:
    found = faults("IPAddress", metadata={"name": "10.0.0.1"}, spec={"parentRef": parent})
    assert found == [f"spec.parentRef{fault}" for fault in expected]


def test_an_address_stays_with_its_owner_and_is_shown_with_it() -> None:
    (fault,) = update_faults(
        "IPAddress", {"spec": {"parentRef": PARENT}}, {"spec": {"parentRef": PARENT | {"name": "b"}}}
    )
    assert fault.startswith("spec.parentRef: Invalid value: {")
    assert fault.endswith(": field is immutable")
    assert cells("IPAddress", 0, spec={"parentRef": PARENT}) == {"ParentRef": "services/default/web"}
    other = {"group": "example.com", "resource": "gateways", "name": "g"}
    assert cells("IPAddress", 0, spec={"parentRef": other}) == {"ParentRef": "gateways.example.com/g"}


@pytest.mark.parametrize(
    ("cidrs", "expected"),
    [
        (["10.0.0.0/16"], []),
        (["10.0.0.0/16", "2001:db8::/64"], []),
        ([], ["spec.cidrs: Required value: at least one CIDR required"]),
        (
            ["10.0.0.0/16", "10.1.0.0/16", "10.2.0.0/16"],
            [
                'spec.cidrs: Invalid value: {"cidrs":["10.0.0.0/16","10.1.0.0/16","10.2.0.0/16"]}: '
                "may only hold up to 2 values"
            ],
        ),
        (
            ["10.0.0.0/16", "10.1.0.0/16"],
            [
                'spec.cidrs: Invalid value: ["10.0.0.0/16","10.1.0.0/16"]: may specify no more than one IP for each IP '
                "family, i.e 192.168.0.0/24 and 2001:db8::/64"
            ],
        ),
        (
            ["10.0.0.0"],
            [
                'spec.cidrs[0]: Invalid value: "10.0.0.0": '
                "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
            ],
        ),
        (
            ["2001:DB8::/64"],
            ['spec.cidrs[0]: Invalid value: "2001:DB8::/64": must be in canonical form ("2001:db8::/64")'],
        ),
    ],
)
def test_what_a_range_may_say(cidrs: list[str], expected: list[str]) -> None:
    assert faults("ServiceCIDR", spec={"cidrs": cidrs}) == expected


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (["10.0.0.0/16"], ["10.0.0.0/16", "2001:db8::/64"], []),
        (["10.0.0.0/16"], ["10.1.0.0/16"], ['spec.cidrs[0]: Invalid value: "10.1.0.0/16": field is immutable']),
        (
            ["10.0.0.0/16", "2001:db8::/64"],
            ["10.0.0.0/16"],
            ['spec.cidrs: Invalid value: ["10.0.0.0/16"]: field is immutable'],
        ),
        (
            ["10.0.0.0/16"],
            ["10.1.0.0/16", "2001:db8::/64"],
            ['spec.cidrs[0]: Invalid value: "10.1.0.0/16": field is immutable'],
        ),
    ],
)
def test_a_range_stays_but_for_a_second_family(before: list[str], after: list[str], expected: list[str]) -> None:
    assert update_faults("ServiceCIDR", {"spec": {"cidrs": before}}, {"spec": {"cidrs": after}}) == expected


def test_how_ranges_are_shown() -> None:
    assert cells("ServiceCIDR", 0, spec={"cidrs": ["10.0.0.0/16", "2001:db8::/64"]})["CIDRs"] == (
        "10.0.0.0/16,2001:db8::/64"
    )
