"""Indexed Jobs, pod failure policies and success policies in a whole cluster, in virtual time."""

from __future__ import annotations

from typing import Any

import pytest

from knarr.api.batch.v1 import Job
from knarr.api.core.v1 import Pod
from tests.cluster import Cluster, simulate
from tests.controllers.jobs import (
    INDEX,
    conditions,
    end,
    ended,
    index,
    indexed,
    indexes,
    job,
    run,
    running,
    status,
)

FAILURES = "batch.kubernetes.io/job-index-failure-count"
IGNORED = "batch.kubernetes.io/job-index-ignored-failure-count"


def policy(action: str, **match: Any) -> dict[str, Any]:
    return {"rules": [{"action": action, **match}]}


def codes(*values: int, operator: str = "In") -> dict[str, Any]:
    return {"onExitCodes": {"operator": operator, "values": list(values)}}


def test_each_pod_knows_its_index() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(indexed(3))
        pods = await run(cluster, 3)
        for number, pod in enumerate(pods):
            assert pod.metadata.name
            assert pod.metadata.name.startswith(f"work-{number}-")
            assert pod.metadata.annotations[INDEX] == pod.metadata.labels[INDEX] == str(number)
            assert pod.spec
            assert pod.spec.hostname == f"work-{number}"
            (variable,) = pod.spec.containers[0].env
            assert variable.name == "JOB_COMPLETION_INDEX"
            assert variable.value_from
            assert variable.value_from.field_ref
            assert variable.value_from.field_ref.field_path == f"metadata.labels['{INDEX}']"
        for pod in pods:
            await end(cluster, pod)
        await cluster.until(lambda: ended(cluster) == "Complete")
        assert (status(cluster)["completedIndexes"], status(cluster)["succeeded"]) == ("0-2", 3)

    simulate(scenario)


def test_an_index_that_has_failed_runs_again_and_one_that_has_succeeded_does_not() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(indexed(6, parallelism=3))
        first, second, third = await run(cluster, 3)
        await end(cluster, first, 1)
        await end(cluster, second)
        await end(cluster, third)
        await cluster.until(lambda: indexes(running(cluster)) == [0, 3, 4])
        assert status(cluster)["completedIndexes"] == "1,2"
        for pod in running(cluster)[1:]:
            await end(cluster, pod)
        await cluster.until(lambda: indexes(running(cluster)) == [0, 5])
        assert status(cluster)["completedIndexes"] == "1-4"
        assert status(cluster)["failed"] == 1

    simulate(scenario)


def test_completions_grow_and_shrink_with_the_parallelism() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(indexed(3))
        pods = await run(cluster, 3)
        await end(cluster, pods[2])
        await cluster.until(lambda: status(cluster).get("succeeded") == 1)
        await cluster.patch(Job, "work", {"spec": {"completions": 5, "parallelism": 5}})
        await cluster.until(lambda: indexes(running(cluster)) == [0, 1, 3, 4])
        await cluster.patch(Job, "work", {"spec": {"completions": 2, "parallelism": 2}})
        await cluster.until(lambda: indexes(running(cluster)) == [0, 1])
        await cluster.until(lambda: "succeeded" not in status(cluster))
        assert "failed" not in status(cluster)
        for pod in running(cluster):
            await end(cluster, pod)
        await cluster.until(lambda: ended(cluster) == "Complete")
        assert status(cluster)["completedIndexes"] == "0,1"

    simulate(scenario)


def test_each_index_has_a_limit_of_its_own_and_waits_for_itself() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(indexed(3, backoffLimitPerIndex=1))
        pods = await run(cluster, 3)
        assert {pod.metadata.annotations[FAILURES] for pod in pods} == {"0"}
        await end(cluster, pods[1], 1)
        assert 8 <= await cluster.until(lambda: len(running(cluster)) == 3) <= 11
        again = running(cluster)[1]
        assert (index(again), again.metadata.annotations[FAILURES]) == (1, "1")
        await cluster.until(lambda: status(cluster).get("failed") == 1)
        await end(cluster, again, 1)
        await cluster.until(lambda: status(cluster)["failedIndexes"] == "1")
        await cluster.clock.sleep(100)
        assert indexes(running(cluster)) == [0, 2]
        for pod in running(cluster):
            await end(cluster, pod)
        await cluster.until(lambda: ended(cluster))
        assert conditions(cluster)[-1] == ("Failed", "True", "FailedIndexes", "Job has failed indexes")
        assert (status(cluster)["completedIndexes"], status(cluster)["failedIndexes"]) == ("0,2", "1")
        assert (status(cluster)["succeeded"], status(cluster)["failed"]) == (2, 2)

    simulate(scenario)


def test_too_many_failed_indexes_end_the_job() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(indexed(4, backoffLimitPerIndex=0, maxFailedIndexes=1))
        pods = await run(cluster, 4)
        await end(cluster, pods[0], 1)
        await cluster.until(lambda: status(cluster)["failedIndexes"] == "0")
        await cluster.clock.sleep(5)
        assert not ended(cluster)
        await end(cluster, pods[3], 1)
        await cluster.until(lambda: ended(cluster))
        message = "Job has exceeded the specified maximal number of failed indexes"
        assert conditions(cluster)[-1] == ("Failed", "True", "MaxFailedIndexesExceeded", message)
        assert status(cluster)["failed"] == 4

    simulate(scenario)


