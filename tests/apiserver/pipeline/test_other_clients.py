"""kr8s and lightkube against the API server: what their users do first."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.apiserver.pipeline.door import CONFIG_MAPS, config_map, deployment
from tests.apiserver.pipeline.served import Served, serve

WAIT_S = 30


@pytest.mark.filterwarnings("ignore:Kubernetes version .* is not supported")
async def test_kr8s(tmp_path: Path) -> None:
    kr8s = pytest.importorskip("kr8s.asyncio")
    objects = pytest.importorskip("kr8s.asyncio.objects")
    async with serve(tmp_path) as served:
        api = await kr8s.api(kubeconfig=served.kubeconfig())
        assert (await api.version())["minor"] == "36"
        web = await objects.Deployment(deployment(), api=api)
        await web.create()
        await web.scale(5)
        await web.refresh()
        assert web.replicas == 5
        await web.patch({"metadata": {"labels": {"tier": "front"}}})
        found = [each.name async for each in kr8s.get("deployments", label_selector={"tier": "front"}, api=api)]
        assert found == ["web"]
        kinds = {(kind["name"], kind["version"]) for kind in await api.api_resources()}
        assert {("deployments", "apps/v1"), ("pods", "v1")} <= kinds
        async with asyncio.timeout(WAIT_S):
            await kr8s_watch(kr8s, api, served)
        await web.delete()
        assert not await web.exists()
        await api._session.aclose()


async def kr8s_watch(kr8s: Any, api: Any, served: Served) -> None:
    await served.door.done("POST", CONFIG_MAPS, config_map("a"))
    seen = []
    async for kind, obj in kr8s.watch("configmaps", api=api):
        seen.append((kind, obj.name))
        if len(seen) == 1:
            await served.door.done("POST", CONFIG_MAPS, config_map("b"))
        else:
            break
    assert seen == [("ADDED", "a"), ("ADDED", "b")]


async def test_lightkube(tmp_path: Path) -> None:
    lightkube = pytest.importorskip("lightkube")
    from lightkube.models.meta_v1 import ObjectMeta
    from lightkube.resources.apps_v1 import Deployment
    from lightkube.resources.core_v1 import ConfigMap

    async with serve(tmp_path) as served:
        config = lightkube.KubeConfig.from_file(served.kubeconfig())
        client = lightkube.AsyncClient(config=config, namespace="default", field_manager="test")
        await client.create(ConfigMap(metadata=ObjectMeta(name="a"), data={"x": "1"}))
        found = await client.get(ConfigMap, "a")
        found.data = {"x": "2"}
        assert (await client.replace(found)).data == {"x": "2"}
        with pytest.raises(lightkube.ApiError) as stale:
            await client.replace(ConfigMap(metadata=ObjectMeta(name="a", resourceVersion="1"), data={"x": "3"}))
        assert (stale.value.status.code, stale.value.status.reason) == (409, "Conflict")
        await client.create(Deployment.from_dict(deployment()))
        scale = await client.patch(Deployment.Scale, "web", {"spec": {"replicas": 4}})
        assert scale.spec.replicas == 4
        async with asyncio.timeout(WAIT_S):
            async for kind, obj in client.watch(ConfigMap):
                assert (kind, obj.metadata.name) == ("ADDED", "a")
                break
        await client.delete(Deployment, "web")
        assert [each.metadata.name async for each in client.list(Deployment)] == []
        await client.aclose()
