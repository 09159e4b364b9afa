"""Values found in many specifications, and what is wrong with them: ports, amounts, numbers, paths, addresses."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Mapping
from decimal import Decimal
from typing import Any

from knarr.api import names
from knarr.api.core.v1 import ResourceRequirements
from knarr.api.errors import Cause, forbidden, invalid, not_supported, required
from knarr.api.faultless import remembered
from knarr.api.meta.v1 import LabelSelector
from knarr.api.metadata import validate_labels
from knarr.api.quantity import parse_quantity
from knarr.api.types import Quantity

PROTOCOLS = ("SCTP", "TCP", "UDP")
ID_MAX = 2**31 - 1
"""Of users and groups."""
PORT_NAME_LENGTH_MAX = 15
"""RFC 6335 §5.1."""
STANDARD_AMOUNTS = ("cpu", "memory", "ephemeral-storage")
_PORT_NAME_CHARACTERS = re.compile(r"[-a-z0-9]+")
_CONFIG_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_HEADER_NAME = re.compile(r"[-A-Za-z0-9]+")


def validate_not_negative(value: int | None, path: str) -> Iterable[Cause]:
    if value is not None and value < 0:
        yield invalid(path, value, "must be greater than or equal to 0")


def validate_between(value: int | None, low: int, high: int, path: str) -> Iterable[Cause]:
    if value is not None and not low <= value <= high:
        yield invalid(path, value, f"must be between {low} and {high}, inclusive")


def validate_port(port: int, path: str) -> Iterable[Cause]:
    return validate_between(port, 1, 65535, path)


def port_name_faults(name: str) -> list[str]:
    faults = []
    if len(name) > PORT_NAME_LENGTH_MAX:
        faults.append(f"must be no more than {PORT_NAME_LENGTH_MAX} characters")
    if not _PORT_NAME_CHARACTERS.fullmatch(name):
        faults.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not any("a" <= character <= "z" for character in name):
        faults.append("must contain at least one letter (a-z)")
    if "--" in name:
        faults.append("must not contain consecutive hyphens")
    if name.startswith("-") or name.endswith("-"):
        faults.append("must not begin or end with a hyphen")
    return faults


def validate_port_or_name(port: int | str, path: str) -> Iterable[Cause]:
    if isinstance(port, int):
        yield from validate_port(port, path)
    else:
        for fault in port_name_faults(port):
            yield invalid(path, port, fault)


def validate_replica_counts(status: Any, parts: tuple[str, ...]) -> Iterable[Cause]:
    """Counts of replicas in a status: none below zero, none above all of them."""
    total = status.replicas or 0
    yield from validate_not_negative(status.replicas, "status.replicas")
    for part in parts:
        count = getattr(status, f"{part}_replicas") or 0
        first, *rest = part.split("_")
        path = f"status.{first}{''.join(word.capitalize() for word in rest)}Replicas"
        yield from validate_not_negative(count, path)
        if part != "unavailable" and count > total:
            yield invalid(path, count, "cannot be greater than status.replicas")
    yield from validate_not_negative(status.observed_generation, "status.observedGeneration")
    if (status.available_replicas or 0) > (status.ready_replicas or 0):
        yield invalid("status.availableReplicas", status.available_replicas, "cannot be greater than readyReplicas")


def validate_choice(value: str | None, choices: tuple[str, ...], path: str) -> Iterable[Cause]:
    """A word out of a fixed set that must be there."""
    if not value:
        yield required(path)
    elif value not in choices:
        yield not_supported(path, value, choices)


def config_key_faults(key: str) -> list[str]:
    """Of a key in a ConfigMap or Secret: it must do as a file's name."""
    faults = []
    if len(key.encode("utf-8", "surrogatepass")) > names.SUBDOMAIN_LENGTH_MAX:
        faults.append(f"must be no more than {names.SUBDOMAIN_LENGTH_MAX} bytes")
    if not _CONFIG_KEY.fullmatch(key):
        faults.append(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or "
            "'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
        )
    if key in (".", ".."):
        faults.append(f"must not be '{key}'")
    elif key.startswith(".."):
        faults.append("must not start with '..'")
    return faults


def header_name_faults(name: str) -> list[str]:
    if _HEADER_NAME.fullmatch(name):
        return []
    return [
        "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for "
        "validation is '[-A-Za-z0-9]+')"
    ]


