"""The operator of test_kopf.py: each ConfigMap with the label site=yes has a Deployment of as many replicas as it says.

Run by kopf, in a process of its own.
"""

from __future__ import annotations

from typing import Any

import kopf
from kubernetes import client, config


@kopf.on.startup()
def connect(**_: Any) -> None:
    config.load_kube_config()


@kopf.on.create("configmaps", labels={"site": "yes"})
def create(name: str, namespace: str, body: kopf.Body, **_: Any) -> None:
    container = {"name": "main", "image": "knarr.test/tools:v1", "command": ["sleep", "1000"]}
    template = {"metadata": {"labels": {"of": name}}, "spec": {"containers": [container]}}
    template["spec"]["terminationGracePeriodSeconds"] = 0
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": {"of": name}},
        "spec": {
            "replicas": int(body["data"]["replicas"]),
            "selector": {"matchLabels": {"of": name}},
            "template": template,
        },
    }
    kopf.adopt(deployment, owner=body)
    client.AppsV1Api().create_namespaced_deployment(namespace, deployment)


@kopf.on.update("configmaps", labels={"site": "yes"}, field="data.replicas")
def scale(name: str, namespace: str, new: str, body: kopf.Body, **_: Any) -> None:
    client.AppsV1Api().patch_namespaced_deployment_scale(name, namespace, {"spec": {"replicas": int(new)}})
    kopf.info(body, reason="Scaled", message=f"to {new}")


@kopf.on.event("deployments", labels={"of": kopf.PRESENT})
def ready(name: str, namespace: str, event: Any, status: kopf.Status, **_: Any) -> None:
    if event["type"] != "DELETED":
        annotation = {"metadata": {"annotations": {"ready": str(status.get("readyReplicas", 0))}}}
        client.CoreV1Api().patch_namespaced_config_map(name, namespace, annotation)


@kopf.on.delete("configmaps", labels={"site": "yes"})
def farewell(name: str, namespace: str, **_: Any) -> None:
    body = {"metadata": {"name": "farewell"}, "data": {"of": name}}
    client.CoreV1Api().create_namespaced_config_map(namespace, body)
