"""What the API server asks of this node for people: logs, exec, attach, port-forward, what is used.

Faults are those of the API, in upstream's words: they reach kubectl as they are.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Sequence

from knarr.api.core.v1 import ContainerStatus, Pod
from knarr.api.errors import BadRequest, InternalError, NotFound
from knarr.client.nodes import LogOptions, NodePage, NodeUsage, Streams
from knarr.figures import Source
from knarr.node import logs, pages
from knarr.node.agent import NodeAgent
from knarr.node.inotify import Inotify
from knarr.node.pod_worker import PodWorker
from knarr.node.runtime import contract, kernel
from knarr.node.runtime.contract import ContainerState, Runtime, RuntimeFailure

CONNECT_S_MAX = 10.0
"""A port on the pod's loopback answers at once, or nobody listens."""


class NodeBackend:
    """The streams of one node's pods."""

    def __init__(self, agent: NodeAgent, runtime: Runtime) -> None:
        self._agent = agent
        self._runtime = runtime
        self._inotify = Inotify()
        self.sources: list[Source] = []
        """What other parts of the node count, for /metrics."""

    def close(self) -> None:
        self._inotify.close()

    async def logs(self, pod: Pod, options: LogOptions) -> AsyncIterator[bytes]:
        """The log of a container's newest run, or of the one before. With `follow` until that run has ended."""
        worker = self._worker(pod)
        run = worker.run_of(options.container, previous=options.previous)
        if run is None:
            raise self._no_log(pod, worker, options)
        container_id, name = run.id, options.container
        wake = asyncio.Event()

        def ended() -> bool:
            now = worker.run_of(name, previous=False)
            return now is None or now.id != container_id or now.state is ContainerState.EXITED

        with worker.told(wake):
            async for chunk in logs.read(run.log_path, options, self._inotify, ended, wake):
                yield chunk

    async def exec(self, pod: Pod, container: str, command: Sequence[str], *, tty: bool, stdin: bool) -> Streams:
        run = self._running(pod, container)
        try:
            return await self._runtime.exec(run.id, command, tty=tty, stdin=stdin)
        except RuntimeFailure as failure:
            raise InternalError(f"error executing command in container: {failure.message}") from failure

    async def attach(self, pod: Pod, container: str) -> Streams:
        run = self._running(pod, container)
        try:
            return await self._runtime.attach(run.id)
        except RuntimeFailure as failure:
            raise InternalError(f"error attaching to container: {failure.message}") from failure

    async def port_forward(self, pod: Pod, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to `localhost:port` inside of the pod's network."""
        for sandbox in await self._runtime.sandboxes():
            if sandbox.config.pod_uid == pod.metadata.uid and sandbox.ready:
                break
        else:
            raise NotFound(f'pod "{pod.metadata.name}" has no sandbox on this node')
        namespace = sandbox.network_namespace
        try:
            if namespace is None:
                return await asyncio.open_connection("127.0.0.1", port)
            connected = await kernel.in_thread_of_its_own(lambda: _connect_inside(namespace, port))
            return await asyncio.open_connection(sock=connected)
        except OSError as error:
            where = f"localhost:{port} inside namespace of pod {pod.metadata.name}"
            text = f"failed to connect to {where}: {error.strerror or error}"
            raise InternalError(text) from error

    async def usage(self, node: str) -> NodeUsage:
        return await self._agent.measurements.usage()

    async def page(self, node: str, path: str) -> NodePage:
        if path.strip("/") == "metrics":
            states = Counter(container.state for container in await self._runtime.containers())
            return pages.figures_page(
                self._agent.pods_held, {state: states[state] for state in ContainerState}, self.sources
            )
        usage = await self.usage(node)
        return await asyncio.to_thread(pages.page, path, self._agent.config, usage, self._agent.pods)

    def _worker(self, pod: Pod) -> PodWorker:
        worker = self._agent.worker(pod.metadata.uid or "")
        if worker is None:
            raise NotFound.of("", "pods", pod.metadata.name or "")
        return worker

    def _running(self, pod: Pod, container: str) -> contract.Container:
        run = self._worker(pod).run_of(container, previous=False)
        if run is None or run.state is not ContainerState.RUNNING:
            raise BadRequest(f'container not found ("{container}")')
        return run

    def _no_log(self, pod: Pod, worker: PodWorker, options: LogOptions) -> BadRequest:
        name, of_pod = options.container, pod.metadata.name
        if options.previous:
            return BadRequest(f'previous terminated container "{name}" in pod "{of_pod}" not found')
        status = worker.status
        every: list[ContainerStatus] = [
            *status.init_container_statuses,
            *status.container_statuses,
            *status.ephemeral_container_statuses,
        ]
        found = next((each for each in every if each.name == name), None)
        waiting = found.state.waiting if found is not None and found.state is not None else None
        reason = waiting.reason if waiting is not None else "ContainerCreating"
        if reason in ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"):
            trouble = "image can't be pulled" if reason == "ErrImagePull" else "trying and failing to pull image"
            return BadRequest(f'container "{name}" in pod "{of_pod}" is waiting to start: {trouble}')
        return BadRequest(f'container "{name}" in pod "{of_pod}" is waiting to start: {reason}')


def _connect_inside(namespace: str, port: int) -> socket.socket:
    """In a thread that ends afterwards: it enters the pod's network namespace; what it opens stays there."""
    kernel.enter(namespace)
    connected = socket.create_connection(("127.0.0.1", port), timeout=CONNECT_S_MAX)
    connected.setblocking(False)
    return connected