def test_an_index_fails_at_once_if_the_policy_says_so() -> None:
    async def scenario(cluster: Cluster) -> None:
        rules = {"rules": [{"action": "FailIndex", **codes(7)}, {"action": "Ignore", **codes(3)}]}
        await cluster.create(indexed(2, backoffLimitPerIndex=1, podFailurePolicy=rules))
        first, second = await run(cluster, 2)
        await end(cluster, first, 7)
        await cluster.until(lambda: status(cluster)["failedIndexes"] == "0")
        await end(cluster, second, 3)
        (again,) = await run(cluster, 1)
        assert again.metadata.annotations[FAILURES] == "0"
        assert again.metadata.annotations[IGNORED] == "1"
        await cluster.until(lambda: status(cluster).get("failed") == 1)
        await end(cluster, again)
        await cluster.until(lambda: ended(cluster) == "Failed")
        assert (status(cluster)["completedIndexes"], status(cluster)["failedIndexes"]) == ("1", "0")

    simulate(scenario)


@pytest.mark.parametrize(
    ("rule", "exit_code", "condition", "message"),
    [
        (codes(42), 42, "", "Container c for pod default/{} failed with exit code 42 matching FailJob rule at index 0"),
        (
            codes(1, 2, operator="NotIn"),
            3,
            "",
            "Container c for pod default/{} failed with exit code 3 matching FailJob rule at index 0",
        ),
        (
            {"onPodConditions": [{"type": "DisruptionTarget"}]},
            1,
            "DisruptionTarget",
            "Pod default/{} has condition DisruptionTarget matching FailJob rule at index 0",
        ),
    ],
)
def test_one_pod_may_fail_the_whole_job(rule: dict[str, Any], exit_code: int, condition: str, message: str) -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(job(parallelism=2, completions=2, podFailurePolicy=policy("FailJob", **rule)))
        first, _ = await run(cluster, 2)
        await end(cluster, first, exit_code, conditions=[condition] if condition else [])
        await cluster.until(lambda: conditions(cluster))
        told = ("True", "PodFailurePolicy", message.format(first.metadata.name))
        assert conditions(cluster)[0] == ("FailureTarget", *told)
        await cluster.until(lambda: ended(cluster))
        assert conditions(cluster)[1] == ("Failed", *told)
        assert await cluster.events("PodFailurePolicy") == [told[2]]

    simulate(scenario)


def test_a_failure_that_is_ignored_counts_nowhere_but_holds_the_next_pod_back() -> None:
    async def scenario(cluster: Cluster) -> None:
        ignored = policy("Ignore", onPodConditions=[{"type": "DisruptionTarget"}])
        await cluster.create(job(backoffLimit=0, podFailurePolicy=ignored))
        (pod,) = await run(cluster, 1)
        await end(cluster, pod, 137, conditions=["DisruptionTarget"])
        assert 8 <= await cluster.until(lambda: running(cluster)) <= 11
        assert "failed" not in status(cluster)
        await end(cluster, running(cluster)[0], 1)
        await cluster.until(lambda: ended(cluster) == "Failed")
        assert status(cluster)["failed"] == 1

    simulate(scenario)


def test_a_count_rule_keeps_later_rules_from_matching() -> None:
    async def scenario(cluster: Cluster) -> None:
        rules = {"rules": [{"action": "Count", **codes(5)}, {"action": "FailJob", **codes(1, 5)}]}
        await cluster.create(job(podFailurePolicy=rules))
        (pod,) = await run(cluster, 1)
        await end(cluster, pod, 5)
        (again,) = await run(cluster, 1)
        assert status(cluster)["failed"] == 1
        await end(cluster, again, 1)
        await cluster.until(lambda: ended(cluster) == "Failed")
        assert conditions(cluster)[-1][2] == "PodFailurePolicy"

    simulate(scenario)


@pytest.mark.parametrize(
    ("rules", "succeed", "number"),
    [
        ([{"succeededIndexes": "0"}], [0], 0),
        ([{"succeededIndexes": "0-3"}, {"succeededCount": 2}], [1, 4], 1),
        ([{"succeededIndexes": "1,3-4", "succeededCount": 2}], [0, 2, 4, 1], 0),
    ],
)
def test_a_success_policy_ends_the_rest(rules: list[dict[str, Any]], succeed: list[int], number: int) -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(indexed(5, successPolicy={"rules": rules}))
        pods = await run(cluster, 5)
        for one in succeed[:-1]:
            await end(cluster, pods[one])
        await cluster.clock.sleep(5)
        assert conditions(cluster) == []
        await end(cluster, pods[succeed[-1]])
        await cluster.until(lambda: ended(cluster))
        told = ("True", "SuccessPolicy", f"Matched rules at index {number}")
        assert conditions(cluster) == [("SuccessCriteriaMet", *told), ("Complete", *told)]
        assert "failed" not in status(cluster)
        assert status(cluster)["succeeded"] == len(succeed)
        assert indexes(cluster.pods.all()) == sorted(succeed)

    simulate(scenario)


def test_of_two_pods_with_one_index_and_of_one_without_the_least_is_ended() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(indexed(2))
        pods = await run(cluster, 2)
        await cluster.clock.sleep(5)
        for name, wrong in (("double", {INDEX: "1"}), ("beyond", {INDEX: "7"}), ("without", {})):
            metadata = pods[1].metadata
            twin = Pod(spec=pods[1].spec)
            twin.metadata.name, twin.metadata.namespace = name, "default"
            twin.metadata.labels = metadata.labels
            twin.metadata.annotations = wrong
            twin.metadata.owner_references = metadata.owner_references
            await cluster.client.create(twin)
        await cluster.until(lambda: len(cluster.pods.all()) == 2)
        assert [pod.metadata.uid for pod in running(cluster)] == [pod.metadata.uid for pod in pods]
        assert "failed" not in status(cluster)

    simulate(scenario)
