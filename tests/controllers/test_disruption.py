"""PodDisruptionBudgets in a whole cluster: what may go, and that evictions keep to it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from knarr.api.apps.v1 import Deployment, StatefulSet
from knarr.api.batch.v1 import Job
from knarr.api.core.pod_state import is_ready
from knarr.api.core.v1 import Pod
from knarr.api.errors import TooManyRequests
from knarr.api.policy.v1 import PodDisruptionBudget, PodDisruptionBudgetStatus
from knarr.client.informer import version_of
from knarr.clock import utc
from tests.cluster import Cluster, deployment, simulate
from tests.controllers.test_statefulset import LABELS, stateful_set


def budget(labels: dict[str, str] | None = None, **spec: Any) -> PodDisruptionBudget:
    selector = {"matchLabels": {"app": "web"} if labels is None else labels}
    return msgspec.convert(
        {"metadata": {"name": "budget", "namespace": "default"}, "spec": {"selector": selector, **spec}},
        PodDisruptionBudget,
    )


def status(cluster: Cluster) -> PodDisruptionBudgetStatus:
    found = cluster.informers.of(PodDisruptionBudget).get("default/budget")
    return (found.status if found else None) or PodDisruptionBudgetStatus()


def numbers(cluster: Cluster) -> tuple[int | None, ...]:
    """Expected, desired, healthy, allowed."""
    found = status(cluster)
    return found.expected_pods, found.desired_healthy, found.current_healthy, found.disruptions_allowed


def condition(cluster: Cluster) -> tuple[str, str]:
    (found,) = status(cluster).conditions
    return found.status, found.reason


async def evict(cluster: Cluster, name: str) -> None:
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": "default"}}
    await cluster.client.post(Pod, name, "default", "eviction", body)


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ({"minAvailable": 2}, (5, 2, 5, 3)),
        ({"minAvailable": "50%"}, (5, 3, 5, 2)),
        ({"maxUnavailable": 1}, (5, 4, 5, 1)),
        ({"maxUnavailable": "50%"}, (5, 2, 5, 3)),
        ({"maxUnavailable": 0}, (5, 5, 5, 0)),
        ({"minAvailable": 9}, (5, 9, 5, 0)),
        ({}, (0, 0, 5, 0)),
    ],
)
def test_how_many_may_go(spec: dict[str, Any], wanted: tuple[int, ...]) -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(deployment(replicas=5))
        await cluster.until(lambda: cluster.done("web"))
        await cluster.create(budget(**spec))
        await cluster.until(lambda: numbers(cluster) == wanted)
        assert condition(cluster) == (("True", "SufficientPods") if wanted[3] else ("False", "InsufficientPods"))
        assert status(cluster).observed_generation == 1

    simulate(scenario)


def test_evictions_keep_to_the_budget_and_go_on_when_pods_are_back() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(deployment(replicas=3))
        await cluster.until(lambda: cluster.done("web"))
        await cluster.create(budget(maxUnavailable=1))
        await cluster.until(lambda: numbers(cluster) == (3, 2, 3, 1))
        first, second, _ = sorted(pod.metadata.name or "" for pod in cluster.pods.all())
        await evict(cluster, first)
        with pytest.raises(TooManyRequests):
            await evict(cluster, second)
        await cluster.until(lambda: cluster.pods.get(f"default/{first}") is None)
        await cluster.until(lambda: numbers(cluster) == (3, 2, 3, 1))
        await evict(cluster, second)
        await cluster.until(lambda: cluster.ready_pods() == 3)

    simulate(scenario)


def test_a_scale_up_is_expected_at_once() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(deployment(replicas=3))
        await cluster.until(lambda: cluster.done("web"))
        await cluster.create(budget(minAvailable="100%"))
        await cluster.until(lambda: numbers(cluster) == (3, 3, 3, 0))
        await cluster.patch(Deployment, "web", {"spec": {"replicas": 5}})
        await cluster.until(lambda: numbers(cluster) == (5, 5, 5, 0))

    simulate(scenario)


def test_the_pods_of_a_rollout_count_once() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(deployment(replicas=4))
        await cluster.until(lambda: cluster.done("web"))
        await cluster.create(budget(maxUnavailable=1))
        cluster.nodes.faults.unready_images.add("two")
        await cluster.set_image("web", "two")
        await cluster.until(lambda: "two" in cluster.images())
        await cluster.clock.sleep(30)
        assert numbers(cluster)[:2] == (4, 3)  # of two ReplicaSets of one Deployment

    simulate(scenario)


def test_stateful_sets_count_too_and_an_empty_selector_takes_all() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(stateful_set(replicas=2))
        await cluster.create(budget({}, maxUnavailable=1))
        await cluster.until(lambda: numbers(cluster) == (2, 1, 2, 1))
        await cluster.patch(StatefulSet, "db", {"spec": {"replicas": 3}})
        await cluster.until(lambda: numbers(cluster) == (3, 2, 3, 1))

    simulate(scenario)


def test_pods_of_what_cannot_be_scaled_can_only_be_counted() -> None:
    async def scenario(cluster: Cluster) -> None:
        job = {
            "metadata": {"name": "job", "namespace": "default"},
            "spec": {
                "template": {
                    "metadata": {"labels": LABELS},
                    "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "one"}]},
                }
            },
        }
        made = await cluster.client.create(msgspec.convert(job, Job))
        pod = {
            "metadata": {
                "name": "of-job",
                "namespace": "default",
                "labels": LABELS,
                "ownerReferences": [
                    {
                        "apiVersion": "batch/v1",
                        "kind": "Job",
                        "name": "job",
                        "uid": made.metadata.uid,
                        "controller": True,
                    }
                ],
            },
            "spec": {"containers": [{"name": "c", "image": "one"}]},
        }
        await cluster.create(msgspec.convert(pod, Pod))
        await cluster.create(budget(LABELS, maxUnavailable=1))
        await cluster.until(
            lambda: condition(cluster) == ("False", "SyncFailed") if status(cluster).conditions else False
        )
        assert status(cluster).conditions[0].message == "jobs.batch does not implement the scale subresource"
        assert status(cluster).disruptions_allowed == 0

    simulate(scenario)


def test_pods_of_nobody_are_told_of() -> None:
    async def scenario(cluster: Cluster) -> None:
        pod = {
            "metadata": {"name": "alone", "namespace": "default", "labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": "one"}]},
        }
        await cluster.create(msgspec.convert(pod, Pod))
        await cluster.until(lambda: is_ready(cluster.pods.all()[0]))
        await cluster.create(budget(maxUnavailable=1))
        await cluster.until(lambda: numbers(cluster) == (0, 0, 1, 0))
        (message,) = await cluster.events("UnmanagedPods")
        assert "(selector: app=web) were found to be unmanaged" in message

    simulate(scenario)


def test_a_granted_eviction_that_never_shows_is_told_of_and_forgotten() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(deployment(replicas=3))
        await cluster.until(lambda: cluster.done("web"))
        await cluster.create(budget(maxUnavailable=1))
        await cluster.until(lambda: numbers(cluster) == (3, 2, 3, 1))
        name = cluster.pods.all()[0].metadata.name or ""
        granted = {"status": {"disruptedPods": {name: utc(cluster.clock.time_s())}, "disruptionsAllowed": 0}}
        await cluster.client.patch(PodDisruptionBudget, "budget", granted, "default", subresource="status")
        await cluster.until(lambda: numbers(cluster) == (3, 2, 2, 0))
        took_s = await cluster.until(lambda: numbers(cluster) == (3, 2, 3, 1))
        assert 118 <= took_s <= 122
        assert await cluster.events("NotDeleted") == [
            "Pod was expected by PDB default/budget to be deleted but it wasn't"
        ]

    simulate(scenario)


async def target(cluster: Cluster, name: str, **more: str) -> None:
    now = utc(cluster.clock.time_s())
    condition = {"type": "DisruptionTarget", "status": "True", "lastTransitionTime": now, **more}
    patch = {"status": {"conditions": [condition]}}
    patched = await cluster.client.patch(Pod, name, patch, "default", subresource="status")
    await cluster.pods.reached(version_of(patched))


def targets(cluster: Cluster) -> dict[str, tuple[str, str | None]]:
    return {
        pod.metadata.name or "": (condition.status, condition.reason)
        for pod in cluster.pods.all()
        for condition in (pod.status.conditions if pod.status else ())
        if condition.type == "DisruptionTarget"
    }


def test_a_disruption_that_does_not_happen_is_taken_back_after_two_minutes() -> None:
    """Not what the kubelet says, and not of a pod that is being deleted or has ended."""

    async def scenario(cluster: Cluster) -> None:
        await cluster.create(stateful_set(replicas=4))
        await cluster.until(lambda: cluster.ready_pods() == 4)
        await target(cluster, "db-0", reason="PreemptionByScheduler", message="Default scheduler: preempting")
        await target(cluster, "db-1", reason="TerminationByKubelet")
        cluster.nodes.stop_s = (600.0, 600.0)
        await target(cluster, "db-2", reason="EvictionByEvictionAPI")
        await cluster.client.delete(Pod, "db-2", "default")
        await target(cluster, "db-3", reason="EvictionByEvictionAPI")
        told = targets(cluster)
        took_s = await cluster.until(lambda: targets(cluster) != told)
        assert 118 <= took_s <= 122
        await cluster.clock.sleep(200)
        assert targets(cluster) == {
            "db-0": ("False", None),
            "db-1": ("True", "TerminationByKubelet"),
            "db-2": ("True", "EvictionByEvictionAPI"),
            "db-3": ("False", None),
        }

    simulate(scenario)
