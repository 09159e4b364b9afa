"""The way to an API server over HTTPS: for components that run in a process of their own.

    transport = HTTPSTransport("https://10.0.0.1:6443", client_context(ca, certificate, key))
    client = Client(transport, registry)

Who asks is said by the certificate or the token; `Request.user` does not travel. Connections are kept and shared; a
watch has one of its own.
"""

from __future__ import annotations

import io
import re
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
from yarl import URL

from knarr.api.errors import ServiceUnavailable
from knarr.client.transport import Answer, Request

CONNECTIONS_MAX = 0
"""No limit: each watch holds a connection, and there are as many as informers."""
CONNECT_TIMEOUT_S = 10.0
ANSWER_SILENCE_MAX_S = 70.0
"""A request that is no stream must be answered within this: upstream's servers end theirs after 60 s."""
KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, KEEPALIVE_PROBES = 15, 5, 3
"""A watch only listens: of a server that is gone without a word (power, a cable) it learns by these, within 30 s."""
STREAM_BUFFER_BYTES = 1 << 20
PIECES_FROM_BYTES = 1 << 19

_WARNING = re.compile(r'299 \S+ "((?:[^"\\]|\\.)*)"')


class HTTPSTransport:
    """See knarr.client.transport.Transport."""

    def __init__(self, base_url: str, context: ssl.SSLContext, token: str = "") -> None:
        self._base = URL(base_url)
        self._context = context
        self._headers = {"authorization": f"Bearer {token}"} if token else {}
        self._session: aiohttp.ClientSession | None = None

    async def send(self, request: Request) -> Answer:
        """Raises ServiceUnavailable."""
        streams = request.method == "GET" and any(_says(request.query, name) for name in ("watch", "follow"))
        timeout = aiohttp.ClientTimeout(
            total=None, connect=CONNECT_TIMEOUT_S, sock_read=None if streams else ANSWER_SILENCE_MAX_S
        )
        pairs = [(name, value) for name, value in request.query.items() if name not in request.repeated]
        pairs += [(name, value) for name, values in request.repeated.items() for value in values]
        try:
            response = await self._open().request(
                request.method,
                self._base.with_path(request.path).with_query(pairs),
                data=_sent(request.body),
                headers={**request.headers, **self._headers},
                timeout=timeout,
                allow_redirects=False,
            )
            if streams and response.status == 200:
                return _answer(response, stream=_chunks(response))
            async with response:
                return _answer(response, await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ServiceUnavailable(f"the API server at {self._base} can't be reached: {error}") from error

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=self._context, limit=CONNECTIONS_MAX, socket_factory=kept_alive)
            self._session = aiohttp.ClientSession(
                connector=connector, read_bufsize=STREAM_BUFFER_BYTES, skip_auto_headers=("content-type", "user-agent")
            )
        return self._session


def kept_alive(where: tuple[Any, ...]) -> socket.socket:
    """A socket whose kernel asks now and then whether the other end is still there."""
    family, kind, protocol, *_ = where
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
    return made


def client_context(ca: str, certificate: str = "", key: str = "") -> ssl.SSLContext:
    """Trust a CA, and show a certificate if there is one; all are paths of PEM files."""
    context = ssl.create_default_context(cafile=ca)
    if certificate:
        context.load_cert_chain(certificate, key or None)
    return context


def _sent(body: bytes) -> bytes | io.BytesIO | None:
    """A body as aiohttp wants it: large ones piece by piece."""
    return io.BytesIO(body) if len(body) > PIECES_FROM_BYTES else body or None


async def _chunks(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The body as it comes; the connection is closed when nobody wants more."""
    try:
        async for chunk in response.content.iter_any():
            yield chunk
    except (aiohttp.ClientError, OSError) as error:
        raise ServiceUnavailable(f"the connection to the API server was lost: {error}") from error
    finally:
        response.close()


def _answer(response: aiohttp.ClientResponse, body: bytes = b"", stream: AsyncIterator[bytes] | None = None) -> Answer:
    headers = {name.lower(): value for name, value in response.headers.items()}
    warnings = [
        re.sub(r"\\(.)", r"\1", text)
        for header in response.headers.getall("Warning", [])
        for text in _WARNING.findall(header)
    ]
    return Answer(response.status, headers, body, warnings, stream)


def _says(query: Mapping[str, str], name: str) -> bool:
    return query.get(name, "false").lower() not in ("false", "0")
