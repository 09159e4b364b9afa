"""Label and field selectors: what `-l` and `--field-selector` mean.

Grammar and messages follow upstream's apimachinery (labels.Parse, fields.ParseSelector).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from knarr.api.meta.v1 import LabelSelector
from knarr.api.names import label_key_faults, label_value_faults


class Operator(StrEnum):
    IN = "in"
    NOT_IN = "notin"
    EXISTS = "exists"
    DOES_NOT_EXIST = "!"
    GREATER_THAN = "gt"
    LESS_THAN = "lt"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one key."""

    key: str
    operator: Operator
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        match self.operator:
            case Operator.IN:
                return value in self.values
            case Operator.NOT_IN:
                return value not in self.values
            case Operator.EXISTS:
                return value is not None
            case Operator.DOES_NOT_EXIST:
                return value is None
        left, right = _integer(value or ""), _integer(next(iter(self.values)))
        if left is None or right is None:
            return False
        return left > right if self.operator is Operator.GREATER_THAN else left < right


@dataclass(frozen=True, slots=True)
class Selector:
    """All of its requirements must hold; without any, it matches everything."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(requirement.matches(labels) for requirement in self.requirements)

    def __str__(self) -> str:
        return ",".join(_written(requirement) for requirement in self.requirements)


EVERYTHING = Selector()


def _integer(written: str) -> int | None:
    """As Go reads a number of 64 bits: nothing but digits."""
    if not re.fullmatch(r"[-+]?[0-9]{1,19}", written):
        return None
    number = int(written)
    return number if -(2**63) <= number < 2**63 else None


_TOKEN = re.compile(r"\s*(?:(==|!=|=|!|,|\(|\)|<|>)|([^\s=!,()<>]+))")


def parse_selector(text: str) -> Selector:
    """`a=b,c in (d,e),!f`. Raises ValueError with upstream's wording."""
    tokens = _tokens(text)
    requirements: list[Requirement] = []
    position = 0
    while position < len(tokens):
        requirement, position = _requirement(tokens, position)
        requirements.append(requirement)
        if position < len(tokens):
            if tokens[position] != ",":
                raise ValueError(
                    f"unable to parse requirement: found '{tokens[position]}', expected: ',' or 'end of string'"
                )
            position += 1
            if position == len(tokens):
                raise ValueError("unable to parse requirement: found '', expected: identifier after ','")
    return Selector(tuple(sorted(requirements, key=lambda requirement: requirement.key)))


def selector_of_labels(labels: Mapping[str, str]) -> Selector:
    """Every label must have just this value (a Service's selector)."""
    return Selector(tuple(Requirement(key, Operator.IN, frozenset((value,))) for key, value in sorted(labels.items())))


def selector_of(selector: LabelSelector | None) -> Selector | None:
    """A metav1.LabelSelector as a Selector. None selects nothing: None; an empty one selects everything."""
    if selector is None:
        return None
    requirements = list(selector_of_labels(selector.match_labels).requirements)
    operators = {
        "In": Operator.IN,
        "NotIn": Operator.NOT_IN,
        "Exists": Operator.EXISTS,
        "DoesNotExist": Operator.DOES_NOT_EXIST,
    }
    for expression in selector.match_expressions:
        if expression.operator not in operators:
            raise ValueError(f'"{expression.operator}" is not a valid label selector operator')
        requirements.append(Requirement(expression.key, operators[expression.operator], frozenset(expression.values)))
    return Selector(tuple(requirements))


@dataclass(frozen=True, slots=True)
class FieldRequirement:
    """`field` equals, or does not equal, `value`."""

    field: str
    value: str
    equal: bool = True


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """All of its requirements must hold."""

    requirements: tuple[FieldRequirement, ...] = ()

    def matches(self, fields: Mapping[str, str]) -> bool:
        return all((fields.get(r.field, "") == r.value) is r.equal for r in self.requirements)

    def exact(self, field: str) -> str | None:
        """The one value that `field` must have, if the selector says so."""
        return next((r.value for r in self.requirements if r.field == field and r.equal), None)


def parse_field_selector(text: str) -> FieldSelector:
    """`metadata.name=web,status.phase!=Running`. Raises ValueError with upstream's wording."""
    requirements = []
    for term in _split_terms(text):
        if not term:
            continue
        found = re.match(r"(.*?)(!=|==|=)(.*)", term, re.DOTALL)
        if not found:
            raise ValueError(f"invalid selector: '{text}'; can't understand '{term}'")
        field, operator, value = found.groups()
        requirements.append(FieldRequirement(field, _unescape(value), operator != "!="))
    return FieldSelector(tuple(requirements))


