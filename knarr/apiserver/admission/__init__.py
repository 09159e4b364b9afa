"""Admission: a chain of small plugins that change and check what is written, after authorization, before the store.

A plugin is a module of this package with one class; `built_in` lists them in upstream's order. `mutate` may change
`attributes.obj`, `validate` may only look. Either refuses by raising an error of knarr.api.errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from knarr.api.resources import Resource
from knarr.client.transport import User


@dataclass(slots=True)
class Attributes:
    """What is about to happen."""

    operation: str
    """CREATE, UPDATE, DELETE or CONNECT."""
    resource: Resource
    namespace: str
    obj: Any
    """The new object; None for DELETE."""
    old: Any
    """The stored object; None for CREATE."""
    user: User
    subresource: str = ""
    dry_run: bool = False
    name: str = ""


class Plugin:
    """One rule."""

    async def mutate(self, attributes: Attributes) -> None:
        """Change the object."""

    async def validate(self, attributes: Attributes) -> None:
        """Refuse what may not be."""


class Admission:
    """The chain."""

    def __init__(self, plugins: Sequence[Plugin] = ()) -> None:
        self.plugins = list(plugins)

    async def mutate(self, attributes: Attributes) -> None:
        for plugin in self.plugins:
            await plugin.mutate(attributes)

    async def validate(self, attributes: Attributes) -> None:
        for plugin in self.plugins:
            await plugin.validate(attributes)
