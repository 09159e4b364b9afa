"""A device of a ResourceSlice: its attributes, what it has to give, and what keeps pods away from it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal

from knarr.api import names
from knarr.api.core.validate_podspec import validate_node_selector
from knarr.api.core.validate_values import validate_choice
from knarr.api.errors import Cause, duplicate, forbidden, invalid, required, too_long, too_many
from knarr.api.quantity import canonical, parse_quantity
from knarr.api.resource.v1 import (
    CapacityRequestPolicy,
    CapacityRequestPolicyRange,
    Device,
    DeviceAttribute,
    DeviceCounterConsumption,
    DeviceTaint,
)
from knarr.api.resource.values import (
    EFFECTS,
    validate_binding,
    validate_label,
    validate_label_value,
    validate_list,
    validate_qualified_name,
    validate_unique,
)
from knarr.api.types import Quantity

PROPERTIES_MAX = 32
"""Attributes and capacities of a device."""
VALUES_MAX = 48
"""Values of its attributes, those in lists counted each."""
VALUE_MAX = 64
"""Characters of an attribute's value."""
TAINTS_MAX = 16
CONSUMED_SETS_MAX, CONSUMED_COUNTERS_MAX = 2, 32
VALID_VALUES_MAX = 10
_PART = r"(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)"
_VERSION = re.compile(
    rf"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-{_PART}(\.{_PART})*)?(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?", re.ASCII
)
"""semver.org 2.0.0"""


def validate_device(device: Device, old: Device | None, path: str, *, chosen_each: bool) -> Iterable[Cause]:
    """`chosen_each`: each device of the slice says itself on which nodes it is."""
    yield from validate_label(device.name, f"{path}.name")
    count = len(device.attributes) + len(device.capacity)
    if count > PROPERTIES_MAX:
        yield invalid(path, count, f"the total number of attributes and capacities must not exceed {PROPERTIES_MAX}")
    values = sum(_count(attribute) for attribute in device.attributes.values())
    if values > VALUES_MAX:
        yield invalid(path, values, f"the total number of attribute values must not exceed {VALUES_MAX}")
    for name, attribute in device.attributes.items():
        yield from validate_qualified_name(name, f"{path}.attributes")
        yield from _validate_attribute(attribute, f"{path}.attributes[{name}]")
    if old is None or old.capacity != device.capacity:
        yield from _validate_capacity(device, f"{path}.capacity")
    if old is None or old.taints != device.taints:
        yield from validate_list(device.taints, TAINTS_MAX, _validate_taint, f"{path}.taints")
    yield from validate_unique(
        device.consumes_counters,
        CONSUMED_SETS_MAX,
        _validate_consumption,
        f"{path}.consumesCounters",
        lambda each: each.counter_set,
    )
    yield from _validate_nodes(device, path) if chosen_each else _validate_no_nodes(device, path)
    yield from validate_binding(device.binding_conditions, device.binding_failure_conditions, path)


def _count(attribute: DeviceAttribute) -> int:
    return len(attribute.bools) + len(attribute.ints) + len(attribute.strings) + len(attribute.versions) or 1


def _validate_attribute(attribute: DeviceAttribute, path: str) -> Iterable[Cause]:
    for field, texts in (("strings", attribute.strings), ("versions", attribute.versions)):
        for index, text in enumerate(texts):
            yield from _validate_value(text, f"{path}.{field}[{index}]", version=field == "versions")
    if attribute.string is not None:
        yield from _validate_value(attribute.string, f"{path}.string", version=False)
    if attribute.version is not None:
        yield from _validate_value(attribute.version, f"{path}.version", version=True)
    single = (attribute.bool_, attribute.int_, attribute.string, attribute.version)
    lists = (attribute.bools, attribute.ints, attribute.strings, attribute.versions)
    count = sum(value is not None for value in single) + sum(bool(each) for each in lists)
    if count != 1:
        yield invalid(path, attribute if count else "", "exactly one value must be specified")


def _validate_value(text: str, path: str, *, version: bool) -> Iterable[Cause]:
    if version and not _VERSION.fullmatch(text):
        yield invalid(path, text, "must be a string compatible with semver.org spec 2.0.0")
    if len(text.encode()) > VALUE_MAX:
        yield too_long(path, VALUE_MAX)


def _validate_capacity(device: Device, path: str) -> Iterable[Cause]:
    for name, capacity in device.capacity.items():
        yield from validate_qualified_name(name, path)
        if capacity.request_policy is None:
            continue
        place = f"{path}[{name}].requestPolicy"
        if device.allow_multiple_allocations:
            yield from _validate_policy(capacity.value, capacity.request_policy, place)
        else:
            yield forbidden(place, "allowMultipleAllocations must be true")


def _validate_policy(capacity: Quantity, policy: CapacityRequestPolicy, path: str) -> Iterable[Cause]:
    """How much of a capacity one may ask for: one of some values, or anything in a range (KEP-5075)."""
    if policy.valid_values and policy.valid_range:
        detail = 'exactly one policy can be specified, cannot specify "validValues" and "validRange" at the same time'
        yield forbidden(path, detail)
    elif policy.valid_values:
        if policy.default is None:
            yield required(f"{path}.default", "required when validValues is defined")
        else:
            yield from _validate_values(policy.default, capacity, policy.valid_values, f"{path}.validValues")
    elif policy.valid_range:
        if policy.default is None:
            yield required(f"{path}.default", "required when validRange is defined")
        else:
            yield from _validate_range(policy.default, capacity, policy.valid_range, f"{path}.validRange")


