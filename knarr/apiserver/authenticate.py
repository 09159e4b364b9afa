"""Who asks: client certificates (CN is the user, O the groups) and bearer tokens. Who shows nothing is anonymous.

Bearer tokens are tried in upstream's order: those of a file, those of service accounts, bootstrap tokens, OIDC
issuers. A token that none of them knows is refused; why is told to nobody but those who ask by TokenReview.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jwt
from msgspec import Struct, field

from knarr.api.errors import Unauthorized
from knarr.apiserver.bootstrap_tokens import BootstrapTokens
from knarr.apiserver.service_tokens import AUTHENTICATED, Tokens
from knarr.client.transport import User

__all__ = ["ANONYMOUS", "AUTHENTICATED", "Authenticator", "Issuer", "Tokens", "user_of_certificate"]

ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))
"""Who shows nothing. Roles say what is open to them (system:public-info-viewer)."""


class Issuer(Protocol):
    """One that issues tokens elsewhere (see knarr.apiserver.oidc)."""

    url: str

    async def user_of(self, token: str) -> User:
        """Raises Unauthorized."""

    async def close(self) -> None: ...


class Authenticator(Struct, frozen=True):
    """All ways to be known."""

    tokens: Tokens | None = None
    static: Mapping[str, User] = field(default_factory=dict)
    bootstrap: BootstrapTokens | None = None
    issuers: Sequence[Issuer] = ()

    async def user(self, headers: Mapping[str, str]) -> User:
        """The user of a request without a certificate. Raises Unauthorized."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            return ANONYMOUS
        try:
            return (await self.user_of(token, ()))[0]
        except Unauthorized:
            raise Unauthorized("Unauthorized") from None

    async def user_of(self, token: str, audiences: Sequence[str]) -> tuple[User, tuple[str, ...]]:
        """Whom a token stands for, and for which of the audiences (none: this server's). Raises Unauthorized."""
        own = self.tokens.audiences if self.tokens else ()
        asked = tuple(audiences) or own
        if self.tokens is not None and self.tokens.remembers(token):
            return await self.tokens.user_of(token, asked)
        if user := self.static.get(token):
            return user, _here(asked, own)
        if self.bootstrap is not None and self.bootstrap.looks_like_one(token):
            return await self.bootstrap.user_of(token), _here(asked, own)
        issued_by = _issuer_of(token)
        if self.tokens is not None and self.tokens.knows(issued_by):
            return await self.tokens.user_of(token, asked)
        for issuer in self.issuers:
            if issuer.url == issued_by:
                return await issuer.user_of(token), _here(asked, own)
        raise Unauthorized("invalid bearer token")

    async def close(self) -> None:
        for issuer in self.issuers:
            await issuer.close()


def _here(asked: Sequence[str], own: Sequence[str]) -> tuple[str, ...]:
    """Of the audiences asked for, those that a token has which is for this server. Raises Unauthorized."""
    found = tuple(audience for audience in asked if audience in own)
    if asked and not found:
        raise Unauthorized("the token is for this API server only")
    return found


def _issuer_of(token: str) -> str:
    """Whom a JWT says it is from; nothing is checked yet."""
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError):
        return ""
    issuer = claims.get("iss")
    return issuer if isinstance(issuer, str) else ""


def user_of_certificate(certificate: Mapping[str, Any]) -> User | None:
    """From what `ssl.SSLObject.getpeercert` answers for a verified certificate."""
    parts = [pair for relative in certificate.get("subject", ()) for pair in relative]
    name = next((value for key, value in parts if key == "commonName"), "")
    groups = tuple(value for key, value in parts if key == "organizationName")
    return User(name, (*groups, AUTHENTICATED)) if name else None
