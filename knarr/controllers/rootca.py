"""The cluster's certificate authority, published: every namespace has a ConfigMap kube-root-ca.crt.

Pods verify the API server by it: it is projected into them beside their token (KEP-1205).
"""

from __future__ import annotations

from knarr.api.core.v1 import ConfigMap, Namespace
from knarr.api.errors import AlreadyExists
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.types import replace
from knarr.client.client import Client
from knarr.client.controller import Controller
from knarr.client.informer import Informers, key_of
from knarr.clock import Clock

NAME = "kube-root-ca.crt"
KEY = "ca.crt"
DESCRIPTION = "kubernetes.io/description"
TEXT = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the "
    "internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of "
    "Kubernetes clusters."
)


class RootCertificates(Controller):
    """The v1 ConfigMap kube-root-ca.crt of each namespace; `certificates` is the bundle, PEM."""

    name = "root-ca-certificate-publisher-controller"

    def __init__(self, client: Client, informers: Informers, clock: Clock, certificates: str) -> None:
        self.certificates = certificates
        super().__init__(client, informers, clock)

    def watch(self) -> None:
        self.namespaces = self.informer(Namespace)
        self.config_maps = self.informer(ConfigMap)
        self.on(self.namespaces, key_of)
        self.on(self.config_maps, lambda one: one.metadata.namespace if one.metadata.name == NAME else None)

    async def reconcile(self, key: str) -> None:
        namespace = self.namespaces.get(key)
        if namespace is None or namespace.metadata.deletion_timestamp is not None:
            return
        data = {KEY: self.certificates}
        published = self.config_maps.get(f"{key}/{NAME}")
        if published is None:
            metadata = ObjectMeta(name=NAME, namespace=key, annotations={DESCRIPTION: TEXT})
            try:
                await self.client.create(ConfigMap(metadata=metadata, data=data))
            except AlreadyExists:
                pass
        elif published.data != data or DESCRIPTION not in published.metadata.annotations:
            annotations = {**published.metadata.annotations, DESCRIPTION: TEXT}
            metadata = replace(published.metadata, annotations=annotations)
            await self.client.update(replace(published, metadata=metadata, data=data, binary_data={}))
