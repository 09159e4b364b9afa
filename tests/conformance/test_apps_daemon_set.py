"""sig-apps: DaemonSets and the ControllerRevisions that they keep, on hollow nodes."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tests.conformance.whole import STRATEGIC, Whole, one_collection, status_endpoints, whole, workload

DAEMON_SETS = "/apis/apps/v1/namespaces/default/daemonsets"
REVISIONS = "/apis/apps/v1/namespaces/default/controllerrevisions"
PODS = "/api/v1/namespaces/default/pods"
NODES = 3
HASH = "controller-revision-hash"


def daemon_set(**spec: Any) -> Any:
    return workload("DaemonSet", "daemon", **spec)


def on_nodes(obj: Any, nodes: int = NODES) -> bool:
    status = obj.get("status", {})
    fields = ("desiredNumberScheduled", "currentNumberScheduled", "numberReady")
    return [status.get(field) for field in fields] == [nodes] * 3


async def running(ask: Whole, nodes: int = NODES) -> list[Any]:
    """Wait until so many nodes run a pod of it; the pods."""
    await ask.reach(f"{DAEMON_SETS}/daemon", lambda obj: on_nodes(obj, nodes))
    pods = [pod for pod in await ask.items(PODS) if "deletionTimestamp" not in pod["metadata"]]
    assert len({pod["spec"]["nodeName"] for pod in pods}) == len(pods) == nodes
    return pods


async def started(ask: Whole, **spec: Any) -> list[Any]:
    await ask.make(DAEMON_SETS, daemon_set(**spec))
    return await running(ask)


async def change(ask: Whole, **spec: Any) -> None:
    await ask.done("PATCH", f"{DAEMON_SETS}/daemon", {"spec": spec}, content_type=STRATEGIC)


def image(name: str) -> dict[str, Any]:
    return {"template": {"spec": {"containers": [{"name": "c", "image": name}]}}}


def images(ask: Whole) -> Counter[str]:
    pods = [pod for pod in ask.cluster.pods.all() if pod.spec and not pod.metadata.deletion_timestamp]
    return Counter(pod.spec.containers[0].image or "" for pod in pods if pod.spec)


def test_daemon_sets_are_listed_and_deleted_as_a_collection() -> None:
    """[sig-apps] Daemon set [Serial] should list and delete a collection of DaemonSets"""

    async def scenario(ask: Whole) -> None:
        await started(ask)
        await one_collection(ask, DAEMON_SETS, "daemon", everywhere="/apis/apps/v1/daemonsets")
        await ask.until(lambda: not ask.cluster.pods.all())

    whole(scenario)


def test_a_daemon_s_pod_that_fails_is_made_again() -> None:
    """[sig-apps] Daemon set [Serial] should retry creating failed daemon pods"""

    async def scenario(ask: Whole) -> None:
        pod, *_ = await started(ask)
        one = f"{PODS}/{pod['metadata']['name']}"
        await ask.merge(f"{one}/status", {"status": {"phase": "Failed"}})
        await ask.gone(one)
        after = await running(ask)
        assert pod["spec"]["nodeName"] in {each["spec"]["nodeName"] for each in after}

    whole(scenario)


def test_a_rollback_leaves_alone_what_the_update_has_not_touched() -> None:
    """[sig-apps] Daemon set [Serial] should rollback without unnecessary restarts"""

    async def scenario(ask: Whole) -> None:
        await started(ask)
        ask.cluster.nodes.faults.missing_images.add("foo:non-existent")
        await change(ask, **image("foo:non-existent"))
        await ask.until(lambda: images(ask)["foo:non-existent"] == 1)
        kept = {
            pod["metadata"]["uid"] for pod in await ask.items(PODS) if pod["spec"]["containers"][0]["image"] == "one"
        }
        assert len(kept) == NODES - 1
        await change(ask, **image("one"))
        await ask.until(lambda: images(ask) == {"one": NODES})
        after = {pod["metadata"]["uid"] for pod in await running(ask)}
        assert kept < after

    whole(scenario)


def test_labels_of_nodes_decide_where_a_daemon_runs() -> None:
    """[sig-apps] Daemon set [Serial] should run and stop complex daemon"""

    async def scenario(ask: Whole) -> None:
        async def colour(value: str | None) -> None:
            await ask.merge("/api/v1/nodes/hollow-0", {"metadata": {"labels": {"daemonset-color": value}}})

        await ask.make(DAEMON_SETS, daemon_set(template={"nodeSelector": {"daemonset-color": "blue"}}))
        await ask.reach(f"{DAEMON_SETS}/daemon", lambda obj: on_nodes(obj, 0))
        assert not ask.cluster.pods.all()
        await colour("blue")
        (pod,) = await running(ask, 1)
        assert pod["spec"]["nodeName"] == "hollow-0"
        await colour("green")
        await ask.until(lambda: not ask.cluster.pods.all())
        await change(
            ask,
            template={"spec": {"nodeSelector": {"daemonset-color": "green"}}},
            updateStrategy={"type": "RollingUpdate"},
        )
        (pod,) = await running(ask, 1)
        assert pod["spec"]["nodeSelector"] == {"daemonset-color": "green"}
        await colour(None)
        await ask.until(lambda: not ask.cluster.pods.all())

    whole(scenario)


def test_a_daemon_runs_on_every_node_and_comes_back_where_it_was_deleted() -> None:
    """[sig-apps] Daemon set [Serial] should run and stop simple daemon"""

    async def scenario(ask: Whole) -> None:
        pod, *_ = await started(ask)
        await ask.done("DELETE", f"{PODS}/{pod['metadata']['name']}")
        await ask.gone(f"{PODS}/{pod['metadata']['name']}")
        await running(ask)
        # What upstream's test checks when it ends: the pods go with their owner.
        await ask.done("DELETE", f"{DAEMON_SETS}/daemon")
        await ask.until(lambda: not ask.cluster.pods.all())

    whole(scenario)


def test_a_rolling_update_replaces_the_pod_of_each_node() -> None:
    """[sig-apps] Daemon set [Serial] should update pod when spec was updated and update strategy is RollingUpdate"""

    async def scenario(ask: Whole) -> None:
        before = await started(ask, updateStrategy={"type": "RollingUpdate"})
        (first,) = await ask.items(REVISIONS)
        assert first["revision"] == 1
        assert {pod["metadata"]["labels"][HASH] for pod in before} == {first["metadata"]["labels"][HASH]}
        least = [NODES]

        def note(*_: object) -> None:
            least.append(ask.cluster.ready_pods())

        ask.cluster.pods.add_handler(note)
        await change(ask, **image("two"))
        await ask.until(lambda: images(ask) == {"two": NODES})
        await ask.reach(f"{DAEMON_SETS}/daemon", lambda obj: obj["status"].get("updatedNumberScheduled") == NODES)
        after = await running(ask)
        assert min(least) >= NODES - 1, "maxUnavailable is 1"
        second = max(await ask.items(REVISIONS), key=lambda revision: int(revision["revision"]))
        assert second["revision"] == 2
        assert {pod["metadata"]["labels"][HASH] for pod in after} == {second["metadata"]["labels"][HASH]}
        await ask.done("DELETE", f"{DAEMON_SETS}/daemon")
        await ask.until(lambda: not ask.cluster.pods.all())

    whole(scenario)


def test_the_status_of_a_daemon_set_is_read_updated_and_patched() -> None:
    """[sig-apps] Daemon set [Serial] should verify changes to a daemon set status"""

    async def scenario(ask: Whole) -> None:
        await started(ask)
        await status_endpoints(ask, DAEMON_SETS, "daemon")

    whole(scenario)


def test_controller_revisions_are_made_listed_patched_updated_and_deleted() -> None:
    """[sig-apps] ControllerRevision [Serial] should manage the lifecycle of a ControllerRevision"""

    async def scenario(ask: Whole) -> None:
        async def revisions() -> list[Any]:
            return await ask.items("/apis/apps/v1/controllerrevisions", labelSelector="app=daemon")

        await started(ask)
        (first,) = await revisions()
        name = first["metadata"]["name"]
        (owner,) = first["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["controller"]) == ("DaemonSet", "daemon", True)
        patch = {"metadata": {"labels": {name: "patched"}}}
        patched = await ask.done("PATCH", f"{REVISIONS}/{name}", patch, content_type=STRATEGIC)
        assert patched["metadata"]["labels"][name] == "patched"
        metadata = {"name": "daemon-other", "labels": {"app": "daemon", HASH: "other"}}
        metadata["ownerReferences"] = first["metadata"]["ownerReferences"]
        other = {"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": metadata, "revision": 2}
        await ask.make(REVISIONS, other | {"data": first["data"]})
        assert len(await revisions()) == 2
        await ask.done("DELETE", f"{REVISIONS}/{name}")
        (left,) = await revisions()
        assert left["metadata"]["name"] == "daemon-other"
        left["metadata"]["labels"]["daemon-other"] = "updated"
        updated = await ask.done("PUT", f"{REVISIONS}/daemon-other", left)
        assert updated["metadata"]["labels"]["daemon-other"] == "updated"
        await change(ask, template={"spec": {"terminationGracePeriodSeconds": 1}})
        await ask.cluster.clock.sleep(5)
        assert len(await revisions()) == 2
        await ask.done("DELETE", REVISIONS, labelSelector="daemon-other=updated")
        (current,) = await revisions()
        assert current["revision"] == 3

    whole(scenario)
