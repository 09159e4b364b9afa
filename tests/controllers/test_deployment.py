"""Deployments in a whole cluster, in virtual time: rollouts, rollbacks, deadlines, scaling, pausing."""

from __future__ import annotations

import random

import pytest

from knarr.api.apps.v1 import Deployment, ReplicaSet
from knarr.api.errors import NotFound
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.types import replace
from knarr.client.transport import Answer, Request, Transport
from knarr.controllers.deployment import Deployments
from knarr.controllers.revisions import REVISION
from knarr.simulate.nodes import Faults
from tests.cluster import Cluster, deployment, simulate

ROLLING = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


def rolling(surge: int | str, unavailable: int | str) -> dict[str, object]:
    return {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}


class EndsAfter:
    """A way to the API server: after one request, which is carried out, its writer is at an end and begins anew."""

    def __init__(self, inner: Transport, method: str, path: str) -> None:
        self._inner = inner
        self._last = (method, path)

    async def send(self, request: Request) -> Answer:
        answer = await self._inner.send(request)
        if request.method == self._last[0] and request.path.endswith(self._last[1]):
            self._last = ("", "")
            raise RuntimeError("at an end")
        return answer

    async def close(self) -> None:
        await self._inner.close()


def test_a_recreate_whose_beginning_was_never_told_still_has_its_deadline() -> None:
    async def scenario(cluster: Cluster) -> None:
        cluster.nodes.faults.missing_images.add("broken")
        await cluster.create(deployment(replicas=1, strategy={"type": "Recreate"}, progressDeadlineSeconds=30))
        await cluster.until(lambda: cluster.condition("web", "Progressing") == ("True", "NewReplicaSetAvailable"))
        loop = next(loop for loop in cluster.loops if isinstance(loop, Deployments))
        loop.client = replace(loop.client, transport=EndsAfter(loop.client.transport, "POST", "/replicasets"))
        await cluster.set_image("web", "broken")
        await cluster.until(lambda: cluster.condition("web", "Progressing") == ("False", "ProgressDeadlineExceeded"))

    simulate(scenario)


def test_it_comes_up_and_tells_so() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(deployment(replicas=3))
        await cluster.until(lambda: cluster.done("web"))
        (replica_set,) = cluster.replica_sets.all()
        assert cluster.deployment("web").metadata.annotations[REVISION] == "1"
        assert await cluster.events("ScalingReplicaSet") == [
            f"Scaled up replica set {replica_set.metadata.name} from 0 to 3"
        ]
        await cluster.until(lambda: cluster.condition("web", "Progressing") == ("True", "NewReplicaSetAvailable"))
        assert cluster.condition("web", "Available") == ("True", "MinimumReplicasAvailable")
        messages = {c.type: c.message for c in cluster.status("web").conditions}
        assert messages["Progressing"] == f'ReplicaSet "{replica_set.metadata.name}" has successfully progressed.'

    simulate(scenario)


def test_progress_is_told_from_the_first_replica_set_to_the_last() -> None:
    """Created, updated, complete; then paused, resumed; then another template; then one that was there before."""

    async def scenario(cluster: Cluster) -> None:
        told: list[tuple[str, str]] = []

        def note(_: object, now: Deployment | None) -> None:
            status = now.status if now else None
            for condition in status.conditions if status else ():
                seen = (condition.status, condition.reason or "")
                if condition.type == "Progressing" and told[-1:] != [seen]:
                    told.append(seen)

        cluster.deployments.add_handler(note)

        async def reaches(*wanted: tuple[str, str]) -> None:
            await cluster.until(lambda: told[-1:] == [wanted[-1]] and cluster.done("web"), within_s=60)
            assert told[-len(wanted) :] == list(wanted)
            del told[:-1]  # the last remains, so that it isn't told again

        created, updated = ("True", "NewReplicaSetCreated"), ("True", "ReplicaSetUpdated")
        complete = ("True", "NewReplicaSetAvailable")
        await cluster.create(deployment(replicas=3))
        await reaches(created, updated, complete)
        await cluster.patch(Deployment, "web", {"spec": {"paused": True}})
        await cluster.until(lambda: len(told) == 2)
        await cluster.patch(Deployment, "web", {"spec": {"paused": False}})
        await reaches(("Unknown", "DeploymentPaused"), ("Unknown", "DeploymentResumed"), complete)
        await cluster.set_image("web", "two")
        await reaches(created, updated, complete)
        await cluster.set_image("web", "one")
        await reaches(updated, complete)
        # An orphaned ReplicaSet with the template is found.
        await cluster.client.delete(Deployment, "web", "default", propagation_policy="Orphan")
        await cluster.until(lambda: not cluster.deployments.all())
        told.clear()
        await cluster.create(deployment(replicas=3))
        await cluster.until(lambda: told[-1:] == [complete])
        assert told[0] == ("True", "FoundNewReplicaSet")

    simulate(scenario, start_s=(0.5, 1.0))


