"""Row 47: a newline at the end is no part of a name: every text of real objects is tried with one.

What takes it is free text, and stands below; all else is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.apiserver.pipeline.door import DEPLOYMENTS, PODS, SERVICES, Door, deployment, pod, service

CRON_JOBS = "/apis/batch/v1/namespaces/default/cronjobs"
INGRESSES = "/apis/networking.k8s.io/v1/namespaces/default/ingresses"
POLICIES = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies"
BINDINGS = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings"
QUOTAS = "/api/v1/namespaces/default/resourcequotas"
CLAIMS = "/api/v1/namespaces/default/persistentvolumeclaims"
NODES = "/api/v1/nodes"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"


def rich_pod() -> dict[str, Any]:
    made = pod("a", volumes=[{"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}])
    made["metadata"] |= {
        "labels": {"app": "a"},
        "annotations": {"note": "free"},
        "finalizers": ["example.com/x"],
        "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u"}],
    }
    made["spec"] |= {
        "restartPolicy": "Always",
        "dnsPolicy": "ClusterFirst",
        "hostname": "host",
        "subdomain": "sub",
        "priorityClassName": "system-node-critical",
        "schedulerName": "default-scheduler",
        "serviceAccountName": "default",
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "k", "operator": "Equal", "value": "v", "effect": "NoExecute"}],
        "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["foo.example"]}],
        "imagePullSecrets": [{"name": "pull"}],
        "readinessGates": [{"conditionType": "example.com/ready"}],
        "dnsConfig": {"nameservers": ["10.0.0.2"], "searches": ["example.com"], "options": [{"name": "ndots"}]},
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
             "labelSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["a"]}]}}
        ],
    }  # fmt: skip
    made["spec"]["containers"][0] |= {
        "command": ["sh"],
        "args": ["-c"],
        "workingDir": "/w",
        "imagePullPolicy": "Always",
        "terminationMessagePolicy": "File",
        "env": [{"name": "A", "value": "free"},
                {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}}],
        "ports": [{"name": "http", "containerPort": 80, "protocol": "TCP", "hostIP": "10.0.0.1"}],
        "resources": {"requests": {"cpu": "1", "memory": "1Mi"}, "limits": {"cpu": "1", "memory": "1Mi"}},
        "volumeMounts": [{"name": "v", "mountPath": "/v", "subPath": "s"}],
        "livenessProbe": {"httpGet": {"path": "/", "port": "http", "scheme": "HTTP"}},
        "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}},
    }  # fmt: skip
    return made


def template() -> dict[str, Any]:
    return {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}


OBJECTS: dict[str, Any] = {
    PODS: rich_pod(),
    DEPLOYMENTS: deployment("a"),
    SERVICES: service("a", type="LoadBalancer", loadBalancerSourceRanges=["10.0.0.0/8"], externalIPs=["1.2.3.4"],
                      sessionAffinity="None", ipFamilyPolicy="SingleStack", ipFamilies=["IPv4"],
                      externalTrafficPolicy="Cluster"),
    CRON_JOBS: {"metadata": {"name": "a"}, "spec": {"schedule": "* * * * *", "timeZone": "Etc/UTC",
                "concurrencyPolicy": "Allow", "jobTemplate": {"spec": {"template": {"spec": {
                    "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}}},
    INGRESSES: {"metadata": {"name": "a"}, "spec": {"ingressClassName": "c", "tls": [{"hosts": ["a.example"],
                "secretName": "s"}], "rules": [{"host": "a.example", "http": {"paths": [{"path": "/",
                "pathType": "Prefix", "backend": {"service": {"name": "s", "port": {"name": "http"}}}}]}}]}},
    POLICIES: {"metadata": {"name": "a"}, "spec": {"podSelector": {"matchLabels": {"a": "b"}},
               "policyTypes": ["Ingress"], "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8",
               "except": ["10.1.0.0/16"]}}], "ports": [{"protocol": "TCP", "port": "http"}]}]}},
    QUOTAS: {"metadata": {"name": "a"}, "spec": {"hard": {"pods": "1"}, "scopes": ["NotTerminating"]}},
    CLAIMS: {"metadata": {"name": "a"}, "spec": {"accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem",
             "storageClassName": "c", "volumeName": "v", "resources": {"requests": {"storage": "1Gi"}}}},
    BINDINGS: {"metadata": {"name": "a"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role",
               "name": "r"}, "subjects": [{"kind": "ServiceAccount", "name": "s", "namespace": "n"}]},
    NODES: {"metadata": {"name": "a"}, "spec": {"podCIDRs": ["10.2.0.0/24"],
            "taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}},
    SLICES: {"metadata": {"name": "a"}, "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"],
             "hostname": "h", "nodeName": "n"}], "ports": [{"name": "p", "port": 1, "protocol": "TCP"}]},
}  # fmt: skip

FREE = {
    PODS: {
        "metadata.annotations.note",
        "metadata.ownerReferences.0.apiVersion",
        "metadata.ownerReferences.0.kind",
        "metadata.ownerReferences.0.name",
        "metadata.ownerReferences.0.uid",
        "spec.containers.0.args.0",
        "spec.containers.0.command.0",
        "spec.containers.0.env.0.value",
        "spec.containers.0.env.1.valueFrom.configMapKeyRef.name",
        "spec.containers.0.livenessProbe.httpGet.path",
        "spec.containers.0.ports.0.hostIP",
        "spec.containers.0.securityContext.capabilities.add.0",
        "spec.containers.0.volumeMounts.0.mountPath",
        "spec.containers.0.volumeMounts.0.subPath",
        "spec.containers.0.workingDir",
        "spec.dnsConfig.options.0.name",
        "spec.imagePullSecrets.0.name",
        "spec.schedulerName",
        "spec.volumes.0.emptyDir.medium",
    },
    # Space around these is passed over.
    SERVICES: {"spec.loadBalancerSourceRanges.0"},
    CRON_JOBS: {"spec.schedule"},
    INGRESSES: {"spec.rules.0.http.paths.0.path"},
    CLAIMS: {"spec.volumeName"},
    # Names of roles are any part of a path.
    BINDINGS: {"metadata.name", "roleRef.name", "subjects.0.namespace"},
}
"""Texts in which upstream allows a newline: what is a command, a path, a value, a name that is only looked up."""


def leaves(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, str):
        yield path
    elif isinstance(value, (dict, list)):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in pairs:
            yield from leaves(inner, f"{path}.{key}" if path else str(key))


def with_newline(value: Any, path: str) -> Any:
    """A copy with a newline behind the text at a path."""
    if not path:
        return value + "\n"
    key, _, rest = path.partition(".")
    # A label's or annotation's key may have dots of its own; those of the objects above have none.
    if isinstance(value, list):
        index = int(key)
        return [*value[:index], with_newline(value[index], rest), *value[index + 1 :]]
    return value | {key: with_newline(value[key], rest)}


def keys_with_newline(value: Any) -> Iterator[Any]:
    """Copies with a newline behind a key of a map."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield {(f"{name}\n" if name == key else name): each for name, each in value.items()}
            for changed in keys_with_newline(inner):
                yield value | {key: changed}
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            for changed in keys_with_newline(inner):
                yield [*value[:index], changed, *value[index + 1 :]]


@pytest.mark.parametrize("path", OBJECTS, ids=lambda path: f"row47-{path.rpartition('/')[2]}")
async def test_a_newline_at_the_end_is_refused_wherever_a_pattern_holds(door: Door, path: str) -> None:
    body = OBJECTS[path]
    status, answer = await door("POST", path, body, dryRun="All")
    assert status == 201, answer
    taken = set()
    for leaf in leaves(body):
        if leaf in ("apiVersion", "kind"):
            continue
        status, answer = await door("POST", path, with_newline(body, leaf), dryRun="All")
        assert status in (201, 400, 403, 404, 422), answer
        if status == 201:
            taken.add(leaf)
    assert sorted(taken) == sorted(FREE.get(path, set()))


@pytest.mark.parametrize("path", OBJECTS, ids=lambda path: f"row47-{path.rpartition('/')[2]}")
async def test_a_newline_behind_a_key_is_refused(door: Door, path: str) -> None:
    for body in keys_with_newline(OBJECTS[path]):
        status, answer = await door("POST", path, body, dryRun="All", fieldValidation="Strict")
        assert status in (400, 403, 422), answer
