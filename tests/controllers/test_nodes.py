"""What a node's condition makes of its taints, and how long pods stay."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from knarr.api.core.v1 import Node, Taint, Toleration
from knarr.controllers.nodelifecycle import silent_status, taints_of
from knarr.controllers.tainteviction import stays_s

NOW_S = 1_767_225_600.0


def node(ready: str | None = "True", *, taints: list[Any] | None = None, **more: Any) -> Node:
    conditions = [{"type": "Ready", "status": ready}] if ready else []
    return msgspec.convert(
        {
            "metadata": {"name": "n", "uid": "n"},
            "spec": {"taints": taints or [], **more.get("spec", {})},
            "status": {"conditions": conditions + more.get("conditions", [])},
        },
        Node,
    )


def keys(taints: list[Taint]) -> list[tuple[str, str]]:
    return [(taint.key.removeprefix("node.kubernetes.io/"), taint.effect) for taint in taints]


BORN = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (node("True"), []),
        (node("False"), [("not-ready", "NoSchedule"), ("not-ready", "NoExecute")]),
        (node("Unknown"), [("unreachable", "NoSchedule"), ("unreachable", "NoExecute")]),
        (node("True", taints=[BORN]), []),
        (node(None, taints=[BORN]), [("not-ready", "NoSchedule")]),
        (node("True", taints=[{"key": "mine", "effect": "NoExecute"}]), [("mine", "NoExecute")]),
        (node("True", spec={"unschedulable": True}), [("unschedulable", "NoSchedule")]),
        (
            node("True", conditions=[{"type": "DiskPressure", "status": "True"}]),
            [("disk-pressure", "NoSchedule")],
        ),
        (node("True", conditions=[{"type": "DiskPressure", "status": "Unknown"}]), []),
    ],
)
def test_taints(one: Node, expected: list[tuple[str, str]]) -> None:
    assert keys(taints_of(one, NOW_S)) == expected


def test_a_taint_that_stays_keeps_its_time() -> None:
    first = taints_of(node("False"), NOW_S)
    again = taints_of(node("False", taints=msgspec.to_builtins(first)), NOW_S + 100)
    assert again == first


def test_a_silent_node_is_unknown_in_all_that_only_it_could_know() -> None:
    status = silent_status(node("True"), NOW_S)
    assert [(c.type, c.status, c.reason) for c in status.conditions] == [
        ("Ready", "Unknown", "NodeStatusUnknown"),
        ("MemoryPressure", "Unknown", "NodeStatusNeverUpdated"),
        ("DiskPressure", "Unknown", "NodeStatusNeverUpdated"),
        ("PIDPressure", "Unknown", "NodeStatusNeverUpdated"),
    ]


def taint(key: str, added: str | None = "2026-01-01T00:00:00Z") -> Taint:
    return msgspec.convert({"key": key, "effect": "NoExecute", "timeAdded": added}, Taint)


def toleration(key: str, seconds: int | None = None) -> Toleration:
    return Toleration(key=key, operator="Exists", effect="NoExecute", toleration_seconds=seconds)


@pytest.mark.parametrize(
    ("tolerations", "taints", "expected"),
    [
        ([], [], None),
        ([], [taint("a")], 0),
        ([toleration("a")], [taint("a")], None),
        ([toleration("a", 300)], [taint("a")], 290),
        ([toleration("a", 300), toleration("b", 60)], [taint("a"), taint("b")], 50),
        ([toleration("a", 300)], [taint("a"), taint("b")], 0),
        ([toleration("a", 5)], [taint("a")], 0),
        ([toleration("a", 300)], [taint("a", None)], 300),
    ],
)
def test_stays(tolerations: list[Toleration], taints: list[Taint], expected: float | None) -> None:
    assert stays_s(tolerations, taints, NOW_S + 10) == expected
