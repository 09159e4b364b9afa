"""Priority levels: defaults, rules, and how they are shown."""

from __future__ import annotations

from typing import Any

import pytest

from knarr.api.flowcontrol.defaults import LEVELS, MANDATORY_LEVELS
from tests.api.made import cells, faults, made, plain, resource, shown, status_faults

KIND = "PriorityLevelConfiguration"
QUEUE = {"type": "Queue", "queuing": {"queues": 512, "handSize": 4, "queueLengthLimit": 100}}
REJECT = {"type": "Reject"}


def limited(response: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "Limited", "limited": {"limitResponse": response, **more}}


def queue(**more: int) -> dict[str, Any]:
    return limited({"type": "Queue", "queuing": {"queues": 512, "handSize": 4, "queueLengthLimit": 100} | more})


def test_what_nobody_says() -> None:
    level = plain(made(KIND, spec=limited({"type": "Queue", "queuing": {}})))["spec"]["limited"]
    assert (level["nominalConcurrencyShares"], level["lendablePercent"]) == (30, 0)
    assert level["limitResponse"]["queuing"] == {"queues": 64, "handSize": 8, "queueLengthLimit": 50}
    exempt = plain(made(KIND, spec={"type": "Exempt", "exempt": {}}))["spec"]["exempt"]
    assert exempt == {"nominalConcurrencyShares": 0, "lendablePercent": 0}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (limited(REJECT), []),
        (limited(QUEUE), []),
        (queue(queues=10**7, handSize=2), []),
        (limited(REJECT, nominalConcurrencyShares=0), []),
        (
            {"type": "Exempt"},
            [
                "spec.type: Invalid value: \"Exempt\": type must be 'Exempt' if and only if name is 'exempt'",
            ],
        ),
        ({"type": "Some"}, ['spec.type: Unsupported value: "Some": supported values: "Exempt", "Limited"']),
        (
            {"type": "Limited", "exempt": {}},
            [
                "spec.exempt: Forbidden: must be nil if the type is Limited",
                "spec.limited: Required value: must not be empty when type is Limited",
            ],
        ),
        (
            limited(REJECT | {"queuing": {}}),
            ["spec.limited.limitResponse.queuing: Forbidden: must be nil if limited.limitResponse.type is not Limited"],
        ),
        (
            limited({"type": "Queue"}),
            [
                "spec.limited.limitResponse.queuing: Required value: "
                "must not be empty if limited.limitResponse.type is Limited"
            ],
        ),
        (
            limited({"type": "Wait"}),
            ['spec.limited.limitResponse.type: Unsupported value: "Wait": supported values: "Queue", "Reject"'],
        ),
        (
            limited(REJECT, nominalConcurrencyShares=-1, lendablePercent=101, borrowingLimitPercent=-1),
            [
                "spec.limited.nominalConcurrencyShares: Invalid value: -1: must be a non-negative integer",
                "spec.limited.lendablePercent: Invalid value: 101: must be between 0 and 100, inclusive",
                "spec.limited.borrowingLimitPercent: Invalid value: -1: if specified, must be a non-negative integer",
            ],
        ),
        *(
            (
                queue(queues=queues, handSize=hand),
                [
                    f"spec.limited.limitResponse.queuing.handSize: Invalid value: {hand}: required entropy bits of "
                    f"deckSize {queues} and handSize {hand} should not be greater than 60"
                ],
            )
            for queues, hand in ((512, 8), (128, 10), (10**7, 10**7))
        ),
        (
            queue(queues=7, handSize=8),
            ["spec.limited.limitResponse.queuing.handSize: Invalid value: 8: should not be greater than queues (7)"],
        ),
        (
            queue(queues=10**7 + 1, handSize=1, queueLengthLimit=-1),
            [
                "spec.limited.limitResponse.queuing.queueLengthLimit: Invalid value: -1: must be positive",
                "spec.limited.limitResponse.queuing.queues: Invalid value: 10000001: must not be greater than 10000000",
            ],
        ),
    ],
)
def test_what_a_level_may_say(spec: dict[str, Any], expected: list[str]) -> None:
    assert faults(KIND, spec=spec) == expected


def test_the_mandatory_levels_are_fixed_but_for_what_exempt_lends() -> None:
    rules = resource(KIND).strategy
    for level in LEVELS:
        before = plain(level)
        rules.default(level)
        assert plain(level) == before
        assert shown(rules.validate(level)) == []
    changed = plain(MANDATORY_LEVELS["exempt"].spec) | {"exempt": {"nominalConcurrencyShares": 10}}
    assert faults(KIND, metadata={"name": "exempt"}, spec=changed) == []
    assert [fault.rpartition(": ")[2] for fault in faults(KIND, metadata={"name": "exempt"}, spec=limited(REJECT))] == [
        "type must be 'Exempt' if and only if name is 'exempt'",
        "spec of 'exempt' except the 'spec.exempt' field must equal the fixed value",
    ]
    (fault,) = faults(KIND, metadata={"name": "catch-all"}, spec=limited(REJECT))
    assert fault.endswith("spec of 'catch-all' must equal the fixed value")


@pytest.mark.parametrize("kind", [KIND, "FlowSchema"])
def test_a_status_has_one_condition_of_a_type(kind: str) -> None:
    conditions = [{"type": "1"}, {"type": "1"}, {"type": ""}]
    assert status_faults(kind, {"conditions": conditions}, spec={"type": "Limited"} if kind == KIND else {}) == [
        'status.conditions[1].type: Duplicate value: "1"',
        "status.conditions[2].type: Required value: must not be empty",
    ]


def test_how_levels_are_shown() -> None:
    row = cells(KIND, 0, spec=limited(QUEUE))
    del row["Age"]
    assert list(row.values()) == ["Limited", 30, 512, 4, 100]
    row = cells(KIND, 0, spec={"type": "Exempt"})
    del row["Age"]
    assert list(row.values()) == ["Exempt", "<none>", "<none>", "<none>", "<none>"]
