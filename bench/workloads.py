"""Deployments on hollow nodes, in this process: large ones and many, what they take of memory, and what rest costs."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import hollow
from bench.document import Figure
from bench.hollow import Hollow
from knarr.api.apps.v1 import Deployment, DeploymentStatus

LARGE, NODES = 500, 100
LARGEST, MANY_NODES = 5_000, 1_000
DEPLOYMENTS, REPLICAS = 1_000, 5
RESTING_PODS, RESTING_DEPLOYMENTS = 10_000, 20
SETTLE_S, REST_S = 15.0, 25.0

Line = tuple[str, str, str]
"""What, value, expected."""


def workloads() -> Iterator[Figure]:
    for scenario in (_large, _largest, _many):
        yield from _apart(scenario)


def idle() -> Iterator[Figure]:
    yield from _apart(_resting)


def _apart(scenario: Callable[[], list[Line]]) -> Iterator[Figure]:
    """In a process of its own, so that its memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for what, value, expected in pool.apply(scenario):
            yield Figure(what, value, expected)


def _large() -> list[Line]:
    """In rest, before anything was made, the caches are warm; as `knarr up` is when somebody applies a Deployment."""

    async def scenario(cluster: Hollow) -> list[Line]:
        _start(cluster)
        await cluster.client.create(_deployment("warm", 1))
        await hollow.until(lambda: _done(cluster, "warm"))
        async with cluster.measured() as made:
            await cluster.client.create(_deployment("large", LARGE))
            await hollow.until(lambda: _done(cluster, "large"))
        async with cluster.measured() as rolled:
            patch = {"spec": {"template": {"metadata": {"annotations": {"version": "2"}}}}}
            changed = await cluster.client.patch(Deployment, "large", patch, "default")
            await hollow.until(lambda: _done(cluster, "large", changed.metadata.generation or 0))
        what = f"{LARGE} replicas on {NODES} hollow nodes, in process"
        return [
            (f"{what}: create", str(made), "< 2 s"),
            (f"{what}: rolling update", str(rolled), "< 3 s"),
            (f"{what}: memory", _memory(), ""),
        ]

    return hollow.run(NODES, scenario)


def _largest() -> list[Line]:
    async def scenario(cluster: Hollow) -> list[Line]:
        _start(cluster)
        async with cluster.measured() as made:
            await cluster.client.create(_deployment("largest", LARGEST))
            await hollow.until(lambda: _done(cluster, "largest"), every_s=0.05)
        what = f"{LARGEST:,} replicas on {MANY_NODES:,} hollow nodes, in process"
        return [(f"{what}: create", str(made), ""), (f"{what}: memory", _memory(), "")]

    return hollow.run(MANY_NODES, scenario)


def _many() -> list[Line]:
    async def scenario(cluster: Hollow) -> list[Line]:
        _start(cluster)
        names = [f"many-{number}" for number in range(DEPLOYMENTS)]
        async with cluster.measured() as made:
            await cluster.create_all(_deployment(name, REPLICAS) for name in names)
            await hollow.until(lambda: _all_done(cluster, names), every_s=0.05)
        what = f"{DEPLOYMENTS:,} Deployments of {REPLICAS} at once on {MANY_NODES:,} hollow nodes, in process"
        return [(f"{what}: create", str(made), ""), (f"{what}: memory", _memory(), "")]

    return hollow.run(MANY_NODES, scenario)


def _resting() -> list[Line]:
    """All loops run, and nothing happens. The heartbeats of the nodes, which are not the loops' work, stop for a while
    that is shorter than the grace that nodes have.
    """

    async def scenario(cluster: Hollow) -> list[Line]:
        nodes, *_ = _start(cluster)
        names = [f"resting-{number}" for number in range(RESTING_DEPLOYMENTS)]
        await cluster.create_all(_deployment(name, RESTING_PODS // RESTING_DEPLOYMENTS) for name in names)
        await hollow.until(lambda: _all_done(cluster, names), every_s=0.05)
        await asyncio.sleep(SETTLE_S)
        nodes.cancel()
        await asyncio.sleep(1.0)
        async with cluster.measured() as spent:
            await asyncio.sleep(REST_S)
        what = f"at rest, {RESTING_PODS:,} pods on {MANY_NODES:,} hollow nodes"
        return [
            (f"{what}: all loops", f"{spent.processor_s / spent.seconds:.2%} of a core", "< 1 %"),
            (f"{what}: memory", _memory(), ""),
        ]

    return hollow.run(MANY_NODES, scenario)


def _start(cluster: Hollow) -> list[asyncio.Task[None]]:
    return cluster.start(cluster.hollow.serve(), cluster.scheduler.run(), *(loop.run() for loop in cluster.loops))


def _done(cluster: Hollow, name: str, generation: int = 1) -> bool:
    found = cluster.deployments.get(f"default/{name}")
    if found is None or found.spec is None:
        return False
    status = found.status or DeploymentStatus()
    numbers = status.replicas, status.updated_replicas, status.available_replicas
    return (status.observed_generation or 0) >= generation and numbers == (found.spec.replicas,) * 3


def _all_done(cluster: Hollow, names: list[str]) -> bool:
    """Those that are done need no second look."""
    while names and _done(cluster, names[-1]):
        names.pop()
    return not names


def _deployment(name: str, replicas: int) -> Deployment:
    labels = {"app": name}
    container = {"name": "main", "image": "registry.example/app:1", "resources": {"requests": {"cpu": "10m"}}}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return hollow.typed(Deployment, {"metadata": {"name": name, "namespace": "default"}, "spec": spec})


def _memory() -> str:
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{os.getpid()}/smaps_rollup").read_text(), re.MULTILINE)
    assert found is not None
    return f"{int(found[1]) / 1e3:,.0f} MB"
