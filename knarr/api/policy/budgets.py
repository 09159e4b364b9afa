"""PodDisruptionBudgets: how many pods of a kind may be away at once by somebody's will. Rules, and how they are shown.

Follows upstream's ValidatePodDisruptionBudget; what an eviction asks of them is in knarr/apiserver/eviction.py.
"""

from __future__ import annotations

from collections.abc import Iterable

from knarr.api import names
from knarr.api.apps.workloads import validate_count_or_share, validate_share
from knarr.api.core.templates import age_column
from knarr.api.core.validate_values import validate_not_negative, validate_selector
from knarr.api.errors import Cause, invalid, not_supported
from knarr.api.meta.conditions import validate_conditions
from knarr.api.policy.v1 import PodDisruptionBudget, PodDisruptionBudgetSpec, PodDisruptionBudgetStatus
from knarr.api.resources import Column, Strategy

UNHEALTHY_POLICIES = ("AlwaysAllow", "IfHealthyBudget")
"""KEP-3017: whether pods that are not ready may go while the budget is not met."""


class PodDisruptionBudgetRules(Strategy[PodDisruptionBudget]):
    name_faults = staticmethod(names.path_segment_faults)
    has_status = True
    has_generation = True
    allow_unconditional_update = False

    def default(self, obj: PodDisruptionBudget) -> None:
        obj.spec = obj.spec or PodDisruptionBudgetSpec()

    def prepare_for_create(self, obj: PodDisruptionBudget) -> None:
        obj.status = PodDisruptionBudgetStatus(
            current_healthy=0, desired_healthy=0, disruptions_allowed=0, expected_pods=0
        )

    def prepare_for_status_update(self, obj: PodDisruptionBudget, old: PodDisruptionBudget) -> None:
        status = obj.status or PodDisruptionBudgetStatus()
        status.current_healthy = status.current_healthy or 0
        status.desired_healthy = status.desired_healthy or 0
        status.disruptions_allowed = status.disruptions_allowed or 0
        status.expected_pods = status.expected_pods or 0

    def validate(self, obj: PodDisruptionBudget) -> Iterable[Cause]:
        spec = obj.spec or PodDisruptionBudgetSpec()
        if spec.min_available is not None and spec.max_unavailable is not None:
            yield invalid("spec", spec, "minAvailable and maxUnavailable cannot be both set")
        for field, value in (("minAvailable", spec.min_available), ("maxUnavailable", spec.max_unavailable)):
            yield from validate_count_or_share(value, f"spec.{field}")
            yield from validate_share(value, f"spec.{field}")
        yield from validate_selector(spec.selector, "spec.selector")
        policy = spec.unhealthy_pod_eviction_policy
        if policy is not None and policy not in UNHEALTHY_POLICIES:
            yield not_supported("spec.unhealthyPodEvictionPolicy", policy, UNHEALTHY_POLICIES)

    def validate_status_update(self, obj: PodDisruptionBudget, old: PodDisruptionBudget) -> Iterable[Cause]:
        status = obj.status or PodDisruptionBudgetStatus()
        yield from validate_conditions(status.conditions, "status.conditions")
        for field, value in (
            ("disruptionsAllowed", status.disruptions_allowed),
            ("currentHealthy", status.current_healthy),
            ("desiredHealthy", status.desired_healthy),
            ("expectedPods", status.expected_pods),
        ):
            yield from validate_not_negative(value, f"status.{field}")


def _or_not_applicable(value: int | str | None) -> str:
    return "N/A" if value is None else str(value)


POD_DISRUPTION_BUDGET_COLUMNS = (
    Column("Min Available", lambda obj, now_s: _or_not_applicable(obj.spec.min_available if obj.spec else None)),
    Column("Max Unavailable", lambda obj, now_s: _or_not_applicable(obj.spec.max_unavailable if obj.spec else None)),
    Column(
        "Allowed Disruptions",
        lambda obj, now_s: (obj.status.disruptions_allowed if obj.status else 0) or 0,
        type="integer",
    ),
    age_column(),
)
