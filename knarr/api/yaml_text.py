"""YAML as plain data, the way that sigs.k8s.io/yaml turns it into JSON: for request bodies, so nobody is trusted.

One pass over libyaml's events, without recursion. Bounded: nesting, and how many values there are once aliases are
expanded (an alias costs what it stands for). Of a key that stands twice in a mapping the last value counts, and the
key is named.
"""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

NESTING_MAX = 250
"""Values in values: what recursive code can walk within Python's limit of 1,000 frames."""
VALUES_MAX = 100_000
"""Values in a document once its aliases are expanded: more than any real object has."""
FAULTS_MAX = 100
"""Keys that stand twice and are named."""
INT_MAX = 2**63 - 1

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class YAMLFault(ValueError):
    """The text is no YAML that stands for a JSON value."""


class _Open:
    """A mapping or sequence that isn't closed yet."""

    __slots__ = ("anchor", "is_mapping", "key", "merged", "size", "values")

    def __init__(self, is_mapping: bool, anchor: str | None) -> None:
        self.values: Any = {} if is_mapping else []
        self.is_mapping = is_mapping
        self.anchor = anchor
        self.key: Any = _NO_KEY
        self.merged: list[dict[str, Any]] = []
        self.size = 1

    def add(self, value: Any, size: int) -> bool:
        """False when its key was there already."""
        self.size += size
        if self.size > VALUES_MAX:
            raise YAMLFault(f"the document has more than {VALUES_MAX} values once its aliases are expanded")
        if not self.is_mapping:
            self.values.append(value)
        elif self.key is _NO_KEY:
            self.key = _key(value)
        else:
            key, self.key = self.key, _NO_KEY
            return self._put(key, value)
        return True

    def _put(self, key: Any, value: Any) -> bool:
        if key is _MERGE:
            parts = value if isinstance(value, list) else [value]
            if not all(isinstance(part, dict) for part in parts):
                raise YAMLFault("map merge requires map or sequence of maps as the value")
            self.merged += parts
            return True
        new = key not in self.values
        self.values[key] = value
        return new

    def close(self) -> Any:
        for part in self.merged:
            for key, value in part.items():
                self.values.setdefault(key, value)
        return self.values


_NO_KEY, _MERGE = object(), object()


def _key(value: Any) -> Any:
    """A mapping's key as JSON has it: a string."""
    if isinstance(value, str) or value is _MERGE:
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return str(value)
    raise YAMLFault("a key of a mapping is a scalar")


def parse_yaml(body: bytes) -> tuple[Any, list[str]]:
    """The one document in `body` (None when there is none), and the keys that stand twice. Raises YAMLFault."""
    try:
        return _parse(body.decode("utf-8"))
    except (yaml.YAMLError, UnicodeError, OverflowError) as error:
        raise YAMLFault(str(error)) from None


def _parse(text: str) -> tuple[Any, list[str]]:
    faults: list[str] = []

    def add(inner: _Open, value: Any, size: int) -> None:
        key = inner.key
        if not inner.add(value, size) and len(faults) < FAULTS_MAX:
            faults.append(f'line {event.start_mark.line + 1}: key "{key}" already set in map')

    loader = _Loader(text)
    anchors: dict[str, tuple[Any, int]] = {}
    root = _Open(False, None)
    open_values = [root]
    try:
        while not isinstance(event := loader.get_event(), yaml.StreamEndEvent):
            inner = open_values[-1]
            if isinstance(event, yaml.ScalarEvent):
                tag = event.tag or loader.resolve(yaml.ScalarNode, event.value, event.implicit)
                kind = tag.rpartition(":")[2]
                if kind == "str" and event.implicit[0]:
                    kind = _as_go_reads(event.value)
                value = _scalar(kind, event.value, inner)
                add(inner, value, 1)
                if event.anchor:
                    anchors[event.anchor] = (value, 1)
            elif isinstance(event, yaml.AliasEvent):
                if event.anchor not in anchors:
                    raise YAMLFault(f"unknown anchor '{event.anchor}' referenced")
                add(inner, *anchors[event.anchor])
            elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
                if len(open_values) > NESTING_MAX:
                    raise YAMLFault(f"values are nested more than {NESTING_MAX} deep")
                open_values.append(_Open(isinstance(event, yaml.MappingStartEvent), event.anchor))
            elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
                closed = open_values.pop()
                value = closed.close()
                add(open_values[-1], value, closed.size)
                if closed.anchor:
                    anchors[closed.anchor] = (value, closed.size)
    finally:
        loader.dispose()
    if len(root.values) > 1:
        raise YAMLFault("more than one document")
    return (root.values[0] if root.values else None), faults


_EXPONENT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+")


def _as_go_reads(plain: str) -> str:
    """What a text without quotes is, where Go's reader sees more than PyYAML: 1e3."""
    # What is too large for a float stays text.
    return "float" if _EXPONENT.fullmatch(plain) and math.isfinite(float(plain)) else "str"


def _scalar(kind: str, text: str, inner: _Open) -> Any:
    """A value by its YAML 1.1 tag. Times stay strings: JSON has no such type."""
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() in ("true", "yes", "on")
    if kind == "int":
        return _number(text.replace("_", ""))
    if kind == "float":
        written = text.replace("_", "")
        if written.lstrip("+-").lower() in (".nan", ".inf"):
            raise YAMLFault(f"{text} is no number of JSON")
        try:
            value = float(written)
        except ValueError:
            return text
        if not math.isfinite(value):
            raise YAMLFault(f"{text} is no number of JSON")
        return value
    if kind == "merge" and inner.is_mapping and inner.key is _NO_KEY:
        return _MERGE
    return text


def _number(text: str) -> int | float | str:
    sign, digits = ("-", text[1:]) if text[:1] == "-" else ("", text.lstrip("+"))
    octal = len(digits) > 1 and digits.isdigit() and digits.startswith("0")
    try:
        value = int(sign + digits, 8) if octal else int(sign + digits, 0)
    except ValueError:
        if len(digits) > 4000:
            raise YAMLFault("a number has too many digits") from None
        return text
    # As in Go, what doesn't fit into 64 bits is a float: no field of whole numbers takes it.
    return value if abs(value) <= INT_MAX else float(value)
