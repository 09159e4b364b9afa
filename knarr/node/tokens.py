"""Service account tokens for pods: bound to the pod, fetched by TokenRequest, and renewed before they end (KEP-1205).

A token is renewed when 80 % of its life is over, or after a day, with some jitter so that pods don't ask all at once.
When it can't be renewed the old one stays until its end.
"""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from knarr.api.authentication.v1 import BoundObjectReference, TokenRequest, TokenRequestSpec
from knarr.api.core.v1 import Pod, ServiceAccount, ServiceAccountTokenProjection
from knarr.api.errors import APIError
from knarr.client.client import Client
from knarr.clock import Clock

LIFE_S = 3600
"""Where the pod doesn't say, as upstream's default."""
AGE_MAX_S = 24 * 3600.0
JITTER_S = 10.0
RETRY_S = 30.0
"""A renewal that failed is tried again after so long; there is a fifth of the token's life left for it."""


class _Token(Struct, frozen=True):
    text: str
    renew_s: float
    ends_s: float


class Tokens:
    """The tokens of all pods of the node; kept in memory only."""

    def __init__(self, client: Client, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._tokens: dict[str, dict[tuple[str, str, int], _Token]] = {}

    async def token(self, pod: Pod, wanted: ServiceAccountTokenProjection) -> str:
        """A token that is good for a while. APIError when there is none."""
        assert pod.spec
        account = pod.spec.service_account_name or "default"
        life_s = wanted.expiration_seconds or LIFE_S
        of_pod = self._tokens.setdefault(pod.metadata.uid or "", {})
        key = (account, wanted.audience or "", life_s)
        held = of_pod.get(key)
        now_s = self._clock.time_s()
        if held is not None and now_s < held.renew_s:
            return held.text
        try:
            fresh = await self._request(pod, account, wanted.audience, life_s)
        except APIError:
            if held is not None and now_s < held.ends_s:
                of_pod[key] = replace(held, renew_s=min(now_s + RETRY_S, held.ends_s))
                return held.text
            raise
        of_pod[key] = fresh
        return fresh.text

    def renewal_s(self, uid: str) -> float | None:
        """When the first token of the pod is due to be renewed."""
        return min((token.renew_s for token in self._tokens.get(uid, {}).values()), default=None)

    def forget(self, uid: str) -> None:
        self._tokens.pop(uid, None)

    async def _request(self, pod: Pod, account: str, audience: str | None, life_s: int) -> _Token:
        metadata = pod.metadata
        request = TokenRequest(
            spec=TokenRequestSpec(
                audiences=[audience] if audience else [],
                expiration_seconds=life_s,
                bound_object_ref=BoundObjectReference(
                    api_version="v1", kind="Pod", name=metadata.name, uid=metadata.uid
                ),
            )
        )
        now_s = self._clock.time_s()
        answer = await self._client.post(ServiceAccount, account, metadata.namespace, "token", request)
        status = answer.get("status") or {}
        ends_s = _moment_s(status.get("expirationTimestamp")) or now_s + life_s
        jitter_s = self._clock.random.random() * JITTER_S
        renew_s = now_s + min((ends_s - now_s) * 0.8, AGE_MAX_S) - jitter_s
        return _Token(str(status.get("token", "")), renew_s, ends_s)


def _moment_s(text: str | None) -> float | None:
    return datetime.fromisoformat(text).timestamp() if text else None
