"""The other kinds: metadata, workloads, services, nodes, secrets and the rest."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from knarr.api.apps.v1 import Deployment, ReplicaSet
from knarr.api.coordination.v1 import Lease
from knarr.api.core.v1 import (
    ConfigMap,
    Endpoints,
    Event,
    Namespace,
    Node,
    Secret,
    Service,
    ServiceAccount,
)
from knarr.api.discovery.v1 import EndpointSlice
from knarr.api.metadata import validate_metadata_update
from knarr.api.printing import human_duration
from knarr.api.registry import built_in
from knarr.api.types import copy
from knarr.clock import utc
from tests.api.objects import born, change_faults, deployment, faults, headers, row, written


def config_map(**metadata: Any) -> ConfigMap:
    whole = {"name": "web", "namespace": "default"} | metadata
    return written(ConfigMap, metadata={name: value for name, value in whole.items() if value is not None})  # type: ignore[no-any-return]


# Metadata


@pytest.mark.parametrize("name", ["Foo_Bar", "a" * 254, "..", "a/b", "foo\n", "-a", "a.", "é"])
def test_names_that_are_none(name: str) -> None:
    found = faults(config_map(name=name))
    assert found
    assert all(fault.startswith("metadata.name: Invalid value") for fault in found)


@pytest.mark.parametrize("name", ["a", "a.b-c", "1", "a" * 253])
def test_names_that_are_some(name: str) -> None:
    assert faults(config_map(name=name)) == []


def test_generated_names_may_end_in_a_dash() -> None:
    assert faults(config_map(generateName="web-")) == []
    assert faults(config_map(generateName="Web-"))[0].startswith("metadata.generateName: Invalid value")
    assert faults(config_map(name=None)) == ["metadata.name: Required value: name or generateName is required"]


OWNER = {"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "u", "controller": True}


@pytest.mark.parametrize(
    ("metadata", "start"),
    [
        ({"labels": {"a": "x" * 64}}, "metadata.labels: Invalid value"),
        ({"labels": {"a b": "x"}}, 'metadata.labels: Invalid value: "a b": name part must consist'),
        ({"labels": {"a": "x\n"}}, "metadata.labels: Invalid value"),
        ({"annotations": {"a": "x" * (1 << 18)}}, "metadata.annotations: Too long: may not be more than 262144 bytes"),
        (
            {"ownerReferences": [{**OWNER, "uid": ""}]},
            'metadata.ownerReferences.uid: Invalid value: "": uid must not be empty',
        ),
        ({"ownerReferences": [OWNER, {**OWNER, "name": "b"}]}, "metadata.ownerReferences: Invalid value: ["),
        (
            {"finalizers": ["mine"]},
            'metadata.finalizers[0]: Invalid value: "mine": name is neither a standard finalizer name nor is it fully '
            "qualified",
        ),
        ({"finalizers": ["orphan", "foregroundDeletion"]}, "metadata.finalizers: Invalid value: "),
    ],
)
def test_faults_of_metadata(metadata: dict[str, Any], start: str) -> None:
    (fault,) = faults(config_map(**metadata))
    assert fault.startswith(start)


def test_metadata_that_never_changes() -> None:
    old = config_map(uid="a", finalizers=["x.io/a"]).metadata
    new = copy(old)
    new.uid = "b"
    new.finalizers = ["x.io/b"]
    old.deletion_timestamp = new.deletion_timestamp = utc(0)
    assert [f"{cause.field}: {cause.message}" for cause in validate_metadata_update(new, old)] == [
        "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new "
        'finalizers []string{"x.io/b"}',
        'metadata.uid: Invalid value: "b": field is immutable',
    ]


# Workloads


def test_deployment_gets_upstreams_defaults() -> None:
    spec = json.loads(msgspec.json.encode(deployment().spec))
    assert {name: spec[name] for name in set(spec) - {"selector", "template"}} == {
        "replicas": 1,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
        "revisionHistoryLimit": 10,
        "progressDeadlineSeconds": 600,
    }
    assert deployment(replicas=0).spec.replicas == 0
    assert faults(deployment()) == []


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"replicas": -1}, ["spec.replicas: Invalid value: -1: must be greater than or equal to 0"]),
        (
            {"selector": {"matchLabels": {"app": "x"}}},
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
            {"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}},
            [
                'spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "0%": may not be 0 when `maxSurge` is 0',
            ],
        ),
        (
            {"strategy": {"rollingUpdate": {"maxSurge": -1, "maxUnavailable": "101%"}}},
            [
                "spec.strategy.rollingUpdate.maxSurge: Invalid value: -1: must be greater than or equal to 0",
                'spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "101%": must not be greater than 100%',
            ],
        ),
        (
            {"strategy": {"type": "Recreate", "rollingUpdate": {}}},
            ["spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'"],
        ),
        (
            {"progressDeadlineSeconds": 10, "minReadySeconds": 10},
            ["spec.progressDeadlineSeconds: Invalid value: 10: must be greater than minReadySeconds"],
        ),
    ],
)
def test_faults_of_deployments(spec: dict[str, Any], expected: list[str]) -> None:
    assert faults(deployment(**spec)) == expected


def test_template_always_restarts() -> None:
    obj = deployment()
    obj.spec.template.spec.restart_policy = "Never"
    obj.spec.template.spec.active_deadline_seconds = 5
    assert faults(obj) == [
        'spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"',
        "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported",
    ]


def test_selector_of_a_workload_is_immutable() -> None:
    old = deployment()
    new = copy(old)
    new.spec.selector.match_labels["tier"] = "front"
    assert change_faults(new, old) == [
        'spec.selector: Invalid value: {"matchLabels":{"app":"web","tier":"front"}}: field is immutable'
    ]


def test_tables_of_workloads() -> None:
    obj = deployment(replicas=3)
    obj.metadata.creation_timestamp = utc(0)
    obj.status = msgspec.convert({"readyReplicas": 1, "updatedReplicas": 2}, type(obj.status))
    assert headers(Deployment) == "READY UP-TO-DATE AVAILABLE AGE CONTAINERS IMAGES SELECTOR"
    assert row(obj, 120) == ["1/3", 2, 0, "2m", "c", "nginx", "app=web"]
    spec = json.loads(msgspec.json.encode(obj.spec))
    replica_set = born(ReplicaSet, spec={name: spec[name] for name in ("replicas", "selector", "template")})
    assert headers(ReplicaSet) == "DESIRED CURRENT READY AGE CONTAINERS IMAGES SELECTOR"
    assert row(replica_set) == [3, 0, 0, "<unknown>", "c", "nginx", "app=web"]
    assert faults(replica_set) == []


# Services


def service(**spec: Any) -> Service:
    return born(Service, spec={"ports": [{"port": 80}], "selector": {"app": "web"}} | spec)  # type: ignore[no-any-return]


def test_service_gets_upstreams_defaults() -> None:
    assert json.loads(msgspec.json.encode(service().spec)) == {
        "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
        "selector": {"app": "web"},
        "type": "ClusterIP",
        "sessionAffinity": "None",
        "internalTrafficPolicy": "Cluster",
    }
    assert service(type="NodePort").spec.external_traffic_policy == "Cluster"
    assert service(sessionAffinity="ClientIP").spec.session_affinity_config.client_ip.timeout_seconds == 10800
    assert json.loads(msgspec.json.encode(service().status)) == {"loadBalancer": {}}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, []),
        ({"clusterIP": "None", "ports": []}, []),
        ({"ports": []}, ["spec.ports: Required value"]),
        (
            {"ports": [{"port": 80}, {"port": 80, "name": "a", "nodePort": 30000}]},
            [
                "spec.ports[0].name: Required value",
                "spec.ports[1].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
                'spec.ports[1]: Duplicate value: {"port":80,"protocol":"TCP"}',
            ],
        ),
        (
            {"ports": [{"port": 0, "protocol": "ICMP", "targetPort": "Web"}]},
            [
                "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                'spec.ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"',
                'spec.ports[0].targetPort: Invalid value: "Web": must contain only alpha-numeric characters (a-z, '
                "0-9), and hyphens (-)",
            ],
        ),
        ({"type": "ExternalName"}, ["spec.externalName: Required value"]),
        (
            {"type": "NodePort", "clusterIP": "None"},
            ["spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services"],
        ),
        (
            {"externalTrafficPolicy": "Local"},
            [
                'spec.externalTrafficPolicy: Invalid value: "Local": may only be set for externally-accessible '
                "services",
            ],
        ),
    ],
    ids=lambda value: "",
)
def test_faults_of_services(spec: dict[str, Any], expected: list[str]) -> None:
    assert faults(service(**spec)) == expected


def test_cluster_ip_never_changes_and_stays_when_left_out() -> None:
    old = service(clusterIP="10.0.0.1", clusterIPs=["10.0.0.1"])
    new = service()
    built_in().of(Service).strategy.prepare_for_update(new, old)
    assert (new.spec.cluster_ip, change_faults(new, old)) == ("10.0.0.1", [])
    assert change_faults(service(clusterIP="10.0.0.2"), old) == [
        'spec.clusterIPs[0]: Invalid value: ["10.0.0.2"]: may not change once set'
    ]


def test_a_service_that_is_no_longer_reached_from_outside_is_right() -> None:
    old = service(type="NodePort", ports=[{"port": 80, "nodePort": 30080}])
    new = service(type="ClusterIP", ports=[{"port": 80, "nodePort": 30080}], externalTrafficPolicy="Cluster")
    built_in().of(Service).strategy.prepare_for_update(new, old)
    assert (new.spec.ports[0].node_port, faults(new)) == (None, [])


@pytest.mark.parametrize(
    ("spec", "cells"),
    [
        ({}, ["ClusterIP", "<none>", "<none>", "80/TCP"]),
        ({"clusterIP": "None"}, ["ClusterIP", "None", "<none>", "80/TCP"]),
        (
            {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}, {"port": 53, "protocol": "UDP"}]},
            ["NodePort", "<none>", "<none>", "80:30080/TCP,53/UDP"],
        ),
        ({"type": "LoadBalancer"}, ["LoadBalancer", "<none>", "<pending>", "80/TCP"]),
        ({"type": "ExternalName", "externalName": "x.io", "ports": []}, ["ExternalName", "<none>", "x.io", "<none>"]),
    ],
)
def test_table_of_services(spec: dict[str, Any], cells: list[str]) -> None:
    assert headers(Service) == "TYPE CLUSTER-IP EXTERNAL-IP PORT(S) AGE SELECTOR"
    assert row(service(**spec)) == [*cells, "<unknown>", "app=web"]


def test_endpoints_and_slices() -> None:
    addresses = [{"ip": f"10.0.0.{number}"} for number in range(1, 6)]
    endpoints = born(Endpoints, subsets=[{"addresses": addresses, "ports": [{"port": 80}]}])
    assert row(endpoints)[0] == "10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 2 more..."
    assert faults(endpoints) == []
    slice_fields = {"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 80}]}
    piece = born(EndpointSlice, **slice_fields)
    assert headers(EndpointSlice) == "ADDRESSTYPE PORTS ENDPOINTS AGE"
    assert row(piece)[:3] == ["IPv4", "80", "10.0.0.1"]
    assert faults(piece) == []
    bad = born(EndpointSlice, addressType="IPv4", endpoints=[{"addresses": ["web"]}, {"addresses": []}])
    assert faults(bad) == [
        'endpoints[0].addresses[0]: Invalid value: "web": must be a valid IP address, (e.g. 10.9.8.7 or '
        "2001:db8::ffff)",
        "endpoints[1].addresses: Required value: must contain at least 1 address",
    ]


# The rest


def test_secrets() -> None:
    secret = born(Secret, data={"a": "Yg=="}, stringData={"c": "d"})
    assert (secret.type, secret.data, secret.string_data) == ("Opaque", {"a": b"b", "c": b"d"}, {})
    assert row(secret)[:2] == ["Opaque", 2]
    assert faults(born(Secret, type="kubernetes.io/tls", data={"tls.crt": ""})) == ["data[tls.key]: Required value"]
    assert faults(born(Secret, stringData={"a": "x" * ((1 << 20) + 1)})) == [
        "data: Too long: may not be more than 1048576 bytes"
    ]
    assert change_faults(born(Secret, type="x"), secret) == ['type: Invalid value: "x": field is immutable']


def test_immutable_config_maps() -> None:
    old = born(ConfigMap, data={"a": "b"}, immutable=True)
    assert change_faults(born(ConfigMap, data={"a": "c"}), old) == [
        "immutable: Forbidden: field is immutable when `immutable` is set",
        "data: Forbidden: field is immutable when `immutable` is set",
    ]
    assert faults(born(ConfigMap, data={"../a": "b"}))
    assert faults(born(ConfigMap, data={"a\n": "b"}))
    assert faults(born(ConfigMap, data={"a": "x" * ((1 << 20) + 1)}))
    assert row(old)[0] == 1


def test_namespaces() -> None:
    namespace = born(Namespace, metadata={"name": "shop"})
    assert namespace.metadata.labels == {"kubernetes.io/metadata.name": "shop"}
    assert namespace.spec.finalizers == ["kubernetes"]
    assert row(namespace)[0] == "Active"
    assert faults(born(Namespace, metadata={"name": "a.b"})) == [
        'metadata.name: Invalid value: "a.b": must not contain dots'
    ]


def test_nodes() -> None:
    node = written(
        Node,
        metadata={"name": "n1", "labels": {"node-role.kubernetes.io/control-plane": ""}},
        spec={"unschedulable": True, "taints": [{"key": "a", "effect": "Maybe"}]},
        status={
            "conditions": [{"type": "Ready", "status": "Unknown"}],
            "addresses": [{"type": "InternalIP", "address": "10.0.0.9"}],
        },
    )
    wide = "INTERNAL-IP EXTERNAL-IP OS-IMAGE KERNEL-VERSION CONTAINER-RUNTIME"
    assert headers(Node) == f"STATUS ROLES AGE VERSION {wide}"
    assert row(node) == [
        "NotReady,SchedulingDisabled",
        "control-plane",
        "<unknown>",
        "<unknown>",
        "10.0.0.9",
        "<none>",
        "<unknown>",
        "<unknown>",
        "<unknown>",
    ]
    assert faults(node) == [
        'spec.taints[0].effect: Unsupported value: "Maybe": supported values: "NoExecute", "NoSchedule", '
        '"PreferNoSchedule"'
    ]


def test_events() -> None:
    event = written(
        Event,
        involvedObject={"kind": "Pod", "name": "web", "namespace": "default"},
        reason="Started",
        type="Normal",
        message=" hello\n",
        firstTimestamp="1970-01-01T00:00:00Z",
        lastTimestamp="1970-01-01T00:01:00Z",
        count=3,
        source={"component": "kubelet", "host": "n1"},
    )
    assert headers(Event) == "LAST-SEEN TYPE REASON OBJECT SUBOBJECT SOURCE MESSAGE FIRST-SEEN COUNT NAME"
    assert row(event, 65) == ["5s", "Normal", "Started", "pod/web", "", "kubelet, n1", "hello", "65s", 3, "web"]
    assert faults(event) == []
    fields = built_in().of(Event).strategy.fields(event)
    assert fields["involvedObject.name"] == "web"
    assert fields["source"] == "kubelet"


def test_leases_and_service_accounts() -> None:
    lease = written(Lease, spec={"holderIdentity": "n1", "leaseDurationSeconds": 0})
    assert row(lease)[0] == "n1"
    assert faults(lease) == ["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"]
    assert row(written(ServiceAccount, secrets=[{"name": "a"}]))[0] == 1


@pytest.mark.parametrize("resource", list(built_in()), ids=lambda resource: resource.qualified)
def test_fields_that_can_be_selected_are_there(resource: Any) -> None:
    obj = resource.type()
    resource.strategy.default(obj)
    assert set(resource.strategy.fields(obj)) == set(resource.strategy.field_names)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-2, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (200, "3m20s"),
        (599, "9m59s"),
        (600, "10m"),
        (10799, "179m"),
        (10800, "3h"),
        (10860, "3h1m"),
        (28800, "8h"),
        (172799, "47h"),
        (172800, "2d"),
        (180000, "2d2h"),
        (8 * 86400, "8d"),
        (729 * 86400, "729d"),
        (730 * 86400, "2y"),
        (771 * 86400, "2y41d"),
        (8 * 365 * 86400, "8y"),
    ],
)
def test_ages_are_written_as_upstream_writes_them(seconds: int, shown: str) -> None:
    assert human_duration(seconds) == shown
