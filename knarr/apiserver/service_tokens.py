"""Service-account tokens: JWTs (ES256) as upstream issues them (KEP-1205, KEP-4193).

A token is bound to an account and perhaps to a pod, a Secret or a node, for audiences, until it expires. It is
refused as soon as the account or what it is bound to is gone: the signature of a token is checked once and
remembered, who still lives is looked up each time. Tokens of old, kept in Secrets of the type
kubernetes.io/service-account-token, never expire and end with their Secret.
"""

from __future__ import annotations

import base64
import hashlib
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import jwt
import msgspec
from cryptography.hazmat.primitives import serialization

from knarr.api.core.v1 import ServiceAccount
from knarr.api.errors import Unauthorized
from knarr.client.transport import User
from knarr.clock import Clock, utc
from knarr.store.contract import Store

ALGORITHM = "ES256"
AUTHENTICATED = "system:authenticated"
CLOCK_SKEW_S = 60
"""How far the clocks of those who check may be apart (upstream's leeway)."""
VERIFIED_KEPT_MAX = 4096
"""Tokens whose signature was checked and need not be again; when there are more, all are checked anew."""
LEGACY_ISSUER = "kubernetes/serviceaccount"
_LEGACY = "kubernetes.io/serviceaccount/"
_EXTRA = "authentication.kubernetes.io/"


class Reference(msgspec.Struct, frozen=True):
    """An object by its name and uid."""

    name: str
    uid: str

    def claim(self) -> dict[str, str]:
        return {"name": self.name, "uid": self.uid}


class _Metadata(msgspec.Struct, rename="camel"):
    uid: str = ""
    deletion_timestamp: datetime | None = None


class _Living(msgspec.Struct):
    metadata: _Metadata


class _TokenSecret(msgspec.Struct):
    metadata: _Metadata
    type: str = ""
    data: dict[str, str] = {}


_living = msgspec.json.Decoder(_Living).decode
_token_secret = msgspec.json.Decoder(_TokenSecret).decode


