"""sig-apps: PodDisruptionBudgets and what they allow, on hollow nodes."""

from __future__ import annotations

from typing import Any

from tests.conformance.whole import STRATEGIC, Whole, plain_pod, whole

BUDGETS = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
PODS = "/api/v1/namespaces/default/pods"
LABELS = {"foo": "bar"}


def budget(name: str = "foo", **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "labels": LABELS}
    selector = {"matchLabels": LABELS}
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata,
        "spec": {"selector": selector, **spec},
    }


def allowed(obj: Any) -> int:
    found: int = obj.get("status", {}).get("disruptionsAllowed", 0)
    return found


def observed(obj: Any) -> bool:
    seen: bool = obj.get("status", {}).get("observedGeneration", 0) >= obj["metadata"]["generation"]
    return seen


async def pods(ask: Whole, count: int) -> None:
    for number in range(count):
        await ask.make(PODS, plain_pod(f"pod-{number}", LABELS))
    await ask.until(lambda: ask.cluster.ready_pods() == count)


async def evict(ask: Whole, name: str) -> tuple[int, Any]:
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": "default"}}
    return await ask("POST", f"{PODS}/{name}/eviction", body)


def test_budgets_are_listed_and_deleted_as_a_collection() -> None:
    """[sig-apps] DisruptionController Listing PodDisruptionBudgets for all namespaces should list and delete a
    collection of PodDisruptionBudgets"""

    async def scenario(ask: Whole) -> None:
        other = BUDGETS.replace("default", "other")
        await ask.make("/api/v1/namespaces", {"kind": "Namespace", "metadata": {"name": "other"}})
        for path, name in ((BUDGETS, "foo"), (BUDGETS, "foo2"), (other, "foo3")):
            await ask.make(path, budget(name, minAvailable="1%"))
        everywhere = await ask.items("/apis/policy/v1/poddisruptionbudgets", labelSelector="foo=bar")
        assert sorted(each["metadata"]["name"] for each in everywhere) == ["foo", "foo2", "foo3"]
        assert len(await ask.items(BUDGETS)) == 2
        await ask.done("DELETE", BUDGETS, labelSelector="foo=bar")
        assert await ask.items(BUDGETS) == []
        assert len(await ask.items(other)) == 1

    whole(scenario)


def test_an_eviction_is_refused_until_the_budget_allows_it() -> None:
    """[sig-apps] DisruptionController should block an eviction until the PDB is updated to allow it"""

    async def scenario(ask: Whole) -> None:
        refused = "Cannot evict pod as it would violate the pod's disruption budget."
        await pods(ask, 3)
        await ask.make(BUDGETS, budget(minAvailable=3))
        await ask.reach(f"{BUDGETS}/foo", lambda obj: observed(obj) and obj["status"]["currentHealthy"] == 3)
        code, status = await evict(ask, "pod-0")
        assert (code, status["reason"], status["message"]) == (429, "TooManyRequests", refused)
        assert [cause["reason"] for cause in status["details"]["causes"]] == ["DisruptionBudget"]
        await ask.merge(f"{BUDGETS}/foo", {"spec": {"minAvailable": 2}})
        await ask.reach(f"{BUDGETS}/foo", lambda obj: observed(obj) and allowed(obj) == 1)
        code, status = await evict(ask, "pod-0")
        assert (code, status["status"]) == (201, "Success")
        await ask.gone(f"{PODS}/pod-0")
        await ask.merge(f"{BUDGETS}/foo", {"spec": {"minAvailable": 3}})
        await ask.reach(f"{BUDGETS}/foo", lambda obj: observed(obj) and allowed(obj) == 0)
        assert (await evict(ask, "pod-1"))[0] == 429
        await ask.done("DELETE", f"{BUDGETS}/foo")
        assert (await evict(ask, "pod-1"))[0] == 201, "nothing keeps it any more"

    whole(scenario)


def test_a_budget_is_made_updated_patched_and_deleted() -> None:
    """[sig-apps] DisruptionController should create a PodDisruptionBudget"""

    async def scenario(ask: Whole) -> None:
        one = f"{BUDGETS}/foo"
        await ask.make(BUDGETS, budget(minAvailable="1%"))
        made = await ask.reach(one, observed)
        made["spec"]["minAvailable"] = "2%"
        await ask.done("PUT", one, made)
        await ask.reach(one, lambda obj: observed(obj) and obj["spec"]["minAvailable"] == "2%")
        patch = {"spec": {"minAvailable": "3%"}}
        patched = await ask.done("PATCH", one, patch, content_type=STRATEGIC)
        assert patched["spec"]["minAvailable"] == "3%"
        assert (await ask.reach(one, observed))["metadata"]["generation"] == 3
        await ask.done("DELETE", one)
        await ask.gone(one)

    whole(scenario)


def test_the_status_tells_how_many_may_go() -> None:
    """[sig-apps] DisruptionController should observe PodDisruptionBudget status updated"""

    async def scenario(ask: Whole) -> None:
        await ask.make(BUDGETS, budget(minAvailable=1))
        await ask.reach(f"{BUDGETS}/foo", lambda obj: observed(obj) and allowed(obj) == 0)
        await pods(ask, 3)
        found = await ask.reach(f"{BUDGETS}/foo", lambda obj: allowed(obj) == 2)
        numbers = {"currentHealthy": 3, "desiredHealthy": 1, "disruptionsAllowed": 2, "expectedPods": 3}
        assert numbers.items() <= found["status"].items()

    whole(scenario)


def test_the_status_of_a_budget_is_updated_and_patched() -> None:
    """[sig-apps] DisruptionController should update/patch PodDisruptionBudget status"""

    async def scenario(ask: Whole) -> None:
        one = f"{BUDGETS}/foo"
        await ask.make(BUDGETS, budget(minAvailable=1))
        await pods(ask, 2)
        await ask.reach(one, lambda obj: allowed(obj) == 1)
        old = await ask.get(f"{one}/status")
        old["status"]["disruptedPods"] = {"pod-0": "2026-01-01T00:00:00Z"}
        updated = await ask.done("PUT", f"{one}/status", old)
        assert list(updated["status"]["disruptedPods"]) == ["pod-0"]
        patched = await ask.merge(f"{one}/status", {"status": {"disruptedPods": None}})
        assert "disruptedPods" not in patched["status"]
        found = await ask.get(f"{one}/status")
        assert "disruptedPods" not in found["status"]

    whole(scenario)
