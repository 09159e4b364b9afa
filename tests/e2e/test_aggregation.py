"""Autoscaling by what a metrics adapter measures: the adapter is a server of its own behind an APIService, in a pod."""

from __future__ import annotations

import base64
import json
import ssl
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from knarr import pki
from knarr.clock import SystemClock
from tests.e2e.conftest import Cluster, started

ADAPTER = (Path(__file__).parent / "metrics_adapter.py").read_text()
MACHINE = list(dict.fromkeys(["/usr", "/lib", "/lib64", sys.base_prefix]))
"""Folders in which this machine's Python is, for the container to have it."""
IMAGE = "shop-backend:v1"
CUSTOM, EXTERNAL = "custom.metrics.k8s.io/v1beta2", "external.metrics.k8s.io/v1beta1"
VALUES = f"/apis/{CUSTOM}/namespaces/default/values"
RBAC = "rbac.authorization.k8s.io"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, archives: list[str]) -> Iterator[Cluster]:
    """One whose API server pods can reach."""
    made = Cluster(tmp_path_factory.mktemp("aggregation"))
    made.listen_host = "0.0.0.0"
    yield from started(made, archives)


def adapter(folder: Path) -> list[dict[str, Any]]:
    """All that an adapter's manifest has."""
    made = pki.ensure(folder, SystemClock(), dns_names=["adapter.metrics.svc"], addresses=[])
    where = {"namespace": "metrics"}
    account = {"kind": "ServiceAccount", "name": "adapter", "namespace": "metrics"}
    labels = {"app": "adapter"}
    mounts = [(f"m{number}", path) for number, path in enumerate(MACHINE)]
    container = {
        "name": "adapter",
        "image": IMAGE,
        "command": [str(Path(sys.base_prefix) / "bin" / Path(sys.executable).name), "/adapter/adapter.py"],
        "ports": [{"name": "https", "containerPort": 6443}],
        "readinessProbe": {"tcpSocket": {"port": "https"}, "periodSeconds": 1},
        "volumeMounts": [
            {"name": "adapter", "mountPath": "/adapter"},
            {"name": "tls", "mountPath": "/tls"},
            *({"name": name, "mountPath": path, "readOnly": True} for name, path in mounts),
        ],
    }
    volumes = [
        {"name": "adapter", "configMap": {"name": "adapter"}},
        {"name": "tls", "secret": {"secretName": "adapter"}},
        *({"name": name, "hostPath": {"path": path}} for name, path in mounts),
    ]
    pod = {
        "serviceAccountName": "adapter",
        "terminationGracePeriodSeconds": 0,
        "containers": [container],
        "volumes": volumes,
    }
    pair = {"tls.crt": made.apiserver.certificate_pem.decode(), "tls.key": made.apiserver.key_pem.decode()}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "metrics"}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "adapter", **where}},
        bound("ClusterRoleBinding", "system:auth-delegator", account),
        bound("ClusterRoleBinding", "view", account),
        bound("RoleBinding", "extension-apiserver-authentication-reader", account, namespace="kube-system"),
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "adapter", **where},
            "data": {"adapter.py": ADAPTER},
        },
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "adapter", **where}, "stringData": pair},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "adapter", **where},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "adapter", **where},
            "spec": {"selector": labels, "ports": [{"name": "https", "port": 443, "targetPort": "https"}]},
        },
        *(api_service(version, made.ca.certificate_pem) for version in (CUSTOM, EXTERNAL)),
    ]


def bound(kind: str, role: str, subject: dict[str, str], namespace: str = "") -> dict[str, Any]:
    metadata = {"name": f"adapter:{role}"} | ({"namespace": namespace} if namespace else {})
    reference = {"apiGroup": RBAC, "kind": kind.removesuffix("Binding"), "name": role}
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": kind,
        "metadata": metadata,
        "roleRef": reference,
        "subjects": [subject],
    }


