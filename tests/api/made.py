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
VERSIONS = {("autoscaling", "HorizontalPodAutoscaler"): "v2"}
"""Of kinds that are kept in another version than v1."""


def resource(kind: str) -> Resource:
    """By kind, or by kind and group where two groups have it: Event.events.k8s.io."""
    kind, dot, group = kind.partition(".")
    for found in REGISTRY:
        if dot and found.group != group:
            continue
        if found.kind == kind and found.version == VERSIONS.get((found.group, kind), "v1"):
            return found
    raise KeyError(kind)


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


def update_faults(kind: str, before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What is wrong with a change of an object from `before` to `after`."""
    strategy = resource(kind).strategy
    old, new = made(kind, **before), made(kind, **after)
    return shown((*strategy.validate(new), *strategy.validate_update(new, old)))


def status_faults(kind: str, status: dict[str, Any], before: dict[str, Any] | None = None, **fields: Any) -> list[str]:
    """What is wrong with a status that follows another."""
    strategy = resource(kind).strategy
    old, new = made(kind, **fields, status=before or {}), made(kind, **fields, status=status)
    strategy.prepare_for_status_update(new, old)
    return shown(strategy.validate_status_update(new, old))


def cells(kind: str, now_s: float, *, wide: bool = False, **fields: Any) -> dict[str, Any]:
    """A row of `kubectl get`, by the names of its columns."""
    obj = made(kind, **fields)
    columns = [column for column in resource(kind).columns if wide or not column.priority]
    return {column.name: column.cell(obj, now_s) for column in columns}
