"""A node in another process, as the API server reaches it: the kubelet's paths over HTTPS, with a client certificate.

The same shape as a node in this process (knarr.client.nodes.NodeBackend): nothing above can tell which it is. The node
must show a certificate of the cluster's authority for its own name, wherever its address leads.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec
from yarl import URL

from knarr.api.core.v1 import Node, Pod
from knarr.api.errors import APIError, BadRequest, InternalError, NotFound, ServiceUnavailable
from knarr.client.channels import (
    CLOSE,
    COMMAND_SUBPROTOCOLS,
    CONNECTION_SUBPROTOCOL,
    ERROR,
    RESIZE,
    STDERR,
    STDIN,
    carry,
)
from knarr.client.https import kept_alive
from knarr.client.nodes import USAGE_PATH, LogOptions, NodePage, NodeUsage, Streams
from knarr.client.transport import Socket

CONNECT_S_MAX = 5.0
PAGE_S_MAX = 10.0
HEARTBEAT_S = 30.0
MESSAGE_BYTES_MAX = 4 << 20
BY_STATUS: dict[int, type[APIError]] = {400: BadRequest, 404: NotFound, 503: ServiceUnavailable}


class NodeConnections:
    """What connections to all nodes share."""

    def __init__(self, context: ssl.SSLContext) -> None:
        """`context` trusts the cluster's authority, and shows the API server's client certificate."""
        self.context = context
        self._session: aiohttp.ClientSession | None = None

    @property
    def session(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=self.context, limit=0, socket_factory=kept_alive)
            self._session = aiohttp.ClientSession(connector=connector)
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


class RemoteNode:
    """One node. Made anew for each request: the Node object says where it is now."""

    def __init__(self, node: Node, connections: NodeConnections) -> None:
        """Raises ServiceUnavailable for a node that has not said how to reach it."""
        self.name = node.metadata.name or ""
        self._connections = connections
        status = node.status
        endpoints = status.daemon_endpoints if status else None
        port = endpoints.kubelet_endpoint.port if endpoints and endpoints.kubelet_endpoint else 0
        addresses = [each.address for each in (status.addresses if status else ()) if each.type == "InternalIP"]
        if not addresses or not port:
            raise ServiceUnavailable(f"node {self.name} has not said how it can be reached")
        host = f"[{addresses[0]}]" if ":" in addresses[0] else addresses[0]
        self._origin = f"https://{host}:{port}"

    async def logs(self, pod: Pod, options: LogOptions) -> AsyncIterator[bytes]:
        query = {
            "follow": options.follow,
            "previous": options.previous,
            "timestamps": options.timestamps,
            "tailLines": options.tail_lines,
            "limitBytes": options.limit_bytes,
            "sinceTime": _moment(options.since_s),
        }
        url = self._url("containerLogs", *_named(pod), options.container, query=list(query.items()))
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S_MAX)
        try:
            async with self._connections.session.get(url, server_hostname=self.name, timeout=timeout) as response:
                if response.status != 200:
                    raise _fault(response.status, (await response.text())[:4096])
                async for chunk in response.content.iter_any():
                    yield chunk
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._lost(error) from error

    async def exec(self, pod: Pod, container: str, command: Sequence[str], *, tty: bool, stdin: bool) -> Streams:
        query: list[tuple[str, Any]] = [("command", each) for each in command]
        query += [("input", stdin), ("output", True), ("error", not tty), ("tty", tty)]
        return RemoteStreams(await self._socket(self._url("exec", *_identified(pod), container, query=query)))

    async def attach(self, pod: Pod, container: str) -> Streams:
        query = [("input", True), ("output", True), ("error", True)]
        return RemoteStreams(await self._socket(self._url("attach", *_identified(pod), container, query=query)))

    async def port_forward(self, pod: Pod, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        url = self._url("portForward", *_identified(pod), query=[("port", port)])
        opened = await self._socket(url, (CONNECTION_SUBPROTOCOL,))
        fault = await opened.receive()
        if fault is None or fault:
            await opened.close()
            raise InternalError(fault.decode(errors="replace") if fault else f"node {self.name} ended the connection")
        here, there = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=here)
        bridge = asyncio.ensure_future(carry(opened, *await asyncio.open_connection(sock=there)))
        _bridges.add(bridge)
        bridge.add_done_callback(_bridges.discard)
        return reader, writer

    async def usage(self, node: str) -> NodeUsage:
        page = await self.page(node, USAGE_PATH)
        if page.status != 200:
            raise ServiceUnavailable(f"node {self.name} does not tell what it uses: {page.status}")
        try:
            return msgspec.json.decode(page.body, type=NodeUsage)
        except msgspec.MsgspecError as error:
            raise ServiceUnavailable(f"what node {self.name} says of what it uses can't be read: {error}") from None

    async def page(self, node: str, path: str) -> NodePage:
        return await self._page("GET", path)

    async def _page(self, method: str, path: str) -> NodePage:
        timeout = aiohttp.ClientTimeout(total=PAGE_S_MAX, sock_connect=CONNECT_S_MAX)
        url = self._url(*path.strip("/").split("/"))
        try:
            async with self._connections.session.request(
                method, url, server_hostname=self.name, timeout=timeout
            ) as response:
                kind = response.headers.get("content-type", "text/plain")
                return NodePage(await response.read(), kind, response.status)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._lost(error) from error

    async def volume(self, method: str, name: str) -> None:
        """PUT makes the folder of a local volume, DELETE removes it. Raises OSError when the node can't."""
        page = await self._page(method, f"knarr/volumes/{name}")
        if page.status != 200:
            raise OSError(page.body.decode(errors="replace")[:1024])

    async def empty_volumes(self) -> list[str]:
        """Names of the local volumes with nothing in them. Raises OSError when the node can't tell."""
        page = await self._page("GET", "knarr/volumes")
        if page.status != 200:
            raise OSError(page.body.decode(errors="replace")[:1024])
        try:
            return msgspec.json.decode(page.body, type=list[str])
        except msgspec.DecodeError as error:
            raise OSError(f"node {self.name} answered no list: {error}") from error

    def _url(self, *parts: str, query: Sequence[tuple[str, Any]] = ()) -> URL:
        path = "/".join(quote(part, safe="") for part in parts)
        pairs = [(name, _text(value)) for name, value in query if value not in (None, False)]
        return URL(f"{self._origin}/{path}", encoded=True).with_query(pairs)

    async def _socket(self, url: URL, subprotocols: Sequence[str] = COMMAND_SUBPROTOCOLS) -> _WebSocket:
        try:
            async with asyncio.timeout(PAGE_S_MAX):
                opened = await self._connections.session.ws_connect(
                    url,
                    protocols=subprotocols,
                    heartbeat=HEARTBEAT_S,
                    max_msg_size=MESSAGE_BYTES_MAX,
                    server_hostname=self.name,
                )
                return _WebSocket(opened)
        except aiohttp.WSServerHandshakeError as error:
            raise _fault(error.status, f"node {self.name} refused the connection: {error.status}") from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._lost(error) from error

    def _lost(self, error: Exception) -> ServiceUnavailable:
        return ServiceUnavailable(f"node {self.name} can't be reached at {self._origin}: {error or 'it took too long'}")


