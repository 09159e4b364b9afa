"""sig-apps: Deployments, from their first pods to their last ReplicaSet, on hollow nodes."""

from __future__ import annotations

from typing import Any

from knarr.api.core.pod_state import is_ready
from tests.conformance.whole import Whole, has, ready, scale_subresource, status_endpoints, told, whole, workload

DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
REPLICA_SETS = "/apis/apps/v1/namespaces/default/replicasets"
PODS = "/api/v1/namespaces/default/pods"
HASH = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"


def deployment(name: str, replicas: int, image: str = "one", **spec: Any) -> Any:
    return workload("Deployment", name, image=image, replicas=replicas, **spec)


def complete(obj: Any) -> bool:
    """As upstream's tests see it: nothing old is left, and all that is new is available."""
    status, wanted = obj.get("status", {}), obj["spec"]["replicas"]
    counts = {status.get(field, 0) for field in ("replicas", "updatedReplicas", "availableReplicas")}
    return counts == {wanted} and status.get("observedGeneration", 0) >= obj["metadata"]["generation"]


def available(obj: Any) -> int:
    found: int = obj.get("status", {}).get("availableReplicas", 0)
    return found


async def set_image(ask: Whole, name: str, image: str) -> None:
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}}
    await ask.merge(f"{DEPLOYMENTS}/{name}", patch)


def relabel(labels: dict[str, str], *workloads: Any) -> None:
    """They select each other's pods, and the Deployment selects the ReplicaSet."""
    for each in workloads:
        each["metadata"]["labels"] = each["spec"]["template"]["metadata"]["labels"] = labels
        each["spec"]["selector"]["matchLabels"] = labels


async def of_image(ask: Whole, image: str) -> Any:
    """The ReplicaSet with this template."""
    sets = await ask.items(REPLICA_SETS)
    (found,) = (each for each in sets if each["spec"]["template"]["spec"]["containers"][0]["image"] == image)
    return found


def test_the_scale_of_a_deployment_is_read_updated_and_patched() -> None:
    """[sig-apps] Deployment Deployment should have a working scale subresource"""

    async def scenario(ask: Whole) -> None:
        await ask.make(DEPLOYMENTS, deployment("scaled", 1))
        await scale_subresource(ask, DEPLOYMENTS, "scaled", available)

    whole(scenario)


def test_recreate_ends_all_old_pods_before_it_starts_new_ones() -> None:
    """[sig-apps] Deployment RecreateDeployment should delete old pods and create new ones"""

    async def scenario(ask: Whole) -> None:
        await ask.make(DEPLOYMENTS, deployment("recreated", 1, strategy={"type": "Recreate"}))
        before = await ask.reach(f"{DEPLOYMENTS}/recreated", complete)
        assert before["metadata"]["annotations"][REVISION] == "1"
        seen: list[set[str]] = []

        def note(*_: object) -> None:
            pods = [pod for pod in ask.cluster.pods.all() if pod.spec and pod.status and pod.status.phase == "Running"]
            seen.append({pod.spec.containers[0].image or "" for pod in pods if pod.spec})

        ask.cluster.pods.add_handler(note)
        await set_image(ask, "recreated", "two")
        await ask.reach(f"{DEPLOYMENTS}/recreated", complete)
        assert seen[-1] == {"two"}
        assert all(len(images) <= 1 for images in seen), "never both at once"

    whole(scenario, stop_s=(2.0, 2.0))


