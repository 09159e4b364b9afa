"""What autoscalers measure by: the three metrics APIs, read as any client reads them.

metrics.k8s.io (CPU and memory of pods), custom.metrics.k8s.io (metrics of pods and of other objects) and
external.metrics.k8s.io (metrics of what is outside the cluster).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from knarr.api.autoscaling.v2 import CrossVersionObjectReference, MetricIdentifier
from knarr.api.errors import APIError, NotFound
from knarr.api.meta.owners import selector_for
from knarr.api.meta.v1 import LabelSelector
from knarr.api.quantity import milli
from knarr.client.client import Client
from knarr.controllers.replica_calculator import NoAnswer, Sample

RESOURCE_METRICS = "/apis/metrics.k8s.io/v1beta1"
CUSTOM, CUSTOM_VERSIONS = "custom.metrics.k8s.io", ("v1beta2", "v1beta1")
"""The versions that differ in nothing that is read here: one serves as well as the other."""
EXTERNAL_METRICS = "/apis/external.metrics.k8s.io/v1beta1"
GENERIC = (
    "the server is currently unable to handle the request",
    "the server could not find the requested resource",
)
"""What is said where nobody has said more; upstream's client then adds what it asked for."""
WINDOW_DEFAULT_S = 60.0


class MetricsAPIs:
    """The metrics of a cluster."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def resource(self, resource: str, namespace: str, selector: str, container: str) -> dict[str, Sample]:
        """By pod: CPU or memory of all its containers, or of one. Raises NoAnswer."""
        path, what = (
            f"{RESOURCE_METRICS}/namespaces/{namespace}/pods",
            f"unable to get metrics for resource {resource}: ",
        )
        items = await self._items(path, what, labelSelector=selector)
        if not items:
            raise NoAnswer(f"{what}no metrics returned from resource metrics API")
        with _as_told(what, path):
            return _usage(items, resource, container, namespace)

    async def of_pods(self, metric: MetricIdentifier, namespace: str, selector: str) -> dict[str, Sample]:
        """By pod: a metric that each pod has. Raises NoAnswer."""
        what, series = f"unable to get metric {metric.name}: ", _written(metric)
        path = f"{await self._custom(what)}/namespaces/{namespace}/pods/*/{metric.name}"
        items = await self._items(path, what, labelSelector=selector, metricLabelSelector=series)
        if not items:
            raise NoAnswer(f"{what}no metrics returned from custom metrics API")
        with _as_told(what, path):
            return {
                item["describedObject"]["name"]: Sample(
                    milli(item["value"]),
                    _time_s(item["timestamp"]),
                    float(item.get("windowSeconds") or WINDOW_DEFAULT_S),
                )
                for item in items
            }

    async def of_object(
        self, metric: MetricIdentifier, namespace: str, plural: str, target: CrossVersionObjectReference
    ) -> int:
        """In thousandths: a metric of one object; `plural` names its resource (services, ingresses.networking.k8s.io).

        It is empty for a kind that is not known. A namespace is asked about as such, and it is always the autoscaler's
        own. Raises NoAnswer.
        """
        # Upstream's words, in upstream's order.
        what = f"unable to get metric {metric.name}: {target.kind} on {namespace} {target.name}/"
        if not plural:
            raise NoAnswer(f"{what}unable to fetch metrics from custom metrics API: {_unmapped(target)}")
        base = f"{await self._custom(what)}/namespaces/{namespace}"
        path = (
            f"{base}/metrics/{metric.name}"
            if plural == "namespaces"
            else f"{base}/{plural}/{target.name}/{metric.name}"
        )
        items = await self._items(path, what, metricLabelSelector=_written(metric))
        if len(items) != 1:
            fault = f"the custom metrics API server returned {len(items)} results when we asked for exactly one"
            raise NoAnswer(f"{what}unable to fetch metrics from custom metrics API: {fault}")
        with _as_told(what, path):
            return milli(items[0]["value"])

    async def external(self, metric: MetricIdentifier, namespace: str) -> int:
        """In thousandths: the sum of all series of a metric. Raises NoAnswer."""
        path = f"{EXTERNAL_METRICS}/namespaces/{namespace}/{metric.name}"
        what = f"unable to get external metric {namespace}/{metric.name}/{as_go_writes(metric.selector)}: "
        items = await self._items(path, what, labelSelector=_written(metric))
        if not items:
            raise NoAnswer(f"{what}no metrics returned from external metrics API")
        with _as_told(what, path):
            return sum(milli(item["value"]) for item in items)

    async def _custom(self, what: str) -> str:
        """The path of the version of custom metrics that is served. Raises NoAnswer."""
        where = f"{what}unable to fetch metrics from custom metrics API: "
        try:
            group = await self._client.get_plain(f"/apis/{CUSTOM}")
        except NotFound:
            raise NoAnswer(f"{where}no custom metrics API ({CUSTOM}) registered") from None
        except APIError as error:
            raise NoAnswer(f"{where}{error}") from error
        served = [each["version"] for each in group["versions"] if each["version"] in CUSTOM_VERSIONS]
        if not served:
            raise NoAnswer(f"{where}no known available metric versions found")
        return f"/apis/{CUSTOM}/{served[0]}"

    async def _items(self, path: str, what: str, **query: str) -> list[dict[str, Any]]:
        try:
            answer = await self._client.get_plain(path, **{key: value for key, value in query.items() if value})
        except APIError as error:
            told = f"{error} ({_asked_for(path)})" if str(error) in GENERIC else str(error)
            raise NoAnswer(f"{what}unable to fetch metrics from {_api(path)}: {told}") from error
        with _as_told(what, path):
            items: list[dict[str, Any]] = list(answer.get("items") or [])
            return items


def _usage(items: list[dict[str, Any]], resource: str, container: str, namespace: str) -> dict[str, Sample]:
    """By pod, from PodMetrics. Raises NoAnswer."""
    samples = {}
    for item in items:
        name = item["metadata"]["name"]
        measured = {each["name"]: each["usage"] for each in item.get("containers", ())}
        if container and container not in measured:
            fault = f"container {container} not present in metrics for pod {namespace}/{name}"
            raise NoAnswer(f"unable to get metrics for resource {resource}: failed to get container metrics: {fault}")
        usages = [measured[container]] if container else list(measured.values())
        if usages and all(resource in usage for usage in usages):
            total = sum(milli(usage[resource]) for usage in usages)
            samples[name] = Sample(total, _time_s(item["timestamp"]), _duration_s(item.get("window")))
    return samples


@contextmanager
def _as_told(what: str, path: str) -> Iterator[None]:
    """What a backend answers may be anything. Raises NoAnswer."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        fault = f"the answer is no list of values: {type(error).__name__} {error}"
        raise NoAnswer(f"{what}unable to fetch metrics from {_api(path)}: {fault}") from error


