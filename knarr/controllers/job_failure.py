"""What a failed pod means to its Job, and when an indexed Job has succeeded early.

The rules of a pod failure policy are KEP-3329 (FailIndex: KEP-3850), those of a success policy KEP-3998. The first rule
that matches decides.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from knarr.api.batch.indexes import Intervals, count_indexes, read_indexes
from knarr.api.batch.v1 import (
    PodFailurePolicy,
    PodFailurePolicyOnExitCodesRequirement,
    PodFailurePolicyRule,
    SuccessPolicy,
)
from knarr.api.core.v1 import ContainerStatus, Pod, PodStatus


class Judgement(Struct, frozen=True):
    """What a failed pod means."""

    action: str = "Count"
    message: str = ""
    """Of FailJob: why the Job fails."""

    @property
    def counts(self) -> bool:
        """Whether it counts against the limits."""
        return self.action != "Ignore"


def judge(policy: PodFailurePolicy | None, pod: Pod) -> Judgement:
    """What the first rule that matches says; without one a failure counts."""
    for number, rule in enumerate(policy.rules if policy else ()):
        found = _matched(rule, pod)
        if found:
            return Judgement(rule.action, f"{found} matching {rule.action} rule at index {number}")
    return Judgement()


def _matched(rule: PodFailurePolicyRule, pod: Pod) -> str:
    """What of the pod the rule matches, in words."""
    status, name = pod.status or PodStatus(), f"{pod.metadata.namespace}/{pod.metadata.name}"
    if rule.on_exit_codes is not None:
        for container in (*status.container_statuses, *status.init_container_statuses):
            code = _exit_code(container)
            if code and _names(rule.on_exit_codes, container.name) and _is_meant(rule.on_exit_codes, code):
                return f"Container {container.name} for pod {name} failed with exit code {code}"
        return ""
    for condition in status.conditions:
        for pattern in rule.on_pod_conditions:
            if (condition.type, condition.status) == (pattern.type, pattern.status):
                return f"Pod {name} has condition {condition.type}"
    return ""


def _exit_code(container: ContainerStatus) -> int:
    """0 while it runs."""
    terminated = container.state.terminated if container.state else None
    return terminated.exit_code if terminated else 0


def _names(requirement: PodFailurePolicyOnExitCodesRequirement, container: str) -> bool:
    return requirement.container_name in (None, container)


def _is_meant(requirement: PodFailurePolicyOnExitCodesRequirement, code: int) -> bool:
    return (code in requirement.values) == (requirement.operator == "In")


def met_criteria(policy: SuccessPolicy | None, completions: int, succeeded: Intervals) -> str:
    """Which rule of a success policy is met, in words."""
    if policy is None or not succeeded:
        return ""
    for number, rule in enumerate(policy.rules):
        if rule.succeeded_indexes is None:
            met = rule.succeeded_count is not None and count_indexes(succeeded) >= rule.succeeded_count
        else:
            wanted = read_indexes(rule.succeeded_indexes, completions)
            enough = count_indexes(wanted) if rule.succeeded_count is None else rule.succeeded_count
            met = bool(wanted) and _count_common(wanted, succeeded) >= enough
        if met:
            return f"Matched rules at index {number}"
    return ""


def _count_common(one: Intervals, other: Intervals) -> int:
    return sum(last - first + 1 for first, last in _common(one, other))


def _common(one: Intervals, other: Intervals) -> Iterable[tuple[int, int]]:
    left = right = 0
    while left < len(one) and right < len(other):
        first, last = max(one[left][0], other[right][0]), min(one[left][1], other[right][1])
        if first <= last:
            yield first, last
        if one[left][1] < other[right][1]:
            left += 1
        else:
            right += 1
