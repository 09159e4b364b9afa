"""Flow schemas: defaults, rules, and how they are shown."""

from __future__ import annotations

from typing import Any

import pytest

from knarr.api.flowcontrol.defaults import SCHEMAS
from tests.api.made import cells, faults, made, plain, resource, shown

LEVEL = {"priorityLevelConfiguration": {"name": "system"}}
USER = {"kind": "User", "user": {"name": "jane"}}
RESOURCES = {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "namespaces": ["*"]}
URLS = {"verbs": ["get"], "nonResourceURLs": ["/healthz/*"]}
LABEL = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    "an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)


def rule_faults(**rule: Any) -> list[str]:
    said = {"subjects": [USER], "resourceRules": [RESOURCES], **rule}
    return [fault.removeprefix("spec.rules[0]") for fault in faults("FlowSchema", spec=LEVEL | {"rules": [said]})]


def test_a_schema_stands_in_the_middle_when_nobody_says_where() -> None:
    assert plain(made("FlowSchema", spec=LEVEL))["spec"]["matchingPrecedence"] == 1000


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (LEVEL, []),
        (LEVEL | {"matchingPrecedence": -1}, ["spec.matchingPrecedence: Invalid value: -1: must be a positive value"]),
        (
            LEVEL | {"matchingPrecedence": 10001},
            ["spec.matchingPrecedence: Invalid value: 10001: must not be greater than 10000"],
        ),
        (
            LEVEL | {"matchingPrecedence": 1},
            ["spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1"],
        ),
        (
            LEVEL | {"distinguisherMethod": {"type": "ByHat"}},
            [
                'spec.distinguisherMethod.type: Unsupported value: {"type":"ByHat"}: '
                'supported values: "ByNamespace", "ByUser"'
            ],
        ),
        ({}, ["spec.priorityLevelConfiguration.name: Required value: must reference a priority level"]),
    ],
)
def test_what_a_schema_may_say(spec: dict[str, Any], expected: list[str]) -> None:
    assert faults("FlowSchema", spec=spec) == expected


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        (USER, []),
        ({"kind": "Group", "group": {"name": "*"}}, []),
        ({"kind": "ServiceAccount", "serviceAccount": {"name": "*", "namespace": "shop"}}, []),
        ({"kind": "Hat"}, ['.kind: Unsupported value: "Hat": supported values: "Group", "ServiceAccount", "User"']),
        ({"kind": "User"}, [".user: Required value: user is required when subject kind is 'User'"]),
        ({"kind": "User", "user": {"name": ""}}, [".user.name: Required value"]),
        (
            USER | {"group": {"name": "a"}, "serviceAccount": {"name": "a", "namespace": "a"}},
            [
                ".group: Forbidden: group is forbidden when subject kind is not 'Group'",
                ".serviceAccount: Forbidden: serviceAccount is forbidden when subject kind is not 'ServiceAccount'",
            ],
        ),
        (
            {"kind": "ServiceAccount", "serviceAccount": {"name": "", "namespace": ""}},
            [
                ".serviceAccount.name: Required value",
                ".serviceAccount.namespace: Required value: must specify namespace for service account",
            ],
        ),
        (
            {"kind": "ServiceAccount", "serviceAccount": {"name": "a", "namespace": "A"}},
            [f'.serviceAccount.namespace: Invalid value: "A": {LABEL}'],
        ),
    ],
)
def test_who_a_rule_may_be_about(subject: dict[str, Any], expected: list[str]) -> None:
    assert rule_faults(subjects=[subject]) == [f".subjects[0]{fault}" for fault in expected]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({}, []),
        ({"subjects": []}, [".subjects: Required value: subjects must contain at least one value"]),
        (
            {"resourceRules": []},
            [": Required value: at least one of resourceRules and nonResourceRules has to be non-empty"],
        ),
        (
            {"resourceRules": [{"verbs": [], "apiGroups": [], "resources": []}]},
            [
                ".resourceRules[0].verbs: Required value: verbs must contain at least one value",
                ".resourceRules[0].apiGroups: Required value: resource rules must supply at least one api group",
                ".resourceRules[0].resources: Required value: resource rules must supply at least one resource",
                ".resourceRules[0].namespaces: Required value: "
                "resource rules that are not cluster scoped must supply at least one namespace",
            ],
        ),
        (
            {
                "resourceRules": [
                    {
                        "verbs": ["*", "get"],
                        "apiGroups": ["*", ""],
                        "resources": ["*", "pods"],
                        "namespaces": ["*", "shop"],
                    }
                ]
            },
            [
                '.resourceRules[0].verbs: Invalid value: ["*","get"]: '
                "if '*' is present, must not specify other verbs",
                '.resourceRules[0].apiGroups: Invalid value: ["*",""]: '
                "if '*' is present, must not specify other api groups",
                '.resourceRules[0].resources: Invalid value: ["*","pods"]: '
                "if '*' is present, must not specify other resources",
                '.resourceRules[0].namespaces: Invalid value: ["*","shop"]: '
                "if '*' is present, must not specify other namespaces",
            ],
        ),
        ({"resourceRules": [RESOURCES | {"namespaces": [], "clusterScope": True}]}, []),
        (
            {"resourceRules": [RESOURCES | {"verbs": ["eat"]}]},
            [
                '.resourceRules[0].verbs: Unsupported value: ["eat"]: supported values: "create", "delete", '
                '"deletecollection", "get", "list", "patch", "proxy", "update", "watch"'
            ],
        ),
        (
            {"resourceRules": [RESOURCES | {"namespaces": ["A"]}]},
            [
                '.resourceRules[0].namespaces[0]: Invalid value: "A": '
                f"each member of this list must be '*' or a DNS-1123 label; {LABEL}"
            ],
        ),
        ({"resourceRules": [], "nonResourceRules": [URLS]}, []),
        (
            {"nonResourceRules": [URLS | {"nonResourceURLs": []}]},
            [".nonResourceRules[0].nonResourceURLs: Required value: nonResourceURLs must contain at least one value"],
        ),
        (
            {"nonResourceRules": [URLS | {"nonResourceURLs": ["*", "/a"]}]},
            [
                '.nonResourceRules[0].nonResourceURLs: Invalid value: ["*","/a"]: '
                "if '*' is present, must not specify other non-resource URLs"
            ],
        ),
        *(
            (
                {"nonResourceRules": [URLS | {"nonResourceURLs": [url]}]},
                [f'.nonResourceRules[0].nonResourceURLs[0]: Invalid value: "{url}": {fault}'],
            )
            for url, fault in (
                ("", "must not be empty"),
                ("foo", "must start with slash"),
                ("/a b", "must not contain white-space"),
                ("//", "must not contain double slash"),
                ("/health*", "wildcard can only do suffix matching"),
                ("/*/*", "wildcard can only do suffix matching"),
                ("/healthz/*/foo", "wildcard can only do suffix matching"),
            )
        ),
        ({"nonResourceRules": [URLS | {"nonResourceURLs": ["/", "/apis/", "/healthz/*"]}]}, []),
    ],
)
def test_what_a_rule_may_say(rule: dict[str, Any], expected: list[str]) -> None:
    assert rule_faults(**rule) == expected


def test_the_mandatory_schemas_are_fixed() -> None:
    rules = resource("FlowSchema").strategy
    for schema in SCHEMAS:
        before = plain(schema)
        rules.default(schema)
        assert plain(schema) == before
        assert shown(rules.validate(schema)) == []
    spec = plain(SCHEMAS[0].spec) | {"rules": []}
    (fault,) = faults("FlowSchema", metadata={"name": "exempt"}, spec=spec)
    assert fault.endswith("spec of 'exempt' must equal the fixed value")


def test_how_schemas_are_shown() -> None:
    row = cells("FlowSchema", 0, spec=LEVEL | {"distinguisherMethod": {"type": "ByUser"}})
    del row["Age"]
    assert list(row.values()) == ["system", 1000, "ByUser", "?"]
    status = {"conditions": [{"type": "Dangling", "status": "False"}]}
    row = cells("FlowSchema", 0, spec=LEVEL, status=status)
    assert (row["DistinguisherMethod"], row["MissingPL"]) == ("<none>", "False")
