"""The API server on a TLS socket: HTTP requests become `Request`s, `Answer`s become responses.

One low-level handler, no router and no middleware: the path is taken apart once, by the API server itself. A client
certificate that our CA signed names the user; it is read once a connection.
"""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
from collections.abc import AsyncIterator, Coroutine
from contextlib import aclosing
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import parse_qsl, unquote

from aiohttp import HttpVersion11, WSMsgType, web
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from knarr.api.errors import APIError, BadRequest, TooLarge
from knarr.apiserver import impersonate, tunnel
from knarr.apiserver.answers import JSON_HEADERS, failure
from knarr.apiserver.authenticate import user_of_certificate
from knarr.apiserver.flow import timed_out
from knarr.apiserver.forms import takes_gzip
from knarr.apiserver.requests import resource_path
from knarr.apiserver.server import BODY_MAX_BYTES, APIServer
from knarr.client.transport import Answer, Request, Upgrade, User
from knarr.pki import KeyPair

BACKLOG = 1024
"""Connections that may wait to be accepted."""
HEADER_MAX_BYTES = 64 << 10
"""Of one header line."""
HEADERS_MAX_BYTES = 1 << 20
"""Of all headers of a request, as upstream."""
HEADERS_MAX = HEADERS_MAX_BYTES // 64
"""How many headers a request may have: what each of them takes here is more than the shortest takes on the wire."""
HEADERS_MAX_S = 32.0
"""How long a client may take to send the headers of a request, once it has begun (upstream's ReadHeaderTimeout)."""
BODY_MAX_S = 60.0
"""How long it may take to send the body."""
GZIP_MIN_BYTES = 128 << 10
"""Longer answers are compressed for those who accept it (KEP-156)."""
DRAINED_FROM_BYTES = 64 << 10
"""An answer of this size is waited for until the client has taken most of it."""
STALLED_MAX_S = 60.0
"""How long a watch waits for a client that does not read; then the connection is closed."""
SHUTDOWN_S = 10.0
"""How long running requests may take to end when the server stops."""
FAULT_MAX = 200
"""Characters of what was wrong with a request that was no HTTP."""
MESSAGE_MAX_BYTES = 4 << 20
"""Of one WebSocket message."""


