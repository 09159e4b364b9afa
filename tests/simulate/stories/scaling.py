"""Users whose Deployments are changed by others than themselves: by an autoscaler, or by a rollback."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from knarr.api.apps.v1 import Deployment, ReplicaSet
from knarr.api.autoscaling.v2 import HorizontalPodAutoscaler
from tests.simulate.objects import replicas_of, wanted_for
from tests.simulate.stories.story import BAD, GOOD
from tests.simulate.stories.workloads import DeploymentStory

OPT_IN = {"knarr.dev/rollback-on-failure": "true"}
NOTED_S = 10.0
"""A revision that was complete for so long is noted as one to go back to; sooner, that is not certain."""
ROLLED_BACK_MAX_S = 150.0
"""After its deadline, or the restarts of its pods, a rollout is taken back: retries wait, in bad weather."""


class AutoscalerStory(DeploymentStory):
    """What is asked of a Deployment rises and falls, and its replicas follow."""

    kinds = (Deployment, HorizontalPodAutoscaler)

    async def play(self) -> None:
        chance = self.chance
        self.replicas, self.image, self.there, self.orphans = chance.randint(1, 4), "one", True, False
        self._load()
        await self._create()
        target = chance.choice((50, 100))
        spec: dict[str, Any] = {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": self.name},
            "metrics": [chance.choice(_metrics(target, self.name))],
        } | self._bounds()
        if chance.random() < 0.9:
            spec["behavior"] = {"scaleUp": self._rules((0, 0, 6)), "scaleDown": self._rules((0, 10, 20))}
        await self.create(HorizontalPodAutoscaler, {"spec": spec})
        for _ in range(chance.randint(2, 5)):
            await self.world.clock.sleep(chance.uniform(2, 20))
            step = chance.choice((self._change, self._change, self._change, self._scale, self._roll, self._bound))
            await step()
        if self.image in BAD:
            self.image = "one"
            await self.patch(Deployment, {"spec": {"template": self.template("one")}})

    def _load(self) -> None:
        self.world.state.loads.set(
            self.name, self.chance.choice((0, 60, 150, 330, 490)), self.world.clock.monotonic_s()
        )

    async def _scale(self) -> None:
        """By hand, which does not last; but to none: that turns the autoscaler off."""
        await self.patch(Deployment, {"spec": {"replicas": self.chance.randint(1, 6)}})

    async def _change(self) -> None:
        self._load()
        self.tell(f"the load is {self.world.state.loads.now_m(self.name)}m")
        if self.chance.random() < 0.3:
            await self.trouble_a_pod()

    def _bounds(self) -> dict[str, Any]:
        return {"minReplicas": self.chance.choice((1, 1, 2)), "maxReplicas": self.chance.choice((3, 5, 6))}

    def _rules(self, windows_s: tuple[int, ...]) -> dict[str, Any]:
        policy = {"type": "Pods", "value": self.chance.choice((1, 2, 4)), "periodSeconds": self.chance.choice((4, 15))}
        return {"stabilizationWindowSeconds": self.chance.choice(windows_s), "policies": [policy]}

    async def _bound(self) -> None:
        await self.patch(HorizontalPodAutoscaler, {"spec": self._bounds()})

    def wrong(self) -> Iterator[str]:
        deployment, autoscaler = self.get(Deployment), self.get(HorizontalPodAutoscaler)
        if deployment is None or autoscaler is None:
            yield f"{self.name} is not there"
            return
        self.replicas = replicas_of(deployment)
        yield from super().wrong()
        load_m = self.world.state.loads.now_m(self.name)
        least, most = wanted_for(autoscaler, load_m)
        if not least <= self.replicas <= most:
            yield f"{self.name} has {self.replicas} replicas for {load_m}m, not {least} to {most}"
        status = autoscaler.status
        if (status.current_replicas or 0, status.desired_replicas) != (self.replicas, self.replicas):
            yield f"the autoscaler of {self.name} says {status.current_replicas}, {status.desired_replicas}"


def _metrics(target: int, app: str) -> list[dict[str, Any]]:
    """What pods use, by each API; they request 100m."""
    average = {"type": "AverageValue", "averageValue": f"{target}m"}
    share = {"type": "Utilization", "averageUtilization": target}
    return [
        {"type": "Resource", "resource": {"name": "cpu", "target": average}},
        {"type": "Resource", "resource": {"name": "cpu", "target": share}},
        {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c", "target": share}},
        {"type": "Pods", "pods": {"metric": {"name": "cpu"}, "target": average}},
        {"type": "External", "external": {"metric": {"name": app}, "target": average}},
    ]


class RollbackStory(DeploymentStory):
    """A Deployment that goes back by itself when a rollout fails."""

    async def play(self) -> None:
        chance = self.chance
        self.replicas, self.image, self.there, self.orphans = chance.randint(1, 4), "one", True, False
        await self._create()
        annotations = OPT_IN | ({"knarr.dev/rollback-max-restarts": "0"} if chance.random() < 0.6 else {})
        patch = {"metadata": {"annotations": annotations}, "spec": {"progressDeadlineSeconds": chance.choice((8, 15))}}
        await self.patch(Deployment, patch)
        for _ in range(chance.randint(1, 3)):
            await self.world.clock.sleep(chance.uniform(1, 25))
            await chance.choice(
                (self._roll_well, self._roll_badly, self._roll_badly, self._scale, self.trouble_a_pod)
            )()

    def wrong(self) -> Iterator[str]:
        """A good one may be taken back too: in bad weather it may not be ready in time."""
        self.image = self._now()
        yield from super().wrong()

    async def _create(self) -> None:
        await super()._create()
        await self.patch(Deployment, {"spec": {"revisionHistoryLimit": 10}})

    async def _roll_well(self) -> None:
        self.image = self.chance.choice(GOOD)
        await self.patch(Deployment, {"spec": {"template": self.template(self.image)}})

    async def _roll_badly(self) -> None:
        """It comes back only to what was complete once; whoever rolls out the same again means it."""
        image = self.chance.choice(BAD)
        before = self.get(Deployment)
        known_s = self.world.clock.time_s() - NOTED_S
        sure = self.image in GOOD and self.replicas > 0 and _is_complete(before, known_s) and image not in self._seen()
        await self.patch(Deployment, {"spec": {"template": self.template(image)}})
        until_s = self.world.clock.monotonic_s() + ROLLED_BACK_MAX_S
        while self.world.clock.monotonic_s() < until_s:
            await self.world.clock.sleep(1)
            if self._now() != image:
                self.tell(f"it went back to {self._now()}")
                self.image = self._now()
                return
        self.image = image
        if sure:
            self.world.broken.append(f"{self.name} was not rolled back from {image}")

    def _seen(self) -> set[str]:
        """Bad images that were there before."""
        return {each.spec.template.spec.containers[0].image for each in self.own(ReplicaSet)}

    def _now(self) -> str:
        return str(self.get(Deployment).spec.template.spec.containers[0].image)


def _is_complete(deployment: Any, known_s: float) -> bool:
    """As its own conditions say, and for long enough that others have seen it."""
    return any(
        each.type == "Progressing"
        and each.reason == "NewReplicaSetAvailable"
        and each.last_update_time.timestamp() < known_s
        for each in deployment.status.conditions
    )
