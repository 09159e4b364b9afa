"""DaemonSets: one pod on each node that fits. Defaults, what may change, and how they are shown.

Follows upstream's SetDefaults_DaemonSet and ValidateDaemonSet (pkg/apis/apps). How often the template has changed is
counted in an annotation, the last trace of a field of the API's beta versions; the server alone counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from knarr.api.apps.v1 import (
    DaemonSet,
    DaemonSetSpec,
    DaemonSetStatus,
    DaemonSetUpdateStrategy,
    RollingUpdateDaemonSet,
)
from knarr.api.apps.workloads import count_of, validate_count_or_share, validate_share
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
from knarr.api.core.validate_values import validate_not_negative, validate_selector
from knarr.api.errors import Cause, invalid, not_supported, required
from knarr.api.meta.owners import selects_everything
from knarr.api.printing import labels
from knarr.api.resources import Column, Strategy

UPDATE_STRATEGIES = ("RollingUpdate", "OnDelete")
TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"
_COUNTS = (
    ("current_number_scheduled", "currentNumberScheduled"),
    ("number_misscheduled", "numberMisscheduled"),
    ("desired_number_scheduled", "desiredNumberScheduled"),
    ("number_ready", "numberReady"),
    ("observed_generation", "observedGeneration"),
    ("updated_number_scheduled", "updatedNumberScheduled"),
    ("number_available", "numberAvailable"),
    ("number_unavailable", "numberUnavailable"),
    ("collision_count", "collisionCount"),
)


class DaemonSetRules(Strategy[DaemonSet]):
    has_status = True
    has_generation = True

    def default(self, obj: DaemonSet) -> None:
        spec = obj.spec = obj.spec or DaemonSetSpec()
        default_template(spec.template)
        strategy = spec.update_strategy = spec.update_strategy or DaemonSetUpdateStrategy()
        strategy.type = strategy.type or "RollingUpdate"
        if strategy.type == "RollingUpdate":
            rolling = strategy.rolling_update = strategy.rolling_update or RollingUpdateDaemonSet()
            rolling.max_unavailable = 1 if rolling.max_unavailable is None else rolling.max_unavailable
            rolling.max_surge = 0 if rolling.max_surge is None else rolling.max_surge
        if spec.revision_history_limit is None:
            spec.revision_history_limit = 10

    def warnings(self, obj: DaemonSet, old: DaemonSet | None) -> Iterable[str]:
        if old is None or obj.metadata.generation != old.metadata.generation:
            yield from template_warnings(obj.spec.template if obj.spec else None, "spec.template")

    def prepare_for_create(self, obj: DaemonSet) -> None:
        obj.metadata.annotations[TEMPLATE_GENERATION] = str(max(_template_generation(obj), 1))

    def prepare_for_update(self, obj: DaemonSet, old: DaemonSet) -> None:
        generation = _template_generation(old)
        if obj.spec and old.spec and obj.spec.template != old.spec.template:
            generation += 1
        obj.metadata.annotations[TEMPLATE_GENERATION] = str(max(generation, 1))

    def prepare_for_status_update(self, obj: DaemonSet, old: DaemonSet) -> None:
        if TEMPLATE_GENERATION in old.metadata.annotations:
            obj.metadata.annotations[TEMPLATE_GENERATION] = old.metadata.annotations[TEMPLATE_GENERATION]

    def validate(self, obj: DaemonSet) -> Iterable[Cause]:
        spec = obj.spec or DaemonSetSpec()
        yield from validate_selector(spec.selector, "spec.selector")
        yield from validate_selected(spec.template, spec.selector, "spec.template")
        if selects_everything(spec.selector):
            yield required("spec.selector")
        yield from validate_pod_template(spec.template, "spec.template")
        yield from validate_always_restarted(spec.template, "spec.template", "DaemonSet")
        yield from validate_not_negative(spec.min_ready_seconds, "spec.minReadySeconds")
        yield from _validate_update_strategy(spec.update_strategy or DaemonSetUpdateStrategy(), "spec.updateStrategy")
        yield from validate_not_negative(spec.revision_history_limit, "spec.revisionHistoryLimit")

    def validate_update(self, obj: DaemonSet, old: DaemonSet) -> Iterable[Cause]:
        selector = (obj.spec or DaemonSetSpec()).selector
        if selector != (old.spec or DaemonSetSpec()).selector:
            yield invalid("spec.selector", selector, "field is immutable")

    def validate_status_update(self, obj: DaemonSet, old: DaemonSet) -> Iterable[Cause]:
        status, before = obj.status or DaemonSetStatus(), old.status or DaemonSetStatus()
        for attribute, field in _COUNTS:
            yield from validate_not_negative(getattr(status, attribute), f"status.{field}")
        if (status.collision_count or 0) < (before.collision_count or 0):
            yield invalid("status.collisionCount", status.collision_count or 0, "cannot be decremented")


def _template_generation(obj: DaemonSet) -> int:
    written = obj.metadata.annotations.get(TEMPLATE_GENERATION, "")
    return int(written) if written.isascii() and written.isdecimal() and len(written) < 19 else 0


def _validate_update_strategy(strategy: DaemonSetUpdateStrategy, path: str) -> Iterable[Cause]:
    if strategy.type not in UPDATE_STRATEGIES:
        yield not_supported(path, strategy, UPDATE_STRATEGIES, in_order=True)
    if strategy.type != "RollingUpdate":
        return
    place = f"{path}.rollingUpdate"
    rolling = strategy.rolling_update or RollingUpdateDaemonSet()
    missing, surplus = rolling.max_unavailable, rolling.max_surge
    yield from validate_count_or_share(missing, f"{place}.maxUnavailable")
    yield from validate_count_or_share(surplus, f"{place}.maxSurge")
    yield from validate_share(missing, f"{place}.maxUnavailable")
    yield from validate_share(surplus, f"{place}.maxSurge")
    if count_of(missing) and count_of(surplus):
        yield invalid(f"{place}.maxSurge", surplus, "may not be set when maxUnavailable is non-zero")
    elif not count_of(missing) and not count_of(surplus):
        yield required(f"{place}.maxUnavailable", "cannot be 0 when maxSurge is 0")


def _count(attribute: str) -> Any:
    return lambda obj, now_s: (getattr(obj.status, attribute) if obj.status else 0) or 0


def _node_selector(obj: DaemonSet, now_s: float) -> str:
    pod = obj.spec.template.spec if obj.spec else None
    return labels(pod.node_selector if pod else {})


DAEMON_SET_COLUMNS = (
    Column("Desired", _count("desired_number_scheduled"), type="integer"),
    Column("Current", _count("current_number_scheduled"), type="integer"),
    Column("Ready", _count("number_ready"), type="integer"),
    Column("Up-to-date", _count("updated_number_scheduled"), type="integer"),
    Column("Available", _count("number_available"), type="integer"),
    Column("Node Selector", _node_selector),
    age_column(),
    *template_columns(lambda obj: obj.spec.template if obj.spec else None),
    selector_column(lambda obj: obj.spec.selector if obj.spec else None),
)
