"""Pod templates: what every workload's template may not say, and the columns that show it.

A workload's file says the rest: which restart policies its pods may have, and by what they are selected. Paths and
order are those of upstream's ValidatePodTemplateSpec.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from knarr.api.core.v1 import PodSpec, PodTemplateSpec
from knarr.api.core.validate_podspec import validate_pod_spec
from knarr.api.errors import Cause, forbidden, invalid, not_supported
from knarr.api.meta.owners import selector_for, selects_everything
from knarr.api.meta.v1 import LabelSelector, ObjectMeta
from knarr.api.metadata import validate_annotations, validate_labels
from knarr.api.printing import NONE, age
from knarr.api.resources import Column
from knarr.api.selectors import selector_of


def validate_pod_template(template: PodTemplateSpec | None, path: str) -> Iterable[Cause]:
    """Faults of a template whatever it is for."""
    template = template or PodTemplateSpec()
    metadata = template.metadata or ObjectMeta()
    yield from validate_labels(metadata.labels, f"{path}.labels")
    yield from validate_annotations(metadata.annotations, f"{path}.annotations")
    spec = template.spec or PodSpec()
    yield from validate_pod_spec(spec, f"{path}.spec")
    if spec.ephemeral_containers:
        yield forbidden(f"{path}.spec.ephemeralContainers", "ephemeral containers not allowed in pod template")


def validate_always_restarted(template: PodTemplateSpec | None, path: str, kind: str) -> Iterable[Cause]:
    """Of workloads whose pods are to run for ever."""
    spec = (template or PodTemplateSpec()).spec or PodSpec()
    if spec.restart_policy != "Always":
        yield not_supported(f"{path}.spec.restartPolicy", spec.restart_policy, ("Always",))
    if spec.active_deadline_seconds is not None:
        yield forbidden(f"{path}.spec.activeDeadlineSeconds", f"activeDeadlineSeconds in {kind} is not Supported")


def validate_selected(template: PodTemplateSpec | None, selector: LabelSelector, path: str) -> Iterable[Cause]:
    """A workload must select its own pods. A selector that can't be understood is reported elsewhere."""
    labels = labels_of(template)
    parsed = selector_for(selector)
    if parsed is not None and (selects_everything(selector) or not parsed.matches(labels)):
        yield invalid(f"{path}.metadata.labels", labels, "`selector` does not match template `labels`")


def labels_of(template: PodTemplateSpec | None) -> dict[str, str]:
    return template.metadata.labels if template and template.metadata else {}


def container_names(template: PodTemplateSpec | None) -> str:
    return _joined(template, "name")


def container_images(template: PodTemplateSpec | None) -> str:
    return _joined(template, "image")


def _joined(template: PodTemplateSpec | None, field: str) -> str:
    spec = template.spec if template else None
    return ",".join(getattr(container, field) or "" for container in (spec.containers if spec else ())) or NONE


def age_column() -> Column:
    return Column("Age", lambda obj, now_s: age(obj.metadata.creation_timestamp, now_s))


def template_columns(template: Callable[[Any], PodTemplateSpec | None]) -> Sequence[Column]:
    """The containers and their images, shown with -o wide."""
    return (
        Column("Containers", lambda obj, now_s: container_names(template(obj)), priority=1),
        Column("Images", lambda obj, now_s: container_images(template(obj)), priority=1),
    )


def selector_column(selector: Callable[[Any], LabelSelector | None]) -> Column:
    return Column("Selector", lambda obj, now_s: str(selector_of(selector(obj)) or NONE), priority=1)
