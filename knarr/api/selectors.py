"""Label and field selectors: what `-l` and `--field-selector` mean.

Grammar and messages follow upstream's apimachinery (labels.Parse, fields.ParseSelector).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct

from knarr.api.errors import shown
from knarr.api.meta.v1 import LabelSelector
from knarr.api.names import label_key_faults, label_value_faults


class Operator(StrEnum):
    IN = "in"
    NOT_IN = "notin"
    EXISTS = "exists"
    DOES_NOT_EXIST = "!"
    GREATER_THAN = "gt"
    LESS_THAN = "lt"


class Requirement(Struct, frozen=True):
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


class Selector(Struct, frozen=True):
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


def parse_selector(text: str) -> Selector:
    """`a=b,c in (d,e),!f`. Raises ValueError with upstream's wording."""
    return Selector(tuple(sorted(_Parser(text).selector(), key=lambda requirement: requirement.key)))


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


class FieldRequirement(Struct, frozen=True):
    """`field` equals, or does not equal, `value`."""

    field: str
    value: str
    equal: bool = True


class FieldSelector(Struct, frozen=True):
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
    plain: list[str] = []
    characters = iter(value)
    for character in characters:
        if character == "\\":
            escaped = next(characters, "")
            if escaped not in ("\\", ",", "="):
                raise ValueError(f"invalid field selector: invalid escape sequence: \\{escaped}")
            plain.append(escaped)
        elif character in ",=":
            raise ValueError(f"invalid field selector: unescaped character in value: {ord(character)}")
        else:
            plain.append(character)
    return "".join(plain)


# The parser, after upstream's: the same tokens, the same complaints

_SPECIAL = "=!,()<>"
_TOKEN = re.compile(r"(==|!=|[=!,()<>])|([^ \t\r\n=!,()<>]+)")
_OPERATORS = {
    "in": Operator.IN,
    "notin": Operator.NOT_IN,
    "=": Operator.IN,
    "==": Operator.IN,
    "!=": Operator.NOT_IN,
    ">": Operator.GREATER_THAN,
    "<": Operator.LESS_THAN,
}
_END = ""


class _Parser:
    """Goes through the tokens of one selector: symbols and words, `_END` at last."""

    def __init__(self, text: str) -> None:
        self._tokens = [found.group() for found in _TOKEN.finditer(text)]
        self._tokens.append(_END)
        self._position = 0

    def selector(self) -> list[Requirement]:
        found: list[Requirement] = []
        while (token := self._peek()) != _END:
            if not _is_word(token) and token != "!":
                raise _unexpected(token, "!, identifier, or 'end of string'")
            found.append(self._requirement())
            token = self._take()
            if token == _END:
                break
            if token != ",":
                raise _unexpected(token, "',' or 'end of string'")
            following = self._peek()
            if not _is_word(following) and following != "!":
                raise _unexpected(following, "identifier after ','")
        return found

    def _peek(self) -> str:
        return self._tokens[self._position]

    def _take(self) -> str:
        token = self._tokens[self._position]
        self._position = min(self._position + 1, len(self._tokens) - 1)
        return token

    def _requirement(self) -> Requirement:
        token = self._take()
        absent = token == "!"
        if absent:
            token = self._take()
        if not _is_word(token):
            raise _unexpected(token, "identifier")
        key = _key(token)
        if self._peek() in (_END, ","):
            return Requirement(key, Operator.DOES_NOT_EXIST if absent else Operator.EXISTS)
        if absent:
            return Requirement(key, Operator.DOES_NOT_EXIST)
        written = self._take()
        if written not in _OPERATORS:
            raise _unexpected(written, "in, notin, =, ==, !=, gt, lt")
        operator = _OPERATORS[written]
        values = self._set() if written in ("in", "notin") else {self._one()}
        if operator in (Operator.GREATER_THAN, Operator.LESS_THAN):
            _check_number(key, next(iter(values)))
        return Requirement(key, operator, frozenset(_value(key, value) for value in sorted(values)))

    def _one(self) -> str:
        if self._peek() in (_END, ","):
            return ""
        token = self._take()
        if not _is_word(token):
            raise _unexpected(token, "identifier")
        return token

    def _set(self) -> set[str]:
        """(a,b): between two commas, and beside a bracket, stands the empty value."""
        token = self._take()
        if token != "(":
            raise ValueError(f"unable to parse requirement: found '{token}' expected: '('")
        values: set[str] = set()
        word = False
        while (token := self._take()) != ")":
            if token == ",":
                if not word:
                    values.add("")
                word = False
            elif not _is_word(token):
                raise _unexpected(token, "',', or identifier")
            elif self._peek() not in (",", ")"):
                raise _unexpected(self._peek(), "',' or ')'")
            else:
                values.add(token)
                word = True
        return values if word else values | {""}


def _is_word(token: str) -> bool:
    return token != _END and token[0] not in _SPECIAL


def _unexpected(found: str, expected: str) -> ValueError:
    return ValueError(f"unable to parse requirement: found '{found}', expected: {expected}")


def _check_number(key: str, value: str) -> None:
    if _integer(value) is None:
        detail = "for 'Gt', 'Lt' operators, the value must be an integer"
        raise ValueError(f"unable to parse requirement: values[0][{key}]: Invalid value: {shown(value)}: {detail}")


def _key(key: str) -> str:
    faults = label_key_faults(key)
    if faults:
        raise ValueError(f"unable to parse requirement: <nil>: Invalid value: {shown(key)}: {'; '.join(faults)}")
    return key


def _value(key: str, value: str) -> str:
    faults = label_value_faults(value)
    if faults:
        raise ValueError(
            f"unable to parse requirement: values[0][{key}]: Invalid value: {shown(value)}: {'; '.join(faults)}"
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