def test_a_rolling_update_takes_over_the_pods_of_a_replica_set_and_replaces_them() -> None:
    """[sig-apps] Deployment RollingUpdateDeployment should delete old pods and create new ones

    A ReplicaSet that fits is there first, at the revision that an annotation says: it is adopted as an old one.
    """
    far = "3546343826724305832"

    async def scenario(ask: Whole) -> None:
        labels = {"name": "sample-pod"}
        old = workload("ReplicaSet", "controller", replicas=1)
        old["metadata"]["annotations"] = {REVISION: far}
        new = workload("Deployment", "rolling", image="two", replicas=1)
        relabel(labels, old, new)
        await ask.make(REPLICA_SETS, old)
        await ask.reach(f"{REPLICA_SETS}/controller", lambda obj: ready(obj) == 1)
        await ask.make(DEPLOYMENTS, new)
        found = await ask.reach(f"{DEPLOYMENTS}/rolling", complete)
        assert found["metadata"]["annotations"][REVISION] == str(int(far) + 1)
        sets = {each["metadata"]["name"]: each for each in await ask.items(REPLICA_SETS)}
        assert len(sets) == 2
        (owner,) = sets["controller"]["metadata"]["ownerReferences"]
        assert (owner["name"], owner["uid"]) == ("rolling", found["metadata"]["uid"])
        assert sets["controller"]["spec"]["replicas"] == 0
        (pod,) = await ask.items(PODS)
        assert pod["spec"]["containers"][0]["image"] == "two"
        assert pod["metadata"]["labels"][HASH]

    whole(scenario)


def test_replica_sets_beyond_the_history_limit_are_removed() -> None:
    """[sig-apps] Deployment deployment should delete old replica sets"""

    async def scenario(ask: Whole) -> None:
        labels = {"name": "cleanup-pod"}
        old = workload("ReplicaSet", "cleanup-controller", replicas=1)
        new = workload("Deployment", "cleanup", image="two", replicas=1, revisionHistoryLimit=0)
        relabel(labels, old, new)
        await ask.make(REPLICA_SETS, old)
        await ask.reach(f"{REPLICA_SETS}/cleanup-controller", lambda obj: ready(obj) == 1)
        async with ask.watch(PODS) as events:
            await ask.make(DEPLOYMENTS, new)
            made = await told(events, "ADDED", lambda pod: pod["spec"]["containers"][0]["image"] == "two")
            assert made["metadata"]["generateName"].startswith("cleanup-")
        await ask.gone(f"{REPLICA_SETS}/cleanup-controller")
        assert len(await ask.items(REPLICA_SETS)) == 1

    whole(scenario)


def test_a_change_in_the_middle_of_a_rollout_rolls_over() -> None:
    """[sig-apps] Deployment deployment should support rollover"""

    async def scenario(ask: Whole) -> None:
        labels = {"name": "rollover-pod"}
        old = workload("ReplicaSet", "rollover-controller", replicas=1)
        strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
        new = workload("Deployment", "rollover", image="none", replicas=1, strategy=strategy, minReadySeconds=10)
        relabel(labels, old, new)
        await ask.make(REPLICA_SETS, old)
        await ask.reach(f"{REPLICA_SETS}/rollover-controller", lambda obj: ready(obj) == 1)
        ask.cluster.nodes.faults.missing_images.add("none")
        await ask.make(DEPLOYMENTS, new)
        await ask.reach(
            f"{DEPLOYMENTS}/rollover", lambda obj: obj.get("status", {}).get("updatedReplicas") == 1, within_s=10
        )
        stuck = await of_image(ask, "none")
        assert stuck["spec"]["replicas"] == 1
        await set_image(ask, "rollover", "two")
        began_s = ask.cluster.clock.monotonic_s()
        while not complete(await ask.get(f"{DEPLOYMENTS}/rollover")):
            assert ask.cluster.ready_pods() >= 1
            assert sum(each["spec"]["replicas"] for each in await ask.items(REPLICA_SETS)) <= 2
            assert ask.cluster.clock.monotonic_s() - began_s < 60
            await ask.cluster.clock.sleep(0.1)
        for name in ("rollover-controller", stuck["metadata"]["name"]):
            found = await ask.get(f"{REPLICA_SETS}/{name}")
            assert (found["spec"]["replicas"], found["status"]["replicas"]) == (0, 0)
            assert found["metadata"]["ownerReferences"][0]["name"] == "rollover"

    whole(scenario)


