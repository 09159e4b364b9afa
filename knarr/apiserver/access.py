"""Access to the API: who asks (authenticate, impersonate), what they may (authorize), and the questions about both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct, field

from knarr.api.errors import Unauthorized
from knarr.api.resources import Registry
from knarr.apiserver import impersonate
from knarr.apiserver.admission.access import AccessAdmission
from knarr.apiserver.authenticate import Authenticator, Issuer
from knarr.apiserver.authorize import Authorizer
from knarr.apiserver.bootstrap_tokens import BootstrapTokens
from knarr.apiserver.reviews import Reviews
from knarr.apiserver.service_tokens import Tokens
from knarr.client.transport import Request, User
from knarr.clock import Clock
from knarr.figures import Figure
from knarr.store.contract import Store


class AccessSettings(Struct, frozen=True):
    """What can be set."""

    static_tokens: Mapping[str, User] = field(default_factory=dict)
    issuers: Sequence[Issuer] = ()
    owner_references: bool = False
    """Whether the admission plugin OwnerReferencesPermissionEnforcement is on."""


class Access:
    """Of one API server."""

    def __init__(
        self, store: Store, registry: Registry, clock: Clock, settings: AccessSettings, tokens: Tokens | None
    ) -> None:
        self.tokens = tokens
        self._known = self._failed = 0
        self.authorizer = Authorizer(store)
        bootstrap = BootstrapTokens(store, clock)
        self.authenticator = Authenticator(tokens, settings.static_tokens, bootstrap, settings.issuers)
        self.admission = AccessAdmission(
            store, registry, clock, self.authorizer, owner_references=settings.owner_references
        )
        self.reviews = Reviews(self.authenticator, self.authorizer).by_type()

    async def user(self, request: Request) -> User:
        """As whom a request is to be answered. Raises Unauthorized, BadRequest, Forbidden."""
        try:
            user = request.user or await self.authenticator.user(request.headers)
        except Unauthorized:
            self._failed += 1
            raise
        self._known += 1
        if impersonate.wanted(request.headers):
            return await impersonate.impersonated(user, request.headers, self.authorizer)
        return user

    def issuer_document(self, path: str) -> dict[str, Any] | None:
        """What others need to check service-account tokens of this server; None for other paths."""
        if self.tokens is None:
            return None
        match path:
            case "/.well-known/openid-configuration":
                return self.tokens.discovery()
            case "/openid/v1/jwks":
                return self.tokens.keys()
        return None

    def figures(self) -> Iterator[Figure]:
        """How often somebody showed who they are, and asked whether they may."""
        known = {("success",): self._known, ("failure",): self._failed}
        yield Figure("counter", "authentication_attempts", "Attempts to show who asks.", ("result",), known)
        asked = self.authorizer
        decided = {("allowed",): asked.allowed, ("no-opinion",): asked.refused}
        yield Figure("counter", "authorization_attempts_total", "Requests, by whether they may.", ("result",), decided)

    async def close(self) -> None:
        await self.authorizer.close()
        await self.authenticator.close()
