"""metav1.Condition: what one may say (upstream's ValidateConditions)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from knarr.api import names
from knarr.api.errors import Cause, duplicate, invalid, not_supported, required, too_long
from knarr.api.meta.v1 import Condition

STATUSES = ("False", "True", "Unknown")
REASON_LENGTH_MAX = 1024
MESSAGE_LENGTH_MAX = 32 << 10
_REASON = re.compile(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?")


def validate_conditions(conditions: Sequence[Condition], path: str) -> Iterable[Cause]:
    """Faults of conditions, of which there is one of a type."""
    seen: set[str] = set()
    for index, condition in enumerate(conditions):
        place = f"{path}[{index}]"
        if condition.type in seen:
            yield duplicate(f"{place}.type", condition.type)
        seen.add(condition.type)
        yield from _validate_condition(condition, place)


def _validate_condition(condition: Condition, path: str) -> Iterable[Cause]:
    for fault in names.label_key_faults(condition.type):
        yield invalid(f"{path}.type", condition.type, fault)
    if condition.status not in STATUSES:
        yield not_supported(f"{path}.status", condition.status, STATUSES)
    if (condition.observed_generation or 0) < 0:
        detail = "must be greater than or equal to zero"
        yield invalid(f"{path}.observedGeneration", condition.observed_generation, detail)
    if condition.last_transition_time is None:
        yield required(f"{path}.lastTransitionTime", "must be set")
    reason = condition.reason
    if not reason:
        yield required(f"{path}.reason", "must be set")
    elif not _REASON.fullmatch(reason):
        detail = (
            "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric "
            "characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',"
            "  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is "
            "'[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')"
        )
        yield invalid(f"{path}.reason", reason, detail)
    if len(reason) > REASON_LENGTH_MAX:
        yield too_long(f"{path}.reason", REASON_LENGTH_MAX)
    if len(condition.message) > MESSAGE_LENGTH_MAX:
        yield too_long(f"{path}.message", MESSAGE_LENGTH_MAX)
