"""What the API server asks of the node that runs a pod: its logs, and streams into its containers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from msgspec import Struct

from knarr.api.core.v1 import Pod


class LogOptions(Struct, frozen=True):
    """Which part of a container's log is wanted (core/v1 PodLogOptions)."""

    container: str
    follow: bool = False
    previous: bool = False
    tail_lines: int | None = None
    since_s: float | None = None
    """Only lines from this moment on, in seconds since the epoch."""
    timestamps: bool = False
    limit_bytes: int | None = None


class Streams(Protocol):
    """The two ends of an exec or attach session."""

    async def write(self, data: bytes) -> None:
        """Send to the process's stdin."""

    async def close_stdin(self) -> None:
        """End of input."""

    async def resize(self, width: int, height: int) -> None:
        """New size of the terminal, in characters."""

    def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """(1, …) for stdout and (2, …) for stderr, until both end."""

    async def exit_code(self) -> int:
        """Wait for the end of an exec'd process; for an attach, of the container."""

    async def close(self) -> None:
        """Let go; an exec'd process that still runs is killed, an attached container is not."""


class Usage(Struct, frozen=True):
    """CPU and memory that something has used, and uses."""

    at_s: float
    """When it was measured, in seconds since the epoch."""
    window_s: float
    """The time before that which `cpu_nano_cores` is about; 0: too short yet to say."""
    cpu_nano_cores: int
    cpu_ns: int
    """All of its CPU time."""
    working_set_bytes: int
    """Memory, without what the kernel could take back at once."""
    memory_bytes: int = 0
    rss_bytes: int = 0
    since_s: float = 0.0
    """When it began."""


class PodUsage(Struct, frozen=True):
    """What a pod uses, by container; those that don't run are left out."""

    namespace: str
    name: str
    uid: str
    since_s: float
    containers: dict[str, Usage]


class NodeUsage(Struct, frozen=True):
    """What a node uses, and each of its pods."""

    whole: Usage | None
    """None: not measured yet."""
    pods: tuple[PodUsage, ...] = ()


USAGE_PATH = "/knarr/usage"
"""Where a node in another process tells its NodeUsage, as JSON."""


class NodePage(Struct, frozen=True):
    """What a node answers by HTTP."""

    body: bytes
    content_type: str = "text/plain"
    status: int = 200


class NodeBackend(Protocol):
    """The nodes, as the API server reaches them. Faults are those of knarr.api.errors."""

    def logs(self, pod: Pod, options: LogOptions) -> AsyncIterator[bytes]: ...

    async def exec(self, pod: Pod, container: str, command: Sequence[str], *, tty: bool, stdin: bool) -> Streams: ...

    async def attach(self, pod: Pod, container: str) -> Streams: ...

    async def port_forward(self, pod: Pod, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to a port of the pod, from within its network namespace."""

    async def usage(self, node: str) -> NodeUsage: ...

    async def page(self, node: str, path: str) -> NodePage:
        """What upstream's kubelet serves at a path: /healthz, /pods, /stats/summary, /metrics/resource."""
