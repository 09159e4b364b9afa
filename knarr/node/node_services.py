"""What all pods of a node share: handed to each pod's worker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct, field

from knarr.api.core.v1 import Pod, Service
from knarr.client.client import Client
from knarr.client.events import EventRecorder
from knarr.clock import Clock
from knarr.node.config import NodeConfig
from knarr.node.environment import Surroundings
from knarr.node.handlers import Handlers
from knarr.node.pulls import Pulls
from knarr.node.references import References
from knarr.node.runtime.contract import PortMapping, Runtime
from knarr.node.tokens import Tokens
from knarr.node.traffic import Traffic
from knarr.node.volumes import Volumes

SANDBOX_STARTS_MAX = 4
CONTAINER_STARTS_MAX = 4
"""At once: when many pods come together, the first are up soon instead of all of them late."""


class HostPorts(Protocol):
    """Has ports of the node lead to pods (hostPort); the pod network does."""

    async def map_ports(self, sandbox_id: str, addresses: Sequence[str], mappings: Sequence[PortMapping]) -> None: ...

    async def unmap_ports(self, sandbox_id: str) -> None: ...


class Isolation(Protocol):
    """Closes a pod as NetworkPolicies want it; who enforces them does."""

    async def isolate(self, pod: Pod, addresses: Sequence[str]) -> None:
        """Answers once it is closed: before the pod's first container starts."""


class NodeServices(Struct):
    """The parts of the node agent that a pod uses."""

    client: Client
    clock: Clock
    runtime: Runtime
    config: NodeConfig
    events: EventRecorder
    volumes: Volumes
    references: References
    pulls: Pulls
    tokens: Tokens
    handlers: Handlers
    services: Callable[[str], list[Service]]
    """The Services of a namespace, and the API server's own."""
    host_ports: HostPorts | None = None
    isolation: Isolation | None = None
    traffic: Traffic | None = None
    """What leads connections to the pods; None where nobody is waited for."""
    sandbox_starts: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(SANDBOX_STARTS_MAX))
    container_starts: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(CONTAINER_STARTS_MAX))
    allocatable: Mapping[str, Any] = field(default_factory=dict)
    memory_bytes: int = 1
    requested: Callable[[str], tuple[int, int]] = lambda but: (0, 0)
    """requested(uid): what all pods of the node but this one request: thousandths of a core, bytes."""

    def surroundings(self, pod: Pod, pod_ips: tuple[str, ...]) -> Surroundings:
        """What the configuration of the pod's containers may refer to."""
        namespace = pod.metadata.namespace or ""
        return Surroundings(
            config_map=lambda name: self.references.config_map(namespace, name),
            secret=lambda name: self.references.secret(namespace, name),
            services=self.services(namespace),
            pod_ips=pod_ips,
            host_ips=self.config.internal_ips,
            allocatable=self.allocatable,
        )
