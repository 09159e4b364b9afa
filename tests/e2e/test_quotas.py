"""A quota in a real cluster, where every loop writes as its own account: taken, told, given back."""

from __future__ import annotations

from typing import Any

from tests.e2e.conftest import Cluster


def used(cluster: Cluster) -> Any:
    return cluster.get("resourcequota", "few", "-n", "small")["status"].get("used")


def test_a_quota_is_counted_enforced_told_and_given_back(cluster: Cluster) -> None:
    cluster.kubectl("create", "namespace", "small")
    cluster.kubectl("create", "quota", "few", "-n", "small", "--hard=pods=2,count/configmaps=5")
    cluster.until(lambda: used(cluster) == {"pods": "0", "count/configmaps": "1"}, "the quota is counted")
    cluster.kubectl("create", "deployment", "web", "-n", "small", "--image=none.invalid/x", "--replicas=3")

    def refused() -> bool:
        conditions = cluster.get("deployment", "web", "-n", "small")["status"].get("conditions", ())
        return any(each["type"] == "ReplicaFailure" and "exceeded quota: few" in each["message"] for each in conditions)

    cluster.until(refused, "the deployment tells of the quota")
    cluster.until(lambda: used(cluster)["pods"] == "2", "two pods are there")
    cluster.kubectl("scale", "deployment", "web", "-n", "small", "--replicas=1")
    cluster.until(lambda: used(cluster)["pods"] == "1", "one is given back")
    cluster.kubectl("label", "namespace", "small", "pod-security.kubernetes.io/enforce=restricted")
    cluster.kubectl("delete", "namespace", "small", "--wait=false")
    cluster.until(lambda: "small" not in cluster.kubectl("get", "namespaces"), "the namespace is gone")
