"""Persistent volume claims: defaults, rules, and how they are shown."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.made import cells, faults, made, plain, resource, update_faults

SPEC: dict[str, Any] = {
    "accessModes": ["ReadWriteOnce"],
    "resources": {"requests": {"storage": "2Gi"}},
    "storageClassName": "fast",
}
FIXED = (
    "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for "
    "bound claims"
)
CLAIM = {"kind": "PersistentVolumeClaim", "name": "other"}
SNAPSHOT = {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "s"}
POPULATOR = {"apiGroup": "example.com", "kind": "Image", "name": "i"}


def asked(storage: str) -> dict[str, Any]:
    return {"resources": {"requests": {"storage": storage}}}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"storageClassName": ""}, []),
        ({"accessModes": []}, ["spec.accessModes: Required value: at least 1 access mode is required"]),
        (
            {"accessModes": ["ReadWriteOncePod", "ReadOnlyMany"]},
            ["spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes"],
        ),
        ({"resources": {}}, ["spec.resources[storage]: Required value"]),
        (asked("0"), ['spec.resources[storage]: Invalid value: "0": must be greater than zero']),
        ({"volumeMode": "Raw"}, ['spec.volumeMode: Unsupported value: "Raw": supported values: "Block", "Filesystem"']),
        (
            {"dataSource": {"kind": "Pod", "name": ""}},
            [
                "spec.dataSource.name: Required value",
                "spec.dataSource: Invalid value: \"Pod\": must be 'PersistentVolumeClaim' when referencing the default "
                "apiGroup",
            ],
        ),
        ({"dataSource": CLAIM, "dataSourceRef": CLAIM}, []),
        (
            {"dataSource": CLAIM, "dataSourceRef": CLAIM | {"name": "third"}},
            ['spec: Invalid value: "spec.dataSource": must match dataSourceRef'],
        ),
        (
            {"dataSource": CLAIM, "dataSourceRef": CLAIM | {"namespace": "shop"}},
            ['spec: Invalid value: "spec.dataSource": may not be specified when dataSourceRef.namespace is specified'],
        ),
    ],
)
def test_what_a_claim_may_say(change: dict[str, Any], expected: list[str]) -> None:
    assert faults("PersistentVolumeClaim", spec=SPEC | change) == expected


def test_names_in_a_claim_are_names() -> None:
    found = faults(
        "PersistentVolumeClaim",
        spec=SPEC
        | {
            "storageClassName": "F",
            "volumeAttributesClassName": "G",
            "dataSourceRef": POPULATOR | {"apiGroup": "A", "namespace": "B"},
        },
    )
    assert [fault.partition(": a lowercase")[0] for fault in found] == [
        'spec.storageClassName: Invalid value: "F"',
        'spec.dataSourceRef.apiGroup: Invalid value: "A"',
        'spec.dataSourceRef.namespace: Invalid value: "B"',
        'spec.volumeAttributesClassName: Invalid value: "G"',
    ]


@pytest.mark.parametrize(
    ("sources", "old", "new"),
    [
        ({"dataSource": CLAIM}, CLAIM, CLAIM),
        ({"dataSource": SNAPSHOT}, SNAPSHOT, SNAPSHOT),
        ({"dataSourceRef": POPULATOR}, POPULATOR, POPULATOR),
        ({"dataSourceRef": POPULATOR | {"namespace": "shop"}}, None, POPULATOR | {"namespace": "shop"}),
        ({"dataSource": POPULATOR}, None, None),
    ],
)
def test_both_sources_say_the_same(sources: dict[str, Any], old: Any, new: Any) -> None:
    claim = made("PersistentVolumeClaim", spec=SPEC | sources)
    resource("PersistentVolumeClaim").strategy.prepare_for_create(claim)
    spec = plain(claim)["spec"]
    assert (spec.get("dataSource"), spec.get("dataSourceRef")) == (old, new)


BOUND = {"phase": "Bound", "capacity": {"storage": "1Gi"}}


@pytest.mark.parametrize(
    ("before", "after", "status", "expected"),
    [
        ({}, {"volumeName": "pv"}, {}, []),
        ({"volumeName": "pv"}, {"volumeName": "other"}, {}, [FIXED]),
        ({}, {"accessModes": ["ReadWriteMany"]}, BOUND, [FIXED]),
        ({}, asked("3Gi"), BOUND, []),
        ({}, asked("3Gi"), {"phase": "Pending"}, [FIXED]),
        ({}, asked("1536Mi"), BOUND, []),
        (
            {},
            asked("1Gi"),
            BOUND,
            ["spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"],
        ),
        ({"storageClassName": None}, {"storageClassName": "fast"}, {}, []),
        ({}, {"storageClassName": "slow"}, {}, [FIXED]),
        (
            {},
            {"volumeMode": "Block"},
            BOUND,
            [FIXED, 'volumeMode: Invalid value: "Block": field is immutable'],
        ),
        ({}, {"volumeAttributesClassName": "gold"}, {}, []),
        (
            {"volumeAttributesClassName": "gold"},
            {},
            {},
            ["spec.volumeAttributesClassName: Forbidden: update from non-nil value to nil is forbidden"],
        ),
        (
            {"volumeAttributesClassName": "gold"},
            {"volumeAttributesClassName": ""},
            {},
            ["spec.volumeAttributesClassName: Forbidden: update from non-nil value to an empty string is forbidden"],
        ),
    ],
)
def test_what_of_a_claim_may_change(
    before: dict[str, Any], after: dict[str, Any], status: dict[str, Any], expected: list[str]
) -> None:
    found = update_faults(
        "PersistentVolumeClaim",
        {"spec": SPEC | before, "status": status},
        {"spec": SPEC | after, "status": status},
    )
    assert found == expected


def test_how_claims_are_shown() -> None:
    status = BOUND | {"accessModes": ["ReadWriteOnce"]}
    row = cells("PersistentVolumeClaim", 0, wide=True, spec=SPEC | {"volumeName": "pv"}, status=status)
    assert list(row.values()) == ["Bound", "pv", "1Gi", "RWO", "fast", "<unset>", "<unknown>", "Filesystem"]
    row = cells("PersistentVolumeClaim", 0, spec=SPEC, status={"phase": "Pending"})
    assert list(row.values()) == ["Pending", "", "", "", "fast", "<unset>", "<unknown>"]
    deleted = {"deletionTimestamp": "2026-01-02T03:04:05Z"}
    assert cells("PersistentVolumeClaim", 0, spec=SPEC, metadata=deleted)["Status"] == "Terminating"
