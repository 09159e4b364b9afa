"""How many replicas a metric asks for: pure arithmetic over pods and samples (upstream's replica_calculator.go).

Pods that are going or have failed don't count. Those that have not started, or whose CPU is still that of starting up,
count as idle when it is about more replicas; those without a sample count as idle for more, and as busy for fewer: so
that no guess leads further than what was measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct, field

from knarr.api.core.pod_amounts import pod_requests
from knarr.api.core.pod_state import is_ready, phase, ready_condition
from knarr.api.core.v1 import Pod, PodSpec
from knarr.api.quantity import milli
from knarr.controllers.pods import seconds

CPU_INITIALIZATION_S = 300.0
"""For so long after its start a pod's CPU counts only while it is ready."""
INITIAL_READINESS_S = 30.0
"""A pod that became unready within so long of its start has never really been ready."""
TOLERANCE = 0.1


class NoAnswer(Exception):
    """The metric says nothing about the number of replicas."""


class Sample(Struct, frozen=True):
    """What a pod uses, in thousandths of the metric's unit, taken over `window_s` until `time_s`."""

    value: int
    time_s: float
    window_s: float


class Tolerances(Struct, frozen=True):
    """How far from the target a metric may be without anything being done (KEP-4951)."""

    up: float = TOLERANCE
    down: float = TOLERANCE

    def hold(self, ratio: float) -> bool:
        return 1 - self.down <= ratio <= 1 + self.up


class Proposal(Struct, frozen=True):
    """Replicas that a metric asks for, and what it was found to be."""

    replicas: int
    average_value: int | None = None
    """Thousandths."""
    utilization: int | None = None
    """Percent."""
    value: int | None = None


class _Groups(Struct):
    """Names of pods by what their samples are worth."""

    ready: int = 0
    unready: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


