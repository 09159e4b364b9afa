"""Evictions: pods go as their disruption budgets allow, and budgets are charged once for each."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.apiserver.conftest import Door

PODS = "/api/v1/namespaces/default/pods"
BUDGETS = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
REFUSED = "Cannot evict pod as it would violate the pod's disruption budget."
READY = [{"type": "Ready", "status": "True"}]


async def put_pod(door: Door, name: str, *, phase: str = "Running", ready: bool = True, **labels: str) -> None:
    """A pod on a node, in a phase."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels or {"app": "web"}},
        "spec": {"nodeName": "n1", "containers": [{"name": "web", "image": "nginx"}]},
    }
    assert (await door.raw("POST", PODS, pod))[0] == 201
    status = {"phase": phase, "conditions": READY if ready else []}
    patch = {"status": status}
    answer = await door.raw("PATCH", f"{PODS}/{name}/status", patch, content_type="application/merge-patch+json")
    assert answer[0] == 200


async def put_budget(door: Door, name: str = "web", *, spec: dict[str, Any] | None = None, **status: Any) -> None:
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": name},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}} | (spec or {}),
    }
    assert (await door.raw("POST", BUDGETS, budget))[0] == 201
    counted = {"observedGeneration": 1, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1} | status
    patch = {"status": counted}
    answer = await door.raw("PATCH", f"{BUDGETS}/{name}/status", patch, content_type="application/merge-patch+json")
    assert answer[0] == 200


async def evict(door: Door, name: str, *, dry_run: bool = False, **options: Any) -> tuple[int, Any]:
    eviction: dict[str, Any] = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    if options:
        eviction["deleteOptions"] = options
    return await door.raw("POST", f"{PODS}/{name}/eviction", eviction, **({"dryRun": "All"} if dry_run else {}))


async def deletion_of(door: Door, name: str) -> str | None:
    """When a pod is to end; "gone" when it has."""
    status, pod = await door.raw("GET", f"{PODS}/{name}")
    return "gone" if status == 404 else pod["metadata"].get("deletionTimestamp")


async def budget_of(door: Door, name: str = "web") -> dict[str, Any]:
    found: dict[str, Any] = (await door.raw("GET", f"{BUDGETS}/{name}"))[1]["status"]
    return found


async def test_a_pod_without_a_budget_goes(door: Door) -> None:
    await put_pod(door, "web-1")
    status, answer = await evict(door, "web-1")
    assert (status, answer["status"], answer["code"]) == (201, "Success", 201)
    _, pod = await door.raw("GET", f"{PODS}/web-1")
    assert pod["metadata"]["deletionTimestamp"]
    condition = next(each for each in pod["status"]["conditions"] if each["type"] == "DisruptionTarget")
    assert (condition["reason"], condition["message"]) == ("EvictionByEvictionAPI", "Eviction API: evicting")


@pytest.mark.parametrize(("version", "code"), [("policy/v1beta1", 201), ("policy/v2", 400), ("v1", 400)])
async def test_in_which_versions_an_eviction_is_understood(door: Door, version: str, code: int) -> None:
    await put_pod(door, "web-1")
    eviction = {"apiVersion": version, "kind": "Eviction", "metadata": {"name": "web-1"}}
    assert (await door.raw("POST", f"{PODS}/web-1/eviction", eviction))[0] == code
    assert (await deletion_of(door, "web-1") is not None) is (code == 201)


async def test_a_budget_is_charged(door: Door) -> None:
    await put_pod(door, "web-1")
    await put_budget(door, disruptionsAllowed=1, currentHealthy=2)
    assert (await evict(door, "web-1"))[0] == 201
    status = await budget_of(door)
    assert status["disruptionsAllowed"] == 0
    assert list(status["disruptedPods"]) == ["web-1"]
    assert [(each["type"], each["status"], each["reason"]) for each in status["conditions"]] == [
        ("DisruptionAllowed", "False", "InsufficientPods")
    ]


async def test_a_budget_that_is_used_up_refuses(door: Door) -> None:
    await put_pod(door, "web-1")
    await put_budget(door, disruptionsAllowed=0)
    status, answer = await evict(door, "web-1")
    assert (status, answer["reason"], answer["message"]) == (429, "TooManyRequests", REFUSED)
    message = "The disruption budget web needs 1 healthy pods and has 1 currently"
    assert answer["details"] == {"causes": [{"reason": "DisruptionBudget", "message": message}]}
    assert await deletion_of(door, "web-1") is None


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("SyncFailed", "The disruption budget web does not allow evicting pods currently because it failed sync: oh"),
        ("Other", "The disruption budget web does not allow evicting pods currently (Other): oh"),
        ("", "The disruption budget web does not allow evicting pods currently"),
    ],
)
async def test_why_a_budget_refuses(door: Door, reason: str, message: str) -> None:
    told = {
        "type": "DisruptionAllowed",
        "status": "False",
        "message": "oh",
        "lastTransitionTime": "2026-01-02T03:04:05Z",
    }
    conditions = [told | {"reason": reason}] if reason else []
    await put_pod(door, "web-1")
    await put_budget(door, disruptionsAllowed=0, currentHealthy=5, conditions=conditions)
    _, answer = await evict(door, "web-1")
    assert answer["details"]["causes"][0]["message"] == message


async def test_a_budget_that_was_not_counted_yet_refuses(door: Door) -> None:
    await put_pod(door, "web-1")
    await put_budget(door, disruptionsAllowed=1, observedGeneration=0)
    status, answer = await evict(door, "web-1")
    assert (status, answer["details"]["retryAfterSeconds"]) == (429, 10)
    message = "The disruption budget web is still being processed by the server."
    assert answer["details"]["causes"] == [{"reason": "DisruptionBudget", "message": message}]


