"""sig-apps: Jobs on hollow nodes, where a test says how each pod ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from knarr.api.core.pod_state import is_active
from knarr.api.core.v1 import Pod
from tests.conformance.whole import STRATEGIC, Whole, controller_of, has, told, whole
from tests.controllers.jobs import INDEX, end, index, run, running

JOBS = "/apis/batch/v1/namespaces/default/jobs"
PODS = "/api/v1/namespaces/default/pods"
ONE = f"{JOBS}/work"
COMPLETIONS, PARALLELISM = 4, 2


def job(name: str = "work", **spec: Any) -> dict[str, Any]:
    pods = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "one"}]}}
    bounds = {"parallelism": PARALLELISM, "completions": COMPLETIONS, "backoffLimit": 6}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": {"e2e-job-label": name}},
        "spec": {**bounds, "template": pods, **spec},
    }


def indexed(**spec: Any) -> dict[str, Any]:
    return job(completionMode="Indexed", **spec)


async def play(ask: Whole, code_of: Callable[[Pod], int | None], within_s: float = 600.0) -> Any:
    """Let each pod end as `code_of` says (None: it runs on) until the Job has ended; the Job."""
    began_s = ask.cluster.clock.monotonic_s()
    while True:
        found = await ask.get(ONE)
        if any(each["type"] in ("Complete", "Failed") for each in found["status"].get("conditions", ())):
            return found
        for pod in running(ask.cluster):
            code = code_of(pod)
            if code is not None:
                await end(ask.cluster, pod, code)
        assert ask.cluster.clock.monotonic_s() - began_s < within_s, found["status"]
        await ask.cluster.clock.sleep(0.5)


def codes(values: Mapping[int, int]) -> Callable[[Pod], int | None]:
    """Index → exit code of its pods; those of other indexes run on."""
    return lambda pod: values.get(index(pod))


def ends_of(obj: Any) -> list[tuple[str, str]]:
    return [(each["type"], each["reason"]) for each in obj["status"]["conditions"] if each["status"] == "True"]


def numbers(obj: Any, *fields: str) -> list[Any]:
    return [obj["status"].get(field, 0) for field in fields]


def test_an_orphan_is_adopted_again_and_a_pod_without_the_label_released() -> None:
    """[sig-apps] Job should adopt matching orphans and release non-matching pods"""

    async def scenario(ask: Whole) -> None:
        owner = await ask.make(JOBS, job())
        pod, *_ = await run(ask.cluster, PARALLELISM)
        one = f"{PODS}/{pod.metadata.name}"
        await ask.merge(one, {"metadata": {"ownerReferences": None}})
        await ask.reach(one, lambda obj: controller_of(obj) == owner["metadata"]["uid"])
        await ask.merge(one, {"metadata": {"labels": None}})
        await ask.reach(one, lambda obj: controller_of(obj) is None)

    whole(scenario)


def test_the_status_of_a_job_is_patched_updated_and_read() -> None:
    """[sig-apps] Job should apply changes to a job status"""

    async def scenario(ask: Whole) -> None:
        await ask.make(JOBS, job())
        await run(ask.cluster, PARALLELISM)
        await ask.reach(ONE, lambda obj: obj["status"].get("ready") == PARALLELISM)
        condition = {"type": "CustomConditionType", "status": "True", "reason": "E2E"}
        patch = {
            "metadata": {"annotations": {"patchedstatus": "true"}},
            "status": {"conditions": [condition]},
        }
        patched = await ask.merge(f"{ONE}/status", patch)
        assert has(condition)(patched)
        assert patched["metadata"]["annotations"]["patchedstatus"] == "true"
        changed = await ask.get(ONE)
        other = {"type": "AnotherConditionType", "status": "True", "reason": "E2E"}
        changed["status"]["conditions"].append(other)
        updated = await ask.done("PUT", f"{ONE}/status", changed)
        assert has(other)(updated)
        read = await ask.get(f"{ONE}/status")
        assert (read["kind"], read["metadata"]["uid"]) == ("Job", changed["metadata"]["uid"])
        assert has(other)(read)

    whole(scenario)


def test_a_job_is_deleted_with_its_pods() -> None:
    """[sig-apps] Job should delete a job"""

    async def scenario(ask: Whole) -> None:
        await ask.make(JOBS, job())
        await run(ask.cluster, PARALLELISM)
        await ask.done("DELETE", ONE, {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"})
        await ask.gone(ONE)
        await ask.until(lambda: not ask.cluster.pods.all())

    whole(scenario)


def test_every_index_runs_though_some_fail() -> None:
    """[sig-apps] Job should execute all indexes despite some failing when using backoffLimitPerIndex"""

    async def scenario(ask: Whole) -> None:
        made = indexed(backoffLimitPerIndex=1)
        made["spec"].pop("backoffLimit")
        await ask.make(JOBS, made)
        found = await play(ask, lambda pod: index(pod) % 2)
        assert ends_of(found)[-1] == ("Failed", "FailedIndexes")
        assert numbers(found, "failedIndexes", "completedIndexes") == ["1,3", "0,2"]
        assert numbers(found, "failed", "succeeded", "active") == [4, 2, 0]

    whole(scenario)


def test_a_job_is_made_patched_updated_and_deleted() -> None:
    """[sig-apps] Job should manage the lifecycle of a job"""

    async def scenario(ask: Whole) -> None:
        async with ask.watch(JOBS, labelSelector="e2e-job-label=work") as events:
            await ask.make(JOBS, job(suspend=True))
            await told(events, "ADDED")
            patch = {"metadata": {"labels": {"work": "patched"}}}
            await ask.done("PATCH", ONE, patch, content_type=STRATEGIC)
            patched = await told(events, "MODIFIED", lambda obj: obj["metadata"]["labels"].get("work") == "patched")
            assert patched["spec"]["suspend"] is True
            changed = await ask.get(ONE)
            changed["spec"]["suspend"] = False
            changed["metadata"].setdefault("annotations", {})["updated"] = "true"
            await ask.done("PUT", ONE, changed)
            await told(events, "MODIFIED", lambda obj: obj["metadata"].get("annotations", {}).get("updated") == "true")
            (listed,) = await ask.items("/apis/batch/v1/jobs", labelSelector="work=patched")
            assert listed["metadata"]["name"] == "work"
            await run(ask.cluster, PARALLELISM)
            options = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
            await ask.done("DELETE", JOBS, options, labelSelector="work=patched")
            await told(events, "DELETED")
        assert await ask.items("/apis/batch/v1/jobs", labelSelector="work=patched") == []

    whole(scenario)


def test_an_index_fails_at_once_where_the_policy_says_so() -> None:
    """[sig-apps] Job should mark indexes as failed when the FailIndex action is matched in podFailurePolicy"""

    async def scenario(ask: Whole) -> None:
        exits = {"operator": "In", "values": [42]}
        rules = {"rules": [{"action": "FailIndex", "onExitCodes": exits}]}
        made = indexed(completions=2, backoffLimitPerIndex=1, podFailurePolicy=rules)
        made["spec"].pop("backoffLimit")
        await ask.make(JOBS, made)
        seen: set[str] = set()

        def code_of(pod: Pod) -> int:
            seen.add(pod.metadata.uid or "")
            return 42 if index(pod) == 0 else 0

        found = await play(ask, code_of)
        assert ends_of(found)[-1] == ("Failed", "FailedIndexes")
        assert numbers(found, "failedIndexes", "completedIndexes") == ["0", "1"]
        assert numbers(found, "failed", "succeeded") == [1, 1]
        assert len(seen) == 2, "nothing was tried again"

    whole(scenario)


def test_a_job_ends_once_too_many_indexes_have_failed() -> None:
    """[sig-apps] Job should terminate job execution when the number of failed indexes exceeds maxFailedIndexes"""

    async def scenario(ask: Whole) -> None:
        made = indexed(completions=10, parallelism=10, backoffLimitPerIndex=0, maxFailedIndexes=4)
        made["spec"].pop("backoffLimit")
        await ask.make(JOBS, made)
        await run(ask.cluster, 10)
        found = await play(ask, lambda pod: 1 if index(pod) < 5 else None)
        assert ends_of(found)[-1] == ("Failed", "MaxFailedIndexesExceeded")
        assert numbers(found, "succeeded", "active", "completedIndexes") == [0, 0, 0]
        assert found["status"]["failed"] >= 5
        assert found["status"]["failedIndexes"] == "0-4"
        assert not any(map(is_active, ask.cluster.pods.all()))

    whole(scenario)


async def met(ask: Whole, policy: dict[str, Any], code_of: Callable[[Pod], int | None], **spec: Any) -> Any:
    """A Job with such a success policy, once it has ended."""
    await ask.make(JOBS, indexed(successPolicy={"rules": [policy]}, **spec))
    await run(ask.cluster, 2)
    found = await play(ask, code_of)
    assert ends_of(found) == [("SuccessCriteriaMet", "SuccessPolicy"), ("Complete", "SuccessPolicy")]
    assert numbers(found, "active", "ready", "terminating", "failed") == [0, 0, 0, 0]
    return found


def test_a_success_policy_is_met_when_every_index_has_succeeded() -> None:
    """[sig-apps] Job with successPolicy should succeeded when all indexes succeeded"""

    async def scenario(ask: Whole) -> None:
        found = await met(ask, {"succeededIndexes": f"0-{COMPLETIONS - 1}"}, lambda _: 0)
        assert numbers(found, "completedIndexes", "succeeded") == ["0-3", COMPLETIONS]

    whole(scenario)


def test_so_many_successes_are_enough_though_an_index_still_runs() -> None:
    """[sig-apps] Job with successPolicy succeededCount rule should succeeded even when some indexes remain pending"""

    async def scenario(ask: Whole) -> None:
        found = await met(ask, {"succeededCount": 1}, codes({0: 0}), completions=5)
        assert numbers(found, "completedIndexes", "succeeded") == ["0", 1]
        pods = [pod for pod in await ask.items(PODS) if pod["status"]["phase"] == "Succeeded"]
        assert [pod["metadata"]["annotations"][INDEX] for pod in pods] == ["0"]

    whole(scenario)


def test_the_success_of_named_indexes_is_enough_though_another_still_runs() -> None:
    """[sig-apps] Job with successPolicy succeededIndexes rule should succeeded even when some indexes remain
    pending"""

    async def scenario(ask: Whole) -> None:
        found = await met(ask, {"succeededIndexes": "1"}, codes({1: 0}), completions=2)
        assert numbers(found, "completedIndexes", "succeeded") == ["1", 1]

    whole(scenario)
