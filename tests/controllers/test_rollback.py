"""Deployments that return to their last complete revision by themselves, because they asked for it."""

from __future__ import annotations

from typing import Any

from knarr.api.apps.v1 import Deployment, DeploymentStrategy
from knarr.api.errors import ServiceUnavailable
from knarr.api.types import replace
from knarr.client.transport import Answer, Request, Transport
from knarr.clock import Clock
from knarr.controllers.deployment import Deployments
from knarr.controllers.rollback import CHECK, MAX_RESTARTS, OPT_IN, Rollbacks
from tests.cluster import Cluster, deployment, simulate


class Slow:
    """A way to the API server whose answers take a moment: so others see what was written before its writer goes on."""

    def __init__(self, inner: Transport, clock: Clock) -> None:
        self._inner = inner
        self._clock = clock

    async def send(self, request: Request) -> Answer:
        answer = await self._inner.send(request)
        await self._clock.sleep(0.5)
        return answer

    async def close(self) -> None:
        await self._inner.close()


def asking(replicas: int = 3, deadline_s: int = 30, **annotations: str) -> Deployment:
    made = deployment(replicas=replicas, progressDeadlineSeconds=deadline_s)
    return replace(made, metadata=replace(made.metadata, annotations={OPT_IN: "true", **annotations}))


async def complete(cluster: Cluster) -> None:
    await cluster.until(lambda: cluster.condition("web", "Progressing") == ("True", "NewReplicaSetAvailable"))
    await cluster.clock.sleep(1)


def message(cluster: Cluster) -> str:
    (found,) = (each.message or "" for each in cluster.status("web").conditions if each.type == "RolledBack")
    return found


def test_a_rollout_that_passes_its_deadline_returns_to_the_last_complete_revision() -> None:
    async def scenario(cluster: Cluster) -> None:
        cluster.nodes.faults.missing_images.add("broken")
        await cluster.create(asking())
        await complete(cluster)
        await cluster.set_image("web", "two")
        await complete(cluster)
        await cluster.set_image("web", "broken")
        await cluster.until(lambda: cluster.condition("web", "RolledBack") == ("True", "ProgressDeadlineExceeded"))
        await complete(cluster)
        assert cluster.images() == ["two"] * 3
        assert message(cluster).startswith("Revision 3 (replica set web-")
        assert "has timed out progressing.; rolled back to revision 2 (replica set web-" in message(cluster)
        assert await cluster.events("RolledBack") == [message(cluster)]
        assert cluster.deployment("web").metadata.annotations["deployment.kubernetes.io/revision"] == "4"
        await cluster.clock.sleep(300)
        assert len(await cluster.events("RolledBack")) == 1
        assert cluster.done("web")

    simulate(scenario)


def test_a_recreate_is_not_taken_for_complete_while_its_status_is_that_of_the_old_pods() -> None:
    async def scenario(cluster: Cluster) -> None:
        cluster.nodes.faults.missing_images.add("broken")
        made = asking()
        await cluster.create(replace(made, spec=replace(made.spec, strategy=DeploymentStrategy(type="Recreate"))))
        await complete(cluster)
        loop = next(loop for loop in cluster.loops if isinstance(loop, Deployments))
        loop.client = replace(loop.client, transport=Slow(loop.client.transport, cluster.clock))
        await cluster.set_image("web", "broken")
        await cluster.until(lambda: cluster.condition("web", "RolledBack") == ("True", "ProgressDeadlineExceeded"))
        await complete(cluster)
        assert cluster.images() == ["one"] * 3

    simulate(scenario)


def test_without_the_annotation_nothing_is_rolled_back() -> None:
    async def scenario(cluster: Cluster) -> None:
        cluster.nodes.faults.missing_images.add("broken")
        await cluster.create(deployment(progressDeadlineSeconds=30))
        await complete(cluster)
        await cluster.set_image("web", "broken")
        await cluster.until(lambda: cluster.condition("web", "Progressing") == ("False", "ProgressDeadlineExceeded"))
        await cluster.clock.sleep(120)
        assert "broken" in cluster.images()

    simulate(scenario)