def test_a_rolling_update_goes_step_by_step_in_upstreams_order() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(deployment(replicas=3, strategy=ROLLING))
        await cluster.until(lambda: cluster.done("web"))
        (old,) = cluster.replica_sets.all()
        await cluster.set_image("web", "two")
        await cluster.until(lambda: cluster.done("web"))
        await cluster.clock.sleep(2)
        new = next(rs for rs in cluster.replica_sets.all() if rs.metadata.uid != old.metadata.uid)
        steps = (await cluster.events("ScalingReplicaSet"))[1:]
        up, down = f"Scaled up replica set {new.metadata.name}", f"Scaled down replica set {old.metadata.name}"
        assert steps == [
            f"{up} from 0 to 1",
            f"{down} from 3 to 2",
            f"{up} from 1 to 2",
            f"{down} from 2 to 1",
            f"{up} from 2 to 3",
            f"{down} from 1 to 0",
        ]
        assert cluster.images() == ["two"] * 3
        assert cluster.deployment("web").metadata.annotations[REVISION] == "2"

    simulate(scenario, start_s=(1, 2))


def test_a_stuck_rollout_serves_on_reports_its_deadline_and_can_be_undone() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(deployment(replicas=3, strategy=ROLLING, progressDeadlineSeconds=30))
        await cluster.until(lambda: cluster.done("web"))
        (old,) = cluster.replica_sets.all()
        await cluster.set_image("web", "missing")
        took_s = await cluster.until(lambda: cluster.condition("web", "Progressing")[0] == "False")
        assert cluster.condition("web", "Progressing") == ("False", "ProgressDeadlineExceeded")
        assert 30 <= took_s <= 32.5
        assert cluster.ready_pods() == 3
        assert cluster.images() == ["missing", "one", "one", "one"]

        await cluster.set_image("web", "one")
        await cluster.until(lambda: cluster.done("web"))
        await cluster.until(lambda: cluster.condition("web", "Progressing") == ("True", "NewReplicaSetAvailable"))
        assert cluster.images() == ["one"] * 3
        back = cluster.replica_sets.get(f"default/{old.metadata.name}")
        assert back is not None
        assert back.metadata.annotations[REVISION] == "3"
        assert back.metadata.annotations["deployment.kubernetes.io/revision-history"] == "1"

    simulate(scenario, faults=Faults(missing_images={"missing"}))


def test_slow_progress_is_progress() -> None:
    """Each new pod takes 20 s, the deadline is 30 s, the rollout longer: it is never reported stuck."""

    async def scenario(cluster: Cluster) -> None:
        seen: set[tuple[str, str]] = set()
        cluster.deployments.add_handler(lambda old, new: seen.add(cluster.condition("web", "Progressing")))
        await cluster.create(deployment(replicas=4, strategy=ROLLING, progressDeadlineSeconds=30))
        await cluster.until(lambda: cluster.done("web"))
        await cluster.set_image("web", "two")
        assert await cluster.until(lambda: cluster.done("web")) > 60
        assert ("False", "ProgressDeadlineExceeded") not in seen

    simulate(scenario, start_s=(20, 20))


def test_scaling_keeps_the_template_and_follows_at_once() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(deployment(replicas=2))
        await cluster.until(lambda: cluster.done("web"))
        for size in (6, 1, 0, 3):
            await cluster.patch(Deployment, "web", {"spec": {"replicas": size}})
            await cluster.until(lambda: cluster.done("web") and len(cluster.pods.all()) == size)  # noqa: B023
        assert len(cluster.replica_sets.all()) == 1
        assert cluster.deployment("web").metadata.annotations[REVISION] == "1"

    simulate(scenario)


