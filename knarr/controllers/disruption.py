"""PodDisruptionBudgets: how many pods may be taken away now.

The status says how many of the pods that a budget selects should be there, are healthy, and may go; evictions and
preemption read it and charge it (upstream's pkg/controller/disruption). How many should be there is what the
controllers of the pods want, unless minAvailable is a plain number: then it is those that are there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct

from knarr.api.apps.v1 import Deployment, ReplicaSet, StatefulSet
from knarr.api.core.pod_state import is_ready
from knarr.api.core.v1 import Pod, ReplicationController
from knarr.api.meta.owners import controller_of, selector_for
from knarr.api.meta.v1 import Condition, OwnerReference
from knarr.api.policy.v1 import PodDisruptionBudget, PodDisruptionBudgetSpec, PodDisruptionBudgetStatus
from knarr.api.types import replace
from knarr.client.controller import Controller
from knarr.client.informer import Informer, key_of
from knarr.clock import utc
from knarr.controllers.pods import seconds
from knarr.controllers.rolling import part_of

DELETION_MAX_S = 120.0
"""A pod whose eviction was granted counts as gone for so long, until its deletion shows."""
ALLOWED = "DisruptionAllowed"
NO_PODS = "No matching pods found"
UNMANAGED = (
    "Pods selected by this PodDisruptionBudget (selector: {selector}) were found to be unmanaged. As a result, the "
    "status of the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these "
    'pods please set ".spec.minAvailable" field of the PDB to an integer value.'
)

ScaleOf = Callable[[OwnerReference, str], tuple[str, int]]
"""scale(controller, namespace): the uid of what decides how many pods there are, and how many it wants."""


class Uncountable(Exception):
    """Nobody can say how many pods there should be."""


class Count(Struct, frozen=True):
    """What a budget comes to."""

    expected: int
    desired: int
    """Healthy ones that must be there."""
    healthy: int
    unmanaged: bool = False
    """Some pods have no controller, so that nobody knows how many there should be."""

    @property
    def allowed(self) -> int:
        return max(0, self.healthy - self.desired) if self.expected > 0 else 0


class DisruptionBudgets(Controller):
    """policy/v1 PodDisruptionBudget."""

    name = "disruption-controller"
    needs = (PodDisruptionBudget,)
    min_interval_s = 0.02

    def watch(self) -> None:
        self.budgets = self.informer(PodDisruptionBudget)
        self.pods = self.informer(Pod)
        self._scalable: dict[str, Informer[Any]] = {
            kind.__name__: self.informer(kind) for kind in (Deployment, ReplicaSet, StatefulSet, ReplicationController)
        }
        self.on(self.budgets, key_of)
        self.on(self.pods, self._keys_of_pod)
        for informer in self._scalable.values():
            self.on_change(informer, self._keys_of_scalable)

    async def reconcile(self, key: str) -> float | None:
        budget = self.budgets.get(key)
        if budget is None:
            return None
        selector = selector_for(budget.spec.selector if budget.spec else None)
        pods = [
            pod
            for pod in self.pods.all(budget.metadata.namespace)
            if selector is not None and selector.matches(pod.metadata.labels)
        ]
        if not pods:
            self.events.normal(budget, "NoPods", NO_PODS)
        now_s = self.clock.time_s()
        disrupted, late = disrupted_pods(budget, pods, now_s)
        for pod in late:
            message = f"Pod was expected by PDB {key} to be deleted but it wasn't"
            self.events.warning(pod, "NotDeleted", message)
        try:
            count = count_of(budget, pods, disrupted, self._scale)
        except Uncountable as error:
            self.events.warning(
                budget, "CalculateExpectedPodCountFailed", f"Failed to calculate the number of expected pods: {error}"
            )
            await self._write(budget, failed_status(budget, str(error), now_s))
            return None
        if count.unmanaged:
            self.events.warning(budget, "UnmanagedPods", UNMANAGED.format(selector=selector))
        await self._write(budget, status_of(budget, count, disrupted, now_s))
        ends = (seconds(granted) + DELETION_MAX_S - now_s for granted in disrupted.values())
        return min((max(0.0, end_s) + 0.001 for end_s in ends), default=None)

    async def _write(self, budget: PodDisruptionBudget, status: PodDisruptionBudgetStatus) -> None:
        if status != budget.status:
            await self.client.update_status(replace(budget, status=status))

    def _scale(self, reference: OwnerReference, namespace: str) -> tuple[str, int]:
        """A Deployment decides for its ReplicaSets. Raises Uncountable."""
        informer = self._scalable.get(reference.kind)
        if informer is None:
            group = reference.api_version.rpartition("/")[0]
            plural = f"{reference.kind.lower()}s"
            what = f"{plural}.{group}" if group else plural
            raise Uncountable(f"{what} does not implement the scale subresource")
        owner = informer.get(f"{namespace}/{reference.name}")
        if owner is None or owner.metadata.uid != reference.uid:
            return reference.uid, 0
        above = controller_of(owner)
        if above and above.kind in self._scalable:
            return self._scale(above, namespace)
        return reference.uid, 1 if owner.spec.replicas is None else owner.spec.replicas

    def _keys_of_pod(self, pod: Pod) -> list[str]:
        return [
            key_of(budget)
            for budget in self.budgets.all(pod.metadata.namespace)
            if (selector := selector_for(budget.spec.selector if budget.spec else None))
            and selector.matches(pod.metadata.labels)
        ]

    def _keys_of_scalable(self, old: Any, new: Any) -> list[str]:
        """All budgets of the namespace, when the number of pods that somebody wants has changed."""
        if old is not None and new is not None and old.spec.replicas == new.spec.replicas:
            return []
        return [key_of(budget) for budget in self.budgets.all((new or old).metadata.namespace)]


def count_of(budget: PodDisruptionBudget, pods: Sequence[Pod], disrupted: dict[str, datetime], scale: ScaleOf) -> Count:
    """What a budget comes to with these pods. Raises Uncountable."""
    spec = budget.spec or PodDisruptionBudgetSpec()
    healthy = sum(
        is_ready(pod) and pod.metadata.deletion_timestamp is None and pod.metadata.name not in disrupted for pod in pods
    )
    if spec.max_unavailable is not None:
        expected, unmanaged = _expected(pods, scale)
        desired = max(0, expected - part_of(spec.max_unavailable, expected, up=True))
        return Count(expected, desired, healthy, unmanaged)
    if isinstance(spec.min_available, str):
        expected, unmanaged = _expected(pods, scale)
        return Count(expected, part_of(spec.min_available, expected, up=True), healthy, unmanaged)
    if spec.min_available is not None:
        return Count(len(pods), spec.min_available, healthy)
    return Count(0, 0, healthy)


def _expected(pods: Sequence[Pod], scale: ScaleOf) -> tuple[int, bool]:
    """How many pods their controllers want together, and whether some have none."""
    controllers: dict[str, OwnerReference] = {}
    unmanaged = False
    for pod in pods:
        reference = controller_of(pod)
        if reference is None:
            unmanaged = True
        else:
            controllers[reference.uid] = reference
    namespace = (pods[0].metadata.namespace or "") if pods else ""
    return sum(dict(scale(reference, namespace) for reference in controllers.values()).values()), unmanaged


def disrupted_pods(
    budget: PodDisruptionBudget, pods: Sequence[Pod], now_s: float
) -> tuple[dict[str, datetime], list[Pod]]:
    """Pods whose eviction was granted and doesn't show yet, and those for which that has taken too long."""
    granted = budget.status.disrupted_pods if budget.status else {}
    waiting: dict[str, datetime] = {}
    late = []
    for pod in pods:
        since = granted.get(pod.metadata.name or "")
        if since is None or pod.metadata.deletion_timestamp is not None:
            continue
        if seconds(since) + DELETION_MAX_S > now_s:
            waiting[pod.metadata.name or ""] = since
        else:
            late.append(pod)
    return waiting, late