def by_utilization(
    pods: Sequence[Pod],
    samples: Mapping[str, Sample],
    resource: str,
    container: str,
    target: int,
    current: int,
    tolerances: Tolerances,
    now_s: float,
) -> Proposal:
    """So many replicas that they use `target` percent of what they request. Raises NoAnswer."""
    usage, groups = _measured(pods, samples, resource, now_s)
    requests = {pod.metadata.name or "": _request(pod, resource, container) for pod in pods}
    utilization, average = _utilization(usage, requests)
    ratio = utilization / target

    def filled(without_sample: bool) -> float:
        """The ratio when pods that say nothing count."""
        if without_sample:
            fallback = max(100, target) if ratio < 1 else 0
            usage.update({name: requests[name] * fallback // 100 for name in groups.missing})
        if groups.unready and ratio > 1:
            usage.update(dict.fromkeys(groups.unready, 0))
        return _utilization(usage, requests)[0] / target

    return Proposal(_replicas(usage, groups, ratio, filled, current, tolerances), average, utilization)


def by_average(
    pods: Sequence[Pod],
    samples: Mapping[str, Sample],
    resource: str,
    target: int,
    current: int,
    tolerances: Tolerances,
    now_s: float,
) -> Proposal:
    """So many replicas that each has `target` (thousandths) of the metric. Raises NoAnswer."""
    usage, groups = _measured(pods, samples, resource, now_s)
    average = sum(usage.values()) // len(usage)
    ratio = average / target

    def filled(without_sample: bool) -> float:
        if without_sample:
            usage.update(dict.fromkeys(groups.missing, target if ratio < 1 else 0))
        if groups.unready and ratio > 1:
            usage.update(dict.fromkeys(groups.unready, 0))
        return sum(usage.values()) // len(usage) / target

    return Proposal(_replicas(usage, groups, ratio, filled, current, tolerances), average)


def by_value(pods: Sequence[Pod], value: int, target: int, current: int, tolerances: Tolerances) -> Proposal:
    """One value for all replicas together, which falls as there are more of them."""
    ratio = value / target
    if not current:
        return Proposal(math.ceil(ratio), value=value)
    if tolerances.hold(ratio):
        return Proposal(current, value=value)
    ready = sum(phase(pod) == "Running" and is_ready(pod) for pod in pods)
    return Proposal(math.ceil(ratio * ready), value=value)


def by_value_per_pod(value: int, target: int, current: int, tolerances: Tolerances) -> Proposal:
    """One value that the replicas share evenly."""
    average = math.ceil(value / current) if current else value
    if current and tolerances.hold(value / (target * current)):
        return Proposal(current, average_value=average)
    return Proposal(math.ceil(value / target), average_value=average)


def _measured(
    pods: Sequence[Pod], samples: Mapping[str, Sample], resource: str, now_s: float
) -> tuple[dict[str, int], _Groups]:
    """What the pods that count use. Raises NoAnswer."""
    if not pods:
        raise NoAnswer("no pods returned by selector while calculating replica count")
    groups = _grouped(pods, samples, resource, now_s)
    left_out = {*groups.unready, *groups.ignored}
    usage = {name: sample.value for name, sample in samples.items() if name not in left_out}
    if not usage:
        raise NoAnswer("did not receive metrics for targeted pods (pods might be unready)")
    return usage, groups


def _grouped(pods: Sequence[Pod], samples: Mapping[str, Sample], resource: str, now_s: float) -> _Groups:
    groups = _Groups()
    for pod in pods:
        name = pod.metadata.name or ""
        sample = samples.get(name)
        if pod.metadata.deletion_timestamp is not None or phase(pod) == "Failed":
            groups.ignored.append(name)
        elif phase(pod) == "Pending":
            groups.unready.append(name)
        elif sample is None:
            groups.missing.append(name)
        elif resource == "cpu" and _is_starting(pod, sample, now_s):
            groups.unready.append(name)
        else:
            groups.ready += 1
    return groups


def _is_starting(pod: Pod, sample: Sample, now_s: float) -> bool:
    """Its CPU is that of starting up, not of serving."""
    condition = ready_condition(pod)
    started = pod.status.start_time if pod.status else None
    if condition is None or started is None or condition.last_transition_time is None:
        return True
    since_s = seconds(condition.last_transition_time)
    unready = condition.status == "False"
    if seconds(started) + CPU_INITIALIZATION_S > now_s:
        return unready or sample.time_s < since_s + sample.window_s
    return unready and seconds(started) + INITIAL_READINESS_S > since_s


def _request(pod: Pod, resource: str, container: str) -> int:
    """What a pod (or one container of it) requests, in thousandths. Raises NoAnswer when it requests nothing."""
    spec = pod.spec or PodSpec()
    if not container and spec.resources and resource in spec.resources.requests:
        return milli(pod_requests(spec, overhead=False)[resource])
    sidecars = [each for each in spec.init_containers if each.restart_policy == "Always"]
    total = 0
    for each in (*spec.containers, *sidecars):
        if container and each.name != container:
            continue
        requests = each.resources.requests if each.resources else {}
        if resource not in requests:
            name, where = pod.metadata.name, f"container {each.name}"
            raise NoAnswer(f"missing request for {resource} in {where} of Pod {name}")
        total += milli(requests[resource])
    return total


def _utilization(usage: Mapping[str, int], requests: Mapping[str, int]) -> tuple[int, int]:
    """Percent of what is requested, and the average in thousandths. Raises NoAnswer."""
    used = {name: value for name, value in usage.items() if name in requests}
    requested = sum(requests[name] for name in used)
    if not requested:
        raise NoAnswer("no metrics returned matched known pods")
    total = sum(used.values())
    return total * 100 // requested, total // len(used)


def _replicas(
    usage: Mapping[str, int],
    groups: _Groups,
    ratio: float,
    filled: Callable[[bool], float],
    current: int,
    tolerances: Tolerances,
) -> int:
    if not groups.missing and not (groups.unready and ratio > 1):
        return current if tolerances.hold(ratio) else math.ceil(ratio * groups.ready)
    with_guesses = filled(bool(groups.missing))
    turned = (ratio < 1 < with_guesses) or (with_guesses < 1 < ratio)
    if tolerances.hold(with_guesses) or turned:
        return current
    replicas = math.ceil(with_guesses * len(usage))
    if (with_guesses < 1 and replicas > current) or (with_guesses > 1 and replicas < current):
        return current
    return replicas
