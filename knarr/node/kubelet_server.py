"""What this node serves to the API server, when that is another process: upstream's kubelet paths, over HTTPS.

    GET /containerLogs/<namespace>/<pod>/<container>           a log; follow, previous, tailLines, sinceSeconds, …
    GET /exec/<namespace>/<pod>/<container>?command=…          WebSocket, as /attach (channels.py); input, tty
    GET /portForward/<namespace>/<pod>?port=…                  WebSocket, likewise
    GET /pods, /stats/summary, /metrics, /metrics/resource, /healthz
    GET /knarr/usage                                           what is used, as the API server itself wants it
    PUT, DELETE /knarr/volumes/<name>                          the folder of a volume of the class `local`
    GET /knarr/volumes                                         which of them have nothing in them

With a pod's uid after its name it is that very pod. It shows a certificate that the cluster's authority signed for this
node (kubernetes.io/kubelet-serving), and asks the API server who may come (`kubelet_access`).
"""

from __future__ import annotations

import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from knarr.api.core.v1 import Pod
from knarr.api.errors import APIError, BadRequest, NotFound
from knarr.client.channels import (
    COMMAND_SUBPROTOCOLS,
    CONNECTION_SUBPROTOCOL,
    PORT_SUBPROTOCOL,
    serve_command,
    serve_connection,
    serve_ports,
)
from knarr.client.nodes import USAGE_PATH, LogOptions, NodeBackend, Streams
from knarr.client.transport import Socket
from knarr.clock import Clock
from knarr.node.kubelet_access import KubeletAccess, Refusal
from knarr.node.local_volumes import Folders

if TYPE_CHECKING:
    from aiohttp import web


VOLUME_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
"""A name of an object: no path."""
MESSAGE_BYTES_MAX = 4 << 20
HEARTBEAT_S = 30.0
"""A WebSocket whose other end answers no ping for so long is given up."""
END_S_MAX = 1.0

Pods = Callable[[], Sequence[Pod]]


class KubeletServer:
    """The server of one node; `start` needs its certificate."""

    def __init__(
        self,
        backend: NodeBackend,
        pods: Pods,
        access: KubeletAccess,
        clock: Clock,
        node_name: str,
        folders: Folders | None = None,
    ) -> None:
        self._backend = backend
        self._pods = pods
        self._access = access
        self._clock = clock
        self._node_name = node_name
        self._folders = folders
        self._runner: web.AppRunner | None = None
        self._context: ssl.SSLContext | None = None

    async def start(self, host: str | None, port: int, ca: Path, certificate: Path, key: Path) -> int:
        """Answers the port; `host` None listens at every address."""
        from aiohttp import web

        context = self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_verify_locations(ca)
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_cert_chain(certificate, key)
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=END_S_MAX)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, ssl_context=context)
        await site.start()
        return int(self._runner.addresses[0][1])

    def renewed(self, certificate: Path, key: Path) -> None:
        """New connections show the new certificate."""
        if self._context:
            self._context.load_cert_chain(certificate, key)

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        from aiohttp import web

        try:
            await self._access.check(
                _certificate(request), request.headers.get("Authorization", ""), request.method, request.path
            )
            return await self._serve(request)
        except Refusal as refusal:
            return web.Response(status=refusal.status, text=str(refusal))
        except APIError as error:
            return web.Response(status=error.code, text=str(error))

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        from aiohttp import web

        first, *parts = request.path.strip("/").split("/")
        if (first, parts, request.method) == ("knarr", ["volumes"], "GET") and self._folders is not None:
            return web.Response(body=msgspec.json.encode(await self._folders.empty()))
        if (first, parts[:1], len(parts)) == ("knarr", ["volumes"], 2) and self._folders is not None:
            return await self._folder(request.method, parts[1], self._folders)
        if request.method not in ("GET", "POST"):
            return web.Response(status=405, text="405: Method Not Allowed")
        match first, parts:
            case "containerLogs", [namespace, name, container]:
                return await self._logs(request, self._pod(namespace, name), container)
            case (("exec" | "attach"), [namespace, name, *uid, container]) if len(uid) < 2:
                return await self._command(request, first, self._pod(namespace, name, *uid), container)
            case "portForward", [namespace, name, *uid] if len(uid) < 2:
                return await self._ports(request, self._pod(namespace, name, *uid))
        if request.path == USAGE_PATH:
            return web.Response(body=msgspec.json.encode(await self._backend.usage(self._node_name)))
        page = await self._backend.page(self._node_name, request.path)
        return web.Response(status=page.status, body=page.body, headers={"content-type": page.content_type})

    async def _folder(self, method: str, name: str, folders: Folders) -> web.StreamResponse:
        from aiohttp import web

        if VOLUME_NAME.fullmatch(name) is None or method not in ("PUT", "DELETE"):
            raise BadRequest(f"{method} of {name!r}: volumes are made by PUT and removed by DELETE")
        try:
            await (folders.make(name) if method == "PUT" else folders.remove(name))
        except OSError as error:
            return web.Response(status=500, text=str(error))
        return web.Response(text=folders.path(name))

    def _pod(self, namespace: str, name: str, uid: str = "") -> Pod:
        for pod in self._pods():
            metadata = pod.metadata
            if (metadata.namespace, metadata.name) == (namespace, name) and uid in ("", metadata.uid):
                return pod
        raise NotFound(f'pod "{name}" does not exist on this node')

    async def _logs(self, request: web.Request, pod: Pod, container: str) -> web.StreamResponse:
        from aiohttp import web

        options = log_options(request.query, container, self._clock)
        chunks = self._backend.logs(pod, options).__aiter__()
        # The first piece is awaited before anything is said: what goes wrong has a status then.
        head = b"" if options.follow else await anext(chunks, b"")
        response = web.StreamResponse(headers={"content-type": "text/plain"})
        await response.prepare(request)
        try:
            await response.write(head)
            async for chunk in chunks:
                await response.write(chunk)
            await response.write_eof()
        except ConnectionError:
            pass  # Nobody reads any more.
        finally:
            await _close(chunks)
        return response

    async def _command(self, request: web.Request, what: str, pod: Pod, container: str) -> web.StreamResponse:
        query = request.query
        command = query.getall("command", [])
        if what == "exec" and not command:
            raise BadRequest("you must specify at least 1 command")
        tty, stdin = _flag(query, "tty"), _flag(query, "input")
        begin: Callable[[], Awaitable[Streams]] = (
            partial(self._backend.exec, pod, container, command, tty=tty, stdin=stdin)
            if what == "exec"
            else partial(self._backend.attach, pod, container)
        )
        return await _upgraded(
            request,
            COMMAND_SUBPROTOCOLS,
            lambda socket: serve_command(socket, begin, reports_exit=what == "exec"),
        )

    async def _ports(self, request: web.Request, pod: Pod) -> web.StreamResponse:
        asked = [port for value in request.query.getall("port", []) for port in value.split(",")]
        if not asked or not all(port.isdecimal() and 0 < int(port) < 65536 for port in asked):
            raise BadRequest('query parameter "port" must name ports')

        def fault(port: int, error: Exception) -> bytes:
            return str(error).encode()

        connect, ports = partial(self._backend.port_forward, pod), [int(each) for each in asked]

        async def serve(socket: Socket) -> None:
            if socket.subprotocol == CONNECTION_SUBPROTOCOL:
                await serve_connection(socket, partial(connect, ports[0]))
            else:
                await serve_ports(socket, ports, connect, fault)

        return await _upgraded(request, (CONNECTION_SUBPROTOCOL, PORT_SUBPROTOCOL), serve)


