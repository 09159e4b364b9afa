"""Eviction: a pod is asked to go, and goes when the budgets of its kind allow it (`kubectl drain`).

POST pods/NAME/eviction with an Eviction (policy/v1). A PodDisruptionBudget that selects the pod is charged first, in a
write of its own that fails when somebody else has changed the budget meanwhile; then the pod is marked with the
condition DisruptionTarget and deleted. The controller that counts pods gives the budget back.

Pods that have ended, have not begun, or are going already cost nothing. A pod that isn't ready costs nothing either
when its budget says so (KEP-3017). Messages and codes are those of upstream's eviction.go.
"""

from __future__ import annotations

from datetime import datetime

import msgspec
from msgspec.structs import replace as with_changes

from knarr.api.core.v1 import Pod, PodCondition, PodStatus
from knarr.api.decode import decoder
from knarr.api.errors import APIError, BadRequest, Cause, Conflict, Forbidden, InternalError, TooManyRequests
from knarr.api.meta import v1 as meta
from knarr.api.meta.owners import selector_for
from knarr.api.policy.v1 import Eviction, PodDisruptionBudget, PodDisruptionBudgetStatus
from knarr.api.resources import Registry
from knarr.api.types import replace
from knarr.apiserver import answers, bodies
from knarr.apiserver.calls import Call
from knarr.apiserver.objects import DeleteOptions, Objects
from knarr.client.transport import Answer
from knarr.clock import Clock, utc
from knarr.store.contract import Store

TRIES_MAX = 20
"""An eviction looks at its pod again this often when others change it meanwhile."""
DISRUPTED_PODS_MAX = 2000
"""Evictions that a budget remembers until its controller has seen them."""
BUSY_RETRY_S = 10
"""When to come again if the budget hasn't been counted since it was changed."""
REFUSED = "Cannot evict pod as it would violate the pod's disruption budget."
SEVERAL_BUDGETS = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."


class SeveralBudgets(APIError):
    """Which of them to charge can't be told. Upstream gives no reason."""

    code, reason = 500, ""


class Evictions:
    """The handler of pods/NAME/eviction."""

    def __init__(self, registry: Registry, store: Store, objects: Objects, clock: Clock) -> None:
        self._pods = registry.of(Pod)
        self._budgets = registry.of(PodDisruptionBudget)
        self._store = store
        self._objects = objects
        self._clock = clock

    async def evict(self, call: Call) -> Answer:
        """Raises NotFound, TooManyRequests, Conflict, Forbidden, BadRequest."""
        if call.request.method != "POST":
            raise answers.method_not_allowed()
        eviction, _ = bodies.object_of(call, Eviction, also=("policy/v1beta1",))
        if eviction.metadata.name != call.path.name:
            raise BadRequest("name in URL does not match name in Eviction object")
        options = _options(eviction, call)
        for _ in range(TRIES_MAX):
            pod: Pod = await self._objects.get(self._pods, call.path.namespace, call.path.name)
            try:
                await self._evict(pod, options, call)
            except _Changed:
                continue
            return answers.success(call.request, 201, code=201)
        raise Conflict.of("", "pods", call.path.name, "the pod was changed again and again; try again")

    async def _evict(self, pod: Pod, options: DeleteOptions, call: Call) -> None:
        """Raises _Changed when the pod is no longer what was decided upon."""
        if costs_nothing(pod):
            pinned = with_changes(options, resource_version=options.resource_version or _version(pod))
            ours = options.resource_version is None and not _is_ending(pod)
            try:
                await self._delete(pod, pinned if ours else options, call)
            except Conflict:
                if not ours:
                    raise
                raise _Changed from None
            return
        budgets = await self._matching(pod)
        if len(budgets) > 1:
            raise SeveralBudgets(SEVERAL_BUDGETS)
        if not budgets:
            await self._delete(pod, options, call)
        elif is_free_of_charge(pod, budgets[0]):
            # It must not have become ready meanwhile.
            pinned = with_changes(options, resource_version=options.resource_version or _version(pod))
            try:
                await self._delete(pod, pinned, call)
            except Conflict:
                if options.resource_version:
                    raise
                raise _busy(budgets[0].metadata.name or "") from None
        else:
            name = budgets[0].metadata.name or ""
            now = utc(self._clock.time_s())
            await self._objects.transform(
                self._budgets,
                pod.metadata.namespace or "",
                name,
                lambda budget: charged(budget, pod.metadata.name or "", now),
                dry_run=options.dry_run,
            )
            await self._delete(pod, options, call)

    async def _matching(self, pod: Pod) -> list[PodDisruptionBudget]:
        """The budgets that select a pod."""
        found = await self._store.range(f"{self._budgets.qualified}/{pod.metadata.namespace}/")
        decode = decoder(PodDisruptionBudget).decode
        budgets: list[PodDisruptionBudget] = []
        for record in found.records:
            budget = decode(record.value)
            selector = selector_for(budget.spec.selector if budget.spec else None)
            if selector is not None and selector.matches(pod.metadata.labels):
                budgets.append(budget)
        return budgets

    async def _delete(self, pod: Pod, options: DeleteOptions, call: Call) -> None:
        """Say why the pod goes, and delete it. Raises Conflict when it isn't the one that was meant."""
        namespace, name = call.path.namespace, call.path.name
        if not options.dry_run:
            now = utc(self._clock.time_s())

            def marked(found: Pod) -> Pod:
                _check(found, options)
                return with_disruption(found, now)

            value = await self._objects.transform(self._pods, namespace, name, marked)
            if options.resource_version:
                # What was asked for is there: from here on it is the marked pod that must stay as it is.
                options = with_changes(options, resource_version=_version(msgspec.json.decode(value, type=Pod)))
        await self._objects.delete(self._pods, namespace, name, options, call.user)


