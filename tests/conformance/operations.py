"""The operations that every kind of an API group offers, as upstream's tests of a group go through them."""

from __future__ import annotations

from typing import Any

from tests.apiserver.pipeline.door import Door

MERGE = "application/merge-patch+json"


async def discovered(door: Door, group: str, version: str, plural: str, *subresources: str) -> None:
    """The group, its version, the resource with all verbs, and its subresources with theirs."""
    groups = {each["name"]: each for each in (await door.done("GET", "/apis"))["groups"]}
    assert version in {each["version"] for each in groups[group]["versions"]}
    assert version in {each["version"] for each in (await door.done("GET", f"/apis/{group}"))["versions"]}
    listed = {each["name"]: each for each in (await door.done("GET", f"/apis/{group}/{version}"))["resources"]}
    verbs = {"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}
    assert set(listed[plural]["verbs"]) == verbs
    for subresource in subresources:
        assert set(listed[f"{plural}/{subresource}"]["verbs"]) == {"get", "patch", "update"}


async def main_operations(door: Door, path: str, template: dict[str, Any], selector: dict[str, str]) -> dict[str, Any]:
    """Three are made by one template; the last of them is read, listed, watched, patched and updated."""
    for _ in range(2):
        await door.done("POST", path, template)
    made = await door.done("POST", path, template)
    name = made["metadata"]["name"]
    assert name.startswith(template["metadata"]["generateName"])
    assert await door.done("GET", f"{path}/{name}") == made
    listed = await door.done("GET", path, **selector)
    assert len(listed["items"]) == 3
    revision = listed["metadata"]["resourceVersion"]
    async with door.watch(path, resourceVersion=revision, fieldSelector=f"metadata.name={name}") as events:
        patch = {"metadata": {"annotations": {"patched": "true"}}}
        patched = await door.done("PATCH", f"{path}/{name}", patch, content_type=MERGE)
        assert patched["metadata"]["annotations"]["patched"] == "true"
        assert int(patched["metadata"]["resourceVersion"]) > int(made["metadata"]["resourceVersion"])
        patched["metadata"]["annotations"]["updated"] = "true"
        updated = await door.done("PUT", f"{path}/{name}", patched)
        assert updated["metadata"]["annotations"] == {"patched": "true", "updated": "true"}
        told = [await events.next() for _ in range(2)]
    assert [kind for kind, _ in told] == ["MODIFIED", "MODIFIED"]
    assert told[1][1]["metadata"]["annotations"] == {"patched": "true", "updated": "true"}
    found: dict[str, Any] = updated
    return found


async def conditions(door: Door, path: str, uid: str) -> None:
    """A subresource in which conditions stand: read, patched, updated; by a merge patch, a list is replaced."""
    read = await door.done("GET", path)
    assert read["metadata"]["uid"] == uid
    condition = {"type": "PatchStatusFailed", "status": "False", "reason": "e2e"}
    patched = await door.done("PATCH", path, {"status": {"conditions": [condition]}}, content_type=MERGE)
    assert [each["type"] for each in patched["status"]["conditions"]] == ["PatchStatusFailed"]
    more = {"type": "StatusUpdateFailed", "status": "False", "reason": "E2E", "message": "set by a test"}
    patched["status"]["conditions"].append(more)
    updated = await door.done("PUT", path, patched)
    assert {each["type"] for each in updated["status"]["conditions"]} == {"PatchStatusFailed", "StatusUpdateFailed"}


async def deletions(door: Door, path: str, name: str, selector: dict[str, str]) -> None:
    """One goes, then all."""
    await door.done("DELETE", f"{path}/{name}")
    assert (await door("GET", f"{path}/{name}"))[0] == 404
    assert len((await door.done("GET", path, **selector))["items"]) == 2
    await door.done("DELETE", path, **selector)
    assert (await door.done("GET", path, **selector))["items"] == []
