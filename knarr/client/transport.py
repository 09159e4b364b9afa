"""Requests and answers, whatever carries them.

The API server answers a `Request` with an `Answer`. In one process (`knarr up`) components hand requests over directly;
otherwise they travel over HTTPS. Both ways are a `Transport`, and nothing above it can tell which one it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from typing import Protocol

from msgspec import Struct, field


class User(Struct, frozen=True):
    """Who asks (authentication.k8s.io UserInfo)."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


class Request(Struct):
    """One request to the API. Header names are in lower case."""

    method: str
    path: str
    """Decoded path, without the query."""
    query: Mapping[str, str] = field(default_factory=dict)
    """The first value of each parameter."""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    user: User | None = None
    """Set by whoever authenticated the caller: the TLS listener, or the assembly of the process for its own parts."""
    repeated: Mapping[str, list[str]] = field(default_factory=dict)
    """All values of parameters that may be repeated (command)."""
    rest: AsyncIterable[bytes] | None = None
    """A body that goes on to somebody else as it comes, in the place of `body`."""
    peer: str = ""
    """The address that asks, where others are to be told of it."""


class FlowHeaders(Struct, frozen=True):
    """By which flow schema and priority level a request was let in: headers of its answer (KEP-1040)."""

    headers: Mapping[str, str]
    lines: bytes
    """The same, as they are written."""

    @classmethod
    def of(cls, schema_uid: str, level_uid: str) -> FlowHeaders:
        headers = {
            "X-Kubernetes-PF-FlowSchema-UID": schema_uid,
            "X-Kubernetes-PF-PriorityLevel-UID": level_uid,
        }
        return cls(headers, "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode())


class Answer(Struct):
    """One answer. Either `body` or `stream` is used."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    warnings: list[str] = field(default_factory=list)
    """Advice to the user; Warning headers over HTTP."""
    stream: AsyncIterator[bytes] | None = None
    """Chunks as they come; the receiver must exhaust or aclose() it."""
    upgrade: Upgrade | None = None
    """With status 101: the caller makes the connection a WebSocket and hands it over."""
    flow: FlowHeaders | None = None
    tunnel: Tunnel | None = None
    """With status 101: the caller passes on what either end says from now on."""


class Socket(Protocol):
    """One WebSocket, as the API server talks over it."""

    subprotocol: str

    async def send(self, data: bytes) -> None: ...

    async def receive(self) -> bytes | None:
        """The next message; None at the end."""

    async def close(self) -> None: ...


class Upgrade(Struct, frozen=True):
    """What to do with a request that becomes a WebSocket."""

    subprotocols: tuple[str, ...]
    """Offered, best first."""
    serve: Callable[[Socket], Awaitable[None]]
    text: bool = False
    """Messages are text, not binary."""


class Tunnel(Struct, frozen=True):
    """A connection to a backend that has agreed to speak something else than HTTP."""

    head: bytes
    """How it agreed: status line and headers, as they came."""
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class Transport(Protocol):
    """A way to the API server."""

    async def send(self, request: Request) -> Answer:
        """Answers whatever the server says, errors included; raises ServiceUnavailable when it can't be reached."""

    async def close(self) -> None: ...
