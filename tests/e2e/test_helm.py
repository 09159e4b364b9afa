"""Helm itself (its Go code, as a shared library that the Python package helm-python-sdk ships) on a real cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Cluster

helm = pytest.importorskip("helm_python", reason="needs helm-python-sdk, which ships Helm as a shared library")

CHART = Path(__file__).parent / "chart"
NAMESPACE = "charts"
WAIT: dict[str, Any] = {"wait": "watcher", "timeout": 80}


@pytest.fixture(scope="module")
def release(cluster: Cluster, tools: str) -> Any:
    with helm.Config(kubeconfig_path=cluster.kubeconfig, namespace=NAMESPACE) as config:
        config.check_reachable()
        yield config


def greeting(cluster: Cluster) -> str:
    found: str = cluster.get("cm", "web-settings", "-n", NAMESPACE)["data"]["greeting"]
    return found


def test_a_release_is_installed_upgraded_rolled_back_and_removed(cluster: Cluster, release: Any) -> None:
    made = release.install(CHART, "web", {"replicas": 1}, namespace=NAMESPACE, create_namespace=True, **WAIT)
    assert (made["status"], made["revision"]) == ("deployed", 1)
    deployment = cluster.get("deploy", "web", "-n", NAMESPACE)
    assert deployment["status"]["readyReplicas"] == 1  # it was waited for
    assert deployment["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm"
    assert deployment["metadata"]["annotations"]["meta.helm.sh/release-name"] == "web"
    assert cluster.get("pdb", "web", "-n", NAMESPACE)["spec"]["minAvailable"] == 1  # by what discovery says
    assert not cluster.kubectl("get", "pod", "web-migration", "-n", NAMESPACE, "--ignore-not-found")

    second = release.upgrade(CHART, "web", {"replicas": 2, "greeting": "ahoy"}, namespace=NAMESPACE, **WAIT)
    assert (second["status"], second["revision"]) == ("deployed", 2)
    assert cluster.get("deploy", "web", "-n", NAMESPACE)["status"]["readyReplicas"] == 2
    assert greeting(cluster) == "ahoy"

    with pytest.raises(helm.HelmError):
        release.upgrade(CHART, "web", {"migration": "exit 3"}, namespace=NAMESPACE, **WAIT)
    assert [each["status"] for each in release.history("web")] == ["superseded", "deployed", "failed"]
    assert greeting(cluster) == "ahoy"  # the hook came first

    release.rollback("web", version=1, **WAIT)
    assert greeting(cluster) == "hello"
    history = release.history("web")
    assert [each["revision"] for each in history] == [1, 2, 3, 4]
    assert history[-1]["status"] == "deployed"
    tested = release.test("web", timeout=80, logs=True)
    assert "backend v1" in tested["logs"]
    secrets = cluster.kubectl("get", "secrets", "-n", NAMESPACE, "-l", "owner=helm,status=deployed", "-o", "name")
    assert secrets.split() == ["secret/sh.helm.release.v1.web.v4"]

    release.uninstall("web", **WAIT)
    assert "No resources found" in cluster.kubectl("get", "deploy,svc,cm,pdb", "-n", NAMESPACE, "-l", "app", both=True)
    assert not cluster.kubectl("get", "deploy,svc,pdb", "-n", NAMESPACE, "-o", "name")
    with pytest.raises(helm.HelmNotFoundError):
        release.status("web")


def test_a_chart_that_the_server_refuses_says_why(cluster: Cluster, release: Any) -> None:
    dry = release.install(CHART, "dry", namespace=NAMESPACE, dry_run="server", create_namespace=True)
    assert "kind: Deployment" in dry["manifest"]
    assert not cluster.kubectl("get", "deploy", "-n", NAMESPACE, "-o", "name")
    with pytest.raises(helm.HelmError, match=r"spec\.replicas: Invalid value: -1"):
        release.install(CHART, "bad", {"replicas": -1}, namespace=NAMESPACE, create_namespace=True)
