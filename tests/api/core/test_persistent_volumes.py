"""Persistent volumes: defaults, rules, and how they are shown."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.made import cells, faults, made, plain, update_faults

SPEC: dict[str, Any] = {
    "capacity": {"storage": "1Gi"},
    "accessModes": ["ReadWriteOnce"],
    "hostPath": {"path": "/data"},
}
CSI = {"csi": {"driver": "csi.example.com", "volumeHandle": "v"}}
AFFINITY = {"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]}}


def with_csi(**more: Any) -> dict[str, Any]:
    return {key: value for key, value in SPEC.items() if key != "hostPath"} | CSI | more


def test_what_nobody_says() -> None:
    spec = plain(made("PersistentVolume", spec=SPEC))["spec"]
    assert (spec["persistentVolumeReclaimPolicy"], spec["volumeMode"], spec["hostPath"]["type"]) == (
        "Retain",
        "Filesystem",
        "",
    )


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"accessModes": []}, ["spec.accessModes: Required value"]),
        (
            {"accessModes": ["ReadOnly"]},
            [
                'spec.accessModes: Unsupported value: "ReadOnly": supported values: '
                '"ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"'
            ],
        ),
        (
            {"accessModes": ["ReadWriteOnce", "ReadWriteOncePod"]},
            ["spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes"],
        ),
        ({"capacity": {}}, ["spec.capacity: Required value"]),
        (
            {"capacity": {"storage": "1Gi", "cpu": "1"}},
            ['spec.capacity: Unsupported value: {"storage":"1Gi","cpu":"1"}: supported values: "storage"'],
        ),
        (
            {"capacity": {"storage": "0"}},
            ['spec.capacity[storage]: Invalid value: "0": must be greater than zero'],
        ),
        (
            {"persistentVolumeReclaimPolicy": "Burn"},
            [
                'spec.persistentVolumeReclaimPolicy: Unsupported value: "Burn": '
                'supported values: "Delete", "Recycle", "Retain"'
            ],
        ),
        (
            {"persistentVolumeReclaimPolicy": "Recycle", "hostPath": {"path": "/"}},
            ["spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'"],
        ),
        ({"volumeMode": "Raw"}, ['spec.volumeMode: Unsupported value: "Raw": supported values: "Block", "Filesystem"']),
        ({"nodeAffinity": {}}, ["spec.nodeAffinity.required: Required value: must specify required node constraints"]),
        (CSI, ["spec.csi: Forbidden: may not specify more than 1 volume type"]),
        (
            {"nfs": {"server": "a", "path": "/b"}},
            ["spec.nfs: Forbidden: may not specify more than 1 volume type"],
        ),
        (
            {"volumeAttributesClassName": "gold"},
            ["spec.csi: Required value: has to be specified when using volumeAttributesClassName"],
        ),
    ],
)
def test_what_a_volume_may_say(change: dict[str, Any], expected: list[str]) -> None:
    assert faults("PersistentVolume", spec=SPEC | change) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({}, ["spec: Required value: must specify a volume type"]),
        (
            {"local": {"path": ""}},
            [
                "spec.local.path: Required value",
                "spec.nodeAffinity: Required value: Local volume requires node affinity",
            ],
        ),
        ({"local": {"path": "/a"}, "nodeAffinity": AFFINITY}, []),
        (
            {"local": {"path": "/a/../b"}, "nodeAffinity": AFFINITY},
            ["spec.local.path: Invalid value: \"/a/../b\": must not contain '..'"],
        ),
        (
            {"nfs": {"server": "", "path": "b"}},
            [
                "spec.nfs.server: Required value",
                'spec.nfs.path: Invalid value: "b": must be an absolute path',
            ],
        ),
        (
            {"csi": {"driver": "", "volumeHandle": ""}},
            ["spec.csi.driver: Required value", "spec.csi.volumeHandle: Required value"],
        ),
        (CSI | {"volumeAttributesClassName": "gold"}, []),
        (
            CSI | {"volumeAttributesClassName": ""},
            ["spec.volumeAttributesClassName: Required value: an empty string is disallowed"],
        ),
    ],
)
def test_what_a_source_may_say(source: dict[str, Any], expected: list[str]) -> None:
    spec = {key: value for key, value in SPEC.items() if key != "hostPath"}
    assert faults("PersistentVolume", spec=spec | source) == expected


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (SPEC, SPEC | {"capacity": {"storage": "2Gi"}, "persistentVolumeReclaimPolicy": "Delete"}, []),
        (
            SPEC,
            SPEC | {"hostPath": {"path": "/other"}},
            [
                "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation",
            ],
        ),
        (SPEC, SPEC | {"volumeMode": "Block"}, ['volumeMode: Invalid value: "Block": field is immutable']),
        (SPEC, SPEC | {"nodeAffinity": AFFINITY}, []),
        (
            SPEC | {"nodeAffinity": AFFINITY},
            SPEC,
            ["nodeAffinity: Invalid value: null: field is immutable"],
        ),
        (
            with_csi(volumeAttributesClassName="gold"),
            with_csi(volumeAttributesClassName="silver"),
            [],
        ),
        (
            with_csi(volumeAttributesClassName="gold"),
            with_csi(),
            ["spec.volumeAttributesClassName: Forbidden: update from non-nil value to nil is forbidden"],
        ),
        (
            with_csi(),
            with_csi(csi=CSI["csi"] | {"controllerExpandSecretRef": {"name": "s", "namespace": "a"}}),
            [],
        ),
        (SPEC, SPEC | {"claimRef": {"name": "c", "namespace": "a"}}, []),
    ],
)
def test_what_of_a_volume_may_change(before: dict[str, Any], after: dict[str, Any], expected: list[str]) -> None:
    assert update_faults("PersistentVolume", {"spec": before}, {"spec": after}) == expected


def test_how_volumes_are_shown() -> None:
    spec = SPEC | {
        "accessModes": ["ReadWriteMany", "ReadWriteOnce"],
        "claimRef": {"name": "c", "namespace": "shop"},
        "storageClassName": "fast",
    }
    row = cells("PersistentVolume", 0, wide=True, spec=spec, status={"phase": "Bound", "reason": "r"})
    assert list(row.values()) == [
        "1Gi",
        "RWO,RWX",
        "Retain",
        "Bound",
        "shop/c",
        "fast",
        "<unset>",
        "r",
        "<unknown>",
        "Filesystem",
    ]
    deleted = {"deletionTimestamp": "2026-01-02T03:04:05Z"}
    assert cells("PersistentVolume", 0, spec=spec, metadata=deleted)["Status"] == "Terminating"
