"""What the bench sends, and as whom: an ordinary user whom roles allow it, in the namespaces of the bench."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

NAMESPACE = "bench"
USER, GROUP = "bench-user", "bench-users"
"""No administrator: each request is looked up in the rules of RBAC."""


SHARDS = 50
"""More namespaces, named like the first with a number, for watchers that are told of different things."""


def objects() -> Iterator[tuple[str, dict[str, Any]]]:
    """Path and body of what must be there: in each namespace a role, and who has it."""
    for namespace in (NAMESPACE, *(f"{NAMESPACE}-{shard}" for shard in range(SHARDS))):
        yield from _in(namespace)


def _in(namespace: str) -> Iterator[tuple[str, dict[str, Any]]]:
    group, version = "rbac.authorization.k8s.io", "rbac.authorization.k8s.io/v1"
    roles = f"/apis/{version}/namespaces/{namespace}"
    role = {
        "apiVersion": version,
        "kind": "Role",
        "metadata": {"name": "bench"},
        "rules": [
            {
                "apiGroups": [""],
                "resources": ["pods", "configmaps"],
                "verbs": ["get", "list", "watch", "create", "patch"],
            }
        ],
    }
    binding = {
        "apiVersion": version,
        "kind": "RoleBinding",
        "metadata": {"name": "bench"},
        "roleRef": {"apiGroup": group, "kind": "Role", "name": "bench"},
        "subjects": [{"apiGroup": group, "kind": "Group", "name": GROUP}],
    }
    yield "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    yield f"{roles}/roles", role
    yield f"{roles}/rolebindings", binding


def pod(name: str, change: str = "") -> dict[str, Any]:
    """A pod of the usual size (2.5 KB as it is kept) that nobody schedules. What is measured is the API server."""
    metadata: dict[str, Any] = {"name": name, "namespace": NAMESPACE, "labels": {"app": "bench"}}
    if change:
        metadata["annotations"] = {"change": change}
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
