"""Deployments and ReplicaSets: defaults, what may change, and how they are shown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from knarr.api.apps.v1 import (
    Deployment,
    DeploymentSpec,
    DeploymentStatus,
    DeploymentStrategy,
    ReplicaSet,
    ReplicaSetSpec,
    ReplicaSetStatus,
    RollingUpdateDeployment,
)
from knarr.api.core.podspec import default_template
from knarr.api.core.v1 import PodSpec, PodTemplateSpec
from knarr.api.core.validate_podspec import validate_pod_spec
from knarr.api.errors import Cause, forbidden, invalid, not_supported, required
from knarr.api.meta.v1 import LabelSelector
from knarr.api.metadata import validate_annotations, validate_labels
from knarr.api.printing import NONE, age
from knarr.api.resources import Column, Strategy
from knarr.api.selectors import selector_of

_PERCENT = re.compile(r"[0-9]{1,9}%")


class DeploymentRules(Strategy[Deployment]):
    has_status = True
    has_generation = True

    def default(self, obj: Deployment) -> None:
        spec = obj.spec = obj.spec or DeploymentSpec()
        default_template(spec.template)
        spec.replicas = 1 if spec.replicas is None else spec.replicas
        strategy = spec.strategy = spec.strategy or DeploymentStrategy()
        strategy.type = strategy.type or "RollingUpdate"
        if strategy.type == "RollingUpdate":
            rolling = strategy.rolling_update = strategy.rolling_update or RollingUpdateDeployment()
            rolling.max_surge = "25%" if rolling.max_surge is None else rolling.max_surge
            rolling.max_unavailable = "25%" if rolling.max_unavailable is None else rolling.max_unavailable
        if spec.revision_history_limit is None:
            spec.revision_history_limit = 10
        if spec.progress_deadline_seconds is None:
            spec.progress_deadline_seconds = 600

    def prepare_for_create(self, obj: Deployment) -> None:
        obj.status = DeploymentStatus()

    def validate(self, obj: Deployment) -> Iterable[Cause]:
        spec = obj.spec
        assert spec
        yield from _not_negative(spec.replicas, "spec.replicas")
        yield from validate_selector(spec.selector, spec.template, "spec")
        yield from validate_template(spec.template, "spec.template")
        yield from _not_negative(spec.min_ready_seconds, "spec.minReadySeconds")
        yield from _not_negative(spec.revision_history_limit, "spec.revisionHistoryLimit")
        yield from _not_negative(spec.progress_deadline_seconds, "spec.progressDeadlineSeconds")
        if (spec.progress_deadline_seconds or 0) <= (spec.min_ready_seconds or 0):
            detail = "must be greater than minReadySeconds"
            yield invalid("spec.progressDeadlineSeconds", spec.progress_deadline_seconds, detail)
        yield from self._validate_strategy(spec.strategy or DeploymentStrategy(), "spec.strategy")

    def _validate_strategy(self, strategy: DeploymentStrategy, path: str) -> Iterable[Cause]:
        if strategy.type == "Recreate":
            if strategy.rolling_update:
                yield forbidden(f"{path}.rollingUpdate", "may not be specified when strategy `type` is 'Recreate'")
            return
        if strategy.type != "RollingUpdate":
            yield not_supported(f"{path}.type", strategy.type, ("Recreate", "RollingUpdate"))
            return
        rolling = strategy.rolling_update or RollingUpdateDeployment()
        bounds = (("maxUnavailable", rolling.max_unavailable), ("maxSurge", rolling.max_surge))
        for field, value in bounds:
            yield from _validate_bound(value, f"{path}.rollingUpdate.{field}")
        if all(value in (0, "0%", "0") for _, value in bounds):
            detail = "may not be 0 when `maxSurge` is 0"
            yield invalid(f"{path}.rollingUpdate.maxUnavailable", rolling.max_unavailable, detail)
        share = rolling.max_unavailable
        if isinstance(share, str) and _PERCENT.fullmatch(share) and int(share[:-1]) > 100:
            yield invalid(f"{path}.rollingUpdate.maxUnavailable", share, "must not be greater than 100%")

    def validate_update(self, obj: Deployment, old: Deployment) -> Iterable[Cause]:
        assert obj.spec
        assert old.spec
        if obj.spec.selector != old.spec.selector:
            yield invalid("spec.selector", obj.spec.selector, "field is immutable")


class ReplicaSetRules(Strategy[ReplicaSet]):
    has_status = True
    has_generation = True
    field_names = ("status.replicas",)

    def default(self, obj: ReplicaSet) -> None:
        spec = obj.spec = obj.spec or ReplicaSetSpec()
        spec.replicas = 1 if spec.replicas is None else spec.replicas
        spec.template = spec.template or PodTemplateSpec()
        default_template(spec.template)

    def prepare_for_create(self, obj: ReplicaSet) -> None:
        obj.status = ReplicaSetStatus()

    def validate(self, obj: ReplicaSet) -> Iterable[Cause]:
        spec = obj.spec
        assert spec
        assert spec.template
        yield from _not_negative(spec.replicas, "spec.replicas")
        yield from _not_negative(spec.min_ready_seconds, "spec.minReadySeconds")
        yield from validate_selector(spec.selector, spec.template, "spec")
        yield from validate_template(spec.template, "spec.template")

    def validate_update(self, obj: ReplicaSet, old: ReplicaSet) -> Iterable[Cause]:
        assert obj.spec
        assert old.spec
        if obj.spec.selector != old.spec.selector:
            yield invalid("spec.selector", obj.spec.selector, "field is immutable")

    def fields(self, obj: ReplicaSet) -> Mapping[str, str]:
        return {"status.replicas": str((obj.status.replicas if obj.status else 0) or 0)}


def validate_template(template: PodTemplateSpec, path: str) -> Iterable[Cause]:
    """Of a workload whose pods always come back."""
    if template.metadata:
        yield from validate_labels(template.metadata.labels, f"{path}.metadata.labels")
        yield from validate_annotations(template.metadata.annotations, f"{path}.metadata.annotations")
    yield from validate_pod_spec(template.spec, f"{path}.spec")
    spec = template.spec or PodSpec()
    if spec.restart_policy in ("OnFailure", "Never"):
        yield not_supported(f"{path}.spec.restartPolicy", spec.restart_policy, ("Always",))
    if spec.active_deadline_seconds is not None:
        yield forbidden(f"{path}.spec.activeDeadlineSeconds", "must not be specified")


def validate_selector(selector: LabelSelector, template: PodTemplateSpec, path: str) -> Iterable[Cause]:
    """A selector must be there, be one, and select the pods of the template."""
    if not selector.match_labels and not selector.match_expressions:
        yield required(f"{path}.selector")
        detail = "empty selector is invalid for deployment"
        yield invalid(f"{path}.selector", selector, detail)
        return
    yield from validate_labels(selector.match_labels, f"{path}.selector.matchLabels")
    for index, expression in enumerate(selector.match_expressions):
        place = f"{path}.selector.matchExpressions[{index}]"
        if expression.operator not in ("In", "NotIn", "Exists", "DoesNotExist"):
            yield invalid(f"{place}.operator", expression.operator, "not a valid selector operator")
        elif expression.operator in ("In", "NotIn") and not expression.values:
            yield required(f"{place}.values", "must be specified when `operator` is 'In' or 'NotIn'")
        elif expression.operator in ("Exists", "DoesNotExist") and expression.values:
            yield forbidden(f"{place}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
    try:
        parsed = selector_of(selector)
    except ValueError:
        return
    labels = template.metadata.labels if template.metadata else {}
    if parsed and not parsed.matches(labels):
        yield invalid(f"{path}.template.metadata.labels", labels, "`selector` does not match template `labels`")


def _not_negative(value: int | None, path: str) -> Iterable[Cause]:
    if value is not None and value < 0:
        yield invalid(path, value, "must be greater than or equal to 0")


def _validate_bound(value: int | str | None, path: str) -> Iterable[Cause]:
    """maxSurge, maxUnavailable: a number or a percentage."""
    if isinstance(value, int):
        yield from _not_negative(value, path)
    elif isinstance(value, str) and not _PERCENT.fullmatch(value):
        detail = (
            "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex "
            "used for validation is '[0-9]+%')"
        )
        yield invalid(path, value, detail)


def _containers(field: str) -> Any:
    def cell(obj: Any, now_s: float) -> str:
        spec = obj.spec.template.spec
        return ",".join(getattr(container, field) or "" for container in (spec.containers if spec else ())) or NONE

    return cell


def _selector(obj: Any, now_s: float) -> str:
    return str(selector_of(obj.spec.selector) or NONE)


def _count(field: str) -> Any:
    return lambda obj, now_s: (getattr(obj.status, field) if obj.status else 0) or 0


_WIDE = (
    Column("Age", lambda obj, now_s: age(obj.metadata.creation_timestamp, now_s)),
    Column("Containers", _containers("name"), priority=1),
    Column("Images", _containers("image"), priority=1),
    Column("Selector", _selector, priority=1),
)

DEPLOYMENT_COLUMNS = (
    Column("Ready", lambda obj, now_s: f"{_count('ready_replicas')(obj, now_s)}/{obj.spec.replicas or 0}"),
    Column("Up-to-date", _count("updated_replicas"), type="integer"),
    Column("Available", _count("available_replicas"), type="integer"),
    *_WIDE,
)
REPLICA_SET_COLUMNS = (
    Column("Desired", lambda obj, now_s: obj.spec.replicas or 0, type="integer"),
    Column("Current", _count("replicas"), type="integer"),
    Column("Ready", _count("ready_replicas"), type="integer"),
    *_WIDE,
)
