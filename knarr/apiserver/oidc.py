"""OpenID Connect: users of other issuers, known by the JWTs that those issue (KEP-3331).

What an issuer is and how its claims become a user is written as upstream's AuthenticationConfiguration
(`authentication_config.py`). Its keys are found by OpenID Connect Discovery over HTTPS, when the first token of it
comes, and again when a token names a key that is not known, or they are an hour old.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
import jwt
import msgspec

from knarr.api.errors import Unauthorized
from knarr.client.transport import User
from knarr.clock import Clock

AUTHENTICATED = "system:authenticated"
ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512")
"""No secret is shared with an issuer: HMAC and none are never accepted."""
TIMEOUT_S = 10.0
DOCUMENT_BYTES_MAX = 1 << 20
KEYS_KEPT_S = 3600.0
KEYS_ASKED_AGAIN_S = 10.0
"""Tokens with unknown keys make us ask their issuer no more often than that."""
CLOCK_SKEW_S = 10


class Claim(msgspec.Struct, frozen=True):
    """A claim that becomes a part of the user."""

    name: str
    prefix: str = ""


class IssuerSettings(msgspec.Struct, frozen=True):
    """One issuer."""

    url: str
    audiences: tuple[str, ...]
    username: Claim
    groups: Claim | None = None
    uid: str = ""
    """The claim that is the user's uid."""
    required: Mapping[str, str] = msgspec.field(default_factory=dict)
    """Claims that must have these values."""
    discovery_url: str = ""
    """Where the discovery document is, if not at the issuer's well-known place."""
    authorities: str = ""
    """PEM, to verify the issuer by; empty: those of this machine."""


class OIDCIssuer:
    """Checks the tokens of one issuer."""

    def __init__(self, settings: IssuerSettings, clock: Clock) -> None:
        self.url = settings.url
        self._settings = settings
        self._clock = clock
        self._keys: dict[str, jwt.PyJWK] = {}
        self._asked_s = float("-inf")
        self._session: aiohttp.ClientSession | None = None

    async def user_of(self, token: str) -> User:
        """Raises Unauthorized."""
        try:
            head = jwt.get_unverified_header(token)
            key = await self._key(str(head.get("kid", "")))
            if head.get("alg") not in ALGORITHMS:
                raise Unauthorized(f"oidc: the algorithm {head.get('alg')} is not accepted")
            options: Any = dict.fromkeys(("verify_exp", "verify_nbf", "verify_iat"), False)
            options["require"] = ["exp", "aud", "iss"]
            claims = jwt.decode(
                token,
                key,
                algorithms=[head["alg"]],
                audience=self._settings.audiences,
                issuer=self.url,
                options=options,
            )
        except jwt.PyJWTError as error:
            raise Unauthorized(f"oidc: verify token: {error}") from None
        self._check_times(claims)
        return self._user(claims)

    def _check_times(self, claims: Mapping[str, Any]) -> None:
        """By our clock. Raises Unauthorized."""
        now_s = self._clock.time_s()
        expires_s, starts_s = claims["exp"], claims.get("nbf", 0)
        if not isinstance(expires_s, (int, float)) or expires_s + CLOCK_SKEW_S < now_s:
            raise Unauthorized("oidc: verify token: token is expired")
        if not isinstance(starts_s, (int, float)) or starts_s - CLOCK_SKEW_S > now_s:
            raise Unauthorized("oidc: verify token: token is not valid yet")

    def _user(self, claims: Mapping[str, Any]) -> User:
        """Raises Unauthorized."""
        settings = self._settings
        for name, value in settings.required.items():
            if claims.get(name) != value:
                raise Unauthorized(f'oidc: required claim "{name}" is not "{value}"')
        username = claims.get(settings.username.name)
        if not isinstance(username, str) or not username:
            raise Unauthorized(f'oidc: claim "{settings.username.name}" is no name')
        if settings.username.name == "email" and claims.get("email_verified", True) is not True:
            raise Unauthorized("oidc: email not verified")
        groups = _texts(claims.get(settings.groups.name)) if settings.groups else []
        prefix = settings.groups.prefix if settings.groups else ""
        uid = claims.get(settings.uid, "") if settings.uid else ""
        named = tuple(prefix + group for group in groups)
        extra = {}
        if isinstance(identity := claims.get("jti"), str) and identity:
            extra["authentication.kubernetes.io/credential-id"] = (f"JTI={identity}",)
        return User(settings.username.prefix + username, (*named, AUTHENTICATED), str(uid), extra)

    async def _key(self, key_id: str) -> jwt.PyJWK:
        """Raises Unauthorized."""
        age_s = self._clock.monotonic_s() - self._asked_s
        if age_s > KEYS_KEPT_S or (key_id not in self._keys and age_s > KEYS_ASKED_AGAIN_S):
            self._asked_s = self._clock.monotonic_s()
            self._keys = await self._fetched_keys()
        if not key_id and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        if key_id not in self._keys:
            raise Unauthorized(f'oidc: verify token: the issuer has no key "{key_id}"')
        return self._keys[key_id]

    async def _fetched_keys(self) -> dict[str, jwt.PyJWK]:
        """Raises Unauthorized."""
        where = self._settings.discovery_url or f"{self.url.rstrip('/')}/.well-known/openid-configuration"
        document = await self._fetched(where)
        if document.get("issuer") != self.url:
            raise Unauthorized(f"oidc: {where} names another issuer: {document.get('issuer')}")
        keys_at = document.get("jwks_uri")
        if not isinstance(keys_at, str) or not keys_at.startswith("https://"):
            raise Unauthorized("oidc: the issuer's keys are not served over HTTPS")
        found = {}
        for data in (await self._fetched(keys_at)).get("keys") or ():
            try:
                found[str(data.get("kid", ""))] = jwt.PyJWK(data)
            except (jwt.PyJWTError, AttributeError):
                continue  # A kind of key that we don't know; others may do.
        return found

    async def _fetched(self, url: str) -> dict[str, Any]:
        """A JSON document of the issuer. Raises Unauthorized."""
        if self._session is None:
            context = ssl.create_default_context(cadata=self._settings.authorities or None)
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context))
        try:
            async with self._clock.timeout(TIMEOUT_S), self._session.get(url, allow_redirects=False) as answer:
                if answer.status != 200:
                    raise Unauthorized(f"oidc: {url} answered {answer.status}")
                document = msgspec.json.decode(await _content(answer, url))
        except (aiohttp.ClientError, TimeoutError, msgspec.DecodeError, OSError) as error:
            raise Unauthorized(f"oidc: {url}: {error}") from None
        if not isinstance(document, dict):
            raise Unauthorized(f"oidc: {url} is no JSON object")
        return document

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


async def _content(answer: aiohttp.ClientResponse, url: str) -> bytes:
    """Raises Unauthorized when it is too large."""
    content = b""
    async for chunk in answer.content.iter_any():
        content += chunk
        if len(content) > DOCUMENT_BYTES_MAX:
            raise Unauthorized(f"oidc: {url} answered more than {DOCUMENT_BYTES_MAX} bytes")
    return content


def _texts(value: Any) -> Sequence[str]:
    """A claim that is one text or a list of them. Raises Unauthorized."""
    if value is None:
        return []
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
        raise Unauthorized("oidc: the claim of groups is no list of names")
    return [each for each in values if each]
