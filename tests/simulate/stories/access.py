"""Users of ClusterRoles that are made of others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from knarr.api.errors import NotFound
from knarr.api.rbac.v1 import ClusterRole
from knarr.client.client import MERGE_PATCH
from tests.simulate.stories.story import Story


class AggregationStory(Story):
    """One role has the rules of all that carry a label; those come, change and go."""

    kinds = (ClusterRole,)

    async def play(self) -> None:
        chance = self.chance
        self.parts: dict[str, str] = {}
        """Name → what it allows."""
        whole = {"aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"part": self.name}}]}}
        await self.create(ClusterRole, {"metadata": {"name": self.name, "namespace": None}} | whole)
        for _ in range(chance.randint(2, 8)):
            await self.rest()
            await chance.choice((self._come, self._come, self._change, self._go))()

    async def _come(self) -> None:
        name = self.fresh()
        self.parts[name] = self.chance.choice(("pods", "nodes", "secrets"))
        metadata = {"name": name, "namespace": None, "labels": {"part": self.name}}
        await self.create(ClusterRole, {"metadata": metadata, "rules": self._rules(name)})

    async def _change(self) -> None:
        if self.parts:
            name = self.chance.choice(sorted(self.parts))
            self.parts[name] = self.chance.choice(("pods", "nodes", "services"))
            patch = {"rules": self._rules(name)}
            await self.world.client.patch(ClusterRole, name, patch, content_type=MERGE_PATCH)

    async def _go(self) -> None:
        if self.parts:
            name = self.chance.choice(sorted(self.parts))
            del self.parts[name]
            try:
                await self.world.client.delete(ClusterRole, name)
            except NotFound:
                pass

    def _rules(self, name: str) -> list[dict[str, Any]]:
        return [{"apiGroups": [""], "resources": [self.parts[name]], "verbs": ["get"]}]

    def wrong(self) -> Iterator[str]:
        whole = self.world.state.get(ClusterRole, self.name)
        has = {resource for rule in whole.rules for resource in rule.resources}
        if has != set(self.parts.values()):
            yield f"{self.name} allows {sorted(has)}, its parts {sorted(self.parts.values())}"