class Listener:
    """Serves an API server at an address."""

    def __init__(self, server: APIServer, context: ssl.SSLContext, host: str, port: int) -> None:
        self._server = server
        self._clock = server.clock
        self._context = context
        self._host = host
        self._port = port
        self._http = _Connections(
            cast(Any, self._handle),
            request_factory=self._request,
            handler_cancellation=True,
            access_log=None,
            keepalive_timeout=3630,
            max_line_size=HEADER_MAX_BYTES,
            max_field_size=HEADER_MAX_BYTES,
            max_headers=HEADERS_MAX,
            auto_decompress=False,  # as upstream: a body comes as it is
        )
        self._listening: asyncio.Server | None = None
        self._streams: set[asyncio.Task[Any]] = set()
        self._stopping = False

    async def start(self) -> int:
        """Listen; answers the port. Raises OSError."""
        loop = asyncio.get_running_loop()
        where: dict[str, Any] = {"host": self._host, "port": self._port, "reuse_address": True}
        if self._host == "::":
            # Every address, as for servers written in Go; by itself asyncio leaves IPv4 out.
            both = socket.create_server(("::", self._port), family=socket.AF_INET6, dualstack_ipv6=True)
            where = {"sock": both}
        self._listening = await loop.create_server(self._http, ssl=self._context, backlog=BACKLOG, **where)
        port: int = self._listening.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        """Be ready no more, stop listening, end the streams as if their time were over, let short requests finish.

        Idle connections are closed at once, the others with the answer that they wait for.
        """
        self._server.stop()
        self._stopping = True
        if self._listening:
            self._listening.close()
        for task in tuple(self._streams):
            task.cancel()
        self._http.pre_shutdown()  # or idle connections would be waited for as if they were at work
        await self._http.shutdown(SHUTDOWN_S)

    def _request(
        self, message: Any, payload: Any, protocol: RequestHandler, writer: Any, task: asyncio.Task[None]
    ) -> web.BaseRequest:
        loop = asyncio.get_running_loop()
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=BODY_MAX_BYTES + 1)

    async def _handle(self, incoming: web.BaseRequest) -> web.StreamResponse:
        try:
            request = await self._read(incoming)
        except APIError as error:
            return _plain(failure(error))
        answer = await self._server.handle_from_outside(request)
        if answer.upgrade:
            return await self._upgrade(incoming, answer.upgrade)
        if answer.tunnel:
            await self._until_closed(tunnel.carry(incoming, answer.tunnel))
            return ENDED
        if answer.stream is not None:
            return await self._stream(incoming, answer, answer.stream)
        if incoming.method == "HEAD":
            answer.body = b""
        elif "content-encoding" in answer.headers:
            pass  # Compressed already.
        elif len(answer.body) > GZIP_MIN_BYTES and takes_gzip(incoming.headers.get("accept-encoding", "")):
            answer.body = await asyncio.to_thread(gzip.compress, answer.body, 1)
            vary = filter(None, (answer.headers.get("vary"), "Accept-Encoding"))
            answer.headers |= {"content-encoding": "gzip", "vary": ", ".join(vary)}
        if answer.headers == JSON_HEADERS and not answer.warnings and incoming.keep_alive and not self._stopping:
            return await _written(answer, incoming)
        response = _plain(answer)
        if self._stopping:
            response.force_close()
        return response

    async def _read(self, incoming: web.BaseRequest) -> Request:
        path, _, text = incoming.raw_path.partition("?")
        repeated: dict[str, list[str]] = {}
        if text:
            try:
                pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=1000)
            except ValueError as error:
                raise BadRequest(f"the query of the request can't be read: {error}") from None
            for name, value in pairs:
                repeated.setdefault(name, []).append(value)
        query = {name: values[0] for name, values in repeated.items()}
        if "%" in path:
            path = unquote(path)
        body, rest = b"", None
        proxied = "/proxy" in path and _is_proxied(path)
        if incoming.body_exists and proxied:
            rest = incoming.content.iter_any()
        elif incoming.body_exists and incoming.content.is_eof():
            body = incoming.content.read_nowait()  # it is here already, as mostly
            if len(body) > BODY_MAX_BYTES:
                raise _too_large()
        elif incoming.body_exists:
            try:
                async with self._clock.timeout(BODY_MAX_S):
                    body = await incoming.read()
            except TimeoutError:
                raise timed_out() from None
            except web.HTTPRequestEntityTooLarge:
                raise _too_large() from None
        headers = {name.lower(): value for name, value in incoming.headers.items()}
        if len(headers) != len(incoming.headers):
            _join_impersonated(headers, incoming)
        peer = (incoming.remote or "") if proxied else ""
        return Request(incoming.method, path, query, headers, body, _user_of(incoming), repeated, rest, peer)

    async def _stream(
        self, incoming: web.BaseRequest, answer: Answer, chunks: AsyncIterator[bytes]
    ) -> web.StreamResponse:
        headers = {**answer.headers, **(answer.flow.headers if answer.flow else {})}
        response = web.StreamResponse(status=answer.status, headers=headers)
        response.enable_chunked_encoding()

        async def carry() -> None:
            async with aclosing(cast(Any, chunks)):
                async for chunk in chunks:
                    await self._write_chunk(incoming, chunk)

        try:
            await response.prepare(incoming)
            await self._until_closed(carry())
            await response.write_eof()
        except ConnectionError:
            if incoming.transport is not None:
                # The client has gone; or what it is sent has broken off, and then it must not take that for the end.
                incoming.transport.abort()
        return response

    async def _write_chunk(self, incoming: web.BaseRequest, chunk: bytes) -> None:
        """In one piece. Raises ConnectionError when the client has gone, or has not read for long."""
        transport = incoming.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has gone")
        transport.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        if not incoming.protocol.writing_paused:
            return
        try:
            async with self._clock.timeout(STALLED_MAX_S if "watch" in incoming.query else None):
                await incoming.writer.drain()
        except TimeoutError:
            transport.abort()
            raise ConnectionResetError(f"the client has read nothing for {STALLED_MAX_S} s") from None

    async def _until_closed(self, work: Coroutine[Any, Any, None]) -> None:
        """Work to its end, or until `close` ends it: the client then sees an orderly end of what it was sent."""
        task = asyncio.ensure_future(work)
        self._streams.add(task)
        try:
            await asyncio.wait([task])
        finally:
            self._streams.discard(task)
            task.cancel()
        if not task.cancelled():
            await task

    async def _upgrade(self, incoming: web.BaseRequest, upgrade: Upgrade) -> web.StreamResponse:
        response = web.WebSocketResponse(protocols=upgrade.subprotocols, max_msg_size=MESSAGE_MAX_BYTES, heartbeat=30)
        if not response.can_prepare(incoming):
            return _plain(failure(BadRequest("Upgrade request required: this must be a WebSocket")))
        await response.prepare(incoming)
        try:
            await self._until_closed(_served(upgrade, _WebSocket(response, text=upgrade.text)))
        except* ConnectionError:
            pass  # The client has gone.
        finally:
            await response.close()
        return response


