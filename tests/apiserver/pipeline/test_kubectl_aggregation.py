"""kubectl uses kinds that others serve as any other kinds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.apiserver.pipeline.backend import (
    API_SERVICES,
    SERVICES,
    SLICES,
    allow_loopback,
    api_service,
    becomes,
    endpoints,
    looking,
    service,
)
from tests.apiserver.pipeline.door import namespace
from tests.apiserver.pipeline.served import serve
from tests.apiserver.pipeline.test_kubectl import Kubectl
from tests.apiserver.pipeline.wardle import GROUP, NAME, VERSION, Wardle, flunder

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")


async def test_kubectl_creates_applies_gets_and_deletes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    allow_loopback(monkeypatch)
    backend = Wardle(tmp_path / "backend")
    backend.front_proxy_ca = str(tmp_path / "server" / "front-proxy-ca.crt")
    async with serve(tmp_path / "server") as served:
        runner, door = await backend.serve(), served.door
        for path, obj in (
            ("/api/v1/namespaces", namespace("metrics")),
            (SERVICES, service()),
            (SLICES, endpoints(backend.port)),
            (API_SERVICES, api_service(backend, group=GROUP, version=VERSION) | {"metadata": {"name": NAME}}),
        ):
            await door.done("POST", path, obj)
        async with looking(door):
            await becomes(door, "Passed", NAME)
            kubectl = Kubectl(served, tmp_path)
            shown = (await kubectl.run("get", "apiservices", NAME)).split()
            assert shown[:7] == ["NAME", "SERVICE", "AVAILABLE", "AGE", NAME, "metrics/adapter", "True"]
            listed = await kubectl.run("api-resources", "--api-group", GROUP, "--no-headers")
            assert listed.split() == ["flunders", f"{GROUP}/{VERSION}", "true", "Flunder"]
            created = await kubectl.run("create", "-f", "-", stdin=json.dumps(flunder("one")))
            assert created == f"flunder.{GROUP}/one created\n"
            applied = await kubectl.run("apply", "-f", "-", stdin=json.dumps(flunder("two")))
            assert applied == f"flunder.{GROUP}/two created\n"
            assert [line.split()[0] for line in (await kubectl.run("get", "flunders")).splitlines()] == [
                *("NAME", "one", "two")
            ]
            assert "uid: uid-1" in await kubectl.run("get", "flunder", "one", "-o", "yaml")
            assert await kubectl.run("delete", "flunder", "one") == f'flunder.{GROUP} "one" deleted\n'
            assert "NotFound" in await kubectl.run("get", "flunder", "one", code=1)
        await runner.cleanup()
        await door.server.close()
