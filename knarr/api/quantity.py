"""resource.Quantity: amounts such as 500m, 1Gi, 2e3, exactly (never as floats).

Suffixes and canonical form follow the API reference of Quantity: binary (Ki … Ei), decimal (n, u, m, k … E), or an
exponent.
"""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, ROUND_UP, Context, Decimal
from functools import lru_cache

_SCALE = {
    "": Decimal(1),
    "n": Decimal(10) ** -9,
    "u": Decimal(10) ** -6,
    "m": Decimal(10) ** -3,
    "k": Decimal(10) ** 3,
    "M": Decimal(10) ** 6,
    "G": Decimal(10) ** 9,
    "T": Decimal(10) ** 12,
    "P": Decimal(10) ** 15,
    "E": Decimal(10) ** 18,
    "Ki": Decimal(2) ** 10,
    "Mi": Decimal(2) ** 20,
    "Gi": Decimal(2) ** 30,
    "Ti": Decimal(2) ** 40,
    "Pi": Decimal(2) ** 50,
    "Ei": Decimal(2) ** 60,
}
REMEMBERED_MAX = 4096
"""Amounts whose value is kept: pods of one template say the same ones, and each is read at several places."""
AMOUNT_MAX = Decimal(2**63 - 1)
"""Larger amounts are taken for this one, as upstream does."""
_EXACT = Context(prec=200)
"""What can be written has 80 digits; Decimal keeps 28 unless told."""
_WRITTEN = re.compile(
    r"([+-]?(?:[0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40}))(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?[0-9]{1,3}))?"
)

_ALMOST = re.compile(r"[+-]?([0-9]*\.?[0-9]*)([eEinumkKMGTP]*[-+]?[0-9]*)", re.ASCII)
"""A number and something that could be a suffix."""


@lru_cache(maxsize=REMEMBERED_MAX, typed=True)
def parse_quantity(written: str | int | float) -> Decimal:
    """Its value. ValueError when it isn't a quantity."""
    if isinstance(written, (int, float)):
        written = repr(written)
    found = _WRITTEN.fullmatch(written)
    if not found:
        raise ValueError(quantity_fault(written))
    number, suffix, exponent = found.groups()
    scale = Decimal(10) ** int(exponent) if exponent else _SCALE[suffix or ""]
    value = _EXACT.multiply(Decimal(number), scale)
    return value if -AMOUNT_MAX <= value <= AMOUNT_MAX else AMOUNT_MAX.copy_sign(value)


def quantity_fault(written: object) -> str:
    """What is wrong with that which is no quantity."""
    found = _ALMOST.fullmatch(written) if isinstance(written, str) and written else None
    if found is None:
        return "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    if found.group(2) not in _SCALE and not re.fullmatch(r"[eE][+-]?[0-9]+", found.group(2)):
        return "unable to parse quantity's suffix"
    return "unable to parse numeric part of quantity"


def milli(written: str | int | float) -> int:
    """Its value in thousandths, rounded up (CPU as the scheduler and cgroups count it)."""
    return int(_EXACT.multiply(parse_quantity(written), Decimal(1000)).to_integral_value(ROUND_CEILING))


def whole(written: str | int | float) -> int:
    """Its value in units, rounded up (bytes, pods)."""
    return int(parse_quantity(written).to_integral_value(ROUND_CEILING))


def canonical(written: str | int | float) -> str:
    """Upstream's canonical form: the largest suffix of its family with which it stays a whole number."""
    # Finer than a billionth is rounded away from zero, as upstream does when it reads.
    value = _EXACT.divide(parse_quantity(written), _SCALE["n"]).to_integral_value(ROUND_UP) * _SCALE["n"]
    text = written if isinstance(written, str) else repr(written)
    if value == 0:
        return "0"
    if text.endswith("i") and value == value.to_integral_value():
        for suffix in ("Ei", "Pi", "Ti", "Gi", "Mi", "Ki"):
            if value % _SCALE[suffix] == 0:
                return f"{int(value / _SCALE[suffix])}{suffix}"
        return str(int(value))
    if re.search(r"[eE][+-]?[0-9]+$", text):
        return _exponent_form(value)
    suffixes = ("E", "P", "T", "G", "M", "k", "", "m", "u")
    whole_in = (suffix for suffix in suffixes if (scaled := value / _SCALE[suffix]) == scaled.to_integral_value())
    suffix = next(whole_in, "n")
    return f"{int(value / _SCALE[suffix])}{suffix}"


def _exponent_form(value: Decimal) -> str:
    """As 100e-3: an exponent that is a multiple of three, the largest with which it stays a whole number."""
    exponents = range(18, -9, -3)
    whole_in = (power for power in exponents if (scaled := value / Decimal(10) ** power) == scaled.to_integral_value())
    exponent = next(whole_in, -9)
    return f"{int(value / Decimal(10) ** exponent)}{f'e{exponent}' if exponent else ''}"