class _Changed(Exception):
    """The pod was changed between being looked at and being deleted."""


def _options(eviction: Eviction, call: Call) -> DeleteOptions:
    """Whether nothing should really happen may be said in the request, in the body, or in both alike."""
    asked = eviction.delete_options or meta.DeleteOptions()
    if asked.dry_run and call.dry_run and asked.dry_run != ["All"]:
        raise InternalError(
            f"Non-matching dry-run options in request and content: [All] and [{' '.join(asked.dry_run)}]"
        )
    return bodies.read_delete_options(asked, dry_run=call.dry_run)


def _version(pod: Pod) -> str:
    return pod.metadata.resource_version or ""


def _check(pod: Pod, options: DeleteOptions) -> None:
    for what, wanted, found in (
        ("UID", options.uid, pod.metadata.uid),
        ("ResourceVersion", options.resource_version, _version(pod)),
    ):
        if wanted and wanted != found:
            detail = f"Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}"
            raise Conflict.of("", "pods", pod.metadata.name or "", detail)


def _is_ending(pod: Pod) -> bool:
    phase = pod.status.phase if pod.status else None
    return phase in ("Succeeded", "Failed") or pod.metadata.deletion_timestamp is not None


def costs_nothing(pod: Pod) -> bool:
    """Nobody is served by a pod that has ended, has not begun, or is going already."""
    return _is_ending(pod) or (pod.status.phase if pod.status else None) == "Pending"


def is_free_of_charge(pod: Pod, budget: PodDisruptionBudget) -> bool:
    """Whether a pod that isn't ready may go without being counted."""
    conditions = pod.status.conditions if pod.status else []
    if any(condition.type == "Ready" and condition.status == "True" for condition in conditions):
        return False
    if budget.spec and budget.spec.unhealthy_pod_eviction_policy == "AlwaysAllow":
        return True
    status = budget.status or PodDisruptionBudgetStatus()
    desired = status.desired_healthy or 0
    return desired > 0 and (status.current_healthy or 0) >= desired


def charged(budget: PodDisruptionBudget, pod_name: str, now: datetime) -> PodDisruptionBudget:
    """A copy of a budget with one disruption less. Raises TooManyRequests, Forbidden."""
    name, status = budget.metadata.name or "", budget.status or PodDisruptionBudgetStatus()
    if (status.observed_generation or 0) < (budget.metadata.generation or 0):
        raise _busy(name)
    allowed = status.disruptions_allowed or 0
    if allowed < 0:
        raise _forbidden(name, "pdb disruptions allowed is negative")
    if len(status.disrupted_pods) > DISRUPTED_PODS_MAX:
        detail = "DisruptedPods map too big - too many evictions not confirmed by PDB controller"
        raise _forbidden(name, detail)
    if allowed == 0:
        raise TooManyRequests(REFUSED, causes=[Cause("DisruptionBudget", "", _why_not(name, status))])
    changed = replace(status, disruptions_allowed=allowed - 1, disrupted_pods={**status.disrupted_pods, pod_name: now})
    if allowed == 1:
        changed.conditions = _nothing_left(status, now)
    return replace(budget, status=changed)


def _nothing_left(status: PodDisruptionBudgetStatus, now: datetime) -> list[meta.Condition]:
    """The conditions once the last disruption is used up."""
    before = next((condition for condition in status.conditions if condition.type == "DisruptionAllowed"), None)
    moved = before is None or before.status != "False"
    condition = meta.Condition(
        type="DisruptionAllowed",
        status="False",
        reason="InsufficientPods",
        observed_generation=status.observed_generation,
        last_transition_time=now if moved or before is None else before.last_transition_time,
    )
    if before is None:
        return [*status.conditions, condition]
    return [condition if found is before else found for found in status.conditions]


def _why_not(name: str, status: PodDisruptionBudgetStatus) -> str:
    current, desired = status.current_healthy or 0, status.desired_healthy or 0
    refused = f"The disruption budget {name} does not allow evicting pods currently"
    told = next((each for each in status.conditions if each.type == "DisruptionAllowed"), None)
    if told and (told.status != "False" or not told.message):
        told = None
    if told and told.reason == "SyncFailed":
        # Then the numbers can't be trusted.
        return f"{refused} because it failed sync: {told.message}"
    if current <= desired:
        return f"The disruption budget {name} needs {desired} healthy pods and has {current} currently"
    if told:
        return f"{refused} ({told.reason}): {told.message}"
    return refused


def _busy(name: str) -> TooManyRequests:
    message = f"The disruption budget {name} is still being processed by the server."
    return TooManyRequests(REFUSED, causes=[Cause("DisruptionBudget", "", message)], retry_after_s=BUSY_RETRY_S)


def _forbidden(name: str, detail: str) -> Forbidden:
    message = f'poddisruptionbudget.policy "{name}" is forbidden: {detail}'
    return Forbidden(message, group="policy", kind="poddisruptionbudget", name=name)


def with_disruption(pod: Pod, now: datetime) -> Pod:
    """A copy of a pod that says why it is about to go (KEP-3329)."""
    status = pod.status or PodStatus()
    before = next((condition for condition in status.conditions if condition.type == "DisruptionTarget"), None)
    condition = PodCondition(
        type="DisruptionTarget",
        status="True",
        reason="EvictionByEvictionAPI",
        message="Eviction API: evicting",
        last_transition_time=before.last_transition_time if before and before.status == "True" else now,
        observed_generation=pod.metadata.generation,
    )
    others = [each for each in status.conditions if each is not before]
    return replace(pod, status=replace(status, conditions=[*others, condition]))
