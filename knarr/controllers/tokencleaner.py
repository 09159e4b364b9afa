"""Bootstrap tokens go when they have expired: nobody joins by them any more (upstream's token-cleaner-controller).

A token without an expiration stays; one whose expiration can't be read has expired.
"""

from __future__ import annotations

from datetime import datetime

from knarr.api.core.v1 import Secret
from knarr.api.errors import NotFound
from knarr.client.controller import Controller
from knarr.client.informer import key_of

TYPE = "bootstrap.kubernetes.io/token"


class TokenCleaner(Controller):
    """Deletes expired Secrets of the type bootstrap.kubernetes.io/token in kube-system."""

    name = "token-cleaner-controller"

    def watch(self) -> None:
        self.secrets = self.informer(Secret, namespace="kube-system", field_selector=f"type={TYPE}")
        self.on(self.secrets, key_of)

    async def reconcile(self, key: str) -> float | None:
        secret = self.secrets.get(key)
        if secret is None or (ends_s := expiration_s(secret)) is None:
            return None
        left_s = ends_s - self.clock.time_s()
        if left_s > 0:
            return left_s
        metadata = secret.metadata
        try:
            await self.client.delete(
                Secret,
                metadata.name or "",
                metadata.namespace,
                uid=metadata.uid,
                resource_version=metadata.resource_version,  # whoever has just prolonged it keeps it
            )
        except NotFound:
            pass
        return None


def expiration_s(secret: Secret) -> float | None:
    """When a token expires, in seconds since the epoch; None for never."""
    text = secret.data.get("expiration", b"").decode(errors="replace")
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return 0.0
    return moment.timestamp() if moment.tzinfo else 0.0
