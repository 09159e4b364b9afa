"""ReplicationControllers, the elders of ReplicaSets, and PodTemplates: defaults, rules, and how they are shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from knarr.api.core.pod_warnings import template_warnings
from knarr.api.core.podspec import default_template
from knarr.api.core.templates import (
    age_column,
    container_images,
    container_names,
    labels_of,
    template_columns,
    validate_always_restarted,
    validate_pod_template,
)
from knarr.api.core.v1 import (
    PodTemplate,
    PodTemplateSpec,
    ReplicationController,
    ReplicationControllerSpec,
    ReplicationControllerStatus,
)
from knarr.api.core.validate_values import validate_not_negative, validate_replica_counts
from knarr.api.errors import Cause, invalid, required
from knarr.api.printing import labels
from knarr.api.resources import Column, Strategy


class ReplicationControllerRules(Strategy[ReplicationController]):
    has_status = True
    has_generation = True
    field_names = ("status.replicas",)

    def default(self, obj: ReplicationController) -> None:
        """What selects and labels it is taken from its template."""
        spec = obj.spec = obj.spec or ReplicationControllerSpec()
        spec.replicas = 1 if spec.replicas is None else spec.replicas
        if spec.template is None:
            return
        default_template(spec.template)
        spec.selector = spec.selector or dict(labels_of(spec.template))
        obj.metadata.labels = obj.metadata.labels or dict(labels_of(spec.template))

    def warnings(self, obj: ReplicationController, old: ReplicationController | None) -> Iterable[str]:
        if old is None or obj.metadata.generation != old.metadata.generation:
            yield from template_warnings(obj.spec.template if obj.spec else None, "spec.template")

    def validate(self, obj: ReplicationController) -> Iterable[Cause]:
        spec = obj.spec or ReplicationControllerSpec()
        yield from validate_not_negative(spec.min_ready_seconds, "spec.minReadySeconds")
        if not spec.selector:
            yield required("spec.selector")
        yield from validate_not_negative(spec.replicas, "spec.replicas")
        if spec.template is None:
            yield required("spec.template")
            return
        found = labels_of(spec.template)
        if spec.selector and not spec.selector.items() <= found.items():
            yield invalid("spec.template.metadata.labels", found, "`selector` does not match template `labels`")
        yield from validate_pod_template(spec.template, "spec.template")
        yield from validate_always_restarted(spec.template, "spec.template", "ReplicationController")

    def validate_status_update(self, obj: ReplicationController, old: ReplicationController) -> Iterable[Cause]:
        status = obj.status or ReplicationControllerStatus()
        yield from validate_replica_counts(status, ("fully_labeled", "ready", "available"))

    def fields(self, obj: ReplicationController) -> Mapping[str, str]:
        return {"status.replicas": str((obj.status.replicas if obj.status else 0) or 0)}


class PodTemplateRules(Strategy[PodTemplate]):
    has_generation = True
    returns_deleted = True

    def default(self, obj: PodTemplate) -> None:
        obj.template = obj.template or PodTemplateSpec()
        default_template(obj.template)

    def validate(self, obj: PodTemplate) -> Iterable[Cause]:
        return validate_pod_template(obj.template, "template")


def _count(attribute: str) -> Any:
    return lambda obj, now_s: (getattr(obj.status, attribute) if obj.status else 0) or 0


REPLICATION_CONTROLLER_COLUMNS = (
    Column("Desired", lambda obj, now_s: (obj.spec.replicas if obj.spec else 0) or 0, type="integer"),
    Column("Current", _count("replicas"), type="integer"),
    Column("Ready", _count("ready_replicas"), type="integer"),
    age_column(),
    *template_columns(lambda obj: obj.spec.template if obj.spec else None),
    Column("Selector", lambda obj, now_s: labels(obj.spec.selector if obj.spec else {}), priority=1),
)
POD_TEMPLATE_COLUMNS = (
    Column("Containers", lambda obj, now_s: container_names(obj.template)),
    Column("Images", lambda obj, now_s: container_images(obj.template)),
    Column("Pod Labels", lambda obj, now_s: labels(labels_of(obj.template))),
)
