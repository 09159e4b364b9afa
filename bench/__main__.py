"""Measure, print one table, and write docs/performance.md.

python -m bench [--only NAME …] [--no-write]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import clusters, load
from bench.clusters import Measured
from knarr.cli.connection import ApiFailure, Connection

DOCUMENT = Path(__file__).parent.parent / "docs/performance.md"
EXAMPLE = Path(__file__).parent.parent / "examples/shop"
NAMESPACE = "bench"
CONNECTIONS = 16
CREATES = 10_000
GETS = 20_000
LISTS = 300
LIST_PODS = 1_000
WATCHERS = 100
WATCHED_CREATES = 1_000
MANY_WATCHERS, PACE, PACED_CREATES = 1_000, 200, 2_000
STARTS = 7
REPLICAS, SIM_NODES = 500, 100
OCI_PODS = 50
SIM = ("--runtime", "sim")


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table."""

    what: str
    value: str
    expected: str = ""
    by: str = "knarr"


def pod(name: str) -> dict[str, Any]:
    """A pod that nobody schedules: what is measured is the API server and its store."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": "bench"}},
        "spec": {
            "schedulerName": "nobody",
            "containers": [
                {
                    "name": "main",
                    "image": "registry.example/team/app:1.2.3",
                    "command": ["/bin/app", "--listen=:8080"],
                    "env": [{"name": "MODE", "value": "bench"}],
                    "ports": [{"name": "http", "containerPort": 8080}],
                    "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
                }
            ],
        },
    }


# What is measured, one function a figure or a few that belong together.


def starts() -> Iterator[Figure]:
    """Start → ready: node Ready, default ServiceAccount there, a pod can be created."""
    runtime = ("--runtime", "oci" if os.geteuid() == 0 else "sim")
    times = []
    for _ in range(STARTS):
        with clusters.knarr(*runtime) as fresh:
            times.append(fresh.ready_ms)
    yield Figure(
        f"start → ready, new data folder, {runtime[1]} runtime (median of {STARTS}; slowest)",
        f"{statistics.median(times):,.0f} ms; {max(times):,.0f} ms",
        "< 1,000 ms",
    )


def api(measured: Measured) -> Iterator[Figure]:
    """Everything about the API server alone."""
    by = measured.name
    if by != "knarr":
        yield Figure("start → ready", f"{measured.ready_ms:,.0f} ms", by=by)
    connection = measured.connection()
    make_namespace(connection)
    yield Figure("memory, idle", f"{settled_memory(measured) / 1e6:,.0f} MB", "< 120 MB" if by == "knarr" else "", by)
    yield from watching(measured)
    pods = f"/api/v1/namespaces/{NAMESPACE}/pods"
    created = checked(
        load.order(
            measured.access,
            "requests",
            pods,
            method="POST",
            body=json.dumps(pod("created-{}")),
            count=CREATES,
            connections=CONNECTIONS,
        ),
        201,
    )
    yield Figure(
        f"durable pod creates/s over TLS, {CONNECTIONS} connections (p50, p99)",
        f"{rate(created):,.0f}/s ({created['p50_ms']:.1f} ms, {created['p99_ms']:.1f} ms)",
        "> 3,000/s" if by == "knarr" else "",
        by,
    )
    pods_there = CREATES + WATCHED_CREATES
    memory = settled_memory(measured)
    yield Figure(f"memory with {pods_there:,} pods", f"{memory / 1e6:,.0f} MB", by=by)
    got = checked(
        load.order(measured.access, "requests", f"{pods}/created-{{}}", count=CREATES, connections=CONNECTIONS), 200
    )
    yield Figure(
        "GET one pod /s (p99)",
        f"{rate(got):,.0f}/s ({got['p99_ms']:.1f} ms)",
        "> 8,000/s" if by == "knarr" else "",
        by,
    )
    listed = checked(
        load.order(measured.access, "requests", f"{pods}?labelSelector=watched", count=LISTS, connections=4), 200
    )
    yield Figure(f"LIST {LIST_PODS:,} of {pods_there:,} pods by label /s", f"{rate(listed):,.0f}/s", by=by)
    connection.close()


def lists(measured: Measured) -> Iterator[Figure]:
    """LIST of a namespace that holds just 1,000 pods."""
    connection = measured.connection()
    make_namespace(connection)
    pods = f"/api/v1/namespaces/{NAMESPACE}/pods"
    checked(
        load.order(
            measured.access,
            "requests",
            pods,
            method="POST",
            body=json.dumps(pod("listed-{}")),
            count=LIST_PODS,
            connections=CONNECTIONS,
        ),
        201,
    )
    listed = checked(load.order(measured.access, "requests", pods, count=LISTS, connections=CONNECTIONS), 200)
    size = len(json.dumps(connection.get(pods)))
    yield Figure(
        f"LIST {LIST_PODS:,} pods ({size / 1e6:.1f} MB) /s (p99)",
        f"{rate(listed):,.0f}/s ({listed['p99_ms']:.0f} ms)",
        "> 300/s" if measured.name == "knarr" else "",
        measured.name,
    )
    connection.close()


def watching(measured: Measured) -> Iterator[Figure]:
    """Events/s delivered to many watchers while pods are created as fast as they can be."""
    pods = f"/api/v1/namespaces/{NAMESPACE}/pods"
    version = measured.connection().get(pods)["metadata"]["resourceVersion"]
    watch = load.order(
        measured.access,
        "watchers",
        f"{pods}?watch=true&resourceVersion={version}",
        count=WATCHED_CREATES,
        connections=WATCHERS,
    )
    assert watch.stdout is not None
    if watch.stdout.readline() != "open\n":
        raise RuntimeError("the watches did not open")
    body = pod("watched-{}")
    body["metadata"]["labels"]["watched"] = "yes"
    created = checked(
        load.order(
            measured.access,
            "requests",
            pods,
            method="POST",
            body=json.dumps(body),
            count=WATCHED_CREATES,
            connections=CONNECTIONS,
        ),
        201,
    )
    delivered = load.result(watch)
    took_s = delivered["ended_s"] - created["began_s"]
    yield Figure(
        f"watch: events/s delivered to {WATCHERS} watchers",
        f"{delivered['count'] / took_s:,.0f}/s ({WATCHED_CREATES} creates in {took_s:.2f} s)",
        by=measured.name,
    )


def many_watchers(measured: Measured) -> Iterator[Figure]:
    """1,000 watches over TLS, 200 changes a second: how old an event is when it arrives."""
    path = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
    make_namespace(measured.connection())
    version = measured.connection().get(path)["metadata"]["resourceVersion"]
    watched = f"{path}?watch=true&resourceVersion={version}"
    watch = load.order(measured.access, "watchers", watched, count=PACED_CREATES, connections=MANY_WATCHERS)
    assert watch.stdout is not None
    if watch.stdout.readline() != "open\n":
        raise RuntimeError("the watches did not open")
    body = {"metadata": {"name": "paced-{}"}, "data": {"sent": "{now}"}}
    checked(
        load.order(
            measured.access,
            "requests",
            path,
            method="POST",
            body=json.dumps({"apiVersion": "v1", "kind": "ConfigMap"} | body, separators=(",", ":")),
            count=PACED_CREATES,
            connections=4,
            per_second=PACE,
        ),
        201,
    )
    delivered = load.result(watch)
    yield Figure(
        f"{MANY_WATCHERS:,} watchers × {PACE} events/s over TLS: request → event (p50, p99)",
        f"{delivered['p50_ms']:.0f} ms, {delivered['p99_ms']:.0f} ms",
        "p99 < 100 ms" if measured.name == "knarr" else "",
        measured.name,
    )


def first_contact(measured: Measured) -> Iterator[Figure]:
    """What a kubectl with an empty cache asks for before its first `get`, and what `kubectl explain` asks for."""
    aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    times = []
    for path, accept in (
        ("/api", aggregated),
        ("/apis", aggregated),
        ("/openapi/v3", "application/json"),
        ("/openapi/v3/api/v1", "application/json"),
        ("/openapi/v3/apis/apps/v1", "application/json"),
    ):
        order = load.order(measured.access, "requests", path, count=1, connections=1, accept=accept)
        times.append(checked(order, 200)["p50_ms"])
    yield Figure(
        "discovery and OpenAPI v3 (core, apps), first time asked",
        f"{sum(times):.0f} ms ({', '.join(f'{each:.0f}' for each in times)})",
        "< 50 ms" if measured.name == "knarr" else "",
        measured.name,
    )


def deployments() -> Iterator[Figure]:
    """A large Deployment on hollow nodes: created, then rolled."""
    with clusters.knarr(*SIM, "--sim-nodes", str(SIM_NODES)) as measured:
        connection = measured.connection()
        until("all nodes ready", lambda: ready_nodes(connection) == SIM_NODES)
        make_namespace(connection)
        path = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"
        began_s = time.monotonic()
        connection.send("POST", path, deployment())
        until("500 available", lambda: rolled_out(connection.get(f"{path}/large")))
        yield Figure(
            f"Deployment with {REPLICAS} replicas on {SIM_NODES} hollow nodes: all available",
            f"{time.monotonic() - began_s:.2f} s",
            "< 2 s",
        )
        template = {"spec": {"template": {"metadata": {"annotations": {"version": "2"}}}}}
        began_s = time.monotonic()
        connection.send("PATCH", f"{path}/large", template, content_type="application/merge-patch+json")
        until("rolled out", lambda: rolled_out(connection.get(f"{path}/large")))
        yield Figure("… its rolling update (25 % surge, 25 % unavailable)", f"{time.monotonic() - began_s:.2f} s")
        yield Figure(
            f"memory with {SIM_NODES} hollow nodes in the process, {REPLICAS} pods",
            f"{measured.memory_bytes() / 1e6:,.0f} MB",
        )
        connection.close()


def containers() -> Iterator[Figure]:
    """Real pods, one after the other: from the request to Running."""
    if os.geteuid() != 0:
        yield Figure("one pod on the OCI runtime, create → Running", "not measured: needs root", "< 250 ms")
        return
    with clusters.knarr("--runtime", "oci") as measured:
        archive = measured.folder / "backend.tar"
        sys.path.insert(0, str(EXAMPLE))
        import images  # type: ignore[import-not-found,unused-ignore]

        archive.write_bytes(images.archive("backend", "v1"))
        command = [sys.executable, "-m", "knarr.cli.main", "image", "load", "--data-dir", str(measured.folder)]
        subprocess.run([*command, str(archive)], check=True, capture_output=True)
        connection = measured.connection()
        make_namespace(connection)
        times = [pod_start_ms(connection, number) for number in range(OCI_PODS)]
        times.sort()
        yield Figure(
            f"one pod on the OCI runtime, create → Running (p50, p99 of {OCI_PODS})",
            f"{statistics.median(times):,.0f} ms, {times[OCI_PODS * 99 // 100]:,.0f} ms",
            "< 250 ms p50",
        )
        connection.close()


def pod_start_ms(connection: Connection, number: int) -> float:
    """Create a pod, wait by watch until it is Running, delete it."""
    pods = f"/api/v1/namespaces/{NAMESPACE}/pods"
    name = f"started-{number}"
    container = {"name": "main", "image": "shop-backend:v1", "command": ["sleep", "1000"]}
    wanted = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [container]}}
    began_s = time.perf_counter()
    version = connection.send("POST", pods, wanted)["metadata"]["resourceVersion"]
    for event in connection.watch(pods, resourceVersion=version, fieldSelector=f"metadata.name={name}"):
        if event["object"].get("status", {}).get("phase") == "Running":
            break
    took_ms = (time.perf_counter() - began_s) * 1000
    connection.send("DELETE", f"{pods}/{name}", {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0})
    return took_ms


def deployment() -> dict[str, Any]:
    labels = {"app": "large"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "large"},
        "spec": {
            "replicas": REPLICAS,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "main", "image": "registry.example/app:1"}]},
            },
        },
    }


# Helpers of the measuring.


def make_namespace(connection: Connection) -> None:
    try:
        connection.send(
            "POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        )
    except ApiFailure as failure:
        if failure.code != 409:
            raise


def ready_nodes(connection: Connection) -> int:
    nodes = connection.get("/api/v1/nodes")["items"]
    conditions = (each for node in nodes for each in node.get("status", {}).get("conditions") or [])
    return sum(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def rolled_out(found: dict[str, Any]) -> bool:
    status = found.get("status", {})
    numbers = [status.get(name, 0) for name in ("replicas", "updatedReplicas", "availableReplicas")]
    return status.get("observedGeneration") == found["metadata"]["generation"] and numbers == [REPLICAS] * 3


def until(what: str, holds: Callable[[], bool], seconds_max: float = 120.0) -> None:
    until_s = time.monotonic() + seconds_max
    while not holds():
        if time.monotonic() > until_s:
            raise RuntimeError(f"{what}: not within {seconds_max:.0f} s")
        time.sleep(0.01)


def settled_memory(measured: Measured) -> int:
    """Memory once it no longer moves by more than 1 %, at most 10 s later."""
    held = measured.memory_bytes()
    for _ in range(10):
        time.sleep(1.0)
        now = measured.memory_bytes()
        if abs(now - held) < held // 100:
            return now
        held = now
    return held


def checked(process: subprocess.Popen[str], status: int) -> dict[str, Any]:
    """The generator's result, refused when any answer had another status."""
    answered = load.result(process)
    if set(answered["statuses"]) != {str(status)}:
        raise RuntimeError(f"answers: {answered['statuses']}, expected only {status}")
    return answered


