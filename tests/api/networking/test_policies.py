"""Network policies: defaults, rules, and how they are shown."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.made import cells, faults, made, plain


def rule_faults(**rule: Any) -> list[str]:
    found = faults("NetworkPolicy", spec={"ingress": [rule]})
    return [fault.removeprefix("spec.ingress[0].") for fault in found]


def test_what_nobody_says() -> None:
    spec = plain(made("NetworkPolicy", spec={"ingress": [{"ports": [{"port": 80}]}]}))["spec"]
    assert spec["policyTypes"] == ["Ingress"]
    assert spec["ingress"][0]["ports"] == [{"port": 80, "protocol": "TCP"}]
    spec = plain(made("NetworkPolicy", spec={"egress": [{"ports": [{"port": 53, "protocol": "UDP"}]}]}))["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert spec["egress"][0]["ports"][0]["protocol"] == "UDP"


@pytest.mark.parametrize(
    ("port", "expected"),
    [
        ({}, []),
        ({"port": "http"}, []),
        ({"port": 80, "endPort": 90}, []),
        ({"protocol": "ICMP"}, ['protocol: Unsupported value: "ICMP": supported values: "TCP", "UDP", "SCTP"']),
        ({"port": 0}, ["port: Invalid value: 0: must be between 1 and 65535, inclusive"]),
        (
            {"port": "a--b"},
            ['port: Invalid value: "a--b": must not contain consecutive hyphens'],
        ),
        ({"endPort": 90}, ["endPort: Invalid value: 90: may not be specified when `port` is not specified"]),
        (
            {"port": "http", "endPort": 90},
            ["endPort: Invalid value: 90: may not be specified when `port` is non-numeric"],
        ),
        (
            {"port": 80, "endPort": 0},
            [
                "endPort: Invalid value: 0: must be greater than or equal to `port`",
                "endPort: Invalid value: 0: must be between 1 and 65535, inclusive",
            ],
        ),
    ],
)
def test_what_a_port_may_say(port: dict[str, Any], expected: list[str]) -> None:
    assert rule_faults(ports=[port]) == [f"ports[0].{fault}" for fault in expected]


CIDR = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ({"podSelector": {}}, []),
        ({"namespaceSelector": {}, "podSelector": {}}, []),
        ({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}, []),
        ({}, [": Required value: must specify a peer"]),
        (
            {"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}},
            [": Forbidden: may not specify both ipBlock and another peer"],
        ),
        ({"ipBlock": {"cidr": ""}}, [".ipBlock.cidr: Required value"]),
        ({"ipBlock": {"cidr": "10.0.0.0"}}, [f'.ipBlock.cidr: Invalid value: "10.0.0.0": {CIDR}']),
        (
            {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["x", "11.0.0.0/16", "10.0.0.0/8", "2001:db8::/64"]}},
            [
                f'.ipBlock.except[0]: Invalid value: "x": {CIDR}',
                *(
                    f'.ipBlock.except[{index}]: Invalid value: "{part}": must be a strict subset of `cidr`'
                    for index, part in ((1, "11.0.0.0/16"), (2, "10.0.0.0/8"), (3, "2001:db8::/64"))
                ),
            ],
        ),
        (
            {"podSelector": {"matchExpressions": [{"key": "a", "operator": "Like"}]}},
            ['.podSelector.matchExpressions[0].operator: Invalid value: "Like": not a valid selector operator'],
        ),
    ],
)
def test_what_a_peer_may_say(peer: dict[str, Any], expected: list[str]) -> None:
    assert rule_faults(**{"from": [peer]}) == [f"from[0]{fault}" for fault in expected]
    found = faults("NetworkPolicy", spec={"egress": [{"to": [peer]}]})
    assert found == [f"spec.egress[0].to[0]{fault}" for fault in expected]


def test_a_policy_is_about_what_comes_in_and_what_goes_out() -> None:
    assert faults("NetworkPolicy", spec={"policyTypes": ["Inside"]}) == [
        'spec.policyTypes[0]: Unsupported value: "Inside": supported values: "Ingress", "Egress"'
    ]
    assert faults("NetworkPolicy", spec={"policyTypes": ["Ingress", "Egress", "Ingress"]}) == [
        'spec.policyTypes: Invalid value: ["Ingress","Egress","Ingress"]: may not specify more than two policyTypes'
    ]


def test_how_policies_are_shown() -> None:
    assert cells("NetworkPolicy", 0, spec={})["Pod-Selector"] == "<none>"
    spec = {"podSelector": {"matchLabels": {"app": "web"}}}
    assert cells("NetworkPolicy", 0, spec=spec)["Pod-Selector"] == "app=web"
