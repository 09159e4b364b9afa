"""StatefulSets: defaults, each rule of what they may say and how they may change, and how they are shown."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.made import cells, container, faults, made, plain, status_faults, update_faults, workload

CLAIM = {"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}


def rolling(**fields: Any) -> dict[str, Any]:
    return {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": fields}}


def test_defaults() -> None:
    spec = plain(made("StatefulSet", spec=workload(serviceName="web")))["spec"]
    assert spec["replicas"] == 1
    assert spec["podManagementPolicy"] == "OrderedReady"
    assert spec["updateStrategy"] == {"type": "RollingUpdate", "rollingUpdate": {"partition": 0, "maxUnavailable": 1}}
    assert spec["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    assert spec["revisionHistoryLimit"] == 10
    assert spec["template"]["spec"]["restartPolicy"] == "Always"


def test_replacing_pods_by_hand_has_no_rollout() -> None:
    strategy = plain(made("StatefulSet", spec=workload(updateStrategy={"type": "OnDelete"})))["spec"]["updateStrategy"]
    assert strategy == {"type": "OnDelete"}


def test_claim_templates_are_claims() -> None:
    claim = plain(made("StatefulSet", spec=workload(volumeClaimTemplates=[CLAIM])))["spec"]["volumeClaimTemplates"][0]
    assert (claim["kind"], claim["status"], claim["spec"]["volumeMode"]) == (
        "PersistentVolumeClaim",
        {"phase": "Pending"},
        "Filesystem",
    )


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        (
            {"podManagementPolicy": "Free"},
            "spec.podManagementPolicy: Invalid value: \"Free\": must be 'OrderedReady' or 'Parallel'",
        ),
        (
            {"updateStrategy": {"type": "Never"}},
            "spec.updateStrategy: Invalid value: {\"type\":\"Never\"}: must be 'RollingUpdate' or 'OnDelete'",
        ),
        (
            {"updateStrategy": {"type": "OnDelete", "rollingUpdate": {"partition": 1}}},
            'spec.updateStrategy.rollingUpdate: Invalid value: {"partition":1}: only allowed for '
            "updateStrategy 'RollingUpdate'",
        ),
        (
            rolling(partition=-1),
            "spec.updateStrategy.rollingUpdate.partition: Invalid value: -1: must be greater than or equal to 0",
        ),
        (rolling(maxUnavailable=0), "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: 0: cannot be 0"),
        (
            rolling(maxUnavailable="101%"),
            'spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: "101%": must not be greater than 100%',
        ),
        (
            {"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Keep"}},
            'spec.persistentVolumeClaimRetentionPolicy.whenDeleted: Unsupported value: "Keep": '
            'supported values: "Retain", "Delete"',
        ),
        ({"replicas": -1}, "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        ({"minReadySeconds": -1}, "spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0"),
        ({"ordinals": {"start": -1}}, "spec.ordinals.start: Invalid value: -1: must be greater than or equal to 0"),
        (
            {"revisionHistoryLimit": -1},
            "spec.revisionHistoryLimit: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            {"selector": {"matchLabels": {"app": "db"}}},
            'spec.template.metadata.labels: Invalid value: {"app":"web"}: `selector` does not match template `labels`',
        ),
        (
            {
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [container()], "restartPolicy": "Never"},
                }
            },
            'spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"',
        ),
        (
            {
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [container()], "activeDeadlineSeconds": 5},
                }
            },
            "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in StatefulSet is not "
            "Supported",
        ),
    ],
)
def test_what_it_may_not_say(spec: dict[str, Any], fault: str) -> None:
    assert faults("StatefulSet", spec=workload(**spec)) == [fault]


def test_a_selector_is_needed() -> None:
    assert "spec.selector: Required value" in faults("StatefulSet", spec=workload(selector={}))


def test_its_pods_may_mount_what_they_claim() -> None:
    mounting = container(volumeMounts=[{"name": "data", "mountPath": "/data"}])
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [mounting]}}
    assert faults("StatefulSet", spec=workload(template=template, volumeClaimTemplates=[CLAIM])) == []
    assert faults("StatefulSet", spec=workload(template=template)) == [
        'spec.template.spec.containers[0].volumeMounts[0].name: Not found: "data"'
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"replicas": 5},
        {"ordinals": {"start": 3}},
        {"minReadySeconds": 3},
        {"revisionHistoryLimit": 3},
        {"persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete"}},
        rolling(partition=2),
        {"template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container(image="nginx:2")]}}},
    ],
)
def test_what_may_change(change: dict[str, Any]) -> None:
    assert update_faults("StatefulSet", {"spec": workload()}, {"spec": workload(**change)}) == []


@pytest.mark.parametrize(
    "change",
    [
        {"serviceName": "other"},
        {"podManagementPolicy": "Parallel"},
        {"volumeClaimTemplates": [CLAIM]},
        {"selector": {"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "app", "operator": "Exists"}]}},
    ],
)
def test_what_may_not_change(change: dict[str, Any]) -> None:
    assert update_faults(
        "StatefulSet", {"spec": workload(serviceName="web")}, {"spec": workload(serviceName="web") | change}
    ) == [
        "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', "
        "'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are "
        "forbidden"
    ]


@pytest.mark.parametrize(
    ("status", "before", "fault"),
    [
        ({"replicas": -1}, {}, "status.replicas: Invalid value: -1: must be greater than or equal to 0"),
        (
            {"replicas": 1, "readyReplicas": 2},
            {},
            "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas",
        ),
        (
            {"replicas": 1, "updatedReplicas": 2},
            {},
            "status.updatedReplicas: Invalid value: 2: cannot be greater than status.replicas",
        ),
        (
            {"replicas": 2, "availableReplicas": 2, "readyReplicas": 1},
            {},
            "status.availableReplicas: Invalid value: 2: cannot be greater than status.readyReplicas",
        ),
        (
            {"replicas": 1, "collisionCount": 1},
            {"collisionCount": 2},
            "status.collisionCount: Invalid value: 1: cannot be decremented",
        ),
    ],
)
def test_what_its_status_may_not_say(status: dict[str, Any], before: dict[str, Any], fault: str) -> None:
    assert status_faults("StatefulSet", status, {"replicas": 0, **before}, spec=workload())[:1] == [fault]


def test_how_it_is_shown() -> None:
    row = cells("StatefulSet", 0, wide=True, spec=workload(replicas=3), status={"replicas": 3, "readyReplicas": 2})
    assert row == {"Ready": "2/3", "Age": "<unknown>", "Containers": "web", "Images": "nginx:1.25"}
