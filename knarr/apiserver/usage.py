"""metrics.k8s.io: what nodes and pods use, asked of the nodes and never kept (upstream's metrics-server, in the door).

A pod is shown once all of its containers that run have been measured; what can't be said yet is left out of lists, and
not found by name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from knarr.api.core.v1 import Node, Pod
from knarr.api.decode import decoder
from knarr.api.durations import go_duration
from knarr.api.errors import NotFound, ServiceUnavailable
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.metrics.v1beta1 import ContainerMetrics, NodeMetrics, PodMetrics
from knarr.api.resources import Registry
from knarr.apiserver.calls import Call
from knarr.apiserver.selection import Selection
from knarr.client.nodes import NodeBackend, NodeUsage, Usage
from knarr.clock import Clock, utc
from knarr.store.contract import Store

GROUP = "metrics.k8s.io"
NODES_AT_ONCE = 32


class UsageKinds:
    """Lists of NodeMetrics and PodMetrics."""

    def __init__(self, registry: Registry, store: Store, clock: Clock, nodes: Callable[[], NodeBackend | None]) -> None:
        self._registry = registry
        self._store = store
        self._clock = clock
        self._nodes = nodes

    async def found(self, call: Call) -> list[bytes]:
        """All objects that a request is about, encoded. Raises NotFound where it names one that there isn't."""
        of_nodes = call.resource.type is NodeMetrics
        kept = self._registry.of(Node if of_nodes else Pod)
        selection = Selection.of(kept, kept, call.path.namespace, call.path.name, call.query)
        records = (await self._store.range(selection.prefix)).records
        decode = decoder(kept.type).decode
        objects = [decode(record.value) for record in records if selection.holds(record.value)]
        values = await (self._of_nodes(objects) if of_nodes else self._of_pods(objects))
        if call.path.name and not values:
            path = call.path
            name = path.name if of_nodes else f"{path.namespace}/{path.name}"
            raise NotFound.of(GROUP, "nodemetrics" if of_nodes else "podmetrics", name)
        return [msgspec.json.encode(value) for value in values]

    async def _of_nodes(self, nodes: Iterable[Node]) -> list[NodeMetrics]:
        metadata = {node.metadata.name or "": node.metadata for node in nodes}
        usages = await self._usages(metadata)
        return [
            NodeMetrics(
                metadata=self._metadata(metadata[name]),
                timestamp=utc(found.whole.at_s),
                window=go_duration(found.whole.window_s),
                usage=_amounts(found.whole),
            )
            for name, found in usages.items()
            if found.whole is not None and found.whole.window_s
        ]

    async def _of_pods(self, pods: Iterable[Pod]) -> list[PodMetrics]:
        pods = [pod for pod in pods if pod.spec and pod.spec.node_name]
        usages = await self._usages(sorted({pod.spec.node_name for pod in pods if pod.spec and pod.spec.node_name}))
        by_uid = {one.uid: one.containers for usage in usages.values() for one in usage.pods}
        found = []
        for pod in pods:
            containers = by_uid.get(pod.metadata.uid or "")
            if containers and all(one.window_s for one in containers.values()):
                found.append(self._pod(pod, containers))
        return found

    def _pod(self, pod: Pod, containers: Mapping[str, Usage]) -> PodMetrics:
        oldest = min(containers.values(), key=lambda one: one.at_s)
        return PodMetrics(
            metadata=self._metadata(pod.metadata),
            timestamp=utc(oldest.at_s),
            window=go_duration(oldest.window_s),
            containers=[ContainerMetrics(name=name, usage=_amounts(one)) for name, one in containers.items()],
        )

    async def _usages(self, names: Iterable[str]) -> dict[str, NodeUsage]:
        """By node; those that can't be reached are left out."""
        nodes = self._nodes()
        if nodes is None:
            return {}
        slots = asyncio.Semaphore(NODES_AT_ONCE)

        async def ask(name: str) -> NodeUsage | None:
            async with slots:
                try:
                    return await nodes.usage(name)
                except ServiceUnavailable:
                    return None

        wanted = list(names)
        answers = await asyncio.gather(*map(ask, wanted))
        return {name: answer for name, answer in zip(wanted, answers, strict=True) if answer is not None}

    def _metadata(self, of: ObjectMeta) -> ObjectMeta:
        now = utc(self._clock.time_s())
        return ObjectMeta(name=of.name, namespace=of.namespace, labels=of.labels, creation_timestamp=now)


def _amounts(usage: Usage) -> dict[str, Any]:
    return {"cpu": f"{usage.cpu_nano_cores}n", "memory": f"{usage.working_set_bytes // 1024}Ki"}
