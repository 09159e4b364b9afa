"""sig-api-machinery: a server of its own kinds is registered, used as if they were built in, and deregistered."""

from __future__ import annotations

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
from tests.apiserver.pipeline.door import namespace, open_door
from tests.apiserver.pipeline.wardle import GROUP, NAME, VERSION, Wardle, flunder

FLUNDERS = f"/apis/{GROUP}/{VERSION}/namespaces/default/flunders"
MERGE = "application/merge-patch+json"


async def test_a_sample_server_is_registered_used_and_deregistered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[sig-api-machinery] Aggregator Should be able to support the 1.17 Sample API Server using the current Aggregator
    [LinuxOnly]"""
    allow_loopback(monkeypatch)
    backend = Wardle(tmp_path / "pki")
    runner = await backend.serve()
    async with open_door(front_proxy=backend.pki.front_proxy_client) as door, looking(door):
        await door.done("POST", "/api/v1/namespaces", namespace("metrics"))
        await door.done("POST", SERVICES, service())
        await door.done("POST", SLICES, endpoints(backend.port))
        registration = api_service(
            backend, group=GROUP, version=VERSION, groupPriorityMinimum=2000, versionPriority=200
        )
        registration["metadata"] = {"name": NAME, "labels": {"example": "wardle"}}
        await door.done("POST", API_SERVICES, registration)
        await becomes(door, "Passed", NAME)

        # Its kinds are found, and used.
        listed = await door.done("GET", f"/apis/{GROUP}/{VERSION}")
        assert [each["kind"] for each in listed["resources"]] == ["Flunder"]
        assert GROUP in [group["name"] for group in (await door.done("GET", "/apis"))["groups"]]
        status, made = await door("POST", FLUNDERS, flunder("test-flunder"))
        assert (status, made["metadata"]["uid"]) == (201, "uid-1")
        assert [each["metadata"]["name"] for each in (await door.done("GET", FLUNDERS))["items"]] == ["test-flunder"]
        await door.done("DELETE", f"{FLUNDERS}/test-flunder")
        status, gone = await door("GET", f"{FLUNDERS}/test-flunder")
        assert (status, gone["reason"]) == (404, "NotFound")
        assert (await door.done("GET", FLUNDERS))["items"] == []

        # The registration is an object as others are: its status is read and written, it is patched and replaced.
        path = f"{API_SERVICES}/{NAME}"
        found = await door.done("GET", f"{path}/status")
        assert [each["type"] for each in found["status"]["conditions"]] == ["Available"]
        patched = await door.done("PATCH", path, {"spec": {"versionPriority": 400}}, content_type=MERGE)
        assert patched["spec"]["versionPriority"] == 400
        await becomes(door, "Passed", NAME)
        found = await door.done("GET", path)
        updated = {"type": "StatusUpdated", "status": "True", "reason": "E2E", "message": "Set by a test"}
        found["status"]["conditions"].append(updated)
        replaced = await door.done("PUT", f"{path}/status", found)
        assert updated.items() <= replaced["status"]["conditions"][-1].items()
        replaced["metadata"]["labels"]["replaced"] = "yes"
        await door.done("PUT", path, replaced)
        assert NAME in [each["metadata"]["name"] for each in (await door.done("GET", API_SERVICES))["items"]]

        # Deregistered by its label, it is gone from everywhere.
        await door.done("DELETE", API_SERVICES, labelSelector="example=wardle")
        assert (await door("GET", path))[0] == 404
        assert (await door("GET", FLUNDERS))[0] == 404
        assert GROUP not in [group["name"] for group in (await door.done("GET", "/apis"))["groups"]]
        await door.server.close()
    await runner.cleanup()
