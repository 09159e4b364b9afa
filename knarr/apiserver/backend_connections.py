"""HTTPS to the Services that serve parts of the API: whom they are shown as asking, and how they are known.

A backend's certificate must be for <service>.<namespace>.svc and signed by the APIService's caBundle. It knows the API
server by the client certificate front-proxy-client, and the user by the headers X-Remote-User, -Uid, -Group and
-Extra-<key>, of which it believes nobody else's (upstream's kube-aggregator, handler_proxy; "Configure the aggregation
layer"). What the client itself says under these names, and what it showed to the API server, stays here.
"""

from __future__ import annotations

import ssl
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote, urlencode

from knarr.api.apiregistration.v1 import APIService, ServiceReference
from knarr.apiserver import tunnel
from knarr.apiserver.forwarding import CONNECT_S, HOP_BY_HOP, OURS, PATH_SAFE, Address
from knarr.client.transport import Answer, Request, User
from knarr.clock import Clock
from knarr.pki import KeyPair

if TYPE_CHECKING:
    import aiohttp

SILENCE_MAX_S = 60.0
"""How long a backend may say nothing; one that is watched may as long as it likes."""
CONTEXTS_MAX = 64
"""Trusts that are kept made up: one for each backend."""
READ_WHOLE_MAX_BYTES = 1 << 20
"""An answer up to this size is taken whole; longer ones are passed on as they come."""
NOT_PASSED_ON = HOP_BY_HOP | OURS
"""Of one connection only (RFC 9110, section 7.6.1), or shown to the API server only."""
API_SERVERS = ("impersonate-", "x-remote-")
"""Beginnings of names of headers that only the API server may set, or that are for it alone."""
TOKEN = "!#$&'*+-.^_`|~"
"""What a header's name may have besides letters and digits, but the percent sign that escapes."""
TEXT = {"content-type": "text/plain; charset=utf-8", "x-content-type-options": "nosniff"}
REDIRECTED = "the backend attempted to redirect this request, which is not permitted"


class Place(Address, frozen=True):
    """Where a backend is, and as whom it must show itself."""

    service: APIService

    @property
    def reference(self) -> ServiceReference:
        assert self.service.spec
        assert self.service.spec.service
        return self.service.spec.service

    @property
    def name(self) -> str:
        return f"{self.reference.name}.{self.reference.namespace}.svc"


class Unreachable(Exception):
    """A backend that could not be asked, and why."""


class BackendConnections:
    """Connections to all backends."""

    def __init__(self, clock: Clock, certificate: KeyPair | None) -> None:
        self._clock = clock
        self._certificate = certificate
        self._contexts: OrderedDict[tuple[str, bytes, bool], ssl.SSLContext] = OrderedDict()
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Let go of them."""
        if self._session is not None:
            await self._session.close()

    async def ask(self, place: Place, request: Request, user: User, *, lasting: bool) -> Answer:
        """What a backend answers to a request of `user`. Raises Unreachable."""
        import aiohttp
        from multidict import CIMultiDict
        from yarl import URL

        silence_s = None if lasting else SILENCE_MAX_S
        try:
            answer = await self._open().request(
                request.method,
                URL(f"https://{place.authority}{target_of(request)}", encoded=True),
                data=request.body or None,
                headers=CIMultiDict(headers_for(place, request, user)),
                allow_redirects=False,
                ssl=self._trust(place),
                server_hostname=place.name,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=silence_s),
            )
            return await _passed_on(answer, request.method, lasting=lasting)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise Unreachable(str(error) or type(error).__name__) from None

    async def told(self, place: Place, path: str, user: User) -> tuple[int, bytes]:
        """Status and body of what a backend says of itself: all of it, as long as it is no longer than
        READ_WHOLE_MAX_BYTES. Raises Unreachable."""
        request = Request("GET", path, headers={"accept": "application/json"})
        answer = await self.ask(place, request, user, lasting=False)
        if answer.stream is not None:
            async with aclosing(cast(Any, answer.stream)) as stream:
                await anext(stream)  # Only what has begun can be ended.
            raise Unreachable(f"the answer is longer than {READ_WHOLE_MAX_BYTES} bytes")
        return answer.status, answer.body

    async def upgrade(self, place: Place, request: Request, user: User) -> Answer:
        """As `ask`, for a request that wants to speak something else from then on (exec, port-forward). Raises
        Unreachable."""
        try:
            asked = _asked(place, request, user)
            return await tunnel.opened(self._clock, place, asked, self._trust(place), place.name)
        except tunnel.FAULTS as error:
            raise Unreachable(str(error) or type(error).__name__) from None

    def _open(self) -> aiohttp.ClientSession:
        import aiohttp

        if self._session is None:
            self._session = aiohttp.ClientSession(
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                connector=aiohttp.TCPConnector(limit=0),
                skip_auto_headers=("accept", "accept-encoding", "content-type", "user-agent"),
            )
        return self._session

    def _trust(self, place: Place) -> ssl.SSLContext:
        """By what a backend is known; one of its own for each name, so that connections are never mixed up. Raises
        ValueError."""
        spec = place.service.spec
        assert spec
        bundle, insecure = spec.ca_bundle or b"", bool(spec.insecure_skip_tls_verify)
        key = place.name, bundle, insecure
        if key in self._contexts:
            self._contexts.move_to_end(key)
            return self._contexts[key]
        context = _context(bundle, insecure=insecure)
        if self._certificate is not None:
            context.load_cert_chain(self._certificate.certificate_path, self._certificate.key_path)
        self._contexts[key] = context
        if len(self._contexts) > CONTEXTS_MAX:
            self._contexts.popitem(last=False)
        return context


def _context(bundle: bytes, *, insecure: bool) -> ssl.SSLContext:
    """Raises ValueError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif bundle:
        try:
            context.load_verify_locations(cadata=bundle.decode("ascii"))
        except (ssl.SSLError, ValueError):
            fault = "unable to load root certificates: unable to parse bytes as PEM block"
            raise ValueError(fault) from None
    else:
        context.load_default_certs()
    return context


