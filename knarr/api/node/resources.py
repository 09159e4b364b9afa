"""The kinds of the group node.k8s.io, as they are served."""

from __future__ import annotations

from collections.abc import Iterable

from knarr.api import names
from knarr.api.core.amounts import default_amounts
from knarr.api.core.v1 import ResourceRequirements
from knarr.api.core.validate_podspec import validate_tolerations
from knarr.api.core.validate_values import validate_requirements
from knarr.api.errors import Cause, invalid
from knarr.api.metadata import validate_labels
from knarr.api.node import v1
from knarr.api.printing import age
from knarr.api.resources import Column, Strategy, served


class RuntimeClassStrategy(Strategy[v1.RuntimeClass]):
    allow_unconditional_update = False
    allow_create_on_update = True

    def default(self, obj: v1.RuntimeClass) -> None:
        if obj.overhead:
            default_amounts(obj.overhead.pod_fixed)

    def validate(self, obj: v1.RuntimeClass) -> Iterable[Cause]:
        for fault in names.dns1123_label_faults(obj.handler):
            yield invalid("handler", obj.handler, fault)
        if obj.overhead:
            yield from validate_requirements(ResourceRequirements(limits=obj.overhead.pod_fixed), "overhead")
        if obj.scheduling:
            yield from validate_labels(obj.scheduling.node_selector, "scheduling.nodeSelector")
            yield from validate_tolerations(obj.scheduling.tolerations, "scheduling.tolerations")

    def validate_update(self, obj: v1.RuntimeClass, old: v1.RuntimeClass) -> Iterable[Cause]:
        if obj.handler != old.handler:
            yield invalid("handler", obj.handler, "field is immutable")


COLUMNS = (
    Column("Handler", lambda obj, now_s: obj.handler),
    Column("Age", lambda obj, now_s: age(obj.metadata.creation_timestamp, now_s)),
)

RESOURCES = (
    served(v1.RuntimeClass, "runtimeclasses", namespaced=False, strategy=RuntimeClassStrategy(), columns=COLUMNS),
)
