"""What autoscalers read from the metrics APIs, as their servers answer (metrics-server, prometheus-adapter, KEDA)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from knarr.api.autoscaling.v2 import CrossVersionObjectReference, MetricIdentifier
from knarr.api.errors import NotFound, ServiceUnavailable
from knarr.controllers.metrics_apis import MetricsAPIs
from knarr.controllers.replica_calculator import NoAnswer, Sample

AT = "2026-01-01T00:00:00Z"
AT_S = 1767225600.0


class Server:
    """Answers one path."""

    def __init__(self, path: str, answer: Any) -> None:
        self.path = path
        self.custom = ["v1beta2"]
        """The versions of custom metrics that there are."""
        self.answer = answer
        self.query: dict[str, str] = {}

    async def get_plain(self, path: str, **query: str) -> Any:
        if path == "/apis/custom.metrics.k8s.io" and self.custom:
            return {"versions": [{"version": version} for version in self.custom]}
        self.query = query
        if path != self.path:
            raise NotFound("the server could not find the requested resource")
        return self.answer


def apis(path: str, *items: dict[str, Any]) -> tuple[MetricsAPIs, Server]:
    server = Server(path, {"items": list(items)})
    return MetricsAPIs(server), server  # type: ignore[arg-type]


def pod_metrics(name: str, **cpu: str) -> dict[str, Any]:
    containers = [{"name": container, "usage": {"cpu": used, "memory": "1Mi"}} for container, used in cpu.items()]
    return {"metadata": {"name": name}, "timestamp": AT, "window": "1m30.5s", "containers": containers}


def identifier(name: str, **labels: str) -> MetricIdentifier:
    selector = {"selector": {"matchLabels": labels}} if labels else {}
    return msgspec.convert({"name": name, **selector}, MetricIdentifier)


async def test_cpu_of_pods_is_the_sum_of_their_containers() -> None:
    items = pod_metrics("one", main="250m", side="125000001n"), pod_metrics("two", main="1")
    found, server = apis("/apis/metrics.k8s.io/v1beta1/namespaces/default/pods", *items)
    assert await found.resource("cpu", "default", "app=web", "") == {
        "one": Sample(376, AT_S, 90.5),
        "two": Sample(1000, AT_S, 90.5),
    }
    assert server.query == {"labelSelector": "app=web"}


async def test_one_container_alone_and_one_that_is_missing() -> None:
    items = pod_metrics("one", main="250m", side="125m"), pod_metrics("two", main="1")
    found, _ = apis("/apis/metrics.k8s.io/v1beta1/namespaces/default/pods", *items)
    assert (await found.resource("cpu", "default", "", "main"))["one"].value == 250
    with pytest.raises(NoAnswer, match="container side not present in metrics for pod default/two"):
        await found.resource("cpu", "default", "", "side")


async def test_a_pod_without_the_resource_has_no_sample() -> None:
    odd = pod_metrics("one", main="250m")
    del odd["containers"][0]["usage"]["cpu"]
    found, _ = apis("/apis/metrics.k8s.io/v1beta1/namespaces/default/pods", odd)
    assert await found.resource("cpu", "default", "", "") == {}


async def test_no_api_and_no_metrics_are_told_apart() -> None:
    found, _ = apis("/elsewhere")
    with pytest.raises(NoAnswer, match="unable to fetch metrics from resource metrics API: the server could not find"):
        await found.resource("cpu", "default", "", "")
    found, _ = apis("/apis/metrics.k8s.io/v1beta1/namespaces/default/pods")
    with pytest.raises(NoAnswer, match="no metrics returned from resource metrics API"):
        await found.resource("cpu", "default", "", "")


async def test_metrics_that_each_pod_has() -> None:
    item = {"describedObject": {"kind": "Pod", "name": "one"}, "timestamp": AT, "windowSeconds": 30, "value": "500m"}
    found, server = apis("/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/*/requests", item)
    assert await found.of_pods(identifier("requests", verb="GET"), "default", "app=web") == {
        "one": Sample(500, AT_S, 30.0)
    }
    assert server.query == {"labelSelector": "app=web", "metricLabelSelector": "verb=GET"}


async def test_a_metric_of_one_object() -> None:
    path = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/ingresses.networking.k8s.io/web/requests"
    item = {"describedObject": {"kind": "Ingress", "name": "web"}, "timestamp": AT, "value": "2k"}
    target = CrossVersionObjectReference(kind="Ingress", name="web", api_version="networking.k8s.io/v1")
    found, _ = apis(path, item)
    assert await found.of_object(identifier("requests"), "default", "ingresses.networking.k8s.io", target) == 2_000_000
    found, _ = apis(path)
    with pytest.raises(NoAnswer) as told:
        await found.of_object(identifier("requests"), "default", "ingresses.networking.k8s.io", target)
    assert str(told.value) == (
        "unable to get metric requests: Ingress on default web/unable to fetch metrics from custom metrics API: "
        "the custom metrics API server returned 0 results when we asked for exactly one"
    )


async def test_a_metric_of_an_object_of_a_kind_that_is_not_known() -> None:
    found, _ = apis("/elsewhere")
    target = CrossVersionObjectReference(kind="Rollout", name="web", api_version="example.com/v1")
    with pytest.raises(NoAnswer) as told:
        await found.of_object(identifier("requests"), "default", "", target)
    assert str(told.value) == (
        "unable to get metric requests: Rollout on default web/unable to fetch metrics from custom metrics API: "
        'unable to map kind Rollout.example.com to resource: no matches for kind "Rollout" in group "example.com"'
    )


async def test_a_metric_of_a_namespace_is_of_the_autoscalers_own() -> None:
    path = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/metrics/requests"
    found, _ = apis(path, {"describedObject": {"kind": "Namespace", "name": "default"}, "timestamp": AT, "value": "3"})
    target = CrossVersionObjectReference(kind="Namespace", name="elsewhere", api_version="v1")
    assert await found.of_object(identifier("requests"), "default", "namespaces", target) == 3000


async def test_an_older_adapter_is_asked_in_its_own_version_and_no_adapter_is_told_of() -> None:
    item = {"describedObject": {"kind": "Pod", "name": "one"}, "timestamp": AT, "value": "1", "metricName": "requests"}
    found, server = apis("/apis/custom.metrics.k8s.io/v1beta1/namespaces/default/pods/*/requests", item)
    server.custom = ["v1beta9", "v1beta1"]
    assert (await found.of_pods(identifier("requests"), "default", ""))["one"].value == 1000
    where = "unable to get metric requests: unable to fetch metrics from custom metrics API: "
    for versions, fault in (
        (["v1beta9"], "no known available metric versions found"),
        ([], "no custom metrics API (custom.metrics.k8s.io) registered"),
    ):
        server.custom = versions
        with pytest.raises(NoAnswer) as told:
            await found.of_pods(identifier("requests"), "default", "")
        assert str(told.value) == where + fault


async def test_a_metric_without_values_is_told_of() -> None:
    found, _ = apis("/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/*/requests")
    with pytest.raises(NoAnswer, match=r"^unable to get metric requests: no metrics returned from custom metrics API$"):
        await found.of_pods(identifier("requests"), "default", "")
    found, _ = apis("/apis/external.metrics.k8s.io/v1beta1/namespaces/default/queue")
    with pytest.raises(NoAnswer) as told:
        await found.external(identifier("queue", topic="a"), "default")
    assert str(told.value) == (
        "unable to get external metric default/queue/&LabelSelector{MatchLabels:map[string]string{topic: a,},"
        "MatchExpressions:[]LabelSelectorRequirement{},}: no metrics returned from external metrics API"
    )
    with pytest.raises(NoAnswer, match=r"^unable to get external metric default/queue/nil: "):
        await found.external(identifier("queue"), "default")


@pytest.mark.parametrize("item", [{}, {"value": "much"}, {"value": None}, 7, {"value": "1", "describedObject": 1}])
async def test_an_adapter_may_answer_nonsense(item: Any) -> None:
    for path in ("pods/*/requests", "services/web/requests"):
        found, _ = apis(f"/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/{path}", item)
        with pytest.raises(NoAnswer):
            await found.of_pods(identifier("requests"), "default", "")
    target = CrossVersionObjectReference(kind="Service", name="web", api_version="v1")
    if not (isinstance(item, dict) and item.get("value") == "1"):
        with pytest.raises(NoAnswer):
            await found.of_object(identifier("requests"), "default", "services", target)
        found, _ = apis("/apis/external.metrics.k8s.io/v1beta1/namespaces/default/queue", item)
        with pytest.raises(NoAnswer):
            await found.external(identifier("queue"), "default")


async def test_an_adapter_that_is_not_there_is_told_of_in_upstreams_words() -> None:
    class Absent(Server):
        async def get_plain(self, path: str, **query: str) -> Any:
            if path.count("/") == 2:
                return await super().get_plain(path, **query)
            raise ServiceUnavailable("the server is currently unable to handle the request")

    found = MetricsAPIs(Absent("", None))  # type: ignore[arg-type]
    unable = "the server is currently unable to handle the request"
    with pytest.raises(NoAnswer) as told:
        await found.of_pods(identifier("requests"), "default", "")
    assert str(told.value).endswith(f"custom metrics API: {unable} (get pods.custom.metrics.k8s.io *)")
    with pytest.raises(NoAnswer) as told:
        await found.resource("cpu", "default", "", "")
    assert str(told.value).endswith(f"resource metrics API: {unable} (get pods.metrics.k8s.io)")
    with pytest.raises(NoAnswer) as told:
        await found.external(identifier("queue"), "default")
    assert str(told.value).endswith(f"external metrics API: {unable} (get queue.external.metrics.k8s.io)")


async def test_an_external_metric_is_the_sum_of_its_series() -> None:
    items = ({"metricName": "queue", "timestamp": AT, "value": value} for value in ("3", "4500m"))
    found, server = apis("/apis/external.metrics.k8s.io/v1beta1/namespaces/default/queue", *items)
    assert await found.external(identifier("queue", topic="a"), "default") == 7500
    assert server.query == {"labelSelector": "topic=a"}
