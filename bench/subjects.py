"""What the bench sends, and as whom: an ordinary user whom a role allows it, in one namespace."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

NAMESPACE = "bench"
USER, GROUP = "bench-user", "bench-users"
"""No administrator: each request is looked up in the rules of RBAC."""


def objects() -> Iterator[tuple[str, dict[str, Any]]]:
    """Path and body of what must be there: the namespace, a role in it, and who has it."""
    group, version = "rbac.authorization.k8s.io", "rbac.authorization.k8s.io/v1"
    roles = f"/apis/{version}/namespaces/{NAMESPACE}"
    rules = [
        {"apiGroups": [""], "resources": ["pods", "configmaps"], "verbs": ["*"]},
        {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "list", "watch", "create", "patch"]},
    ]
    role = {"apiVersion": version, "kind": "Role", "metadata": {"name": "bench"}, "rules": rules}
    binding = {
        "apiVersion": version,
        "kind": "RoleBinding",
        "metadata": {"name": "bench"},
        "roleRef": {"apiGroup": group, "kind": "Role", "name": "bench"},
        "subjects": [{"apiGroup": group, "kind": "Group", "name": GROUP}],
    }
    yield "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    yield f"{roles}/roles", role
    yield f"{roles}/rolebindings", binding


def pod(name: str, change: int | None = None) -> dict[str, Any]:
    """A pod of the usual size (2.5 KB as it is kept) that nobody schedules. What is measured is the API server."""
    metadata: dict[str, Any] = {"name": name, "namespace": NAMESPACE, "labels": {"app": "bench"}}
    if change is not None:
        metadata["annotations"] = {"change": str(change)}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {
            "schedulerName": "nobody",
            "containers": [
                {
                    "name": "main",
                    "image": "registry.example/team/app:1.2.3",
                    "command": ["/bin/app", "--listen=:8080"],
                    "env": [{"name": "MODE", "value": "bench"}],
                    "ports": [{"name": "http", "containerPort": 8080}],
                    "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
                }
            ],
        },
    }
