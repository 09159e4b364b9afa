"""The proxy subresource of pods, services and nodes: HTTP through the API server to what runs in the cluster.

    /api/v1/namespaces/<ns>/pods/[<scheme>:]<name>[:<port>]/proxy/<path>

A request goes to an address that the cluster knows (a pod's, an endpoint's, a node's), never to a name that would have
to be resolved, and never to loopback, link-local or multicast. Answers are passed on as they come; redirects and links
of pages that lead back to the target are rewritten so that a browser stays in the proxy. WebSockets, and whatever else
a connection is upgraded to, go through as they are.
"""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
from collections.abc import AsyncIterator, Callable, Container, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

from aiohttp.payload import AsyncIterablePayload

from knarr.api.core.node_agents import KUBELET_PORT, agents, canonical
from knarr.api.core.v1 import Node, Pod, Service
from knarr.api.errors import BadRequest, ServiceUnavailable
from knarr.apiserver import tunnel
from knarr.apiserver.admission.index import Index
from knarr.apiserver.calls import Call
from knarr.apiserver.forwarding import CONNECT_S, HOP_BY_HOP, OURS, PATH_SAFE, Address
from knarr.apiserver.objects import Objects
from knarr.apiserver.service_endpoints import ServiceEndpoints
from knarr.client.nodes import NodeBackend
from knarr.client.transport import Answer, Request
from knarr.clock import Clock

if TYPE_CHECKING:
    import aiohttp

PAGE_MAX_BYTES = 4 << 20
"""Pages up to this size have their links rewritten; longer ones pass as they are."""
CHUNK_BYTES = 64 << 10
NAME = re.compile(r"(?:(https?):)?([^:]+)(?::([^:]*))?")
"""scheme:name:port, of which scheme and port may be left out."""
LINK = re.compile(rb"""((?:href|src|action|background|cite|data|poster)\s*=\s*["'])(/[^"']*)""", re.IGNORECASE)


class Target(Address, frozen=True):
    """Where a request goes, and how."""

    scheme: str

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.authority}"


class Proxy:
    """The handlers of the proxy subresource."""

    def __init__(
        self,
        objects: Objects,
        endpoints: ServiceEndpoints,
        clock: Clock,
        nodes: Callable[[], NodeBackend | None] = lambda: None,
    ) -> None:
        self._clock = clock
        self._objects = objects
        self._endpoints = endpoints
        self._nodes = nodes
        self._known_nodes = Index(objects.store, "nodes", Node)
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Let go of the connections."""
        if self._session:
            await self._session.close()

    async def pod(self, call: Call) -> Answer:
        scheme, name, port = _named(call.path.name)
        pod: Pod = await self._objects.get(call.kept, call.path.namespace, name)
        if not port:
            declared = [each for container in (pod.spec.containers if pod.spec else ()) for each in container.ports]
            port = str(declared[0].container_port) if declared else ""
        if not port.isdecimal():
            port = str(_container_port(pod, port)) if port else ""
        host = (pod.status.pod_ip if pod.status else None) or ""
        target = Target(host, int(port or (443 if scheme == "https" else 80)), scheme or "http")
        await self._refuse_agents(target)
        return await self._carry(call, target)

    async def service(self, call: Call) -> Answer:
        scheme, name, port = _named(call.path.name)
        service: Service = await self._objects.get(call.kept, call.path.namespace, name)
        host, number = await self._endpoints.one(service, port)
        target = Target(host, number, scheme or "http")
        await self._refuse_agents(target)
        return await self._carry(call, target)

    async def node(self, call: Call) -> Answer:
        scheme, name, port = _named(call.path.name)
        node: Node = await self._objects.get(call.kept, "", name)
        nodes = self._nodes()
        if nodes is not None and port in ("", str(KUBELET_PORT)) and call.request.method in ("GET", "HEAD"):
            # What upstream's kubelet serves at its port, our nodes answer themselves.
            found = await nodes.page(name, call.path.rest)
            return Answer(found.status, {"content-type": found.content_type}, found.body)
        addresses = node.status.addresses if node.status else []
        host = next((each.address for each in addresses if each.type == "InternalIP"), "")
        number = int(port) if port.isdecimal() else KUBELET_PORT
        return await self._carry(call, Target(host, number, scheme or ("http" if port else "https")))

    async def _refuse_agents(self, target: Target) -> None:
        """Raises BadRequest. A pod on the node's network or an endpoint written by hand would lead there too, and so
        past the right to nodes/proxy."""
        if (canonical(target.host), target.port) in agents(await self._known_nodes.all()):
            raise BadRequest("address not allowed: the agent of a node is reached through nodes/proxy")

    async def _carry(self, call: Call, target: Target) -> Answer:
        import aiohttp

        request = call.request
        refuse_address(target.host)
        base, _, rest = request.path.partition("/proxy")
        base += "/proxy"
        if not rest and request.method in ("GET", "HEAD"):
            return Answer(301, {"location": f"{quote(base)}/{_query(request.repeated or request.query)}"})
        path = f"{quote(rest or '/', safe=PATH_SAFE)}{_query(request.repeated or request.query)}"
        headers = {
            name: value
            for name, value in request.headers.items()
            if name not in HOP_BY_HOP and name not in OURS and not name.startswith("impersonate-")
        }
        headers |= {"x-forwarded-uri": request.path, "x-forwarded-host": request.headers.get("host", "")}
        headers["x-forwarded-proto"] = "https"
        # As upstream: a site behind the proxy goes by the name under which its client asks.
        headers["host"] = request.headers.get("host") or target.authority
        if request.peer:
            before = request.headers.get("x-forwarded-for")
            headers["x-forwarded-for"] = f"{before}, {request.peer}" if before else request.peer
        if request.rest is not None and "content-length" in request.headers:
            headers["content-length"] = request.headers["content-length"]
        if tunnel.wants_upgrade(request.headers):
            return await self._upgrade(request, target, path, headers)
        if self._session is None:
            self._session = aiohttp.ClientSession(
                auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar(), connector=aiohttp.TCPConnector(limit=0)
            )
        try:
            answer = await self._session.request(
                request.method,
                _url(f"{target.origin}{path}"),
                data=_Once(request.rest) if request.rest else request.body or None,
                headers=headers,
                allow_redirects=False,
                ssl=False,  # As upstream: what a pod calls itself is known to nobody, so there is nothing to check.
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
            )
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _unreachable(target, error) from None
        ours = {target.authority, target.authority.rpartition(":")[0], headers["host"]}
        return await _passed_on(answer, ours, base, request.method)

    async def _upgrade(self, request: Request, target: Target, path: str, headers: Mapping[str, str]) -> Answer:
        """For a client that wants to speak something else than HTTP from now on."""
        try:
            line = f"{request.method} {path} HTTP/1.1"
            asked = tunnel.written(line, headers.items(), request.body, request.headers["upgrade"])
            return await tunnel.opened(self._clock, target, asked, _unchecked() if target.scheme == "https" else None)
        except tunnel.FAULTS as error:
            raise _unreachable(target, error) from None


def _unchecked() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _unreachable(target: Target, error: Exception) -> ServiceUnavailable:
    """In upstream's words where it has some for what went wrong."""
    number = getattr(error, "errno", None)
    if isinstance(error, TimeoutError):
        fault = f"dial tcp {target.authority}: i/o timeout"
    elif isinstance(error, OSError) and number:
        fault = f"dial tcp {target.authority}: connect: {os.strerror(number).lower()}"
    else:
        fault = str(error) or type(error).__name__
    return ServiceUnavailable(f"error trying to reach service: {fault}")