def test_a_template_that_is_declared_again_is_not_rolled_back_again() -> None:
    async def scenario(cluster: Cluster) -> None:
        cluster.nodes.faults.missing_images.add("broken")
        await cluster.create(asking())
        await complete(cluster)
        await cluster.set_image("web", "broken")
        await cluster.until(lambda: cluster.condition("web", "RolledBack")[0] == "True")
        await complete(cluster)
        await cluster.set_image("web", "broken")
        await cluster.until(lambda: cluster.condition("web", "Progressing") == ("False", "ProgressDeadlineExceeded"))
        await cluster.clock.sleep(300)
        assert "broken" in cluster.images()
        assert len(await cluster.events("RolledBack")) == 1

    simulate(scenario)


def test_another_template_is_a_new_beginning() -> None:
    async def scenario(cluster: Cluster) -> None:
        cluster.nodes.faults.missing_images |= {"broken", "worse"}
        await cluster.create(asking())
        await complete(cluster)
        await cluster.set_image("web", "broken")
        await cluster.until(lambda: cluster.condition("web", "RolledBack")[0] == "True")
        await complete(cluster)
        await cluster.set_image("web", "two")
        await complete(cluster)
        await cluster.until(lambda: cluster.condition("web", "RolledBack") == ("", ""))
        await cluster.set_image("web", "worse")
        await cluster.until(lambda: cluster.condition("web", "RolledBack")[0] == "True")
        await complete(cluster)
        assert cluster.images() == ["two"] * 3

    simulate(scenario)


def test_the_first_rollout_has_nothing_to_return_to() -> None:
    async def scenario(cluster: Cluster) -> None:
        cluster.nodes.faults.missing_images.add("one")
        await cluster.create(asking())
        await cluster.until(lambda: cluster.condition("web", "Progressing") == ("False", "ProgressDeadlineExceeded"))
        await cluster.clock.sleep(120)
        (told,) = await cluster.events("RollbackImpossible")
        assert told.endswith("; no revision was ever complete")
        assert cluster.images() == ["one"] * 3

    simulate(scenario)


def test_a_template_that_was_complete_once_is_not_a_failed_rollout_when_it_breaks_later() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(asking())
        await complete(cluster)
        await cluster.set_image("web", "two")
        await complete(cluster)
        cluster.nodes.faults.crashing_images.add("two")
        await cluster.patch(Deployment, "web", {"spec": {"replicas": 5}})
        await cluster.clock.sleep(300)
        assert set(cluster.images()) == {"two"}
        assert not await cluster.events("RolledBack")

    simulate(scenario)


def test_new_pods_that_restart_too_often_fail_the_rollout_before_its_deadline() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(asking(deadline_s=3600, **{MAX_RESTARTS: "2"}))
        await complete(cluster)
        cluster.nodes.faults.crashing_images.add("two")
        await cluster.set_image("web", "two")
        await cluster.until(lambda: cluster.condition("web", "RolledBack") == ("True", "TooManyRestarts"))
        assert "restarted 3 times; rolled back to revision 1" in message(cluster)
        await complete(cluster)
        assert cluster.images() == ["one"] * 3

    simulate(scenario)


def test_new_pods_that_fail_their_check_fail_the_rollout() -> None:
    async def scenario(cluster: Cluster) -> None:
        asked: list[str] = []

        async def get_text(path: str) -> bytes:
            asked.append(path)
            raise ServiceUnavailable("the pod answered 503")

        for loop in cluster.loops:
            if isinstance(loop, Rollbacks):
                loop.ask = get_text  # type: ignore[method-assign,assignment]
        made: Any = asking(deadline_s=3600, **{CHECK: "8080/healthz"})
        await cluster.create(replace(made, spec=replace(made.spec, min_ready_seconds=60)))
        await cluster.until(lambda: len(asked) >= 3)  # the first rollout: nothing to return to
        assert asked[0].endswith(":8080/proxy/healthz")
        await complete(cluster)
        await cluster.set_image("web", "two")
        await cluster.until(lambda: cluster.condition("web", "RolledBack") == ("True", "CheckFailed"))
        assert "check 8080/healthz failed 3 times in a row, last of pod web-" in message(cluster)

    simulate(scenario)
