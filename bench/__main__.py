"""Measure, print one table, and write docs/performance.md.

python -m bench [--only NAME …] [--no-write]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import clusters, dns, ingress, load, policies, proxy, scheduling, stages, subjects, workloads
from bench.clusters import Measured
from bench.document import Figure, document
from knarr.cli.connection import ApiFailure, Connection
from knarr.client.client import APPLY_PATCH

DOCUMENT = Path(__file__).parent.parent / "docs/performance.md"
EXAMPLE = Path(__file__).parent.parent / "examples/shop"
CONNECTIONS = 16
CREATES = 10_000
APPLIED_PODS, APPLIES = 1_000, 4_000
IDLE_S = 10.0
LISTS = 300
LIST_PODS = 1_000
WATCHERS = 100
WATCHED_CREATES = 1_000
MANY_WATCHERS, PACE, PACED_CREATES = 1_000, 200, 2_000
PACED_CONNECTIONS = 64
"""Enough that the pace is kept even when an answer takes a quarter of a second."""
STARTS = 7
REPLICAS, SIM_NODES = 500, 100
OCI_PODS = 50
SIM = ("--runtime", "sim")


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
    """Everything about the API server alone, as asked by an ordinary user."""
    by, ours = measured.name, measured.name == "knarr"
    if not ours:
        yield Figure("start → ready", f"{measured.ready_ms:,.0f} ms", by=by)
    prepare(measured)
    yield Figure("memory, idle", f"{settled_memory(measured) / 1e6:,.0f} MB", "< 120 MB" if ours else "", by)
    if ours:
        yield Figure("processor, idle", f"{idle_percent(measured):.1f} % of a core", "< 1 %")
    yield from watching(measured)
    pods = f"/api/v1/namespaces/{subjects.NAMESPACE}/pods"
    created = asked(measured, pods, 201, method="POST", body=json.dumps(subjects.pod("created-{}")), count=CREATES)
    yield Figure(
        f"durable pod creates/s over TLS, {CONNECTIONS} connections",
        created.text,
        "> 3,000/s, p99 < 15 ms" if ours else "",
        by,
    )
    pods_there = CREATES + WATCHED_CREATES
    memory = settled_memory(measured)
    yield Figure(
        f"memory with {pods_there:,} pods", f"{memory / 1e6:,.0f} MB", "< 300 MB (10,800 pods)" if ours else "", by
    )
    got = asked(measured, f"{pods}/created-{{}}", 200, count=CREATES)
    yield Figure("GET one pod /s", got.text, "> 8,000/s" if ours else "", by)
    listed = asked(measured, f"{pods}?labelSelector=watched", 200, count=LISTS, connections=4)
    yield Figure(f"LIST {LIST_PODS:,} of {pods_there:,} pods by label /s", listed.text, by=by)


def applies(measured: Measured) -> Iterator[Figure]:
    """Server-side apply of whole pods: they are made, then each apply changes an annotation."""
    prepare(measured)
    path = f"/api/v1/namespaces/{subjects.NAMESPACE}/pods/applied-{{shard}}?fieldManager=bench"
    body = json.dumps(subjects.pod("applied-{shard}", "{}"))
    order = {"method": "PATCH", "body": body, "content_type": APPLY_PATCH, "shards": APPLIED_PODS}
    made = asked(measured, path, 201, count=APPLIED_PODS, **order)
    yield Figure("server-side apply /s that creates a pod", made.text, by=measured.name)
    changed = asked(measured, path, 200, count=APPLIES, **order)
    expected = "> 1,000/s" if measured.name == "knarr" else ""
    yield Figure("server-side apply /s that changes a pod", changed.text, expected, measured.name)


def lists(measured: Measured) -> Iterator[Figure]:
    """LIST of a namespace that holds just 1,000 pods."""
    prepare(measured)
    pods = f"/api/v1/namespaces/{subjects.NAMESPACE}/pods"
    asked(measured, pods, 201, method="POST", body=json.dumps(subjects.pod("listed-{}")), count=LIST_PODS)
    listed = asked(measured, pods, 200, count=LISTS)
    size = len(json.dumps(measured.connection().get(pods)))
    yield Figure(
        f"LIST {LIST_PODS:,} pods ({size / 1e6:.1f} MB) /s",
        listed.text,
        "> 300/s" if measured.name == "knarr" else "",
        measured.name,
    )


def watching(measured: Measured) -> Iterator[Figure]:
    """Events/s delivered to many watchers while pods are created as fast as they can be."""
    pods = f"/api/v1/namespaces/{subjects.NAMESPACE}/pods"
    watch = watchers(measured, pods, count=WATCHED_CREATES, connections=WATCHERS)
    body = subjects.pod("watched-{}")
    body["metadata"]["labels"]["watched"] = "yes"
    created = asked(measured, pods, 201, method="POST", body=json.dumps(body), count=WATCHED_CREATES)
    delivered = load.result(watch)
    took_s = delivered["ended_s"] - created.began_s
    yield Figure(
        f"watch: events/s delivered to {WATCHERS} watchers",
        f"{delivered['count'] / took_s:,.0f}/s ({WATCHED_CREATES} creates in {took_s:.2f} s)",
        by=measured.name,
    )


def many_watchers(measured: Measured) -> Iterator[Figure]:
    """1,000 watches over TLS, 200 changes a second: how old an event is when it arrives.

    First each watch is told of the changes of one namespace of many, as those of real clients are; then all of them
    of every change.
    """
    prepare(measured)
    for shards, said in ((subjects.SHARDS, f"of {subjects.SHARDS} namespaces"), (1, "each told of every event")):
        namespace = f"{subjects.NAMESPACE}-{{shard}}" if shards > 1 else subjects.NAMESPACE
        path = f"/api/v1/namespaces/{namespace}/configmaps"
        watch = watchers(measured, path, count=PACED_CREATES // shards, connections=MANY_WATCHERS, shards=shards)
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "paced-{}"}, "data": {"sent": "{now}"}}
        order = {"method": "POST", "body": json.dumps(body, separators=(",", ":")), "per_second": PACE}
        before_s = measured.processor_s()
        made = asked(measured, path, 201, count=PACED_CREATES, connections=PACED_CONNECTIONS, shards=shards, **order)
        delivered = load.result(watch)
        used = (measured.processor_s() - before_s) / (delivered["ended_s"] - made.began_s)
        yield Figure(
            f"{MANY_WATCHERS:,} watchers {said}, {PACE} events/s over TLS: request → event",
            f"p50 {delivered['p50_ms']:.0f} ms, p99 {delivered['p99_ms']:.0f} ms; "
            f"{delivered['count'] / PACED_CREATES * PACE:,.0f} deliveries/s, {used:.0%} of a core",
            "p99 < 100 ms" if measured.name == "knarr" else "",
            measured.name,
        )


def watchers(measured: Measured, path: str, **order: Any) -> subprocess.Popen[str]:
    """Watches of a path from now on, all open."""
    version = measured.connection().get("/api/v1/namespaces")["metadata"]["resourceVersion"]
    watch = load.order(measured.user, "watchers", f"{path}?watch=true&resourceVersion={version}", **order)
    assert watch.stdout is not None
    if watch.stdout.readline() != "open\n":
        raise RuntimeError("the watches did not open")
    return watch


def first_contact(measured: Measured) -> Iterator[Figure]:
    """What a kubectl with an empty cache asks for before its first `get`, and what `kubectl explain` asks for."""
    aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    expected = "< 50 ms" if measured.name == "knarr" else ""
    for what, accept, paths in (
        ("discovery (/api, /apis)", aggregated, ("/api", "/apis")),
        (
            "OpenAPI v3 (index, core, apps)",
            "application/json",
            ("/openapi/v3", "/openapi/v3/api/v1", "/openapi/v3/apis/apps/v1"),
        ),
    ):
        times = [asked(measured, path, 200, count=1, connections=1, accept=accept).p50_ms for path in paths]
        each = ", ".join(f"{time_ms:.0f}" for time_ms in times)
        yield Figure(f"{what}, first time asked", f"{sum(times):.0f} ms ({each})", expected, measured.name)


def deployments() -> Iterator[Figure]:
    """A large Deployment on hollow nodes: created, then rolled."""
    with clusters.knarr(*SIM, "--sim-nodes", str(SIM_NODES)) as measured:
        connection = measured.connection()
        until("all nodes ready", lambda: ready_nodes(connection) == SIM_NODES)
        prepare(measured)
        path = f"/apis/apps/v1/namespaces/{subjects.NAMESPACE}/deployments"

        def took(method: str, path_asked: str, body: dict[str, Any], content_type: str = "application/json") -> str:
            """Until all are as the request wants them."""
            began_s, processor_s = time.monotonic(), measured.processor_s()
            connection.send(method, path_asked, body, content_type=content_type)
            until(f"{REPLICAS} available", lambda: rolled_out(connection.get(f"{path}/large")))
            took_s, used_s = time.monotonic() - began_s, measured.processor_s() - processor_s
            return f"{took_s:.2f} s; {used_s:.2f} s of processor time"

        yield Figure(
            f"Deployment with {REPLICAS} replicas on {SIM_NODES} hollow nodes: all available",
            took("POST", path, deployment()),
            "< 2 s",
        )
        template = {"spec": {"template": {"metadata": {"annotations": {"version": "2"}}}}}
        yield Figure(
            "… its rolling update (25 % surge, 25 % unavailable)",
            took("PATCH", f"{path}/large", template, content_type="application/merge-patch+json"),
            "< 3 s",
        )
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
        prepare(measured)
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
    pods = f"/api/v1/namespaces/{subjects.NAMESPACE}/pods"
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


def prepare(measured: Measured) -> None:
    """The namespaces, and the rights in them of the user who asks."""
    connection = measured.connection()
    for path, body in subjects.objects():
        try:
            connection.send("POST", path, body)
        except ApiFailure as failure:
            if failure.code != 409:
                raise
    connection.close()


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


def idle_percent(measured: Measured) -> float:
    """Of a core, over IDLE_S in which nobody asks anything."""
    before_s = measured.processor_s()
    time.sleep(IDLE_S)
    return (measured.processor_s() - before_s) / IDLE_S * 100


@dataclass(frozen=True, slots=True)
class Asked:
    """What the generator measured, and what it cost the server."""

    per_second: float
    p50_ms: float
    p99_ms: float
    processor_us: float
    began_s: float

    @property
    def text(self) -> str:
        return (
            f"{self.per_second:,.0f}/s (p50 {self.p50_ms:.1f} ms, p99 {self.p99_ms:.1f} ms; "
            f"{self.processor_us:,.0f} µs of processor each)"
        )


def asked(measured: Measured, path: str, status: int, *, connections: int = CONNECTIONS, **order: Any) -> Asked:
    """Ask as the ordinary user; refused when any answer has another status."""
    before_s = measured.processor_s()
    found = load.result(load.order(measured.user, "requests", path, connections=connections, **order))
    if set(found["statuses"]) != {str(status)}:
        raise RuntimeError(f"answers: {found['statuses']}, expected only {status}")
    used_us = (measured.processor_s() - before_s) / found["count"] * 1e6
    return Asked(found["count"] / found["seconds"], found["p50_ms"], found["p99_ms"], used_us, found["began_s"])


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
    "applies": on_knarr(applies),
    "lists": on_knarr(lists),
    "watchers": on_knarr(many_watchers),
    "discovery": on_knarr(first_contact),
    "deployments": deployments,
    "workloads": workloads.workloads,
    "scheduling": scheduling.scheduling,
    "idle": workloads.idle,
    "containers": containers,
    "proxy": proxy.proxy,
    "dns": dns.dns,
    "ingress": ingress.ingress,
    "policies": policies.policies,
    "upstream-api": on_upstream(api),
    "upstream-applies": on_upstream(applies),
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
        written = document(figures, stages.measured(), upstream=clusters.has_upstream())
        DOCUMENT.write_text(written)
        console.print(f"written to {DOCUMENT}")
    return code


def table(figures: list[Figure]) -> Table:
    shown = Table()
    for column in ("by", "figure", "measured", "expected"):
        shown.add_column(column)
    for figure in figures:
        shown.add_row(figure.by, figure.what, figure.value, figure.expected)
    return shown


if __name__ == "__main__":
    sys.exit(main())
