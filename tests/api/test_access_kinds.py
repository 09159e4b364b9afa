"""Roles, bindings and certificate requests: what is refused, in upstream's words, and what kubectl shows."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from knarr.api.certificates.v1 import CertificateSigningRequest
from knarr.api.decode import convert
from knarr.api.rbac.v1 import ClusterRole, ClusterRoleBinding, Role, RoleBinding
from knarr.api.registry import built_in
from tests.api.made import shown

REGISTRY = built_in()
GROUP = "rbac.authorization.k8s.io"


def made(kind: type[Any], **fields: Any) -> Any:
    obj, _ = convert(kind, {"metadata": {"name": "a", "creationTimestamp": "2026-01-02T03:04:05Z"}, **fields})
    REGISTRY.of(kind).strategy.default(obj)
    return obj


def faults(kind: type[Any], **fields: Any) -> list[str]:
    strategy = REGISTRY.of(kind).strategy
    obj = made(kind, **fields)
    return shown((*strategy.validate(obj), *strategy.validate_create(obj)))


def rule(**fields: Any) -> dict[str, Any]:
    return {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]} | fields


URLS = {"verbs": ["get"], "nonResourceURLs": ["/metrics"]}
BOTH = "rules cannot apply to both regular resources and non-resource URLs"


@pytest.mark.parametrize(
    ("kind", "rules", "wanted"),
    [
        (Role, [rule()], []),
        (Role, [rule(verbs=[])], ["rules[0].verbs: Required value: verbs must contain at least one value"]),
        (
            Role,
            [rule(), rule(apiGroups=[])],
            ["rules[1].apiGroups: Required value: resource rules must supply at least one api group"],
        ),
        (
            Role,
            [rule(resources=[])],
            ["rules[0].resources: Required value: resource rules must supply at least one resource"],
        ),
        (
            Role,
            [URLS],
            [
                'rules[0].nonResourceURLs: Invalid value: ["/metrics"]: namespaced rules cannot apply to non-resource '
                "URLs"
            ],
        ),
        (ClusterRole, [URLS], []),
        (ClusterRole, [rule() | URLS], [f'rules[0].nonResourceURLs: Invalid value: ["/metrics"]: {BOTH}']),
    ],
)
def test_rules(kind: type[Any], rules: list[dict[str, Any]], wanted: list[str]) -> None:
    assert faults(kind, rules=rules) == wanted


def test_an_aggregation_needs_selectors() -> None:
    path = "aggregationRule.clusterRoleSelectors"
    assert faults(ClusterRole, aggregationRule={}) == [
        f"{path}: Required value: at least one clusterRoleSelector required if aggregationRule is non-nil"
    ]
    wrong = {"clusterRoleSelectors": [{"matchExpressions": [{"key": "a", "operator": "Has"}]}]}
    assert faults(ClusterRole, aggregationRule=wrong)[0].startswith(f"{path}[0].matchExpressions[0].operator")


ROLE = {"apiGroup": GROUP, "kind": "Role", "name": "a"}
CLUSTER = {"apiGroup": GROUP, "kind": "ClusterRole", "name": "a"}


@pytest.mark.parametrize(
    ("kind", "fields", "wanted"),
    [
        (RoleBinding, {"roleRef": ROLE}, []),
        (RoleBinding, {"roleRef": CLUSTER, "subjects": [{"kind": "User", "name": "a"}]}, []),
        (
            ClusterRoleBinding,
            {"roleRef": ROLE},
            ['roleRef.kind: Unsupported value: "Role": supported values: "ClusterRole"'],
        ),
        (
            RoleBinding,
            {"roleRef": ROLE | {"apiGroup": "x"}},
            [f'roleRef.apiGroup: Unsupported value: "x": supported values: "{GROUP}"'],
        ),
        (RoleBinding, {"roleRef": ROLE | {"name": ""}}, ["roleRef.name: Required value"]),
        (
            RoleBinding,
            {"roleRef": ROLE | {"name": "a/b"}},
            ["roleRef.name: Invalid value: \"a/b\": may not contain '/'"],
        ),
        (
            RoleBinding,
            {"roleRef": ROLE, "subjects": [{"kind": "Robot", "name": "a"}]},
            ['subjects[0].kind: Unsupported value: "Robot": supported values: "Group", "ServiceAccount", "User"'],
        ),
        (
            RoleBinding,
            {"roleRef": ROLE, "subjects": [{"kind": "User", "name": ""}]},
            ["subjects[0].name: Required value"],
        ),
        (RoleBinding, {"roleRef": ROLE, "subjects": [{"kind": "ServiceAccount", "name": "a"}]}, []),
        (
            ClusterRoleBinding,
            {"roleRef": CLUSTER, "subjects": [{"kind": "ServiceAccount", "name": "a"}]},
            ["subjects[0].namespace: Required value"],
        ),
        (
            RoleBinding,
            {"roleRef": ROLE, "subjects": [{"kind": "ServiceAccount", "name": "a", "apiGroup": GROUP}]},
            [f'subjects[0].apiGroup: Unsupported value: "{GROUP}": supported values: ""'],
        ),
        (
            RoleBinding,
            {"roleRef": ROLE, "subjects": [{"kind": "Group", "name": "a", "apiGroup": "x"}]},
            [f'subjects[0].apiGroup: Unsupported value: "x": supported values: "{GROUP}"'],
        ),
    ],
)
def test_bindings(kind: type[Any], fields: dict[str, Any], wanted: list[str]) -> None:
    assert faults(kind, **fields) == wanted


def test_names_may_have_colons() -> None:
    names = REGISTRY.of(ClusterRole).strategy.name_faults
    assert names("system:node") == []
    assert names("a/b")
    assert names("..")


def row(kind: type[Any], **fields: Any) -> dict[str, Any]:
    obj = made(kind, **fields)
    now_s = obj.metadata.creation_timestamp.timestamp() + 60
    return {column.name: column.cell(obj, now_s) for column in REGISTRY.of(kind).columns}


def test_what_kubectl_shows() -> None:
    assert row(Role) == {"Created At": "2026-01-02T03:04:05Z"}
    subjects = [
        {"kind": "User", "name": "ann"},
        {"kind": "User", "name": "bob"},
        {"kind": "Group", "name": "devs"},
        {"kind": "ServiceAccount", "name": "robot", "namespace": "apps"},
    ]
    assert row(RoleBinding, roleRef=CLUSTER, subjects=subjects) == {
        "Role": "ClusterRole/a",
        "Age": "60s",
        "Users": "ann, bob",
        "Groups": "devs",
        "ServiceAccounts": "apps/robot",
    }


# Certificate requests


def request_pem() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ann")])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


PEM = request_pem()


def asked(**spec: Any) -> dict[str, Any]:
    import base64

    whole = {"request": PEM, "signerName": "example.com/signer", "usages": ["client auth"]} | spec
    return {"spec": whole | {"request": base64.b64encode(whole["request"]).decode()}}


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ({}, []),
        ({"usages": []}, ["spec.usages: Required value"]),
        ({"usages": ["client auth", "client auth"]}, ['spec.usages[1]: Duplicate value: "client auth"']),
        ({"signerName": ""}, ["spec.signerName: Required value"]),
        (
            {"expirationSeconds": 599},
            ["spec.expirationSeconds: Invalid value: 599: may not specify a duration"],
        ),
        ({"signerName": "kubernetes.io/legacy-unknown"}, ["the legacy signerName is not allowed via this API version"]),
        ({"signerName": "one"}, ["must be a fully qualified domain and path of the form 'example.com/signer-name'"]),
        ({"signerName": "local/a"}, ["should be a domain with at least two segments separated by dots"]),
        ({"signerName": "example.com/A"}, ["a lowercase RFC 1123 label must consist of"]),
        ({"request": b"x"}, ["PEM block type must be CERTIFICATE REQUEST"]),
        ({"request": PEM[:100] + b"A" + PEM[101:]}, ["spec.request: Invalid value"]),
        ({"usages": ["flying"]}, ['spec.usages[0]: Unsupported value: "flying": supported values: "any", "cert sign"']),
    ],
)
def test_certificate_requests(spec: dict[str, Any], wanted: list[str]) -> None:
    found = faults(CertificateSigningRequest, **asked(**spec))
    assert len(found) == len(wanted), found
    for fault, part in zip(found, wanted, strict=True):
        assert part in fault


def conditions(*kinds: str, status: str = "True") -> dict[str, Any]:
    return {"conditions": [{"type": kind, "status": status} for kind in kinds]}


@pytest.mark.parametrize(
    ("before", "after", "part", "wanted"),
    [
        ({}, conditions("Approved"), "approval", []),
        ({}, conditions("Mine"), "approval", []),
        ({}, conditions("Approved", "Denied"), "approval", ["status.conditions[1].type: Invalid value"]),
        ({}, conditions("Approved", "Approved"), "approval", ["status.conditions[1].type: Duplicate value"]),
        ({}, conditions("Approved", status="False"), "approval", ["status.conditions[0].status: Unsupported value"]),
        (
            {},
            conditions("Failed"),
            "approval",
            ['status.conditions: Forbidden: updates may not add a condition of type "Failed"'],
        ),
        (conditions("Approved"), {}, "approval", ['updates may not remove a condition of type "Approved"']),
        (conditions("Denied"), conditions("Approved"), "approval", ['remove a condition of type "Denied"']),
        ({}, conditions("Approved"), "status", ['updates may not add a condition of type "Approved"']),
        (conditions("Approved"), conditions("Approved", "Failed"), "status", []),
        ({}, {"certificate": "eA=="}, "status", ["status.certificate: Invalid value"]),
        ({"certificate": "eA=="}, {"certificate": "eQ=="}, "status", ["updates may not modify existing certificate"]),
    ],
)
def test_decisions_are_not_taken_back(before: Any, after: Any, part: str, wanted: list[str]) -> None:
    strategy = REGISTRY.of(CertificateSigningRequest).strategy
    old, new = (
        made(CertificateSigningRequest, status=before, **asked()),
        made(CertificateSigningRequest, status=after, **asked()),
    )
    if part == "status":
        found = shown(strategy.validate_status_update(new, old))
    else:
        strategy.prepare_for_part_update(part, new, old)
        found = shown(strategy.validate_part_update(part, new, old))
    assert len(found) == len(wanted), found
    for fault, text in zip(found, wanted, strict=True):
        assert text in fault


@pytest.mark.parametrize(
    ("status", "shown_as"),
    [
        ({}, "Pending"),
        (conditions("Approved"), "Approved"),
        (conditions("Approved") | {"certificate": "eA=="}, "Approved,Issued"),
        (conditions("Denied"), "Denied"),
        (conditions("Approved", "Failed"), "Approved,Failed"),
    ],
)
def test_how_a_request_is_shown(status: dict[str, Any], shown_as: str) -> None:
    cells = row(CertificateSigningRequest, status=status, **asked(expirationSeconds=3600, username="ann"))
    assert cells == {
        "Age": "60s",
        "SignerName": "example.com/signer",
        "Requestor": "ann",
        "RequestedDuration": "60m",
        "Condition": shown_as,
    }