def test_scaling_in_the_middle_of_a_stuck_rollout_is_proportional() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(deployment(replicas=10, strategy=rolling(3, 2)))
        await cluster.until(lambda: cluster.done("web"))
        await cluster.set_image("web", "missing")
        await cluster.until(lambda: cluster.images().count("missing") == 5 and cluster.images().count("one") == 8)
        await cluster.patch(Deployment, "web", {"spec": {"replicas": 15}})
        await cluster.until(lambda: len(cluster.images()) == 18)
        await cluster.clock.sleep(5)
        # The documentation's own example: 8 and 5 of 13 become 11 and 7 of 18.
        assert (cluster.images().count("one"), cluster.images().count("missing")) == (11, 7)

    simulate(scenario, faults=Faults(missing_images={"missing"}))


def test_a_paused_rollout_waits_and_goes_on_when_resumed() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(deployment(replicas=4, strategy=ROLLING, progressDeadlineSeconds=60))
        await cluster.until(lambda: cluster.done("web"))
        await cluster.patch(Deployment, "web", {"spec": {"paused": True}})
        await cluster.until(lambda: cluster.condition("web", "Progressing") == ("Unknown", "DeploymentPaused"))
        await cluster.set_image("web", "two")
        await cluster.clock.sleep(120)
        assert cluster.images() == ["one"] * 4
        assert cluster.condition("web", "Progressing") == ("Unknown", "DeploymentPaused")
        await cluster.patch(Deployment, "web", {"spec": {"replicas": 6}})
        await cluster.until(lambda: cluster.images() == ["one"] * 6)
        await cluster.patch(Deployment, "web", {"spec": {"paused": False}})
        await cluster.until(lambda: cluster.done("web"))
        assert cluster.images() == ["two"] * 6

    simulate(scenario)


def test_recreate_never_runs_two_versions() -> None:
    async def scenario(cluster: Cluster) -> None:
        mixed: list[list[str]] = []

        def look(*_: object) -> None:
            images = {pod.spec.containers[0].image or "" for pod in cluster.pods.all() if pod.spec}
            if len(images) > 1:
                mixed.append(sorted(images))

        cluster.pods.add_handler(look)
        await cluster.create(deployment(replicas=4, strategy={"type": "Recreate"}))
        await cluster.until(lambda: cluster.done("web"))
        await cluster.set_image("web", "two")
        await cluster.until(lambda: cluster.done("web") and cluster.images() == ["two"] * 4)
        assert mixed == []

    simulate(scenario, start_s=(1, 5), stop_s=(5, 20))


def test_a_rollover_abandons_the_version_in_between() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(deployment(replicas=6, strategy=rolling(2, 1)))
        await cluster.until(lambda: cluster.done("web"))
        await cluster.set_image("web", "two")
        await cluster.clock.sleep(3)
        await cluster.set_image("web", "three")
        await cluster.until(lambda: cluster.done("web"))
        assert cluster.images() == ["three"] * 6
        assert cluster.deployment("web").metadata.annotations[REVISION] == "3"

    simulate(scenario, start_s=(2, 4))


def test_history_is_kept_as_long_as_the_limit_says() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(deployment(replicas=1, revisionHistoryLimit=2))
        for image in ("two", "three", "four", "five", "six"):
            await cluster.until(lambda: cluster.done("web"))
            await cluster.set_image("web", image)
        await cluster.until(lambda: cluster.done("web") and len(cluster.replica_sets.all()) == 3)
        revisions = sorted(rs.metadata.annotations[REVISION] for rs in cluster.replica_sets.all())
        assert revisions == ["4", "5", "6"]

    simulate(scenario)


def test_min_ready_seconds_hold_back_the_next_step() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(deployment(replicas=2, strategy=ROLLING, minReadySeconds=30))
        took_s = await cluster.until(lambda: cluster.done("web"))
        assert 29 <= took_s <= 33
        await cluster.set_image("web", "two")
        assert 58 <= await cluster.until(lambda: cluster.done("web")) <= 68

    simulate(scenario)


