"""Parts of the API that somebody else serves: an APIService names the Service that answers for a version of a group.

    kubectl get --raw /apis/custom.metrics.k8s.io/v1beta2/namespaces/default/pods/*/requests
      └─ authenticate, authorize ─► APIService v1beta2.custom.metrics.k8s.io ─► an endpoint of its Service, over TLS

Who asks and whether he may is decided here, as for all requests; the backend is told the user and decides for itself
again. A request goes to an address that the cluster knows, never to loopback, link-local or multicast, nor to the agent
of a node. Whether a backend is there is what a loop finds out (knarr.controllers.apiservices), by `look`; as long as it
is not, requests are answered with 503 at once. What it serves is kept for discovery (knarr.apiserver.discovery).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec.structs import replace

from knarr.api.apiregistration.services import is_available
from knarr.api.apiregistration.v1 import APIService
from knarr.api.core.node_agents import agents
from knarr.api.core.v1 import Node, Service
from knarr.api.decode import decoder
from knarr.api.errors import APIError, BadRequest, ServiceUnavailable
from knarr.api.meta.v1 import APIResource
from knarr.api.resources import Registry
from knarr.apiserver import backend_connections, proxy, tunnel
from knarr.apiserver.admission.index import Index
from knarr.apiserver.backend_connections import BackendConnections, Place, Unreachable
from knarr.apiserver.flow import lasting
from knarr.apiserver.follow import Follower
from knarr.apiserver.objects import Objects
from knarr.apiserver.requests import ResourcePath, resource_path
from knarr.apiserver.service_endpoints import ServiceEndpoints
from knarr.client.transport import Answer, Request, User
from knarr.clock import Clock
from knarr.pki import KeyPair

AGGREGATOR = User("system:kube-aggregator", ("system:masters",))
"""As whom backends are asked what they serve."""
LOOKS_MAX = 5
"""Endpoints that are tried, by chance, until one answers."""
LOOK_S = 5.0
"""How long a backend may take to say what it serves."""
RESOURCES_MAX = 1000
"""Of a version, that discovery tells of."""
BY_CLUSTER_IP = ("ClusterIP", "NodePort", "LoadBalancer")


class Remote(msgspec.Struct):
    """A version of a group that a Service serves, and what it last said that this is."""

    service: APIService
    resources: list[APIResource] = []
    known: bool = False
    """It has said so since it was registered as it is now."""
    openapi_url: str = ""
    """Where its document of OpenAPI v3 is, as it says itself; empty when it has none."""

    @property
    def group(self) -> str:
        return (self.service.spec.group if self.service.spec else None) or ""

    @property
    def version(self) -> str:
        return (self.service.spec.version if self.service.spec else None) or ""

    @property
    def priorities(self) -> tuple[int, int]:
        """Of the group, and of the version in it."""
        spec = self.service.spec
        return (spec.group_priority_minimum, spec.version_priority) if spec else (0, 0)

    @property
    def current(self) -> bool:
        """What it said can be relied on."""
        return self.known and is_available(self.service)


class Aggregator:
    """The APIServices of one server."""

    def __init__(
        self,
        registry: Registry,
        objects: Objects,
        endpoints: ServiceEndpoints,
        clock: Clock,
        certificate: KeyPair | None,
    ) -> None:
        self._registry = registry
        self._objects = objects
        self._endpoints = endpoints
        self._clock = clock
        self._nodes = Index(objects.store, "nodes", Node)
        self._connections = BackendConnections(clock, certificate)
        self._remotes: dict[str, Remote] = {}
        self._by_version: dict[tuple[str, str], Remote] = {}
        self._before: dict[str, Remote] = {}
        self._follower = Follower(
            objects.store, {"apiservices.apiregistration.k8s.io/": self._changed}, self._forget_all
        )
        self.state = 0
        """Rises with each change of what is told in discovery."""

    async def remotes(self) -> list[Remote]:
        """All versions that somebody else serves."""
        if not self._follower.fresh():
            await self._follower.catch_up()
        return list(self._remotes.values())

    async def serving(self, request: Request, path: ResourcePath | None) -> Remote | None:
        """Who else answers a request that is not about the core group; None for what this server answers itself."""
        if not self._follower.fresh():
            await self._follower.catch_up()
        if path is not None:
            return self._by_version.get((path.group, path.version))
        match request.path.strip("/").split("/"):
            case ["apis", group, version] | ["openapi", "v3", "apis", group, version]:
                return self._by_version.get((group, version))
        return None

    async def answer(self, remote: Remote, request: Request, user: User) -> Answer:
        """What the backend answers."""
        if not is_available(remote.service):
            return _unavailable("service unavailable")
        try:
            place = await self._place(remote.service)
        except APIError:
            return _unavailable("service unavailable")
        try:
            if tunnel.wants_upgrade(request.headers):
                return await self._connections.upgrade(place, request, user)
            lasts = lasting(request, resource_path(request.path))
            return await self._connections.ask(place, request, user, lasting=lasts)
        except Unreachable as error:
            return _unavailable(f"error trying to reach service: {error}")

    async def look(self, service: APIService) -> str:
        """Ask a backend what it serves, and keep that; what is wrong, empty when nothing is. It is enough that one of
        its endpoints answers."""
        fault = await self._asked(service)
        if not fault:
            return ""
        others = [asyncio.ensure_future(self._asked(service)) for _ in range(LOOKS_MAX - 1)]
        try:
            for each in asyncio.as_completed(others):
                if not (fault := await each):
                    break
        finally:
            for task in others:
                task.cancel()
        return fault

    async def _asked(self, service: APIService) -> str:
        """As `look`, of one endpoint."""
        assert service.spec
        path = f"/apis/{service.spec.group}/{service.spec.version}"
        try:
            place = await self._place(service)
        except APIError as error:
            return str(error)
        url = f"https://{place.authority}{path}"
        try:
            async with self._clock.timeout(LOOK_S):
                status, body = await self._connections.told(place, path, AGGREGATOR)
        except TimeoutError:
            return f'failing or missing response from {url}: Get "{url}": context deadline exceeded'
        except Unreachable as error:
            return f'failing or missing response from {url}: Get "{url}": {error}'
        if not 200 <= status < 300:
            return f"failing or missing response from {url}: bad status from {url}: {status}"
        index = await self._documents(place)
        self._learn(service, list(_resources(body)), index.get(path.lstrip("/"), ""))
        return ""

    async def _documents(self, place: Place) -> dict[str, str]:
        """Where a backend has its documents of OpenAPI v3, by what they are about; many have none."""
        try:
            async with self._clock.timeout(LOOK_S):
                status, body = await self._connections.told(place, "/openapi/v3", AGGREGATOR)
            told = msgspec.json.decode(body, type=_Index) if status == 200 else _Index()
        except (TimeoutError, Unreachable, msgspec.DecodeError, RecursionError):
            return {}
        return {about: document.serverRelativeURL for about, document in told.paths.items()}

    async def close(self) -> None:
        await self._follower.close()
        await self._connections.close()

    async def _place(self, service: APIService) -> Place:
        """An endpoint of its Service. Raises ServiceUnavailable, NotFound, BadRequest."""
        assert service.spec
        assert service.spec.service
        reference = service.spec.service
        kept = self._registry.of(Service)
        backend: Service = await self._objects.get(kept, reference.namespace or "", reference.name or "")
        kind = (backend.spec.type if backend.spec else None) or "ClusterIP"
        if kind not in BY_CLUSTER_IP:
            raise ServiceUnavailable(f'unsupported service type "{kind}"')
        ports = backend.spec.ports if backend.spec else []
        if not any(each.port == reference.port for each in ports):
            raise ServiceUnavailable(f'no service port {reference.port} found for service "{reference.name}"')
        host, port = await self._endpoints.one(backend, str(reference.port))
        proxy.refuse_address(host)
        if (host, port) in agents(await self._nodes.all()):
            raise BadRequest("address not allowed: the agent of a node serves no part of the API")
        return Place(host, port, service)

    def _changed(self, key: str, value: bytes | None) -> None:
        name = key.rpartition("/")[2]
        self.state += 1
        before = self._remotes.pop(name, None) or self._before.pop(name, None)
        service = decoder(APIService).decode(value) if value is not None else None
        if service is not None and service.spec and service.spec.service:
            same = before is not None and before.service.spec == service.spec
            self._remotes[name] = replace(before, service=service) if before and same else Remote(service)
        self._by_version = {(each.group, each.version): each for each in self._remotes.values()}

    def _forget_all(self) -> None:
        """All are told anew; what a backend has said still holds for one that is told as it was."""
        self._remotes, self._by_version, self._before = {}, {}, self._remotes

    def _learn(self, service: APIService, resources: list[APIResource], openapi_url: str) -> None:
        remote = self._remotes.get(service.metadata.name or "")
        if remote is None or remote.service.spec != service.spec:
            return  # It has changed since it was asked.
        if not remote.known or remote.resources != resources:
            self.state += 1
        remote.resources, remote.known = resources, True
        remote.openapi_url = (
            openapi_url if openapi_url.startswith(f"/openapi/v3/apis/{remote.group}/{remote.version}") else ""
        )


def _unavailable(text: str) -> Answer:
    return Answer(503, dict(backend_connections.TEXT), f"{text}\n".encode())


def _resources(body: bytes) -> Iterator[APIResource]:
    """The resources of an APIResourceList, as far as they are any."""
    known = {info.encode_name for info in msgspec.structs.fields(APIResource)}
    try:
        told = msgspec.json.decode(body, type=_ResourceList)
    except (msgspec.DecodeError, RecursionError):
        return
    for each in told.resources[:RESOURCES_MAX]:
        said = {name: value for name, value in each.items() if name in known and value is not None}
        try:
            yield msgspec.convert(said, APIResource)
        except msgspec.ValidationError:
            continue


class _Document(msgspec.Struct):
    serverRelativeURL: str = ""


class _Index(msgspec.Struct):
    paths: dict[str, _Document] = {}


class _ResourceList(msgspec.Struct):
    resources: list[dict[str, Any]] = []
