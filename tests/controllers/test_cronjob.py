"""CronJobs in a whole cluster, in virtual time. It begins on 2026-01-01 at 00:00 UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from knarr.api.batch.v1 import CronJob, Job
from knarr.api.meta.v1 import ObjectMeta, OwnerReference
from knarr.client.transport import Answer, Request
from knarr.controllers.cronjob import CronJobs
from tests.cluster import Cluster, simulate
from tests.controllers.jobs import end, ended, running

MIDNIGHT = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()) // 60
SCHEDULED = "batch.kubernetes.io/cronjob-scheduled-timestamp"


def cron_job(schedule: str = "*/10 * * * *", **spec: Any) -> CronJob:
    pod = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "one"}]}}
    template = {
        "metadata": {"labels": {"app": "tick"}, "annotations": {"note": "kept"}},
        "spec": {"template": pod, "backoffLimit": 0},
    }
    return msgspec.convert(
        {
            "metadata": {"name": "tick", "namespace": "default"},
            "spec": {"schedule": schedule, "jobTemplate": template, **spec},
        },
        CronJob,
    )


def jobs(cluster: Cluster) -> list[str]:
    return sorted(job.metadata.name or "" for job in cluster.informers.of(Job).all())


def named(*minutes: int) -> list[str]:
    return [f"tick-{MIDNIGHT + minute}" for minute in minutes]


def status(cluster: Cluster) -> dict[str, Any]:
    found = cluster.informers.of(CronJob).get("default/tick")
    written: dict[str, Any] = msgspec.to_builtins(found.status) if found and found.status else {}
    return written | {"active": [one["name"] for one in written.get("active", ())]}


async def minutes(cluster: Cluster, minute: float) -> None:
    """Wait until so many minutes after midnight."""
    await cluster.clock.sleep(minute * 60 - (cluster.clock.time_s() - MIDNIGHT * 60))


async def let_pods_end(cluster: Cluster, exit_code: int = 0) -> None:
    for pod in running(cluster):
        await end(cluster, pod, exit_code)
    await cluster.until(lambda: all(ended(cluster, name) for name in jobs(cluster)))


def test_a_job_is_started_at_each_time() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(cron_job())
        await minutes(cluster, 9.9)
        assert jobs(cluster) == []
        await minutes(cluster, 10.1)
        assert jobs(cluster) == named(10)
        (job,) = cluster.informers.of(Job).all()
        assert job.metadata.labels == {"app": "tick"}
        assert job.metadata.annotations == {"note": "kept", SCHEDULED: "2026-01-01T00:10:00Z"}
        (owner,) = job.metadata.owner_references
        assert (owner.kind, owner.name, owner.controller) == ("CronJob", "tick", True)
        assert status(cluster) == {"active": named(10), "lastScheduleTime": "2026-01-01T00:10:00Z"}
        assert await cluster.events("SuccessfulCreate") >= [f"Created job {named(10)[0]}"]

        await let_pods_end(cluster)
        await cluster.until(lambda: status(cluster)["active"] == [])
        assert status(cluster)["lastSuccessfulTime"].startswith("2026-01-01T00:10:")
        assert await cluster.events("SawCompletedJob") == [f"Saw completed job: {named(10)[0]}, condition: Complete"]
        await minutes(cluster, 20.1)
        assert jobs(cluster) == named(10, 20)

    simulate(scenario)


def test_times_are_those_of_the_zone() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(cron_job("0 6 * * *", timeZone="Asia/Kolkata"))
        await minutes(cluster, 31)
        assert jobs(cluster) == named(30)
        (job,) = cluster.informers.of(Job).all()
        assert job.metadata.annotations[SCHEDULED] == "2026-01-01T06:00:00+05:30"

    simulate(scenario)


@pytest.mark.parametrize(
    ("policy", "there", "active"),
    [
        ("Allow", (10, 20, 30), (10, 20, 30)),
        ("Forbid", (10,), (10,)),
        ("Replace", (30,), (30,)),
    ],
)
def test_what_happens_while_the_last_still_runs(policy: str, there: list[int], active: list[int]) -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(cron_job(concurrencyPolicy=policy))
        await minutes(cluster, 31)
        assert jobs(cluster) == named(*there)
        assert status(cluster)["active"] == named(*active)
        told = await cluster.events("JobAlreadyActive")
        expected = "Not starting job because prior execution is running and concurrency policy is Forbid"
        assert set(told) == ({expected} if policy == "Forbid" else set())
        deleted = await cluster.events("SuccessfulDelete")
        assert [name for name in deleted if name.startswith("Deleted job")] == (
            [f"Deleted job {name}" for name in named(10, 20)] if policy == "Replace" else []
        )
        if policy == "Forbid":  # the time that was passed over is made up for
            await end(cluster, running(cluster)[0])
            await cluster.until(lambda: jobs(cluster) == named(10, 30))

    simulate(scenario)


def test_the_last_few_are_kept() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(cron_job(successfulJobsHistoryLimit=2, failedJobsHistoryLimit=1))
        for number in range(1, 7):
            await minutes(cluster, number * 10 + 1)
            await let_pods_end(cluster, exit_code=1 if number in (1, 4) else 0)
        await cluster.until(lambda: jobs(cluster) == named(40, 50, 60))
        await cluster.until(lambda: len(cluster.pods.all()) == 3)

    simulate(scenario)


def test_no_history_is_kept_if_none_is_wanted() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(cron_job(successfulJobsHistoryLimit=0))
        await minutes(cluster, 11)
        await let_pods_end(cluster)
        await cluster.until(lambda: not jobs(cluster) and not cluster.pods.all())
        assert status(cluster)["active"] == []
        assert "lastSuccessfulTime" in status(cluster)

    simulate(scenario)


def test_a_suspended_one_starts_nothing_and_makes_up_for_the_last_time_only() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(cron_job(suspend=True))
        await minutes(cluster, 45)
        assert jobs(cluster) == []
        await cluster.patch(CronJob, "tick", {"spec": {"suspend": False}})
        await cluster.clock.sleep(5)
        assert jobs(cluster) == named(40)

    simulate(scenario)


def test_a_time_that_was_missed_for_too_long_is_not_made_up_for() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(cron_job(suspend=True, startingDeadlineSeconds=200))
        await minutes(cluster, 45)
        await cluster.patch(CronJob, "tick", {"spec": {"suspend": False}})
        await cluster.clock.sleep(5)
        assert jobs(cluster) == []
        await minutes(cluster, 51)
        assert jobs(cluster) == named(50)

    simulate(scenario)


def test_too_many_missed_times_are_told_and_the_last_runs_all_the_same() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(cron_job("* * * * *", suspend=True))
        await minutes(cluster, 150.5)
        await cluster.patch(CronJob, "tick", {"spec": {"suspend": False}})
        await cluster.clock.sleep(5)
        assert jobs(cluster) == named(150)
        message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
        assert await cluster.events("TooManyMissedTimes") == [message]

    simulate(scenario)


def test_another_schedule_begins_with_its_next_time() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(cron_job("0 12 * * *"))
        await minutes(cluster, 45)
        await cluster.patch(CronJob, "tick", {"spec": {"schedule": "*/20 * * * *"}})
        await minutes(cluster, 59)
        assert jobs(cluster) == []
        await minutes(cluster, 61)
        assert jobs(cluster) == named(60)

    simulate(scenario)


def test_a_job_that_goes_missing_is_forgotten() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(cron_job(concurrencyPolicy="Forbid"))
        await minutes(cluster, 11)
        await cluster.client.delete(Job, named(10)[0], "default")
        await cluster.until(lambda: status(cluster)["active"] == [])
        assert await cluster.events("MissingJob") == [f"Active job went missing: {named(10)[0]}"]
        await minutes(cluster, 15)
        assert jobs(cluster) == []
        await minutes(cluster, 21)
        assert jobs(cluster) == named(20)

    simulate(scenario)


def test_a_job_made_by_hand_is_told_of_and_not_counted() -> None:
    async def scenario(cluster: Cluster) -> None:
        created = await cluster.create(cron_job(concurrencyPolicy="Forbid"))
        owner = OwnerReference(
            api_version="batch/v1", kind="CronJob", name="tick", uid=created.metadata.uid or "", controller=True
        )
        metadata = ObjectMeta(name="by-hand", namespace="default", owner_references=[owner])
        await cluster.create(Job(metadata=metadata, spec=created.spec.job_template.spec))
        await minutes(cluster, 11)
        assert jobs(cluster) == ["by-hand", *named(10)]
        assert status(cluster)["active"] == named(10)
        told = set(await cluster.events("UnexpectedJob"))
        assert told == {"Saw a job that the controller did not create or forgot: by-hand"}

    simulate(scenario)


def test_one_time_runs_once_even_if_the_note_of_it_is_lost() -> None:
    async def scenario(cluster: Cluster) -> None:
        send = cluster.server.handle
        lost: list[str] = []

        async def lose(request: Request) -> Answer:
            if request.method == "PUT" and request.path.endswith("/cronjobs/tick/status") and len(lost) < 3:
                lost.append(request.path)
                body = {"kind": "Status", "code": 409, "reason": "Conflict", "message": "changed"}
                return Answer(409, {}, msgspec.json.encode(body))
            return await send(request)

        cluster.server.handle = lose  # type: ignore[method-assign]
        await cluster.create(cron_job(concurrencyPolicy="Forbid"))
        await minutes(cluster, 25)
        assert len(lost) == 3
        assert jobs(cluster) == named(10)
        assert status(cluster)["active"] == named(10)
        assert await cluster.events("UnexpectedJob") == []

    simulate(scenario)


def test_a_schedule_that_never_comes_is_told() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(cron_job("0 0 31 2 *"))
        await minutes(cluster, 25)
        fault = "time difference between two schedules is less than 1 second"
        assert set(await cluster.events("InvalidSchedule")) == {f"invalid schedule: 0 0 31 2 * : {fault}"}

    simulate(scenario)


def test_it_rests_between_two_times() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(cron_job("0 12 * * *"))
        (loop,) = [loop for loop in cluster.loops if isinstance(loop, CronJobs)]
        looks: list[str] = []
        reconcile = loop.reconcile

        async def counted(key: str) -> float | None:
            looks.append(key)
            return await reconcile(key)

        loop.reconcile = counted  # type: ignore[method-assign]
        await minutes(cluster, 100)
        assert len(looks) <= 2

    simulate(scenario)