class _Once(AsyncIterablePayload):
    """A body that is there only once: its request is not made again when a connection breaks."""

    @property
    def consumed(self) -> bool:
        return True


async def _passed_on(answer: aiohttp.ClientResponse, ours: Container[str], base: str, method: str) -> Answer:
    """`ours` are the names under which the target knows itself."""
    headers = {
        name.lower(): value
        for name, value in answer.headers.items()
        if name.lower() not in HOP_BY_HOP and name.lower() != "content-length"
    }
    if location := headers.get("location"):
        headers["location"] = _inside(location, ours, base)
    if method == "HEAD" or answer.status in (204, 304):
        answer.release()
        return Answer(answer.status, headers)
    length = answer.content_length
    page = headers.get("content-type", "").startswith("text/html") and "content-encoding" not in headers
    if length is not None and length <= PAGE_MAX_BYTES and (page or length <= CHUNK_BYTES):
        body = await answer.read()
        if page:
            body = LINK.sub(lambda link: link[1] + _linked(link[2], base), body)
        return Answer(answer.status, headers, body)
    return Answer(answer.status, headers, stream=_chunks(answer))


async def _chunks(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async with answer:
        async for chunk in answer.content.iter_any():
            yield chunk


def _named(name: str) -> tuple[str, str, str]:
    """Scheme, name and port of scheme:name:port. Raises BadRequest."""
    match = NAME.fullmatch(name)
    if not match:
        raise BadRequest(f'invalid request "{name}": must be name, name:port or scheme:name:port')
    return match[1] or "", match[2], match[3] or ""


def _container_port(pod: Pod, name: str) -> int:
    for container in pod.spec.containers if pod.spec else ():
        for port in container.ports:
            if port.name == name:
                return port.container_port
    raise BadRequest(f'invalid port "{name}": no container of the pod has a port of this name')


def refuse_address(host: str) -> None:
    """Raises BadRequest for what isn't an address of the cluster."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise BadRequest("address not allowed") from None
    address = getattr(address, "ipv4_mapped", None) or address
    if address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified:
        raise BadRequest("address not allowed")


def _query(values: Mapping[str, Any]) -> str:
    return f"?{urlencode(values, doseq=True)}" if values else ""


def _inside(location: str, ours: Container[str], base: str) -> str:
    """A redirect to the target itself, as one that stays in the proxy."""
    parts = urlsplit(location)
    if parts.netloc and parts.netloc not in ours:
        return location
    if not parts.path.startswith("/") or parts.path.startswith(f"{base}/"):
        return location
    return base + parts.path + (f"?{parts.query}" if parts.query else "")


def _linked(link: bytes, base: str) -> bytes:
    if link.startswith((b"//", base.encode())):
        return link
    return base.encode() + link


def _url(text: str) -> Any:
    from yarl import URL

    return URL(text, encoded=True)
