"""Volume attachments: rules, and how they are shown."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.made import cells, faults, status_faults, update_faults

SPEC: dict[str, Any] = {
    "attacher": "csi.example.com",
    "nodeName": "one",
    "source": {"persistentVolumeName": "pv"},
}
INLINE = {"inlineVolumeSpec": {"accessModes": ["ReadWriteOnce"]}}
ONE_OF = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"attacher": ""}, ["spec.attacher: Required value"]),
        ({"source": {}}, [f"spec.source: Required value: {ONE_OF}"]),
        ({"source": {"persistentVolumeName": "pv", **INLINE}}, [f"spec.source: Forbidden: {ONE_OF}"]),
        (
            {"source": {"persistentVolumeName": ""}},
            [
                "spec.source.persistentVolumeName: Required value: must specify non empty persistentVolumeName",
            ],
        ),
    ],
)
def test_what_an_attachment_may_say(change: dict[str, Any], expected: list[str]) -> None:
    assert faults("VolumeAttachment", spec=SPEC | change) == expected


def test_an_attachment_names_a_node_and_a_volume() -> None:
    found = faults("VolumeAttachment", spec=SPEC | {"nodeName": "", "source": {"persistentVolumeName": "PV"}})
    assert [fault.partition(": a lowercase")[0] for fault in found] == [
        'spec.source.persistentVolumeName: Invalid value: "PV"',
        'spec.nodeName: Invalid value: ""',
    ]


def test_an_attachment_never_changes_but_for_its_status() -> None:
    (fault,) = update_faults("VolumeAttachment", {"spec": SPEC}, {"spec": SPEC | {"nodeName": "two"}})
    assert fault.startswith("spec: Invalid value: {")
    assert fault.endswith(": field is immutable")
    long = {"message": "m" * 1025}
    status = {
        "attached": False,
        "attachError": long,
        "detachError": long,
        "attachmentMetadata": {"a": "x" * (256 << 10)},
    }
    assert status_faults("VolumeAttachment", status, spec=SPEC) == [
        "status.attachmentMetadata: Too long: may not be more than 262144 bytes",
        "status.attachError.message: Too long: may not be more than 1024 bytes",
        "status.detachError.message: Too long: may not be more than 1024 bytes",
    ]


def test_how_attachments_are_shown() -> None:
    row = cells("VolumeAttachment", 0, spec=SPEC, status={"attached": True})
    del row["Age"]
    assert list(row.values()) == ["csi.example.com", "pv", "one", True]
