"""LimitRanges: what containers, pods and claims get when they say nothing, and between what they have to stay."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from knarr.api import names
from knarr.api.core.amounts import default_amounts
from knarr.api.core.quotas import STANDARD_NAMES, is_huge_page
from knarr.api.core.v1 import LimitRange, LimitRangeItem, LimitRangeSpec
from knarr.api.core.validate_values import STANDARD_AMOUNTS
from knarr.api.errors import Cause, duplicate, forbidden, invalid, required
from knarr.api.quantity import parse_quantity
from knarr.api.resources import Column, Strategy
from knarr.api.types import Quantity

TYPES = ("Container", "PersistentVolumeClaim", "Pod")
FOR_CONTAINERS = (*STANDARD_AMOUNTS,)


class LimitRangeStrategy(Strategy[LimitRange]):
    def default(self, obj: LimitRange) -> None:
        obj.spec = obj.spec or LimitRangeSpec()
        for item in obj.spec.limits:
            for amounts in (item.max, item.min, item.default, item.default_request, item.max_limit_request_ratio):
                default_amounts(amounts)
            if item.type == "Container":
                _default_container(item)

    def validate(self, obj: LimitRange) -> Iterable[Cause]:
        seen: set[str] = set()
        for index, item in enumerate(obj.spec.limits if obj.spec else ()):
            path = f"spec.limits[{index}]"
            yield from _type_faults(item.type, f"{path}.type")
            if item.type in seen:
                yield duplicate(f"{path}.type", item.type)
            seen.add(item.type)
            yield from _validate_item(item, path)


def _default_container(item: LimitRangeItem) -> None:
    """A default limit is the maximum; a default request is the default limit, or else the minimum."""
    item.default = {**item.max, **item.default}
    item.default_request = {**item.min, **item.default, **item.default_request}


def _type_faults(kind: str, path: str) -> Iterable[Cause]:
    faults = names.label_key_faults(kind)
    for fault in faults:
        yield invalid(path, kind, fault)
    if not faults and "/" not in kind and kind not in TYPES:
        yield invalid(path, kind, "must be a standard limit type or fully qualified")


def _name_faults(kind: str, name: str, path: str) -> Iterable[Cause]:
    faults = names.label_key_faults(name)
    for fault in faults:
        yield invalid(path, name, fault)
    if faults or "/" in name:
        return
    if name not in STANDARD_NAMES and not is_huge_page(name):
        yield invalid(path, name, "must be a standard resource type or fully qualified")
    if kind in ("Container", "Pod") and name not in FOR_CONTAINERS and not name.startswith("hugepages-"):
        yield invalid(path, name, "must be a standard resource for containers")


def _validate_item(item: LimitRangeItem, path: str) -> Iterable[Cause]:
    fields = {"max": item.max, "min": item.min}
    if item.type == "Pod":
        for field, amounts in (("default", item.default), ("defaultRequest", item.default_request)):
            if amounts:
                yield forbidden(f"{path}.{field}", "may not be specified when `type` is 'Pod'")
    else:
        fields |= {"default": item.default, "defaultRequest": item.default_request}
    if item.type == "PersistentVolumeClaim" and "storage" not in item.min and "storage" not in item.max:
        detail = "either minimum or maximum storage value is required, but neither was provided"
        yield required(f"{path}.limits", detail)
    fields["maxLimitRequestRatio"] = item.max_limit_request_ratio
    for field, amounts in fields.items():
        for name in amounts:
            yield from _name_faults(item.type, name, f"{path}.{field}[{name}]")
    for name in sorted({name for amounts in fields.values() for name in amounts}):
        yield from _compare({field: amounts[name] for field, amounts in fields.items() if name in amounts}, name, path)


WORDS = {"min": "min value", "max": "max value", "default": "default value", "defaultRequest": "default request value"}
ORDER = (
    ("min", "max", "min", "min"),
    ("min", "defaultRequest", "defaultRequest", "defaultRequest"),
    ("defaultRequest", "max", "defaultRequest", "defaultRequest"),
    ("defaultRequest", "default", "defaultRequest", "defaultRequest"),
    ("min", "default", "default", "min"),
    ("default", "max", "default", "max"),
)
"""(what may not be greater, than what, the field that is told, the value that is shown)."""


def _compare(found: dict[str, Quantity], name: str, path: str) -> Iterable[Cause]:
    values: dict[str, Decimal] = {field: parse_quantity(amount) for field, amount in found.items()}
    for low, high, field, shown in ORDER:
        if low in values and high in values and values[low] > values[high]:
            word = "default limit value" if (low, high) == ("defaultRequest", "default") else WORDS[high]
            detail = f"{WORDS[low]} {found[low]} is greater than {word} {found[high]}"
            yield invalid(f"{path}.{field}[{name}]", found[shown], detail)
    ratio = values.get("maxLimitRequestRatio")
    if ratio is not None:
        place, amount = f"{path}.maxLimitRequestRatio[{name}]", found["maxLimitRequestRatio"]
        if ratio < 1:
            yield invalid(place, amount, f"ratio {amount} is less than 1")
        if values.get("min") and "max" in values and ratio > (most := values["max"] / values["min"]):
            yield invalid(place, amount, f"ratio {amount} is greater than max/min = {float(most):f}")
    if "/" in name or name.startswith("hugepages-"):
        limit, request = found.get("default"), found.get("defaultRequest")
        if limit is not None and request is not None and values["default"] != values["defaultRequest"]:
            detail = f"default value {limit} must equal to defaultRequest value {request} in {name}"
            yield invalid(f"{path}.defaultRequest[{name}]", request, detail)


def _created(obj: Any, now_s: float) -> str:
    made = obj.metadata.creation_timestamp
    return made.strftime("%Y-%m-%dT%H:%M:%SZ") if made else ""


COLUMNS = (Column("Created At", _created, type="date"),)