class RemoteFolders:
    """The folders of local volumes on another node (knarr.node.local_volumes.Folders)."""

    def __init__(self, node: Callable[[], RemoteNode | None], root: str) -> None:
        self._node = node
        self._root = root

    def path(self, name: str) -> str:
        return f"{self._root}/{name}"

    async def make(self, name: str) -> None:
        await self._ask("PUT", name)

    async def remove(self, name: str) -> None:
        await self._ask("DELETE", name)

    async def empty(self) -> list[str]:
        return await self._there().empty_volumes()

    async def _ask(self, method: str, name: str) -> None:
        await self._there().volume(method, name)

    def _there(self) -> RemoteNode:
        node = self._node()
        if node is None:
            raise ServiceUnavailable("the volume's node is gone")
        return node


_bridges: set[asyncio.Future[None]] = set()
"""Held, so that none is collected while it runs."""


class _WebSocket:
    """aiohttp's, as knarr.client.transport.Socket."""

    def __init__(self, opened: aiohttp.ClientWebSocketResponse) -> None:
        self._opened = opened
        self.subprotocol = opened.protocol or ""

    async def send(self, data: bytes) -> None:
        try:
            await self._opened.send_bytes(data)
        except aiohttp.ClientError as error:
            raise ConnectionError(str(error)) from error

    async def receive(self) -> bytes | None:
        message = await self._opened.receive()
        return bytes(message.data) if message.type is aiohttp.WSMsgType.BINARY else None

    async def close(self) -> None:
        await self._opened.close()


class RemoteStreams:
    """An exec or attach session on another node (knarr.client.nodes.Streams)."""

    def __init__(self, opened: Socket) -> None:
        self._socket = opened
        self._ended: bytes | None = None
        """What the node said last: how it ended."""

    async def write(self, data: bytes) -> None:
        await self._send(bytes((STDIN,)) + data)

    async def close_stdin(self) -> None:
        await self._send(bytes((CLOSE, STDIN)))

    async def resize(self, width: int, height: int) -> None:
        await self._send(bytes((RESIZE,)) + msgspec.json.encode({"Width": width, "Height": height}))

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        while (message := await self._socket.receive()) is not None:
            if message[:1] == bytes((ERROR,)):
                self._ended = message[1:]
                return
            if message and STDIN < message[0] <= STDERR:
                yield message[0], message[1:]

    async def exit_code(self) -> int:
        """Raises APIError where the session could not begin, or its end was not told."""
        if self._ended is None:
            raise InternalError("the connection to the node was lost")
        return exit_code_of(self._ended)

    async def close(self) -> None:
        await self._socket.close()

    async def _send(self, message: bytes) -> None:
        try:
            await self._socket.send(message)
        except ConnectionError:
            pass  # It has ended; what it said last is yet to be read.


def exit_code_of(status: bytes) -> int:
    """Of a Status as the channel protocol has it. Raises the error that it is, where it is no exit code."""
    try:
        told = msgspec.json.decode(status)
        if told.get("status") == "Success":
            return 0
        if told.get("reason") == "NonZeroExitCode":
            return int(next(each["message"] for each in told["details"]["causes"] if each["reason"] == "ExitCode"))
        fault = APIError.from_status(told)
    except (msgspec.DecodeError, AttributeError, KeyError, TypeError, ValueError, StopIteration):
        raise InternalError("the node's answer can't be read") from None
    raise fault


def _named(pod: Pod) -> tuple[str, str]:
    return pod.metadata.namespace or "", pod.metadata.name or ""


def _identified(pod: Pod) -> tuple[str, str, str]:
    return *_named(pod), pod.metadata.uid or ""


def _moment(at_s: float | None) -> str | None:
    return None if at_s is None else datetime.fromtimestamp(at_s, UTC).isoformat()


def _text(value: object) -> str:
    return "1" if value is True else str(value)


def _fault(status: int, text: str) -> APIError:
    return BY_STATUS.get(status, InternalError)(text.strip() or f"the node answered {status}")
