"""sig-scheduling: a LimitRange says what pods get when they don't say, and what they may not pass."""

from __future__ import annotations

from typing import Any

from knarr.client.client import STRATEGIC_MERGE_PATCH
from tests.apiserver.pipeline.door import PODS, Door

LIMIT_RANGES = "/api/v1/namespaces/default/limitranges"
LEAST = {"cpu": "50m", "memory": "100Mi", "ephemeral-storage": "100Gi"}
MOST = {"cpu": "500m", "memory": "500Mi", "ephemeral-storage": "500Gi"}
REQUEST = {"cpu": "100m", "memory": "200Mi", "ephemeral-storage": "200Gi"}
LIMIT = {"cpu": "300m", "memory": "300Mi", "ephemeral-storage": "300Gi"}


def limit_range(name: str, labels: dict[str, str] | None = None, **limits: Any) -> dict[str, Any]:
    metadata = {"name": name, "labels": labels or {}}
    spec = {"limits": [{"type": "Container", **limits}]}
    return {"apiVersion": "v1", "kind": "LimitRange", "metadata": metadata, "spec": spec}


def pod(name: str, **resources: dict[str, str]) -> dict[str, Any]:
    spec = {"containers": [{"name": "c", "image": "one", "resources": resources}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


async def test_pods_get_what_they_do_not_say_and_are_refused_beyond_the_limits(door: Door) -> None:
    """[sig-scheduling] LimitRange should create a LimitRange with defaults and ensure pod has those defaults
    applied.
    """
    start = str(door.store.revision)
    wanted = limit_range("limits", min=LEAST, max=MOST, defaultRequest=REQUEST, default=LIMIT)
    made = await door.done("POST", LIMIT_RANGES, wanted)
    async with door.watch(LIMIT_RANGES, resourceVersion=start) as events:
        kind, seen = await events.next()
    assert (kind, seen["metadata"]["name"]) == ("ADDED", "limits")
    assert made["spec"] == wanted["spec"]

    async def resources(one: dict[str, Any]) -> Any:
        return (await door.done("POST", PODS, one))["spec"]["containers"][0]["resources"]

    assert await resources(pod("silent")) == {"requests": REQUEST, "limits": LIMIT}
    partial = pod("partial", requests={"cpu": "300m", "memory": "150Mi"}, limits={"memory": "500Mi"})
    assert await resources(partial) == {
        "requests": {"cpu": "300m", "memory": "150Mi", "ephemeral-storage": "200Gi"},
        "limits": {"cpu": "300m", "memory": "500Mi", "ephemeral-storage": "300Gi"},
    }
    little, much = {"cpu": "10m", "memory": "50Mi"}, {"cpu": "600m", "memory": "600Mi"}
    status, answer = await door("POST", PODS, pod("little", requests=little))
    assert status == 403
    assert "minimum cpu usage per Container is 50m, but request is 10m" in answer["message"]
    status, answer = await door("POST", PODS, pod("much", limits=much))
    assert status == 403
    assert "maximum cpu usage per Container is 500m, but limit is 600m" in answer["message"]
    made["spec"]["limits"][0]["min"] = {"cpu": "9m", "memory": "49Mi", "ephemeral-storage": "49Gi"}
    updated = await door.done("PUT", f"{LIMIT_RANGES}/limits", made)
    assert updated["spec"]["limits"][0]["min"]["cpu"] == "9m"
    assert (await resources(pod("little", requests=little)))["requests"]["cpu"] == "10m"
    status, _ = await door("POST", PODS, pod("much", limits=much))
    assert status == 403
    await door.done("DELETE", f"{LIMIT_RANGES}/limits")
    assert (await door.done("GET", LIMIT_RANGES))["items"] == []
    await door.done("POST", PODS, pod("huge", limits=much))


async def test_a_collection_of_limit_ranges_ends_by_label_in_one_namespace(door: Door) -> None:
    """[sig-scheduling] LimitRange should list, patch and delete a LimitRange by collection"""
    other = "/api/v1/namespaces/other/limitranges"
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}}
    await door.done("POST", "/api/v1/namespaces", namespace)
    for path in (LIMIT_RANGES, other):
        await door.done("POST", path, limit_range("limits", {"e2e-limitrange": "made"}, default=LIMIT))
    found = await door.done("GET", "/api/v1/limitranges", labelSelector="e2e-limitrange=made")
    assert {each["metadata"]["namespace"] for each in found["items"]} == {"default", "other"}
    patch = {
        "metadata": {"labels": {"e2e-limitrange": "patched"}},
        "spec": {"limits": [{"type": "Container", "defaultRequest": REQUEST}]},
    }
    patched = await door.done("PATCH", f"{LIMIT_RANGES}/limits", patch, content_type=STRATEGIC_MERGE_PATCH)
    assert patched["metadata"]["labels"] == {"e2e-limitrange": "patched"}
    assert patched["spec"]["limits"][0]["defaultRequest"] == REQUEST
    await door.done("DELETE", LIMIT_RANGES, labelSelector="e2e-limitrange=patched")
    left = (await door.done("GET", "/api/v1/limitranges"))["items"]
    assert [each["metadata"]["namespace"] for each in left] == ["other"]
