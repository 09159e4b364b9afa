"""An operator written with kopf, on kinds that are built in: handlers, finalizers, children, events."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Cluster

pytest.importorskip("kopf", reason="needs kopf")

OPERATOR = Path(__file__).parent / "site_operator.py"


@pytest.fixture
def operator(cluster: Cluster, tools: str, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    log = tmp_path / "log"
    with log.open("wb") as output:
        line = [sys.executable, "-m", "kopf", "run", "--namespace=default", "--standalone", str(OPERATOR)]
        running = subprocess.Popen(
            line, stdout=output, stderr=output, env={**os.environ, "KUBECONFIG": str(cluster.kubeconfig)}
        )
        try:
            yield running
        except BaseException:
            print(log.read_text())
            raise
        finally:
            running.terminate()
            assert running.wait(60) == 0, log.read_text()


def test_an_operator_keeps_a_deployment_for_each_config_map(
    cluster: Cluster, operator: subprocess.Popen[bytes]
) -> None:
    cluster.kubectl("create", "configmap", "site", "--from-literal=replicas=1")
    cluster.kubectl("label", "configmap", "site", "site=yes")
    made = cluster.until(lambda: cluster.kubectl("get", "deploy", "site", "--ignore-not-found"), "the deployment")
    assert made
    owner = cluster.get("deploy", "site")["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["name"]) == ("ConfigMap", "site")
    found = cluster.get("cm", "site")["metadata"]
    assert found["finalizers"] == ["kopf.zalando.org/KopfFinalizerMarker"]

    def ready() -> str:
        told: str = cluster.get("cm", "site")["metadata"].get("annotations", {}).get("ready", "")
        return told

    cluster.until(lambda: ready() == "1", "a ready pod")
    cluster.kubectl("patch", "configmap", "site", "--type=merge", "-p", '{"data":{"replicas":"2"}}')
    cluster.until(lambda: cluster.get("deploy", "site")["spec"]["replicas"] == 2, "the new number")
    cluster.until(lambda: ready() == "2", "two ready pods")
    ours = ("events", "--field-selector", "involvedObject.name=site,involvedObject.kind=ConfigMap")
    cluster.until(lambda: "Scaled" in {each["reason"] for each in cluster.get(*ours)["items"]}, "its event")
    cluster.kubectl("delete", "configmap", "site", "--timeout=60s")
    left = cluster.get("cm", "farewell")
    assert left["data"] == {"of": "site"}
    cluster.until(lambda: not cluster.kubectl("get", "deploy", "site", "--ignore-not-found"), "the garbage collector")
