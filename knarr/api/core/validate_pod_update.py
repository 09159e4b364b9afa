"""What of a pod may change once it is there (upstream's ValidatePodUpdate): very little."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from knarr.api.core.v1 import Container, PodSpec, Toleration
from knarr.api.errors import Cause, forbidden, invalid
from knarr.api.types import replace

DEADLINE_MAX_S = 2**31 - 1
CHANGEABLE = ",".join(
    (
        "`spec.containers[*].image`",
        "`spec.initContainers[*].image`",
        "`spec.activeDeadlineSeconds`",
        "`spec.tolerations` (only additions to existing tolerations)",
        "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
    )
)


def validate_pod_update(spec: PodSpec, old: PodSpec) -> Iterable[Cause]:
    """Faults of a change of a pod's spec."""
    if len(spec.containers) != len(old.containers):
        yield forbidden("spec.containers", "pod updates may not add or remove containers")
        return
    if len(spec.init_containers) != len(old.init_containers):
        yield forbidden("spec.initContainers", "pod updates may not add or remove containers")
        return
    yield from _validate_deadline(spec.active_deadline_seconds, old.active_deadline_seconds)
    if not _only_added(spec.tolerations, old.tolerations):
        detail = "existing toleration can not be modified except its tolerationSeconds"
        yield forbidden("spec.tolerations", detail)
    before = {gate.name for gate in old.scheduling_gates}
    for index, gate in enumerate(spec.scheduling_gates):
        if gate.name not in before:
            detail = f"only deletion is allowed, but found new scheduling gate '{gate.name}'"
            yield forbidden(f"spec.schedulingGates[{index}]", detail)
    if not _otherwise_same(spec, old):
        yield forbidden("spec", f"pod updates may not change fields other than {CHANGEABLE}")


def _validate_deadline(new_s: int | None, old_s: int | None) -> Iterable[Cause]:
    """It may be set, and come nearer."""
    path = "spec.activeDeadlineSeconds"
    if new_s is None:
        if old_s is not None:
            yield invalid(path, None, "must not update from a positive integer to nil value")
    elif not 0 <= new_s <= DEADLINE_MAX_S:
        yield invalid(path, new_s, f"must be between 0 and {DEADLINE_MAX_S}, inclusive")
    elif old_s is not None and old_s < new_s:
        yield invalid(path, new_s, "must be less than or equal to previous value")


def _only_added(new: list[Toleration], old: list[Toleration]) -> bool:
    """Every old toleration is still there; how long it holds may differ."""
    kept = [replace(toleration, toleration_seconds=None) for toleration in new]
    return all(replace(toleration, toleration_seconds=None) in kept for toleration in old)


def _otherwise_same(spec: PodSpec, old: PodSpec) -> bool:
    changes: dict[str, Any] = {
        "containers": _with_images(spec.containers, old.containers),
        "init_containers": _with_images(spec.init_containers, old.init_containers),
        "active_deadline_seconds": old.active_deadline_seconds,
        "tolerations": old.tolerations,
        "scheduling_gates": old.scheduling_gates,
    }
    grace_s, before_s = spec.termination_grace_period_seconds, old.termination_grace_period_seconds
    if grace_s == 1 and before_s is not None and before_s < 0:
        changes["termination_grace_period_seconds"] = before_s
    if old.scheduling_gates:
        # KEP-3838: while a pod is gated, where it may go can be narrowed.
        if spec.node_selector.items() >= old.node_selector.items():
            changes["node_selector"] = old.node_selector
        changes["affinity"] = old.affinity
    munged = replace(spec, **changes)
    return munged == old or _meaning(munged) == _meaning(old)


def _with_images(new: list[Container], old: list[Container]) -> list[Container]:
    """`new` with the images of `old`, to see what else differs."""
    return [replace(container, image=before.image) for container, before in zip(new, old, strict=True)]


def _meaning(value: Any) -> Any:
    """Plain data without what says nothing: an empty word is the same as none."""
    if isinstance(value, msgspec.Struct):
        value = msgspec.to_builtins(value)
    if isinstance(value, dict):
        parts = {key: _meaning(part) for key, part in value.items()}
        return {key: part for key, part in parts.items() if part not in (None, "", False)}
    if isinstance(value, list):
        return [_meaning(part) for part in value]
    return value
