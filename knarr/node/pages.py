"""What upstream's kubelet serves by HTTP, for those who come by the node's proxy subresource: /healthz, /pods,
/stats/summary (kubelet.config.k8s.io's Summary API), /metrics and /metrics/resource (Prometheus text).

    kubectl get --raw /api/v1/nodes/NAME/proxy/stats/summary
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from knarr.api.core.v1 import Pod
from knarr.client.nodes import NodePage, NodeUsage, PodUsage, Usage
from knarr.clock import utc
from knarr.figures import Source
from knarr.node.config import NodeConfig
from knarr.node.runtime.contract import ContainerState

JSON = "application/json"
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
NOT_FOUND = NodePage(b"404 page not found\n", "text/plain; charset=utf-8", 404)
HEALTHY = ("healthz", "healthz/ping", "healthz/log", "healthz/syncloop")


def page(path: str, config: NodeConfig, usage: NodeUsage, pods: Sequence[Pod]) -> NodePage:
    """The page at a path. For a thread."""
    path = path.strip("/")
    if path in HEALTHY:
        return NodePage(b"ok", "text/plain; charset=utf-8")
    if path in ("pods", "runningpods"):
        listed = {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": list(pods)}
        return NodePage(msgspec.json.encode(listed), JSON)
    if path == "stats/summary":
        return NodePage(msgspec.json.encode(summary(config, usage)), JSON)
    if path == "metrics/resource":
        return NodePage("".join(f"{line}\n" for line in resource_metrics(usage)).encode(), PROMETHEUS)
    return NOT_FOUND


def figures_page(pods: int, containers: Mapping[ContainerState, int], others: Sequence[Source] = ()) -> NodePage:
    """What the agent counts of itself, and other parts of the node: /metrics."""
    lines = [
        "# HELP kubelet_running_pods Pods of which something is on this node",
        "# TYPE kubelet_running_pods gauge",
        f"kubelet_running_pods {pods}",
        "# HELP kubelet_running_containers Containers on this node, by their state",
        "# TYPE kubelet_running_containers gauge",
        *(f'kubelet_running_containers{{container_state="{state}"}} {count}' for state, count in containers.items()),
    ]
    body = "".join(f"{line}\n" for line in lines).encode()
    if others:
        from knarr.exposition import exposed  # its library is for those who read

        body += exposed(others)
    return NodePage(body, PROMETHEUS)


def summary(config: NodeConfig, usage: NodeUsage) -> dict[str, Any]:
    """The Summary API's answer."""
    node: dict[str, Any] = {"nodeName": config.name}
    if usage.whole is not None:
        node |= {
            "startTime": _moment(usage.whole.since_s),
            "cpu": _cpu([usage.whole]),
            "memory": _memory([usage.whole]),
        }
        if not config.hollow:
            node["memory"]["availableBytes"] = max(0, _memory_total() - usage.whole.working_set_bytes)
            node["fs"] = _file_system(str(config.root), usage.whole.at_s)
    return {"node": node, "pods": [_pod(pod) for pod in usage.pods]}


def resource_metrics(usage: NodeUsage) -> Iterator[str]:
    """The few figures that a metrics server takes from every node."""
    nodes = [("", usage.whole)] if usage.whole is not None else []
    containers = [
        (f'container="{name}",namespace="{pod.namespace}",pod="{pod.name}"', one)
        for pod in usage.pods
        for name, one in pod.containers.items()
    ]
    pods = [
        (f'namespace="{pod.namespace}",pod="{pod.name}"', total(list(pod.containers.values()))) for pod in usage.pods
    ]
    for subject, found in (("container", containers), ("node", nodes), ("pod", pods)):
        name = f"{subject}_cpu_usage_seconds_total"
        yield from _series(
            name, "counter", "CPU time used, in core-seconds", found, lambda one: f"{one.cpu_ns / 1e9!r}"
        )
        name = f"{subject}_memory_working_set_bytes"
        yield from _series(name, "gauge", "Working set, in bytes", found, lambda one: f"{one.working_set_bytes}")
    begun = [(labels, one) for labels, one in containers if one.since_s]
    name = "container_start_time_seconds"
    yield from _series(name, "gauge", "When it began, in seconds since 1970", begun, lambda one: f"{one.since_s:.3f}")
    yield "# HELP resource_scrape_error 1 where the figures could not be had"
    yield "# TYPE resource_scrape_error gauge"
    yield "resource_scrape_error 0"


def total(usages: Sequence[Usage]) -> Usage:
    """Of a pod: the sum of its containers, from the oldest measurement on."""
    return Usage(
        min(each.at_s for each in usages),
        min(each.window_s for each in usages),
        sum(each.cpu_nano_cores for each in usages),
        sum(each.cpu_ns for each in usages),
        sum(each.working_set_bytes for each in usages),
        sum(each.memory_bytes for each in usages),
        sum(each.rss_bytes for each in usages),
    )


def _series(name: str, kind: str, text: str, found: Iterable[tuple[str, Usage]], value: Any) -> Iterator[str]:
    found = list(found)
    if found:
        yield f"# HELP {name} {text}"
        yield f"# TYPE {name} {kind}"
    for labels, usage in found:
        stamp = int(usage.at_s * 1000)
        yield f"{name}{f'{{{labels}}}' if labels else ''} {value(usage)} {stamp}"


def _pod(pod: PodUsage) -> dict[str, Any]:
    usages = list(pod.containers.values())
    return {
        "podRef": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
        "startTime": _moment(pod.since_s),
        "containers": [
            {"name": name, "startTime": _moment(one.since_s), "cpu": _cpu([one]), "memory": _memory([one])}
            for name, one in pod.containers.items()
        ],
        "cpu": _cpu(usages),
        "memory": _memory(usages),
    }


def _cpu(usages: Sequence[Usage]) -> dict[str, Any]:
    one = total(usages)
    return {
        "time": _moment(one.at_s),
        "usageNanoCores": one.cpu_nano_cores,
        "usageCoreNanoSeconds": one.cpu_ns,
    }


def _memory(usages: Sequence[Usage]) -> dict[str, Any]:
    one = total(usages)
    return {
        "time": _moment(one.at_s),
        "usageBytes": one.memory_bytes,
        "workingSetBytes": one.working_set_bytes,
        "rssBytes": one.rss_bytes,
    }


def _file_system(folder: str, at_s: float) -> dict[str, Any]:
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    disk, files = shutil.disk_usage(folder), os.statvfs(folder)
    return {
        "time": _moment(at_s),
        "availableBytes": disk.free,
        "capacityBytes": disk.total,
        "usedBytes": disk.used,
        "inodesFree": files.f_ffree,
        "inodes": files.f_files,
        "inodesUsed": files.f_files - files.f_ffree,
    }


def _memory_total() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _moment(at_s: float) -> str:
    return utc(at_s).strftime("%Y-%m-%dT%H:%M:%SZ")
