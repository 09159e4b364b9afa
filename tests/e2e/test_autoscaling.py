"""Autoscaling by what real containers use: a load step raises the replicas within seconds."""

from __future__ import annotations

import json
import time

from tests.e2e.conftest import Cluster

BURNER = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "burner"},
    "spec": {
        "selector": {"matchLabels": {"app": "burner"}},
        "template": {
            "metadata": {"labels": {"app": "burner"}},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "containers": [
                    {
                        "name": "c",
                        "image": "shop-backend:v1",
                        "command": [
                            "sh",
                            "-c",
                            "while [ ! -f /tmp/go ]; do sleep 0.1; done; while [ -f /tmp/go ]; do :; done; sleep 600",
                        ],
                        "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "200m"}},
                    }
                ],
            },
        },
    },
}


def test_a_load_step_asks_for_more_replicas_within_seconds(cluster: Cluster) -> None:
    cluster.kubectl("apply", "-f", "-", given=json.dumps(BURNER))
    cluster.kubectl("rollout", "status", "deploy/burner", "--timeout=40s")
    cluster.kubectl("autoscale", "deploy/burner", "--cpu-percent=50", "--min=1", "--max=3")
    cluster.until(lambda: "0%/50%" in cluster.kubectl("get", "hpa", "burner"), "a first measurement")
    assert cluster.get("deploy", "burner")["spec"]["replicas"] == 1
    (pod,) = cluster.get("pods", "-l", "app=burner")["items"]
    cluster.kubectl("exec", pod["metadata"]["name"], "--", "touch", "/tmp/go")
    began_s = time.monotonic()
    cluster.until(lambda: cluster.get("deploy", "burner")["spec"]["replicas"] > 1, "more replicas")
    print(f"asked for after {time.monotonic() - began_s:.1f} s")
    described = cluster.kubectl("describe", "hpa", "burner")
    assert "SuccessfulRescale" in described
    assert "reason: cpu resource utilization (percentage of request) above target" in described
    cluster.kubectl("delete", "hpa/burner", "deploy/burner")