def _split_terms(text: str) -> list[str]:
    """At commas that no backslash escapes."""
    terms = re.findall(r"((?:\\.|[^,\\]|\\$)*)(?:,|$)", text, re.DOTALL)
    return terms[:-1] if text else []


def _unescape(value: str) -> str:
    return re.sub(r"\\([\\,=])", r"\1", value)


def _tokens(text: str) -> list[str]:
    tokens, position = [], 0
    text = text.rstrip()
    while position < len(text):
        found = _TOKEN.match(text, position)
        if not found:
            raise ValueError(f"unable to parse requirement: found {text[position]!r}")
        tokens.append(found.group(1) or found.group(2))
        position = found.end()
    return tokens


def _requirement(tokens: Sequence[str], position: int) -> tuple[Requirement, int]:
    def peek(offset: int = 0) -> str:
        return tokens[position + offset] if position + offset < len(tokens) else ""

    if peek() == "!":
        key = _key(peek(1))
        return Requirement(key, Operator.DOES_NOT_EXIST), position + 2
    key = _key(peek())
    operator = peek(1)
    if operator in ("", ","):
        return Requirement(key, Operator.EXISTS), position + 1
    if operator in ("=", "==", "!="):
        value = peek(2)
        end = position + 3
        if value in ("", ","):
            value, end = "", position + 2
        kind = Operator.NOT_IN if operator == "!=" else Operator.IN
        return Requirement(key, kind, frozenset((_value(key, value),))), end
    if operator in ("in", "notin"):
        values, end = _values(tokens, position + 2)
        return Requirement(key, Operator(operator), frozenset(_value(key, value) for value in values)), end
    if operator in (">", "<"):
        value = peek(2)
        if not re.fullmatch(r"-?[0-9]+", value):
            raise ValueError(
                f"values[0][{key}]: Invalid value: \"{value}\": for 'Gt', 'Lt' operators, the value must be an integer"
            )
        kind = Operator.GREATER_THAN if operator == ">" else Operator.LESS_THAN
        return Requirement(key, kind, frozenset((value,))), position + 3
    raise ValueError(f"unable to parse requirement: found '{operator}', expected: in, notin, =, ==, !=, gt, lt")


def _values(tokens: Sequence[str], position: int) -> tuple[list[str], int]:
    if position >= len(tokens) or tokens[position] != "(":
        found = tokens[position] if position < len(tokens) else ""
        raise ValueError(f"unable to parse requirement: found '{found}', expected: '('")
    position += 1
    values: list[str] = []
    expect_value = True
    while position < len(tokens):
        token = tokens[position]
        position += 1
        if token == ")":
            if expect_value:
                values.append("")
            return values, position
        if token == ",":
            if expect_value:
                values.append("")
            expect_value = True
        elif expect_value:
            values.append(token)
            expect_value = False
        else:
            break
    raise ValueError("unable to parse requirement: expected: ',' or ')'")


def _key(key: str) -> str:
    faults = label_key_faults(key)
    if faults:
        raise ValueError(f'unable to parse requirement: <nil>: Invalid value: "{key}": {"; ".join(faults)}')
    return key


def _value(key: str, value: str) -> str:
    faults = label_value_faults(value)
    if faults:
        raise ValueError(
            f'unable to parse requirement: values[0][{key}]: Invalid value: "{value}": {"; ".join(faults)}'
        )
    return value


def _written(requirement: Requirement) -> str:
    values = sorted(requirement.values)
    match requirement.operator:
        case Operator.IN if len(values) == 1:
            return f"{requirement.key}={values[0]}"
        case Operator.NOT_IN if len(values) == 1:
            return f"{requirement.key}!={values[0]}"
        case Operator.IN | Operator.NOT_IN:
            return f"{requirement.key} {requirement.operator} ({','.join(values)})"
        case Operator.EXISTS:
            return requirement.key
        case Operator.DOES_NOT_EXIST:
            return f"!{requirement.key}"
        case Operator.GREATER_THAN:
            return f"{requirement.key}>{values[0]}"
        case _:
            return f"{requirement.key}<{values[0]}"