def _amount(written: Quantity) -> Decimal:
    """In billionths at the finest, so that no remainder of a division is too long a number."""
    return parse_quantity(canonical(written))


def _validate_values(default: Quantity, capacity: Quantity, written: list[Quantity], path: str) -> Iterable[Cause]:
    amounts = [_amount(each) for each in written]
    for index in range(1, len(amounts)):
        if amounts[index - 1] > amounts[index]:
            yield invalid(f"{path}[{index}]", canonical(written[index]), "values must be sorted in ascending order")
    if len(amounts) > VALID_VALUES_MAX:
        yield too_many(path, len(amounts), VALID_VALUES_MAX)
    else:
        for index, amount in enumerate(amounts):
            if amount > _amount(capacity):
                detail = f"option is larger than capacity value: {canonical(capacity)}"
                yield invalid(f"{path}[{index}]", canonical(written[index]), detail)
        for index, amount in enumerate(amounts):
            if amount in amounts[:index]:
                yield duplicate(f"{path}[{index}]", str(int(amount)))
    if _amount(default) not in amounts:
        yield invalid(path, canonical(default), "default value is not valid according to the requestPolicy")


def _validate_range(
    default: Quantity, capacity: Quantity, valid: CapacityRequestPolicyRange, path: str
) -> Iterable[Cause]:
    least, whole, usual = _amount(valid.min), _amount(capacity), _amount(default)
    most = _amount(valid.max) if valid.max is not None else None
    shown_least, shown_whole = canonical(valid.min), canonical(capacity)
    if least > whole:
        yield invalid(f"{path}.min", shown_least, f"min is larger than capacity value: {shown_whole}")
    if usual < least:
        yield invalid(f"{path}.default", canonical(default), f"default is less than min: {shown_least}")
    if valid.max is not None and most is not None:
        if least > most:
            yield invalid(f"{path}.max", shown_least, f"min is larger than max: {canonical(valid.max)}")
        if most > whole:
            detail = f"max is larger than capacity value: {shown_whole}"
            yield invalid(f"{path}.max", canonical(valid.max), detail)
        if usual > most:
            yield invalid(f"{path}.default", canonical(default), f"default is more than max: {canonical(valid.max)}")
    if valid.step is None:
        return
    step, shown_step = _amount(valid.step), canonical(valid.step)
    if step <= 0:
        yield invalid(f"{path}.step", shown_step, "must be greater than zero")
        return
    if least + step > whole:
        detail = f"one step {canonical(str(least + step))} is larger than capacity value: {shown_whole}"
        yield invalid(f"{path}.step", shown_step, detail)
    for written in (default, valid.max):
        if written is not None and (_amount(written) - least) % step:
            detail = f"value is not a multiple of a given step ({shown_step}) from ({shown_least})"
            yield invalid(f"{path}.step", canonical(written), detail)


def _validate_taint(taint: DeviceTaint, path: str) -> Iterable[Cause]:
    for fault in names.label_key_faults(taint.key):
        yield invalid(f"{path}.key", taint.key, fault)
    yield from validate_label_value(taint.value or "", f"{path}.value")
    yield from validate_choice(taint.effect, EFFECTS, f"{path}.effect")


def _validate_consumption(consumed: DeviceCounterConsumption, path: str) -> Iterable[Cause]:
    if not consumed.counter_set:
        yield required(f"{path}.counterSet")
    else:
        yield from validate_label(consumed.counter_set, f"{path}.counterSet")
    if not consumed.counters:
        yield required(f"{path}.counters")
    elif len(consumed.counters) > CONSUMED_COUNTERS_MAX:
        yield too_many(f"{path}.counters", len(consumed.counters), CONSUMED_COUNTERS_MAX)
    else:
        for name in consumed.counters:
            yield from validate_label(name, f"{path}.counters")


def _validate_nodes(device: Device, path: str) -> Iterable[Cause]:
    said = []
    if device.node_name is not None:
        if device.node_name:
            said.append("`nodeName`")
            for fault in names.dns1123_subdomain_faults(device.node_name):
                yield invalid(f"{path}.nodeName", device.node_name, fault)
        else:
            yield invalid(f"{path}.nodeName", "", "must not be empty")
    if device.node_selector is not None:
        said.append("`nodeSelector`")
        yield from validate_node_selector(device.node_selector, f"{path}.nodeSelector")
    if device.all_nodes:
        said.append("`allNodes`")
    elif device.all_nodes is not None:
        yield invalid(f"{path}.allNodes", False, "must be either unset or set to true")
    one_of = (
        "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to "
        "true in the ResourceSlice spec"
    )
    if not said:
        yield required(path, one_of)
    elif len(said) > 1:
        yield invalid(path, f"{{{', '.join(said)}}}", one_of)


def _validate_no_nodes(device: Device, path: str) -> Iterable[Cause]:
    if device.node_name is not None or device.node_selector is not None or device.all_nodes is not None:
        detail = (
            "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in "
            "the ResourceSlice spec"
        )
        yield invalid(path, None, detail)
