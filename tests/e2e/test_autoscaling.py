"""Autoscaling by what real containers use: a load step raises the replicas within seconds."""

from __future__ import annotations

import json

from tests.e2e.conftest import Cluster

IDLE_UNTIL_TOLD = """
trap 'told=yes' USR1; : >/listens
until [ "$told" ]; do sleep 1 & wait $!; done
while :; do :; done"""
TELL = "until [ -e /listens ]; do sleep 0.1; done; kill -USR1 1"
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
                        "command": ["sh", "-c", IDLE_UNTIL_TOLD],
                        "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "200m"}},
                    }
                ],
            },
        },
    },
}


def test_a_load_step_asks_for_more_replicas_within_seconds(cluster: Cluster) -> None:
    cluster.kubectl("apply", "-f", "-", given=json.dumps(BURNER))
    cluster.kubectl("rollout", "status", "deploy/burner", "--timeout=80s")
    cluster.kubectl("autoscale", "deploy/burner", "--cpu-percent=50", "--min=1", "--max=3")
    cluster.until(lambda: "unknown" not in cluster.kubectl("get", "hpa", "burner"), "a first measurement")
    assert cluster.get("deploy", "burner")["spec"]["replicas"] == 1
    (pod,) = cluster.get("pods", "-l", "app=burner")["items"]
    cluster.kubectl("exec", pod["metadata"]["name"], "--", "sh", "-c", TELL)
    cluster.until(lambda: cluster.get("deploy", "burner")["spec"]["replicas"] > 1, "more replicas")
    described = cluster.until(
        lambda: (text := cluster.kubectl("describe", "hpa", "burner")) and "SuccessfulRescale" in text and text,
        "the event",
    )
    assert "reason: cpu resource utilization (percentage of request) above target" in described
    cluster.kubectl("delete", "hpa/burner", "deploy/burner")