async def test_several_budgets_are_not_supported(door: Door) -> None:
    await put_pod(door, "web-1")
    await put_budget(door, "one", disruptionsAllowed=1)
    await put_budget(door, "two", disruptionsAllowed=1)
    status, answer = await evict(door, "web-1")
    assert status == 500
    assert answer["message"] == (
        "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
    )
    assert "reason" not in answer


@pytest.mark.parametrize(
    ("selector", "charged"),
    [({"matchLabels": {"app": "db"}}, False), (None, False), ({}, True)],
)
async def test_which_budgets_count(door: Door, selector: dict[str, Any] | None, charged: bool) -> None:
    await put_pod(door, "web-1")
    await put_budget(door, spec={"selector": selector}, disruptionsAllowed=0)
    assert (await evict(door, "web-1"))[0] == (429 if charged else 201)


@pytest.mark.parametrize("phase", ["Pending", "Succeeded", "Failed"])
async def test_pods_that_serve_nobody_cost_nothing(door: Door, phase: str) -> None:
    await put_pod(door, "web-1", phase=phase)
    await put_budget(door, disruptionsAllowed=0)
    assert (await evict(door, "web-1"))[0] == 201
    assert await deletion_of(door, "web-1") is not None
    assert "disruptedPods" not in await budget_of(door)


async def test_a_pod_that_is_going_already_costs_nothing(door: Door) -> None:
    await put_pod(door, "web-1")
    await put_budget(door, disruptionsAllowed=0)
    await door.raw("DELETE", f"{PODS}/web-1")
    assert (await evict(door, "web-1"))[0] == 201


@pytest.mark.parametrize(
    ("policy", "healthy", "goes"),
    [(None, 1, True), (None, 0, False), ("IfHealthyBudget", 0, False), ("AlwaysAllow", 0, True)],
)
async def test_pods_that_are_not_ready(door: Door, policy: str | None, healthy: int, goes: bool) -> None:
    await put_pod(door, "web-1", ready=False)
    spec = {"unhealthyPodEvictionPolicy": policy}
    await put_budget(door, spec=spec, disruptionsAllowed=0, currentHealthy=healthy)
    assert (await evict(door, "web-1"))[0] == (201 if goes else 429)
    assert "disruptedPods" not in await budget_of(door)


async def test_nothing_happens_in_a_dry_run(door: Door) -> None:
    await put_pod(door, "web-1")
    await put_budget(door, disruptionsAllowed=1)
    assert (await evict(door, "web-1", dry_run=True))[0] == 201
    assert (await evict(door, "web-1", dryRun=["All"]))[0] == 201
    assert (await budget_of(door))["disruptionsAllowed"] == 1
    assert await deletion_of(door, "web-1") is None


async def test_the_options_of_the_deletion_hold(door: Door) -> None:
    await put_pod(door, "web-1")
    wrong = {"uid": "00000000-0000-4000-8000-000000000000"}
    assert (await evict(door, "web-1", preconditions=wrong))[0] == 409
    assert await deletion_of(door, "web-1") is None
    assert (await evict(door, "web-1", gracePeriodSeconds=0))[0] == 201
    assert await deletion_of(door, "web-1") == "gone"


async def test_the_version_that_was_meant_must_be_there(door: Door) -> None:
    await put_pod(door, "web-1")
    _, pod = await door.raw("GET", f"{PODS}/web-1")
    assert (await evict(door, "web-1", preconditions={"resourceVersion": "1"}))[0] == 409
    version = {"resourceVersion": pod["metadata"]["resourceVersion"]}
    assert (await evict(door, "web-1", preconditions=version))[0] == 201


async def test_what_can_not_be_evicted(door: Door) -> None:
    assert (await evict(door, "nobody"))[0] == 404
    await put_pod(door, "web-1")
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "web-2"}}
    status, answer = await door.raw("POST", f"{PODS}/web-1/eviction", eviction)
    assert (status, answer["message"]) == (400, "name in URL does not match name in Eviction object")
    assert (await door.raw("GET", f"{PODS}/web-1/eviction"))[0] == 405


@pytest.mark.parametrize(
    ("status", "message"),
    [
        ({"disruptionsAllowed": 1, "disruptedPods": {f"p{n}": "2026-01-02T03:04:05Z" for n in range(2001)}}, "too big"),
    ],
)
async def test_a_budget_that_is_not_looked_after_refuses(door: Door, status: dict[str, Any], message: str) -> None:
    await put_pod(door, "web-1")
    await put_budget(door, **status)
    code, answer = await evict(door, "web-1")
    assert (code, answer["reason"]) == (403, "Forbidden")
    assert message in answer["message"]


async def test_many_at_once_take_no_more_than_there_is(door: Door) -> None:
    names = [f"web-{number}" for number in range(12)]
    for name in names:
        await put_pod(door, name)
    await put_budget(door, disruptionsAllowed=5, currentHealthy=12, desiredHealthy=7)
    answers = await asyncio.gather(*(evict(door, name) for name in names))
    gone = [name for name, (status, _) in zip(names, answers, strict=True) if status == 201]
    assert len(gone) == 5
    assert {status for status, _ in answers} == {201, 429}
    status = await budget_of(door)
    assert (status["disruptionsAllowed"], sorted(status["disruptedPods"])) == (0, sorted(gone))
    assert {name for name in names if await deletion_of(door, name)} == set(gone)
