"""What the kinds of dynamic resource allocation have in common: names, lists of limited length, opaque parameters.

The rules are those of KEP-4381 (structured parameters). CEL expressions are kept as they are: only their length is
checked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from knarr.api import names
from knarr.api.core.validate_values import validate_choice
from knarr.api.errors import Cause, duplicate, invalid, not_supported, required, too_long, too_many
from knarr.api.resource.v1 import DeviceSelector, DeviceToleration, OpaqueDeviceConfiguration
from knarr.api.storage.classes import validate_driver_name

T = TypeVar("T")
Rule = Callable[[T, str], Iterable[Cause]]
"""rule(item, path): the faults of one item."""

POOL_NAME_MAX = 253
IDENTIFIER_MAX = 32
EXPRESSION_MAX_BYTES = PARAMETERS_MAX_BYTES = 10 << 10
SELECTORS_MAX = CONFIG_MAX = 32
BINDING_CONDITIONS_MAX = 4
EFFECTS = ("NoExecute", "NoSchedule", "None")
OPERATORS = ("Equal", "Exists")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_IDENTIFIER_FAULT = (
    "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters "
    "or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')"
)
_UID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def validate_list(items: Sequence[T], limit: int | None, rule: Rule[T], path: str) -> Iterable[Cause]:
    """Each item by the rule; of a list that is too long, none."""
    if limit is not None and len(items) > limit:
        yield too_many(path, len(items), limit)
        return
    for index, item in enumerate(items):
        yield from rule(item, f"{path}[{index}]")


def validate_unique(
    items: Sequence[T],
    limit: int | None,
    rule: Rule[T],
    path: str,
    key: Callable[[T], Hashable] = lambda item: item,
) -> Iterable[Cause]:
    """As `validate_list`, and no two with the same key."""
    yield from validate_list(items, limit, rule, path)
    if limit is not None and len(items) > limit:
        return
    seen: set[Hashable] = set()
    for index, item in enumerate(items):
        if key(item) in seen:
            yield duplicate(f"{path}[{index}]", key(item))
        seen.add(key(item))


def validate_label(name: str, path: str) -> Iterable[Cause]:
    """A DNS label: names of requests, devices and counters."""
    for fault in names.dns1123_label_faults(name):
        yield invalid(path, name, fault)


def validate_pool_name(name: str, path: str) -> Iterable[Cause]:
    """DNS subdomains with slashes between them."""
    if not name:
        yield required(path)
        return
    if len(name) > POOL_NAME_MAX:
        yield too_long(path, POOL_NAME_MAX)
    for part in name.split("/"):
        for fault in names.dns1123_subdomain_faults(part):
            yield invalid(path, part, fault)


def validate_share(share: str | None, path: str) -> Iterable[Cause]:
    """The id of a share of a device is a UID."""
    if share is not None and not _UID.fullmatch(share):
        detail = (
            "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase "
            "hexadecimal characters"
        )
        yield invalid(path, share, detail)


def validate_qualified_name(name: str, path: str) -> Iterable[Cause]:
    """[domain/]identifier, of an attribute or a capacity."""
    domain, *rest = name.split("/")
    if not rest:
        yield from _validate_identifier(domain, path)
    elif len(rest) > 1:
        yield invalid(path, name, "must not contain more than one slash")
    else:
        if not domain:
            yield invalid(path, "", "the domain must not be empty")
        else:
            yield from validate_driver_name(domain, path)
        if not rest[0]:
            yield invalid(path, "", "the name must not be empty")
        else:
            yield from _validate_identifier(rest[0], path)


def validate_full_name(name: str, path: str) -> Iterable[Cause]:
    """domain/identifier."""
    yield from validate_qualified_name(name, path)
    if "/" not in name:
        yield invalid(path, name, "a fully qualified name must be a domain and a name separated by a slash")


def _validate_identifier(name: str, path: str) -> Iterable[Cause]:
    if len(name) > IDENTIFIER_MAX:
        yield too_long(path, IDENTIFIER_MAX)
    if not _IDENTIFIER.fullmatch(name):
        yield invalid(path, name, _IDENTIFIER_FAULT)


def validate_selectors(selectors: Sequence[DeviceSelector], path: str) -> Iterable[Cause]:
    return validate_list(selectors, SELECTORS_MAX, _validate_selector, path)


def _validate_selector(selector: DeviceSelector, path: str) -> Iterable[Cause]:
    if selector.cel is None:
        yield required(f"{path}.cel")
    elif len(selector.cel.expression.encode()) > EXPRESSION_MAX_BYTES:
        yield too_long(f"{path}.cel.expression", EXPRESSION_MAX_BYTES)


def validate_opaque(opaque: OpaqueDeviceConfiguration | None, path: str) -> Iterable[Cause]:
    """What only the driver understands."""
    if opaque is None:
        yield required(path)
        return
    yield from validate_driver_name(opaque.driver, f"{path}.driver")
    yield from validate_raw(opaque.parameters, f"{path}.parameters")


def validate_raw(value: Any, path: str) -> Iterable[Cause]:
    """Any JSON object, not too long."""
    if value is None:
        yield required(path)
    elif len(msgspec.json.encode(value)) > PARAMETERS_MAX_BYTES:
        yield too_long(path, PARAMETERS_MAX_BYTES)
    elif not isinstance(value, dict):
        yield invalid(path, "<value omitted>", "must be a valid JSON object")


def validate_toleration(toleration: DeviceToleration, path: str) -> Iterable[Cause]:
    if toleration.key:
        for fault in names.label_key_faults(toleration.key):
            yield invalid(f"{path}.key", toleration.key, fault)
    if toleration.operator == "Exists":
        if toleration.value:
            yield invalid(f"{path}.value", toleration.value, "must be empty for operator `Exists`")
    elif toleration.operator == "Equal":
        yield from validate_label_value(toleration.value or "", f"{path}.value")
    else:
        yield from validate_choice(toleration.operator, OPERATORS, f"{path}.operator")
    if toleration.effect and toleration.effect not in EFFECTS:
        yield not_supported(f"{path}.effect", toleration.effect, EFFECTS)


def validate_label_value(value: str, path: str) -> Iterable[Cause]:
    for fault in names.label_value_faults(value):
        yield invalid(path, value, fault)


def validate_binding(conditions: Sequence[str], failures: Sequence[str], path: str) -> Iterable[Cause]:
    """The conditions that a device waits for, and those that end the waiting: both or neither."""
    first, second = f"{path}.bindingConditions", f"{path}.bindingFailureConditions"
    yield from validate_list(conditions, BINDING_CONDITIONS_MAX, _validate_label_key, first)
    yield from validate_list(failures, BINDING_CONDITIONS_MAX, _validate_label_key, second)
    for listed, place in ((conditions, first), (failures, second)):
        for index, condition in enumerate(listed):
            if condition in listed[:index]:
                yield duplicate(f"{place}[{index}]", condition)
            if listed is failures and condition in conditions:
                detail = "bindingFailureConditions must not overlap with bindingConditions"
                yield invalid(f"{place}[{index}]", condition, detail)
    if failures and not conditions:
        yield invalid(first, conditions, "bindingConditions are required to use bindingFailureConditions")
    if conditions and not failures:
        yield invalid(second, failures, "bindingFailureConditions are required to use bindingConditions")


def _validate_label_key(key: str, path: str) -> Iterable[Cause]:
    for fault in names.label_key_faults(key):
        yield invalid(path, key, fault)