def rate(result: dict[str, Any]) -> float:
    return float(result["count"] / result["seconds"])


def on_knarr(measure: Callable[[Measured], Iterator[Figure]]) -> Callable[[], Iterator[Figure]]:
    def measured() -> Iterator[Figure]:
        with clusters.knarr(*SIM) as cluster:
            yield from measure(cluster)

    return measured


def on_upstream(measure: Callable[[Measured], Iterator[Figure]]) -> Callable[[], Iterator[Figure]]:
    def measured() -> Iterator[Figure]:
        if clusters.has_upstream():
            with clusters.upstream() as cluster:
                yield from measure(cluster)

    return measured


SECTIONS: dict[str, Callable[[], Iterator[Figure]]] = {
    "starts": starts,
    "api": on_knarr(api),
    "lists": on_knarr(lists),
    "watchers": on_knarr(many_watchers),
    "discovery": on_knarr(first_contact),
    "deployments": deployments,
    "containers": containers,
    "upstream-api": on_upstream(api),
    "upstream-lists": on_upstream(lists),
    "upstream-watchers": on_upstream(many_watchers),
    "upstream-discovery": on_upstream(first_contact),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--no-write", action="store_true", help="leave docs/performance.md as it is")
    parsed = parser.parse_args()
    console = Console(highlight=False)
    figures: list[Figure] = []
    code = 0
    for name in parsed.only:
        try:
            for figure in SECTIONS[name]():
                figures.append(figure)
                console.print(f"[dim]{figure.by}:[/] {figure.what}: [bold]{figure.value}[/]")
        except (RuntimeError, OSError, ApiFailure, subprocess.SubprocessError) as error:
            console.print(f"[red]{name} could not be measured:[/] {error}")
            code = 1
    console.print(table(figures))
    if not clusters.has_upstream():
        console.print("kube-apiserver and etcd are not on PATH: upstream was not measured beside it.")
    if not parsed.no_write and code == 0 and parsed.only == list(SECTIONS):
        DOCUMENT.write_text(document(figures))
        console.print(f"written to {DOCUMENT}")
    return code


def table(figures: list[Figure]) -> Table:
    shown = Table()
    for column in ("by", "figure", "measured", "expected"):
        shown.add_column(column)
    for figure in figures:
        shown.add_row(figure.by, figure.what, figure.value, figure.expected)
    return shown


def document(figures: list[Figure]) -> str:
    rows = "\n".join(f"| {each.by} | {each.what} | {each.value} | {each.expected} |" for each in figures)
    upstream = (
        "kube-apiserver and etcd were measured beside it, by the same generator."
        if clusters.has_upstream()
        else "kube-apiserver and etcd were not installed there; where they are, `make bench` measures them beside it."
    )
    return f"""# Performance

Written by `make bench` on {datetime.now(UTC):%Y-%m-%d}: {machine()}. {upstream}

| by | figure | measured | expected |
|---|---|---|---|
{rows}

How it is measured: `bench/load.py` is the load generator, a process of its own that speaks HTTP/1.1 over TLS with a
client certificate, each connection sending its next request when the last is answered. It shares the machine's
processors with the server. Data folders are on the disk, and every create is on it (SQLite WAL, synchronous=FULL)
before it is answered. Memory is the proportional set size of the whole process. Ready means that the node is Ready,
the default ServiceAccount is there and a pod can be created; it is counted from the start of the process, so Python's
own start is in it. One section alone: `make bench ARGS="--only api"`.
"""


def machine() -> str:
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 1e6
    python = f"Python {platform.python_version()}"
    return f"{os.cpu_count()} cores of {cpu}, {memory:.0f} GB, Linux {platform.release()}, {python}"


if __name__ == "__main__":
    sys.exit(main())