def _api(path: str) -> str:
    kind = path.split("/")[2].partition(".")[0]
    return f"{'resource' if kind == 'metrics' else kind} metrics API"


def _unmapped(target: CrossVersionObjectReference) -> str:
    group = (target.api_version or "").rpartition("/")[0]
    qualified = f"{target.kind}.{group}" if group else target.kind
    return f'unable to map kind {qualified} to resource: no matches for kind "{target.kind}" in group "{group}"'


def _asked_for(path: str) -> str:
    """What upstream's client says of a request whose answer is no Status: get pods.custom.metrics.k8s.io *."""
    _, _, group, _, _, _, resource, *rest = path.split("/")
    return f"get {resource}.{group} {rest[0]}" if rest else f"get {resource}.{group}"


def as_go_writes(selector: LabelSelector | None) -> str:
    """A selector as upstream's messages have it."""
    if selector is None:
        return "nil"
    labels = "".join(f"{key}: {value}," for key, value in sorted(selector.match_labels.items()))
    expressions = "".join(
        f"LabelSelectorRequirement{{Key:{each.key},Operator:{each.operator},Values:[{' '.join(each.values)}],}},"
        for each in selector.match_expressions
    )
    return (
        f"&LabelSelector{{MatchLabels:map[string]string{{{labels}}},"
        f"MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )


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
