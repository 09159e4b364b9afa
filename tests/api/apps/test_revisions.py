"""ControllerRevisions: what they may say, and that what they keep stays."""

from __future__ import annotations

from tests.api.made import cells, faults, update_faults

OWNER = {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "logs", "uid": "1", "controller": True}


def test_data_and_a_number_are_needed() -> None:
    assert faults("ControllerRevision", revision=-1) == [
        "data: Required value: data is mandatory",
        "revision: Invalid value: -1: must be greater than or equal to 0",
    ]


def test_what_it_keeps_stays() -> None:
    before, after = {"data": {"spec": 1}, "revision": 1}, {"data": {"spec": 2}, "revision": 2}
    assert update_faults("ControllerRevision", before, after) == ['data: Invalid value: {"spec":2}: field is immutable']
    assert update_faults("ControllerRevision", before, before | {"revision": 2}) == []


def test_how_it_is_shown() -> None:
    metadata = {"ownerReferences": [OWNER]}
    row = cells("ControllerRevision", 0, metadata=metadata, data={}, revision=3)
    assert row == {"Controller": "daemonset.apps/logs", "Revision": 3, "Age": "<unknown>"}
    assert cells("ControllerRevision", 0, data={}, revision=3)["Controller"] == "<none>"
