"""Device classes, claims and their templates: defaults, rules, and how they are shown."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.made import cells, faults, made, plain, status_faults, update_faults

OPAQUE = {"driver": "gpu.example.com", "parameters": {"mode": "shared"}}
LONG = 10 * 1024 + 1
REFERENCE = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'"
LABEL = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    "an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)


def request(name: str = "gpu", **exactly: Any) -> dict[str, Any]:
    return {"name": name, "exactly": {"deviceClassName": "gpu.example.com", **exactly}}


def claim_faults(*requests: dict[str, Any], **devices: Any) -> list[str]:
    return faults("ResourceClaim", spec={"devices": {"requests": list(requests) or [request()], **devices}})


def test_one_device_is_asked_for_when_nobody_says_how_many() -> None:
    alternatives = {"name": "any", "firstAvailable": [{"name": "big", "deviceClassName": "big"}]}
    tolerant = request(allocationMode="All", tolerations=[{"key": "a"}])
    claim = plain(made("ResourceClaim", spec={"devices": {"requests": [request(), alternatives, tolerant]}}))
    first, second, third = claim["spec"]["devices"]["requests"]
    assert (first["exactly"]["allocationMode"], first["exactly"]["count"]) == ("ExactCount", 1)
    assert second["firstAvailable"][0]["count"] == 1
    assert "count" not in third["exactly"]
    assert third["exactly"]["tolerations"] == [{"key": "a", "operator": "Equal"}]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"selectors": [{"cel": {"expression": "true"}}], "config": [{"opaque": OPAQUE}]}, []),
        ({"selectors": [{}]}, ["spec.selectors[0].cel: Required value"]),
        (
            {"selectors": [{"cel": {"expression": "x" * LONG}}]},
            ["spec.selectors[0].cel.expression: Too long: may not be more than 10240 bytes"],
        ),
        (
            {"selectors": [{"cel": {"expression": "true"}}] * 33},
            ["spec.selectors: Too many: 33: must have at most 32 items"],
        ),
        ({"config": [{}]}, ["spec.config[0].opaque: Required value"]),
        (
            {"config": [{"opaque": {"driver": "", "parameters": [1]}}]},
            [
                "spec.config[0].opaque.driver: Required value",
                'spec.config[0].opaque.parameters: Invalid value: "<value omitted>": must be a valid JSON object',
            ],
        ),
        (
            {"config": [{"opaque": OPAQUE | {"parameters": None}}]},
            ["spec.config[0].opaque.parameters: Required value"],
        ),
        (
            {"config": [{"opaque": OPAQUE | {"parameters": {"a": "x" * LONG}}}]},
            ["spec.config[0].opaque.parameters: Too long: may not be more than 10240 bytes"],
        ),
        ({"extendedResourceName": "example.com/gpu"}, []),
        *(
            (
                {"extendedResourceName": name},
                [f'spec.extendedResourceName: Invalid value: "{name}": must be a valid extended resource name'],
            )
            for name in ("gpu", "requests.example.com/gpu", "kubernetes.io/gpu")
        ),
    ],
)
def test_what_a_class_may_say(spec: dict[str, Any], expected: list[str]) -> None:
    assert faults("DeviceClass", spec=spec) == expected


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"name": "gpu"}, [": Required value: exactly one of `exactly` or `firstAvailable` is required"]),
        (
            request() | {"firstAvailable": [{"name": "a", "deviceClassName": "a"}]},
            [
                ": Invalid value: null: exactly one of `exactly` or `firstAvailable` is required, "
                "but multiple fields are set"
            ],
        ),
        (request("GPU"), [f'.name: Invalid value: "GPU": {LABEL}']),
        (request(deviceClassName=""), [".exactly.deviceClassName: Required value"]),
        (
            request(allocationMode="All", count=2),
            [".exactly.count: Invalid value: 2: must not be specified when allocationMode is 'All'"],
        ),
        (request(count=-1), [".exactly.count: Invalid value: -1: must be greater than zero"]),
        (
            request(allocationMode="Some"),
            ['.exactly.allocationMode: Unsupported value: "Some": supported values: "All", "ExactCount"'],
        ),
        (
            request(tolerations=[{"operator": "Exists", "value": "a"}]),
            ['.exactly.tolerations[0].value: Invalid value: "a": must be empty for operator `Exists`'],
        ),
        (
            request(tolerations=[{"operator": "In", "effect": "Maybe"}]),
            [
                '.exactly.tolerations[0].operator: Unsupported value: "In": supported values: "Equal", "Exists"',
                '.exactly.tolerations[0].effect: Unsupported value: "Maybe": '
                'supported values: "NoExecute", "NoSchedule", "None"',
            ],
        ),
        (
            {"name": "gpu", "firstAvailable": [{"name": "a", "deviceClassName": "a"}] * 2},
            ['.firstAvailable[1]: Duplicate value: "a"'],
        ),
        (
            {"name": "gpu", "firstAvailable": [{"name": f"a{n}", "deviceClassName": "a"} for n in range(9)]},
            [".firstAvailable: Too many: 9: must have at most 8 items"],
        ),
    ],
)
def test_what_a_request_may_say(wanted: dict[str, Any], expected: list[str]) -> None:
    assert claim_faults(wanted) == [f"spec.devices.requests[0]{fault}" for fault in expected]


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        ({"constraints": [{"requests": ["gpu"], "matchAttribute": "example.com/numa"}]}, []),
        ({"constraints": [{"requests": ["gpu/big"], "distinctAttribute": "example.com/numa"}]}, []),
        (
            {"constraints": [{}]},
            [
                "constraints[0]: Required value: "
                'exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set'
            ],
        ),
        (
            {"constraints": [{"matchAttribute": "numa"}]},
            [
                'constraints[0].matchAttribute: Invalid value: "numa": '
                "a fully qualified name must be a domain and a name separated by a slash"
            ],
        ),
        (
            {"constraints": [{"requests": ["other"], "matchAttribute": "example.com/numa"}]},
            [f'constraints[0].requests[0]: Invalid value: "other": {REFERENCE}'],
        ),
        (
            {"constraints": [{"requests": ["gpu/small"], "matchAttribute": "example.com/numa"}]},
            [f'constraints[0].requests[0]: Invalid value: "gpu/small": {REFERENCE}'],
        ),
        (
            {"config": [{"requests": ["gpu", "gpu"], "opaque": OPAQUE}]},
            ['config[0].requests[1]: Duplicate value: "gpu"'],
        ),
        ({"config": [{"requests": ["a/b/c"]}]}, [f'config[0].requests[0]: Invalid value: "a/b/c": {REFERENCE}', ""]),
    ],
)
def test_constraints_and_configuration_name_requests(devices: dict[str, Any], expected: list[str]) -> None:
    alternatives = {"name": "gpu", "firstAvailable": [{"name": "big", "deviceClassName": "big"}]}
    expected = [
        f"spec.devices.{fault}" if fault else "spec.devices.config[0].opaque: Required value" for fault in expected
    ]
    assert claim_faults(alternatives, **devices) == expected


def test_two_requests_of_a_name_and_too_many() -> None:
    assert claim_faults(request(), request()) == ['spec.devices.requests[1]: Duplicate value: "gpu"']
    many = [request(f"gpu-{number}") for number in range(33)]
    assert claim_faults(*many) == ["spec.devices.requests: Too many: 33: must have at most 32 items"]


def test_what_is_claimed_never_changes() -> None:
    before = {"spec": {"devices": {"requests": [request()]}}}
    after = {"spec": {"devices": {"requests": [request(count=2)]}}}
    (fault,) = update_faults("ResourceClaim", before, after)
    assert fault.startswith("spec: Invalid value: {")
    assert fault.endswith("field is immutable")
    (fault,) = update_faults("ResourceClaimTemplate", {"spec": before}, {"spec": after})
    assert fault.startswith("spec: Invalid value: {")
    assert fault.endswith("field is immutable")
    assert update_faults("ResourceClaim", before, before | {"metadata": {"labels": {"a": "b"}}}) == []


def test_a_template_is_checked_as_the_claims_that_it_makes() -> None:
    spec = {"metadata": {"labels": {"a": "-"}}, "spec": {"devices": {"requests": [{"name": "gpu"}]}}}
    first, second = faults("ResourceClaimTemplate", spec=spec)
    assert first.startswith('spec.metadata.labels: Invalid value: "-"')
    assert second.startswith("spec.spec.devices.requests[0]: Required value")


RESULT = {"request": "gpu", "driver": "gpu.example.com", "pool": "node-1", "device": "gpu-0"}
ALLOCATION = {"devices": {"results": [RESULT]}}
DEVICE = {key: RESULT[key] for key in ("driver", "pool", "device")}
POD = {"resource": "pods", "name": "web", "uid": "1"}
SHARE = "8c1c6a1e-6a3a-4f0e-9f0a-0a1b2c3d4e5f"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"allocation": ALLOCATION, "reservedFor": [POD], "devices": [DEVICE]}, []),
        (
            {"reservedFor": [POD]},
            ["reservedFor: Forbidden: may not be specified when `allocated` is not set"],
        ),
        (
            {"allocation": ALLOCATION, "reservedFor": [POD, POD]},
            ['reservedFor[1]: Duplicate value: "1"'],
        ),
        (
            {"allocation": ALLOCATION, "reservedFor": [{"resource": "", "name": "", "uid": ""}]},
            [
                "reservedFor[0].resource: Required value",
                "reservedFor[0].name: Required value",
                "reservedFor[0].uid: Required value",
            ],
        ),
        (
            {"allocation": {"devices": {"results": [RESULT | {"request": "other", "pool": ""}]}}},
            [
                f'allocation.devices.results[0].request: Invalid value: "other": {REFERENCE}',
                "allocation.devices.results[0].pool: Required value",
            ],
        ),
        (
            {"allocation": {"devices": {"config": [{"source": "", "opaque": OPAQUE}]}}},
            ["allocation.devices.config[0].source: Required value"],
        ),
        (
            {"allocation": {"devices": {"config": [{"source": "Else", "opaque": OPAQUE}]}}},
            [
                'allocation.devices.config[0].source: Unsupported value: "Else": '
                'supported values: "FromClaim", "FromClass"'
            ],
        ),
        (
            {"allocation": {"nodeSelector": {"nodeSelectorTerms": []}}},
            ["allocation.nodeSelector.nodeSelectorTerms: Required value: must have at least one node selector term"],
        ),
        (
            {"allocation": {"devices": {"results": [RESULT | {"bindingConditions": ["a"]}]}}},
            [
                "allocation.devices.results[0].bindingFailureConditions: Invalid value: []: "
                "bindingFailureConditions are required to use bindingConditions"
            ],
        ),
        ({"allocation": {"devices": {"results": [RESULT | {"shareID": SHARE}]}}}, []),
        (
            {"devices": [DEVICE]},
            ['devices[0]: Invalid value: "gpu.example.com/node-1/gpu-0": must be an allocated device in the claim'],
        ),
        (
            {"allocation": ALLOCATION, "devices": [DEVICE | {"data": "text"}]},
            ['devices[0].data: Invalid value: "<value omitted>": must be a valid JSON object'],
        ),
        (
            {
                "allocation": ALLOCATION,
                "devices": [
                    DEVICE
                    | {
                        "networkData": {
                            "interfaceName": "i" * 257,
                            "hardwareAddress": "h" * 129,
                            "ips": ["10.9.8.7", "10.9.8.7/24", "10.09.8.7/24", "2001:DB8::1/64"],
                        }
                    }
                ],
            },
            [
                "devices[0].networkData.interfaceName: Too long: may not be more than 256 bytes",
                "devices[0].networkData.hardwareAddress: Too long: may not be more than 128 bytes",
                *(
                    f'devices[0].networkData.ips[{index}]: Invalid value: "{address}": '
                    "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)"
                    for index, address in ((0, "10.9.8.7"), (2, "10.09.8.7/24"))
                ),
                'devices[0].networkData.ips[3]: Invalid value: "2001:DB8::1/64": '
                'must be in canonical form ("2001:db8::1/64")',
            ],
        ),
    ],
)
def test_what_a_status_may_say(status: dict[str, Any], expected: list[str]) -> None:
    spec = {"devices": {"requests": [request()]}}
    assert status_faults("ResourceClaim", status, spec=spec) == [f"status.{fault}" for fault in expected]


def test_an_allocation_is_taken_back_or_stays() -> None:
    spec = {"devices": {"requests": [request()]}}
    other = {"devices": {"results": [RESULT | {"device": "gpu-1"}]}}
    assert status_faults("ResourceClaim", {}, {"allocation": ALLOCATION}, spec=spec) == []
    (fault,) = status_faults("ResourceClaim", {"allocation": other}, {"allocation": ALLOCATION}, spec=spec)
    assert fault.startswith("status.allocation: Invalid value")
    assert fault.endswith("field is immutable")


def test_nobody_joins_a_claim_that_is_being_deleted() -> None:
    new = {"allocation": ALLOCATION, "reservedFor": [POD]}
    metadata = {"deletionTimestamp": "2026-01-02T03:04:05Z"}
    spec = {"devices": {"requests": [request()]}}
    assert status_faults("ResourceClaim", new, {"allocation": ALLOCATION}, spec=spec, metadata=metadata) == [
        "status.reservedFor: Forbidden: new entries may not be added while `deallocationRequested` or "
        "`deletionTimestamp` are set"
    ]
    assert status_faults("ResourceClaim", new, new, spec=spec, metadata=metadata) == []


@pytest.mark.parametrize(
    ("status", "metadata", "state"),
    [
        ({}, {}, "pending"),
        ({"allocation": ALLOCATION}, {}, "allocated"),
        ({"allocation": ALLOCATION, "reservedFor": [POD]}, {}, "allocated,reserved"),
        ({}, {"deletionTimestamp": "2026-01-02T03:04:05Z"}, "deleted"),
        ({"allocation": ALLOCATION}, {"deletionTimestamp": "2026-01-02T03:04:05Z"}, "deleted,allocated"),
    ],
)
def test_the_state_of_a_claim(status: dict[str, Any], metadata: dict[str, Any], state: str) -> None:
    assert cells("ResourceClaim", 0, status=status, metadata=metadata)["State"] == state
