"""sig-apps: StatefulSets, their revisions and their scale, on hollow nodes."""

from __future__ import annotations

from typing import Any

from tests.conformance.whole import (
    STRATEGIC,
    Whole,
    one_collection,
    ready,
    scale_subresource,
    status_endpoints,
    told,
    whole,
    workload,
)

STATEFUL_SETS = "/apis/apps/v1/namespaces/default/statefulsets"
REVISIONS = "/apis/apps/v1/namespaces/default/controllerrevisions"
PODS = "/api/v1/namespaces/default/pods"
ONE = f"{STATEFUL_SETS}/ss"
HASH = "controller-revision-hash"


def stateful_set(replicas: int, **spec: Any) -> Any:
    return workload("StatefulSet", "ss", replicas=replicas, serviceName="test", **spec)


def image(name: str) -> dict[str, Any]:
    return {"template": {"spec": {"containers": [{"name": "c", "image": name}]}}}


async def started(ask: Whole, replicas: int, **spec: Any) -> Any:
    await ask.make(STATEFUL_SETS, stateful_set(replicas, **spec))
    return await ask.reach(ONE, lambda obj: ready(obj) == replicas)


async def change(ask: Whole, **spec: Any) -> Any:
    """Answers the object once its status is of this change."""
    made = await ask.done("PATCH", ONE, {"spec": spec}, content_type=STRATEGIC)
    generation = made["metadata"]["generation"]
    return await ask.reach(ONE, lambda obj: obj["status"]["observedGeneration"] >= generation)


async def versions(ask: Whole) -> dict[str, tuple[str, str]]:
    """Pod → its image and its revision."""
    return {
        pod["metadata"]["name"]: (pod["spec"]["containers"][0]["image"], pod["metadata"]["labels"][HASH])
        for pod in await ask.items(PODS, labelSelector="app=ss")
        if "deletionTimestamp" not in pod["metadata"]
    }


def expected(old: tuple[str, str], new: tuple[str, str], partition: int) -> dict[str, tuple[str, str]]:
    return {f"ss-{number}": new if number >= partition else old for number in range(3)}


async def settled(ask: Whole, wanted: dict[str, tuple[str, str]]) -> None:
    """Wait for these pods, all ready."""
    for _ in range(600):
        if await versions(ask) == wanted and ask.cluster.ready_pods() == len(wanted):
            return
        await ask.cluster.clock.sleep(0.1)
    raise AssertionError((await versions(ask), wanted))


def test_the_scale_of_a_stateful_set_is_read_updated_and_patched() -> None:
    """[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should have a working scale
    subresource"""

    async def scenario(ask: Whole) -> None:
        await ask.make(STATEFUL_SETS, stateful_set(1))
        await scale_subresource(ask, STATEFUL_SETS, "ss", ready)

    whole(scenario)


