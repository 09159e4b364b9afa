"""kubectl rollout for StatefulSets and DaemonSets, and the logs of many pods at once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.conftest import Cluster

SCRIPT = "trap 'exit 0' TERM; echo begun; while :; do sleep 3600 & wait $!; done"


def workload(kind: str, name: str, **spec: Any) -> str:
    containers = [
        {"name": each, "image": "shop-backend:v1", "command": ["sh", "-c", SCRIPT]} for each in ("main", "side")
    ]
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": containers}}
    return json.dumps(
        {
            "apiVersion": "apps/v1",
            "kind": kind,
            "metadata": {"name": name},
            "spec": {"selector": {"matchLabels": {"app": name}}, "template": template, **spec},
        }
    )


@pytest.mark.parametrize(("kind", "spec"), [("StatefulSet", {"replicas": 2, "serviceName": "x"}), ("DaemonSet", {})])
def test_a_rollout_forth_and_back(cluster: Cluster, kind: str, spec: dict[str, Any]) -> None:
    name = kind.lower()
    target = f"{name}/{name}"
    cluster.kubectl("apply", "-f", "-", given=workload(kind, name, **spec))
    cluster.kubectl("rollout", "status", target, "--timeout=80s")
    cluster.kubectl("set", "image", target, "main=shop-backend:v2")
    said = cluster.kubectl("rollout", "status", target, "--timeout=80s")
    assert "complete" in said or "successfully rolled out" in said
    history = cluster.kubectl("rollout", "history", target).splitlines()
    assert [line.split()[0] for line in history[2:] if line] == ["1", "2"]
    assert "shop-backend:v2" in cluster.kubectl("rollout", "history", target, "--revision=2")
    assert "rolled back" in cluster.kubectl("rollout", "undo", target)
    cluster.kubectl("rollout", "restart", target)
    cluster.kubectl("rollout", "status", target, "--timeout=80s")
    containers = cluster.get(target)["spec"]["template"]["spec"]["containers"]
    assert containers[0]["image"] == "shop-backend:v1"
    assert "Pod Template:" in cluster.kubectl("describe", target)


def test_logs_of_many_pods_and_containers(cluster: Cluster) -> None:
    cluster.kubectl("apply", "-f", "-", given=workload("StatefulSet", "logged", replicas=2, serviceName="x"))
    cluster.kubectl("rollout", "status", "statefulset/logged", "--timeout=80s")
    every = ("logs", "-l", "app=logged", "--all-containers", "--prefix", "--tail=5")
    begun = [f"[pod/logged-{number}/{container}] begun" for number in (0, 1) for container in ("main", "side")]
    cluster.until(lambda: sorted(cluster.kubectl(*every).splitlines()) == begun, "what each of them says")
    assert cluster.kubectl("logs", "statefulset/logged", "-c", "side") == "begun\n"
    assert cluster.kubectl("logs", "logged-1", "--timestamps").split()[1] == "begun"
    few = ("--max-log-requests=1", "-f", "--all-containers")
    refused = cluster.kubectl("logs", "-l", "app=logged", *few, code=1, both=True)
    assert "you are attempting to follow 4 log streams, but maximum allowed concurrency is 1" in refused
    cluster.kubectl("delete", "statefulset", "logged", "--cascade=foreground", "--timeout=80s")
    assert not cluster.kubectl("get", "pods", "-l", "app=logged", "-o", "name")
