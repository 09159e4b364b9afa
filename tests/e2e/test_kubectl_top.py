"""kubectl top, and the pages of a node that metrics come from."""

from __future__ import annotations

import json

import pytest

from tests.e2e.conftest import Cluster
from tests.e2e.test_kubectl import FOREVER, pod


@pytest.fixture(scope="module")
def busy(cluster: Cluster) -> Cluster:
    """The cluster with a pod that computes and one that sleeps, both measured."""
    scripts = {"busy": "while :; do :; done", "idle": FOREVER}
    for name, script in scripts.items():
        cluster.kubectl("apply", "-f", "-", given=pod(name, script))
    cluster.kubectl("wait", "pod/busy", "pod/idle", "--for=condition=Ready", "--timeout=60s")
    cluster.until(lambda: len(cluster.get("pods.metrics.k8s.io")["items"]) == 2, "the first measurements")
    cluster.until(lambda: cluster.get("nodes.metrics.k8s.io")["items"], "those of the node")
    return cluster


def milli(shown: str) -> int:
    assert shown.endswith("m")
    return int(shown[:-1])


def test_pods_are_shown_with_what_they_use(busy: Cluster) -> None:
    def used() -> dict[str, list[str]]:
        head, *rows = busy.kubectl("top", "pods", "--sort-by=cpu").splitlines()
        assert head.split() == ["NAME", "CPU(cores)", "MEMORY(bytes)"]
        return {row.split()[0]: row.split()[1:] for row in rows}

    # A pod's first measurement is of its start, too.
    busy.until(lambda: milli(used()["busy"][0]) > 5 * milli(used()["idle"][0]), "that one is at rest")
    shown = used()
    assert next(iter(shown)) == "busy"
    assert shown["idle"][1].endswith("Mi")
    containers = busy.kubectl("top", "pod", "busy", "--containers").splitlines()
    assert containers[0].split()[:2] == ["POD", "NAME"]
    assert containers[1].split()[:2] == ["busy", "main"]
    missing = busy.kubectl("top", "pod", "nobody", code=1, both=True)
    assert 'podmetrics.metrics.k8s.io "default/nobody" not found' in missing


def test_nodes_are_shown_with_what_they_use_of_what_they_have(busy: Cluster) -> None:
    head, row = busy.kubectl("top", "nodes").splitlines()
    assert head.split() == ["NAME", "CPU(cores)", "CPU(%)", "MEMORY(bytes)", "MEMORY(%)"]
    assert milli(row.split()[1]) > 0
    assert row.split()[2].endswith("%")


def test_a_node_serves_what_a_kubelet_serves(busy: Cluster) -> None:
    node = busy.get("nodes")["items"][0]["metadata"]["name"]
    summary = json.loads(busy.kubectl("get", "--raw", f"/api/v1/nodes/{node}/proxy/stats/summary"))
    names = {each["podRef"]["name"] for each in summary["pods"]}
    assert {"busy", "idle"} <= names
    assert summary["node"]["memory"]["workingSetBytes"] > 0
    text = busy.kubectl("get", "--raw", f"/api/v1/nodes/{node}/proxy/metrics/resource")
    assert 'container_cpu_usage_seconds_total{container="main",namespace="default",pod="busy"}' in text
    assert busy.kubectl("get", "--raw", f"/api/v1/nodes/{node}:10250/proxy/healthz") == "ok"


def test_who_may_view_may_see_what_is_used(busy: Cluster) -> None:
    busy.kubectl("create", "rolebinding", "view", "--clusterrole=view", "--user=ann")
    assert busy.kubectl("auth", "can-i", "list", "pods.metrics.k8s.io", "--as=ann") == "yes\n"
    assert busy.kubectl("auth", "can-i", "list", "pods.metrics.k8s.io", "--as=bob", code=1) == "no\n"
    assert "busy" in busy.kubectl("top", "pods", "--as=ann")
