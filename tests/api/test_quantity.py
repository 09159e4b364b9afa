"""Quantities: exact, and canonical as upstream writes them."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as some

from knarr.api.quantity import canonical, milli, parse_quantity, whole

SUFFIXES = ("", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "e3", "E-3", "e+2")


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ("0", "0"),
        ("0Mi", "0"),
        ("1", "1"),
        (2, "2"),
        (0.5, "500m"),
        ("0.5", "500m"),
        ("1.5", "1500m"),
        ("1000m", "1"),
        ("1000", "1k"),
        ("1500", "1500"),
        ("1024Ki", "1Mi"),
        ("1.5Gi", "1536Mi"),
        ("0.5Mi", "512Ki"),
        ("0.1Ki", "102400m"),
        ("1e3", "1e3"),
        ("12e6", "12e6"),
        ("100e-3", "100e-3"),
        ("-1.5", "-1500m"),
        ("+1Gi", "1Gi"),
        (".5", "500m"),
        ("5.", "5"),
        ("1n", "1n"),
        ("0.1n", "1n"),
        ("124999.000001n", "125u"),
        ("1E", "1E"),
        ("1e999", "9223372036854775807"),
        ("-1000E", "-9223372036854775807"),
        ("9" * 40 + "Ei", "9223372036854775807"),
        ("1e-999", "1e-9"),
    ],
)
def test_canonical_form(written: str | float, wanted: str) -> None:
    assert canonical(written) == wanted


FORMAT = "quantities must match the regular expression"
SUFFIX = "unable to parse quantity's suffix"
NUMBER = "unable to parse numeric part of quantity"


@pytest.mark.parametrize(
    ("written", "fault"),
    [
        ("", FORMAT),
        ("1 Gi", FORMAT),
        ("1gi", FORMAT),
        ("1Gi\n", FORMAT),
        ("0x10", FORMAT),
        ("nan", FORMAT),
        ("inf", FORMAT),
        ("1.2.3", FORMAT),
        ("१", FORMAT),
        ("1e", SUFFIX),
        ("1K", SUFFIX),
        ("1GG", SUFFIX),
        ("--1", SUFFIX),
        ("Gi", NUMBER),
        (".", NUMBER),
    ],
)
def test_what_is_no_quantity(written: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        parse_quantity(written)


def test_rounding_is_upwards() -> None:
    assert milli("0.0001") == 1
    assert milli("100m") == 100
    assert whole("1.1") == 2
    assert whole("1Gi") == 1 << 30


@given(some.decimals(min_value=-(10**6), max_value=10**6, places=6), some.sampled_from(SUFFIXES))
def test_canonical_form_keeps_the_value_and_is_stable(number: Decimal, suffix: str) -> None:
    written = f"{number:f}{suffix}"
    once = canonical(written)
    assert canonical(once) == once
    # Finer than a billionth is rounded up, away from what would be too little.
    assert 0 <= parse_quantity(once) - parse_quantity(written) < Decimal(10) ** -9 or parse_quantity(written) < 0


# Against fractions

FACTORS = {
    "n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000), "": Fraction(1),
    **{letter: Fraction(1000**power) for power, letter in enumerate("kMGTPE", 1)},
    **{f"{letter}i": Fraction(1024**power) for power, letter in enumerate("KMGTPE", 1)},
}  # fmt: skip
NANO = Fraction(1, 10**9)
MOST = 2**63 - 1


def fraction(written: str) -> Fraction:
    """Its value, bounded as upstream bounds it."""
    number, suffix, exponent = re.fullmatch(r"([-+]?[0-9.]+)([a-zA-Z]*?)(?:[eE]([-+]?[0-9]+))?", written).groups()  # type: ignore[union-attr]
    value = Fraction(number.rstrip(".")) * FACTORS[suffix] * Fraction(10) ** int(exponent or 0)
    return max(min(value, Fraction(MOST)), Fraction(-MOST))


WRITTEN = some.builds(
    lambda sign, whole, point, suffix: f"{sign}{whole}{point}{suffix}",
    some.sampled_from(["", "-", "+"]),
    some.integers(0, 10**20),
    some.sampled_from(["", ".", ".5", ".000000001", ".1234567899"]),
    some.sampled_from([*FACTORS, "e3", "E-3", "e-12", "e18", "e+2"]),
)


@given(WRITTEN)
@example("1000000000000000000.1234567899n")
@example("9000000000000000000.1234567899")
def test_a_quantity_is_the_fraction_that_it_says(written: str) -> None:
    value = fraction(written)
    assert Fraction(parse_quantity(written)) == value
    assert milli(written) == math.ceil(value * 1000)
    assert whole(written) == math.ceil(value)


@given(WRITTEN)
@example("9000000000000000000.1234567899")
@example("437.5Ki")
def test_a_canonical_form_says_the_same_and_is_its_own(written: str) -> None:
    value, form = fraction(written), canonical(written)
    # Finer than a billionth is rounded away from zero.
    rounded = math.ceil(abs(value) / NANO) * NANO
    assert abs(fraction(form)) == min(rounded, Fraction(MOST))
    # A number of bytes without suffix is decimal when it is read again (437.5Ki, 448000, 448k), as upstream has it.
    assert canonical(form) == form or (written.endswith("i") and fraction(canonical(form)) == fraction(form))
    assert (value < 0) == form.startswith("-")
    assert "." not in form


@given(some.text(max_size=8) | some.text("0123456789.eE+-numkKMGTPi \n", max_size=8))
def test_any_text_is_a_quantity_or_a_fault(text: str) -> None:
    try:
        value = parse_quantity(text)
    except ValueError:
        return
    assert abs(value) <= MOST
    assert parse_quantity(canonical(text)) >= value or value < 0
