"""Pods, namespaces and policies for tests."""

from __future__ import annotations

from typing import Any

import msgspec

from knarr.api.core.v1 import Namespace, Pod
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.networking.v1 import NetworkPolicy
from knarr.api.registry import built_in

NODE = "node-1"
REGISTRY = built_in()


def namespace(name: str, **labels: str) -> Namespace:
    return Namespace(metadata=ObjectMeta(name=name, labels={"kubernetes.io/metadata.name": name, **labels}))


def pod(name: str, address: str, *, within: str = "x", node: str = NODE, labels: dict[str, str] | None = None) -> Pod:
    """A pod whose containers call ports 80 and 81 serve-<port>-<protocol>."""
    ports = [
        {"name": f"serve-{port}-{protocol.lower()}", "containerPort": port, "protocol": protocol}
        for port in (80, 81)
        for protocol in ("TCP", "UDP")
    ]
    return msgspec.convert(
        {
            "metadata": {"name": name, "namespace": within, "labels": {"pod": name} if labels is None else labels},
            "spec": {"nodeName": node, "containers": [{"name": "main", "image": "none", "ports": ports}]},
            "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
        },
        Pod,
    )


def policy(name: str = "policy", *, within: str = "x", **spec: Any) -> NetworkPolicy:
    """A NetworkPolicy as it is stored: with defaults. `spec` is written as in YAML; selects all pods unless it says."""
    made = msgspec.convert({"metadata": {"name": name, "namespace": within}, "spec": spec}, NetworkPolicy)
    REGISTRY.of(NetworkPolicy).strategy.default(made)
    return made