class _WebSocket:
    """aiohttp's, as knarr.client.transport.Socket."""

    def __init__(self, socket: web.WebSocketResponse) -> None:
        self._socket = socket
        self.subprotocol = socket.ws_protocol or ""

    async def send(self, data: bytes) -> None:
        await self._socket.send_bytes(data)

    async def receive(self) -> bytes | None:
        from aiohttp import WSMsgType

        message = await self._socket.receive()
        if message.type is WSMsgType.BINARY:
            return bytes(message.data)
        return str(message.data).encode() if message.type is WSMsgType.TEXT else None

    async def close(self) -> None:
        await self._socket.close()


async def _upgraded(
    request: web.Request, subprotocols: Sequence[str], serve: Callable[[Socket], Awaitable[None]]
) -> web.StreamResponse:
    from aiohttp import web

    socket = web.WebSocketResponse(protocols=subprotocols, heartbeat=HEARTBEAT_S, max_msg_size=MESSAGE_BYTES_MAX)
    if not socket.can_prepare(request).ok:
        raise BadRequest("Upgrade request required: this must be a WebSocket")
    await socket.prepare(request)
    try:
        await serve(_WebSocket(socket))
    except* ConnectionError:
        pass  # The other end is gone.
    await socket.close()
    return socket


def log_options(query: Mapping[str, str], container: str, clock: Clock) -> LogOptions:
    """Raises BadRequest."""
    since_s: float | None = None
    if seconds := _number(query, "sinceSeconds"):
        since_s = clock.time_s() - seconds
    if since := query.get("sinceTime"):
        try:
            since_s = datetime.fromisoformat(since).timestamp()
        except ValueError:
            raise BadRequest(f'sinceTime: invalid value "{since}": must be an RFC 3339 time') from None
    return LogOptions(
        container=container,
        follow=_flag(query, "follow"),
        previous=_flag(query, "previous"),
        tail_lines=_number(query, "tailLines"),
        since_s=since_s,
        timestamps=_flag(query, "timestamps"),
        limit_bytes=_number(query, "limitBytes"),
    )


def _flag(query: Mapping[str, str], name: str) -> bool:
    return query.get(name, "") in ("1", "true", "True")


def _number(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name)
    if text is None:
        return None
    if not text.isdecimal() or len(text) > 18:
        raise BadRequest(f"{name}: must be a number, not {text!r}")
    return int(text)


def _certificate(request: web.Request) -> dict[str, Any] | None:
    """What the caller has shown; None without."""
    found = request.transport.get_extra_info("ssl_object") if request.transport else None
    return (found.getpeercert() or None) if found else None


async def _close(chunks: AsyncIterator[bytes]) -> None:
    close = getattr(chunks, "aclose", None)
    if close is not None:
        await close()
