"""How many pods a second the scheduler places on thousands of nodes: through the API, with durable bindings.

As upstream's scheduler_perf does it: the nodes are only objects, and the pods are there when the scheduler starts. What
is measured is everything from then on until the last pod shows its node in the caches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

from bench import hollow
from bench.document import Figure
from bench.hollow import Hollow, Spent
from knarr.api.core.v1 import Pod

NODES, PODS, APPLICATIONS = 5_000, 10_000, 10
ZONES = 5
FULL_NODES, LOW_PER_NODE, PREEMPTORS = 500, 4, 500
HOST, ZONE = "kubernetes.io/hostname", "topology.kubernetes.io/zone"
SMALL = {"cpu": "100m", "memory": "50Mi"}


def scheduling() -> Iterator[Figure]:
    where = f"on {NODES:,} nodes"
    for what, extra, expected in (
        ("plain pods", lambda app: {}, "> 1,000/s"),
        (f"pods of {APPLICATIONS} applications, anti-affinity by host", _apart, "> 300/s"),
        (f"pods of {APPLICATIONS} applications, spread over {ZONES} zones (DoNotSchedule)", _spread, "> 300/s"),
    ):
        pods = [_pod(f"p{number}", f"app-{number % APPLICATIONS}", SMALL, extra) for number in range(PODS)]
        spent = hollow.run(NODES, partial(_placed, pods), zones=ZONES)
        yield Figure(f"scheduling {PODS:,} {what} {where}", spent.rate(PODS), expected)
    yield _preemption()


async def _placed(pods: list[Pod], cluster: Hollow) -> Spent:
    await cluster.create_all(pods)
    await hollow.until(lambda: len(cluster.pods.all()) == len(pods))
    bound = _count_bound(cluster)
    async with cluster.measured() as spent:
        cluster.start(cluster.scheduler.run())
        await hollow.until(lambda: bound.total() == len(pods))
    return spent


def _preemption() -> Figure:
    """Each pod needs a node of its own to be cleared for it by half."""

    async def scenario(cluster: Hollow) -> Spent:
        low = FULL_NODES * LOW_PER_NODE
        bound = _count_bound(cluster)
        await cluster.create_all(_pod(f"low-{number}", "low", {"cpu": "1"}) for number in range(low))
        cluster.start(cluster.hollow.serve(), cluster.scheduler.run())
        await hollow.until(lambda: bound["low"] == low)
        high = [
            _pod(f"high-{number}", "high", {"cpu": "2"}, priorityClassName="system-cluster-critical")
            for number in range(PREEMPTORS)
        ]
        async with cluster.measured() as spent:
            await cluster.create_all(high)
            await hollow.until(lambda: bound["high"] == PREEMPTORS)
        return spent

    capacity = {"cpu": str(LOW_PER_NODE), "memory": "64Gi", "pods": "110"}
    spent = hollow.run(FULL_NODES, scenario, capacity=capacity)
    what = f"preemption: {PREEMPTORS} pods on {FULL_NODES} full nodes, 2 others give way to each"
    return Figure(what, spent.rate(PREEMPTORS))


def _count_bound(cluster: Hollow) -> Counter[str]:
    """By application: pods that got a node."""
    bound: Counter[str] = Counter()

    def look(old: Pod | None, new: Pod | None) -> None:
        had = old is not None and old.spec is not None and old.spec.node_name
        if new is not None and new.spec is not None and new.spec.node_name and not had:
            bound[new.metadata.labels["app"]] += 1

    cluster.pods.add_handler(look)
    return bound


def _pod(name: str, app: str, requests: dict[str, str], extra: Any = None, **spec: Any) -> Pod:
    container = {"name": "main", "image": "registry.example/app:1", "resources": {"requests": requests}}
    metadata = {"name": name, "namespace": "default", "labels": {"app": app}}
    more = extra(app) if extra else {}
    return hollow.typed(Pod, {"metadata": metadata, "spec": {"containers": [container], **spec, **more}})


def _apart(app: str) -> dict[str, Any]:
    term = {"topologyKey": HOST, "labelSelector": {"matchLabels": {"app": app}}}
    return {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}


def _spread(app: str) -> dict[str, Any]:
    constraint = {"maxSkew": 1, "topologyKey": ZONE, "whenUnsatisfiable": "DoNotSchedule"}
    return {"topologySpreadConstraints": [constraint | {"labelSelector": {"matchLabels": {"app": app}}}]}
