"""Bootstrap tokens: with them a machine asks for its first certificate (kubeadm join).

A token is <id>.<secret>, kept in the Secret bootstrap-token-<id> in kube-system, of the type
bootstrap.kubernetes.io/token. Who shows it is system:bootstrap:<id> in the group system:bootstrappers, as long as it
has not expired and is meant for authentication.
"""

from __future__ import annotations

import hmac
import re
from datetime import datetime

from knarr.api.core.v1 import Secret
from knarr.api.decode import decoder
from knarr.api.errors import Unauthorized
from knarr.client.transport import User
from knarr.clock import Clock
from knarr.store.contract import Store

FORM = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})")
GROUP_FORM = re.compile(r"system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]")
TYPE = "bootstrap.kubernetes.io/token"
GROUP = "system:bootstrappers"
AUTHENTICATED = "system:authenticated"


class BootstrapTokens:
    """Checks them against the Secrets in a store."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def looks_like_one(self, token: str) -> bool:
        return FORM.fullmatch(token) is not None

    async def user_of(self, token: str) -> User:
        """Raises Unauthorized."""
        match = FORM.fullmatch(token)
        if match is None:
            raise Unauthorized("no bootstrap token")
        identity, secret = match.groups()
        record = await self._store.get(f"secrets/kube-system/bootstrap-token-{identity}")
        if record is None:
            raise Unauthorized("no such bootstrap token")
        found: Secret = decoder(Secret).decode(record.value)
        data = {key: value.decode(errors="replace") for key, value in found.data.items()}
        if found.type != TYPE or found.metadata.deletion_timestamp:
            raise Unauthorized("no such bootstrap token")
        if not hmac.compare_digest(data.get("token-secret", "").encode(), secret.encode()):
            raise Unauthorized("the bootstrap token is wrong")
        if data.get("token-id") != identity or data.get("usage-bootstrap-authentication") != "true":
            raise Unauthorized("the bootstrap token is not meant for authentication")
        if self._expired(data.get("expiration", "")):
            raise Unauthorized("the bootstrap token has expired")
        groups = {group.strip() for group in data.get("auth-extra-groups", "").split(",")} - {""}
        if not all(GROUP_FORM.fullmatch(group) for group in groups):
            raise Unauthorized("the bootstrap token names a group that is none of bootstrappers")
        return User(f"system:bootstrap:{identity}", (*sorted({GROUP, *groups}), AUTHENTICATED))

    def _expired(self, moment: str) -> bool:
        """An expiration that can't be read has passed."""
        if not moment:
            return False
        try:
            return datetime.fromisoformat(moment).timestamp() <= self._clock.time_s()
        except ValueError:
            return True
