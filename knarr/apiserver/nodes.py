"""The nodes of a cluster, as the API server reaches them: each pod's requests go to the backend of its node.

Nodes of this process are backends as they are; how others are reached is said by their Node objects.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from knarr.api.core.v1 import Pod
from knarr.api.errors import BadRequest, ServiceUnavailable
from knarr.client.nodes import LogOptions, NodeBackend, NodePage, NodeUsage, Streams


class Nodes:
    """A NodeBackend over those of single nodes."""

    def __init__(
        self, backends: Mapping[str, NodeBackend], elsewhere: Callable[[str], NodeBackend | None] = lambda name: None
    ) -> None:
        """`elsewhere` answers the backend of a node that isn't here; None when it knows none of that name."""
        self._backends = backends
        self._elsewhere = elsewhere

    def logs(self, pod: Pod, options: LogOptions) -> AsyncIterator[bytes]:
        return self._of(pod).logs(pod, options)

    async def exec(self, pod: Pod, container: str, command: Sequence[str], *, tty: bool, stdin: bool) -> Streams:
        return await self._of(pod).exec(pod, container, command, tty=tty, stdin=stdin)

    async def attach(self, pod: Pod, container: str) -> Streams:
        return await self._of(pod).attach(pod, container)

    async def port_forward(self, pod: Pod, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await self._of(pod).port_forward(pod, port)

    async def usage(self, node: str) -> NodeUsage:
        return await self._named(node).usage(node)

    async def page(self, node: str, path: str) -> NodePage:
        return await self._named(node).page(node, path)

    def _of(self, pod: Pod) -> NodeBackend:
        node = pod.spec.node_name if pod.spec else None
        if not node:
            raise BadRequest(f"pod {pod.metadata.name} does not have a host assigned")
        return self._named(node)

    def _named(self, node: str) -> NodeBackend:
        backend = self._backends.get(node) or self._elsewhere(node)
        if backend is None:
            raise ServiceUnavailable(f"node {node} can't be reached from this API server")
        return backend
