"""HorizontalPodAutoscalers: the number of replicas follows what was measured.

Each look reads the target's scale, asks every metric how many replicas it wants (`replica_calculator`), takes the most,
and holds it to bounds, policies and windows (`scaling_behavior`). As upstream's pkg/controller/podautoscaler, but it
looks every 2 s instead of every 15 s: the samples of metrics.k8s.io are as young here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from knarr.api.autoscaling.v2 import (
    ContainerResourceMetricStatus,
    CrossVersionObjectReference,
    ExternalMetricStatus,
    HorizontalPodAutoscaler,
    HorizontalPodAutoscalerCondition,
    HorizontalPodAutoscalerStatus,
    HPAScalingRules,
    MetricIdentifier,
    MetricSpec,
    MetricStatus,
    MetricTarget,
    MetricValueStatus,
    ObjectMetricStatus,
    PodsMetricStatus,
    ResourceMetricStatus,
)
from knarr.api.core.v1 import Pod
from knarr.api.errors import APIError, BadRequest
from knarr.api.quantity import canonical, milli, parse_quantity
from knarr.api.selectors import Selector, parse_selector
from knarr.api.types import replace
from knarr.client.controller import Controller
from knarr.client.informer import key_of
from knarr.clock import utc
from knarr.controllers.metrics_apis import MetricsAPIs, as_go_writes
from knarr.controllers.replica_calculator import (
    TOLERANCE,
    NoAnswer,
    Proposal,
    Tolerances,
    by_average,
    by_utilization,
    by_value,
    by_value_per_pod,
)
from knarr.controllers.scaling_behavior import Memory, longest_period_s, normalized

SYNC_S = 2.0
UNCOMPUTED = "FailedComputeMetricsReplicas"
REMEMBERED_MAX = 10_000
"""Autoscalers whose past is known; the one not seen for the longest time begins anew."""


class Target(Struct, frozen=True):
    """What is scaled."""

    path: str
    scale: dict[str, Any]
    pods: Sequence[Pod] = ()
    """Known only where metrics are asked for."""

    @property
    def replicas(self) -> int:
        return int(self.scale.get("spec", {}).get("replicas") or 0)

    @property
    def present(self) -> int:
        """How many there are, whatever is wanted."""
        return int(self.scale.get("status", {}).get("replicas") or 0)

    @property
    def selector(self) -> str:
        return str(self.scale.get("status", {}).get("selector") or "")


class Unmeasured(Exception):
    """Nothing can be said about the replicas: the reason of the condition and event, and why."""

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        condition: str = "",
        at_length: str = "",
        measured: Sequence[MetricStatus] | None = None,
    ) -> None:
        """`at_length`: as the sum of all metrics tells it; `measured`: what they are all the same, None as before."""
        super().__init__(message)
        self.reason = reason
        self.condition = condition or message
        self.at_length = at_length or message
        self.measured = measured


class HorizontalPodAutoscalers(Controller):
    """autoscaling/v2 HorizontalPodAutoscaler."""

    name = "horizontal-pod-autoscaler-controller"
    needs = (HorizontalPodAutoscaler,)

    def watch(self) -> None:
        self.autoscalers = self.informer(HorizontalPodAutoscaler)
        self.pods = self.informer(Pod)
        self.metrics = MetricsAPIs(self.client)
        self._memories: OrderedDict[str, Memory] = OrderedDict()
        self._selectors: dict[str, Selector] = {}
        self.on_change(self.autoscalers, _key_of_change)

    async def reconcile(self, key: str) -> float | None:
        autoscaler = self.autoscalers.get(key)
        if autoscaler is None:
            self._selectors.pop(key, None)
            return None
        status = replace(
            autoscaler.status or HorizontalPodAutoscalerStatus(), observed_generation=autoscaler.metadata.generation
        )
        conditions = Conditions(status.conditions, self.clock.time_s())
        try:
            target = await self._target(autoscaler, conditions)
            status = replace(status, current_replicas=target.replicas)
            status = await self._autoscale(autoscaler, target, status, conditions)
        except Unmeasured as error:
            self.events.warning(autoscaler, error.reason, str(error))
            if error.measured is not None:
                status = replace(status, current_metrics=list(error.measured))
        status = replace(status, conditions=conditions.all())
        if status != autoscaler.status:
            await self.client.update_status(replace(autoscaler, status=status))
        return SYNC_S

    async def _autoscale(
        self,
        autoscaler: HorizontalPodAutoscaler,
        target: Target,
        status: HorizontalPodAutoscalerStatus,
        conditions: Conditions,
    ) -> HorizontalPodAutoscalerStatus:
        """One look; answers the new status but for its conditions. Raises Unmeasured."""
        spec, current, now_s = autoscaler.spec, target.replicas, self.clock.time_s()
        memory = self._memory(autoscaler, current, now_s)
        fewest = 1 if spec.min_replicas is None else spec.min_replicas
        measured: list[MetricStatus] = []
        if current == 0 and fewest != 0:
            message = "scaling is disabled since the replica count of the target is zero"
            conditions.set("ScalingActive", "False", "ScalingDisabled", message)
            return replace(status, desired_replicas=0, current_metrics=[])
        if current > spec.max_replicas:
            desired, why = spec.max_replicas, "Current number of replicas above Spec.MaxReplicas"
        elif current < fewest:
            desired, why = fewest, "Current number of replicas below Spec.MinReplicas"
        else:
            wanted, metric, measured = await self._wanted(autoscaler, target, conditions)
            result = normalized(spec, memory, current, wanted, now_s)
            conditions.set("AbleToScale", "True", *result.able)
            conditions.set("ScalingLimited", str(result.limited), *result.limit)
            desired = result.replicas
            why = f"{metric} above target" if desired > current else "All metrics below target"
        status = replace(status, current_metrics=measured)
        if desired != current:
            await self._scale(autoscaler, target, desired, why, conditions, measured)
            behavior = spec.behavior
            rules = (behavior.scale_up if desired > current else behavior.scale_down) if behavior else None
            memory.changed(current, desired, now_s, longest_period_s(rules))
            status = replace(status, last_scale_time=utc(now_s))
        return replace(status, desired_replicas=desired)

    # The target

    async def _target(self, autoscaler: HorizontalPodAutoscaler, conditions: Conditions) -> Target:
        reference, namespace = autoscaler.spec.scale_target_ref, autoscaler.metadata.namespace or ""
        try:
            path = f"{self._path_of(reference, namespace)}/scale"
            scale = await self.client.get_plain(path)
        except (APIError, NoAnswer) as error:
            message = f"the HPA controller was unable to get the target's current scale: {error}"
            conditions.set("AbleToScale", "False", "FailedGetScale", message)
            raise Unmeasured("FailedGetScale", str(error)) from error
        message = "the HPA controller was able to get the target's current scale"
        conditions.set("AbleToScale", "True", "SucceededGetScale", message)
        return Target(path, scale)

    def _path_of(self, reference: CrossVersionObjectReference, namespace: str) -> str:
        group, _, version = (reference.api_version or "v1").rpartition("/")
        resource = self.client.registry.by_kind(group, version, reference.kind)
        if resource is None:
            raise NoAnswer(f'no matches for kind "{reference.kind}" in group "{group}"')
        return resource.path(namespace, reference.name)

    def _pods(self, autoscaler: HorizontalPodAutoscaler, target: Target, conditions: Conditions) -> list[Pod]:
        """Those of the target, which no other autoscaler may have too. Raises Unmeasured."""
        try:
            selector = _selector(target.selector)
            pods = [
                pod for pod in self.pods.all(autoscaler.metadata.namespace) if selector.matches(pod.metadata.labels)
            ]
            self._check_alone(autoscaler, selector, pods)
        except Unmeasured as error:
            conditions.set(
                "ScalingActive", "False", error.reason.replace("SelectorRequired", "InvalidSelector"), error.condition
            )
            self.events.warning(autoscaler, error.reason, str(error))
            raise Unmeasured(UNCOMPUTED, str(error), measured=()) from error
        return pods

    def _check_alone(self, autoscaler: HorizontalPodAutoscaler, selector: Selector, pods: Sequence[Pod]) -> None:
        """Two autoscalers of the same pods would pull them to and fro."""
        key, prefix = key_of(autoscaler), f"{autoscaler.metadata.namespace}/"
        self._selectors[key] = selector
        also = [
            other
            for other, its in self._selectors.items()
            if other == key or (other.startswith(prefix) and any(its.matches(pod.metadata.labels) for pod in pods))
        ]
        if len(also) > 1:
            listed = " ".join(sorted(also))
            message = f"pods by selector {selector} are controlled by multiple HPAs: [{listed}]"
            raise Unmeasured("AmbiguousSelector", message)

    async def _scale(
        self,
        autoscaler: HorizontalPodAutoscaler,
        target: Target,
        desired: int,
        why: str,
        conditions: Conditions,
        measured: Sequence[MetricStatus],
    ) -> None:
        scale = {**target.scale, "spec": {**target.scale.get("spec", {}), "replicas": desired}}
        try:
            await self.client.put_plain(target.path, scale)
        except APIError as error:
            message = f"the HPA controller was unable to update the target scale: {error}"
            conditions.set("AbleToScale", "False", "FailedUpdateScale", message)
            message = f"New size: {desired}; reason: {why}; error: {error}"
            raise Unmeasured("FailedRescale", message, measured=measured) from error
        message = f"the HPA controller was able to update the target scale to {desired}"
        conditions.set("AbleToScale", "True", "SucceededRescale", message)
        self.events.normal(autoscaler, "SuccessfulRescale", f"New size: {desired}; reason: {why}")

    def _memory(self, autoscaler: HorizontalPodAutoscaler, current: int, now_s: float) -> Memory:
        uid = autoscaler.metadata.uid or ""
        memory = self._memories.pop(uid, None)
        if memory is None:
            memory = Memory(recommendations=[(now_s, current)])
        self._memories[uid] = memory
        if len(self._memories) > REMEMBERED_MAX:
            self._memories.popitem(last=False)
        return memory

    # The metrics

    async def _wanted(
        self, autoscaler: HorizontalPodAutoscaler, target: Target, conditions: Conditions
    ) -> tuple[int, str, list[MetricStatus]]:
        """The most replicas that a metric asks for, that metric, and what all were found to be. Raises Unmeasured."""
        wanted, metric = 0, ""
        target = replace(target, pods=self._pods(autoscaler, target, conditions))
        statuses: list[MetricStatus] = []
        failures: list[Unmeasured] = []
        for spec in autoscaler.spec.metrics:
            try:
                proposal, name, status = await self._propose(autoscaler, spec, target)
            except Unmeasured as failure:
                self.events.warning(autoscaler, failure.reason, str(failure))
                failures.append(failure)
                statuses.append(MetricStatus())  # each has the place of its metric
                continue
            statuses.append(status)
            if not metric or proposal.replicas > wanted:
                wanted, metric = proposal.replicas, name
        count = len(autoscaler.spec.metrics)
        if failures and (len(failures) == count or wanted < target.replicas):
            first = failures[0]
            conditions.set("ScalingActive", "False", first.reason, first.condition)
            message = f"invalid metrics ({len(failures)} invalid out of {count}), first error is: {first.at_length}"
            raise Unmeasured(UNCOMPUTED, message, measured=statuses)
        message = f"the HPA was able to successfully calculate a replica count from {metric}"
        conditions.set("ScalingActive", "True", "ValidMetricFound", message)
        return wanted, metric, statuses

    async def _propose(
        self, autoscaler: HorizontalPodAutoscaler, spec: MetricSpec, target: Target
    ) -> tuple[Proposal, str, MetricStatus]:
        """What one metric asks for, its name, and what it was found to be. Raises Unmeasured."""
        sources = {
            "Resource": (self._resource, "FailedGetResourceMetric"),
            "ContainerResource": (self._resource, "FailedGetContainerResourceMetric"),
            "Pods": (self._of_pods, "FailedGetPodsMetric"),
            "Object": (self._of_object, "FailedGetObjectMetric"),
            "External": (self._external, "FailedGetExternalMetric"),
        }
        if spec.type not in sources:
            message = f'unknown metric source type "{spec.type}"'
            condition = f"the HPA was unable to compute the replica count: {message}"
            raise Unmeasured("InvalidMetricSourceType", message, condition=condition)
        propose, reason = sources[spec.type]
        try:
            return await propose(autoscaler, spec, target)
        except NoAnswer as error:
            condition = f"the HPA was unable to compute the replica count: {error}"
            raise Unmeasured(reason, str(error), condition=condition, at_length=at_length(spec, str(error))) from error

    async def _resource(
        self, autoscaler: HorizontalPodAutoscaler, spec: MetricSpec, target: Target
    ) -> tuple[Proposal, str, MetricStatus]:
        source = spec.container_resource or spec.resource
        assert source is not None
        container = spec.container_resource.container if spec.container_resource else ""
        namespace, resource, aim = autoscaler.metadata.namespace or "", source.name, source.target
        measured = "usage" if aim.average_value is not None else "utilization"
        tolerances, now_s = _tolerances(autoscaler), self.clock.time_s()
        try:
            samples = await self.metrics.resource(resource, namespace, target.selector, container)
            if aim.average_value is not None:
                proposal = by_average(
                    target.pods, samples, resource, milli(aim.average_value), target.replicas, tolerances, now_s
                )
                name = f"{resource} resource"
            else:
                share = aim.average_utilization or 0
                proposal = by_utilization(
                    target.pods, samples, resource, container, share, target.replicas, tolerances, now_s
                )
                of = "container resource" if container else "resource"
                name = f"{resource} {of} utilization (percentage of request)"
        except NoAnswer as error:
            raise NoAnswer(f"failed to get {resource} {measured}: {error}") from error
        current = MetricValueStatus(
            average_value=_quantity(proposal.average_value or 0, aim.average_value or "1"),
            average_utilization=proposal.utilization,
        )
        if spec.container_resource:
            of_container = ContainerResourceMetricStatus(name=resource, container=container, current=current)
            return proposal, name, MetricStatus(type=spec.type, container_resource=of_container)
        return (
            proposal,
            name,
            MetricStatus(type=spec.type, resource=ResourceMetricStatus(name=resource, current=current)),
        )

    async def _of_pods(
        self, autoscaler: HorizontalPodAutoscaler, spec: MetricSpec, target: Target
    ) -> tuple[Proposal, str, MetricStatus]:
        assert spec.pods is not None
        metric, aim = spec.pods.metric, _amount(spec.pods.target.average_value)
        samples = await self.metrics.of_pods(metric, autoscaler.metadata.namespace or "", target.selector)
        proposal = by_average(
            target.pods, samples, "", aim, target.replicas, _tolerances(autoscaler), self.clock.time_s()
        )
        current = MetricValueStatus(average_value=_quantity(proposal.average_value or 0, "1"))
        status = MetricStatus(type=spec.type, pods=PodsMetricStatus(metric=metric, current=current))
        return proposal, f"pods metric {metric.name}", status

    async def _of_object(
        self, autoscaler: HorizontalPodAutoscaler, spec: MetricSpec, target: Target
    ) -> tuple[Proposal, str, MetricStatus]:
        assert spec.object is not None
        metric, described = spec.object.metric, spec.object.described_object
        namespace = autoscaler.metadata.namespace or ""
        value = await self.metrics.of_object(metric, namespace, self._plural_of(described), described)
        proposal, current = _by_one_value(autoscaler, target, spec.object.target, value)
        found = ObjectMetricStatus(metric=metric, described_object=described, current=current)
        shared = spec.object.target.type == "AverageValue"
        name = _external_name(metric) if shared else f"{described.kind} metric {metric.name}"
        return proposal, name, MetricStatus(type=spec.type, object=found)

    async def _external(
        self, autoscaler: HorizontalPodAutoscaler, spec: MetricSpec, target: Target
    ) -> tuple[Proposal, str, MetricStatus]:
        assert spec.external is not None
        metric = spec.external.metric
        value = await self.metrics.external(metric, autoscaler.metadata.namespace or "")
        proposal, current = _by_one_value(autoscaler, target, spec.external.target, value)
        status = MetricStatus(type=spec.type, external=ExternalMetricStatus(metric=metric, current=current))
        return proposal, _external_name(metric), status

    def _plural_of(self, described: CrossVersionObjectReference) -> str:
        """What its resource is called; empty for a kind that is not known."""
        group, _, version = (described.api_version or "v1").rpartition("/")
        resource = self.client.registry.by_kind(group, version, described.kind)
        return resource.qualified if resource else ""


class Conditions:
    """The conditions of a status as they are rewritten during a look."""

    def __init__(self, before: Sequence[HorizontalPodAutoscalerCondition], now_s: float) -> None:
        self._found = {condition.type: condition for condition in before}
        self._now = utc(now_s)

    def set(self, kind: str, status: str, reason: str, message: str) -> None:
        before = self._found.get(kind)
        since = before.last_transition_time if before and before.status == status else self._now
        self._found[kind] = HorizontalPodAutoscalerCondition(
            type=kind, status=status, reason=reason, message=message, last_transition_time=since
        )

    def all(self) -> list[HorizontalPodAutoscalerCondition]:
        return list(self._found.values())


def _selector(written: str) -> Selector:
    """Raises Unmeasured."""
    if not written:
        message = "the HPA target's scale is missing a selector"
        raise Unmeasured("SelectorRequired", "selector is required", condition=message)
    try:
        return parse_selector(written)
    except (ValueError, BadRequest) as error:
        message = f"couldn't convert selector into a corresponding internal selector object: {error}"
        raise Unmeasured("InvalidSelector", message) from error


def at_length(spec: MetricSpec, why: str) -> str:
    """Why a metric says nothing, as the sum of all metrics tells it."""
    if spec.resource:
        return f"failed to get {spec.resource.name} resource metric value: {why}"
    if spec.container_resource:
        return f"failed to get {spec.container_resource.container} container metric value: {why}"
    if spec.object:
        name, shared = spec.object.metric.name, spec.object.target.type == "AverageValue"
        why = f"failed to get {name} object metric: {why}" if shared else why
        return f"failed to get object metric value: {why}"
    if spec.external:
        name, shared = spec.external.metric.name, spec.external.target.average_value is not None
        why = (
            f"failed to get {name} external metric: {why}" if shared else f"failed to get external metric {name}: {why}"
        )
        return f"failed to get {name} external metric value: {why}"
    return f"failed to get pods metric value: {why}"


def _external_name(metric: MetricIdentifier) -> str:
    return f"external metric {metric.name}({as_go_writes(metric.selector)})"


def _by_one_value(
    autoscaler: HorizontalPodAutoscaler, target: Target, aim: MetricTarget, value: int
) -> tuple[Proposal, MetricValueStatus]:
    """Of a metric that is one value: held to a target as a whole, or shared by the replicas."""
    tolerances = _tolerances(autoscaler)
    if aim.type == "AverageValue":
        shared = by_value_per_pod(value, _amount(aim.average_value), target.present, tolerances)
        return shared, MetricValueStatus(average_value=_quantity(shared.average_value or 0, "1"))
    whole = by_value(target.pods, value, _amount(aim.value), target.replicas, tolerances)
    return whole, MetricValueStatus(value=_quantity(value, "1"))


def _amount(written: str | int | float | None) -> int:
    """In thousandths; never nothing, as it divides."""
    return max(1, milli(written or 0))


def _quantity(thousandths: int, like: str | int | float) -> str:
    """A quantity, in binary form where the target is."""
    value = parse_quantity(f"{thousandths}m")
    if isinstance(like, str) and like.endswith("i"):
        return canonical(f"{value / 1024:f}Ki")
    return canonical(f"{value:f}")


def _tolerances(autoscaler: HorizontalPodAutoscaler) -> Tolerances:
    def tolerance(rules: HPAScalingRules | None) -> float:
        return TOLERANCE if rules is None or rules.tolerance is None else float(parse_quantity(rules.tolerance))

    behavior = autoscaler.spec.behavior
    return Tolerances(tolerance(behavior.scale_up), tolerance(behavior.scale_down)) if behavior else Tolerances()


def _key_of_change(old: HorizontalPodAutoscaler | None, new: HorizontalPodAutoscaler | None) -> str | None:
    """Status is this loop's own."""
    if old is not None and new is not None and old.spec == new.spec:
        return None
    changed = new or old
    return key_of(changed) if changed else None
