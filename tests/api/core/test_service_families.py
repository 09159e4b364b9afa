"""Which families a Service has: what follows from what its user said, and from the cluster (KEP-563)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from knarr.api.core.service_families import settle_families
from knarr.api.core.v1 import ServiceSpec
from tests.api.made import shown

SELECTS = {"type": "ClusterIP", "selector": {"app": "web"}}
BY_HAND = {"type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"]}
HEADLESS = {**BY_HAND, **SELECTS}
SINGLE, DUAL, DUAL6 = ["IPv4"], ["IPv4", "IPv6"], ["IPv6", "IPv4"]


def settled(configured: list[str], old: dict[str, Any] | None = None, **spec: Any) -> tuple[str | None, list[str]]:
    obj = msgspec.convert(spec, ServiceSpec)
    before = msgspec.convert(old, ServiceSpec) if old else None
    assert settle_families(obj, before, configured) == []
    return obj.ip_family_policy, obj.ip_families


def refused(configured: list[str], old: dict[str, Any] | None = None, **spec: Any) -> list[str]:
    before = msgspec.convert(old, ServiceSpec) if old else None
    return shown(settle_families(msgspec.convert(spec, ServiceSpec), before, configured))


@pytest.mark.parametrize(
    ("configured", "spec", "wanted"),
    [
        (SINGLE, SELECTS, ("SingleStack", ["IPv4"])),
        (DUAL, SELECTS, ("SingleStack", ["IPv4"])),
        (DUAL6, SELECTS, ("SingleStack", ["IPv6"])),
        (DUAL, {**SELECTS, "ipFamilies": ["IPv6"]}, ("SingleStack", ["IPv6"])),
        (DUAL, {**SELECTS, "clusterIP": "fd00::7", "clusterIPs": ["fd00::7"]}, ("SingleStack", ["IPv6"])),
        (SINGLE, {**SELECTS, "ipFamilyPolicy": "PreferDualStack"}, ("PreferDualStack", ["IPv4"])),
        (DUAL, {**SELECTS, "ipFamilyPolicy": "PreferDualStack"}, ("PreferDualStack", ["IPv4", "IPv6"])),
        (DUAL6, {**SELECTS, "ipFamilyPolicy": "RequireDualStack"}, ("RequireDualStack", ["IPv6", "IPv4"])),
        (
            DUAL,
            {**SELECTS, "ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6"]},
            ("PreferDualStack", ["IPv6", "IPv4"]),
        ),
        (DUAL, {**SELECTS, "ipFamilyPolicy": "RequireDualStack", "ipFamilies": DUAL6}, ("RequireDualStack", DUAL6)),
        (
            DUAL,
            {
                **SELECTS,
                "ipFamilyPolicy": "PreferDualStack",
                "clusterIP": "fd00::7",
                "clusterIPs": ["fd00::7", "10.0.0.7"],
            },
            ("PreferDualStack", ["IPv6", "IPv4"]),
        ),
        (SINGLE, HEADLESS, ("SingleStack", ["IPv4"])),
        (DUAL, {**HEADLESS, "ipFamilyPolicy": "PreferDualStack"}, ("PreferDualStack", ["IPv4", "IPv6"])),
        # Whoever keeps the list of addresses may list both kinds, wherever the cluster stands.
        (SINGLE, BY_HAND, ("RequireDualStack", ["IPv4", "IPv6"])),
        (DUAL6, BY_HAND, ("RequireDualStack", ["IPv6", "IPv4"])),
        (SINGLE, {**BY_HAND, "ipFamilies": ["IPv6"]}, ("RequireDualStack", ["IPv6", "IPv4"])),
        (SINGLE, {**BY_HAND, "ipFamilyPolicy": "SingleStack"}, ("SingleStack", ["IPv4"])),
        (SINGLE, {"type": "ExternalName"}, (None, [])),
    ],
)
def test_a_new_service(configured: list[str], spec: dict[str, Any], wanted: tuple[str | None, list[str]]) -> None:
    assert settled(configured, **spec) == wanted


@pytest.mark.parametrize(
    ("configured", "spec", "wanted"),
    [
        (
            SINGLE,
            {**SELECTS, "ipFamilyPolicy": "RequireDualStack"},
            [
                'ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for dual-stack '
                "services"
            ],
        ),
        (
            SINGLE,
            {**SELECTS, "ipFamilies": ["IPv6"]},
            ['ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster'],
        ),
        (
            SINGLE,
            {**SELECTS, "clusterIP": "fd00::7", "clusterIPs": ["fd00::7"]},
            ['clusterIPs[0]: Invalid value: ["fd00::7"]: IPv6 is not configured on this cluster'],
        ),
        (
            DUAL,
            {**SELECTS, "ipFamilies": ["IPv4", "IPv6"]},
            [
                "ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when "
                "multiple IP families are specified"
            ],
        ),
        (
            DUAL,
            {**SELECTS, "clusterIP": "10.0.0.7", "clusterIPs": ["10.0.0.7", "fd00::7"]},
            [
                "ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when "
                "multiple cluster IPs are specified"
            ],
        ),
    ],
)
def test_what_a_cluster_has_not(configured: list[str], spec: dict[str, Any], wanted: list[str]) -> None:
    assert [fault.removeprefix("spec.") for fault in refused(configured, **spec)] == wanted


ONE = {
    **SELECTS,
    "clusterIP": "10.0.0.7",
    "clusterIPs": ["10.0.0.7"],
    "ipFamilies": ["IPv4"],
    "ipFamilyPolicy": "SingleStack",
}
TWO = {
    **SELECTS,
    "clusterIP": "10.0.0.7",
    "clusterIPs": ["10.0.0.7", "fd00::7"],
    "ipFamilies": ["IPv4", "IPv6"],
    "ipFamilyPolicy": "PreferDualStack",
}


def test_a_policy_that_wants_both_adds_the_other_family() -> None:
    assert settled(DUAL, ONE, **{**ONE, "ipFamilyPolicy": "PreferDualStack"}) == ("PreferDualStack", DUAL)
    assert settled(SINGLE, ONE, **{**ONE, "ipFamilyPolicy": "PreferDualStack"}) == ("PreferDualStack", SINGLE)


def test_single_stack_lets_the_second_address_go() -> None:
    spec = msgspec.convert({**TWO, "ipFamilyPolicy": "SingleStack"}, ServiceSpec)
    assert settle_families(spec, msgspec.convert(TWO, ServiceSpec), DUAL) == []
    assert (spec.cluster_ips, spec.ip_families) == (["10.0.0.7"], ["IPv4"])


def test_the_second_address_does_not_go_without_a_word() -> None:
    assert refused(DUAL, TWO, **{**TWO, "clusterIPs": ["10.0.0.7"]}) == [
        "spec.ipFamilyPolicy: Invalid value: \"PreferDualStack\": must be 'SingleStack' to release the secondary "
        "cluster IP"
    ]
    assert refused(DUAL, TWO, **{**TWO, "ipFamilies": ["IPv4"]}) == [
        "spec.ipFamilyPolicy: Invalid value: \"PreferDualStack\": must be 'SingleStack' to release the secondary IP "
        "family"
    ]


def test_a_service_that_prefers_both_is_left_alone_when_the_cluster_changes() -> None:
    prefers = {**ONE, "ipFamilyPolicy": "PreferDualStack"}
    assert settled(DUAL, prefers, **prefers) == ("PreferDualStack", ["IPv4"])
    assert settled(SINGLE, TWO, **TWO) == ("PreferDualStack", DUAL)


def test_an_update_without_a_policy_keeps_the_old_one() -> None:
    without = {key: value for key, value in ONE.items() if key not in ("ipFamilyPolicy", "ipFamilies")}
    assert settled(DUAL, ONE, **without) == ("SingleStack", ["IPv4"])
