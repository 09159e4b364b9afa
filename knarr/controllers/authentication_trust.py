"""How servers of other parts of the API know who asks: the ConfigMap extension-apiserver-authentication in kube-system.

It says by which authority clients' certificates are signed, and by which certificate the API server itself is known
when it passes a request on, with the user in headers (upstream's cluster authentication trust controller). Whoever may
read it has the role extension-apiserver-authentication-reader.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from knarr.api.core.v1 import ConfigMap
from knarr.api.errors import AlreadyExists
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.types import replace
from knarr.client.client import Client
from knarr.client.controller import Controller
from knarr.client.informer import Informers, key_of
from knarr.clock import Clock

NAMESPACE, NAME = "kube-system", "extension-apiserver-authentication"
KEY = f"{NAMESPACE}/{NAME}"


def trust(client_ca: str, front_proxy_ca: str, front_proxy: str) -> dict[str, str]:
    """The data of the ConfigMap: two bundles (PEM), the name of the API server's certificate, and the headers."""
    lists = {
        "requestheader-allowed-names": [front_proxy],
        "requestheader-extra-headers-prefix": ["X-Remote-Extra-"],
        "requestheader-group-headers": ["X-Remote-Group"],
        "requestheader-uid-headers": ["X-Remote-Uid"],
        "requestheader-username-headers": ["X-Remote-User"],
    }
    written = {name: json.dumps(values) for name, values in lists.items()}
    return {"client-ca-file": client_ca, "requestheader-client-ca-file": front_proxy_ca, **written}


class AuthenticationTrust(Controller):
    """The ConfigMap is there, and says what is so."""

    name = "cluster-authentication-trust-controller"
    needs = (ConfigMap,)
    workers = 1

    def __init__(self, client: Client, informers: Informers, clock: Clock, data: Mapping[str, str]) -> None:
        self._data = dict(data)
        super().__init__(client, informers, clock)

    def watch(self) -> None:
        self.maps = self.informer(ConfigMap)
        self.on(self.maps, lambda found: KEY if key_of(found) == KEY else None)
        self.queue.add(KEY)

    async def reconcile(self, key: str) -> None:
        there = self.maps.get(key)
        if there is not None:
            if there.data != self._data:
                await self.client.update(replace(there, data=self._data))
            return
        metadata = ObjectMeta(name=NAME, namespace=NAMESPACE)
        try:
            await self.client.create(ConfigMap(metadata=metadata, data=self._data))
        except AlreadyExists:
            pass  # The cache will show it.
