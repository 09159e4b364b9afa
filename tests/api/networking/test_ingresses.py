"""Ingresses and their classes: defaults, rules, and how they are shown."""

from __future__ import annotations

from typing import Any

import pytest

from knarr.api import names
from tests.api.made import cells, faults, made, plain, status_faults, update_faults

SERVICE = {"service": {"name": "web", "port": {"number": 80}}}
PATH = {"path": "/", "pathType": "Prefix", "backend": SERVICE}


def path_faults(**path: Any) -> list[str]:
    said = {key: value for key, value in (PATH | path).items() if value is not None}
    found = faults("Ingress", spec={"rules": [{"http": {"paths": [said]}}]})
    return [fault.removeprefix("spec.rules[0].http.paths[0]") for fault in found]


SUBDOMAIN = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
WILDCARD = (
    "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of "
    "lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', "
    "regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"defaultBackend": SERVICE}, []),
        ({}, ["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"]),
        ({"defaultBackend": SERVICE, "ingressClassName": "nginx"}, []),
        (
            {"defaultBackend": SERVICE, "ingressClassName": "NGINX"},
            [f'spec.ingressClassName: Invalid value: "NGINX": {SUBDOMAIN}'],
        ),
        ({"rules": [{"host": "*.example.com"}]}, []),
        (
            {"rules": [{"host": "10.0.0.1"}]},
            ['spec.rules[0].host: Invalid value: "10.0.0.1": must be a DNS name, not an IP address'],
        ),
        ({"rules": [{"host": "a.*.com"}]}, [f'spec.rules[0].host: Invalid value: "a.*.com": {WILDCARD}']),
        ({"rules": [{"host": "UPPER"}]}, [f'spec.rules[0].host: Invalid value: "UPPER": {SUBDOMAIN}']),
        ({"rules": [{"http": {"paths": []}}]}, ["spec.rules[0].http.paths: Required value"]),
        (
            {"defaultBackend": SERVICE, "tls": [{"hosts": ["*bad"], "secretName": "S"}]},
            [
                f'spec.tls[0].hosts[0]: Invalid value: "*bad": {WILDCARD}',
                f'spec.tls[0].secretName: Invalid value: "S": {SUBDOMAIN}',
            ],
        ),
    ],
)
def test_what_an_ingress_may_say(spec: dict[str, Any], expected: list[str]) -> None:
    assert faults("Ingress", spec=spec) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ({}, []),
        ({"pathType": None}, [".pathType: Required value: pathType must be specified"]),
        (
            {"pathType": "Glob"},
            ['.pathType: Unsupported value: "Glob": supported values: "Exact", "ImplementationSpecific", "Prefix"'],
        ),
        ({"path": "web"}, ['.path: Invalid value: "web": must be an absolute path']),
        *(
            ({"path": path}, [f'.path: Invalid value: "{path}": {fault}'])
            for path, fault in (
                ("/a//b", "must not contain '//'"),
                ("/a/./b", "must not contain '/./'"),
                ("/a/../b", "must not contain '/../'"),
                ("/a%2fb", "must not contain '%2f'"),
                ("/a%2Fb", "must not contain '%2F'"),
                ("/a/..", "cannot end with '/..'"),
                ("/a/.", "cannot end with '/.'"),
            )
        ),
        ({"pathType": "ImplementationSpecific", "path": None}, []),
        ({"pathType": "ImplementationSpecific", "path": "/a//b"}, []),
        (
            {"pathType": "ImplementationSpecific", "path": "a"},
            ['.path: Invalid value: "a": must be an absolute path'],
        ),
        ({"backend": {}}, ['.backend: Invalid value: "": resource or service backend is required']),
        (
            {"backend": {**SERVICE, "resource": {"kind": "A", "name": "b"}}},
            ['.backend: Invalid value: "": cannot set both resource and service backends'],
        ),
        ({"backend": {"resource": {"apiGroup": "example.com", "kind": "Bucket", "name": "b"}}}, []),
        (
            {"backend": {"resource": {"apiGroup": "A", "kind": "", "name": "a/b"}}},
            [
                f'.backend.resource.apiGroup: Invalid value: "A": {SUBDOMAIN}',
                ".backend.resource.kind: Required value",
                ".backend.resource.name: Invalid value: \"a/b\": may not contain '/'",
            ],
        ),
        (
            {"backend": {"service": {"name": "", "port": {}}}},
            [".backend.service.name: Required value", ".backend: Required value: port name or number is required"],
        ),
        ({"backend": {"service": {"name": "1-web", "port": {"number": 80}}}}, []),  # KEP-5311
        (
            {"backend": {"service": {"name": "web.a", "port": {"number": 80}}}},
            [f'.backend.service.name: Invalid value: "web.a": {names.dns1123_label_faults("web.a")[0]}'],
        ),
        (
            {"backend": {"service": {"name": "web", "port": {"name": "http", "number": 80}}}},
            ['.backend: Invalid value: "": cannot set both port name & port number'],
        ),
        (
            {"backend": {"service": {"name": "web", "port": {"number": 65536}}}},
            [".backend.service.port.number: Invalid value: 65536: must be between 1 and 65535, inclusive"],
        ),
        (
            {"backend": {"service": {"name": "web", "port": {"name": "a--b"}}}},
            ['.backend.service.port.name: Invalid value: "a--b": must not contain consecutive hyphens'],
        ),
    ],
)
def test_what_a_path_may_say(path: dict[str, Any], expected: list[str]) -> None:
    assert path_faults(**path) == expected


