"""Amounts of resources (cpu, memory, …) as upstream stores them: canonical, and no finer than a thousandth."""

from __future__ import annotations

import functools
from decimal import ROUND_CEILING

from knarr.api.core.v1 import ResourceRequirements, VolumeResourceRequirements
from knarr.api.errors import BadRequest
from knarr.api.quantity import canonical, parse_quantity
from knarr.api.types import Quantity

REMEMBERED_MAX = 4096
"""Amounts kept in canonical form; a cluster writes the same few over and over."""


def default_amounts(amounts: dict[str, Quantity]) -> None:
    """Write each in canonical form, rounded up to a thousandth. BadRequest when one can't be read."""
    for name, written in amounts.items():
        amounts[name] = _rounded(written)


def default_requirements(resources: ResourceRequirements | VolumeResourceRequirements) -> None:
    if resources.limits:
        default_amounts(resources.limits)
    if resources.requests:
        default_amounts(resources.requests)


def canonical_amount(written: Quantity) -> str:
    """A lone quantity (a size limit, a divisor). BadRequest when it can't be read."""
    return _canonical(written)


@functools.lru_cache(maxsize=REMEMBERED_MAX, typed=True)
def _rounded(written: Quantity) -> str:
    try:
        thousandths = parse_quantity(written) * 1000
        if thousandths == thousandths.to_integral_value():
            return canonical(written)
        return canonical(f"{int(thousandths.to_integral_value(ROUND_CEILING))}m")
    except (ValueError, ArithmeticError) as error:
        raise BadRequest(str(error)) from None


@functools.lru_cache(maxsize=REMEMBERED_MAX, typed=True)
def _canonical(written: Quantity) -> str:
    try:
        return canonical(written)
    except (ValueError, ArithmeticError) as error:
        raise BadRequest(str(error)) from None
