"""The kinds of the group scheduling.k8s.io, as they are served."""

from __future__ import annotations

from collections.abc import Iterable

from knarr.api.errors import Cause, forbidden, invalid, not_supported, required
from knarr.api.printing import age
from knarr.api.resources import Column, Strategy, served
from knarr.api.scheduling import v1

SYSTEM_PREFIX = "system-"
SYSTEM = {"system-node-critical": 2_000_001_000, "system-cluster-critical": 2_000_000_000}
"""The classes that every cluster has, and their values."""
DESCRIPTIONS = {
    "system-node-critical": "Used for system critical pods that must not be moved from their current node.",
    "system-cluster-critical": "Used for system critical pods that must run in the cluster, but can be moved to "
    "another node if necessary.",
}
USER_VALUE_MAX = 1_000_000_000
PREEMPTION_POLICIES = ("Never", "PreemptLowerPriority")


class PriorityClassStrategy(Strategy[v1.PriorityClass]):
    allow_create_on_update = True

    def default(self, obj: v1.PriorityClass) -> None:
        obj.value = obj.value or 0
        if obj.preemption_policy is None:
            obj.preemption_policy = "PreemptLowerPriority"

    def prepare_for_create(self, obj: v1.PriorityClass) -> None:
        obj.metadata.generation = 1

    def validate(self, obj: v1.PriorityClass) -> Iterable[Cause]:
        name, value = obj.metadata.name or "", obj.value or 0
        if name.startswith(SYSTEM_PREFIX):
            if fault := _system_fault(name, value, bool(obj.global_default)):
                detail = f"priority class names with '{SYSTEM_PREFIX}' prefix are reserved for system use only. error: "
                yield forbidden("metadata.name", detail + fault)
        elif value > USER_VALUE_MAX:
            yield forbidden("value", f"maximum allowed value of a user defined priority is {USER_VALUE_MAX}")
        if obj.preemption_policy == "":
            yield required("preemptionPolicy")
        elif obj.preemption_policy not in PREEMPTION_POLICIES:
            yield not_supported("preemptionPolicy", obj.preemption_policy, PREEMPTION_POLICIES)

    def validate_update(self, obj: v1.PriorityClass, old: v1.PriorityClass) -> Iterable[Cause]:
        if (obj.value or 0) != (old.value or 0):
            yield forbidden("value", "may not be changed in an update.")
        if obj.preemption_policy != old.preemption_policy:
            yield invalid("preemptionPolicy", obj.preemption_policy, "field is immutable")


def _system_fault(name: str, value: int, default: bool) -> str:
    if name not in SYSTEM:
        return f"{name} is not a known system priority class"
    if value != SYSTEM[name]:
        return f"value of {name} PriorityClass must be {SYSTEM[name]}"
    return f"globalDefault of {name} PriorityClass must be false" if default else ""


COLUMNS = (
    Column("Value", lambda obj, now_s: obj.value or 0, type="integer"),
    Column("Global-Default", lambda obj, now_s: bool(obj.global_default), type="boolean"),
    Column("Age", lambda obj, now_s: age(obj.metadata.creation_timestamp, now_s)),
    Column("PreemptionPolicy", lambda obj, now_s: obj.preemption_policy or ""),
)

RESOURCES = (
    served(
        v1.PriorityClass,
        "priorityclasses",
        namespaced=False,
        short_names=("pc",),
        strategy=PriorityClassStrategy(),
        columns=COLUMNS,
    ),
)