def target_of(request: Request) -> str:
    """Path and query, written."""
    pairs = [(name, value) for name, value in request.query.items() if name not in request.repeated]
    pairs += [(name, value) for name, values in request.repeated.items() for value in values]
    query = f"?{urlencode(pairs, errors='replace')}" if pairs else ""
    return quote(request.path, safe=PATH_SAFE, errors="replace") + query


def headers_for(place: Place, request: Request, user: User) -> Iterator[tuple[str, str]]:
    """The client's, but those that are not for a backend, and who the user is."""
    yield "host", place.name
    for name, value in request.headers.items():
        if name not in NOT_PASSED_ON and not name.startswith(API_SERVERS):
            yield name, _text(value)
    yield "x-forwarded-host", _text(request.headers.get("host", ""))
    yield "x-forwarded-proto", "https"
    yield "x-forwarded-uri", quote(request.path, safe=PATH_SAFE, errors="replace")
    yield from user_headers(user)


def _text(value: str) -> str:
    """What a client sent, as far as it is text: bytes that are none have come as halves of characters."""
    return value.encode(errors="replace").decode()


def user_headers(user: User) -> Iterator[tuple[str, str]]:
    yield "x-remote-user", user.name
    if user.uid:
        yield "x-remote-uid", user.uid
    for group in user.groups:
        yield "x-remote-group", group
    for key, values in user.extra.items():
        for value in values:
            yield f"x-remote-extra-{quote(key, safe=TOKEN)}", value


async def _passed_on(answer: aiohttp.ClientResponse, method: str, *, lasting: bool) -> Answer:
    if 300 <= answer.status < 400 and "location" in answer.headers:
        answer.close()
        return Answer(502, dict(TEXT), REDIRECTED.encode())
    headers: dict[str, str] = {}
    for name, value in answer.headers.items():
        if (name := name.lower()) not in NOT_PASSED_ON:
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
    if method == "HEAD" or answer.status in (204, 304):
        answer.release()
        return Answer(answer.status, headers)
    if not lasting:
        start = await _beginning(answer)
        if len(start) <= READ_WHOLE_MAX_BYTES:
            return Answer(answer.status, headers, start)
        return Answer(answer.status, headers, stream=_chunks(answer, start))
    return Answer(answer.status, headers, stream=_chunks(answer))


async def _beginning(answer: aiohttp.ClientResponse) -> bytes:
    """All of a body; more than READ_WHOLE_MAX_BYTES of a longer one."""
    found = bytearray()
    async for chunk in answer.content.iter_any():
        found += chunk
        if len(found) > READ_WHOLE_MAX_BYTES:
            break
    return bytes(found)


async def _chunks(answer: aiohttp.ClientResponse, start: bytes = b"") -> AsyncIterator[bytes]:
    import aiohttp

    try:
        if start:
            yield start
        async for chunk in answer.content.iter_any():
            yield chunk
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        # The client must not take what it has for the whole: its connection breaks too.
        raise ConnectionResetError(f"the backend broke off: {error}") from None
    finally:
        answer.close()


def _asked(place: Place, request: Request, user: User) -> bytes:
    """A request that wants to upgrade, as it goes over the wire. Raises ValueError."""
    line = f"{request.method} {target_of(request)} HTTP/1.1"
    return tunnel.written(line, headers_for(place, request, user), request.body, request.headers.get("upgrade", ""))
