"""Service accounts: every namespace has one called default, so that a pod can always be created there."""

from __future__ import annotations

from knarr.api.core.v1 import Namespace, ServiceAccount
from knarr.api.errors import AlreadyExists
from knarr.api.meta.v1 import ObjectMeta
from knarr.client.controller import Controller
from knarr.client.informer import key_of

DEFAULT = "default"


class ServiceAccounts(Controller):
    """The default v1 ServiceAccount of each namespace."""

    name = "serviceaccount-controller"

    def watch(self) -> None:
        self.namespaces = self.informer(Namespace)
        self.accounts = self.informer(ServiceAccount)
        self.on(self.namespaces, key_of)
        self.on(self.accounts, lambda account: account.metadata.namespace if account.metadata.name == DEFAULT else None)

    async def reconcile(self, key: str) -> None:
        namespace = self.namespaces.get(key)
        if namespace is None or namespace.metadata.deletion_timestamp is not None:
            return
        if self.accounts.get(f"{key}/{DEFAULT}") is None:
            try:
                await self.client.create(ServiceAccount(metadata=ObjectMeta(name=DEFAULT, namespace=key)))
            except AlreadyExists:
                pass
