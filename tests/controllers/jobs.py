"""Jobs for tests, and pods that end as a test wants it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from knarr.api.batch.v1 import Job
from knarr.api.core.pod_state import is_active, phase
from knarr.api.core.v1 import Pod
from knarr.api.errors import NotFound
from knarr.client.informer import version_of
from knarr.clock import utc
from tests.cluster import Cluster

INDEX = "batch.kubernetes.io/job-completion-index"
TRACKING = "batch.kubernetes.io/job-tracking"


def job(name: str = "work", *, restart: str = "Never", **spec: Any) -> Job:
    containers = [{"name": "c", "image": "one"}]
    template = {"spec": {"restartPolicy": restart, "containers": containers}}
    return msgspec.convert(
        {"metadata": {"name": name, "namespace": "default"}, "spec": {"template": template, **spec}}, Job
    )


def indexed(completions: int, **spec: Any) -> Job:
    return job(completionMode="Indexed", completions=completions, **{"parallelism": completions, **spec})


def the_job(cluster: Cluster, name: str = "work") -> Job:
    found = cluster.informers.of(Job).get(f"default/{name}")
    if found is None:
        raise NotFound(name)
    return found


def status(cluster: Cluster, name: str = "work") -> dict[str, Any]:
    """As it is written, without conditions and times."""
    found = cluster.informers.of(Job).get(f"default/{name}")
    written: dict[str, Any] = msgspec.to_builtins(found.status) if found and found.status else {}
    return {key: value for key, value in written.items() if key != "conditions" and not key.endswith("Time")}


def conditions(cluster: Cluster, name: str = "work") -> list[tuple[str, str, str, str]]:
    found = the_job(cluster, name).status
    return [(one.type, one.status, one.reason or "", one.message or "") for one in (found.conditions if found else [])]


def ended(cluster: Cluster, name: str = "work") -> str:
    """Complete or Failed, or nothing."""
    return next((kind for kind, on, _, _ in conditions(cluster, name) if kind in ("Complete", "Failed")), "")


def running(cluster: Cluster) -> list[Pod]:
    pods = [pod for pod in cluster.pods.all() if is_active(pod) and phase(pod) == "Running"]
    return sorted(pods, key=lambda pod: (index(pod), pod.metadata.name or ""))


def index(pod: Pod) -> int:
    return int(pod.metadata.annotations.get(INDEX, -1))


def indexes(pods: Iterable[Pod]) -> list[int]:
    return sorted(map(index, pods))


async def end(
    cluster: Cluster, pod: Pod, exit_code: int = 0, *, conditions: Iterable[str] = (), phase: str = ""
) -> None:
    """What the node would say of a pod whose container has ended."""
    now = utc(cluster.clock.time_s())
    terminated = {"exitCode": exit_code, "finishedAt": now, "startedAt": now}
    container = {"name": "c", "image": "one", "imageID": "", "ready": False, "restartCount": 0}
    told = [{"type": kind, "status": "True", "lastTransitionTime": now} for kind in conditions]
    patched = await cluster.client.patch(
        Pod,
        pod.metadata.name or "",
        {
            "status": {
                "phase": phase or ("Failed" if exit_code else "Succeeded"),
                "containerStatuses": [container | {"state": {"terminated": terminated, "running": None}}],
                "conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": now}, *told],
            }
        },
        pod.metadata.namespace,
        subresource="status",
    )
    await cluster.pods.reached(version_of(patched))


async def run(cluster: Cluster, count: int) -> list[Pod]:
    """Wait until so many pods run."""
    await cluster.until(lambda: len(running(cluster)) == count)
    return running(cluster)