async def _served(upgrade: Upgrade, stream: _WebSocket) -> None:
    await upgrade.serve(stream)


class _Connection(RequestHandler):
    """A connection that knows whom its certificate names."""

    __slots__ = ("_has_begun", "_head_bytes", "_head_deadline", "user")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._has_begun = False
        self._head_bytes = 0
        self._head_deadline: asyncio.TimerHandle | None = None
        self._await_head()
        session = transport.get_extra_info("ssl_object")
        certificate = session.getpeercert() if session else None
        self.user = user_of_certificate(certificate) if certificate else None

    def connection_lost(self, exc: BaseException | None) -> None:
        self._head_came()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bound the size and the time of a request's head. Until the next one is awaited, what comes is the body of the
        last, also of one that is answered already (413) and whose client sends the rest."""
        if self._messages or self._upgraded or (self._has_begun and self._waiter is None):
            super().data_received(data)
            return
        self._head_bytes += len(data)
        if self._head_bytes > HEADERS_MAX_BYTES:
            self._refuse_head()
            return
        super().data_received(data)
        if self._messages:
            self._has_begun = True
            self._head_came()
        elif self._head_deadline is None:
            self._await_head()

    def _await_head(self) -> None:
        self._head_deadline = asyncio.get_running_loop().call_later(HEADERS_MAX_S, self._cut_off)

    def _cut_off(self) -> None:
        """At once: to close in order would wait for a client that keeps others waiting."""
        if self.transport:
            self.transport.abort()
        self.force_close()

    def _head_came(self) -> None:
        self._head_bytes = 0
        if self._head_deadline:
            self._head_deadline.cancel()
            self._head_deadline = None

    def _refuse_head(self) -> None:
        """The parser holds no message yet, so nothing answers but this."""
        body = failure(HeadersTooLarge(f"the headers are longer than {HEADERS_MAX_BYTES} bytes")).body
        head = (
            "HTTP/1.1 431 Request Header Fields Too Large\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        if self.transport:
            self.transport.write(head.encode() + body)
        self._head_came()
        self.force_close()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """The answer to what is no HTTP, or has too long a header: a Status too. A 500 is aiohttp's, and logged."""
        if status >= 500 or request.writer.output_size > 0:
            return super().handle_error(request, status, exc, message)
        found = " ".join(getattr(exc, "message", "").split())  # The parser draws the place, in several lines.
        error: APIError = BadRequest(f"the request is no HTTP/1.1: {found[:FAULT_MAX]}")
        if isinstance(exc, LineTooLong):
            error = HeadersTooLarge(f"a header is longer than {HEADER_MAX_BYTES} bytes")
        elif found.startswith("Too many headers"):
            error = HeadersTooLarge(f"there are more than {HEADERS_MAX} headers")
        response = _plain(failure(error))
        response.force_close()
        return response


