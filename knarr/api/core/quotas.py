"""ResourceQuotas: how much of what a namespace may use. What counts as use: knarr.api.core.quota_usage."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from knarr.api import names
from knarr.api.core.amounts import default_amounts
from knarr.api.core.v1 import ResourceQuota, ResourceQuotaSpec, ResourceQuotaStatus
from knarr.api.errors import Cause, invalid, required
from knarr.api.printing import age
from knarr.api.quantity import parse_quantity
from knarr.api.resources import Column, Strategy
from knarr.api.types import Quantity

COUNTED = (
    "pods",
    "services",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
)
"""Numbers of things, under the names that they had before count/…"""
COMPUTE = ("cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory")
EPHEMERAL = ("ephemeral-storage", "requests.ephemeral-storage", "limits.ephemeral-storage")
STANDARD_QUOTAS = frozenset((*COUNTED, *COMPUTE, *EPHEMERAL, "requests.storage"))
STANDARD_NAMES = STANDARD_QUOTAS | {"storage"}

_OF_PODS = frozenset(("pods", *COMPUTE))
SCOPES: dict[str, frozenset[str]] = {
    "Terminating": _OF_PODS,
    "NotTerminating": _OF_PODS,
    "BestEffort": frozenset(("pods",)),
    "NotBestEffort": _OF_PODS,
    "PriorityClass": _OF_PODS,
    "CrossNamespacePodAffinity": _OF_PODS,
    "VolumeAttributesClass": frozenset(("persistentvolumeclaims", "requests.storage")),
}
"""Each scope, and the standard names that it can be applied to."""
WITH_VALUES = ("PriorityClass", "VolumeAttributesClass")
CONFLICTING = ({"BestEffort", "NotBestEffort"}, {"Terminating", "NotTerminating"})
ONLY_EXISTS = (
    "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, "
    "ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity"
)


def is_huge_page(name: str) -> bool:
    return name.startswith(("hugepages-", "requests.hugepages-"))


def is_standard(name: str) -> bool:
    return name in STANDARD_QUOTAS or is_huge_page(name)


class ResourceQuotaStrategy(Strategy[ResourceQuota]):
    has_status = True
    returns_deleted = True

    def default(self, obj: ResourceQuota) -> None:
        obj.spec = obj.spec or ResourceQuotaSpec()
        obj.status = obj.status or ResourceQuotaStatus()
        for amounts in (obj.spec.hard, obj.status.hard, obj.status.used):
            default_amounts(amounts)

    def validate(self, obj: ResourceQuota) -> Iterable[Cause]:
        spec = obj.spec or ResourceQuotaSpec()
        yield from _validate_amounts(spec.hard, "spec.hard")
        if spec.scopes:
            yield from _validate_scopes(spec)
        if spec.scope_selector:
            yield from _validate_selector(spec)

    def validate_update(self, obj: ResourceQuota, old: ResourceQuota) -> Iterable[Cause]:
        new, before = obj.spec or ResourceQuotaSpec(), old.spec or ResourceQuotaSpec()
        if set(new.scopes) != set(before.scopes):
            yield invalid("spec.scopes", new.scopes, "field is immutable")

    def validate_status_update(self, obj: ResourceQuota, old: ResourceQuota) -> Iterable[Cause]:
        status = obj.status or ResourceQuotaStatus()
        yield from _validate_amounts(status.hard, "status.hard")
        yield from _validate_amounts(status.used, "status.used")


def _validate_amounts(amounts: dict[str, Quantity], path: str) -> Iterable[Cause]:
    for name, amount in amounts.items():
        place = f"{path}[{name}]"
        faults = names.label_key_faults(name)
        for fault in faults:
            yield invalid(place, name, fault)
        if not faults and "/" not in name and name not in STANDARD_NAMES and not is_huge_page(name):
            yield invalid(place, name, "must be a standard resource type or fully qualified")
        if "/" not in name and not is_standard(name):
            yield invalid(place, name, "must be a standard resource for quota")
        value = parse_quantity(amount)
        if value < 0:
            yield invalid(place, amount, "must be greater than or equal to 0")
        if name in COUNTED and value != value.to_integral_value():
            yield invalid(place, amount, "must be an integer")


def _unfit(scope: str, hard: Iterable[str]) -> bool:
    """Whether the scope says nothing about one of the names."""
    return any(is_standard(name) and name not in SCOPES[scope] for name in hard if scope in SCOPES)


def _validate_scopes(spec: ResourceQuotaSpec) -> Iterable[Cause]:
    path = "spec.scopes"
    for scope in spec.scopes:
        if scope not in SCOPES:
            yield invalid(path, spec.scopes, "unsupported scope")
        elif _unfit(scope, spec.hard):
            yield invalid(path, spec.scopes, "unsupported scope applied to resource")
    if any(pair <= set(spec.scopes) for pair in CONFLICTING):
        yield invalid(path, spec.scopes, "conflicting scopes")


def _validate_selector(spec: ResourceQuotaSpec) -> Iterable[Cause]:
    path = "spec.scopeSelector.matchExpressions"
    assert spec.scope_selector
    for wanted in spec.scope_selector.match_expressions:
        if wanted.scope_name not in SCOPES:
            yield invalid(f"{path}.scopeName", wanted.scope_name, "unsupported scope")
        elif _unfit(wanted.scope_name, spec.hard):
            shown = msgspec.to_builtins(spec.scope_selector)
            yield invalid(path, shown, "unsupported scope applied to resource")
        if wanted.scope_name in SCOPES and wanted.scope_name not in WITH_VALUES and wanted.operator != "Exists":
            yield invalid(f"{path}.operator", wanted.operator, ONLY_EXISTS)
        if wanted.operator in ("In", "NotIn"):
            if not wanted.values:
                detail = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
                yield required(f"{path}.values", detail)
        elif wanted.operator in ("Exists", "DoesNotExist"):
            if wanted.values:
                detail = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"
                yield invalid(f"{path}.values", wanted.values, detail)
        else:
            yield invalid(f"{path}.operator", wanted.operator, "not a valid selector operator")


def _used(limits: bool) -> Any:
    def cell(quota: ResourceQuota, now_s: float) -> str:
        status = quota.status or ResourceQuotaStatus()
        names = sorted(name for name in status.hard if name.startswith("limits.") == limits)
        return ", ".join(f"{name}: {status.used.get(name, 0)}/{status.hard[name]}" for name in names)

    return cell


COLUMNS = (
    Column("Request", _used(False)),
    Column("Limit", _used(True)),
    Column("Age", lambda quota, now_s: age(quota.metadata.creation_timestamp, now_s)),
)
