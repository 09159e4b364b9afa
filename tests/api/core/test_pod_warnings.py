"""What is allowed and surely not meant: the warnings that an object comes with."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from knarr.api.apps.v1 import Deployment
from knarr.api.core.pod_warnings import SELECTS_NOTHING
from knarr.api.core.v1 import Pod, Service
from tests.api.made import resource

OLD = "failure-domain.beta.kubernetes.io/zone"
INSTEAD = 'deprecated since v1.17; use "topology.kubernetes.io/zone" instead'


def container(**fields: Any) -> dict[str, Any]:
    return {"containers": [{"name": "c", "image": "i", **fields}]}


def ports(*listed: dict[str, Any]) -> dict[str, Any]:
    return container(ports=[{"protocol": "TCP", **each} for each in listed])


def env(*listed: tuple[str, str]) -> dict[str, Any]:
    return container(env=[{"name": name, "value": value} for name, value in listed])


NODE_TERM = {"matchExpressions": [{"key": OLD, "operator": "Exists"}]}
ANTI = {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "x"}]}
CASES: list[tuple[dict[str, Any], list[str]]] = [
    ({"nodeSelector": {OLD: "a"}}, [f"spec.nodeSelector[{OLD}]: {INSTEAD}"]),
    (
        {
            "affinity": {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [NODE_TERM]},
                    "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": NODE_TERM}],
                }
            }
        },
        [
            f"spec.affinity.nodeAffinity.{part}.matchExpressions[0].key: {OLD} is {INSTEAD}"
            for part in (
                "requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]",
                "preferredDuringSchedulingIgnoredDuringExecution[0].preference",
            )
        ],
    ),
    (
        {"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": OLD, "whenUnsatisfiable": "DoNotSchedule"}]},
        [
            f"spec.topologySpreadConstraints[0].topologyKey: {OLD} is {INSTEAD}",
            f"spec.topologySpreadConstraints[0].labelSelector: {SELECTS_NOTHING}",
        ],
    ),
    (
        {"affinity": {"podAntiAffinity": ANTI}},
        [
            "spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].labelSelector: "
            + SELECTS_NOTHING
        ],
    ),
    ({"volumes": [{"name": "v", "gitRepo": {"repository": "r"}}]}, ["spec.volumes[0].gitRepo: deprecated in v1.11"]),
    (
        {"hostAliases": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.1"}]},
        ['spec.hostAliases[1].ip: duplicate ip "10.0.0.1"'],
    ),
    (
        {"imagePullSecrets": [{"name": "a"}, {"name": "a"}, {}]},
        [
            'spec.imagePullSecrets[1].name: duplicate name "a"',
            'spec.imagePullSecrets[2].name: invalid empty name ""',
        ],
    ),
    (
        container(resources={"limits": {"memory": "100m", "cpu": "100m"}, "requests": {"memory": "0.5Gi"}}),
        [
            'spec.containers[0].resources.limits[memory]: fractional byte value "100m" is invalid, must be an integer',
        ],
    ),
    (
        env(("A", "1"), ("A", "2"), ("A", "$(A)3"), ("B", "x")),
        ['spec.containers[0].env[1]: hides previous definition of "A", which may be dropped when using apply'],
    ),
    (
        ports({"containerPort": 80}, {"containerPort": 80}),
        ["spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]"],
    ),
    (
        ports({"containerPort": 80, "hostPort": 81}, {"containerPort": 80}),
        ["spec.containers[0].ports[1]: overlapping port definition with spec.containers[0].ports[0]"],
    ),
    (
        ports({"containerPort": 80, "hostPort": 81}, {"containerPort": 80, "hostPort": 81, "hostIP": "10.0.0.1"}),
        ["spec.containers[0].ports[1]: dangerously ambiguous port definition with spec.containers[0].ports[0]"],
    ),
    (ports({"containerPort": 80}, {"containerPort": 80, "protocol": "UDP"}), []),
    (
        {"terminationGracePeriodSeconds": -1},
        ["spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"],
    ),
]


def told(kind: str, obj: Any, old: Any = None) -> list[str]:
    return list(resource(kind).strategy.warnings(obj, old))


@pytest.mark.parametrize(("spec", "expected"), CASES, ids=range(len(CASES)))
def test_pods_and_templates_are_warned_about(spec: dict[str, Any], expected: list[str]) -> None:
    spec = {**container(), **spec}
    assert told("Pod", msgspec.convert({"metadata": {"name": "p"}, "spec": spec}, Pod)) == expected
    written = {"metadata": {"name": "d", "generation": 1}, "spec": {"template": {"spec": spec}}}
    deployment = msgspec.convert(written, Deployment)
    within = [
        each.replace("spec.", "spec.template.spec.", 1).replace("with spec.", "with spec.template.spec.")
        for each in expected
    ]
    assert told("Deployment", deployment) == within
    assert told("Deployment", deployment, deployment) == [], "nothing has changed"


def test_security_in_annotations_is_told_to_be_in_fields() -> None:
    annotations = {
        "seccomp.security.alpha.kubernetes.io/pod": "runtime/default",
        "container.seccomp.security.alpha.kubernetes.io/c": "x",
        "container.apparmor.security.beta.kubernetes.io/c": "x",
        "scheduler.alpha.kubernetes.io/critical-pod": "",
    }
    pod = msgspec.convert({"metadata": {"name": "p", "annotations": annotations}, "spec": container()}, Pod)
    place, seccomp = "metadata.annotations", 'non-functional in v1.27+; use the "seccompProfile" field instead'
    expected = [
        f'{place}[scheduler.alpha.kubernetes.io/critical-pod]: non-functional in v1.16+; use the "priorityClassName" '
        "field instead",
        f"{place}[seccomp.security.alpha.kubernetes.io/pod]: {seccomp}",
        f"{place}[container.seccomp.security.alpha.kubernetes.io/c]: {seccomp}",
    ]
    assert told("Pod", pod) == expected
    assert told("Pod", pod, pod) == []


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            {"type": "ClusterIP", "clusterIP": "None", "externalIPs": ["10.0.0.1"], "sessionAffinity": "ClientIP"},
            [
                "spec.externalIPs is ignored for headless services",
                "spec.SessionAffinity is ignored for headless services",
            ],
        ),
        (
            {"type": "ClusterIP", "externalIPs": ["10.0.0.1"], "sessionAffinity": "None"},
            ["spec.externalIPs is deprecated and may no longer be implemented in some clusters"],
        ),
        (
            {"type": "ExternalName", "externalName": "a.b", "externalIPs": ["10.0.0.1"], "sessionAffinity": "None"},
            ['spec.externalIPs is ignored when spec.type is "ExternalName"'],
        ),
        (
            {"type": "ClusterIP", "externalName": "a.b", "trafficDistribution": "PreferClose"},
            [
                'spec.externalName is ignored when spec.type is not "ExternalName"',
                'spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone"',
            ],
        ),
    ],
)
def test_services_are_warned_about(spec: dict[str, Any], expected: list[str]) -> None:
    assert told("Service", msgspec.convert({"metadata": {"name": "s"}, "spec": spec}, Service)) == expected
