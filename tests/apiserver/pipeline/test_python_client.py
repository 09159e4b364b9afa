"""The official Python client against the API server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.apiserver.pipeline.door import deployment
from tests.apiserver.pipeline.served import serve

kubernetes = pytest.importorskip("kubernetes")


def use(config: str) -> dict[str, object]:
    """What a program does with it, in a thread of its own; answers what it saw."""
    api = kubernetes.config.new_client_from_config(config)
    core, apps = kubernetes.client.CoreV1Api(api), kubernetes.client.AppsV1Api(api)
    version = kubernetes.client.VersionApi(api).get_code().git_version
    made = apps.create_namespaced_deployment("default", deployment())
    made.spec.replicas = 5
    changed = apps.replace_namespaced_deployment("web", "default", made)
    patched = apps.patch_namespaced_deployment("web", "default", {"spec": {"paused": True}})
    conflict = 0
    try:
        apps.replace_namespaced_deployment("web", "default", made)
    except kubernetes.client.ApiException as refused:
        conflict = refused.status
    watch = kubernetes.watch.Watch()
    events = []
    for event in watch.stream(core.list_namespaced_config_map, "default", timeout_seconds=30):
        events.append((event["type"], event["object"].metadata.name))
        if len(events) == 1:
            core.create_namespaced_config_map("default", {"metadata": {"name": "b"}})
        else:
            watch.stop()
    apps.delete_namespaced_deployment("web", "default")
    left = apps.list_deployment_for_all_namespaces().items
    api.close()
    return {
        "version": version,
        "replicas": changed.spec.replicas,
        "paused": patched.spec.paused,
        "conflict": conflict,
        "events": events,
        "left": left,
    }


async def test_objects_watches_and_errors(tmp_path: Path) -> None:
    async with serve(tmp_path) as served:
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}
        await served.door.done("POST", "/api/v1/namespaces/default/configmaps", body)
        seen = await asyncio.to_thread(use, served.kubeconfig())
    assert str(seen.pop("version")).startswith("v1.36.")
    assert seen == {
        "replicas": 5,
        "paused": True,
        "conflict": 409,
        "events": [("ADDED", "a"), ("ADDED", "b")],
        "left": [],
    }
