"""APIServices: what is filled in, refused and shown."""

from __future__ import annotations

from typing import Any

import pytest

from knarr.api.apiregistration.v1 import APIServiceCondition, APIServiceStatus
from tests.api.made import made, resource, shown

NAME = "v1beta1.example.com"
SERVICE = {"namespace": "a", "name": "b"}


def api_service(name: str = NAME, **spec: Any) -> Any:
    whole = {"group": "example.com", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 1, **spec}
    return made("APIService", metadata={"name": name, "namespace": None}, spec=whole)


def faults(name: str = NAME, **spec: Any) -> list[str]:
    return shown(resource("APIService").strategy.validate(api_service(name, **spec)))


def test_the_port_of_a_service_is_that_of_https() -> None:
    assert api_service(service=SERVICE).spec.service.port == 443
    assert api_service(service={**SERVICE, "port": 8443}).spec.service.port == 8443
    assert api_service().spec.service is None


@pytest.mark.parametrize(
    ("name", "spec", "told"),
    [
        (NAME, {}, []),
        (NAME, {"service": SERVICE, "caBundle": "YQ=="}, []),
        (NAME, {"service": SERVICE, "insecureSkipTLSVerify": True}, []),
        ("v1.", {"group": "", "version": "v1"}, []),
        (
            "other",
            {},
            [
                'metadata.name: Invalid value: "other": must be `spec.version+"."+spec.group`: "v1beta1.example.com"',
            ],
        ),
        (
            "v2.",
            {"group": "", "version": "v2"},
            ["spec.group: Required value: only v1 may have an empty group and it better be legacy kube"],
        ),
        (
            NAME,
            {"groupPriorityMinimum": 0, "versionPriority": 1001},
            [
                "spec.groupPriorityMinimum: Invalid value: 0: must be positive and less than 20000",
                "spec.versionPriority: Invalid value: 1001: must be positive and less than 1000",
            ],
        ),
        (
            NAME,
            {"groupPriorityMinimum": 20001, "versionPriority": -1},
            [
                "spec.groupPriorityMinimum: Invalid value: 20001: must be positive and less than 20000",
                "spec.versionPriority: Invalid value: -1: must be positive and less than 1000",
            ],
        ),
        (
            NAME,
            {"caBundle": "YWI=", "insecureSkipTLSVerify": True},
            [
                'spec.caBundle: Invalid value: "2 bytes": local APIServices may not have a caBundle',
                "spec.insecureSkipTLSVerify: Invalid value: true: local APIServices may not have insecureSkipTLSVerify",
            ],
        ),
        (
            NAME,
            {"service": {}},
            ["spec.service.namespace: Required value", "spec.service.name: Required value"],
        ),
        (
            NAME,
            {"service": SERVICE, "caBundle": "YQ==", "insecureSkipTLSVerify": True},
            ["spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present"],
        ),
    ],
)
def test_what_is_wrong_is_told_as_upstream_tells_it(name: str, spec: dict[str, Any], told: list[str]) -> None:
    assert faults(name, **spec) == told


def test_names_of_groups_and_versions_are_names() -> None:
    assert [each.partition(":")[0] for each in faults("v1.A", group="A", version="v1")] == ["spec.group"]
    assert [each.partition(":")[0] for each in faults("V.example.com", version="V")] == ["spec.version"]


def test_a_condition_is_true_or_false_or_unknown() -> None:
    new, old = api_service(service=SERVICE), api_service(service=SERVICE)
    new.status = APIServiceStatus(conditions=[APIServiceCondition(type="Available", status="Perhaps")])
    assert shown(resource("APIService").strategy.validate_status_update(new, old)) == [
        'status.conditions[0].status: Unsupported value: "Perhaps": supported values: "False", "True", "Unknown"'
    ]


@pytest.mark.parametrize(
    ("spec", "conditions", "cells"),
    [
        ({}, [], ["Local", "Unknown"]),
        ({"service": SERVICE}, [("True", "Passed")], ["a/b", "True"]),
        ({"service": SERVICE}, [("False", "MissingEndpoints")], ["a/b", "False (MissingEndpoints)"]),
        ({"service": SERVICE}, [("Unknown", None)], ["a/b", "Unknown"]),
    ],
)
def test_columns_are_upstreams(spec: dict[str, Any], conditions: list[tuple[str, Any]], cells: list[str]) -> None:
    found = api_service(**spec)
    found.status = APIServiceStatus(
        conditions=[APIServiceCondition(type="Available", status=status, reason=why) for status, why in conditions]
    )
    columns = resource("APIService").columns
    assert [column.cell(found, 0) for column in columns if column.name != "Age"] == cells
