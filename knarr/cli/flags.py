"""The settings of `knarr.config` as flags: --kebab-case, with the description beside the field."""

from __future__ import annotations

from typing import get_args, get_type_hints

from msgspec import Meta, Struct

from knarr.config import Config


class Flag(Struct, frozen=True):
    """A setting as it stands on the command line."""

    name: str
    """Of the field in Python."""
    option: str
    kind: type[int] | type[str]
    choices: tuple[str, ...]
    description: str


def flags() -> list[Flag]:
    """Every setting as a flag, in the order of the fields."""
    rows = []
    for name, hint in get_type_hints(Config, include_extras=True).items():
        kind, *extras = get_args(hint)
        choices = tuple(str(choice) for choice in get_args(kind))
        description = next(extra.description for extra in extras if isinstance(extra, Meta)) or ""
        option = "--" + name.replace("_", "-")
        rows.append(Flag(name, option, int if kind is int else str, choices, description))
    return rows