def test_an_orphaned_replica_set_is_adopted_and_one_that_no_longer_matches_is_released() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(deployment(replicas=2))
        await cluster.until(lambda: cluster.done("web"))
        (replica_set,) = cluster.replica_sets.all()
        name = replica_set.metadata.name or ""
        await cluster.patch(ReplicaSet, name, {"metadata": {"labels": {"app": "other"}}})
        await cluster.until(lambda: len(cluster.replica_sets.all()) == 2)
        released = cluster.replica_sets.get(f"default/{name}")
        assert released is not None
        assert released.metadata.owner_references == []
        await cluster.patch(ReplicaSet, name, {"metadata": {"labels": {"app": "web"}}})

        def is_adopted() -> bool:
            again = cluster.replica_sets.get(f"default/{name}")
            return again is not None and bool(again.metadata.owner_references)

        await cluster.until(is_adopted)

    simulate(scenario)


def test_a_taken_name_is_a_collision_and_another_hash_is_found() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(deployment(replicas=1))
        await cluster.until(lambda: cluster.done("web"))
        (taken,) = cluster.replica_sets.all()
        await cluster.client.delete(Deployment, "web", "default")
        await cluster.until(lambda: not cluster.replica_sets.all())
        squatter = ReplicaSet(
            metadata=ObjectMeta(name=taken.metadata.name, namespace="default", labels={"x": "y"}),
            spec=replace(
                taken.spec,  # type: ignore[type-var]
                replicas=0,
            ),
        )
        await cluster.create(squatter)
        await cluster.create(deployment(replicas=1))
        await cluster.until(lambda: cluster.done("web"))
        assert cluster.status("web").collision_count == 1

    simulate(scenario)


def test_deleting_it_takes_everything_with_it() -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.create(deployment(replicas=5))
        await cluster.until(lambda: cluster.done("web"))
        await cluster.client.delete(Deployment, "web", "default")
        await cluster.until(lambda: not cluster.pods.all() and not cluster.replica_sets.all(), within_s=60)
        with pytest.raises(NotFound):
            cluster.deployment("web")

    simulate(scenario)


@pytest.mark.parametrize("seed", range(40))
def test_every_write_of_a_random_life_keeps_the_bounds(seed: int) -> None:
    """Checked after every write: at most replicas + maxSurge pods exist, and while nothing fails at least replicas −
    maxUnavailable are available, whatever rollouts, rollbacks and pauses come in between."""

    async def scenario(cluster: Cluster) -> None:
        chance = random.Random(seed)
        replicas, surge = chance.randint(1, 12), chance.randint(0, 4)
        unavailable = chance.randint(0 if surge else 1, 4)
        await cluster.create(deployment(replicas=replicas, strategy=rolling(surge, unavailable)))
        await cluster.until(lambda: cluster.done("web"))
        writes = 0
        broken: list[object] = []

        def check(*_: object) -> None:
            nonlocal writes
            writes += 1
            pods = [pod for pod in cluster.pods.all() if pod.metadata.deletion_timestamp is None]
            if len(pods) > replicas + surge or cluster.ready_pods() < replicas - unavailable:
                broken.append((len(pods), cluster.ready_pods(), cluster.summary()))

        cluster.pods.add_handler(check)
        await cluster.set_image("web", "two")
        for _ in range(chance.randint(3, 6)):
            if chance.random() < 0.2:
                await cluster.patch(Deployment, "web", {"spec": {"paused": True}})
                await cluster.clock.sleep(chance.uniform(0, 5))
                await cluster.patch(Deployment, "web", {"spec": {"paused": False}})
            else:
                await cluster.set_image("web", chance.choice(["one", "two", "three"]))
            await cluster.clock.sleep(chance.choice([0, 0.1, 1, 3, 30]))
        await cluster.until(lambda: cluster.done("web"))
        assert len(set(cluster.images())) == 1
        assert broken == [], (replicas, surge, unavailable)
        assert writes >= replicas

    simulate(scenario, seed=seed, start_s=(0, 4), stop_s=(0, 3))


def test_the_same_seed_gives_the_same_run() -> None:
    async def scenario(cluster: Cluster) -> list[str]:
        await cluster.create(deployment(replicas=5))
        await cluster.until(lambda: cluster.done("web"))
        await cluster.set_image("web", "two")
        await cluster.until(lambda: cluster.done("web"))
        return [*await cluster.events(), str(cluster.store.revision)]

    first, again, other = (simulate(scenario, seed=seed, start_s=(0, 3)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