def test_scaling_in_the_middle_of_a_rollout_is_proportional() -> None:
    """[sig-apps] Deployment deployment should support proportional scaling"""

    async def scenario(ask: Whole) -> None:
        strategy = {"rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}}
        await ask.make(DEPLOYMENTS, deployment("webserver", 10, strategy=strategy))
        one = f"{DEPLOYMENTS}/webserver"
        await ask.reach(one, complete)
        ask.cluster.nodes.faults.missing_images.add("none")
        await set_image(ask, "webserver", "none")
        await ask.reach(one, lambda obj: available(obj) == 8 and obj["status"]["updatedReplicas"] == 5)
        assert [(await of_image(ask, image))["spec"]["replicas"] for image in ("one", "none")] == [8, 5]
        await ask.merge(one, {"spec": {"replicas": 30}})
        await ask.reach(one, lambda obj: obj["status"]["replicas"] == 33)
        assert [(await of_image(ask, image))["spec"]["replicas"] for image in ("one", "none")] == [20, 13]

    whole(scenario)


def test_a_deployment_is_made_patched_scaled_and_deleted() -> None:
    """[sig-apps] Deployment should run the lifecycle of a Deployment"""

    async def scenario(ask: Whole) -> None:
        made = deployment("lived", 2, template={"terminationGracePeriodSeconds": 0})
        one = f"{DEPLOYMENTS}/lived"
        async with ask.watch(DEPLOYMENTS, labelSelector="app=lived") as events:
            await ask.make(DEPLOYMENTS, made)
            await told(events, "ADDED")
            await told(events, "MODIFIED", lambda obj: available(obj) == ready(obj) == 2)
            patch = {
                "metadata": {"labels": {"test-deployment": "patched"}},
                "spec": {"replicas": 1, "template": {"spec": {"containers": [{"name": "c", "image": "two"}]}}},
            }
            await ask.merge(one, patch)
            patched = await told(events, "MODIFIED", lambda obj: "test-deployment" in obj["metadata"]["labels"])
            assert patched["spec"]["replicas"] == 1
            await told(events, "MODIFIED", lambda obj: complete(obj) and available(obj) == 1)
            (listed,) = await ask.items("/apis/apps/v1/deployments", labelSelector="test-deployment=patched")
            assert listed["spec"]["template"]["spec"]["containers"][0]["image"] == "two"
            await ask.merge(f"{one}/status", {"metadata": {"labels": {"test-deployment": "patched-status"}}})
            read = await ask.get(f"{one}/status")
            assert available(read) == 1
            read["spec"]["replicas"] = 2
            read["metadata"]["labels"]["test-deployment"] = "updated"
            for field in ("resourceVersion", "managedFields"):
                read["metadata"].pop(field, None)
            await ask.done("PUT", one, read)
            await told(events, "MODIFIED", lambda obj: complete(obj) and available(obj) == 2)
            changed = await ask.get(f"{one}/status")
            changed["status"].update(readyReplicas=2)
            changed["status"]["conditions"].append({"type": "StatusUpdate", "status": "True"})
            await ask.done("PUT", f"{one}/status", changed)
            await told(events, "MODIFIED", has({"type": "StatusUpdate", "status": "True"}))
            await ask.done("DELETE", DEPLOYMENTS, labelSelector="app=lived")
            await told(events, "DELETED")
        await ask.until(lambda: not ask.cluster.pods.all() and not ask.cluster.replica_sets.all())

    whole(scenario)


def test_the_status_of_a_deployment_is_read_updated_and_patched() -> None:
    """[sig-apps] Deployment should validate Deployment Status endpoints"""

    async def scenario(ask: Whole) -> None:
        await ask.make(DEPLOYMENTS, deployment("told", 1))
        await ask.reach(f"{DEPLOYMENTS}/told", complete)
        await status_endpoints(ask, DEPLOYMENTS, "told")
        assert any(map(is_ready, ask.cluster.pods.all()))

    whole(scenario)
