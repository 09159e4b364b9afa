"""sig-apps: ReplicationControllers from their first pod to their last, on hollow nodes."""

from __future__ import annotations

from typing import Any

from tests.conformance.whole import MERGE, STRATEGIC, Whole, controller_of, has, plain_pod, ready, told, whole

CONTROLLERS = "/api/v1/namespaces/default/replicationcontrollers"
PODS = "/api/v1/namespaces/default/pods"
QUOTAS = "/api/v1/namespaces/default/resourcequotas"


def controller(name: str, replicas: int) -> dict[str, Any]:
    labels = {"name": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "one"}]}}
    return {
        "apiVersion": "v1",
        "kind": "ReplicationController",
        "metadata": {"name": name, "labels": {"test-rc-static": "true"}},
        "spec": {"replicas": replicas, "selector": labels, "template": template},
    }


def test_a_pod_that_fits_is_adopted() -> None:
    """[sig-apps] ReplicationController should adopt matching pods on creation"""

    async def scenario(ask: Whole) -> None:
        orphan = await ask.make(PODS, plain_pod("pod-adoption", {"name": "pod-adoption"}))
        owner = await ask.make(CONTROLLERS, controller("pod-adoption", 1))
        await ask.reach(f"{PODS}/pod-adoption", lambda pod: controller_of(pod) == owner["metadata"]["uid"])
        await ask.reach(f"{CONTROLLERS}/pod-adoption", lambda obj: ready(obj) == 1)
        assert [pod["metadata"]["uid"] for pod in await ask.items(PODS)] == [orphan["metadata"]["uid"]]

    whole(scenario)


def test_a_pod_that_no_longer_fits_is_released() -> None:
    """[sig-apps] ReplicationController should release no longer matching pods"""

    async def scenario(ask: Whole) -> None:
        owner = await ask.make(CONTROLLERS, controller("pod-release", 1))
        await ask.reach(f"{CONTROLLERS}/pod-release", lambda obj: ready(obj) == 1)
        (pod,) = await ask.items(PODS)
        assert controller_of(pod) == owner["metadata"]["uid"]
        one = f"{PODS}/{pod['metadata']['name']}"
        await ask.merge(one, {"metadata": {"labels": {"name": "not-matching-name"}}})
        await ask.reach(one, lambda pod: controller_of(pod) is None)
        await ask.until(lambda: len(ask.cluster.pods.all()) == 2)

    whole(scenario)


def test_the_scale_of_a_replication_controller_is_read_and_updated() -> None:
    """[sig-apps] ReplicationController should get and update a ReplicationController scale"""

    async def scenario(ask: Whole) -> None:
        one = f"{CONTROLLERS}/e2e-rc"
        await ask.make(CONTROLLERS, controller("e2e-rc", 1))
        await ask.reach(one, lambda obj: ready(obj) == 1)
        scale = await ask.get(f"{one}/scale")
        assert scale["spec"]["replicas"] == scale["status"]["replicas"] == 1
        assert scale["status"]["selector"] == "name=e2e-rc"
        scale["spec"]["replicas"] = 2
        scale["metadata"].pop("resourceVersion")
        await ask.done("PUT", f"{one}/scale", scale)
        await ask.reach(one, lambda obj: obj["spec"]["replicas"] == ready(obj) == 2)

    whole(scenario)


def test_a_quota_shows_as_a_condition_until_it_no_longer_matters() -> None:
    """[sig-apps] ReplicationController should surface a failure condition on a common issue like exceeded quota"""

    async def scenario(ask: Whole) -> None:
        quota = {"metadata": {"name": "condition-test"}, "spec": {"hard": {"pods": "2"}}}
        await ask.make(QUOTAS, quota | {"apiVersion": "v1", "kind": "ResourceQuota"})
        await ask.reach(f"{QUOTAS}/condition-test", lambda obj: obj.get("status", {}).get("hard") == {"pods": "2"})
        one = f"{CONTROLLERS}/condition-test"
        await ask.make(CONTROLLERS, controller("condition-test", 3))
        failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate"}
        found = await ask.reach(one, has(failure))
        (condition,) = found["status"]["conditions"]
        assert (
            "is forbidden: exceeded quota: condition-test, requested: pods=1, used: pods=2, limited: pods=2"
            in (condition["message"])
        )
        await ask.merge(one, {"spec": {"replicas": 2}})
        await ask.reach(one, lambda obj: not obj["status"].get("conditions"))

    whole(scenario)


def test_a_replication_controller_is_made_patched_updated_and_deleted() -> None:
    """[sig-apps] ReplicationController should test the lifecycle of a ReplicationController"""

    async def scenario(ask: Whole) -> None:
        one = f"{CONTROLLERS}/rc-test"
        async with ask.watch(CONTROLLERS, labelSelector="test-rc-static=true") as events:
            await ask.make(CONTROLLERS, controller("rc-test", 1))
            await told(events, "ADDED")
            await told(events, "MODIFIED", lambda obj: ready(obj) == 1)
            patch = {"metadata": {"labels": {"test-rc": "patched"}}}
            await ask.done("PATCH", one, patch, content_type=STRATEGIC)
            await told(events, "MODIFIED", lambda obj: obj["metadata"]["labels"].get("test-rc") == "patched")
            # A status that does not fit is written, and told, before the loop mends it.
            patch = {"status": {"readyReplicas": 0, "availableReplicas": 0}}
            await ask.done("PATCH", f"{one}/status", patch, content_type=MERGE)
            await told(events, "MODIFIED", lambda obj: ready(obj) == 0)
            assert (await ask.get(f"{one}/status"))["metadata"]["name"] == "rc-test"
            await ask.done("PATCH", f"{one}/scale", {"spec": {"replicas": 2}}, content_type=MERGE)
            await told(events, "MODIFIED", lambda obj: obj["spec"]["replicas"] == 2)
            await told(events, "MODIFIED", lambda obj: ready(obj) == 2)
            changed = await ask.get(one)
            changed["metadata"]["labels"]["test-rc"] = "updated"
            await ask.done("PUT", one, changed)
            await told(events, "MODIFIED", lambda obj: obj["metadata"]["labels"].get("test-rc") == "updated")
            (listed,) = await ask.items("/api/v1/replicationcontrollers", labelSelector="test-rc-static=true")
            assert listed["metadata"]["labels"]["test-rc"] == "updated"
            await ask.done("DELETE", CONTROLLERS, labelSelector="test-rc-static=true")
            await told(events, "DELETED")
        await ask.until(lambda: not ask.cluster.pods.all())

    whole(scenario)
