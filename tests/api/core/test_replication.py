"""ReplicationControllers and PodTemplates: defaults, rules, and how they are shown."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.made import cells, container, faults, made, plain, status_faults

TEMPLATE = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container()]}}


def test_what_selects_it_is_taken_from_its_template() -> None:
    controller = plain(made("ReplicationController", spec={"template": TEMPLATE}))
    assert controller["spec"]["selector"] == controller["metadata"]["labels"] == {"app": "web"}
    assert controller["spec"]["replicas"] == 1


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ({"selector": {"app": "web"}}, "spec.template: Required value"),
        (
            {"selector": {"app": "db"}, "template": TEMPLATE},
            'spec.template.metadata.labels: Invalid value: {"app":"web"}: `selector` does not match template `labels`',
        ),
        (
            {"replicas": -1, "template": TEMPLATE},
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            {"minReadySeconds": -1, "template": TEMPLATE},
            "spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0",
        ),
        ({"template": {"spec": {"containers": [container()]}}}, "spec.selector: Required value"),
        (
            {"template": TEMPLATE | {"spec": {"containers": [container()], "restartPolicy": "Never"}}},
            'spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"',
        ),
        (
            {"template": TEMPLATE | {"spec": {"containers": [container()], "activeDeadlineSeconds": 5}}},
            "spec.template.spec.activeDeadlineSeconds: Forbidden: "
            "activeDeadlineSeconds in ReplicationController is not Supported",
        ),
    ],
)
def test_what_a_controller_may_not_say(spec: dict[str, Any], fault: str) -> None:
    assert faults("ReplicationController", spec=spec) == [fault]


def test_what_its_status_may_not_say() -> None:
    assert status_faults("ReplicationController", {"replicas": 1, "readyReplicas": 2}, spec={"template": TEMPLATE}) == [
        "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas"
    ]


def test_how_a_controller_is_shown() -> None:
    status = {"replicas": 2, "readyReplicas": 1}
    row = cells("ReplicationController", 0, wide=True, spec={"template": TEMPLATE, "replicas": 3}, status=status)
    assert row == {
        "Desired": 3,
        "Current": 2,
        "Ready": 1,
        "Age": "<unknown>",
        "Containers": "web",
        "Images": "nginx:1.25",
        "Selector": "app=web",
    }


def test_pod_templates() -> None:
    assert faults("PodTemplate", template=TEMPLATE) == []
    assert faults("PodTemplate", template={"spec": {}}) == ["template.spec.containers: Required value"]
    assert cells("PodTemplate", 0, template=TEMPLATE) == {
        "Containers": "web",
        "Images": "nginx:1.25",
        "Pod Labels": "app=web",
    }
