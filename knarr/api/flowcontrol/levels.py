"""PriorityLevelConfiguration: what is filled in, refused and shown (flowcontrol/v1, KEP-1040)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from knarr.api.core.validate_values import validate_between
from knarr.api.errors import Cause, duplicate, forbidden, invalid, not_supported, required
from knarr.api.flowcontrol.defaults import CATCH_ALL, EXEMPT, MANDATORY_LEVELS
from knarr.api.flowcontrol.v1 import (
    ExemptPriorityLevelConfiguration,
    FlowSchemaCondition,
    LimitedPriorityLevelConfiguration,
    LimitResponse,
    PriorityLevelConfiguration,
    PriorityLevelConfigurationCondition,
    PriorityLevelConfigurationSpec,
    QueuingConfiguration,
)
from knarr.api.printing import NONE, age
from knarr.api.resources import Column, Strategy
from knarr.api.types import replace

SHARES, QUEUES, HAND_SIZE, QUEUE_LENGTH = 30, 64, 8, 50
"""Where nobody says."""
QUEUES_MAX = 10_000_000
HASH_BITS_MAX = 60
"""Of the hash that deals a flow its hand of queues."""
TYPES = ("Exempt", "Limited")
RESPONSES = ("Queue", "Reject")


class PriorityLevelConfigurationRules(Strategy[PriorityLevelConfiguration]):
    has_status = True
    has_generation = True

    def default(self, obj: PriorityLevelConfiguration) -> None:
        spec = obj.spec = obj.spec or PriorityLevelConfigurationSpec()
        for part in (spec.exempt, spec.limited):
            if part is not None and part.lendable_percent is None:
                part.lendable_percent = 0
        if spec.exempt and spec.exempt.nominal_concurrency_shares is None:
            spec.exempt.nominal_concurrency_shares = 0
        if spec.limited is None:
            return
        if spec.limited.nominal_concurrency_shares is None:
            spec.limited.nominal_concurrency_shares = SHARES
        queuing = spec.limited.limit_response.queuing if spec.limited.limit_response else None
        if queuing:
            queuing.hand_size = queuing.hand_size or HAND_SIZE
            queuing.queues = queuing.queues or QUEUES
            queuing.queue_length_limit = queuing.queue_length_limit or QUEUE_LENGTH

    def validate(self, obj: PriorityLevelConfiguration) -> Iterable[Cause]:
        spec, name = obj.spec or PriorityLevelConfigurationSpec(), obj.metadata.name or ""
        if (name == EXEMPT) != (spec.type == "Exempt"):
            yield invalid("spec.type", spec.type, "type must be 'Exempt' if and only if name is 'exempt'")
        if spec.type == "Exempt":
            if spec.limited is not None:
                yield forbidden("spec.limited", "must be nil if the type is not Limited")
            if spec.exempt is not None:
                yield from _validate_exempt(spec.exempt, "spec.exempt")
        elif spec.type == "Limited":
            if spec.exempt is not None:
                yield forbidden("spec.exempt", "must be nil if the type is Limited")
            if spec.limited is None:
                yield required("spec.limited", "must not be empty when type is Limited")
            else:
                yield from _validate_limited(spec.limited, "spec.limited")
        else:
            yield not_supported("spec.type", spec.type, TYPES)
        fixed = MANDATORY_LEVELS[name].spec if name in MANDATORY_LEVELS else None
        if name == CATCH_ALL and spec != fixed:
            yield invalid("spec", spec, "spec of 'catch-all' must equal the fixed value")
        elif name == EXEMPT and fixed and replace(spec, exempt=None) != replace(fixed, exempt=None):
            detail = "spec of 'exempt' except the 'spec.exempt' field must equal the fixed value"
            yield invalid("spec", spec, detail)

    def validate_status_update(
        self, obj: PriorityLevelConfiguration, old: PriorityLevelConfiguration
    ) -> Iterable[Cause]:
        return validate_conditions(obj.status.conditions if obj.status else ())


def _validate_exempt(exempt: ExemptPriorityLevelConfiguration, path: str) -> Iterable[Cause]:
    yield from _validate_shares(exempt.nominal_concurrency_shares, path)
    yield from validate_between(exempt.lendable_percent, 0, 100, f"{path}.lendablePercent")


def _validate_shares(shares: int | None, path: str) -> Iterable[Cause]:
    if shares is not None and shares < 0:
        yield invalid(f"{path}.nominalConcurrencyShares", shares, "must be a non-negative integer")


def _validate_limited(limited: LimitedPriorityLevelConfiguration, path: str) -> Iterable[Cause]:
    yield from _validate_shares(limited.nominal_concurrency_shares, path)
    response = limited.limit_response or LimitResponse()
    where = f"{path}.limitResponse"
    if response.type == "Reject":
        if response.queuing is not None:
            yield forbidden(f"{where}.queuing", "must be nil if limited.limitResponse.type is not Limited")
    elif response.type == "Queue":
        if response.queuing is None:
            yield required(f"{where}.queuing", "must not be empty if limited.limitResponse.type is Limited")
        else:
            yield from _validate_queuing(response.queuing, f"{where}.queuing")
    else:
        yield not_supported(f"{where}.type", response.type, RESPONSES)
    yield from validate_between(limited.lendable_percent, 0, 100, f"{path}.lendablePercent")
    borrowing = limited.borrowing_limit_percent
    if borrowing is not None and borrowing < 0:
        detail = "if specified, must be a non-negative integer"
        yield invalid(f"{path}.borrowingLimitPercent", borrowing, detail)


def _validate_queuing(queuing: QueuingConfiguration, path: str) -> Iterable[Cause]:
    length, queues, hand = queuing.queue_length_limit or 0, queuing.queues or 0, queuing.hand_size or 0
    if length <= 0:
        yield invalid(f"{path}.queueLengthLimit", length, "must be positive")
    if queues <= 0:
        yield invalid(f"{path}.queues", queues, "must be positive")
    elif queues > QUEUES_MAX:
        yield invalid(f"{path}.queues", queues, f"must not be greater than {QUEUES_MAX}")
    if hand <= 0:
        yield invalid(f"{path}.handSize", hand, "must be positive")
    elif hand > queues:
        yield invalid(f"{path}.handSize", hand, f"should not be greater than queues ({queues})")
    elif _bits(queues, hand) > HASH_BITS_MAX:
        detail = (
            f"required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {HASH_BITS_MAX}"
        )
        yield invalid(f"{path}.handSize", hand, detail)


def _bits(deck: int, hand: int) -> int:
    """How many bits it takes to tell all hands apart. A hand of 61 cards always takes too many."""
    return math.ceil(sum(math.log2(deck - dealt) for dealt in range(min(hand, HASH_BITS_MAX + 1)) if deck > dealt))


def validate_conditions(
    conditions: Sequence[FlowSchemaCondition | PriorityLevelConfigurationCondition],
) -> Iterable[Cause]:
    """One of a type, and each has one."""
    seen: set[str] = set()
    for index, condition in enumerate(conditions):
        path, kind = f"status.conditions[{index}].type", condition.type or ""
        if kind in seen:
            yield duplicate(path, kind)
        seen.add(kind)
        if not kind:
            yield required(path, "must not be empty")


def _limited(level: PriorityLevelConfiguration) -> LimitedPriorityLevelConfiguration | None:
    return level.spec.limited if level.spec else None


def _queuing(level: PriorityLevelConfiguration) -> QueuingConfiguration | None:
    limited = _limited(level)
    return limited.limit_response.queuing if limited and limited.limit_response else None


COLUMNS = (
    Column("Type", lambda obj, now_s: obj.spec.type if obj.spec else ""),
    Column(
        "NominalConcurrencyShares",
        lambda obj, now_s: limited.nominal_concurrency_shares if (limited := _limited(obj)) else NONE,
    ),
    Column("Queues", lambda obj, now_s: queuing.queues if (queuing := _queuing(obj)) else NONE),
    Column("HandSize", lambda obj, now_s: queuing.hand_size if (queuing := _queuing(obj)) else NONE),
    Column("QueueLengthLimit", lambda obj, now_s: queuing.queue_length_limit if (queuing := _queuing(obj)) else NONE),
    Column("Age", lambda obj, now_s: age(obj.metadata.creation_timestamp, now_s)),
)
