"""Applying as somebody, and reading who owns what."""

from __future__ import annotations

from typing import Any

from knarr.client.client import APPLY_PATCH, MERGE_PATCH
from tests.apiserver.pipeline.door import Door

CONFIG_MAP = "/api/v1/namespaces/default/configmaps/a"
DEPLOYMENT = "/apis/apps/v1/namespaces/default/deployments/web"
SERVICE = "/api/v1/namespaces/default/services/s"
POD = "/api/v1/namespaces/default/pods/p"


async def apply(
    door: Door, path: str, config: Any, manager: str, *, force: bool = False, **query: str
) -> tuple[int, Any]:
    """Status and answer of a server-side apply."""
    if force:
        query["force"] = "true"
    return await door("PATCH", path, config, content_type=APPLY_PATCH, fieldManager=manager, **query)


async def applied(door: Door, path: str, config: Any, manager: str, *, force: bool = False, **query: str) -> Any:
    """The object that an apply, which must succeed, answers."""
    status, obj = await apply(door, path, config, manager, force=force, **query)
    assert status in (200, 201), obj
    return obj


async def merge(door: Door, path: str, patch: Any, manager: str) -> Any:
    """The object after a merge patch: a write that owns what it changes."""
    return await door.done("PATCH", path, patch, content_type=MERGE_PATCH, fieldManager=manager)


def entry(obj: Any, manager: str, operation: str = "", subresource: str = "") -> Any:
    """The entry of a manager in managedFields; None when there is none."""
    found = [
        each
        for each in obj["metadata"].get("managedFields", ())
        if each["manager"] == manager
        and operation in ("", each["operation"])
        and each.get("subresource", "") == subresource
    ]
    assert len(found) < 2, found
    return found[0] if found else None


def owned(obj: Any, manager: str, operation: str = "", subresource: str = "") -> Any:
    """What a manager owns; {} when nothing."""
    found = entry(obj, manager, operation, subresource)
    return found["fieldsV1"] if found else {}


def config_map(data: dict[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    body: dict[str, Any] = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", **metadata}}
    return body if data is None else body | {"data": data}


def deployment(containers: list[dict[str, Any]], **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": containers}},
            **spec,
        },
    }