def status_of(
    budget: PodDisruptionBudget, count: Count, disrupted: dict[str, datetime], now_s: float
) -> PodDisruptionBudgetStatus:
    reason = "SufficientPods" if count.allowed else "InsufficientPods"
    return PodDisruptionBudgetStatus(
        conditions=_with_allowed(budget, bool(count.allowed), reason, "", now_s),
        current_healthy=count.healthy,
        desired_healthy=count.desired,
        expected_pods=count.expected,
        disruptions_allowed=count.allowed,
        disrupted_pods=dict(disrupted),
        observed_generation=budget.metadata.generation,
    )


def failed_status(budget: PodDisruptionBudget, message: str, now_s: float) -> PodDisruptionBudgetStatus:
    """To be on the safe side nothing may go."""
    return replace(
        budget.status or PodDisruptionBudgetStatus(),
        disruptions_allowed=0,
        observed_generation=budget.metadata.generation,
        conditions=_with_allowed(budget, False, "SyncFailed", message, now_s),
    )


def _with_allowed(
    budget: PodDisruptionBudget, allowed: bool, reason: str, message: str, now_s: float
) -> list[Condition]:
    old = budget.status.conditions if budget.status else []
    before = next((condition for condition in old if condition.type == ALLOWED), None)
    status = "True" if allowed else "False"
    since = before.last_transition_time if before and before.status == status else utc(now_s)
    condition = Condition(
        type=ALLOWED,
        status=status,
        reason=reason,
        message=message,
        observed_generation=budget.metadata.generation,
        last_transition_time=since,
    )
    return [*(each for each in old if each.type != ALLOWED), condition]
