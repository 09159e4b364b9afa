"""What a type or a field is for, in our own words: what `kubectl explain` shows.

The texts stand beside the types, knarr/api/<group>/<version>.txt, a line each, sorted by type and then by field (as it
is called in JSON):

    Deployment: Keeps a number of equal pods running, and replaces them step by step when their template changes.
    DeploymentSpec.minReadySeconds: Seconds that a new pod must be ready before it counts as available. Default 0.

What all kinds have in common (apiVersion, kind, metadata) stands once, in meta/v1.txt under `Object`; what all lists
have, under `List`. A file is read when a document is made that needs it, never at start.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
SHARED = "meta", "v1"
COMMON = ("apiVersion", "kind", "metadata")
"""Fields that mean the same in every kind."""


def of_type(kind: type[Any]) -> str:
    """What a type is; empty when nobody has said."""
    return texts(*_place(kind)).get(kind.__name__, "")


def of_field(kind: type[Any], name: str) -> str:
    """What a field, as it is called in JSON, means in a type; empty when nobody has said."""
    own = texts(*_place(kind)).get(f"{kind.__name__}.{name}", "")
    if not own and name in COMMON and hasattr(kind, "api_version"):
        return shared(f"Object.{name}")
    return own


def shared(name: str) -> str:
    """A text that stands in meta/v1.txt: of a scalar with a name (Time), of all objects or lists (List.items)."""
    return texts(*SHARED).get(name, "")


@cache
def texts(group: str, version: str) -> Mapping[str, str]:
    """All texts of a version of a group, by type or by type and field. Raises ValueError for a line that is none."""
    path = FOLDER / group / f"{version}.txt"
    if not path.exists():
        return {}
    found: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        name, colon, text = line.partition(": ")
        if not colon or name in found:
            raise ValueError(f"{path}:{number}: not `Type.field: text`, or told twice: {line!r}")
        found[name] = text.strip()
    return found


def _place(kind: type[Any]) -> tuple[str, str]:
    """knarr.api.apps.v1 → apps, v1."""
    _, _, group, version = kind.__module__.split(".")
    return group, version
