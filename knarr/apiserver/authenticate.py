"""Who asks: client certificates (CN is the user, O the groups) and bearer tokens. Who shows nothing is anonymous.

Service-account tokens are JWTs (ES256) as upstream issues them: bound to an account and perhaps a pod, for an audience,
until they expire (KEP-1205). A token of a deleted account or pod is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jwt

from knarr.api.core.v1 import Pod, ServiceAccount
from knarr.api.decode import decoder
from knarr.api.errors import Unauthorized
from knarr.client.transport import User
from knarr.clock import Clock
from knarr.store.contract import Store

ALGORITHM = "ES256"
AUTHENTICATED = "system:authenticated"
CLOCK_SKEW_S = 10
ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))
"""Who shows nothing. Roles say what is open to them (system:public-info-viewer)."""


class Tokens:
    """Makes and checks service-account tokens."""

    def __init__(self, store: Store, clock: Clock, private_key: Any, issuer: str, audiences: Sequence[str]) -> None:
        self._store = store
        self._clock = clock
        self._private_key = private_key
        self._public_key = private_key.public_key()
        self.issuer = issuer
        self.audiences = tuple(audiences)

    def issue(
        self, account: ServiceAccount, pod: Pod | None, audiences: Sequence[str], lifetime_s: int
    ) -> tuple[str, float]:
        """A token, and when it expires (seconds since the epoch)."""
        now_s = int(self._clock.time_s())
        metadata = account.metadata
        bound: dict[str, Any] = {
            "namespace": metadata.namespace,
            "serviceaccount": {"name": metadata.name, "uid": metadata.uid},
        }
        if pod:
            bound["pod"] = {"name": pod.metadata.name, "uid": pod.metadata.uid}
            if pod.spec and pod.spec.node_name:
                bound["node"] = {"name": pod.spec.node_name}
        claims = {
            "aud": list(audiences or self.audiences),
            "exp": now_s + lifetime_s,
            "iat": now_s,
            "nbf": now_s,
            "iss": self.issuer,
            "sub": f"system:serviceaccount:{metadata.namespace}:{metadata.name}",
            "kubernetes.io": bound,
        }
        return jwt.encode(claims, self._private_key, algorithm=ALGORITHM), now_s + lifetime_s

    async def user_of(self, token: str) -> User:
        """Raises Unauthorized."""
        try:
            claims = jwt.decode(
                token,
                self._public_key,
                algorithms=[ALGORITHM],
                issuer=self.issuer,
                audience=self.audiences,
                options={"verify_exp": False, "verify_nbf": False, "verify_iat": False, "require": ["exp", "sub"]},
            )
            bound = claims["kubernetes.io"]
            namespace, account = bound["namespace"], bound["serviceaccount"]
            expired = claims["exp"] + CLOCK_SKEW_S < self._clock.time_s()
        except (jwt.PyJWTError, KeyError, TypeError) as error:
            raise Unauthorized("Unauthorized") from error
        if expired or not await self._lives("serviceaccounts", ServiceAccount, namespace, account):
            raise Unauthorized("Unauthorized")
        extra: dict[str, tuple[str, ...]] = {}
        if pod := bound.get("pod"):
            if not await self._lives("pods", Pod, namespace, pod):
                raise Unauthorized("Unauthorized")
            extra = {
                "authentication.kubernetes.io/pod-name": (pod["name"],),
                "authentication.kubernetes.io/pod-uid": (pod["uid"],),
            }
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", AUTHENTICATED)
        return User(claims["sub"], groups, account["uid"], extra)

    async def _lives(self, plural: str, kind: type[Any], namespace: str, reference: Mapping[str, str]) -> bool:
        record = await self._store.get(f"{plural}/{namespace}/{reference['name']}")
        return record is not None and decoder(kind).decode(record.value).metadata.uid == reference["uid"]


async def authenticate(headers: Mapping[str, str], certificate_user: User | None, tokens: Tokens | None) -> User:
    """The user of a request. Raises Unauthorized."""
    if certificate_user:
        return certificate_user
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        if tokens is None:
            raise Unauthorized("Unauthorized")
        return await tokens.user_of(token.strip())
    return ANONYMOUS


def user_of_certificate(certificate: Mapping[str, Any]) -> User | None:
    """From what `ssl.SSLObject.getpeercert` answers for a verified certificate."""
    parts = [pair for relative in certificate.get("subject", ()) for pair in relative]
    name = next((value for key, value in parts if key == "commonName"), "")
    groups = tuple(value for key, value in parts if key == "organizationName")
    return User(name, (*groups, AUTHENTICATED)) if name else None
