"""What is refused, where, and in which words: upstream's."""

from __future__ import annotations

from typing import Any

import pytest

from knarr.api.errors import Invalid
from tests.api.made import container, faults, made, resource, shown, workload

NO_VOLUME: list[dict[str, Any]] = []
VOLUME = [{"name": "v"}]


def pod_faults(**spec: Any) -> list[str]:
    return faults("Pod", spec={"containers": [container()], **spec})


def container_faults(*, volumes: list[dict[str, Any]] = NO_VOLUME, **fields: Any) -> list[str]:
    """With the path inside the container only."""
    found = pod_faults(containers=[container(**fields)], volumes=volumes)
    return [fault.removeprefix("spec.containers[0].") for fault in found]


def test_a_right_pod_has_no_faults() -> None:
    assert pod_faults() == []


def test_all_faults_are_told_in_order() -> None:
    spec = {
        "restartPolicy": "Sometimes",
        "containers": [{"name": "A_b", "image": ""}, container(), container()],
        "volumes": [{"name": "v"}, {"name": "v"}],
        "hostname": "a.b",
    }
    assert faults("Pod", spec=spec) == [
        'spec.volumes[1].name: Duplicate value: "v"',
        'spec.containers[0].name: Invalid value: "A_b": a lowercase RFC 1123 label must consist of lower case '
        "alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or "
        "'123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
        "spec.containers[0].image: Required value",
        'spec.containers[2].name: Duplicate value: "web"',
        'spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "Never", "OnFailure"',
        'spec.hostname: Invalid value: "a.b": must not contain dots',
    ]


