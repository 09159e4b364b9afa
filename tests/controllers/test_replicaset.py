"""ReplicaSets in a whole cluster, in virtual time."""

from __future__ import annotations

from typing import Any

import msgspec

from knarr.api.apps.v1 import ReplicaSet
from knarr.api.core.v1 import Pod
from knarr.client.transport import Answer, Request
from knarr.simulate.nodes import Faults
from tests.cluster import Cluster, simulate


def replica_set(replicas: int, name: str = "web", **spec: Any) -> ReplicaSet:
    labels = {"app": name}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [{"name": "c", "image": spec.pop("image", "one")}]},
    }
    return msgspec.convert(
        {
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template, **spec},
        },
        ReplicaSet,
    )


def status(cluster: Cluster, name: str = "web") -> dict[str, Any]:
    found = cluster.replica_sets.get(f"default/{name}")
    return msgspec.to_builtins(found.status) if found and found.status else {}


def pod(name: str, **labels: str) -> Pod:
    return msgspec.convert(
        {
            "metadata": {"name": name, "namespace": "default", "labels": labels},
            "spec": {"containers": [{"name": "c", "image": "one"}]},
        },
        Pod,
    )


def test_it_counts_its_pods() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(replica_set(3))
        await cluster.until(lambda: status(cluster).get("availableReplicas") == 3)
        await cluster.clock.sleep(1)
        assert status(cluster) == {
            "replicas": 3,
            "fullyLabeledReplicas": 3,
            "readyReplicas": 3,
            "availableReplicas": 3,
            "terminatingReplicas": 0,
            "observedGeneration": 1,
        }
        created = await cluster.events("SuccessfulCreate")
        assert sorted(created) == sorted(f"Created pod: {one.metadata.name}" for one in cluster.pods.all())

    simulate(scenario)


def test_a_pod_that_goes_is_replaced_by_another() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(replica_set(2))
        await cluster.until(lambda: cluster.ready_pods() == 2)
        gone = cluster.pods.all()[0].metadata
        await cluster.client.delete(Pod, gone.name or "", "default")
        await cluster.until(lambda: gone.uid not in {one.metadata.uid for one in cluster.pods.all()})
        assert cluster.ready_pods() == len(cluster.pods.all()) == 2
        assert status(cluster)["replicas"] == 2

    simulate(scenario, stop_s=(5, 5))


def test_a_pod_on_its_way_out_is_counted_as_terminating() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(replica_set(2))
        await cluster.until(lambda: cluster.ready_pods() == 2)
        await cluster.client.delete(Pod, cluster.pods.all()[0].metadata.name or "", "default")
        await cluster.until(lambda: status(cluster).get("terminatingReplicas") == 1)
        await cluster.until(lambda: status(cluster).get("availableReplicas") == 2)
        assert len(cluster.pods.all()) == 3
        await cluster.until(lambda: status(cluster).get("terminatingReplicas") == 0)

    simulate(scenario, stop_s=(20, 20))


def test_matching_pods_are_adopted_and_those_too_many_deleted() -> None:
    async def scenario(cluster: Cluster) -> None:
        for number in range(3):
            await cluster.create(pod(f"loose-{number}", app="web"))
        await cluster.create(pod("other", app="other"))
        await cluster.create(replica_set(2))
        await cluster.until(lambda: len(cluster.pods.all()) == 3)
        await cluster.clock.sleep(2)
        owned = [one.metadata.name for one in cluster.pods.all() if one.metadata.owner_references]
        assert len(owned) == 2
        assert all(name and name.startswith("loose-") for name in owned)

    simulate(scenario)


def test_a_pod_that_loses_its_label_is_released_and_replaced() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(replica_set(2))
        await cluster.until(lambda: cluster.ready_pods() == 2)
        name = cluster.pods.all()[0].metadata.name or ""
        await cluster.patch(Pod, name, {"metadata": {"labels": {"app": "quarantine"}}})
        await cluster.until(lambda: len(cluster.pods.all()) == 3)
        released = cluster.pods.get(f"default/{name}")
        assert released is not None
        await cluster.until(lambda: not cluster.pods.get(f"default/{name}").metadata.owner_references)  # type: ignore[union-attr]

    simulate(scenario)


def test_min_ready_seconds_delay_availability_to_the_second() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(replica_set(2, minReadySeconds=60))
        await cluster.until(lambda: status(cluster).get("readyReplicas") == 2)
        assert "availableReplicas" not in status(cluster)
        took_s = await cluster.until(lambda: status(cluster).get("availableReplicas") == 2)
        assert 58.5 <= took_s <= 60.5

    simulate(scenario)


def test_pods_that_cannot_be_created_are_tried_slowly_and_told() -> None:
    async def scenario(cluster: Cluster) -> None:
        tried: list[float] = []
        send = cluster.server.handle

        async def refuse(request: Request) -> Answer:
            if request.method == "POST" and request.path.endswith("/pods"):
                tried.append(cluster.clock.monotonic_s())
                message = 'pods "web-" is forbidden: exceeded quota: small'
                body = {"kind": "Status", "code": 403, "reason": "Forbidden", "message": message}
                return Answer(403, {}, msgspec.json.encode(body))
            return await send(request)

        cluster.server.handle = refuse  # type: ignore[method-assign]
        await cluster.create(replica_set(100))
        await cluster.until(lambda: status(cluster).get("conditions"))
        condition = status(cluster)["conditions"][0]
        assert (condition["type"], condition["status"], condition["reason"]) == (
            "ReplicaFailure",
            "True",
            "FailedCreate",
        )
        assert condition["message"] == 'pods "web-" is forbidden: exceeded quota: small'
        await cluster.clock.sleep(60)
        assert len(tried) < 20  # one for each attempt, ever more slowly
        assert (await cluster.events("FailedCreate"))[0] == f"Error creating: {condition['message']}"
        cluster.server.handle = send  # type: ignore[method-assign]
        await cluster.until(lambda: cluster.ready_pods() == 100, within_s=120)
        await cluster.until(lambda: "conditions" not in status(cluster))

    simulate(scenario, nodes=3)


def test_scaling_down_spares_ready_pods() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(replica_set(4))
        await cluster.until(lambda: cluster.ready_pods() == 4)
        faulty = cluster.pods.all()[2]
        condition = {"type": "Ready", "status": "False"}
        await cluster.client.patch(
            Pod, faulty.metadata.name or "", {"status": {"conditions": [condition]}}, "default", subresource="status"
        )
        await cluster.patch(ReplicaSet, "web", {"spec": {"replicas": 3}})
        await cluster.until(lambda: len(cluster.pods.all()) == 3)
        assert cluster.pods.get(f"default/{faulty.metadata.name}") is None

    simulate(scenario)


def test_pods_that_end_are_replaced() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(replica_set(1))
        await cluster.until(lambda: cluster.ready_pods() == 1)
        name = cluster.pods.all()[0].metadata.name or ""
        await cluster.client.patch(Pod, name, {"status": {"phase": "Failed"}}, "default", subresource="status")
        await cluster.until(lambda: len(cluster.pods.all()) == 2)

    simulate(scenario)


def test_crashing_pods_are_not_available() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(replica_set(2, image="crash"))
        await cluster.until(lambda: status(cluster).get("replicas") == 2)
        await cluster.clock.sleep(100)
        assert "readyReplicas" not in status(cluster)
        restarts = [
            one.status.container_statuses[0].restart_count
            for one in cluster.pods.all()
            if one.status and one.status.container_statuses
        ]
        assert len(restarts) == 2
        assert min(restarts) >= 2

    simulate(scenario, faults=Faults(crashing_images={"crash"}))
