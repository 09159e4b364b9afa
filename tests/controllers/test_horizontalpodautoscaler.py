"""HorizontalPodAutoscalers in a whole cluster, in virtual time, with measurements that the test decides on."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from knarr.api.apps.v1 import Deployment
from knarr.api.autoscaling.v2 import HorizontalPodAutoscaler, HorizontalPodAutoscalerStatus, MetricSpec, MetricStatus
from knarr.controllers.horizontalpodautoscaler import HorizontalPodAutoscalers, at_length
from knarr.controllers.replica_calculator import NoAnswer, Sample
from tests.cluster import Cluster, deployment, simulate

TARGET = {"type": "Utilization", "averageUtilization": 50}
SHARED = {"type": "AverageValue", "averageValue": "10"}
CPU = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}


class Measured:
    """In place of the metrics APIs: each pod uses so many milli-CPUs of the 10 that it requests."""

    def __init__(self, cluster: Cluster, used: int | None) -> None:
        self._cluster = cluster
        self.used = used
        self.value = 0

    async def resource(self, resource: str, namespace: str, selector: str, container: str) -> dict[str, Sample]:
        if self.used is None:
            raise NoAnswer("no metrics returned from resource metrics API")
        now_s = self._cluster.clock.time_s()
        return {pod.metadata.name or "": Sample(self.used, now_s, 1) for pod in self._cluster.pods.all()}

    async def of_object(self, metric: Any, namespace: str, plural: str, target: Any) -> int:
        assert (metric.name, plural, target.name) == ("requests", "services", "web")
        return self.value

    async def external(self, metric: Any, namespace: str) -> int:
        return self.value


def measured(cluster: Cluster, used: int | None) -> Measured:
    made = Measured(cluster, used)
    for loop in cluster.loops:
        if isinstance(loop, HorizontalPodAutoscalers):
            loop.metrics = made  # type: ignore[assignment]
    return made


def autoscaler(*metrics: dict[str, Any], low: int = 1, high: int = 10, name: str = "web", **spec: Any) -> Any:
    return msgspec.convert(
        {
            "metadata": {"name": name, "namespace": "default"},
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
                "minReplicas": low,
                "maxReplicas": high,
                "metrics": list(metrics or (CPU,)),
                **spec,
            },
        },
        HorizontalPodAutoscaler,
    )


def status(cluster: Cluster, name: str = "web") -> HorizontalPodAutoscalerStatus:
    found = cluster.informers.of(HorizontalPodAutoscaler).get(f"default/{name}")
    return (found.status if found else None) or HorizontalPodAutoscalerStatus()


def conditions(cluster: Cluster, name: str = "web") -> dict[str, tuple[str, str | None]]:
    return {each.type: (each.status, each.reason) for each in status(cluster, name).conditions}


def replicas(cluster: Cluster) -> int:
    spec = cluster.deployment("web").spec
    return (spec.replicas if spec else 0) or 0


def test_load_raises_the_replicas_at_once_and_lowers_them_after_five_quiet_minutes() -> None:
    async def scenario(cluster: Cluster) -> None:
        load = measured(cluster, 5)
        await cluster.create(deployment(replicas=2))
        await cluster.until(lambda: cluster.done("web"))
        await cluster.create(autoscaler())
        await cluster.until(lambda: status(cluster).desired_replicas == 2)
        load.used = 10
        took_s = await cluster.until(lambda: replicas(cluster) == 4)
        assert took_s <= 5
        assert (await cluster.events("SuccessfulRescale")) == [
            "New size: 4; reason: cpu resource utilization (percentage of request) above target"
        ]
        load.used = 5
        await cluster.until(lambda: status(cluster).current_replicas == 4)
        load.used = 1
        took_s = await cluster.until(lambda: replicas(cluster) == 1, 400)
        assert took_s >= 295
        assert (await cluster.events("SuccessfulRescale"))[-1] == "New size: 1; reason: All metrics below target"
        assert conditions(cluster) == {
            "AbleToScale": ("True", "SucceededRescale"),
            "ScalingActive": ("True", "ValidMetricFound"),
            "ScalingLimited": ("False", "DesiredWithinRange"),
        }

    simulate(scenario)


def test_status_tells_what_was_measured() -> None:
    async def scenario(cluster: Cluster) -> None:
        measured(cluster, 6)
        await cluster.create(deployment(replicas=2))
        await cluster.until(lambda: cluster.done("web"))
        await cluster.create(autoscaler(high=2))
        await cluster.until(lambda: any(each.resource for each in status(cluster).current_metrics))
        (metric,) = status(cluster).current_metrics
        assert metric.resource
        assert (metric.resource.current.average_utilization, metric.resource.current.average_value) == (60, "6m")
        assert conditions(cluster)["ScalingLimited"] == ("True", "TooManyReplicas")

    simulate(scenario)


@pytest.mark.parametrize(
    ("size", "wanted", "why"),
    [
        (1, 3, "Current number of replicas below Spec.MinReplicas"),
        (9, 5, "Current number of replicas above Spec.MaxReplicas"),
    ],
)
def test_bounds_hold_without_any_measurement(size: int, wanted: int, why: str) -> None:
    async def scenario(cluster: Cluster) -> None:
        measured(cluster, None)
        await cluster.create(deployment(replicas=size))
        await cluster.create(autoscaler(low=3, high=5))
        await cluster.until(lambda: replicas(cluster) == wanted)
        await cluster.clock.sleep(1)
        assert await cluster.events("SuccessfulRescale") == [f"New size: {wanted}; reason: {why}"]

    simulate(scenario)


def test_a_target_at_zero_is_left_alone() -> None:
    async def scenario(cluster: Cluster) -> None:
        measured(cluster, 10)
        await cluster.create(deployment(replicas=0))
        await cluster.create(autoscaler())
        await cluster.until(lambda: conditions(cluster).get("ScalingActive") == ("False", "ScalingDisabled"))
        await cluster.clock.sleep(60)
        assert replicas(cluster) == 0

    simulate(scenario)


def test_without_metrics_it_says_so_and_does_nothing() -> None:
    async def scenario(cluster: Cluster) -> None:
        measured(cluster, None)
        await cluster.create(deployment(replicas=2))
        await cluster.create(autoscaler())
        await cluster.until(lambda: conditions(cluster).get("ScalingActive") == ("False", "FailedGetResourceMetric"))
        assert conditions(cluster)["AbleToScale"] == ("True", "SucceededGetScale")
        assert replicas(cluster) == 2
        (message, *_) = await cluster.events("FailedComputeMetricsReplicas")
        assert message == (
            "invalid metrics (1 invalid out of 1), first error is: failed to get cpu resource metric value: "
            "failed to get cpu utilization: no metrics returned from resource metrics API"
        )
        assert (await cluster.events("FailedGetResourceMetric"))[0] == (
            "failed to get cpu utilization: no metrics returned from resource metrics API"
        )
        # It knows how many there are all the same, and that this metric has no value.
        assert (status(cluster).current_replicas, status(cluster).current_metrics) == (2, [MetricStatus()])

    simulate(scenario)


def test_each_metric_keeps_its_place_in_the_status() -> None:
    """kubectl prints targets and values by their places."""

    async def scenario(cluster: Cluster) -> None:
        load = measured(cluster, None)
        load.value = 60_000
        selector = {"matchLabels": {"queue": "q"}}
        external = {
            "type": "External",
            "external": {
                "metric": {"name": "queue", "selector": selector},
                "target": {"type": "AverageValue", "averageValue": "10"},
            },
        }
        await cluster.create(deployment(replicas=2))
        await cluster.until(lambda: cluster.done("web"))
        await cluster.create(autoscaler(CPU, external))
        await cluster.until(lambda: len(status(cluster).current_metrics) == 2)
        assert [each.type for each in status(cluster).current_metrics] == ["", "External"]
        assert [each.message for each in status(cluster).conditions if each.type == "ScalingActive"] == [
            "the HPA was able to successfully calculate a replica count from external metric "
            "queue(&LabelSelector{MatchLabels:map[string]string{queue: q,},"
            "MatchExpressions:[]LabelSelectorRequirement{},})"
        ]

    simulate(scenario)


@pytest.mark.parametrize(
    ("metric", "told"),
    [
        (
            {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c", "target": TARGET}},
            "failed to get c container metric value: failed to get cpu utilization: nothing",
        ),
        (
            {"type": "Pods", "pods": {"metric": {"name": "rps"}, "target": SHARED}},
            "failed to get pods metric value: nothing",
        ),
        (
            {"type": "Object", "object": {"metric": {"name": "rps"}, "describedObject": {}, "target": SHARED}},
            "failed to get object metric value: failed to get rps object metric: nothing",
        ),
        (
            {"type": "External", "external": {"metric": {"name": "rps"}, "target": SHARED}},
            "failed to get rps external metric value: failed to get rps external metric: nothing",
        ),
        (
            {"type": "External", "external": {"metric": {"name": "rps"}, "target": {"type": "Value", "value": "1"}}},
            "failed to get rps external metric value: failed to get external metric rps: nothing",
        ),
    ],
)
def test_the_sum_of_metrics_says_which_failed_and_why(metric: dict[str, Any], told: str) -> None:
    why = "failed to get cpu utilization: nothing" if "containerResource" in metric else "nothing"
    assert at_length(msgspec.convert(metric, MetricSpec), why) == told


def test_one_metric_that_fails_keeps_the_others_from_scaling_down_but_not_up() -> None:
    async def scenario(cluster: Cluster) -> None:
        load = measured(cluster, None)
        external = {
            "type": "External",
            "external": {"metric": {"name": "queue"}, "target": {"type": "AverageValue", "averageValue": "10"}},
        }
        await cluster.create(deployment(replicas=4))
        await cluster.until(lambda: cluster.done("web"))
        load.value = 10_000
        await cluster.create(autoscaler(CPU, external))
        await cluster.clock.sleep(400)
        assert replicas(cluster) == 4
        load.value = 60_000
        await cluster.until(lambda: replicas(cluster) == 6)

    simulate(scenario)


def test_a_metric_of_an_object() -> None:
    async def scenario(cluster: Cluster) -> None:
        load = measured(cluster, None)
        described = {"apiVersion": "v1", "kind": "Service", "name": "web"}
        target = {"type": "Value", "value": "100"}
        metric = {
            "type": "Object",
            "object": {"metric": {"name": "requests"}, "describedObject": described, "target": target},
        }
        await cluster.create(deployment(replicas=2))
        await cluster.until(lambda: cluster.done("web"))
        load.value = 200_000
        await cluster.create(autoscaler(metric))
        await cluster.until(lambda: replicas(cluster) == 4)

    simulate(scenario)


def test_a_target_that_is_not_there() -> None:
    async def scenario(cluster: Cluster) -> None:
        measured(cluster, 1)
        await cluster.create(autoscaler())
        await cluster.until(lambda: conditions(cluster).get("AbleToScale") == ("False", "FailedGetScale"))
        (message, *_) = await cluster.events("FailedGetScale")
        assert message == 'deployments.apps "web" not found'

    simulate(scenario)


def test_two_autoscalers_of_the_same_pods_do_nothing() -> None:
    async def scenario(cluster: Cluster) -> None:
        measured(cluster, 10)
        await cluster.create(deployment(replicas=2))
        await cluster.until(lambda: cluster.done("web"))
        await cluster.create(autoscaler(high=2))
        await cluster.create(autoscaler(high=2, name="other"))
        await cluster.until(
            lambda: (
                conditions(cluster, "other").get("ScalingActive") == ("False", "AmbiguousSelector")
                and conditions(cluster).get("ScalingActive") == ("False", "AmbiguousSelector")
            )
        )
        assert status(cluster, "other").current_replicas == 2
        both = "pods by selector app=web are controlled by multiple HPAs: [default/other default/web]"
        assert both in await cluster.events("AmbiguousSelector")
        assert both in await cluster.events("FailedComputeMetricsReplicas")
        await cluster.client.delete(HorizontalPodAutoscaler, "other", "default")
        await cluster.until(lambda: conditions(cluster).get("ScalingActive") == ("True", "ValidMetricFound"))

    simulate(scenario)


def test_a_policy_slows_the_way_up() -> None:
    async def scenario(cluster: Cluster) -> None:
        load = measured(cluster, 5)
        slow = {"scaleUp": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}}
        await cluster.create(deployment(replicas=2))
        await cluster.until(lambda: cluster.done("web"))
        await cluster.create(autoscaler(behavior=slow))
        await cluster.until(lambda: status(cluster).desired_replicas == 2)
        load.used = 20
        await cluster.until(lambda: replicas(cluster) == 3)
        took_s = await cluster.until(lambda: replicas(cluster) == 4)
        assert took_s >= 58
        assert conditions(cluster)["ScalingLimited"] == ("True", "ScaleUpLimit")

    simulate(scenario)


def test_a_rollout_under_an_autoscaler_keeps_its_size() -> None:
    async def scenario(cluster: Cluster) -> None:
        measured(cluster, 5)
        await cluster.create(deployment(replicas=3))
        await cluster.until(lambda: cluster.done("web"))
        await cluster.create(autoscaler())
        await cluster.set_image("web", "two")
        await cluster.until(lambda: cluster.done("web") and cluster.images() == ["two"] * 3)
        assert replicas(cluster) == 3
        found = await cluster.client.get(Deployment, "web", "default")
        assert found.spec
        assert found.spec.replicas == 3

    simulate(scenario)
