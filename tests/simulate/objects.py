"""What objects say, read anew: not by the product's own functions, which may be wrong."""

from __future__ import annotations

from typing import Any

from knarr.api.apps.v1 import DaemonSet, Deployment, ReplicaSet, StatefulSet
from knarr.api.autoscaling.v2 import HorizontalPodAutoscaler
from knarr.api.batch.v1 import Job
from knarr.api.core.v1 import Pod
from knarr.api.quantity import parse_quantity
from knarr.simulate.clock import START_S


def is_going(obj: Any) -> bool:
    return obj.metadata.deletion_timestamp is not None


def phase(pod: Pod) -> str:
    return (pod.status.phase if pod.status else None) or "Pending"


def is_terminal(pod: Pod) -> bool:
    return phase(pod) in ("Succeeded", "Failed")


def is_ready(pod: Pod) -> bool:
    return bool(pod.status) and any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions)


def available_for_s(pod: Pod, now_s: float) -> float:
    """For how long it has been ready, as its status says; less than nothing when it isn't, or has ended."""
    if is_terminal(pod) or is_going(pod) or pod.status is None:
        return -1.0
    since = [c.last_transition_time for c in pod.status.conditions if c.type == "Ready" and c.status == "True"]
    return START_S + now_s - since[0].timestamp() if since and since[0] else -1.0


def owner_uid(obj: Any) -> str | None:
    return next((each.uid for each in obj.metadata.owner_references if each.controller), None)


def is_pod_of_job(obj: Any) -> bool:
    return any(each.kind == "Job" for each in obj.metadata.owner_references)


def selects(owner: Any, obj: Any) -> bool:
    selector = owner.spec.selector
    labels = selector.match_labels if hasattr(selector, "match_labels") else selector
    return labels.items() <= obj.metadata.labels.items()


def node_name(pod: Pod) -> str:
    return (pod.spec.node_name if pod.spec else None) or ""


def node_of(pod: Pod) -> str:
    """Where it is, or is meant to be by its affinity."""
    if node_name(pod):
        return node_name(pod)
    required = pod.spec.affinity.node_affinity.required_during_scheduling_ignored_during_execution
    return str(required.node_selector_terms[0].match_fields[0].values[0])


def request(pod: Pod, name: str) -> Any:
    return sum(
        parse_quantity(container.resources.requests.get(name, "0")) if container.resources else 0
        for container in pod.spec.containers
    )


def replicas_of(workload: Any) -> int:
    return 1 if workload.spec.replicas is None else workload.spec.replicas


def share(written: int | str | None, whole: int, *, up: bool) -> int:
    if isinstance(written, str):
        parts = whole * int(written.rstrip("%"))
        return -(-parts // 100) if up else parts // 100
    return written or 0


def is_recreate(deployment: Deployment) -> bool:
    return bool(deployment.spec.strategy and deployment.spec.strategy.type == "Recreate")


def surge_and_unavailable(deployment: Deployment) -> tuple[int, int]:
    if is_recreate(deployment):
        return 0, replicas_of(deployment)
    rolling = deployment.spec.strategy.rolling_update
    surge = share(rolling.max_surge, replicas_of(deployment), up=True)
    unavailable = share(rolling.max_unavailable, replicas_of(deployment), up=False)
    return surge, unavailable if surge or unavailable else 1


def bare_template(replica_set: ReplicaSet) -> Any:
    template = replica_set.spec.template
    labels = {k: v for k, v in template.metadata.labels.items() if k != "pod-template-hash"}
    return labels, template.metadata.annotations, template.spec


def ordinal_of(obj: Any) -> int:
    return int((obj.metadata.name or "").rpartition("-")[2])


def ordinals(stateful_set: StatefulSet) -> range:
    start = (stateful_set.spec.ordinals.start if stateful_set.spec.ordinals else 0) or 0
    return range(start, start + replicas_of(stateful_set))


def is_parallel(stateful_set: StatefulSet) -> bool:
    return stateful_set.spec.pod_management_policy == "Parallel"


def is_on_delete(workload: Any) -> bool:
    return bool(workload.spec.update_strategy) and workload.spec.update_strategy.type == "OnDelete"


def _rolling(workload: Any) -> Any:
    return workload.spec.update_strategy.rolling_update if workload.spec.update_strategy else None


def set_unavailable(stateful_set: StatefulSet) -> int:
    rolling = _rolling(stateful_set)
    if rolling is None or rolling.max_unavailable is None:
        return 1
    return max(1, share(rolling.max_unavailable, replicas_of(stateful_set), up=False))


def partition_of(stateful_set: StatefulSet) -> int:
    rolling = _rolling(stateful_set)
    return (rolling.partition if rolling else 0) or 0


def daemon_bounds(daemon_set: DaemonSet, nodes: int) -> tuple[int, int]:
    """Nodes that may be without a pod, and that may have two."""
    rolling = _rolling(daemon_set)
    if rolling is None:
        return nodes, 0
    surge = share(rolling.max_surge, nodes, up=True)
    unavailable = share(rolling.max_unavailable, nodes, up=True)
    return (unavailable, surge) if surge or unavailable else (1, 0)


def most_running(job: Job) -> int:
    spec, status = job.spec, job.status
    parallelism = 1 if spec.parallelism is None else spec.parallelism
    if spec.suspend:
        return 0
    if spec.completions is None:
        return parallelism
    return min(parallelism, spec.completions - ((status.succeeded or 0) if status else 0))


def is_over(job: Job) -> bool:
    return bool(job.status) and any(
        each.type in ("Complete", "Failed", "SuccessCriteriaMet", "FailureTarget") and each.status == "True"
        for each in job.status.conditions
    )


def job_end(job: Job) -> str:
    """Complete or Failed; nothing while it runs."""
    conditions = job.status.conditions if job.status else ()
    return next((each.type for each in conditions if each.type in ("Complete", "Failed") and each.status == "True"), "")


def bounds_of(autoscaler: HorizontalPodAutoscaler) -> tuple[int, int]:
    least = autoscaler.spec.min_replicas
    return 1 if least is None else least, autoscaler.spec.max_replicas


def wanted_for(autoscaler: HorizontalPodAutoscaler, load_m: int) -> tuple[int, int]:
    """The fewest and the most replicas that are right for a load that all pods share, by tolerance and bounds."""
    (metric,) = autoscaler.spec.metrics
    (source,) = filter(None, (metric.resource, metric.container_resource, metric.pods, metric.external))
    aim = source.target
    target_m = aim.average_utilization or int(parse_quantity(aim.average_value or 0) * 1000)
    least, most = bounds_of(autoscaler)
    exact = -(-load_m // target_m)
    # A share is rounded down to whole percents, so that a few thousandths more go unseen; TOLERANCE is upstream's.
    tolerated = [count for count in range(1, most + 1) if 0.9 <= load_m / (target_m * count) <= 1.12]
    found = [min(max(count, least), most) for count in (exact, *tolerated)]
    return min(found), max(found)


def size_of(amounts: dict[str, Any]) -> Any:
    return parse_quantity(amounts.get("storage", 0))