def api_service(group_version: str, authority: bytes) -> dict[str, Any]:
    group, _, version = group_version.partition("/")
    spec = {
        "group": group,
        "version": version,
        "groupPriorityMinimum": 100,
        "versionPriority": 100,
        "caBundle": base64.b64encode(authority).decode(),
        "service": {"name": "adapter", "namespace": "metrics"},
    }
    name = f"{version}.{group}"
    return {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": name}, "spec": spec}


def scaled() -> list[dict[str, Any]]:
    """What is scaled, and by what."""
    labels = {"app": "web"}
    container = {"name": "c", "image": IMAGE, "command": ["sleep", "600"]}
    described = {"apiVersion": "v1", "kind": "Service", "name": "web"}
    average = {"type": "AverageValue", "averageValue": "10"}
    metrics = [
        {"type": "Pods", "pods": {"metric": {"name": "requests"}, "target": average}},
        {"type": "Object", "object": {"metric": {"name": "load"}, "describedObject": described, "target": average}},
        {"type": "External", "external": {"metric": {"name": "queue"}, "target": average}},
    ]
    template = {
        "metadata": {"labels": labels},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
    }
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web"},
            "spec": {"selector": {"matchLabels": labels}, "template": template},
        },
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}},
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "web"},
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
                "minReplicas": 1,
                "maxReplicas": 5,
                "metrics": metrics,
                "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
            },
        },
    ]


def listed(objects: list[dict[str, Any]]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})


def measure(cluster: Cluster, **values: str) -> None:
    cluster.kubectl("create", "--raw", VALUES, "-f", "-", given=json.dumps(values))


def active(cluster: Cluster) -> tuple[str, str]:
    """Reason and message of ScalingActive."""
    conditions = cluster.get("hpa", "web").get("status", {}).get("conditions", ())
    found = [(each["reason"], each["message"]) for each in conditions if each["type"] == "ScalingActive"]
    return found[0] if found else ("", "")


def test_an_autoscaler_follows_what_an_adapter_measures(cluster: Cluster, tmp_path: Path) -> None:
    cluster.kubectl("apply", "-f", "-", given=listed([*adapter(tmp_path / "pki"), *scaled()]))
    for name in ("v1beta2.custom.metrics.k8s.io", "v1beta1.external.metrics.k8s.io"):
        cluster.kubectl("wait", "--for=condition=Available", f"apiservice/{name}", "--timeout=80s")
    shown = cluster.kubectl("get", "apiservice", "v1beta2.custom.metrics.k8s.io", "--no-headers").split()
    assert shown[1:3] == ["metrics/adapter", "True"]
    assert "pods/requests" in cluster.kubectl("get", "--raw", f"/apis/{CUSTOM}")

    # What is not measured is told of, each as upstream says it.
    missing = (
        "the HPA was unable to compute the replica count: unable to get metric requests: "
        "unable to fetch metrics from custom metrics API: no metric requests is known"
    )
    cluster.until(lambda: active(cluster) == ("FailedGetPodsMetric", missing), "that a metric is not there")
    measure(cluster, requests="10", load="10", queue="10")
    cluster.until(lambda: active(cluster)[0] == "ValidMetricFound", "all metrics")
    assert replicas(cluster) == 1

    # Each kind of metric asks for more, and all together for less.
    measure(cluster, requests="20")
    cluster.until(lambda: replicas(cluster) == 2, "two replicas by the metric of the pods")
    cluster.kubectl("rollout", "status", "deploy/web", "--timeout=80s")
    measure(cluster, requests="10", load="30")
    cluster.until(lambda: replicas(cluster) == 3, "three replicas by the metric of the object")
    measure(cluster, load="10", queue="45")
    cluster.until(lambda: replicas(cluster) == 5, "five replicas by the metric from outside")
    measure(cluster, requests="5", load="5", queue="5")
    cluster.until(lambda: replicas(cluster) == 1, "one replica")
    told = cluster.kubectl("describe", "hpa", "web")
    for metric in ("pods metric requests", "external metric load(nil)", "external metric queue(nil)"):
        assert f"reason: {metric} above target" in told, told


def replicas(cluster: Cluster) -> int:
    found: int = cluster.get("deploy", "web")["spec"]["replicas"]
    return found


def raw(cluster: Cluster, path: str, accept: str) -> str:
    """What the API server answers to the administrator's certificate, in a form that kubectl does not ask for."""
    folder = cluster.data / "pki"
    context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    context.load_cert_chain(folder / "admin.crt", folder / "admin.key")
    request = urllib.request.Request(f"https://127.0.0.1:{cluster.port}{path}", headers={"accept": accept})
    with urllib.request.urlopen(request, context=context, timeout=30) as answer:
        text: str = answer.read().decode()
    return text


