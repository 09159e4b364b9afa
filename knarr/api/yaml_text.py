"""YAML as plain data, safe with any text: bounded in depth and in what its aliases expand to, and without recursion.

It is read as sigs.k8s.io/yaml reads it, which turns YAML into JSON: keys are strings, timestamps stay text, `<<`
merges, and a key that stands twice is an error. PyYAML's own composer calls itself for every level, in C, and crashes
the process on a text of brackets: so only its parser is used here, and the data is put together from its events.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import Any

import yaml

DEPTH_MAX = 500
"""Lists and maps in one another. Upstream's decoder takes 10,000; no kind needs 50."""
NODES_MAX = 200_000
"""Values of a document once its aliases are expanded: 3 MiB of text, the largest request, hardly hold more."""

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MERGE = "tag:yaml.org,2002:merge"


def parse(text: str) -> Any:
    """The first document of `text`. ValueError when it can't be read, or is too deep or too large."""
    loader = _LOADER(text)
    try:
        return _Builder(loader).build()
    except yaml.YAMLError as error:
        raise ValueError(f"yaml: {error}") from None
    finally:
        loader.dispose()


@dataclass(slots=True)
class _Open:
    """A list or map whose end has not come yet."""

    value: Any
    anchor: str | None
    size: int = 1
    key: Any = None
    """Of a map: the key whose value comes next."""
    has_key: bool = False
    merges: list[dict[str, Any]] = field(default_factory=list)


class _MergeKey:
    """The key `<<`."""


class _Builder:
    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._root: Any = None

    def build(self) -> Any:
        loader = self._loader
        while loader.check_event():
            event = loader.get_event()
            if isinstance(event, yaml.ScalarEvent):
                tag = event.tag or loader.resolve(yaml.ScalarNode, event.value, event.implicit)
                self._add(_MergeKey if tag == _MERGE else _scalar(tag, event.value), 1, event.anchor, event.value)
            elif isinstance(event, yaml.AliasEvent):
                if event.anchor not in self._anchors:
                    raise ValueError(f"yaml: unknown anchor '{event.anchor}' referenced")
                value, size = self._anchors[event.anchor]
                self._make_room(size)
                self._add(copy.deepcopy(value), size, None, str(value))
            elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
                if len(self._open) >= DEPTH_MAX:
                    raise ValueError("yaml: the document is nested too deeply")
                self._open.append(_Open({} if isinstance(event, yaml.MappingStartEvent) else [], event.anchor))
            elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
                done = self._open.pop()
                for merged in done.merges:
                    for name, value in merged.items():
                        done.value.setdefault(name, value)
                self._add(done.value, done.size, done.anchor, None)
            elif isinstance(event, yaml.DocumentEndEvent):
                break
        return self._root

    def _make_room(self, size: int) -> None:
        if self._open and self._open[-1].size + size > NODES_MAX:
            raise ValueError("yaml: the document is too large once its aliases are expanded")

    def _add(self, value: Any, size: int, anchor: str | None, text: str | None) -> None:
        """Put a whole value where it belongs. `text` is that of a scalar."""
        if anchor:
            self._anchors[anchor] = (value, size)
        if not self._open:
            self._root = value
            return
        parent = self._open[-1]
        self._make_room(size)
        parent.size += size
        if isinstance(parent.value, list):
            parent.value.append(None if value is _MergeKey else value)
        elif not parent.has_key:
            parent.key, parent.has_key = value if value is _MergeKey else _key(value, text), True
        else:
            self._put(parent, value)
            parent.has_key = False

    def _put(self, parent: _Open, value: Any) -> None:
        if parent.key is _MergeKey:
            found = value if isinstance(value, list) else [value]
            if not all(isinstance(part, dict) for part in found):
                raise ValueError("yaml: map merge requires map or sequence of maps as the value")
            parent.merges += found
        elif parent.key in parent.value:
            raise ValueError(f'yaml: key "{parent.key}" already set in map')
        else:
            parent.value[parent.key] = "<<" if value is _MergeKey else value


def _key(value: Any, text: str | None) -> str:
    if isinstance(value, (dict, list)):
        raise ValueError("yaml: a map or a list can't be a key")
    return text if text is not None else str(value)


def _scalar(tag: str, text: str) -> Any:
    """Timestamps and the like stay text, as JSON has no such types."""
    match tag.rpartition(":")[2]:
        case "null":
            return None
        case "bool":
            return text.lower() in ("true", "yes", "on")
        case "int":
            return _integer(text.replace("_", ""))
        case "float":
            return _float(text.replace("_", ""))
    return text


def _integer(digits: str) -> Any:
    if len(digits) > 64:
        raise ValueError("yaml: a number is too long")
    try:
        number = int(digits, 0)
    except ValueError:
        try:
            number = int(digits, 8)  # 0644
        except ValueError:
            return digits
    return number if -(2**63) <= number < 2**64 else float(number)


def _float(digits: str) -> Any:
    try:
        number = float(digits)
    except ValueError:
        return digits  # .nan and .inf, which JSON can't say
    if not math.isfinite(number):
        raise ValueError("yaml: a number is too large")
    return number
