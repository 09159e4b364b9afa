"""NamespaceLifecycle: nothing is made in a namespace that isn't there or is on its way out; some can't be deleted."""

from __future__ import annotations

from knarr.api.core.v1 import Namespace
from knarr.api.errors import Cause, NotFound
from knarr.api.resources import Resource
from knarr.apiserver.admission import Attributes, Plugin
from knarr.apiserver.admission.index import Index

IMMORTAL = ("default", "kube-system", "kube-public")


class NamespaceLifecycle(Plugin):
    def __init__(self, namespaces: Index[Namespace]) -> None:
        self._namespaces = namespaces

    def concerns(self, resource: Resource, operation: str, subresource: str) -> bool:
        if resource.type is Namespace:
            return operation == "DELETE"
        return resource.namespaced and operation == "CREATE"

    async def mutate(self, attributes: Attributes) -> None:
        """It changes nothing, but speaks before any other plugin and before validation, as upstream."""
        if attributes.resource.type is Namespace:
            if attributes.name in IMMORTAL:
                raise attributes.refused("this namespace may not be deleted")
            return
        namespace = attributes.namespace
        found = await self._namespaces.get("", namespace)
        if found is None:
            raise NotFound.of("", "namespaces", namespace)
        if found.status and found.status.phase == "Terminating":
            detail = f"unable to create new content in namespace {namespace} because it is being terminated"
            refused = attributes.refused(detail, named=False)
            about = f"namespace {namespace} is being terminated"
            refused.causes = (Cause("NamespaceTerminating", "metadata.namespace", about),)
            raise refused
