"""Secrets of the type kubernetes.io/service-account-token, made by hand, are filled in: token, namespace and the CA.

The account is named by the annotation kubernetes.io/service-account.name. When it is gone, so is the Secret. New
clusters don't need such Secrets (TokenRequest gives tokens that end), old manifests do.
"""

from __future__ import annotations

from collections.abc import Callable

from knarr.api.core.v1 import Secret, ServiceAccount
from knarr.api.errors import NotFound
from knarr.api.types import replace
from knarr.client.client import Client
from knarr.client.controller import Controller
from knarr.client.informer import Informers, key_of
from knarr.clock import Clock

TYPE = "kubernetes.io/service-account-token"
NAME, UID = "kubernetes.io/service-account.name", "kubernetes.io/service-account.uid"

Sign = Callable[[str, str, str, str], str]
"""sign(namespace, account, the account's uid, the Secret's name): a token that lasts as long as the Secret."""


class TokenSecrets(Controller):
    """Writes the data of v1 Secrets of that type."""

    name = "serviceaccount-token-controller"

    def __init__(self, client: Client, informers: Informers, clock: Clock, sign: Sign, root_ca: str) -> None:
        self._sign, self._root_ca = sign, root_ca
        super().__init__(client, informers, clock)

    def watch(self) -> None:
        self.secrets = self.informer(Secret, field_selector=f"type={TYPE}")
        self.accounts = self.informer(ServiceAccount)
        self.on(self.secrets, key_of)
        self.on(self.accounts, self._of_account)

    def _of_account(self, account: ServiceAccount) -> list[str]:
        whose = (account.metadata.namespace, account.metadata.name)
        return [key_of(secret) for secret in self.secrets.all() if _account_of(secret) == whose]

    async def reconcile(self, key: str) -> None:
        secret = self.secrets.get(key)
        if secret is None or secret.metadata.deletion_timestamp:
            return
        metadata = secret.metadata
        namespace, name = metadata.namespace or "", metadata.annotations.get(NAME, "")
        uid = metadata.annotations.get(UID)
        account = self.accounts.get(f"{namespace}/{name}") or await self._looked_up(namespace, name)
        if account is None or (uid and uid != account.metadata.uid):
            await self.client.delete(Secret, metadata.name or "", namespace, uid=metadata.uid)
            return
        wanted = self._data(secret, account)
        if wanted != secret.data or not uid:
            annotations = {**metadata.annotations, UID: account.metadata.uid or ""}
            await self.client.update(replace(secret, metadata=replace(metadata, annotations=annotations), data=wanted))

    async def _looked_up(self, namespace: str, name: str) -> ServiceAccount | None:
        """A cache may be late with an account that was made just before its Secret."""
        try:
            return await self.client.get(ServiceAccount, name, namespace) if name else None
        except NotFound:
            return None

    def _data(self, secret: Secret, account: ServiceAccount) -> dict[str, bytes]:
        """A token that is there stays: somebody may use it."""
        namespace, name = account.metadata.namespace or "", account.metadata.name or ""
        data = {**secret.data, "namespace": namespace.encode()}
        if self._root_ca:
            data["ca.crt"] = self._root_ca.encode()
        if not data.get("token"):
            data["token"] = self._sign(namespace, name, account.metadata.uid or "", secret.metadata.name or "").encode()
        return data


def _account_of(secret: Secret) -> tuple[str | None, str | None]:
    return secret.metadata.namespace, secret.metadata.annotations.get(NAME)
