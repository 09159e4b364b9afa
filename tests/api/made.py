"""Objects for tests, as they come in: decoded and with their defaults."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from knarr.api.decode import convert
from knarr.api.errors import Cause
from knarr.api.registry import built_in
from knarr.api.resources import Resource

REGISTRY = built_in()
GROUPS = {
    "Deployment": "apps",
    "ReplicaSet": "apps",
    "EndpointSlice": "discovery.k8s.io",
    "Lease": "coordination.k8s.io",
}


def resource(kind: str) -> Resource:
    found = REGISTRY.by_kind(GROUPS.get(kind, ""), "v1", kind)
    assert found is not None
    return found


def made(kind: str, *, metadata: dict[str, Any] | None = None, **fields: Any) -> Any:
    """A typed object with its defaults."""
    entry = resource(kind)
    data = {"metadata": {"name": "web", "namespace": "default", **(metadata or {})}, **fields}
    obj, warnings = convert(entry.type, data, validation="Strict")
    assert warnings == []
    entry.strategy.default(obj)
    return obj


def plain(obj: Any) -> Any:
    """As it goes out."""
    return msgspec.json.decode(msgspec.json.encode(obj))


def shown(causes: Iterable[Cause]) -> list[str]:
    return [f"{cause.field}: {cause.message}" for cause in causes]


def faults(kind: str, **fields: Any) -> list[str]:
    """What is wrong with an object to be created."""
    strategy = resource(kind).strategy
    obj = made(kind, **fields)
    return shown((*strategy.validate(obj), *strategy.validate_create(obj)))


def container(**fields: Any) -> dict[str, Any]:
    return {"name": "web", "image": "nginx:1.25", **fields}


def workload(**spec: Any) -> dict[str, Any]:
    """The spec of a Deployment or ReplicaSet."""
    return {
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container()]}},
        **spec,
    }
