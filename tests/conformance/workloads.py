"""Objects that several of these tests use, as typed values in the namespace default."""

from __future__ import annotations

from typing import Any

import msgspec

from knarr.api.core.v1 import Pod, ReplicationController


def controller(name: str, replicas: int, **labels: str) -> ReplicationController:
    labels = labels or {"name": name}
    spec = {
        "replicas": replicas,
        "selector": labels,
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "one"}]}},
    }
    return msgspec.convert({"metadata": {"name": name, "namespace": "default"}, "spec": spec}, ReplicationController)


def pod(name: str, namespace: str = "default", *, finalizers: list[str] | None = None, **spec: Any) -> Pod:
    containers = [{"name": "c", "image": "one", **spec.pop("container", {})}]
    metadata = {"name": name, "namespace": namespace, "finalizers": finalizers or []}
    return msgspec.convert({"metadata": metadata, "spec": {"containers": containers, **spec}}, Pod)
