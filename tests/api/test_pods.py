"""Pods: what is filled in, what is refused, what may change, how they end and how they're shown."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from knarr.api.core.v1 import Container, Pod
from knarr.api.registry import built_in
from knarr.api.types import copy
from knarr.clock import utc
from tests.api.objects import change_faults, deployment, faults, headers, pod, row

STRATEGY = built_in().of(Pod).strategy


def plain(obj: Any) -> Any:
    return json.loads(msgspec.json.encode(obj))


def test_smallest_pod_gets_upstreams_defaults() -> None:
    assert plain(pod())["spec"] == {
        "containers": [
            {
                "name": "c",
                "image": "nginx:1",
                "imagePullPolicy": "IfNotPresent",
                "resources": {},
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
            }
        ],
        "dnsPolicy": "ClusterFirst",
        "enableServiceLinks": True,
        "restartPolicy": "Always",
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "terminationGracePeriodSeconds": 30,
    }
    assert plain(pod())["status"] == {"phase": "Pending", "qosClass": "BestEffort"}


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1", "IfNotPresent"),
        ("localhost:5000/nginx", "Always"),
        ("localhost:5000/nginx:1", "IfNotPresent"),
        ("nginx@sha256:" + "a" * 64, "IfNotPresent"),
    ],
)
def test_pull_policy_follows_the_tag(image: str, policy: str) -> None:
    assert pod({"image": image}).spec.containers[0].image_pull_policy == policy


def test_what_is_in_a_container_gets_defaults() -> None:
    container: Container = pod(
        {
            "ports": [{"containerPort": 80}],
            "livenessProbe": {"httpGet": {"port": 80}},
            "resources": {"limits": {"cpu": "1000m", "memory": "1024Ki"}, "requests": {"memory": "0.5Mi"}},
            "env": [
                {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "B", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            ],
        },
        hostNetwork=True,
    ).spec.containers[0]
    assert plain(container.ports[0]) == {"containerPort": 80, "hostPort": 80, "protocol": "TCP"}
    assert plain(container.liveness_probe) == {
        "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
        "timeoutSeconds": 1,
        "periodSeconds": 10,
        "successThreshold": 1,
        "failureThreshold": 3,
    }
    assert container.resources.limits == {"cpu": "1", "memory": "1Mi"}
    assert container.resources.requests == {"cpu": "1", "memory": "512Ki"}
    assert container.env[0].value_from.field_ref.api_version == "v1"
    assert container.env[1].value_from.resource_field_ref.divisor == "0"


def test_volumes_and_the_old_name_of_the_service_account_get_defaults() -> None:
    spec = pod(volumes=[{"name": "a"}, {"name": "b", "configMap": {"name": "x"}}], serviceAccount="robot").spec
    assert plain(spec.volumes) == [
        {"name": "a", "emptyDir": {}},
        {"name": "b", "configMap": {"name": "x", "defaultMode": 420}},
    ]
    assert (spec.service_account_name, spec.service_account) == ("robot", "robot")


def test_templates_get_no_requests_from_limits_and_no_service_links() -> None:
    container = {"name": "c", "image": "n", "resources": {"limits": {"cpu": "1"}}, "ports": [{"containerPort": 80}]}
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container], "hostNetwork": True}}
    spec = deployment(template=template).spec.template.spec
    assert spec.containers[0].resources.requests == {}
    assert spec.containers[0].ports[0].host_port is None
    assert spec.enable_service_links is None


@pytest.mark.parametrize(
    ("resources", "quality"),
    [
        ({}, "BestEffort"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}}, "Guaranteed"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}, "Burstable"),
        ({"limits": {"cpu": "1"}}, "Burstable"),
        ({"requests": {"memory": "1"}}, "Burstable"),
        ({"limits": {"nvidia.com/gpu": "1"}}, "BestEffort"),
        ({"limits": {"cpu": "0", "memory": "0"}}, "BestEffort"),
    ],
)
def test_quality_of_service(resources: dict[str, Any], quality: str) -> None:
    assert pod({"resources": resources}).status.qos_class == quality


C = "spec.containers[0]"
VALID_CONTAINERS: list[dict[str, Any]] = [
    {"volumeMounts": [{"name": "v", "mountPath": "/x", "subPath": "a/b..c"}]},
    {"env": [{"name": "a.b-c d", "value": "x"}]},
    {"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}}]},
    {"ports": [{"containerPort": 80, "name": "http"}, {"containerPort": 80, "protocol": "UDP", "name": "h2"}]},
    {"resources": {"limits": {"cpu": "1", "nvidia.com/gpu": "1", "hugepages-2Mi": "4Mi"}}},
    {"lifecycle": {"preStop": {"sleep": {"seconds": 5}}}},
    {"livenessProbe": {"grpc": {"port": 80}}, "readinessProbe": {"exec": {"command": ["x"]}, "successThreshold": 2}},
]


@pytest.mark.parametrize("container", VALID_CONTAINERS)
def test_right_containers_have_no_faults(container: dict[str, Any]) -> None:
    assert faults(pod(container, volumes=[{"name": "v"}])) == []


LABEL = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    "an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
WRONG_CONTAINERS: list[tuple[dict[str, Any], list[str]]] = [
    ({"name": "", "image": ""}, [f"{C}.name: Required value", f"{C}.image: Required value"]),
    ({"name": "a\n"}, [f'{C}.name: Invalid value: "a\\n": {LABEL}']),
    ({"image": " x"}, [f'{C}.image: Invalid value: " x": must not have leading or trailing whitespace']),
    (
        {"imagePullPolicy": "Often"},
        [f'{C}.imagePullPolicy: Unsupported value: "Often": supported values: "Always", "IfNotPresent", "Never"'],
    ),
    (
        {"ports": [{"containerPort": 0}, {"containerPort": 65536, "hostPort": -1, "protocol": "ICMP", "name": "80"}]},
        [
            f"{C}.ports[0].containerPort: Required value",
            f'{C}.ports[1].name: Invalid value: "80": must contain at least one letter (a-z)',
            f"{C}.ports[1].containerPort: Invalid value: 65536: must be between 1 and 65535, inclusive",
            f"{C}.ports[1].hostPort: Invalid value: -1: must be between 1 and 65535, inclusive",
            f'{C}.ports[1].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"',
        ],
    ),
    (
        {"ports": [{"containerPort": 1, "name": "a"}, {"containerPort": 2, "name": "a"}]},
        [f'{C}.ports[1].name: Duplicate value: "a"'],
    ),
    (
        {"ports": [{"containerPort": 1, "hostPort": 9}, {"containerPort": 2, "hostPort": 9}]},
        [f'{C}.ports[1].hostPort: Duplicate value: "TCP//9"'],
    ),
    (
        {
            "env": [
                {"name": "A=B"},
                {"name": ""},
                {"name": "C", "value": "x", "valueFrom": {"secretKeyRef": {"name": "s"}}},
            ]
        },
        [
            f'{C}.env[0].name: Invalid value: "A=B": a valid environment variable name must consist only of printable '
            "ASCII characters other than '='",
            f"{C}.env[1].name: Required value",
            f"{C}.env[2].valueFrom.secretKeyRef.key: Required value",
            f'{C}.env[2].valueFrom: Invalid value: "": may not be specified when `value` is not empty',
        ],
    ),
    (
        {"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.nonsense"}}}]},
        [
            f'{C}.env[0].valueFrom.fieldRef.fieldPath: Invalid value: "spec.nonsense": error converting fieldPath: '
            "field label not supported: spec.nonsense"
        ],
    ),
    (
        {"envFrom": [{"prefix": "x"}]},
        [f'{C}.envFrom[0]: Invalid value: "": must specify one of: `configMapRef` or `secretRef`'],
    ),
    (
        {
            "volumeMounts": [
                {"name": "no", "mountPath": ""},
                {"name": "v", "mountPath": "/a"},
                {"name": "v", "mountPath": "/a"},
            ]
        },
        [
            f"{C}.volumeMounts[0].mountPath: Required value",
            f'{C}.volumeMounts[0].name: Not found: "no"',
            f'{C}.volumeMounts[2].mountPath: Invalid value: "/a": must be unique',
        ],
    ),
    (
        {"volumeMounts": [{"name": "v", "mountPath": "/a", "subPath": "../x"}]},
        [f"{C}.volumeMounts[0].subPath: Invalid value: \"../x\": must not contain '..'"],
    ),
    (
        {"resources": {"requests": {"cpu": "2", "memory": "-1"}, "limits": {"cpu": "1"}}},
        [
            f'{C}.resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1',
            f'{C}.resources.requests[memory]: Invalid value: "-1": must be greater than or equal to 0',
        ],
    ),
    ({"livenessProbe": {}}, [f"{C}.livenessProbe: Required value: must specify a handler type"]),
    (
        {
            "livenessProbe": {
                "exec": {"command": ["x"]},
                "tcpSocket": {"port": 1},
                "successThreshold": 2,
                "periodSeconds": -1,
            }
        },
        [
            f"{C}.livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
            f"{C}.livenessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0",
            f"{C}.livenessProbe.successThreshold: Invalid value: 2: must be 1",
        ],
    ),
    (
        {"readinessProbe": {"httpGet": {"port": "Web"}, "terminationGracePeriodSeconds": 1}},
        [
            f'{C}.readinessProbe.httpGet.port: Invalid value: "Web": must contain only alpha-numeric characters (a-z, '
            "0-9), and hyphens (-)",
            f"{C}.readinessProbe.terminationGracePeriodSeconds: Invalid value: 1: must not be set for readinessProbes",
        ],
    ),
    ({"lifecycle": {"postStart": {}}}, [f"{C}.lifecycle.postStart: Required value: must specify a handler type"]),
    (
        {"securityContext": {"runAsUser": -1}},
        [f"{C}.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive"],
    ),
]


@pytest.mark.parametrize(("container", "expected"), WRONG_CONTAINERS, ids=lambda value: "")
def test_all_faults_of_a_container_are_told_in_order(container: dict[str, Any], expected: list[str]) -> None:
    assert faults(pod(container, volumes=[{"name": "v"}])) == expected


WRONG_SPECS: list[tuple[dict[str, Any], list[str]]] = [
    ({"containers": []}, ["spec.containers: Required value"]),
    (
        {"restartPolicy": "Sometimes", "dnsPolicy": "Any"},
        [
            'spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "Never", "OnFailure"',
            'spec.dnsPolicy: Unsupported value: "Any": supported values: "ClusterFirst", "ClusterFirstWithHostNet", '
            '"Default", "None"',
        ],
    ),
    (
        {"volumes": [{"name": "a", "emptyDir": {}, "secret": {"secretName": "x"}}, {"name": "b"}, {"name": "b"}]},
        [
            "spec.volumes[0].secret: Forbidden: may not specify more than 1 volume type",
            'spec.volumes[2].name: Duplicate value: "b"',
        ],
    ),
    (
        {"volumes": [{"name": "a", "hostPath": {"path": "/a/../b", "type": "Tape"}}, {"name": "b", "secret": {}}]},
        [
            "spec.volumes[0].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
            'spec.volumes[0].hostPath.type: Unsupported value: "Tape": supported values: "", "BlockDevice", '
            '"CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"',
            "spec.volumes[1].secret.secretName: Required value",
        ],
    ),
    (
        {"initContainers": [{"name": "c", "image": "x", "livenessProbe": {"exec": {"command": ["x"]}}}]},
        [
            'spec.initContainers[0].name: Duplicate value: "c"',
            "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without "
            "restartPolicy=Always",
        ],
    ),
    (
        {"dnsPolicy": "None", "dnsConfig": {}},
        [
            "spec.dnsConfig.nameservers: Required value: must provide at least one DNS nameserver when `dnsPolicy` is "
            "None"
        ],
    ),
    (
        {"dnsConfig": {"nameservers": ["1", "1.1.1.1"]}},
        [
            'spec.dnsConfig.nameservers[0]: Invalid value: "1": must be a valid IP address, (e.g. 10.9.8.7 or '
            "2001:db8::ffff)"
        ],
    ),
    ({"hostname": "A"}, [f'spec.hostname: Invalid value: "A": {LABEL}']),
    (
        {"activeDeadlineSeconds": 0},
        ["spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"],
    ),
    (
        {
            "tolerations": [
                {"operator": "Exists", "value": "x"},
                {"key": "a", "operator": "Near"},
                {"tolerationSeconds": 1},
            ]
        },
        [
            'spec.tolerations[0].operator: Invalid value: {"operator":"Exists","value":"x"}: value must be empty when '
            "`operator` is 'Exists'",
            'spec.tolerations[1].operator: Unsupported value: "Near": supported values: "Equal", "Exists"',
            'spec.tolerations[2].operator: Invalid value: "": operator must be Exists when `key` is empty, which means '
            '"match all values and all keys"',
            "spec.tolerations[2].effect: Invalid value: \"\": effect must be 'NoExecute' when `tolerationSeconds` is "
            "set",
        ],
    ),
    (
        {"topologySpreadConstraints": [{"maxSkew": 0, "topologyKey": "", "whenUnsatisfiable": "Cry"}]},
        [
            "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
            "spec.topologySpreadConstraints[0].topologyKey: Required value: can not be empty",
            'spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: "Cry": supported values: '
            '"DoNotSchedule", "ScheduleAnyway"',
        ],
    ),
    (
        {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}},
        [
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required "
            "value: must have at least one node selector term"
        ],
    ),
]


@pytest.mark.parametrize(("spec", "expected"), WRONG_SPECS, ids=lambda value: "")
def test_all_faults_of_a_pod_are_told_in_order(spec: dict[str, Any], expected: list[str]) -> None:
    assert faults(pod(**spec)) == expected


def test_sidecars_may_have_probes() -> None:
    probe = {"exec": {"command": ["x"]}}
    assert (
        faults(pod(initContainers=[{"name": "s", "image": "x", "restartPolicy": "Always", "livenessProbe": probe}]))
        == []
    )


def changed(old: Pod, **spec: Any) -> Pod:
    new = copy(old)
    for name, value in spec.items():
        setattr(new.spec, name, value)
    return new


def test_images_deadlines_and_more_tolerations_may_change() -> None:
    old = pod(tolerations=[{"key": "a", "operator": "Exists"}])
    new = changed(old, active_deadline_seconds=5)
    new.spec.containers[0].image = "nginx:2"
    new.spec.tolerations.append(copy(new.spec.tolerations[0]))
    new.spec.tolerations[1].key = "b"
    assert change_faults(new, old) == []


def test_nothing_else_of_a_pod_may_change() -> None:
    old = pod(activeDeadlineSeconds=5, tolerations=[{"key": "a", "operator": "Exists"}])
    (fault,) = change_faults(changed(old, node_name="n"), old)
    assert fault.startswith("spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`")
    assert change_faults(changed(old, termination_grace_period_seconds=1), old)
    assert change_faults(changed(old, active_deadline_seconds=6), old) == [
        "spec.activeDeadlineSeconds: Invalid value: 6: must be less than or equal to previous value"
    ]
    assert change_faults(changed(old, tolerations=[]), old) == [
        "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"
    ]
    assert change_faults(changed(old, containers=[]), old) == [
        "spec.containers: Forbidden: pod updates may not add or remove containers"
    ]


@pytest.mark.parametrize(
    ("node", "phase", "asked", "period_s"),
    [
        ("n", "Running", None, 30),
        ("n", "Running", 5, 5),
        ("n", "Running", 0, 0),
        ("n", "Running", -1, 1),
        ("", "Pending", None, 0),
        ("n", "Succeeded", 5, 0),
    ],
)
def test_grace_period(node: str, phase: str, asked: int | None, period_s: int) -> None:
    obj = pod(nodeName=node)
    obj.status.phase = phase
    assert STRATEGY.graceful_period_s(obj, asked) == period_s


# The table

READY = {"conditions": [{"type": "Ready", "status": "True"}]}
RUNNING = {"name": "c", "ready": True, "state": {"running": {}}}
CRASHED = {
    "name": "c",
    "restartCount": 1,
    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
    "lastState": {"terminated": {"exitCode": 1, "finishedAt": "1970-01-01T00:00:55Z"}},
}
INIT = {"initContainers": [{"name": "i", "image": "x"}, {"name": "j", "image": "x"}]}
SIDECAR = {"initContainers": [{"name": "s", "image": "x", "restartPolicy": "Always"}]}


@pytest.mark.parametrize(
    ("spec", "status", "cells"),
    [
        ({}, {"phase": "Pending"}, ["0/1", "Pending", "0"]),
        ({}, {"phase": "Running", "containerStatuses": [RUNNING]}, ["1/1", "Running", "0"]),
        ({}, {"phase": "Running", "containerStatuses": [CRASHED]}, ["0/1", "CrashLoopBackOff", "1 (5s ago)"]),
        (
            {},
            {
                "phase": "Succeeded",
                "containerStatuses": [{"name": "c", "state": {"terminated": {"reason": "Completed"}}}],
            },
            ["0/1", "Completed", "0"],
        ),
        (
            {},
            {"phase": "Failed", "containerStatuses": [{"name": "c", "state": {"terminated": {"exitCode": 3}}}]},
            ["0/1", "ExitCode:3", "0"],
        ),
        ({}, {"phase": "Failed", "reason": "Evicted"}, ["0/1", "Evicted", "0"]),
        (
            INIT,
            {"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]},
            ["0/1", "Init:0/2", "0"],
        ),
        (
            INIT,
            {
                "phase": "Pending",
                "initContainerStatuses": [
                    {"name": "i", "state": {"terminated": {"exitCode": 0}}},
                    {"name": "j", "restartCount": 2, "state": {"waiting": {"reason": "CrashLoopBackOff"}}},
                ],
            },
            ["0/1", "Init:CrashLoopBackOff", "2"],
        ),
        (
            SIDECAR,
            {
                "phase": "Running",
                "initContainerStatuses": [
                    {"name": "s", "ready": True, "started": True, "restartCount": 1, "state": {"running": {}}}
                ],
                "containerStatuses": [RUNNING],
            },
            ["2/2", "Running", "1"],
        ),
        (
            {},
            {
                "phase": "Pending",
                "conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}],
            },
            ["0/1", "SchedulingGated", "0"],
        ),
        (
            {},
            READY
            | {
                "phase": "Running",
                "containerStatuses": [{"name": "d", "state": {"terminated": {"reason": "Completed"}}}, RUNNING],
            },
            ["1/1", "Running", "0"],
        ),
    ],
    ids=lambda value: "",
)
def test_table_says_what_is_in_the_way(spec: dict[str, Any], status: dict[str, Any], cells: list[str]) -> None:
    obj = pod(**spec)
    obj.status = msgspec.convert(status, type(obj.status))
    assert row(obj, now_s=60)[:3] == cells


def test_wide_table() -> None:
    obj = pod(nodeName="n1", readinessGates=[{"conditionType": "x.io/up"}])
    obj.status.pod_ip = "10.0.0.1"
    assert headers(Pod) == "READY STATUS RESTARTS AGE IP NODE NOMINATED-NODE READINESS-GATES"
    assert row(obj)[3:] == ["<unknown>", "10.0.0.1", "n1", "<none>", "0/1"]


def test_pod_on_its_way_out_is_terminating() -> None:
    obj = pod(nodeName="n1")
    obj.metadata.deletion_timestamp = utc(0)
    obj.metadata.creation_timestamp = utc(0)
    assert row(obj, now_s=200)[1:4] == ["Terminating", "0", "3m20s"]