def test_who_asks_is_known_to_the_adapter_by_the_api_server_alone(cluster: Cluster) -> None:
    path = f"/apis/{CUSTOM}/namespaces/default/services/web/load"
    assert json.loads(cluster.kubectl("get", "--raw", path))["items"][0]["value"] == "5"
    refused = cluster.kubectl("get", "--raw", path, "--as=jane", code=1, both=True)
    assert 'User "jane" cannot get resource "services/load"' in refused
    # Who comes by another way, without the API server's own certificate, is not believed whatever he says.
    around = f"/api/v1/namespaces/metrics/services/https:adapter:443/proxy{path}"
    assert "only the API server is believed" in cluster.kubectl("get", "--raw", around, code=1, both=True)


def test_a_metrics_server_takes_the_place_of_ours_and_ours_is_back_when_it_goes(cluster: Cluster) -> None:
    name = "v1beta1.metrics.k8s.io"
    assert cluster.kubectl("get", "apiservice", name, "--no-headers").split()[1:3] == ["Local", "True"]
    cluster.until(lambda: "CPU(cores)" in cluster.kubectl("top", "nodes"), "our own measurements")
    # As in its manifest; the rest of that is not there, so that nobody answers.
    spec = {
        "group": "metrics.k8s.io",
        "version": "v1beta1",
        "groupPriorityMinimum": 100,
        "versionPriority": 100,
        "insecureSkipTLSVerify": True,
        "service": {"name": "metrics-server", "namespace": "kube-system"},
    }
    wanted = {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": name}, "spec": spec}
    cluster.kubectl("apply", "-f", "-", given=json.dumps(wanted))
    cluster.until(lambda: "False (ServiceNotFound)" in cluster.kubectl("get", "apiservice", name), "theirs")
    shown = cluster.kubectl("get", "apiservice", name, "--no-headers").split()
    assert shown[1] == "kube-system/metrics-server"
    assert "Metrics API not available" in cluster.kubectl("top", "nodes", code=1, both=True)
    cluster.kubectl("delete", "apiservice", name)
    cluster.until(lambda: "Local" in cluster.kubectl("get", "apiservice", name, "--no-headers"), "ours")
    cluster.until(lambda: "CPU(cores)" in cluster.kubectl("top", "nodes"), "our own measurements")


def test_an_adapter_that_has_gone_breaks_nothing_but_what_it_serves(cluster: Cluster) -> None:
    cluster.kubectl("scale", "-n", "metrics", "deploy/adapter", "--replicas=0")
    cluster.until(
        lambda: "False (MissingEndpoints)" in cluster.kubectl("get", "apiservice", "v1beta2.custom.metrics.k8s.io"),
        "that nobody is there",
    )
    refused = cluster.kubectl("get", "--raw", f"/apis/{CUSTOM}", code=1, both=True)
    assert "the server is currently unable to handle the request" in refused
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    groups = json.loads(raw(cluster, "/apis", accept))["items"]
    found = {each["metadata"]["name"]: {version["freshness"] for version in each["versions"]} for each in groups}
    assert found.pop("custom.metrics.k8s.io") == found.pop("external.metrics.k8s.io") == {"Stale"}
    assert set.union(*found.values()) == {"Current"}
    assert "deployments" in cluster.kubectl("api-resources", "--api-group=apps")
    cluster.until(lambda: active(cluster)[0] == "FailedGetPodsMetric", "the autoscaler says so")
    assert active(cluster)[1].endswith(
        "custom metrics API: the server is currently unable to handle the request (get pods.custom.metrics.k8s.io *)"
    )
    cluster.kubectl("create", "namespace", "shop")
    cluster.kubectl("delete", "namespace", "shop", "--wait=false")

    def reasons() -> list[str]:
        conditions = cluster.get("namespace", "shop").get("status", {}).get("conditions", ())
        return [each["reason"] for each in conditions if each["status"] == "True"]

    cluster.until(lambda: "DiscoveryFailed" in reasons(), "what holds the namespace up")
    cluster.kubectl("delete", "apiservice", "v1beta2.custom.metrics.k8s.io", "v1beta1.external.metrics.k8s.io")
    cluster.kubectl("wait", "--for=delete", "namespace/shop", "--timeout=80s")
    assert "custom.metrics" not in cluster.kubectl("api-resources")
