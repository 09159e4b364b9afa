"""Resource slices: which nodes they are for, and what they say of devices."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.made import cells, faults, made, resource, update_faults

POOL = {"name": "one", "generation": 1, "resourceSliceCount": 1}
SLICE: dict[str, Any] = {"driver": "gpu.example.com", "nodeName": "one", "pool": POOL}
ONE_OF = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required"
TERM = {"matchExpressions": [{"key": "a", "operator": "Exists"}]}


def slice_faults(**spec: Any) -> list[str]:
    said = {key: value for key, value in (SLICE | spec).items() if value is not None}
    return faults("ResourceSlice", spec=said)


def device_faults(**device: Any) -> list[str]:
    found = slice_faults(devices=[{"name": "gpu-0", **device}])
    return [fault.removeprefix("spec.devices[0]") for fault in found]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, []),
        ({"driver": ""}, ["spec.driver: Required value"]),
        ({"pool": POOL | {"name": "a/b.c"}}, []),
        (
            {"pool": {"name": "", "generation": -1, "resourceSliceCount": 0}},
            [
                "spec.pool.name: Required value",
                "spec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero",
                "spec.pool.generation: Invalid value: -1: must be greater than or equal to zero",
            ],
        ),
        ({"nodeName": None}, [f"spec: Required value: {ONE_OF}"]),
        (
            {"nodeName": ""},
            [
                'spec.nodeName: Invalid value: "": must be either unset or set to a non-empty string',
                f"spec: Required value: {ONE_OF}",
            ],
        ),
        (
            {"allNodes": True},
            [f'spec: Invalid value: "{{`nodeName`, `allNodes`}}": {ONE_OF}, but multiple fields are set'],
        ),
        ({"allNodes": False}, ["spec.allNodes: Invalid value: false: must be either unset or set to true"]),
        (
            {"perDeviceNodeSelection": False},
            ["spec.perDeviceNodeSelection: Invalid value: false: must be either unset or set to true"],
        ),
        ({"nodeName": None, "nodeSelector": {"nodeSelectorTerms": [TERM]}}, []),
        (
            {"sharedCounters": [{"name": "a", "counters": {"m": {"value": "1"}}}], "devices": [{"name": "gpu"}]},
            ['spec: Invalid value: "": only one of `sharedCounters` or `devices` is allowed'],
        ),
        (
            {"sharedCounters": [{"name": "", "counters": {}}]},
            ["spec.sharedCounters[0].name: Required value", "spec.sharedCounters[0].counters: Required value"],
        ),
        ({"devices": [{"name": "gpu"}] * 2}, ['spec.devices[1]: Duplicate value: "gpu"']),
        (
            {"devices": [{"name": f"gpu-{number}"} for number in range(129)]},
            ["spec.devices: Too many: 129: must have at most 128 items"],
        ),
        (
            {"devices": [{"name": f"gpu-{n}", "taints": [{"key": "a", "effect": "None"}]} for n in range(65)]},
            ["spec.devices: Too many: 65: must have at most 64 items"],
        ),
    ],
)
def test_what_a_slice_may_say(spec: dict[str, Any], expected: list[str]) -> None:
    assert slice_faults(**spec) == expected


def test_more_than_one_term_does_not_merge() -> None:
    found = slice_faults(nodeName=None, nodeSelector={"nodeSelectorTerms": [TERM, TERM]})
    assert [fault.partition(": ")[0] for fault in found] == ["spec.nodeSelector.nodeSelectorTerms"]
    assert found[0].endswith("must have exactly one node selector term")


def test_a_slice_stays_with_its_driver_pool_and_node() -> None:
    after = SLICE | {"driver": "other.example.com", "nodeName": "two", "pool": POOL | {"name": "two"}}
    assert update_faults("ResourceSlice", {"spec": SLICE}, {"spec": after}) == [
        'spec.pool.name: Invalid value: "two": field is immutable',
        'spec.driver: Invalid value: "other.example.com": field is immutable',
        'spec.nodeName: Invalid value: "two": field is immutable',
    ]
    grown = SLICE | {"pool": POOL | {"generation": 2}, "devices": [{"name": "gpu-0"}]}
    assert update_faults("ResourceSlice", {"spec": SLICE}, {"spec": grown}) == []


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ({"attributes": {"model": {"string": "a"}, "example.com/version": {"version": "1.2.3-rc.1+b"}}}, []),
        ({"attributes": {"model": {}}}, ['.attributes[model]: Invalid value: "": exactly one value must be specified']),
        (
            {"attributes": {"model": {"int": 1, "bool": False}}},
            [
                '.attributes[model]: Invalid value: {"bool":false,"int":1}: exactly one value must be specified',
            ],
        ),
        (
            {"attributes": {"version": {"version": "1.2"}}},
            [
                '.attributes[version].version: Invalid value: "1.2": '
                "must be a string compatible with semver.org spec 2.0.0"
            ],
        ),
        (
            {"attributes": {"model": {"strings": ["a", "m" * 65]}}},
            [".attributes[model].strings[1]: Too long: may not be more than 64 bytes"],
        ),
        (
            {"attributes": {"a/b/c": {"int": 1}}},
            ['.attributes: Invalid value: "a/b/c": must not contain more than one slash'],
        ),
        ({"attributes": {"/b": {"int": 1}}}, ['.attributes: Invalid value: "": the domain must not be empty']),
        ({"attributes": {"a/": {"int": 1}}}, ['.attributes: Invalid value: "": the name must not be empty']),
        ({"attributes": {"m" * 33: {"int": 1}}}, [".attributes: Too long: may not be more than 32 bytes"]),
        (
            {"attributes": {f"a{number}": {"int": 1} for number in range(33)}},
            [": Invalid value: 33: the total number of attributes and capacities must not exceed 32"],
        ),
        (
            {"attributes": {"a": {"ints": list(range(49))}}},
            [": Invalid value: 49: the total number of attribute values must not exceed 48"],
        ),
        (
            {"taints": [{"key": "", "effect": ""}]},
            [
                '.taints[0].key: Invalid value: "": name part must be non-empty',
                ".taints[0].key: Invalid value: \"\": name part must consist of alphanumeric characters, '-', '_' or "
                "'.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or "
                "'123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
                ".taints[0].effect: Required value",
            ],
        ),
        (
            {"taints": [{"key": "a", "effect": "Some"}]},
            ['.taints[0].effect: Unsupported value: "Some": supported values: "NoExecute", "NoSchedule", "None"'],
        ),
        (
            {"consumesCounters": [{"counterSet": "", "counters": {}}]},
            [".consumesCounters[0].counterSet: Required value", ".consumesCounters[0].counters: Required value"],
        ),
        (
            {"allNodes": True},
            [
                ": Invalid value: null: `nodeName`, `nodeSelector` and `allNodes` can only be set if "
                "`perDeviceNodeSelection` is set to true in the ResourceSlice spec"
            ],
        ),
        ({"bindingConditions": ["a"], "bindingFailureConditions": ["b"]}, []),
        (
            {"bindingConditions": ["a", "a"], "bindingFailureConditions": ["a"]},
            [
                '.bindingConditions[1]: Duplicate value: "a"',
                '.bindingFailureConditions[0]: Invalid value: "a": '
                "bindingFailureConditions must not overlap with bindingConditions",
            ],
        ),
        (
            {"bindingFailureConditions": ["a"]},
            [".bindingConditions: Invalid value: []: bindingConditions are required to use bindingFailureConditions"],
        ),
    ],
)
def test_what_a_device_may_say(device: dict[str, Any], expected: list[str]) -> None:
    assert device_faults(**device) == expected


RANGE = {"min": "1", "max": "5", "step": "2"}


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({"default": "1", "validValues": ["1", "2"]}, []),
        ({"validValues": ["1"]}, [".default: Required value: required when validValues is defined"]),
        (
            {"default": "3", "validValues": ["2", "1", "20", "1"]},
            [
                '.validValues[1]: Invalid value: "1": values must be sorted in ascending order',
                '.validValues[3]: Invalid value: "1": values must be sorted in ascending order',
                '.validValues[2]: Invalid value: "20": option is larger than capacity value: 10',
                '.validValues[3]: Duplicate value: "1"',
                '.validValues: Invalid value: "3": default value is not valid according to the requestPolicy',
            ],
        ),
        ({"default": "3", "validRange": RANGE}, []),
        ({"validRange": RANGE}, [".default: Required value: required when validRange is defined"]),
        (
            {"default": "2", "validRange": RANGE},
            ['.validRange.step: Invalid value: "2": value is not a multiple of a given step (2) from (1)'],
        ),
        (
            {"default": "1", "validRange": {"min": "20", "max": "15"}},
            [
                '.validRange.min: Invalid value: "20": min is larger than capacity value: 10',
                '.validRange.default: Invalid value: "1": default is less than min: 20',
                '.validRange.max: Invalid value: "20": min is larger than max: 15',
                '.validRange.max: Invalid value: "15": max is larger than capacity value: 10',
            ],
        ),
        (
            {"default": "6", "validRange": {"min": "1", "max": "5", "step": "0"}},
            [
                '.validRange.default: Invalid value: "6": default is more than max: 5',
                '.validRange.step: Invalid value: "0": must be greater than zero',
            ],
        ),
        (
            {"default": "1", "validRange": {"min": "1", "step": "10"}},
            ['.validRange.step: Invalid value: "10": one step 11 is larger than capacity value: 10'],
        ),
        (
            {"default": "1", "validValues": ["1"], "validRange": RANGE},
            [
                ": Forbidden: exactly one policy can be specified, "
                'cannot specify "validValues" and "validRange" at the same time'
            ],
        ),
        ({"default": "9e18", "validRange": {"min": "0", "step": "1e-900"}}, None),
    ],
)
def test_how_much_of_a_capacity_one_may_ask_for(policy: dict[str, Any], expected: list[str] | None) -> None:
    capacity = {"memory": {"value": "10", "requestPolicy": policy}}
    found = device_faults(allowMultipleAllocations=True, capacity=capacity)
    if expected is not None:
        assert found == [f".capacity[memory].requestPolicy{fault}" for fault in expected]


def test_only_what_is_shared_has_a_policy() -> None:
    found = device_faults(capacity={"memory": {"value": "10", "requestPolicy": {"default": "1"}}})
    assert found == [".capacity[memory].requestPolicy: Forbidden: allowMultipleAllocations must be true"]


def test_each_device_may_say_where_it_is() -> None:
    one_of = (
        "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to "
        "true in the ResourceSlice spec"
    )
    devices = [{"name": "a"}, {"name": "b", "nodeName": "one"}, {"name": "c", "nodeName": "one", "allNodes": True}]
    assert slice_faults(nodeName=None, perDeviceNodeSelection=True, devices=devices) == [
        f"spec.devices[0]: Required value: {one_of}",
        f'spec.devices[2]: Invalid value: "{{`nodeName`, `allNodes`}}": {one_of}',
    ]


def test_slices_are_found_by_node_and_driver_and_shown() -> None:
    found = made("ResourceSlice", spec=SLICE)
    assert resource("ResourceSlice").strategy.fields(found) == {
        "spec.nodeName": "one",
        "spec.driver": "gpu.example.com",
    }
    row = cells("ResourceSlice", 0, spec=SLICE)
    assert (row["Node"], row["Driver"], row["Pool"]) == ("one", "gpu.example.com", "one")