PORT = "must be between 1 and 65535, inclusive"


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"image": " nginx"}, ['image: Invalid value: " nginx": must not have leading or trailing whitespace']),
        (
            {"imagePullPolicy": "Often"},
            ['imagePullPolicy: Unsupported value: "Often": supported values: "Always", "IfNotPresent", "Never"'],
        ),
        ({"ports": [{}]}, ["ports[0].containerPort: Required value"]),
        ({"ports": [{"containerPort": 65536}]}, [f"ports[0].containerPort: Invalid value: 65536: {PORT}"]),
        ({"ports": [{"containerPort": -1}]}, [f"ports[0].containerPort: Invalid value: -1: {PORT}"]),
        (
            {"ports": [{"containerPort": 1, "name": "a"}, {"containerPort": 2, "name": "a"}]},
            ['ports[1].name: Duplicate value: "a"'],
        ),
        (
            {"ports": [{"containerPort": 1, "name": "-"}]},
            [
                'ports[0].name: Invalid value: "-": must contain at least one letter (a-z)',
                'ports[0].name: Invalid value: "-": must not begin or end with a hyphen',
            ],
        ),
        (
            {"ports": [{"containerPort": 1, "protocol": "ICMP"}]},
            ['ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"'],
        ),
        (
            {"ports": [{"containerPort": 1, "hostPort": 9}, {"containerPort": 2, "hostPort": 9}]},
            ['ports[1].hostPort: Duplicate value: "TCP//9"'],
        ),
        ({"env": [{"value": "x"}]}, ["env[0].name: Required value"]),
        (
            {"env": [{"name": "A=B"}]},
            [
                'env[0].name: Invalid value: "A=B": a valid environment variable name must consist only of printable '
                "ASCII characters other than '='"
            ],
        ),
        (
            {"env": [{"name": "A", "valueFrom": {}}]},
            [
                'env[0].valueFrom: Invalid value: "": must specify one of: `fieldRef`, `resourceFieldRef`, '
                "`configMapKeyRef` or `secretKeyRef`"
            ],
        ),
        (
            {"env": [{"name": "A", "value": "x", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]},
            ['env[0].valueFrom: Invalid value: "": may not be specified when `value` is not empty'],
        ),
        (
            {"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.nope"}}}]},
            [
                'env[0].valueFrom.fieldRef.fieldPath: Invalid value: "spec.nope": error converting fieldPath: field '
                "label not supported: spec.nope"
            ],
        ),
        ({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a']"}}}]}, []),
        (
            {"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "a/b"}}}]},
            [
                'env[0].valueFrom.configMapKeyRef.key: Invalid value: "a/b": a valid config key must consist of '
                "alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex "
                "used for validation is '[-._a-zA-Z0-9]+')"
            ],
        ),
        ({"envFrom": [{}]}, ['envFrom[0]: Invalid value: "": must specify one of: `configMapRef` or `secretRef`']),
        (
            {"volumeMounts": [{"name": "w", "mountPath": "/a"}]},
            ['volumeMounts[0].name: Not found: "w"'],
        ),
        (
            {"volumeMounts": [{"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/a"}]},
            ['volumeMounts[1].mountPath: Invalid value: "/a": must be unique'],
        ),
        ({"volumeMounts": [{"name": "v"}]}, ["volumeMounts[0].mountPath: Required value"]),
        (
            {"volumeMounts": [{"name": "v", "mountPath": "/a", "subPath": "/../x"}]},
            [
                'volumeMounts[0].subPath: Invalid value: "/../x": must be a relative path',
                "volumeMounts[0].subPath: Invalid value: \"/../x\": must not contain '..'",
            ],
        ),
        (
            {"volumeMounts": [{"name": "v", "mountPath": "/a", "mountPropagation": "Bidirectional"}]},
            [
                "volumeMounts[0].mountPropagation: Forbidden: Bidirectional mount propagation is available only to "
                "privileged containers"
            ],
        ),
        (
            {"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}},
            ['resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1'],
        ),
        (
            {"resources": {"limits": {"cpu": "-1"}}},
            [
                'resources.limits[cpu]: Invalid value: "-1": must be greater than or equal to 0',
                'resources.requests[cpu]: Invalid value: "-1": must be greater than or equal to 0',
            ],
        ),
        (
            {"resources": {"requests": {"example.com/x": "1"}}},
            ["resources.limits: Required value: Limit must be set for non overcommitable resources"],
        ),
        (
            {"resources": {"limits": {"example.com/x": "1500m"}}},
            [
                'resources.limits[example.com/x]: Invalid value: "1500m": must be an integer',
                'resources.requests[example.com/x]: Invalid value: "1500m": must be an integer',
            ],
        ),
        ({"livenessProbe": {}}, ["livenessProbe: Required value: must specify a handler type"]),
        (
            {"livenessProbe": {"exec": {"command": ["a"]}, "httpGet": {"port": 80}}},
            ["livenessProbe.httpGet: Forbidden: may not specify more than 1 handler type"],
        ),
        (
            {"livenessProbe": {"tcpSocket": {"port": 0}, "successThreshold": 2}},
            [
                f"livenessProbe.tcpSocket.port: Invalid value: 0: {PORT}",
                "livenessProbe.successThreshold: Invalid value: 2: must be 1",
            ],
        ),
        (
            {"readinessProbe": {"exec": {}, "periodSeconds": -1}},
            [
                "readinessProbe.exec.command: Required value",
                "readinessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0",
            ],
        ),
        (
            {"lifecycle": {"preStop": {"sleep": {"seconds": 31}}}},
            [
                "lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than "
                "terminationGracePeriodSeconds (30)"
            ],
        ),
        (
            {"securityContext": {"runAsUser": -1}},
            ["securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive"],
        ),
    ],
)
def test_containers(fields: dict[str, Any], wanted: list[str]) -> None:
    assert container_faults(volumes=VOLUME, **fields) == wanted


@pytest.mark.parametrize(
    ("volume", "wanted"),
    [
        ({"hostPath": {"path": "/a/../b"}}, ["hostPath.path: Invalid value: \"/a/../b\": must not contain '..'"]),
        ({"hostPath": {"path": ""}}, ["hostPath.path: Required value"]),
        ({"configMap": {}}, ["configMap.name: Required value"]),
        (
            {"secret": {"secretName": "s", "defaultMode": 512}},
            [
                "secret.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive",
            ],
        ),
        (
            {"configMap": {"name": "c", "items": [{"key": "k", "path": "../x"}]}},
            ["configMap.items[0].path: Invalid value: \"../x\": must not contain '..'"],
        ),
        (
            {"emptyDir": {}, "secret": {"secretName": "s"}},
            ["secret: Forbidden: may not specify more than 1 volume type"],
        ),
        (
            {"projected": {"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 599}}]}},
            [
                "projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 599: may not specify a "
                "duration less than 10 minutes"
            ],
        ),
        ({"nfs": {"server": "s", "path": "x"}}, ['nfs.path: Invalid value: "x": must be an absolute path']),
        ({"persistentVolumeClaim": {}}, ["persistentVolumeClaim.claimName: Required value"]),
    ],
)
def test_volumes(volume: dict[str, Any], wanted: list[str]) -> None:
    found = pod_faults(volumes=[{"name": "v", **volume}])
    assert [fault.removeprefix("spec.volumes[0].") for fault in found] == wanted


def test_a_wrong_volume_can_not_be_mounted() -> None:
    mount = {"name": "v", "mountPath": "/a"}
    found = pod_faults(volumes=[{"name": "v", "configMap": {}}], containers=[container(volumeMounts=[mount])])
    assert found == [
        "spec.volumes[0].configMap.name: Required value",
        'spec.containers[0].volumeMounts[0].name: Not found: "v"',
    ]


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ({"containers": []}, ["containers: Required value"]),
        (
            {"activeDeadlineSeconds": 0},
            ["activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"],
        ),
        (
            {"dnsPolicy": "None", "dnsConfig": {}},
            [
                "dnsConfig.nameservers: Required value: must provide at least one DNS nameserver when `dnsPolicy` is "
                "None"
            ],
        ),
        (
            {"dnsConfig": {"nameservers": ["nope"]}},
            [
                'dnsConfig.nameservers[0]: Invalid value: "nope": must be a valid IP address, (e.g. 10.9.8.7 or '
                "2001:db8::ffff)"
            ],
        ),
        (
            {"tolerations": [{"operator": "Equal"}]},
            [
                'tolerations[0].operator: Invalid value: "Equal": operator must be Exists when `key` is empty, which '
                'means \\"match all values and all keys\\"'.replace('\\"', '"')
            ],
        ),
        (
            {"tolerations": [{"key": "a", "tolerationSeconds": 1}]},
            ["tolerations[0].effect: Invalid value: \"\": effect must be 'NoExecute' when `tolerationSeconds` is set"],
        ),
        (
            {"tolerations": [{"key": "a", "operator": "Exists", "effect": "Never"}]},
            [
                'tolerations[0].effect: Unsupported value: "Never": supported values: "NoExecute", "NoSchedule", '
                '"PreferNoSchedule"'
            ],
        ),
        (
            {
                "topologySpreadConstraints": [
                    {"maxSkew": 0, "topologyKey": "", "whenUnsatisfiable": "Maybe"},
                ]
            },
            [
                "topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
                "topologySpreadConstraints[0].topologyKey: Required value: can not be empty",
                'topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: "Maybe": supported values: '
                '"DoNotSchedule", "ScheduleAnyway"',
            ],
        ),
        (
            {
                "affinity": {
                    "nodeAffinity": {
                        "preferredDuringSchedulingIgnoredDuringExecution": [
                            {"weight": 0, "preference": {"matchExpressions": [{"key": "a", "operator": "In"}]}}
                        ]
                    }
                }
            },
            [
                "affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 0: "
                "must be in the range 1-100",
                "affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference."
                "matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
            ],
        ),
        (
            {
                "affinity": {
                    "podAntiAffinity": {
                        "requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": ""}],
                    }
                }
            },
            [
                "affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Required "
                "value: can not be empty"
            ],
        ),
        (
            {"initContainers": [container(name="i", livenessProbe={"exec": {"command": ["a"]}})]},
            [
                "initContainers[0].livenessProbe: Forbidden: may not be set for init containers without "
                "restartPolicy=Always"
            ],
        ),
        (
            {
                "initContainers": [
                    container(name="i", restartPolicy="Always", livenessProbe={"exec": {"command": ["a"]}})
                ]
            },
            [],
        ),
        ({"initContainers": [container()]}, ['initContainers[0].name: Duplicate value: "web"']),
        (
            {"ephemeralContainers": [container(name="e")]},
            ["ephemeralContainers: Forbidden: cannot be set on create"],
        ),
        (
            {"nodeName": "n", "schedulingGates": [{"name": "a"}]},
            ["nodeName: Forbidden: cannot be set until all schedulingGates have been cleared"],
        ),
        ({"hostAliases": [{"ip": "10.0.0.1", "hostnames": ["ok.example"]}]}, []),
        ({"imagePullSecrets": [{}]}, ["imagePullSecrets[0].name: Required value"]),
    ],
)
def test_the_rest_of_a_pod(spec: dict[str, Any], wanted: list[str]) -> None:
    assert [fault.removeprefix("spec.") for fault in pod_faults(**spec)] == wanted


