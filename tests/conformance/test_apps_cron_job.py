"""sig-apps: CronJobs, by the minute, on hollow nodes."""

from __future__ import annotations

from typing import Any

from tests.apiserver.pipeline.door import Door
from tests.conformance.operations import deletions, discovered, main_operations
from tests.conformance.whole import MERGE, Whole, whole

CRON_JOBS = "/apis/batch/v1/namespaces/default/cronjobs"
JOBS = "/apis/batch/v1/namespaces/default/jobs"
ONE = f"{CRON_JOBS}/ticking"
MINUTE_S = 60.0


def cron_job(schedule: str = "*/1 * * * ?", **spec: Any) -> dict[str, Any]:
    pods = {"spec": {"restartPolicy": "OnFailure", "containers": [{"name": "c", "image": "one"}]}}
    template = {"spec": {"parallelism": 1, "completions": 1, "template": pods}}
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": "ticking"},
        "spec": {"schedule": schedule, "jobTemplate": template, **spec},
    }


def active(obj: Any) -> list[str]:
    return [each["name"] for each in obj.get("status", {}).get("active", ())]


async def running(ask: Whole) -> list[str]:
    """Names of the Jobs that have not ended."""
    jobs = await ask.items(JOBS)
    return [each["metadata"]["name"] for each in jobs if not each["status"].get("completionTime")]


def test_a_suspended_one_starts_nothing() -> None:
    """[sig-apps] CronJob should not schedule jobs when suspended [Slow]"""

    async def scenario(ask: Whole) -> None:
        await ask.make(CRON_JOBS, cron_job(suspend=True))
        for _ in range(5):
            await ask.cluster.clock.sleep(MINUTE_S)
            assert active(await ask.get(ONE)) == []
            assert await ask.items(JOBS) == []
        await ask.done("DELETE", ONE)

    whole(scenario)


def test_forbid_lets_the_job_that_runs_go_on_alone() -> None:
    """[sig-apps] CronJob should not schedule new jobs when ForbidConcurrent [Slow]"""

    async def scenario(ask: Whole) -> None:
        await ask.make(CRON_JOBS, cron_job(concurrencyPolicy="Forbid"))
        first = active(await ask.reach(ONE, active))
        assert len(first) == 1
        assert await running(ask) == first
        for _ in range(5):
            await ask.cluster.clock.sleep(MINUTE_S)
            assert active(await ask.get(ONE)) == await running(ask) == first

    whole(scenario)


def test_replace_ends_the_job_that_runs_for_the_next() -> None:
    """[sig-apps] CronJob should replace jobs when ReplaceConcurrent"""

    async def scenario(ask: Whole) -> None:
        await ask.make(CRON_JOBS, cron_job(concurrencyPolicy="Replace"))
        first = active(await ask.reach(ONE, active))
        assert await running(ask) == first
        second = active(await ask.reach(ONE, lambda obj: active(obj) not in ([], first), within_s=2 * MINUTE_S))
        assert len(second) == 1
        await ask.gone(f"{JOBS}/{first[0]}")
        assert await running(ask) == second

    whole(scenario)


def test_several_jobs_run_at_once_where_they_may() -> None:
    """[sig-apps] CronJob should schedule multiple jobs concurrently"""

    async def scenario(ask: Whole) -> None:
        await ask.make(CRON_JOBS, cron_job(concurrencyPolicy="Allow"))
        found = await ask.reach(ONE, lambda obj: len(active(obj)) == 2)
        assert sorted(await running(ask)) == sorted(active(found))

    whole(scenario)


async def test_cron_jobs_offer_every_operation(door: Door) -> None:
    """[sig-apps] CronJob should support CronJob API operations"""
    await discovered(door, "batch", "v1", "cronjobs", "status")
    template = cron_job("* */1 * * ?", successfulJobsHistoryLimit=1, failedJobsHistoryLimit=0)
    template["metadata"] = {"generateName": "test-api", "labels": {"special-label": "mine"}}
    selector = {"labelSelector": "special-label=mine"}
    made = await main_operations(door, CRON_JOBS, template, selector)
    (everywhere,) = [
        each
        for each in (await door.done("GET", "/apis/batch/v1/cronjobs", **selector))["items"]
        if each["metadata"]["name"] == made["metadata"]["name"]
    ]
    assert everywhere["metadata"]["uid"] == made["metadata"]["uid"]
    one = f"{CRON_JOBS}/{made['metadata']['name']}"
    when = "2026-01-02T03:04:05Z"
    patch = {"metadata": {"annotations": {"patchedstatus": "true"}}, "status": {"lastScheduleTime": when}}
    patched = await door.done("PATCH", f"{one}/status", patch, content_type=MERGE)
    assert patched["status"]["lastScheduleTime"] == when
    assert patched["metadata"]["annotations"]["patchedstatus"] == "true"
    patched["status"]["lastScheduleTime"] = "2026-01-02T03:05:05Z"
    updated = await door.done("PUT", f"{one}/status", patched)
    assert updated["status"]["lastScheduleTime"] == "2026-01-02T03:05:05Z"
    read = await door.done("GET", f"{one}/status")
    assert read["status"] == updated["status"]
    assert read["metadata"]["uid"] == made["metadata"]["uid"]
    await deletions(door, CRON_JOBS, made["metadata"]["name"], selector)
