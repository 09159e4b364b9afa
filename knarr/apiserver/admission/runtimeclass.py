"""RuntimeClass: a pod pays its runtime's overhead (KEP-688), and goes where that runtime is (KEP-894)."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from knarr.api.core.v1 import Pod, Toleration
from knarr.api.node.v1 import RuntimeClass
from knarr.api.quantity import parse_quantity
from knarr.api.types import Quantity, copy
from knarr.apiserver.admission import Attributes, Plugin
from knarr.apiserver.admission.index import Index

MISMATCH = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"


class RuntimeClasses(Plugin):
    name = "RuntimeClass"
    kinds = (Pod,)
    operations = ("CREATE",)
    subresources = ("",)

    def __init__(self, classes: Index[RuntimeClass]) -> None:
        self._classes = classes

    async def mutate(self, attributes: Attributes) -> None:
        pod: Pod = attributes.obj
        spec = pod.spec
        if spec is None or not spec.runtime_class_name:
            return
        found = await self._class(attributes, spec.runtime_class_name)
        if found.overhead:
            if spec.overhead and _amounts(spec.overhead) != _amounts(found.overhead.pod_fixed):
                raise attributes.refused(MISMATCH, named=False)
            spec.overhead = dict(found.overhead.pod_fixed)
        if found.scheduling:
            for key, value in found.scheduling.node_selector.items():
                own = spec.node_selector.setdefault(key, value)
                if own != value:
                    about = f"conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; "
                    raise attributes.refused(f"{about}pod.spec.nodeSelector[{key}] = {own}", named=False)
            spec.tolerations = _merged(spec.tolerations, found.scheduling.tolerations)

    async def validate(self, attributes: Attributes) -> None:
        spec = attributes.obj.spec
        if not spec.overhead and not spec.runtime_class_name:
            return
        found = await self._class(attributes, spec.runtime_class_name) if spec.runtime_class_name else None
        if found and found.overhead:
            if _amounts(spec.overhead) != _amounts(found.overhead.pod_fixed):
                raise attributes.refused(MISMATCH)
        elif spec.overhead:
            about = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"
            raise attributes.refused(about)

    async def _class(self, attributes: Attributes, name: str) -> RuntimeClass:
        found = await self._classes.get("", name)
        if found is None:
            raise attributes.refused(f'pod rejected: RuntimeClass "{name}" not found', named=False)
        return found


def _amounts(written: Mapping[str, Quantity]) -> dict[str, Decimal]:
    return {name: parse_quantity(amount) for name, amount in written.items()}


def _merged(own: list[Toleration], more: list[Toleration]) -> list[Toleration]:
    """Both, without what another of them tolerates anyway."""
    found: list[Toleration] = []
    for index, toleration in enumerate(everything := [*own, *more]):
        later = everything[index + 1 :]
        needless = any(_covers(other, toleration) for other in (*found, *later) if other != toleration)
        if not needless and toleration not in found:
            found.append(copy(toleration))
    return found


def _covers(wide: Toleration, narrow: Toleration) -> bool:
    """Whether `wide` tolerates all that `narrow` does."""
    if wide.key and wide.key != narrow.key:
        return False
    if wide.effect and wide.effect != narrow.effect:
        return False
    if wide.toleration_seconds is not None and (
        narrow.toleration_seconds is None or wide.toleration_seconds < narrow.toleration_seconds
    ):
        return False
    if wide.operator == "Exists":
        return True
    return wide.key == narrow.key and narrow.operator != "Exists" and (wide.value or "") == (narrow.value or "")