def update_faults(kind: str, old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    strategy = resource(kind).strategy
    stored, obj = made(kind, **old), made(kind, **new)
    strategy.prepare_for_update(obj, stored)
    return shown(strategy.validate_update(obj, stored))


def pod_change(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    base = {"containers": [container()], "activeDeadlineSeconds": 60}
    return update_faults("Pod", {"spec": {**base, **old}}, {"spec": {**base, **new}})


@pytest.mark.parametrize(
    "new",
    [
        {},
        {"containers": [container(image="nginx:2", imagePullPolicy="IfNotPresent")]},
        {"activeDeadlineSeconds": 30},
        {"tolerations": [{"key": "a", "operator": "Exists"}]},
        {"hostname": ""},
        {"hostNetwork": False},
    ],
)
def test_what_of_a_pod_may_change(new: dict[str, Any]) -> None:
    assert pod_change({}, new) == []


@pytest.mark.parametrize(
    ("new", "start"),
    [
        (
            {"hostname": "a"},
            "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,",
        ),
        ({"terminationGracePeriodSeconds": 5}, "spec: Forbidden: pod updates may not change fields other than"),
        ({"containers": [container(), container(name="b")]}, "spec.containers: Forbidden: pod updates may not add or"),
        ({"activeDeadlineSeconds": 61}, "spec.activeDeadlineSeconds: Invalid value: 61: must be less than or equal"),
        ({"activeDeadlineSeconds": None}, "spec.activeDeadlineSeconds: Invalid value: null: must not update from a"),
        ({"schedulingGates": [{"name": "a"}]}, "spec.schedulingGates[0]: Forbidden: only deletion is allowed"),
    ],
)
def test_what_of_a_pod_may_not_change(new: dict[str, Any], start: str) -> None:
    found = pod_change({}, new)
    assert len(found) == 1
    assert found[0].startswith(start)


def test_a_toleration_stays() -> None:
    found = pod_change({"tolerations": [{"key": "a", "operator": "Exists"}]}, {})
    assert found == [
        "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"
    ]


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({"replicas": -1}, ["spec.replicas: Invalid value: -1: must be greater than or equal to 0"]),
        (
            {"selector": {"matchLabels": {"app": "db"}}},
            [
                'spec.template.metadata.labels: Invalid value: {"app":"web"}: `selector` does not match template '
                "`labels`"
            ],
        ),
        (
            {"selector": {}},
            [
                "spec.selector: Required value",
                'spec.template.metadata.labels: Invalid value: {"app":"web"}: `selector` does not match template '
                "`labels`",
            ],
        ),
        (
            {"selector": {"matchExpressions": [{"key": "app", "operator": "Like", "values": ["web"]}]}},
            [
                'spec.selector.matchExpressions[0].operator: Invalid value: "Like": not a valid selector operator',
            ],
        ),
        (
            {"progressDeadlineSeconds": 5, "minReadySeconds": 5},
            ["spec.progressDeadlineSeconds: Invalid value: 5: must be greater than minReadySeconds"],
        ),
        (
            {"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}},
            ['spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "0%": may not be 0 when `maxSurge` is 0'],
        ),
        (
            {"strategy": {"rollingUpdate": {"maxUnavailable": "101%", "maxSurge": -1}}},
            [
                "spec.strategy.rollingUpdate.maxSurge: Invalid value: -1: must be greater than or equal to 0",
                'spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "101%": must not be greater than 100%',
            ],
        ),
        (
            {"strategy": {"type": "Recreate", "rollingUpdate": {}}},
            [
                "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
            ],
        ),
        (
            {"strategy": {"type": "Canary"}},
            ['spec.strategy.type: Unsupported value: "Canary": supported values: "Recreate", "RollingUpdate"'],
        ),
    ],
)
def test_deployments(change: dict[str, Any], wanted: list[str]) -> None:
    assert faults("Deployment", spec=workload(**change)) == wanted


@pytest.mark.parametrize("kind", ["Deployment", "ReplicaSet"])
def test_the_pods_of_a_workload_always_restart(kind: str) -> None:
    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [container()], "restartPolicy": "Never", "activeDeadlineSeconds": 1},
    }
    assert faults(kind, spec=workload(template=template)) == [
        'spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"',
        "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported",
    ]


