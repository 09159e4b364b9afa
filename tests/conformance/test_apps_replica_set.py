"""sig-apps: ReplicaSets adopt, release, scale and report, on hollow nodes."""

from __future__ import annotations

from typing import Any

from tests.conformance.whole import (
    STRATEGIC,
    Whole,
    controller_of,
    one_collection,
    plain_pod,
    ready,
    scale_subresource,
    status_endpoints,
    told,
    whole,
    workload,
)

REPLICA_SETS = "/apis/apps/v1/namespaces/default/replicasets"
PODS = "/api/v1/namespaces/default/pods"


def replica_set(name: str, replicas: int, **spec: Any) -> Any:
    return workload("ReplicaSet", name, replicas=replicas, **spec)


def test_a_replica_set_is_scaled_and_patched() -> None:
    """[sig-apps] ReplicaSet Replace and Patch tests"""

    async def scenario(ask: Whole) -> None:
        one = f"{REPLICA_SETS}/patched"
        await ask.make(REPLICA_SETS, replica_set("patched", 1))
        await ask.reach(one, lambda obj: ready(obj) == 1)
        await ask.merge(one, {"spec": {"replicas": 2}})
        await ask.reach(one, lambda obj: obj["spec"]["replicas"] == ready(obj) == 2)
        async with ask.watch(REPLICA_SETS, labelSelector="app=patched") as events:
            spec = {"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "two"}]}
            patch = {
                "metadata": {"labels": {"test-rs": "patched"}},
                "spec": {"replicas": 3, "template": {"spec": spec}},
            }
            await ask.done("PATCH", one, patch, content_type=STRATEGIC)
            seen = await told(events, "MODIFIED", lambda obj: ready(obj) == 3)
        assert seen["metadata"]["labels"]["test-rs"] == "patched"
        pods = seen["spec"]["template"]["spec"]
        assert (pods["terminationGracePeriodSeconds"], pods["containers"][0]["image"]) == (0, "two")

    whole(scenario)


def test_the_scale_of_a_replica_set_is_read_updated_and_patched() -> None:
    """[sig-apps] ReplicaSet Replicaset should have a working scale subresource"""

    async def scenario(ask: Whole) -> None:
        await ask.make(REPLICA_SETS, replica_set("scaled", 1))
        await scale_subresource(ask, REPLICA_SETS, "scaled", ready)

    whole(scenario)


def test_a_replica_set_adopts_a_pod_that_fits_and_releases_it_when_it_no_longer_does() -> None:
    """[sig-apps] ReplicaSet should adopt matching pods on creation and release no longer matching pods"""

    async def scenario(ask: Whole) -> None:
        orphan = await ask.make(PODS, plain_pod("alone", {"app": "adopting"}))
        owner = await ask.make(REPLICA_SETS, replica_set("adopting", 1))
        await ask.reach(f"{PODS}/alone", lambda pod: controller_of(pod) == owner["metadata"]["uid"])
        await ask.reach(f"{REPLICA_SETS}/adopting", lambda obj: ready(obj) == 1)
        (kept,) = await ask.items(PODS)
        assert kept["metadata"]["uid"] == orphan["metadata"]["uid"]
        await ask.merge(f"{PODS}/alone", {"metadata": {"labels": {"app": "not-matching-name"}}})
        await ask.reach(f"{PODS}/alone", lambda pod: controller_of(pod) is None)
        await ask.until(lambda: len(ask.cluster.pods.all()) == 2)

    whole(scenario)


def test_replica_sets_are_listed_and_deleted_as_a_collection() -> None:
    """[sig-apps] ReplicaSet should list and delete a collection of ReplicaSets"""

    async def scenario(ask: Whole) -> None:
        await ask.make(REPLICA_SETS, replica_set("several", 3))
        await ask.reach(f"{REPLICA_SETS}/several", lambda obj: ready(obj) == 3)
        await one_collection(ask, REPLICA_SETS, "several", everywhere="/apis/apps/v1/replicasets")
        await ask.until(lambda: not ask.cluster.pods.all())

    whole(scenario)


def test_the_status_of_a_replica_set_is_read_updated_and_patched() -> None:
    """[sig-apps] ReplicaSet should validate Replicaset Status endpoints"""

    async def scenario(ask: Whole) -> None:
        await ask.make(REPLICA_SETS, replica_set("told", 1))
        await ask.reach(f"{REPLICA_SETS}/told", lambda obj: ready(obj) == 1)
        await status_endpoints(ask, REPLICA_SETS, "told")

    whole(scenario)
