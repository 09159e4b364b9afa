"""Storage classes, attributes classes and the kinds of CSI drivers: defaults, rules, and how they are shown."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.made import cells, faults, made, plain, update_faults

CLASS = {"provisioner": "csi.example.com"}
TOPOLOGY = {"matchLabelExpressions": [{"key": "zone", "values": ["a"]}]}


def test_what_a_storage_class_is_when_nobody_says() -> None:
    found = plain(made("StorageClass", **CLASS))
    assert (found["reclaimPolicy"], found["volumeBindingMode"]) == ("Delete", "Immediate")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"provisioner": ""}, ["provisioner: Required value"]),
        (
            {"reclaimPolicy": "Recycle"},
            ['reclaimPolicy: Unsupported value: "Recycle": supported values: "Delete", "Retain"'],
        ),
        (
            {"volumeBindingMode": "Later"},
            ['volumeBindingMode: Unsupported value: "Later": supported values: "Immediate", "WaitForFirstConsumer"'],
        ),
        ({"parameters": {"": "a"}}, ['parameters: Invalid value: "": field can not be empty.']),
        (
            {"parameters": {f"p{number}": "" for number in range(513)}},
            ["parameters: Too long: may not be more than 512 bytes"],
        ),
        ({"parameters": {"a": "x" * (256 << 10)}}, ["parameters: Too long: may not be more than 262144 bytes"]),
        ({"allowedTopologies": [TOPOLOGY]}, []),
        ({"allowedTopologies": [{}]}, ["allowedTopologies[0].matchLabelExpressions: Required value"]),
        (
            {"allowedTopologies": [TOPOLOGY, TOPOLOGY]},
            ['allowedTopologies[1].matchLabelExpressions: Duplicate value: ""'],
        ),
        (
            {
                "allowedTopologies": [
                    {"matchLabelExpressions": [{"key": "a", "values": []}, {"key": "a", "values": ["b", "b"]}]}
                ]
            },
            [
                "allowedTopologies[0].matchLabelExpressions[0].values: Required value",
                'allowedTopologies[0].matchLabelExpressions[1].values[1]: Duplicate value: "b"',
                'allowedTopologies[0].matchLabelExpressions[1].key: Duplicate value: "a"',
            ],
        ),
    ],
)
def test_what_a_storage_class_may_say(change: dict[str, Any], expected: list[str]) -> None:
    assert faults("StorageClass", **CLASS | change) == expected


def test_a_provisioner_is_a_qualified_name() -> None:
    assert faults("StorageClass", provisioner="kubernetes.io/No-Provisioner") == []
    (fault,) = faults("StorageClass", provisioner="a/b/c")
    assert fault.startswith('provisioner: Invalid value: "a/b/c": a qualified name must consist of')


def test_a_storage_class_stays_as_it_is() -> None:
    after = {
        "provisioner": "other.example.com",
        "parameters": {"a": "b"},
        "reclaimPolicy": "Retain",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    assert update_faults("StorageClass", CLASS, after) == [
        "parameters: Forbidden: updates to parameters are forbidden.",
        "provisioner: Forbidden: updates to provisioner are forbidden.",
        "reclaimPolicy: Forbidden: updates to reclaimPolicy are forbidden.",
        'volumeBindingMode: Invalid value: "WaitForFirstConsumer": field is immutable',
    ]
    assert update_faults("StorageClass", CLASS, CLASS | {"allowVolumeExpansion": True, "mountOptions": ["ro"]}) == []


def test_the_default_class_is_shown_as_such() -> None:
    metadata = {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}
    row = cells("StorageClass", 0, metadata=metadata, **CLASS)
    assert row.pop("Age") == "<unknown>"
    assert list(row.values()) == ["web (default)", "csi.example.com", "Delete", "Immediate", False]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"driverName": "csi.example.com", "parameters": {"iops": "1"}}, []),
        (
            {"driverName": ""},
            ["driverName: Required value", "parameters: Required value: must contain at least one key/value pair"],
        ),
        (
            {"driverName": "a" * 64, "parameters": {"a": "b"}},
            ["driverName: Too long: may not be more than 63 bytes"],
        ),
    ],
)
def test_what_an_attributes_class_may_say(fields: dict[str, Any], expected: list[str]) -> None:
    assert faults("VolumeAttributesClass", **fields) == expected


def test_an_attributes_class_stays_as_it_is() -> None:
    before = {"driverName": "csi.example.com", "parameters": {"iops": "1"}}
    assert update_faults(
        "VolumeAttributesClass", before, {"driverName": "b.example.com", "parameters": {"a": "1"}}
    ) == [
        'driverName: Invalid value: "b.example.com": field is immutable',
        'parameters: Invalid value: {"a":"1"}: field is immutable',
    ]


def test_what_a_driver_is_when_nobody_says() -> None:
    assert plain(made("CSIDriver", spec={}))["spec"] == {
        "attachRequired": True,
        "fsGroupPolicy": "ReadWriteOnceWithFSType",
        "podInfoOnMount": False,
        "requiresRepublish": False,
        "seLinuxMount": False,
        "storageCapacity": False,
        "volumeLifecycleModes": ["Persistent"],
    }


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            {"fsGroupPolicy": "Some"},
            [
                'spec.fsGroupPolicy: Unsupported value: "Some": '
                'supported values: "File", "None", "ReadWriteOnceWithFSType"'
            ],
        ),
        (
            {"volumeLifecycleModes": ["Some"]},
            ['spec.volumeLifecycleModes[0]: Unsupported value: "Some": supported values: "Ephemeral", "Persistent"'],
        ),
        (
            {"tokenRequests": [{"audience": "a"}, {"audience": "a", "expirationSeconds": 1}]},
            [
                'spec.tokenRequests[1].audience: Duplicate value: "a"',
                "spec.tokenRequests[1].expirationSeconds: Invalid value: 1: "
                "may not specify a duration less than 10 minutes",
            ],
        ),
        (
            {"tokenRequests": [{"audience": "a", "expirationSeconds": (1 << 32) + 1}]},
            [
                "spec.tokenRequests[0].expirationSeconds: Invalid value: 4294967297: "
                "may not specify a duration larger than 2^32 seconds"
            ],
        ),
    ],
)
def test_what_a_driver_may_say(spec: dict[str, Any], expected: list[str]) -> None:
    assert faults("CSIDriver", spec=spec) == expected


def test_a_driver_stays_as_it_is_and_is_shown() -> None:
    after = {"spec": {"attachRequired": False, "volumeLifecycleModes": ["Ephemeral"], "podInfoOnMount": True}}
    assert update_faults("CSIDriver", {"spec": {}}, after) == [
        "spec.attachedRequired: Invalid value: false: field is immutable",
        'spec.volumeLifecycleModes: Invalid value: ["Ephemeral"]: field is immutable',
    ]
    row = cells("CSIDriver", 0, spec={"tokenRequests": [{"audience": "a"}, {"audience": "b"}]})
    del row["Age"]
    assert list(row.values()) == [True, False, False, "a,b", False, "Persistent"]


DRIVER = {"name": "csi.example.com", "nodeID": "one"}


@pytest.mark.parametrize(
    ("driver", "expected"),
    [
        (DRIVER, []),
        (DRIVER | {"name": "", "nodeID": ""}, [".name: Required value", ".nodeID: Required value"]),
        (
            DRIVER | {"nodeID": "n" * 257},
            [f'.nodeID: Invalid value: "{"n" * 257}": must be 256 characters or less'],
        ),
        (
            DRIVER | {"allocatable": {"count": -1}},
            [".allocatable.count: Invalid value: -1: must be greater than or equal to 0"],
        ),
        (DRIVER | {"topologyKeys": ["zone", "zone"]}, [': Duplicate value: "zone"']),
    ],
)
def test_what_a_node_may_say_of_a_driver(driver: dict[str, Any], expected: list[str]) -> None:
    assert faults("CSINode", spec={"drivers": [driver]}) == [f"spec.drivers[0]{fault}" for fault in expected]


def test_a_node_names_a_driver_once_and_changes_only_how_much_it_takes() -> None:
    assert faults("CSINode", spec={"drivers": [DRIVER, DRIVER]}) == [
        'spec.drivers[1].name: Duplicate value: "csi.example.com"'
    ]
    before = {"spec": {"drivers": [DRIVER]}}
    assert update_faults("CSINode", before, {"spec": {"drivers": [DRIVER | {"allocatable": {"count": 3}}]}}) == []
    assert update_faults("CSINode", before, {"spec": {"drivers": [DRIVER | {"nodeID": "two"}]}}) == [
        'CSINodeDriver: Invalid value: {"name":"csi.example.com","nodeID":"two"}: field is immutable'
    ]
    assert cells("CSINode", 0, **before)["Drivers"] == 1


def test_what_a_capacity_may_say() -> None:
    assert faults("CSIStorageCapacity", storageClassName="fast", capacity="1Gi", nodeTopology={}) == []
    assert faults("CSIStorageCapacity", capacity="-1", maximumVolumeSize="-2") == [
        "storageClassName: Required value",
        'capacity: Invalid value: "-1": must be greater than or equal to 0',
        'maximumVolumeSize: Invalid value: "-2": must be greater than or equal to 0',
    ]
    before = {"storageClassName": "fast", "nodeTopology": {}}
    after = {"storageClassName": "slow", "capacity": "1Gi"}
    assert [fault.partition(":")[0] for fault in update_faults("CSIStorageCapacity", before, after)] == [
        "storageClassName",
        "nodeTopology",
    ]
    assert cells("CSIStorageCapacity", 0, **before) == {"StorageClassName": "fast", "Capacity": "<unset>"}