def test_stateful_sets_are_listed_patched_and_deleted_as_a_collection() -> None:
    """[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should list, patch and delete a
    collection of StatefulSets"""

    async def scenario(ask: Whole) -> None:
        await started(ask, 1)
        patch = {
            "metadata": {"labels": {"test-ss": "patched"}},
            "spec": {"replicas": 2, **image("two"), "updateStrategy": {"type": "RollingUpdate"}},
        }
        patch["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 0
        patched = await ask.done("PATCH", ONE, patch, content_type=STRATEGIC)
        assert patched["metadata"]["labels"]["test-ss"] == "patched"
        found = await ask.reach(ONE, lambda obj: ready(obj) == obj["status"].get("updatedReplicas") == 2)
        pods = found["spec"]["template"]["spec"]
        assert (pods["containers"][0]["image"], pods["terminationGracePeriodSeconds"]) == ("two", 0)
        assert {name for name, _ in (await versions(ask)).values()} == {"two"}
        await one_collection(ask, STATEFUL_SETS, "ss", everywhere="/apis/apps/v1/statefulsets")

    whole(scenario)


def test_a_partition_lets_an_update_through_by_steps() -> None:
    """[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should perform canary updates and
    phased rolling updates of template modifications"""

    def partition(number: int) -> dict[str, Any]:
        return {"type": "RollingUpdate", "rollingUpdate": {"partition": number}}

    async def scenario(ask: Whole) -> None:
        made = await started(ask, 3, updateStrategy=partition(3))
        old = ("one", made["status"]["currentRevision"])
        assert made["status"]["updateRevision"] == old[1]
        assert await versions(ask) == expected(old, old, 3)
        changed = await change(ask, **image("two"))
        new = ("two", changed["status"]["updateRevision"])
        assert changed["status"]["currentRevision"] == old[1] != new[1]
        await ask.cluster.clock.sleep(30)
        assert await versions(ask) == expected(old, old, 3), "nothing is above the partition"
        await change(ask, updateStrategy=partition(2))
        await settled(ask, expected(old, new, 2))
        async with ask.watch(PODS, labelSelector="app=ss") as events:
            for name in ("ss-0", "ss-2"):
                await ask.done("DELETE", f"{PODS}/{name}")
                assert (await told(events, "DELETED"))["metadata"]["name"] == name
        await settled(ask, expected(old, new, 2))
        for number in (1, 0):
            await change(ask, updateStrategy=partition(number))
            await settled(ask, expected(old, new, number))
        await ask.reach(ONE, lambda obj: obj["status"]["currentRevision"] == new[1])

    whole(scenario)


def test_an_update_and_its_rollback_go_pod_by_pod_from_the_last() -> None:
    """[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should perform rolling updates and
    roll backs of template modifications"""

    async def scenario(ask: Whole) -> None:
        made = await started(ask, 3)
        first = made["status"]["currentRevision"]
        assert made["status"]["updateRevision"] == first
        ask.cluster.nodes.faults.unready_images.add("two")
        async with ask.watch(PODS, labelSelector="app=ss") as events:
            changed = await change(ask, **image("two"))
            second = changed["status"]["updateRevision"]
            assert changed["status"]["currentRevision"] == first != second
            # The last pod does not become ready: the update halts there.
            deleted = await told(events, "DELETED")
            assert deleted["metadata"]["name"] == "ss-2"
            await told(events, "MODIFIED", lambda pod: pod["status"]["phase"] == "Running")
            await ask.cluster.clock.sleep(30)
            assert await versions(ask) == expected(("one", first), ("two", second), 2)
            ask.cluster.nodes.faults.unready_images.clear()
            condition = {"type": "Ready", "status": "True"}
            patch = {"status": {"conditions": [condition]}}
            await ask.done("PATCH", f"{PODS}/ss-2/status", patch, content_type=STRATEGIC)
            for name in ("ss-1", "ss-0"):
                assert (await told(events, "DELETED"))["metadata"]["name"] == name
        await ask.reach(ONE, lambda obj: obj["status"]["currentRevision"] == second)
        assert await versions(ask) == expected(("one", first), ("two", second), 0)
        revisions = {each["metadata"]["name"]: each["revision"] for each in await ask.items(REVISIONS)}
        assert revisions == {first: 1, second: 2}
        rolled_back = await change(ask, **image("one"))
        assert rolled_back["status"]["updateRevision"] == first, "no new revision"
        await ask.reach(ONE, lambda obj: obj["status"]["currentRevision"] == first)
        assert await versions(ask) == expected(("one", first), ("one", first), 0)
        revisions = {each["metadata"]["name"]: each["revision"] for each in await ask.items(REVISIONS)}
        assert revisions == {first: 3, second: 2}

    whole(scenario)


def test_the_status_of_a_stateful_set_is_read_updated_and_patched() -> None:
    """[sig-apps] StatefulSet Basic StatefulSet functionality [StatefulSetBasic] should validate Statefulset Status
    endpoints"""

    async def scenario(ask: Whole) -> None:
        await started(ask, 1)
        await status_endpoints(ask, STATEFUL_SETS, "ss")

    whole(scenario)
