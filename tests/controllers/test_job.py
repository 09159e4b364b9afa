"""Jobs in a whole cluster, in virtual time."""

from __future__ import annotations

from knarr.api.batch.v1 import Job
from knarr.api.core.v1 import Namespace, Pod, ServiceAccount
from knarr.api.meta.v1 import ObjectMeta
from knarr.client.transport import Answer, Request
from knarr.controllers.job import Jobs
from tests.cluster import Cluster, simulate
from tests.controllers.jobs import TRACKING, conditions, end, ended, job, run, running, status, the_job

REACHED = ("True", "CompletionsReached", "Reached expected number of succeeded pods")


def test_a_job_is_complete_when_its_pod_has_succeeded() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(job())
        (pod,) = await run(cluster, 1)
        assert pod.metadata.finalizers == ["batch.kubernetes.io/job-tracking"]
        await cluster.until(lambda: status(cluster).get("ready") == 1)
        assert status(cluster) == {"active": 1, "ready": 1, "terminating": 0, "uncountedTerminatedPods": {}}
        await cluster.clock.sleep(5)
        await end(cluster, pod)
        await cluster.until(lambda: ended(cluster))
        assert conditions(cluster) == [("SuccessCriteriaMet", *REACHED), ("Complete", *REACHED)]
        assert status(cluster) == {"succeeded": 1, "ready": 0, "terminating": 0, "uncountedTerminatedPods": {}}
        found = the_job(cluster).status
        assert found
        assert found.start_time
        assert found.completion_time
        assert 5 <= (found.completion_time - found.start_time).total_seconds() <= 7
        (pod,) = cluster.pods.all()
        assert pod.metadata.finalizers == []
        assert await cluster.events("SuccessfulCreate") == [f"Created pod: {pod.metadata.name}"]
        assert await cluster.events("Completed") == ["Job completed"]

    simulate(scenario)


def test_so_many_pods_run_at_once_as_may_and_are_still_needed() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(job(completions=5, parallelism=2))
        for left in (5, 4, 3, 2):
            pods = await run(cluster, 2)
            await cluster.clock.sleep(2)
            assert len(running(cluster)) == 2, left
            await end(cluster, pods[0])
        (last,) = await run(cluster, 1)
        await cluster.clock.sleep(2)
        assert len(cluster.pods.all()) == 5
        await end(cluster, last)
        await cluster.until(lambda: ended(cluster) == "Complete")
        assert status(cluster)["succeeded"] == 5

    simulate(scenario)


def test_without_a_number_of_completions_the_first_success_is_enough_once_all_have_ended() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(job(parallelism=3))
        first, second, third = await run(cluster, 3)
        await end(cluster, first)
        await cluster.clock.sleep(5)
        assert len(cluster.pods.all()) == 3
        assert not ended(cluster)
        await end(cluster, second, 1)
        await end(cluster, third)
        await cluster.until(lambda: ended(cluster) == "Complete")
        assert (status(cluster)["succeeded"], status(cluster)["failed"]) == (2, 1)

    simulate(scenario)


