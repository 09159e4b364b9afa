"""Figures in the text form of Prometheus (https://prometheus.io/docs/instrumenting/exposition_formats/)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from knarr.figures import Distribution, Source

CONTENT_TYPE = CONTENT_TYPE_LATEST


def exposed(sources: Sequence[Source]) -> bytes:
    """The text of all figures of some sources."""
    registry = CollectorRegistry()
    registry.register(Sources(sources))
    return generate_latest(registry)


class Sources(Collector):
    """Figures of parts, asked when somebody reads."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources

    def collect(self) -> Iterator[Metric]:
        for figure in (each for source in self._sources for each in source()):
            name, kind = figure.name, str(figure.kind)
            if kind == "counter" and not name.endswith("_total"):
                kind = "unknown"  # upstream's older names: the library would put _total behind them
            metric = Metric(name.removesuffix("_total"), figure.text, kind)
            for values, value in figure.values.items():
                labels = dict(zip(figure.labels, values, strict=True))
                if isinstance(value, Distribution):
                    buckets = value.buckets()
                    for bound, count in buckets:
                        metric.add_sample(f"{figure.name}_bucket", {**labels, "le": bound}, count)
                    metric.add_sample(f"{figure.name}_count", labels, buckets[-1][1])
                    metric.add_sample(f"{figure.name}_sum", labels, value.total)
                else:
                    metric.add_sample(figure.name, labels, value)
            yield metric
