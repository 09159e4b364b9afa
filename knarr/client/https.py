"""The API over HTTPS: for components that don't run in the API server's process.

What it raises and answers is what the in-process transport does; `tests/apiserver` runs the same tests over both.
"""

from __future__ import annotations

import io
import ssl
from collections.abc import AsyncIterator
from urllib.parse import urlencode

import aiohttp
from yarl import URL

from knarr.api.errors import ServiceUnavailable
from knarr.client.transport import Answer, Request

CONNECTIONS_MAX = 256
"""Open at once: each watch holds one."""
CONNECT_S_MAX = 10.0
CHUNK_BYTES = 64 << 10


class HTTPSTransport:
    """Requests to the API server at `base_url`, as the client certificate of `context` or the bearer token says."""

    def __init__(self, base_url: str, context: ssl.SSLContext, token: str = "") -> None:
        self._base_url = base_url.rstrip("/")
        self._headers = {"authorization": f"Bearer {token}"} if token else {}
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context, limit=CONNECTIONS_MAX),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S_MAX),
            read_bufsize=1 << 20,
        )

    async def send(self, request: Request) -> Answer:
        query = urlencode(request.repeated or request.query, doseq=True)
        url = URL(f"{self._base_url}{request.path}{'?' + query if query else ''}", encoded=True)
        headers = {**request.headers, **self._headers}
        body = io.BytesIO(request.body) if request.body else None  # written in pieces, however large
        try:
            response = await self._session.request(request.method, url, headers=headers, data=body)
            if request.query.get("watch") == "true" and response.status == 200:
                return Answer(response.status, dict(response.headers), stream=_chunks(response))
            answered = await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ServiceUnavailable(f"{self._base_url} can't be reached: {error}") from error
        return Answer(response.status, dict(response.headers), answered, response.headers.getall("warning", []))

    async def close(self) -> None:
        await self._session.close()


async def _chunks(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """A watch's bytes as they come; it ends when the server does, or the connection breaks."""
    try:
        async for chunk in response.content.iter_any():
            yield chunk
    except (aiohttp.ClientError, OSError) as error:
        raise ServiceUnavailable(f"the watch broke: {error}") from error
    finally:
        response.close()


def client_context(ca_path: str, certificate_path: str = "", key_path: str = "") -> ssl.SSLContext:
    """Trust a cluster's CA, and show a client certificate if there is one."""
    context = ssl.create_default_context(cafile=ca_path)
    if certificate_path:
        context.load_cert_chain(certificate_path, key_path)
    return context