@pytest.mark.parametrize("kind", ["Deployment", "ReplicaSet"])
def test_the_selector_of_a_workload_is_immutable(kind: str) -> None:
    new = workload(selector={"matchLabels": {"app": "db"}})
    found = update_faults(kind, {"spec": workload()}, {"spec": new})
    assert found == ['spec.selector: Invalid value: {"matchLabels":{"app":"db"}}: field is immutable']


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ({}, ["ports: Required value"]),
        ({"clusterIP": "None", "clusterIPs": ["None"]}, []),
        ({"ports": [{"port": 80}, {"port": 81}]}, ["ports[0].name: Required value", "ports[1].name: Required value"]),
        (
            {"ports": [{"port": 0}]},
            [f"ports[0].port: Invalid value: 0: {PORT}", f"ports[0].targetPort: Invalid value: 0: {PORT}"],
        ),
        (
            {"ports": [{"port": 80, "targetPort": "1"}]},
            ['ports[0].targetPort: Invalid value: "1": must contain at least one letter (a-z)'],
        ),
        (
            {"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 80}]},
            ['ports[1]: Duplicate value: {"port":80,"protocol":"TCP"}'],
        ),
        (
            {"ports": [{"port": 80, "nodePort": 30000}]},
            ["ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
        ),
        (
            {"type": "Magic", "ports": [{"port": 80}]},
            [
                'type: Unsupported value: "Magic": supported values: "ClusterIP", "ExternalName", "LoadBalancer", '
                '"NodePort"'
            ],
        ),
        (
            {"type": "NodePort", "clusterIP": "None", "clusterIPs": ["None"], "ports": [{"port": 80}]},
            ["clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services"],
        ),
        ({"type": "ExternalName"}, ["externalName: Required value"]),
        (
            {"ports": [{"port": 80}], "externalIPs": ["127.0.0.1"]},
            [
                'externalIPs[0]: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)',
            ],
        ),
        (
            {"ports": [{"port": 80}], "sessionAffinity": "Cookie"},
            ['sessionAffinity: Unsupported value: "Cookie": supported values: "ClientIP", "None"'],
        ),
        (
            {"ports": [{"port": 80}], "externalTrafficPolicy": "Local"},
            ['externalTrafficPolicy: Invalid value: "Local": may only be set for externally-accessible services'],
        ),
        (
            {"type": "LoadBalancer", "ports": [{"port": 80}], "loadBalancerSourceRanges": ["10.0.0.0"]},
            [
                'LoadBalancerSourceRanges[0]: Invalid value: "10.0.0.0": must be a valid CIDR value, (e.g. 10.9.8.0/24 '
                "or 2001:db8::/64)"
            ],
        ),
    ],
)
def test_services(spec: dict[str, Any], wanted: list[str]) -> None:
    assert [fault.removeprefix("spec.") for fault in faults("Service", spec=spec)] == wanted