class HeadersTooLarge(APIError):
    code, reason = 431, "RequestHeaderFieldsTooLarge"


class _Connections(web.Server):
    """Makes a `_Connection` for each client."""

    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


def _too_large() -> APIError:
    return TooLarge(f"Request entity too large: limit is {BODY_MAX_BYTES}")


def _is_proxied(path: str) -> bool:
    named = resource_path(path)
    return named is not None and named.subresource == "proxy"


def _user_of(incoming: web.BaseRequest) -> User | None:
    return cast(_Connection, incoming.protocol).user


def _join_impersonated(headers: dict[str, str], incoming: web.BaseRequest) -> None:
    """Headers that may come more than once, each with a value of its own; of others the last is taken."""
    for name in headers:
        if name.startswith(impersonate.PREFIX):
            headers[name] = impersonate.SEPARATOR.join(incoming.headers.getall(name))


class _WebSocket:
    """See knarr.client.transport.Socket."""

    def __init__(self, response: web.WebSocketResponse, *, text: bool = False) -> None:
        self._response = response
        self._text = text
        self.subprotocol = response.ws_protocol or ""

    async def send(self, data: bytes) -> None:
        if self._text:
            await self._response.send_str(data.decode())
        else:
            await self._response.send_bytes(data)

    async def receive(self) -> bytes | None:
        message = await self._response.receive()
        if message.type is WSMsgType.BINARY:
            return cast(bytes, message.data)
        if message.type is WSMsgType.TEXT:
            return cast(str, message.data).encode()
        return None

    async def close(self) -> None:
        await self._response.close()


class _Written(web.Response):
    """An answer that is on its way already."""

    async def prepare(self, request: web.BaseRequest) -> None: ...

    async def write_eof(self, data: bytes = b"") -> None: ...

    @property
    def keep_alive(self) -> bool:
        return True


class _Ended(_Written):
    """After a tunnel there is nothing more to say on this connection."""

    @property
    def keep_alive(self) -> bool:
        return False


async def _written(answer: Answer, incoming: web.BaseRequest) -> web.StreamResponse:
    """Write an answer as nearly all are, in one piece: that is a tenth of the cost of a GET less than aiohttp's way."""
    transport = incoming.transport
    if incoming.version == HttpVersion11 and transport is not None:
        size = len(answer.body)
        flow = answer.flow.lines if answer.flow else b""
        phrase, now = PHRASES.get(answer.status, b""), rfc822_formatted_time().encode()
        head = JSON_HEAD % (answer.status, phrase, size, flow, now)
        if size < DRAINED_FROM_BYTES:
            transport.write(head + answer.body)
        else:
            transport.write(head)
            transport.write(answer.body)
            await incoming.writer.drain()
        return WRITTEN
    return _plain(answer)


JSON_HEAD = b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%bdate: %b\r\n\r\n"
PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}
WRITTEN = _Written()
ENDED = _Ended()


def _plain(answer: Answer) -> web.Response:
    response = web.Response(status=answer.status, body=answer.body, headers=answer.headers)
    for warning in answer.warnings:
        text = "".join(each if each.isprintable() else " " for each in warning)
        text = text.replace("\\", "\\\\").replace('"', '\\"')
        response.headers.add("Warning", f'299 - "{text}"')
    if answer.flow:
        response.headers.update(answer.flow.headers)
    return response


def tls_context(serving: KeyPair, client_ca: KeyPair) -> ssl.SSLContext:
    """Serve with a certificate; ask clients for theirs, and accept those without (they need a token)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(serving.certificate_path, serving.key_path)
    context.load_verify_locations(client_ca.certificate_path)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.set_alpn_protocols(["http/1.1"])
    return context
