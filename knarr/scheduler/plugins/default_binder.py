"""A pod is bound by posting a Binding to the API server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from knarr.api.core.v1 import Binding, ObjectReference, Pod
from knarr.api.meta.v1 import ObjectMeta
from knarr.client.informer import Informer
from knarr.scheduler.cache import PodInfo
from knarr.scheduler.framework import Connections, Step


class DefaultBinder(Step):
    name = "DefaultBinder"

    def connect(self, to: Connections) -> Sequence[Informer[Any]]:
        self._client = to.client
        return ()

    async def bind(self, pod: PodInfo, node_name: str) -> bool:
        metadata = pod.pod.metadata
        name, namespace = metadata.name or "", metadata.namespace
        binding = Binding(
            metadata=ObjectMeta(name=name, namespace=namespace, uid=metadata.uid),
            target=ObjectReference(kind="Node", name=node_name),
        )
        await self._client.post(Pod, name, namespace, "binding", binding)
        return True
