"""/metrics: what the server counts, under upstream's names, in the text form of Prometheus.

https://kubernetes.io/docs/reference/instrumentation/metrics/ tells what each name means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.process_collector import ProcessCollector

from knarr import KUBERNETES_VERSION
from knarr.api.errors import qualified
from knarr.apiserver.requests import ResourcePath, flag
from knarr.client.transport import Answer, Request
from knarr.exposition import Sources
from knarr.figures import Distribution, Figure, Source

disable_created_metrics()  # type: ignore[no-untyped-call]

BUCKETS_S = (0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60)
LABELS = ("verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component")
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT"})
CONNECTING = frozenset({"attach", "exec", "portforward", "proxy"})
Series = tuple[str, ...]
"""Values of LABELS."""


class Metrics:
    """The counts of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._answered: dict[tuple[Series, int], int] = {}
        """Requests, by what they did and how they were answered."""
        self._durations: dict[Series, Distribution] = {}
        self._lasting = Gauge(
            "apiserver_longrunning_requests",
            "Requests in flight that last: watches, logs, exec and their like.",
            tuple(label for label in LABELS if label != "dry_run"),
            registry=self.registry,
        )
        in_flight = Gauge(
            "apiserver_current_inflight_requests",
            "Requests in flight that do not last, by kind.",
            ("request_kind",),
            registry=self.registry,
        )
        refused = Counter(
            "apiserver_dropped_requests_total",
            "Requests refused because too many were in flight.",
            ("request_kind",),
            registry=self.registry,
        )
        self._in_flight = {kind: in_flight.labels(kind) for kind in ("readOnly", "mutating")}
        self._refused = {kind: refused.labels(kind) for kind in ("readOnly", "mutating")}
        self._objects = Gauge(
            "apiserver_resource_objects",
            "Objects in the store, by resource.",
            ("group", "resource"),
            registry=self.registry,
        )
        self._storage_objects = Gauge(
            "apiserver_storage_objects",
            "Objects in the store, by resource and group in one (deprecated for apiserver_resource_objects).",
            ("resource",),
            registry=self.registry,
        )
        build = Gauge(
            "kubernetes_build_info", "What runs here.", ("git_version", "major", "minor"), registry=self.registry
        )
        major, minor, _ = KUBERNETES_VERSION.removeprefix("v").split(".")
        build.labels(KUBERNETES_VERSION, major, minor).set(1)
        self.registry.register(ProcessCollector(registry=None))
        self.sources: list[Source] = [self._figures]
        """Figures of other parts, asked when somebody reads."""
        self.registry.register(Sources(self.sources))

    def answered(self, series: Series, code: int, seconds: float | None) -> None:
        """A request was answered; `seconds` is None for one that lasts."""
        key = series, code
        self._answered[key] = self._answered.get(key, 0) + 1
        if seconds is None:
            return
        durations = self._durations.get(series)
        if durations is None:
            durations = self._durations[series] = Distribution(BUCKETS_S)
        durations.observe(seconds)

    def lasting(self, series: Series, change: int) -> None:
        """A request that lasts began (1) or ended (-1)."""
        verb, _, *rest = series
        self._lasting.labels(verb, *rest).inc(change)

    def in_flight(self, kind: str, count: Callable[[], int]) -> None:
        """`count` says how many there are, when somebody reads."""
        self._in_flight[kind].set_function(count)

    def refused(self, kind: str) -> None:
        self._refused[kind].inc()

    def _figures(self) -> Iterator[Figure]:
        counts = {(*series, str(code)): count for (series, code), count in self._answered.items()}
        text = "Requests, by what they did and how they were answered."
        yield Figure("counter", "apiserver_request_total", text, (*LABELS, "code"), counts)
        text = "How long requests took that do not last by nature."
        yield Figure("histogram", "apiserver_request_duration_seconds", text, LABELS, self._durations)

    def answer(self, objects: Mapping[tuple[str, str], int]) -> Answer:
        """The text, with the number of objects by (group, resource), which are counted when somebody reads."""
        for labels, count in objects.items():
            self._objects.labels(*labels).set(count)
            self._storage_objects.labels(qualified(*labels)).set(count)
        return Answer(200, {"content-type": CONTENT_TYPE_LATEST}, generate_latest(self.registry))


def series_of(request: Request, path: ResourcePath | None) -> Series:
    """What a request counts as. A method that nobody has heard of is no series of its own."""
    verb = request.method if request.method in METHODS else "other"
    if path is None:
        return (verb, "", "", "", "", "", "", "apiserver")
    if flag(request.query, "watch"):
        verb = "WATCH"
    elif path.subresource in CONNECTING:
        verb = "CONNECT"
    elif verb == "GET" and not path.name:
        verb = "LIST"
    elif verb == "DELETE" and not path.name:
        verb = "DELETECOLLECTION"
    elif verb == "PATCH" and request.headers.get("content-type", "").startswith("application/apply-patch"):
        verb = "APPLY"
    dry_run = request.query.get("dryRun", "")
    scope = "resource" if path.name or verb == "POST" else "namespace" if path.namespace else "cluster"
    return (
        verb,
        dry_run if dry_run == "All" else "",
        path.group,
        path.version,
        path.plural,
        path.subresource,
        scope,
        "apiserver",
    )
