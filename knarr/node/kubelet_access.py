"""Who may ask this node, and for what: the API server decides (kubelet's webhook authentication and authorization).

Callers show a client certificate of the cluster's authority, or a bearer token, which a TokenReview names. Each request
then needs a SubjectAccessReview for the subresource of nodes that its path stands for. Answers are remembered for as
long as upstream's kubelet does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from msgspec import Struct

from knarr.api.authentication.v1 import TokenReview, TokenReviewSpec
from knarr.api.authorization.v1 import ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec
from knarr.api.errors import APIError
from knarr.client.client import Client
from knarr.client.transport import User
from knarr.clock import Clock

T = TypeVar("T")

ALLOWED_KEPT_S = 300.0
REFUSED_KEPT_S = 30.0
TOKEN_KEPT_S = 120.0
REMEMBERED_MAX = 1000
"""Answers of each kind; then remembering begins anew."""

VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
SUBRESOURCES = {
    "stats": "stats",
    "metrics": "metrics",
    "logs": "log",
    "checkpoint": "checkpoint",
    "pods": "pods",
    "runningPods": "pods",
    "healthz": "healthz",
    "configz": "configz",
}
FINER = ("pods", "healthz", "configz")
"""Rights that came later (KEP-2862): who has `proxy` may do the same."""


class Refusal(Exception):
    """With an HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class KubeletAccess:
    """Asks the API server, and remembers."""

    def __init__(self, client: Client, clock: Clock, node_name: str) -> None:
        self._client = client
        self._clock = clock
        self._node_name = node_name
        self._decisions: _Memory[bool] = _Memory(clock)
        self._users: _Memory[User | None] = _Memory(clock)

    async def check(self, certificate: dict[str, Any] | None, authorization: str, method: str, path: str) -> User:
        """Who asks, when they may. Raises Refusal."""
        user = user_of(certificate) if certificate else await self._of_token(authorization)
        if user is None:
            raise Refusal(401, "Unauthorized")
        verb, wanted = VERBS.get(method, ""), subresources_of(path)
        for subresource in wanted:
            if await self._may(user, verb, subresource):
                return user
        raise Refusal(
            403, f"Forbidden (user={user.name}, verb={verb}, resource=nodes, subresource(s)=[{' '.join(wanted)}])"
        )

    async def _of_token(self, authorization: str) -> User | None:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            return None
        key = hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()

        async def ask() -> tuple[User | None, float]:
            review = await self._client.create(TokenReview(spec=TokenReviewSpec(token=token)))
            found = review.status.user if review.status and review.status.authenticated else None
            if found is None:
                return None, REFUSED_KEPT_S
            return User(found.username or "", tuple(found.groups), found.uid or ""), TOKEN_KEPT_S

        return await self._users.get(key, ask)

    async def _may(self, user: User, verb: str, subresource: str) -> bool:
        async def ask() -> tuple[bool, float]:
            attributes = ResourceAttributes(
                verb=verb, version="v1", resource="nodes", subresource=subresource, name=self._node_name
            )
            spec = SubjectAccessReviewSpec(
                user=user.name, uid=user.uid or None, groups=list(user.groups), resource_attributes=attributes
            )
            review = await self._client.create(SubjectAccessReview(spec=spec))
            allowed = bool(review.status and review.status.allowed)
            return allowed, ALLOWED_KEPT_S if allowed else REFUSED_KEPT_S

        return await self._decisions.get((user.name, user.groups, user.uid, verb, subresource), ask)


class _Kept(Struct, Generic[T]):
    value: T
    until_s: float


class _Memory(Generic[T]):
    """Answers, each for as long as it says."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: dict[Any, _Kept[T]] = {}

    async def get(self, key: Any, ask: Callable[[], Awaitable[tuple[T, float]]]) -> T:
        """Raises Refusal when the API server can't be asked."""
        kept = self._kept.get(key)
        if kept is not None and kept.until_s > self._clock.monotonic_s():
            return kept.value
        try:
            value, kept_s = await ask()
        except APIError as error:
            raise Refusal(500, f"the API server could not be asked: {error}") from error
        if len(self._kept) >= REMEMBERED_MAX:
            self._kept.clear()
        self._kept[key] = _Kept(value, self._clock.monotonic_s() + kept_s)
        return value


def user_of(certificate: dict[str, Any]) -> User:
    """Whom a certificate names, as Python's ssl shows it; the authority's signature was checked by the handshake."""
    names = [pair for part in certificate.get("subject", ()) for pair in part]
    groups = tuple(value for name, value in names if name == "organizationName")
    common = [value for name, value in names if name == "commonName"]
    return User(common[-1] if common else "", (*groups, "system:authenticated"))


def subresources_of(path: str) -> tuple[str, ...]:
    """Which subresources of nodes a path stands for: one of them must be allowed."""
    found = SUBRESOURCES.get(path.strip("/").partition("/")[0], "proxy")
    return (found, "proxy") if found in FINER else (found,)
