"""Objects for tests, as a user writes them, taken through the steps of a write."""

from __future__ import annotations

import json
from typing import Any

from knarr.api.apps.v1 import Deployment
from knarr.api.core.v1 import Pod
from knarr.api.decode import decode
from knarr.api.metadata import validate_metadata
from knarr.api.registry import built_in

REGISTRY = built_in()


def written(kind: type[Any], **fields: Any) -> Any:
    """An object of a kind from JSON fields, with defaults filled in."""
    fields.setdefault("metadata", {"name": "web", "namespace": "default"})
    obj, warnings = decode(kind, json.dumps(fields).encode(), validation="Strict")
    assert not warnings
    REGISTRY.of(kind).strategy.default(obj)
    return obj


def born(kind: type[Any], **fields: Any) -> Any:
    obj = written(kind, **fields)
    REGISTRY.of(kind).strategy.prepare_for_create(obj)
    return obj


def faults(obj: Any) -> list[str]:
    """`field: message` of all that is wrong, in order."""
    resource = REGISTRY.of(type(obj))
    causes = (*validate_metadata(obj.metadata, resource), *resource.strategy.validate(obj))
    return [f"{cause.field}: {cause.message}" for cause in causes]


def change_faults(new: Any, old: Any) -> list[str]:
    causes = REGISTRY.of(type(new)).strategy.validate_update(new, old)
    return [f"{cause.field}: {cause.message}" for cause in causes]


def row(obj: Any, now_s: float = 0) -> list[Any]:
    """The cells of `kubectl get -o wide`, without the name."""
    return [column.cell(obj, now_s) for column in REGISTRY.of(type(obj)).columns]


def headers(kind: type[Any]) -> str:
    return " ".join(column.name.upper().replace(" ", "-") for column in REGISTRY.of(kind).columns)


def pod(container: dict[str, Any] | None = None, **spec: Any) -> Pod:
    containers = [{"name": "c", "image": "nginx:1"} | (container or {})]
    return born(Pod, spec={"containers": containers} | spec)  # type: ignore[no-any-return]


def deployment(**spec: Any) -> Deployment:
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}}
    whole = {"selector": {"matchLabels": {"app": "web"}}, "template": template} | spec
    return born(Deployment, spec=whole)  # type: ignore[no-any-return]
