"""Users of ClusterRoles that are made of others, of bootstrap tokens, and nodes that ask for certificates."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from typing import Any

from cryptography import x509

from knarr.api.certificates.requests import KUBELET_SERVING
from knarr.api.certificates.v1 import CertificateSigningRequest
from knarr.api.core.v1 import Namespace, Node, Secret
from knarr.api.errors import AlreadyExists, NotFound
from knarr.api.rbac.v1 import ClusterRole
from knarr.client.client import MERGE_PATCH
from tests.controllers.test_certificates import SERVING_USAGES, asked, certificate_request
from tests.simulate.stories.story import Story, named

SYSTEM = "kube-system"


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


class TokenStory(Story):
    """Bootstrap tokens end at a time, or never; they are prolonged, cut short and taken away."""

    kinds = (Secret,)

    async def play(self) -> None:
        chance, self.namespace = self.chance, SYSTEM
        self.ends_s: dict[str, float | None] = {}
        try:
            await self.world.client.create(Namespace(metadata=named(SYSTEM)))
        except AlreadyExists:
            pass
        for _ in range(chance.randint(2, 8)):
            await chance.choice((self._come, self._come, self._change, self._change, self._go))()
            await self.rest()

    async def _come(self) -> None:
        name = f"bootstrap-token-{self.fresh()}"
        data = {key: value for key, value in self._draw(name).items() if value is not None}
        await self.create(Secret, {"metadata": {"name": name}, "type": "bootstrap.kubernetes.io/token", "data": data})

    async def _change(self) -> None:
        """One that is there still, if nobody was faster."""
        there = sorted(name for name in self.ends_s if self.world.state.get(Secret, f"{SYSTEM}/{name}"))
        if there:
            name = self.chance.choice(there)
            before = self.ends_s[name]
            try:
                await self.patch(Secret, {"data": self._draw(name)}, name)
            except NotFound:
                self.ends_s[name] = before

    async def _go(self) -> None:
        if self.ends_s:
            name = self.chance.choice(sorted(self.ends_s))
            del self.ends_s[name]
            await self.delete(Secret, name=name)

    def _draw(self, name: str) -> dict[str, str | None]:
        lasts_s = self.chance.choice((None, 1, 3, 8, 10_000))
        now_s = self.world.clock.time_s()
        self.ends_s[name] = None if lasts_s is None else int(now_s + lasts_s)
        if lasts_s is None:
            return {"expiration": None}
        text = datetime.fromtimestamp(int(now_s + lasts_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {"expiration": base64.b64encode(text.encode()).decode()}

    def wrong(self) -> Iterator[str]:
        for name, end_s in self.ends_s.items():
            ended = end_s is not None and end_s <= self.world.clock.time_s()
            if (self.world.state.get(Secret, f"{SYSTEM}/{name}") is None) != ended:
                yield f"{name} {'is left' if ended else 'is gone'}"


class ServingStory(Story):
    """Nodes ask for serving certificates: some for their own names, some for those of others."""

    kinds = (CertificateSigningRequest,)

    async def play(self) -> None:
        chance = self.chance
        self.right: dict[str, bool] = {}
        for _ in range(chance.randint(2, 6)):
            await self.rest()
            nodes = sorted(self.world.state.all(Node), key=lambda node: node.metadata.name or "")
            asker, other = chance.sample(nodes, 2)
            about = chance.choice((asker, asker, other))
            name = self.fresh()
            self.right[name] = about is asker
            addresses = tuple(each.address for each in about.status.addresses)
            self.tell(f"{asker.metadata.name} asks for {addresses}")
            request = asked(name, KUBELET_SERVING, _request(asker.metadata.name, addresses), SERVING_USAGES)
            await self.world.client_of_node(asker.metadata.name).create(request)

    def wrong(self) -> Iterator[str]:
        for name, right in self.right.items():
            request = self.world.state.get(CertificateSigningRequest, name)
            told = [each.type for each in request.status.conditions] if request.status else []
            if told != (["Approved"] if right else []):
                yield f"{name} is {told}"


@cache
def _request(node: str, names: tuple[str, ...]) -> Any:
    parts = [
        x509.IPAddress(ipaddress.ip_address(each)) if each[0].isdecimal() else x509.DNSName(each) for each in names
    ]
    return certificate_request(f"system:node:{node}", "system:nodes", names=parts)