def test_annotation_and_field_name_the_same_class() -> None:
    spec = {"defaultBackend": SERVICE, "ingressClassName": "nginx"}
    annotated = {"annotations": {"kubernetes.io/ingress.class": "nginx"}}
    assert faults("Ingress", spec=spec, metadata=annotated) == []
    annotated = {"annotations": {"kubernetes.io/ingress.class": "other"}}
    assert faults("Ingress", spec=spec, metadata=annotated) == [
        'annotations.kubernetes.io/ingress.class: Invalid value: "other": '
        "must match `ingressClassName` when both are specified"
    ]


def test_what_its_status_may_say() -> None:
    status = {"loadBalancer": {"ingress": [{"ip": "10.0.0"}, {"hostname": "10.0.0.1"}, {"hostname": "a.b"}]}}
    assert status_faults("Ingress", status, spec={"defaultBackend": SERVICE}) == [
        'status.loadBalancer.ingress[0].ip: Invalid value: "10.0.0": '
        "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        'status.loadBalancer.ingress[1].hostname: Invalid value: "10.0.0.1": must be a DNS name, not an IP address',
    ]


def test_how_ingresses_are_shown() -> None:
    rules = [{"host": f"{name}.example.com"} for name in ("a", "b", "c", "d")]
    status = {"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}, {"hostname": "lb"}]}}
    row = cells("Ingress", 0, spec={"rules": rules, "tls": [{}]}, status=status)
    assert row == {
        "Class": "<none>",
        "Hosts": "a.example.com,b.example.com,c.example.com + 1 more...",
        "Address": "10.0.0.1,lb",
        "Ports": "80, 443",
        "Age": "<unknown>",
    }
    assert cells("Ingress", 0, spec={"defaultBackend": SERVICE})["Hosts"] == "*"


PARAMETERS = {"kind": "Config", "name": "c"}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"controller": "acme.io/foo", "parameters": PARAMETERS}, []),
        ({}, ["spec.controller: Required value"]),
        (
            {"controller": "acme"},
            ['spec.controller: Invalid value: "acme": must be a domain-prefixed path (such as "acme.io/foo")'],
        ),
        ({"controller": "ACME/foo"}, [f'spec.controller: Invalid value: "ACME": {SUBDOMAIN}']),
        (
            {"controller": "acme.io/f o"},
            [
                'spec.controller: Invalid value: "f o": '
                "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')"
            ],
        ),
        (
            {"controller": "acme.io/" + "a" * 250},
            ["spec.controller: Too long: may not be more than 250 bytes"],
        ),
        (
            {"controller": "acme.io/foo", "parameters": {"kind": "", "name": ""}},
            ["spec.parameters.kind: Required value", "spec.parameters.name: Required value"],
        ),
        (
            {"controller": "acme.io/foo", "parameters": PARAMETERS | {"scope": "World"}},
            ['spec.parameters.scope: Unsupported value: "World": supported values: "Cluster", "Namespace"'],
        ),
        (
            {"controller": "acme.io/foo", "parameters": PARAMETERS | {"scope": "Namespace"}},
            ["spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'"],
        ),
        (
            {"controller": "acme.io/foo", "parameters": PARAMETERS | {"namespace": "a"}},
            ["spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'"],
        ),
    ],
)
def test_what_a_class_may_say(spec: dict[str, Any], expected: list[str]) -> None:
    assert faults("IngressClass", spec=spec) == expected


def test_a_class_keeps_its_controller_and_its_parameters_are_of_the_cluster() -> None:
    before = {"spec": {"controller": "acme.io/foo", "parameters": PARAMETERS}}
    assert update_faults("IngressClass", before, {"spec": {"controller": "acme.io/bar"}}) == [
        'spec.controller: Invalid value: "acme.io/bar": field is immutable'
    ]
    assert plain(made("IngressClass", **before))["spec"]["parameters"]["scope"] == "Cluster"
    row = cells("IngressClass", 0, spec={"controller": "a.b/c", "parameters": PARAMETERS | {"apiGroup": "x.io"}})
    assert (row["Controller"], row["Parameters"]) == ("a.b/c", "Config.x.io/c")
    assert cells("IngressClass", 0, spec={"controller": "a.b/c"})["Parameters"] == "<none>"
