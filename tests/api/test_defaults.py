"""What an object is when its author left things out."""

from __future__ import annotations

from typing import Any

import pytest

from knarr.api.core.podspec import image_pull_policy
from knarr.api.errors import BadRequest
from tests.api.made import container, made, plain, resource, workload


def test_a_plain_pod_gets_all_that_upstream_writes() -> None:
    assert plain(made("Pod", spec={"containers": [{"name": "web", "image": "nginx"}]}))["spec"] == {
        "containers": [
            {
                "name": "web",
                "image": "nginx",
                "imagePullPolicy": "Always",
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


def test_a_template_is_not_a_pod() -> None:
    """Limits become requests, and host ports are set, when a pod is made of it; not before."""
    limited = container(resources={"limits": {"cpu": "1"}}, ports=[{"containerPort": 80}])
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [limited], "hostNetwork": True}}
    spec = plain(made("Deployment", spec=workload(template=template)))["spec"]["template"]["spec"]
    assert spec["containers"][0]["resources"] == {"limits": {"cpu": "1"}}
    assert spec["containers"][0]["ports"] == [{"containerPort": 80, "protocol": "TCP"}]
    assert "enableServiceLinks" not in spec
    pod = plain(made("Pod", spec={"containers": [limited], "hostNetwork": True}))["spec"]
    assert pod["containers"][0]["resources"] == {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}
    assert pod["containers"][0]["ports"] == [{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}]


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("registry:5000/nginx", "Always"),
        ("registry:5000/nginx:1", "IfNotPresent"),
        ("nginx@sha256:0000", "IfNotPresent"),
        ("nginx:latest@sha256:0000", "IfNotPresent"),
    ],
)
def test_the_pull_policy_follows_the_tag(image: str, policy: str) -> None:
    assert image_pull_policy(image) == policy


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, {"emptyDir": {}}),
        ({"emptyDir": {"sizeLimit": "1024Ki"}}, {"emptyDir": {"sizeLimit": "1Mi"}}),
        ({"hostPath": {"path": "/x"}}, {"hostPath": {"path": "/x", "type": ""}}),
        ({"configMap": {"name": "a"}}, {"configMap": {"name": "a", "defaultMode": 420}}),
        ({"secret": {"secretName": "a"}}, {"secret": {"secretName": "a", "defaultMode": 420}}),
        ({"secret": {"secretName": "a", "defaultMode": 0}}, {"secret": {"secretName": "a", "defaultMode": 0}}),
        (
            {"downwardAPI": {"items": [{"path": "a", "fieldRef": {"fieldPath": "metadata.name"}}]}},
            {
                "downwardAPI": {
                    "defaultMode": 420,
                    "items": [{"path": "a", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}],
                }
            },
        ),
        (
            {"projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
            {
                "projected": {
                    "defaultMode": 420,
                    "sources": [{"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}}],
                }
            },
        ),
        (
            {"image": {"reference": "data:1"}},
            {"image": {"reference": "data:1", "pullPolicy": "IfNotPresent"}},
        ),
        (
            {"iscsi": {"targetPortal": "a", "iqn": "b", "lun": 0}},
            {"iscsi": {"targetPortal": "a", "iqn": "b", "lun": 0, "iscsiInterface": "default"}},
        ),
    ],
)
def test_volumes(given: dict[str, Any], wanted: dict[str, Any]) -> None:
    pod = plain(made("Pod", spec={"containers": [container()], "volumes": [{"name": "v", **given}]}))
    assert pod["spec"]["volumes"] == [{"name": "v", **wanted}]


def test_probes_hooks_and_environment() -> None:
    pod = plain(
        made(
            "Pod",
            spec={
                "containers": [
                    container(
                        livenessProbe={"grpc": {"port": 1}},
                        readinessProbe={"httpGet": {"port": "http"}, "periodSeconds": 3},
                        lifecycle={"preStop": {"httpGet": {"port": 80}}},
                        env=[
                            {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                            {"name": "B", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
                        ],
                    )
                ]
            },
        )
    )["spec"]["containers"][0]
    times = {"timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 3}
    assert pod["livenessProbe"] == {"grpc": {"port": 1, "service": ""}, "periodSeconds": 10, **times}
    http = {"path": "/", "scheme": "HTTP"}
    assert pod["readinessProbe"] == {"httpGet": {"port": "http", **http}, "periodSeconds": 3, **times}
    assert pod["lifecycle"] == {"preStop": {"httpGet": {"port": 80, **http}}}
    assert pod["env"][0]["valueFrom"]["fieldRef"] == {"apiVersion": "v1", "fieldPath": "metadata.name"}
    assert pod["env"][1]["valueFrom"]["resourceFieldRef"] == {"resource": "limits.cpu", "divisor": "0"}


def test_the_service_account_has_two_spellings() -> None:
    for field in ("serviceAccount", "serviceAccountName"):
        spec = made("Pod", spec={"containers": [container()], field: "robot"}).spec
        assert (spec.service_account, spec.service_account_name) == ("robot", "robot")


def test_amounts_are_canonical_and_no_finer_than_a_thousandth() -> None:
    amounts = {"cpu": 0.5, "memory": "1024Mi", "example.com/x": "1.0001"}
    requests = made("Pod", spec={"containers": [container(resources={"requests": amounts})]}).spec.containers[0]
    assert requests.resources.requests == {"cpu": "500m", "memory": "1Gi", "example.com/x": "1001m"}


def test_an_amount_that_is_none_is_a_bad_request() -> None:
    with pytest.raises(BadRequest, match="quantities must match"):
        made("Pod", spec={"containers": [container(resources={"requests": {"cpu": "much"}})]})


@pytest.mark.parametrize(
    ("resources", "wanted"),
    [
        ([{}], "BestEffort"),
        ([{"requests": {"example.com/x": "1"}, "limits": {"example.com/x": "1"}}], "BestEffort"),
        ([{"limits": {"cpu": "1", "memory": "1Gi"}}], "Guaranteed"),
        ([{"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}], "Burstable"),
        ([{"limits": {"cpu": "1", "memory": "1Gi"}}, {}], "Burstable"),
        ([{"requests": {"cpu": "0"}}], "BestEffort"),
        ([{"limits": {"memory": "1Gi"}}], "Burstable"),
    ],
)
def test_quality_of_service(resources: list[dict[str, Any]], wanted: str) -> None:
    containers = [container(name=f"c{index}", resources=each) for index, each in enumerate(resources)]
    pod = made("Pod", spec={"containers": containers})
    resource("Pod").strategy.prepare_for_create(pod)
    assert (pod.status.phase, pod.status.qos_class) == ("Pending", wanted)


@pytest.mark.parametrize(
    ("spec", "phase", "asked", "wanted"),
    [
        ({}, "Pending", None, 0),
        ({"nodeName": "n"}, "Running", None, 30),
        ({"nodeName": "n"}, "Running", 5, 5),
        ({"nodeName": "n"}, "Running", 0, 0),
        ({"nodeName": "n"}, "Running", -1, 1),
        ({"nodeName": "n"}, "Succeeded", None, 0),
        ({"nodeName": "n", "terminationGracePeriodSeconds": 0}, "Running", None, 0),
    ],
)
def test_how_long_a_pod_may_take_to_end(spec: dict[str, Any], phase: str, asked: int | None, wanted: int) -> None:
    pod = made("Pod", spec={"containers": [container()], **spec}, status={"phase": phase})
    assert resource("Pod").strategy.graceful_period_s(pod, asked) == wanted


def test_a_deployment() -> None:
    spec = plain(made("Deployment", spec=workload()))["spec"]
    spec.pop("template")
    assert spec == {
        "replicas": 1,
        "selector": {"matchLabels": {"app": "web"}},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
        "revisionHistoryLimit": 10,
        "progressDeadlineSeconds": 600,
    }
    recreate = made("Deployment", spec=workload(replicas=0, strategy={"type": "Recreate"})).spec
    assert (recreate.replicas, recreate.strategy.rolling_update) == (0, None)


def test_a_service() -> None:
    assert plain(made("Service", spec={"ports": [{"port": 80}]}))["spec"] == {
        "type": "ClusterIP",
        "sessionAffinity": "None",
        "internalTrafficPolicy": "Cluster",
        "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
    }
    balanced = plain(made("Service", spec={"type": "LoadBalancer", "sessionAffinity": "ClientIP"}))["spec"]
    assert balanced["externalTrafficPolicy"] == "Cluster"
    assert balanced["allocateLoadBalancerNodePorts"] is True
    assert balanced["sessionAffinityConfig"] == {"clientIP": {"timeoutSeconds": 10800}}
    assert "internalTrafficPolicy" not in plain(made("Service", spec={"type": "ExternalName"}))["spec"]


ALLOCATED = {
    "clusterIP": "10.96.0.7",
    "clusterIPs": ["10.96.0.7"],
    "ipFamilies": ["IPv4"],
    "ipFamilyPolicy": "SingleStack",
}


def changed(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    stored, obj = made("Service", spec=old), made("Service", spec=new)
    resource("Service").strategy.prepare_for_update(obj, stored)
    spec: dict[str, Any] = plain(obj)["spec"]
    return spec


def test_an_update_keeps_what_was_allocated() -> None:
    old = {**ALLOCATED, "type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}
    spec = changed(old, {"type": "NodePort", "ports": [{"port": 80}, {"name": "b", "port": 81}]})
    addresses = ("clusterIP", "clusterIPs")
    assert {key: spec[key] for key in addresses} == {key: ALLOCATED[key] for key in addresses}
    assert [port.get("nodePort") for port in spec["ports"]] == [30080, None]


def test_a_node_port_that_moved_is_not_given_twice() -> None:
    old = {**ALLOCATED, "type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}
    new = {"type": "NodePort", "ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81, "nodePort": 30080}]}
    assert [port.get("nodePort") for port in changed(old, new)["ports"]] == [None, 30080]


def test_a_change_of_type_drops_what_only_the_old_type_had() -> None:
    old = {**ALLOCATED, "type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}
    spec = changed(old, {**old, "type": "ClusterIP", "externalTrafficPolicy": "Cluster"})
    assert "nodePort" not in spec["ports"][0]
    assert "externalTrafficPolicy" not in spec
    named = changed(old, {**ALLOCATED, "type": "ExternalName", "externalName": "example.com"})
    assert not set(ALLOCATED) & set(named)


def test_a_namespace_has_its_name_as_a_label_and_the_finalizer() -> None:
    namespace = made("Namespace", metadata={"namespace": None})
    resource("Namespace").strategy.prepare_for_create(namespace)
    found = plain(namespace)
    assert found["metadata"]["labels"] == {"kubernetes.io/metadata.name": "web"}
    assert (found["spec"], found["status"]) == ({"finalizers": ["kubernetes"]}, {"phase": "Active"})


def test_text_of_a_secret_becomes_data() -> None:
    secret = plain(made("Secret", data={"a": "b2xk", "b": "Yg=="}, stringData={"a": "new"}))
    assert secret["data"] == {"a": "bmV3", "b": "Yg=="}
    assert secret["type"] == "Opaque"
    assert "stringData" not in secret


def test_a_node_can_allocate_its_capacity_unless_it_says_less() -> None:
    node = made("Node", metadata={"namespace": None}, status={"capacity": {"cpu": "2", "memory": "1024Mi"}})
    assert node.status.allocatable == {"cpu": "2", "memory": "1Gi"}
    assert plain(node)["status"]["daemonEndpoints"] == {"kubeletEndpoint": {"Port": 0}}


def test_endpoints_and_slices() -> None:
    ports = [{"port": 80}]
    endpoints = plain(made("Endpoints", subsets=[{"addresses": [{"ip": "10.0.0.1"}], "ports": ports}]))
    assert endpoints["subsets"][0]["ports"] == [{"port": 80, "protocol": "TCP"}]
    piece = plain(made("EndpointSlice", addressType="IPv4", ports=ports, endpoints=[{"addresses": ["10.0.0.1"]}]))
    assert piece["ports"] == [{"port": 80, "protocol": "TCP", "name": ""}]
    assert piece["endpoints"] == [{"addresses": ["10.0.0.1"], "conditions": {}}]


@pytest.mark.parametrize("kind", ["Pod", "Service", "Namespace", "Deployment", "ReplicaSet", "Node", "Secret", "Event"])
def test_defaults_of_what_has_them_change_nothing(kind: str) -> None:
    spec = {"Deployment": workload(), "ReplicaSet": workload(), "Pod": {"containers": [container()]}}.get(kind)
    obj = made(kind, **({"spec": spec} if spec else {}))
    before = plain(obj)
    resource(kind).strategy.default(obj)
    assert plain(obj) == before


def test_every_named_field_has_a_value() -> None:
    for kind in ("Pod", "Service", "Namespace", "Node", "ReplicaSet", "Secret", "Event"):
        strategy = resource(kind).strategy
        assert set(strategy.fields(made(kind))) == set(strategy.field_names)
