"""An API server and a node agent in one process: in virtual time with hollow containers, or for real."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from knarr.api.core.v1 import ConfigMap, ContainerStatus, Event, Namespace, Pod, ServiceAccount
from knarr.api.errors import ServiceUnavailable
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.registry import built_in
from knarr.apiserver.authenticate import Tokens
from knarr.apiserver.server import APIServer, InProcessTransport
from knarr.client.client import Client
from knarr.client.informer import Informer, Informers
from knarr.client.transport import Answer, Request, User
from knarr.clock import Clock
from knarr.node.agent import NodeAgent
from knarr.node.backend import NodeBackend
from knarr.node.config import NodeConfig
from knarr.node.node_services import HostPorts
from knarr.node.runtime.contract import Runtime
from knarr.store.memory import MemoryStore

T = TypeVar("T")

ADMINISTRATOR = User("admin", ("system:masters", "system:authenticated"))
NODE = "node-1"
UNTIL_MAX_S = 60.0


class Door:
    """The way to the API server, which can be closed for a while and counts what goes through."""

    def __init__(self, server: APIServer) -> None:
        self._transport = InProcessTransport(server)
        self.closed = False
        self.refused = ""
        """Requests whose path ends so are turned away."""
        self.turned_away: list[tuple[str, str]] = []
        self.requests: list[tuple[str, str]] = []

    async def send(self, request: Request) -> Answer:
        if self.closed:
            raise ServiceUnavailable("connection refused")
        if self.refused and request.path.endswith(self.refused):
            self.turned_away.append((request.method, request.path))
            raise ServiceUnavailable("refused")
        self.requests.append((request.method, request.path))
        return await self._transport.send(request)

    async def close(self) -> None:
        return None


class NodeCluster:
    """One node, and a cache of its pods."""

    def __init__(self, clock: Clock, runtime: Runtime, config: NodeConfig, ports: HostPorts | None = None) -> None:
        self.clock = clock
        self.runtime = runtime
        self.config = config
        self.ports = ports
        self.informers: Informers | None = None
        """Of the agent's process, for agents that look on when EndpointSlices change."""
        store = MemoryStore()
        key = ec.generate_private_key(ec.SECP256R1())
        tokens = Tokens(store, clock, key, "https://kubernetes.default.svc", ["https://kubernetes.default.svc"])
        self.server = APIServer(store, built_in(), clock, tokens=tokens)
        self.client = Client(InProcessTransport(self.server), built_in(), ADMINISTRATOR)
        self.door = Door(self.server)
        self.pods: Informer[Pod] = Informer(self.client, Pod, clock)
        self.history: dict[str, list[Pod]] = {}
        self.pods.add_handler(self._note)
        self.agent: NodeAgent
        self.backend: NodeBackend
        self._changed = asyncio.Event()
        self._agent_task: asyncio.Task[None] | None = None

    def _note(self, _: Pod | None, new: Pod | None) -> None:
        if new is not None:
            self.history.setdefault(new.metadata.name or "", []).append(new)
        self._changed.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[NodeCluster]:
        async with asyncio.TaskGroup() as group:
            for name in ("default", "kube-system", "kube-node-lease"):
                await self.client.create(Namespace(metadata=ObjectMeta(name=name)))
            await self.client.create(ServiceAccount(metadata=ObjectMeta(name="default", namespace="default")))
            root = ConfigMap(metadata=ObjectMeta(name="kube-root-ca.crt", namespace="default"), data={"ca.crt": "CA"})
            await self.client.create(root)
            watching = group.create_task(self.pods.run())
            self.start_agent(group)
            await self.agent.ready.wait()
            try:
                yield self
            finally:
                watching.cancel()
                await self.stop_agent()

    def start_agent(self, group: asyncio.TaskGroup | None = None) -> None:
        client = Client(
            self.door,
            built_in(),
            User(f"system:node:{NODE}", ("system:masters", "system:nodes", "system:authenticated")),
        )
        self.agent = NodeAgent(client, self.clock, self.runtime, self.config, self.informers, self.ports)
        self.backend = NodeBackend(self.agent, self.runtime)
        self._agent_task = asyncio.get_running_loop().create_task(self.agent.run())

    async def stop_agent(self) -> None:
        assert self._agent_task is not None
        self.backend.close()
        self._agent_task.cancel()
        await asyncio.gather(self._agent_task, return_exceptions=True)

    # -- pods

    async def create(self, obj: T) -> T:
        return await self.client.create(obj)

    async def pod(self, name: str, *containers: dict[str, Any], **spec: Any) -> Pod:
        """A pod, bound to the node."""
        return await self.client.create(pod(name, *containers, **spec))

    def get(self, name: str) -> Pod | None:
        return self.pods.get(f"default/{name}")

    def status(self, name: str, container: str = "main") -> ContainerStatus:
        found = self.get(name)
        assert found is not None, name
        assert found.status is not None
        every = (*found.status.init_container_statuses, *found.status.container_statuses)
        return next(each for each in every if each.name == container)

    def phase(self, name: str) -> str:
        found = self.get(name)
        return (found.status.phase or "") if found is not None and found.status is not None else ""

    def condition(self, name: str, kind: str) -> tuple[str, str, str]:
        found = self.get(name)
        assert found is not None
        assert found.status is not None
        one = next((each for each in found.status.conditions if each.type == kind), None)
        return (one.status, one.reason or "", one.message or "") if one is not None else ("", "", "")

    def ready(self, name: str) -> bool:
        return self.get(name) is not None and self.condition(name, "Ready")[0] == "True"

    async def until(self, holds: Callable[[], Any], within_s: float = UNTIL_MAX_S) -> None:
        """Wait until `holds` answers something true; looked at whenever a pod changes."""
        try:
            async with self.clock.timeout(within_s):
                while not _holds(holds):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            shown = [msgspec.json.encode(each.status).decode() for each in self.pods.all()]
            raise AssertionError(f"not within {within_s} s: {shown}") from None

    async def delete(self, name: str, grace_s: int | None = None) -> None:
        await self.client.delete(Pod, name, "default", grace_period_s=grace_s)

    async def events(self, name: str) -> list[tuple[str, str]]:
        """Reasons and messages, oldest first."""
        found = [
            event for event in (await self.client.list(Event, "default")).items if event.involved_object.name == name
        ]
        found.sort(key=lambda event: int((event.metadata.name or "").rpartition(".")[2], 16))
        return [(event.reason or "", event.message or "") for event in found]

    async def container_id(self, name: str, container: str = "main") -> str:
        return (self.status(name, container).container_id or "").removeprefix("knarr://")


def _holds(holds: Callable[[], Any]) -> Any:
    try:
        return holds()
    except (AssertionError, StopIteration, AttributeError):
        return False


def pod(name: str, *containers: dict[str, Any], **spec: Any) -> Pod:
    """A pod for the node, as JSON data; containers without an image get one."""
    metadata = spec.pop("metadata", {})
    listed = [{"name": "main", "image": "one:v1", **each} for each in containers or ({},)]
    for each in spec.get("initContainers", []):
        each.setdefault("image", "one:v1")
    return msgspec.convert(
        {
            "metadata": {"name": name, "namespace": "default", **metadata},
            "spec": {"nodeName": NODE, "containers": listed, **spec},
        },
        Pod,
    )


def hollow_config(root: Path) -> NodeConfig:
    return NodeConfig(
        NODE,
        root / "node",
        root / "logs",
        ("10.0.0.1",),
        pod_cidrs=("10.244.0.0/24",),
        hollow=True,
        capacity={"cpu": "8", "memory": "16Gi", "pods": "110"},
    )
