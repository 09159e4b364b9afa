"""What was found to be without a fault is not looked through again: the pods of one template repeat their parts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from knarr.api.errors import Cause

REMEMBERED_MAX = 1024
"""Values of one check; above that it begins anew."""
VALUE_MAX_BYTES = 4096

Check = Callable[[Any, str], Iterable[Cause]]
"""check(value, path): the faults of a value, which depend on nothing but the value."""


class Faultless:
    """The values that have passed a check, told by their JSON."""

    def __init__(self) -> None:
        self._passed: set[bytes] = set()

    def __contains__(self, written: bytes) -> bool:
        return written in self._passed

    def add(self, written: bytes) -> None:
        if len(written) > VALUE_MAX_BYTES:
            return
        if len(self._passed) >= REMEMBERED_MAX:
            self._passed.clear()
        self._passed.add(written)


def remembered(check: Check) -> Check:
    """The check, but for values that have passed it before."""
    passed = Faultless()

    @functools.wraps(check)
    def checked(value: Any, path: str) -> Iterable[Cause]:
        written = msgspec.json.encode(value)
        if written in passed:
            return ()
        faults = list(check(value, path))
        if not faults:
            passed.add(written)
        return faults

    return checked
