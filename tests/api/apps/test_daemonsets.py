"""DaemonSets: defaults, each rule of what they may say and how they may change, and how they are shown."""

from __future__ import annotations

from typing import Any

import pytest

from knarr.api.apps.daemonsets import TEMPLATE_GENERATION
from knarr.api.types import copy
from tests.api.made import cells, container, faults, made, plain, resource, status_faults, update_faults, workload

TEMPLATE = {"metadata": {"labels": {"app": "web"}}}


def rolling(**fields: Any) -> dict[str, Any]:
    return {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": fields}}


def test_defaults() -> None:
    spec = plain(made("DaemonSet", spec=workload()))["spec"]
    assert spec["updateStrategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}
    assert spec["revisionHistoryLimit"] == 10


def test_changes_of_the_template_are_counted_by_the_server_alone() -> None:
    rules = resource("DaemonSet").strategy
    first = made("DaemonSet", spec=workload())
    rules.prepare_for_create(first)
    assert first.metadata.annotations == {TEMPLATE_GENERATION: "1"}
    labelled = copy(first)
    labelled.metadata.annotations = {TEMPLATE_GENERATION: "9"}
    rules.prepare_for_update(labelled, first)
    assert labelled.metadata.annotations == {TEMPLATE_GENERATION: "1"}
    changed = copy(first)
    changed.metadata.annotations = {}
    changed.spec.template.spec.containers[0].image = "nginx:2"
    rules.prepare_for_update(changed, first)
    assert changed.metadata.annotations == {TEMPLATE_GENERATION: "2"}


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        (
            {"updateStrategy": {"type": "Never"}},
            'spec.updateStrategy: Unsupported value: {"type":"Never"}: supported values: "RollingUpdate", "OnDelete"',
        ),
        (
            rolling(maxUnavailable=1, maxSurge=1),
            "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable "
            "is non-zero",
        ),
        (
            rolling(maxUnavailable=0),
            "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0",
        ),
        (
            rolling(maxUnavailable="101%"),
            'spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: "101%": must not be greater than 100%',
        ),
        (
            rolling(maxUnavailable=0, maxSurge="200%"),
            'spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: "200%": must not be greater than 100%',
        ),
        ({"minReadySeconds": -1}, "spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0"),
        (
            {"revisionHistoryLimit": -1},
            "spec.revisionHistoryLimit: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            {"template": TEMPLATE | {"spec": {"containers": [container()], "restartPolicy": "OnFailure"}}},
            'spec.template.spec.restartPolicy: Unsupported value: "OnFailure": supported values: "Always"',
        ),
        (
            {"template": TEMPLATE | {"spec": {"containers": [container()], "activeDeadlineSeconds": 5}}},
            "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in DaemonSet is not Supported",
        ),
        (
            {"selector": {"matchLabels": {"app": "db"}}},
            'spec.template.metadata.labels: Invalid value: {"app":"web"}: `selector` does not match template `labels`',
        ),
    ],
)
def test_what_it_may_not_say(spec: dict[str, Any], fault: str) -> None:
    assert faults("DaemonSet", spec=workload(**spec)) == [fault]


def test_its_selector_stays() -> None:
    after = workload(selector={"matchExpressions": [{"key": "app", "operator": "Exists"}]})
    assert update_faults("DaemonSet", {"spec": workload()}, {"spec": after}) == [
        'spec.selector: Invalid value: {"matchExpressions":[{"key":"app","operator":"Exists"}]}: field is immutable'
    ]


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        (
            {"numberReady": -1},
            "status.numberReady: Invalid value: -1: must be greater than or equal to 0",
        ),
        ({"collisionCount": 1}, "status.collisionCount: Invalid value: 1: cannot be decremented"),
    ],
)
def test_what_its_status_may_not_say(status: dict[str, Any], fault: str) -> None:
    before = {"collisionCount": 2 if "collisionCount" in status else 0}
    assert status_faults("DaemonSet", status, before, spec=workload()) == [fault]


def test_how_it_is_shown() -> None:
    status = {
        "desiredNumberScheduled": 4,
        "currentNumberScheduled": 3,
        "numberReady": 2,
        "updatedNumberScheduled": 1,
        "numberAvailable": 2,
        "numberMisscheduled": 0,
    }
    template = TEMPLATE | {"spec": {"containers": [container()], "nodeSelector": {"disk": "ssd"}}}
    assert cells("DaemonSet", 0, wide=True, spec=workload(template=template), status=status) == {
        "Desired": 4,
        "Current": 3,
        "Ready": 2,
        "Up-to-date": 1,
        "Available": 2,
        "Node Selector": "disk=ssd",
        "Age": "<unknown>",
        "Containers": "web",
        "Images": "nginx:1.25",
        "Selector": "app=web",
    }
