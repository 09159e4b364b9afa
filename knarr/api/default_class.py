"""The class that is taken when an object names none: of those marked as default the newest, as upstream."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def default_class(classes: Iterable[Any], *annotations: str) -> str | None:
    """Its name. `classes` come in the order of names, which decides between classes of one age."""
    marked = [each for each in classes if any(each.metadata.annotations.get(name) == "true" for name in annotations)]
    newest = max(marked, key=lambda each: each.metadata.creation_timestamp.timestamp(), default=None)
    return newest.metadata.name if newest else None