def test_the_address_of_a_service_may_not_change() -> None:
    old = {"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "ports": [{"port": 80}]}
    new = {"clusterIP": "10.96.0.8", "clusterIPs": ["10.96.0.8"], "ports": [{"port": 80}]}
    wanted = 'spec.clusterIPs[0]: Invalid value: ["10.96.0.8"]: may not change once set'
    assert update_faults("Service", {"spec": old}, {"spec": new}) == [wanted]
    # Also when only the older of the two fields was changed.
    assert update_faults("Service", {"spec": old}, {"spec": {**new, "clusterIPs": ["10.96.0.7"]}}) == [wanted]
    assert update_faults("Service", {"spec": old}, {"spec": {"ports": [{"port": 81}]}}) == []


def test_config_maps() -> None:
    assert faults("ConfigMap", data={"a": "x"}, binaryData={"a": "eA=="}) == [
        'data[a]: Invalid value: "a": duplicate of key present in binaryData'
    ]
    assert faults("ConfigMap", data={"..": "x"}) == ["data[..]: Invalid value: \"..\": must not be '..'"]
    assert faults("ConfigMap", data={"a": "x" * (1 << 20)}) == []
    assert faults("ConfigMap", data={"a": "x" * (1 << 20), "b": "y"}) == [
        "[]: Too long: may not be more than 1048576 bytes"
    ]


def test_what_is_immutable_stays() -> None:
    for kind in ("ConfigMap", "Secret"):
        old = {"immutable": True, "data": {"a": "eA=="}}
        assert update_faults(kind, old, old) == []
        assert update_faults(kind, old, {"immutable": True, "data": {"a": "eQ=="}}) == [
            "data: Forbidden: field is immutable when `immutable` is set"
        ]
        assert update_faults(kind, old, {"data": {"a": "eA=="}}) == [
            "immutable: Forbidden: field is immutable when `immutable` is set"
        ]


@pytest.mark.parametrize(
    ("kind", "data", "wanted"),
    [
        ("kubernetes.io/tls", {"tls.crt": ""}, ["data[tls.key]: Required value"]),
        ("kubernetes.io/ssh-auth", {}, ["data[ssh-privatekey]: Required value"]),
        ("kubernetes.io/basic-auth", {"username": "eA=="}, []),
        ("kubernetes.io/dockerconfigjson", {}, ["data[.dockerconfigjson]: Required value"]),
        ("kubernetes.io/dockerconfigjson", {".dockerconfigjson": "e30="}, []),
        (
            "kubernetes.io/service-account-token",
            {},
            ["metadata.annotations[kubernetes.io/service-account.name]: Required value"],
        ),
        ("example.com/mine", {}, []),
    ],
)
def test_secrets(kind: str, data: dict[str, str], wanted: list[str]) -> None:
    assert faults("Secret", type=kind, data=data) == wanted


def test_the_type_of_a_secret_is_immutable() -> None:
    found = update_faults("Secret", {"type": "a/b"}, {"type": "c/d"})
    assert found == ['type: Invalid value: "c/d": field is immutable']


def test_a_refusal_lists_its_causes() -> None:
    obj = made("Deployment", spec=workload(replicas=-1, minReadySeconds=-1))
    error = Invalid.of("apps", "Deployment", "web", list(resource("Deployment").strategy.validate(obj)))
    assert error.status()["details"]["causes"] == [
        {
            "reason": "FieldValueInvalid",
            "message": "Invalid value: -1: must be greater than or equal to 0",
            "field": f"spec.{field}",
        }
        for field in ("replicas", "minReadySeconds")
    ]