class Tokens:
    """Makes and checks service-account tokens."""

    def __init__(self, store: Store, clock: Clock, private_key: Any, issuer: str, audiences: Sequence[str]) -> None:
        self._store = store
        self._clock = clock
        self._private_key = private_key
        self._public_key = private_key.public_key()
        self._key_id = _key_id(self._public_key)
        self._verified: dict[str, dict[str, Any]] = {}
        self.issuer = issuer
        self.audiences = tuple(audiences)
        """Of the API server itself: who uses a token here must be meant by it."""

    def issue(
        self,
        account: ServiceAccount,
        bound: Mapping[str, Reference],
        audiences: Sequence[str],
        lifetime_s: int,
    ) -> tuple[str, float]:
        """A token, and when it expires (seconds since the epoch). `bound` by claim: pod, secret or node."""
        now_s = int(self._clock.time_s())
        metadata = account.metadata
        private: dict[str, Any] = {
            "namespace": metadata.namespace,
            **{kind: reference.claim() for kind, reference in bound.items()},
            "serviceaccount": {"name": metadata.name, "uid": metadata.uid},
        }
        claims = {
            "aud": list(audiences or self.audiences),
            "exp": now_s + lifetime_s,
            "iat": now_s,
            "iss": self.issuer,
            "jti": str(uuid.UUID(int=self._clock.random.getrandbits(128), version=4)),
            "kubernetes.io": private,
            "nbf": now_s,
            "sub": _username(metadata.namespace or "", metadata.name or ""),
        }
        return self._signed(claims), now_s + lifetime_s

    def legacy(self, namespace: str, account: str, uid: str, secret: str) -> str:
        """A token to be kept in a Secret: for ever, or as long as the Secret is there."""
        return self._signed(
            {
                "iss": LEGACY_ISSUER,
                f"{_LEGACY}namespace": namespace,
                f"{_LEGACY}secret.name": secret,
                f"{_LEGACY}service-account.name": account,
                f"{_LEGACY}service-account.uid": uid,
                "sub": _username(namespace, account),
            }
        )

    def knows(self, issuer: str) -> bool:
        """Whether tokens of an issuer are this one's to check."""
        return issuer in (self.issuer, LEGACY_ISSUER)

    def remembers(self, token: str) -> bool:
        """Whether a token was seen before, and is one of this issuer's."""
        return token in self._verified

    async def user_of(self, token: str, audiences: Sequence[str]) -> tuple[User, tuple[str, ...]]:
        """Whom a token stands for, and for which of the `audiences`. Raises Unauthorized, saying why."""
        claims = self._verified.get(token)
        if claims is None:
            claims = self._claims(token)
            if len(self._verified) >= VERIFIED_KEPT_MAX:
                self._verified.clear()
            self._verified[token] = claims
        try:
            if claims.get("iss") == LEGACY_ISSUER:
                return await self._legacy_user(token, claims), tuple(audiences)
            return await self._bound_user(claims), self._meant(claims, audiences)
        except (KeyError, TypeError, AttributeError) as error:
            raise Unauthorized(f"invalid bearer token: {error!r} is missing") from None

    def _claims(self, token: str) -> dict[str, Any]:
        options = dict.fromkeys(("verify_exp", "verify_nbf", "verify_iat", "verify_aud", "verify_iss"), False)
        try:
            claims: dict[str, Any] = jwt.decode(token, self._public_key, algorithms=[ALGORITHM], options=options)  # type: ignore[arg-type]
        except jwt.PyJWTError as error:
            raise Unauthorized(f"invalid bearer token: {error}") from None
        return claims

    def _meant(self, claims: Mapping[str, Any], audiences: Sequence[str]) -> tuple[str, ...]:
        meant = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
        found = tuple(audience for audience in audiences if audience in meant)
        if not found:
            detail = f"is invalid for the target audiences {_listed(audiences)}"
            raise Unauthorized(f"token audiences {_listed(meant)} {detail}")
        return found

    async def _bound_user(self, claims: dict[str, Any]) -> User:
        now_s = self._clock.time_s()
        if claims["exp"] + CLOCK_SKEW_S < now_s:
            raise Unauthorized("service account token has expired")
        if claims.get("nbf", 0) - CLOCK_SKEW_S > now_s:
            raise Unauthorized("service account token is not valid yet")
        private = claims["kubernetes.io"]
        namespace, account = private["namespace"], private["serviceaccount"]
        await self._must_live(f"serviceaccounts/{namespace}/{account['name']}", account["uid"], "service account")
        extra: dict[str, tuple[str, ...]] = {}
        if pod := private.get("pod"):
            await self._must_live(f"pods/{namespace}/{pod['name']}", pod["uid"], "pod")
            extra[f"{_EXTRA}pod-name"], extra[f"{_EXTRA}pod-uid"] = (pod["name"],), (pod["uid"],)
        if secret := private.get("secret"):
            await self._must_live(f"secrets/{namespace}/{secret['name']}", secret["uid"], "secret")
        if node := private.get("node"):
            if not pod:  # A pod's token ends with the pod, not with its node.
                await self._must_live(f"nodes//{node['name']}", node["uid"], "node")
            extra[f"{_EXTRA}node-name"] = (node["name"],)
            if node.get("uid"):
                extra[f"{_EXTRA}node-uid"] = (node["uid"],)
        if identity := claims.get("jti"):
            extra[f"{_EXTRA}credential-id"] = (f"JTI={identity}",)
        return User(claims["sub"], _groups(namespace), account["uid"], extra)

    async def _legacy_user(self, token: str, claims: dict[str, Any]) -> User:
        namespace, name = claims[f"{_LEGACY}namespace"], claims[f"{_LEGACY}secret.name"]
        record = await self._store.get(f"secrets/{namespace}/{name}")
        secret = _token_secret(record.value) if record else None
        held = base64.b64decode(secret.data.get("token", "")) if secret else b""
        if secret is None or secret.metadata.deletion_timestamp or held != token.encode():
            raise Unauthorized("service account token has been invalidated")
        account, uid = claims[f"{_LEGACY}service-account.name"], claims[f"{_LEGACY}service-account.uid"]
        await self._must_live(f"serviceaccounts/{namespace}/{account}", uid, "service account")
        return User(claims["sub"], _groups(namespace), uid)

    async def _must_live(self, key: str, uid: str, what: str) -> None:
        """Raises Unauthorized when an object is gone, or marked for deletion longer ago than clocks may be apart."""
        record = await self._store.get(key)
        if record is None:
            raise Unauthorized(f"{what} {key.rpartition('/')[2]} has been deleted")
        found = _living(record.value).metadata
        if found.uid != uid:
            raise Unauthorized(f"{what} UID ({found.uid}) does not match claim ({uid})")
        long_ago = utc(self._clock.time_s()) - timedelta(seconds=CLOCK_SKEW_S)
        if found.deletion_timestamp and found.deletion_timestamp < long_ago:
            raise Unauthorized(f"{what} {key.rpartition('/')[2]} has been deleted")

    def _signed(self, claims: dict[str, Any]) -> str:
        return jwt.encode(claims, self._private_key, algorithm=ALGORITHM, headers={"kid": self._key_id})

    def discovery(self) -> dict[str, Any]:
        """/.well-known/openid-configuration: how others may check tokens of this server (OpenID Connect Discovery)."""
        return {
            "issuer": self.issuer,
            "jwks_uri": f"{self.issuer}/openid/v1/jwks",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [ALGORITHM],
        }

    def keys(self) -> dict[str, Any]:
        """/openid/v1/jwks (RFC 7517)."""
        numbers = self._public_key.public_numbers()
        return {
            "keys": [
                {
                    "use": "sig",
                    "kty": "EC",
                    "kid": self._key_id,
                    "crv": "P-256",
                    "alg": ALGORITHM,
                    "x": _base64(numbers.x.to_bytes(32)),
                    "y": _base64(numbers.y.to_bytes(32)),
                }
            ]
        }


def _groups(namespace: str) -> tuple[str, ...]:
    return "system:serviceaccounts", f"system:serviceaccounts:{namespace}", AUTHENTICATED


def _username(namespace: str, name: str) -> str:
    return f"system:serviceaccount:{namespace}:{name}"


def _listed(values: Sequence[str]) -> str:
    return "[" + " ".join(f'"{value}"' for value in values) + "]"


def _key_id(public_key: Any) -> str:
    """As upstream derives it: the digest of the key's DER form."""
    der = public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return _base64(hashlib.sha256(der).digest())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
