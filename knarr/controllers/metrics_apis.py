"""What autoscalers measure by: the three metrics APIs, read as any client reads them.

metrics.k8s.io (CPU and memory of pods), custom.metrics.k8s.io (metrics of pods and of other objects) and
external.metrics.k8s.io (metrics of what is outside the cluster).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from knarr.api.autoscaling.v2 import CrossVersionObjectReference, MetricIdentifier
from knarr.api.errors import APIError
from knarr.api.meta.owners import selector_for
from knarr.api.quantity import milli
from knarr.client.client import Client
from knarr.controllers.replica_calculator import NoAnswer, Sample

RESOURCE_METRICS = "/apis/metrics.k8s.io/v1beta1"
CUSTOM_METRICS = "/apis/custom.metrics.k8s.io/v1beta2"
EXTERNAL_METRICS = "/apis/external.metrics.k8s.io/v1beta1"
WINDOW_DEFAULT_S = 60.0


class MetricsAPIs:
    """The metrics of a cluster."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def resource(self, resource: str, namespace: str, selector: str, container: str) -> dict[str, Sample]:
        """By pod: CPU or memory of all its containers, or of one. Raises NoAnswer."""
        path = f"{RESOURCE_METRICS}/namespaces/{namespace}/pods"
        items = await self._items(path, f"unable to get metrics for resource {resource}", labelSelector=selector)
        if not items:
            raise NoAnswer(
                f"unable to get metrics for resource {resource}: no metrics returned from resource metrics API"
            )
        samples = {}
        for item in items:
            name = item["metadata"]["name"]
            measured = {each["name"]: each["usage"] for each in item.get("containers", ())}
            if container and container not in measured:
                where = f"{namespace}/{name}"
                raise NoAnswer(
                    f"unable to get metrics for resource {resource}: "
                    f"container {container} not present in metrics for pod {where}"
                )
            usages = [measured[container]] if container else list(measured.values())
            if all(resource in usage for usage in usages):
                total = sum(milli(usage[resource]) for usage in usages)
                samples[name] = Sample(total, _time_s(item["timestamp"]), _duration_s(item.get("window")))
        return samples

    async def of_pods(self, metric: MetricIdentifier, namespace: str, selector: str) -> dict[str, Sample]:
        """By pod: a metric that each pod has. Raises NoAnswer."""
        path = f"{CUSTOM_METRICS}/namespaces/{namespace}/pods/*/{metric.name}"
        what, series = f"unable to get metric {metric.name}", _written(metric)
        items = await self._items(path, what, labelSelector=selector, metricLabelSelector=series)
        return {
            item["describedObject"]["name"]: Sample(
                milli(item["value"]), _time_s(item["timestamp"]), float(item.get("windowSeconds") or WINDOW_DEFAULT_S)
            )
            for item in items
        }

    async def of_object(
        self, metric: MetricIdentifier, namespace: str, plural: str, target: CrossVersionObjectReference
    ) -> int:
        """In thousandths: a metric of one object; `plural` names its resource (services, ingresses.networking.k8s.io).

        Raises NoAnswer.
        """
        path = f"{CUSTOM_METRICS}/namespaces/{namespace}/{plural}/{target.name}/{metric.name}"
        what = f"unable to get metric {metric.name}: {target.kind} on {namespace} {target.name}"
        (item,) = await self._items(path, what, count=1, metricLabelSelector=_written(metric))
        return milli(item["value"])

    async def external(self, metric: MetricIdentifier, namespace: str) -> int:
        """In thousandths: the sum of all series of a metric. Raises NoAnswer."""
        path = f"{EXTERNAL_METRICS}/namespaces/{namespace}/{metric.name}"
        what = f"unable to get external metric {namespace}/{metric.name}/{_written(metric)}"
        items = await self._items(path, what, labelSelector=_written(metric))
        return sum(milli(item["value"]) for item in items)

    async def _items(self, path: str, what: str, count: int = 0, **query: str) -> list[dict[str, Any]]:
        try:
            answer = await self._client.get_plain(path, **{key: value for key, value in query.items() if value})
        except APIError as error:
            raise NoAnswer(f"{what}: unable to fetch metrics from {_api(path)}: {error}") from error
        items: list[dict[str, Any]] = answer.get("items") or []
        if count and len(items) != count:
            raise NoAnswer(f"{what}: {_api(path)} returned {len(items)} values")
        return items


def _api(path: str) -> str:
    kind = path.split("/")[2].partition(".")[0]
    return f"{'resource' if kind == 'metrics' else kind} metrics API"


def _written(metric: MetricIdentifier) -> str:
    return str(selector_for(metric.selector) or "") if metric.selector else ""


def _time_s(written: str) -> float:
    return datetime.fromisoformat(written).timestamp()


def _duration_s(written: str | None) -> float:
    """As Go writes it: 1m30.5s."""
    if not written:
        return WINDOW_DEFAULT_S
    total, number = 0.0, ""
    for unit in _units(written):
        if unit[0].isdigit() or unit[0] == ".":
            number = unit
        else:
            total += float(number or 0) * {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}.get(
                unit, 0.0
            )
    return total


def _units(written: str) -> Iterable[str]:
    """Numbers and units in turn."""
    start = 0
    for place in range(1, len(written) + 1):
        if place == len(written) or _is_number(written[place]) != _is_number(written[start]):
            yield written[start:place]
            start = place


def _is_number(character: str) -> bool:
    return character.isdigit() or character == "."