def test_a_failed_pod_is_replaced_after_ever_longer_waits_until_the_limit_is_passed() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(job(backoffLimit=3))
        for number, wait_s in enumerate((0, 10, 20, 40)):
            took_s = await cluster.until(lambda: running(cluster))
            assert abs(took_s - wait_s) < 2, number
            await end(cluster, running(cluster)[0], 1)
        await cluster.until(lambda: ended(cluster))
        told = ("True", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
        assert conditions(cluster) == [("FailureTarget", *told), ("Failed", *told)]
        assert status(cluster) == {"failed": 4, "ready": 0, "terminating": 0, "uncountedTerminatedPods": {}}
        assert the_job(cluster).status.completion_time is None  # type: ignore[union-attr]
        assert await cluster.events("BackoffLimitExceeded") == [told[2]]
        await cluster.clock.sleep(1000)
        assert len(cluster.pods.all()) == 4

    simulate(scenario)


def test_a_loop_that_begins_anew_knows_of_earlier_failures() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(job())
        for _ in range(2):
            await end(cluster, (await run(cluster, 1))[0], 1)
        await cluster.until(lambda: status(cluster).get("failed") == 2)
        (loop,) = [loop for loop in cluster.loops if isinstance(loop, Jobs)]
        loop._backoffs.clear()
        await cluster.patch(Job, "work", {"metadata": {"labels": {"a": "b"}}})
        assert 17 <= await cluster.until(lambda: running(cluster)) <= 21

    simulate(scenario)


def test_a_success_ends_the_waiting_of_those_that_failed() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(job(completions=3, parallelism=2))
        first, second = await run(cluster, 2)
        await end(cluster, first, 1)
        await cluster.clock.sleep(3)
        assert len(running(cluster)) == 1
        await end(cluster, second)
        assert await cluster.until(lambda: len(running(cluster)) == 2) < 1

    simulate(scenario)


def test_restarts_in_place_count_against_the_limit() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(job(restart="OnFailure", backoffLimit=2))
        (pod,) = await run(cluster, 1)
        key = f"default/{pod.metadata.name}"
        await cluster.nodes.crash(key)
        await cluster.clock.sleep(5)
        assert not ended(cluster)
        await cluster.nodes.crash(key)
        await cluster.until(lambda: ended(cluster))
        assert conditions(cluster)[-1][2] == "BackoffLimitExceeded"
        assert cluster.pods.all() == []
        assert await cluster.events("SuccessfulDelete") == [f"Deleted pod: {pod.metadata.name}"]
        assert status(cluster)["failed"] == 1

    simulate(scenario)


def test_a_job_that_takes_too_long_fails_and_its_pods_end() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(job(parallelism=2, completions=4, activeDeadlineSeconds=60))
        first, _ = await run(cluster, 2)
        await end(cluster, first)
        took_s = await cluster.until(lambda: ended(cluster))
        assert 57 <= took_s <= 68
        assert conditions(cluster)[-1] == (
            "Failed",
            "True",
            "DeadlineExceeded",
            "Job was active longer than specified deadline",
        )
        assert (status(cluster)["succeeded"], status(cluster)["failed"]) == (1, 2)
        assert [pod.metadata.name for pod in cluster.pods.all()] == [first.metadata.name]

    simulate(scenario, stop_s=(5, 5))


def test_a_job_has_failed_only_when_its_last_pod_is_gone() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(job(parallelism=2, completions=2, backoffLimit=0))
        first, _ = await run(cluster, 2)
        await end(cluster, first, 1)
        await cluster.until(lambda: conditions(cluster))
        assert [kind for kind, *_ in conditions(cluster)] == ["FailureTarget"]
        await cluster.until(lambda: status(cluster)["terminating"] == 1)
        assert "active" not in status(cluster)
        assert await cluster.until(lambda: ended(cluster)) >= 25
        assert status(cluster)["terminating"] == 0

    simulate(scenario, stop_s=(30, 30))


def test_a_pod_that_succeeds_while_its_job_fails_has_succeeded() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(job(parallelism=2, completions=2, backoffLimit=0))
        first, second = await run(cluster, 2)
        send = cluster.server.handle
        done: list[str] = []

        async def succeed_first(request: Request) -> Answer:
            if request.method == "DELETE" and not done:
                done.append(request.path)
                await end(cluster, second)
            return await send(request)

        cluster.server.handle = succeed_first  # type: ignore[method-assign]
        await end(cluster, first, 1)
        await cluster.until(lambda: ended(cluster) == "Failed")
        assert done == [f"/api/v1/namespaces/default/pods/{second.metadata.name}"]
        assert (status(cluster).get("succeeded"), status(cluster)["failed"]) == (1, 1)
        assert await cluster.events("FailedDelete") == []

    simulate(scenario)


def test_a_suspended_job_has_no_pods_and_starts_anew_when_it_is_resumed() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(job(parallelism=2, completions=2, suspend=True, activeDeadlineSeconds=100))
        await cluster.until(lambda: conditions(cluster))
        assert conditions(cluster) == [("Suspended", "True", "JobSuspended", "Job suspended")]
        await cluster.clock.sleep(200)
        assert cluster.pods.all() == []
        assert the_job(cluster).status.start_time is None  # type: ignore[union-attr]

        await cluster.patch(Job, "work", {"spec": {"suspend": False}})
        await run(cluster, 2)
        assert conditions(cluster) == [("Suspended", "False", "JobResumed", "Job resumed")]
        before = the_job(cluster).status.start_time  # type: ignore[union-attr]

        await cluster.clock.sleep(50)
        await cluster.patch(Job, "work", {"spec": {"suspend": True}})
        await cluster.until(lambda: not cluster.pods.all())
        await cluster.until(lambda: "active" not in status(cluster))
        assert "failed" not in status(cluster)

        await cluster.clock.sleep(200)
        await cluster.patch(Job, "work", {"spec": {"suspend": False}})
        pods = await run(cluster, 2)
        after = the_job(cluster).status.start_time  # type: ignore[union-attr]
        assert before
        assert after
        assert (after - before).total_seconds() >= 250
        await cluster.clock.sleep(80)
        for pod in pods:
            await end(cluster, pod)
        await cluster.until(lambda: ended(cluster) == "Complete")
        assert status(cluster)["succeeded"] == 2
        assert await cluster.events("Suspended") == ["Job suspended"]
        assert await cluster.events("Resumed") == ["Job resumed"]

    simulate(scenario)


def test_nothing_to_do_is_done_at_once_even_while_suspended() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(job(completions=0, suspend=True))
        await cluster.until(lambda: ended(cluster) == "Complete")
        assert cluster.pods.all() == []

    simulate(scenario)


def test_less_parallelism_ends_pods_without_counting_them() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(job(parallelism=4, completions=8))
        await run(cluster, 4)
        await cluster.patch(Job, "work", {"spec": {"parallelism": 1}})
        await run(cluster, 1)
        await cluster.until(lambda: len(cluster.pods.all()) == 1)
        await cluster.patch(Job, "work", {"spec": {"parallelism": 0}})
        await cluster.until(lambda: not cluster.pods.all())
        await cluster.until(lambda: "active" not in status(cluster))
        assert "failed" not in status(cluster)
        assert len(await cluster.events("SuccessfulDelete")) == 4

    simulate(scenario)


def test_a_pod_that_somebody_deletes_has_failed_and_is_replaced_while_it_ends() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(job())
        (pod,) = await run(cluster, 1)
        await cluster.client.delete(Pod, pod.metadata.name or "", "default")
        await cluster.until(lambda: status(cluster).get("failed") == 1)
        await cluster.until(lambda: len(running(cluster)) == 1, within_s=15)
        assert len(cluster.pods.all()) == 2
        assert status(cluster)["terminating"] == 1

    simulate(scenario, stop_s=(60, 60))


def test_a_pod_is_replaced_only_once_it_has_failed_if_that_is_asked_for() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(job(podReplacementPolicy="Failed"))
        (pod,) = await run(cluster, 1)
        await cluster.client.delete(Pod, pod.metadata.name or "", "default")
        await cluster.clock.sleep(30)
        assert len(cluster.pods.all()) == 1
        assert (status(cluster)["terminating"], status(cluster).get("failed")) == (1, None)
        await end(cluster, pod, 137)
        await cluster.until(lambda: status(cluster).get("failed") == 1)
        await run(cluster, 1)
        assert status(cluster)["terminating"] == 0

    simulate(scenario, stop_s=(60, 60))


def test_a_job_that_another_controller_manages_is_left_alone() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(job(managedBy="example.com/mine"))
        await cluster.create(job("other", managedBy="kubernetes.io/job-controller"))
        await cluster.until(lambda: cluster.pods.all())
        await cluster.clock.sleep(10)
        assert {pod.metadata.labels["job-name"] for pod in cluster.pods.all()} == {"other"}
        assert status(cluster) == {}

    simulate(scenario)


def test_a_job_that_has_ended_goes_with_its_pods_after_its_time() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(job(ttlSecondsAfterFinished=100))
        (pod,) = await run(cluster, 1)
        await cluster.clock.sleep(500)
        await end(cluster, pod)
        await cluster.until(lambda: ended(cluster))
        jobs = cluster.informers.of(Job)
        took_s = await cluster.until(lambda: not jobs.all() and not cluster.pods.all())
        assert 98 <= took_s <= 103

    simulate(scenario)


def test_a_job_that_is_deleted_takes_its_pods_with_it() -> None:
    async def scenario(cluster: Cluster) -> None:
        for policy in ("Background", "Foreground"):
            await cluster.create(job(parallelism=2, completions=2))
            await run(cluster, 2)
            await cluster.client.delete(Job, "work", "default", propagation_policy=policy)
            await cluster.until(lambda: not cluster.informers.of(Job).all() and not cluster.pods.all())

    simulate(scenario, stop_s=(3, 3))


def test_a_pod_that_is_taken_from_its_job_is_adopted_again_and_counts() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(job(parallelism=2, completions=2))
        pods = await run(cluster, 2)
        name = pods[0].metadata.name or ""
        await cluster.patch(Pod, name, {"metadata": {"ownerReferences": None}})

        def adopted() -> bool:
            found = cluster.pods.get(f"default/{name}")
            return bool(found and found.metadata.owner_references and TRACKING in found.metadata.finalizers)

        await cluster.until(adopted)
        await cluster.clock.sleep(5)
        assert adopted()
        assert len(cluster.pods.all()) == 2
        for pod in pods:
            await end(cluster, pod)
        await cluster.until(lambda: ended(cluster) == "Complete")
        assert status(cluster)["succeeded"] == 2

    simulate(scenario)


def test_a_namespace_goes_with_its_jobs() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.client.create(Namespace(metadata=ObjectMeta(name="short")))
        accounts = cluster.informers.of(ServiceAccount)
        await cluster.until(lambda: accounts.get("short/default"))
        wanted = job(parallelism=2, completions=4, podReplacementPolicy="Failed")
        wanted.metadata.namespace = "short"
        await cluster.client.create(wanted)
        await run(cluster, 2)
        await end(cluster, running(cluster)[0])
        await cluster.client.delete(Namespace, "short")
        namespaces = cluster.informers.of(Namespace)
        await cluster.until(lambda: namespaces.get("short") is None)
        assert cluster.pods.all("short") == []

    simulate(scenario, stop_s=(3, 3))


def test_pods_that_outlive_their_job_lose_its_finalizer() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(job())
        (pod,) = await run(cluster, 1)
        await cluster.client.delete(Job, "work", "default", propagation_policy="Orphan")
        key = f"default/{pod.metadata.name}"
        await cluster.until(lambda: not (found := cluster.pods.get(key)) or not found.metadata.finalizers)
        left = cluster.pods.get(key)
        assert left is not None
        assert left.metadata.deletion_timestamp is None
        assert left.metadata.owner_references == []

    simulate(scenario)


def test_a_pod_that_fits_is_adopted_with_the_finalizer_and_one_that_does_not_is_released_without() -> None:
    async def scenario(cluster: Cluster) -> None:
        labels = {"app": "mine"}
        wanted = job(manualSelector=True, selector={"matchLabels": labels}, completions=2, parallelism=2)
        assert wanted.spec
        wanted.spec.template.metadata = ObjectMeta(labels=labels)
        metadata = ObjectMeta(name="stray", namespace="default", labels=labels)
        await cluster.create(Pod(metadata=metadata, spec=wanted.spec.template.spec))
        await cluster.create(wanted)
        pods = await run(cluster, 2)
        (stray,) = [pod for pod in pods if pod.metadata.name == "stray"]
        assert stray.metadata.finalizers == [TRACKING]
        assert [owner.name for owner in stray.metadata.owner_references] == ["work"]
        await cluster.patch(Pod, "stray", {"metadata": {"labels": {"app": "theirs"}}})
        await run(cluster, 3)
        released = cluster.pods.get("default/stray")
        assert released is not None
        assert (released.metadata.finalizers, released.metadata.owner_references) == ([], [])

    simulate(scenario)
