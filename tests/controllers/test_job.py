"""Jobs in a whole cluster, in virtual time."""

from __future__ import annotations

from knarr.api.batch.v1 import Job
from knarr.api.core.v1 import Pod
from tests.cluster import Cluster, simulate
from tests.controllers.jobs import conditions, end, ended, job, run, running, status, the_job

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
        assert found and found.start_time and found.completion_time
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
