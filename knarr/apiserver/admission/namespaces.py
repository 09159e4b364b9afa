"""NamespaceLifecycle: nothing is made in a namespace that isn't there or is on its way out; some can't be deleted."""

from __future__ import annotations

from knarr.api.core.v1 import Namespace
from knarr.api.decode import decoder
from knarr.api.errors import Cause, Forbidden, NotFound
from knarr.apiserver.admission import Attributes, Plugin
from knarr.store.contract import Store

IMMORTAL = ("default", "kube-system", "kube-public", "kube-node-lease")


class NamespaceLifecycle(Plugin):
    def __init__(self, store: Store) -> None:
        self._store = store

    async def validate(self, attributes: Attributes) -> None:
        resource = attributes.resource
        if resource.kind == "Namespace" and attributes.operation == "DELETE":
            if attributes.name in IMMORTAL:
                raise Forbidden(
                    f'namespaces "{attributes.name}" is forbidden: this namespace may not be deleted',
                    kind="namespaces",
                    name=attributes.name,
                )
            return
        if not resource.namespaced or attributes.operation != "CREATE":
            return
        namespace = attributes.namespace
        record = await self._store.get(f"namespaces//{namespace}")
        if record is None:
            raise NotFound.of("", "namespaces", namespace)
        if b'"phase":"Terminating"' not in record.value:
            return
        found: Namespace = decoder(Namespace).decode(record.value)
        if found.status and found.status.phase == "Terminating":
            name = attributes.obj.metadata.name
            message = f"unable to create new content in namespace {namespace} because it is being terminated"
            raise Forbidden(
                f'{resource.qualified} "{name}" is forbidden: {message}',
                group=resource.group,
                kind=resource.plural,
                name=name,
                causes=[
                    Cause("NamespaceTerminating", "metadata.namespace", f"namespace {namespace} is being terminated")
                ],
            )