def validate_descending_path(value: str, path: str) -> Iterable[Cause]:
    """A path inside of something: relative, and never out of it."""
    if value.startswith("/"):
        yield invalid(path, value, "must be a relative path")
    yield from validate_no_backsteps(value, path)


def validate_no_backsteps(value: str, path: str) -> Iterable[Cause]:
    if ".." in value.split("/"):
        yield invalid(path, value, "must not contain '..'")


def validate_selector(selector: LabelSelector | None, path: str) -> Iterable[Cause]:
    """A LabelSelector, wherever it stands."""
    if selector is None:
        return
    if selector.match_labels:
        yield from validate_labels(selector.match_labels, f"{path}.matchLabels")
    for index, expression in enumerate(selector.match_expressions):
        place = f"{path}.matchExpressions[{index}]"
        if expression.operator in ("In", "NotIn"):
            if not expression.values:
                yield required(f"{place}.values", "must be specified when `operator` is 'In' or 'NotIn'")
        elif expression.operator in ("Exists", "DoesNotExist"):
            if expression.values:
                detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
                yield forbidden(f"{place}.values", detail)
        else:
            yield invalid(f"{place}.operator", expression.operator, "not a valid selector operator")
        for fault in names.label_key_faults(expression.key):
            yield invalid(f"{place}.key", expression.key, fault)
        for number, value in enumerate(expression.values):
            for fault in names.label_value_faults(value):
                yield invalid(f"{place}.values[{number}]", value, fault)


@remembered
def validate_requirements(resources: ResourceRequirements | None, path: str) -> Iterable[Cause]:
    """What a container requests and is limited to."""
    if resources is None:
        return
    limits: dict[str, Decimal] = {}
    for name, written in resources.limits.items():
        place = f"{path}.limits[{name}]"
        yield from _amount_name_faults(name, place)
        amount = yield from validate_amount(name, written, place)
        if amount is not None:
            limits[name] = amount
    for name, written in resources.requests.items():
        place = f"{path}.requests[{name}]"
        yield from _amount_name_faults(name, place)
        amount = yield from validate_amount(name, written, place)
        limit = limits.get(name)
        if amount is None:
            continue
        if limit is not None and _fixed(name) and amount != limit:
            detail = f"must be equal to {name} limit of {resources.limits[name]}"
            yield invalid(f"{path}.requests", written, detail)
        elif limit is not None and amount > limit:
            detail = f"must be less than or equal to {name} limit of {resources.limits[name]}"
            yield invalid(f"{path}.requests", written, detail)
        elif limit is None and _fixed(name) and name not in resources.limits:
            yield required(f"{path}.limits", "Limit must be set for non overcommitable resources")
    if _only_huge_pages(resources.limits) or _only_huge_pages(resources.requests):
        yield forbidden(path, "HugePages require cpu or memory")


def validate_amount(name: str, written: Quantity, path: str) -> Generator[Cause, None, Decimal | None]:
    """Answers the amount when it can be read."""
    try:
        amount = parse_quantity(written)
    except (ValueError, ArithmeticError) as error:
        yield invalid(path, written, str(error))
        return None
    if amount < 0:
        yield invalid(path, str(written), "must be greater than or equal to 0")
    elif _fixed(name) and amount != amount.to_integral_value():
        yield invalid(path, str(written), "must be an integer")
    return amount


def _fixed(name: str) -> bool:
    """Whether no more may be promised than there is: extended resources and huge pages."""
    return name.startswith("hugepages-") or name not in STANDARD_AMOUNTS


def _only_huge_pages(amounts: Mapping[str, Quantity]) -> bool:
    huge = any(name.startswith("hugepages-") for name in amounts)
    return huge and "cpu" not in amounts and "memory" not in amounts


def _amount_name_faults(name: str, path: str) -> Iterable[Cause]:
    if name in STANDARD_AMOUNTS:
        return
    faults = names.label_key_faults(name)
    if faults:
        for fault in faults:
            yield invalid(path, name, fault)
    elif "/" not in name:
        if not name.startswith("hugepages-"):
            yield invalid(path, name, "must be a standard resource type or fully qualified")
            yield invalid(path, name, "must be a standard resource for containers")
    elif name.startswith("requests."):
        yield invalid(path, name, "doesn't follow extended resource name standard")
