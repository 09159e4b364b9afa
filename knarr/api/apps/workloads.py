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
from knarr.api.core.pod_warnings import template_warnings
from knarr.api.core.podspec import default_template
from knarr.api.core.templates import (
    age_column,
    selector_column,
    template_columns,
    validate_always_restarted,
    validate_pod_template,
    validate_selected,
)
from knarr.api.core.v1 import PodTemplateSpec
from knarr.api.core.validate_values import validate_not_negative, validate_replica_counts, validate_selector
from knarr.api.errors import Cause, forbidden, invalid, not_supported, required
from knarr.api.meta.owners import selects_everything
from knarr.api.meta.v1 import LabelSelector
from knarr.api.resources import Column, Strategy

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

    def warnings(self, obj: Deployment, old: Deployment | None) -> Iterable[str]:
        if old is None or obj.metadata.generation != old.metadata.generation:
            yield from template_warnings(obj.spec.template if obj.spec else None, "spec.template")

    def validate(self, obj: Deployment) -> Iterable[Cause]:
        spec = obj.spec or DeploymentSpec()
        yield from validate_not_negative(spec.replicas, "spec.replicas")
        yield from validate_workload_selector(spec.selector)
        yield from validate_template(spec.template, spec.selector, "spec.template")
        yield from _validate_rollout(spec.strategy or DeploymentStrategy(), "spec.strategy")
        yield from validate_not_negative(spec.min_ready_seconds, "spec.minReadySeconds")
        yield from validate_not_negative(spec.revision_history_limit, "spec.revisionHistoryLimit")
        deadline_s = spec.progress_deadline_seconds
        if deadline_s is not None:
            yield from validate_not_negative(deadline_s, "spec.progressDeadlineSeconds")
            if deadline_s <= (spec.min_ready_seconds or 0):
                yield invalid("spec.progressDeadlineSeconds", deadline_s, "must be greater than minReadySeconds")

    def validate_update(self, obj: Deployment, old: Deployment) -> Iterable[Cause]:
        new_spec, old_spec = obj.spec or DeploymentSpec(), old.spec or DeploymentSpec()
        if new_spec.selector != old_spec.selector:
            yield invalid("spec.selector", new_spec.selector, "field is immutable")

    def validate_status_update(self, obj: Deployment, old: Deployment) -> Iterable[Cause]:
        status = obj.status or DeploymentStatus()
        yield from validate_replica_counts(status, ("updated", "ready", "available", "unavailable"))
        before = (old.status.collision_count if old.status else None) or 0
        if (status.collision_count or 0) < before:
            yield invalid("status.collisionCount", status.collision_count, "cannot be decremented")


class ReplicaSetRules(Strategy[ReplicaSet]):
    has_status = True
    has_generation = True
    field_names = ("status.replicas",)

    def default(self, obj: ReplicaSet) -> None:
        spec = obj.spec = obj.spec or ReplicaSetSpec()
        spec.replicas = 1 if spec.replicas is None else spec.replicas
        spec.template = spec.template or PodTemplateSpec()
        default_template(spec.template)

    def warnings(self, obj: ReplicaSet, old: ReplicaSet | None) -> Iterable[str]:
        if old is None or obj.metadata.generation != old.metadata.generation:
            yield from template_warnings(obj.spec.template if obj.spec else None, "spec.template")

    def validate(self, obj: ReplicaSet) -> Iterable[Cause]:
        spec = obj.spec or ReplicaSetSpec()
        yield from validate_not_negative(spec.replicas, "spec.replicas")
        yield from validate_not_negative(spec.min_ready_seconds, "spec.minReadySeconds")
        yield from validate_workload_selector(spec.selector)
        yield from validate_template(spec.template or PodTemplateSpec(), spec.selector, "spec.template")

    def validate_update(self, obj: ReplicaSet, old: ReplicaSet) -> Iterable[Cause]:
        new_spec, old_spec = obj.spec or ReplicaSetSpec(), old.spec or ReplicaSetSpec()
        if new_spec.selector != old_spec.selector:
            yield invalid("spec.selector", new_spec.selector, "field is immutable")

    def validate_status_update(self, obj: ReplicaSet, old: ReplicaSet) -> Iterable[Cause]:
        yield from validate_replica_counts(obj.status or ReplicaSetStatus(), ("fully_labeled", "ready", "available"))

    def fields(self, obj: ReplicaSet) -> Mapping[str, str]:
        return {"status.replicas": str((obj.status.replicas if obj.status else 0) or 0)}


def validate_workload_selector(selector: LabelSelector) -> Iterable[Cause]:
    """There must be one: one that selects everything is taken for one that was left out."""
    yield from validate_selector(selector, "spec.selector")
    if selects_everything(selector):
        yield required("spec.selector")


def validate_template(template: PodTemplateSpec, selector: LabelSelector, path: str) -> Iterable[Cause]:
    """Of a workload whose pods always come back: its pods are selected by its own selector."""
    yield from validate_selected(template, selector, path)
    yield from validate_pod_template(template, path)
    yield from validate_always_restarted(template, path, "ReplicaSet")


def _validate_rollout(strategy: DeploymentStrategy, path: str) -> Iterable[Cause]:
    rolling = strategy.rolling_update
    if strategy.type == "Recreate":
        if rolling:
            yield forbidden(f"{path}.rollingUpdate", "may not be specified when strategy `type` is 'Recreate'")
    elif strategy.type == "RollingUpdate":
        yield from _validate_rolling(rolling or RollingUpdateDeployment(), f"{path}.rollingUpdate")
    else:
        yield not_supported(f"{path}.type", strategy.type, ("Recreate", "RollingUpdate"))


def _validate_rolling(rolling: RollingUpdateDeployment, path: str) -> Iterable[Cause]:
    missing, surplus = rolling.max_unavailable, rolling.max_surge
    yield from validate_count_or_share(missing, f"{path}.maxUnavailable")
    yield from validate_count_or_share(surplus, f"{path}.maxSurge")
    if count_of(missing) == 0 and count_of(surplus) == 0:
        yield invalid(f"{path}.maxUnavailable", missing, "may not be 0 when `maxSurge` is 0")
    yield from validate_share(missing, f"{path}.maxUnavailable")


def validate_count_or_share(value: int | str | None, path: str) -> Iterable[Cause]:
    """A number of replicas, or a percentage of them."""
    if isinstance(value, int):
        yield from validate_not_negative(value, path)
    elif isinstance(value, str) and not _PERCENT.fullmatch(value):
        detail = (
            "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex "
            "used for validation is '[0-9]+%')"
        )
        yield invalid(path, value, detail)


def validate_share(value: int | str | None, path: str) -> Iterable[Cause]:
    """A percentage of what there is can't be more than all of it."""
    if isinstance(value, str) and count_of(value) > 100:
        yield invalid(path, value, "must not be greater than 100%")


def count_of(value: int | str | None) -> int:
    """The number in a count or in a percentage; 0 when there is none."""
    if isinstance(value, str):
        return int(value[:-1]) if _PERCENT.fullmatch(value) else 0
    return value or 0


def _count(field: str) -> Any:
    return lambda obj, now_s: (getattr(obj.status, field) if obj.status else 0) or 0


_WIDE = (
    age_column(),
    *template_columns(lambda obj: obj.spec.template),
    selector_column(lambda obj: obj.spec.selector),
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
