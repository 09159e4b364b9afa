"""The door: every request to the API goes through `APIServer.handle`, and answers leave through it.

    authenticate → authorize → decode → default → admit (mutating) → validate → admit (validating) → store → encode

It knows nothing of HTTP connections: the TLS listener (`listener.py`) and the components of this process
(`InProcessTransport`) hand in the same `Request` and get the same `Answer`. What a request is about decides who handles
it: `Reads`, `Writes`, `Subresources`, or for kinds that are asked and never kept (reviews) a function by type.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import aclosing
from typing import Any, cast

import msgspec

from knarr.api.core.v1 import ComponentStatus, Node, Pod, Service, ServiceAccount
from knarr.api.errors import APIError, InternalError, ServiceUnavailable, TooLarge
from knarr.api.metrics.v1beta1 import NodeMetrics, PodMetrics
from knarr.api.resources import Registry
from knarr.apiserver import answers, bodies, discovery, forms
from knarr.apiserver.about import About
from knarr.apiserver.access import Access, AccessSettings
from knarr.apiserver.action import Action, action_of
from knarr.apiserver.addresses import ServiceAddresses
from knarr.apiserver.admission import Admission, built_in
from knarr.apiserver.aggregator import Aggregator
from knarr.apiserver.answers import failure
from knarr.apiserver.calls import Call
from knarr.apiserver.components import Components
from knarr.apiserver.eviction import Evictions
from knarr.apiserver.flow import NO_PLACE, Flow, Place, lasting, time_limit_s, timed_out
from knarr.apiserver.health import Health
from knarr.apiserver.metrics import Metrics, Series, series_of
from knarr.apiserver.objects import Objects
from knarr.apiserver.proxy import Proxy
from knarr.apiserver.reads import Reads
from knarr.apiserver.requests import ResourcePath, flag, resource_path, with_watch_as_parameter
from knarr.apiserver.service_endpoints import ServiceEndpoints
from knarr.apiserver.service_tokens import Tokens
from knarr.apiserver.subresources import Subresources
from knarr.apiserver.token_requests import TokenRequests
from knarr.apiserver.usage import UsageKinds
from knarr.apiserver.writes import Writes
from knarr.client.nodes import NodeBackend
from knarr.client.transport import Answer, Request, User
from knarr.clock import Clock
from knarr.figures import Figure
from knarr.pki import KeyPair
from knarr.store.contract import Store

log = logging.getLogger(__name__)

BODY_MAX_BYTES = 3 << 20
"""Of a request, as upstream."""

ANSWER_MAX_BYTES = 64 << 20
"""That a part of this process takes of what somebody else serves."""

CONNECTING = ("attach", "exec", "portforward", "proxy")
"""Subresources that are a connection: admission is asked about the operation CONNECT."""

WRITING = ("POST", "PUT", "PATCH", "DELETE")
"""Requests that may change something, so what they are to be answered with is settled first."""

Placed = Callable[[Request, User, ResourcePath | None, Action], Place]
"""placed(request, user, path): the place that a request has while it is worked on (see knarr.apiserver.flow)."""
Review = Callable[[Call, Any], Awaitable[Any]]
"""review(call, obj): what a POST of a kind that is never kept is answered (TokenReview, SubjectAccessReview)."""

Page = Callable[[Request, User], Awaitable[Answer]]
"""page(request, user): the answer to who may ask for a path that is no resource's. Raises APIError."""

Asked = Callable[[Call], Awaitable[list[bytes]]]
"""asked(call): the objects that a GET of a kind that is never kept is about (PodMetrics); raises NotFound."""


class Settings(msgspec.Struct, frozen=True):
    """What an API server has to be told."""

    address: str = "127.0.0.1:6443"
    """Where it can be reached, for discovery."""
    service_cidrs: Sequence[str] = ("10.96.0.0/16",)
    """Of cluster IPs: one, or one of each family; the first family is that of a Service that asks for none."""
    node_ports: tuple[int, int] = (30000, 32767)
    access: AccessSettings = msgspec.field(default_factory=AccessSettings)
    without_plugins: Sequence[str] = ()
    """Admission plugins that are switched off."""
    front_proxy: KeyPair | None = None
    """By which those who serve other parts of the API know this server."""


class APIServer:
    """One API server over a store."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        clock: Clock,
        settings: Settings = Settings(),
        *,
        tokens: Tokens | None = None,
        nodes: NodeBackend | None = None,
    ) -> None:
        self.store = store
        self.registry = registry
        self.settings = settings
        self.nodes = nodes
        self.tokens = tokens
        self.clock = clock
        self.metrics = Metrics()
        self.flow = Flow(self.metrics, store, clock)
        self.access = Access(store, registry, clock, settings.access, tokens)
        addresses = ServiceAddresses(store, clock, settings.service_cidrs, settings.node_ports)
        self.objects = Objects(
            store,
            clock,
            Admission(
                built_in.plugins(store, clock, addresses, [self.access.admission], settings.without_plugins),
                clock.monotonic_s,
            ),
        )
        self.objects.companions[Service] = addresses.companions
        endpoints = ServiceEndpoints(registry, store, clock)
        self.aggregator = Aggregator(registry, self.objects, endpoints, clock, settings.front_proxy)
        self.about = About(registry, clock, settings.address, self.aggregator, self.access.issuer_document)
        self.reads = Reads(store, self.objects, clock)
        self.writes = Writes(store, self.objects, self.reads, clock, self.access.authorizer)
        self.subresources = Subresources(registry, self.objects, self.writes, clock, lambda: self.nodes)
        self.proxy = Proxy(self.objects, endpoints, clock, lambda: self.nodes)
        token_requests = TokenRequests(
            registry, self.objects, clock, tokens, self.access.admission.node_restriction.validate
        )
        self.evictions = Evictions(registry, store, self.objects, clock)
        self.subresources.handlers |= {
            (ServiceAccount, "token"): token_requests.answer,
            (Pod, "proxy"): self.proxy.pod,
            (Service, "proxy"): self.proxy.service,
            (Node, "proxy"): self.proxy.node,
            (Pod, "eviction"): self.evictions.evict,
        }
        self.reviews: dict[type[Any], Review] = dict(self.access.reviews)
        usage = UsageKinds(registry, store, clock, lambda: self.nodes)
        components = Components(store, lambda: self.ready)
        self.asked: dict[type[Any], Asked] = {
            ComponentStatus: components.found,
            NodeMetrics: usage.found,
            PodMetrics: usage.found,
        }
        self.health = Health()
        self.health.checks["etcd"] = store.fault
        self.health.readiness["started"] = lambda: None if self.ready else "not yet"
        self.health.readiness["shutdown"] = lambda: "process is shutting down" if self.stopping else None
        self.pages: dict[str, Page] = {}
        """What other parts of the process answer, by path. It may last."""
        self.calls: Counter[tuple[str, int]] = Counter()
        """Requests of the parts of this process, by method and how they were answered."""
        self.metrics.sources += [
            self.reads.watched.figures,
            lambda: self.flow.figures(),  # tests put another in its place
            self.access.figures,
            self.objects.admission.figures,
            self._figures,
        ]
        self.ready = self.stopping = False
        """Told by /readyz; whoever assembles the process sets them."""

    async def handle(self, request: Request) -> Answer:
        """The answer to a request of a part of this process, whole unless it lasts; never raises."""
        request = with_watch_as_parameter(request)
        path = resource_path(request.path)
        answer = await self._answered(request, self._answer(request, path, _anybody))
        lasts = lasting(request, path) or request.path in self.pages
        return answer if answer.stream is None or lasts else await whole(answer, answer.stream)

    async def handle_from_outside(self, request: Request) -> Answer:
        """The answer to a request that came over the network: limited in number and time, and counted. Never raises."""
        request = with_watch_as_parameter(request)
        path = resource_path(request.path)
        start_s = self.clock.monotonic_s()
        try:
            limit_s = time_limit_s(request, path)
        except APIError as error:
            return failure(error)
        try:
            work = self._answered(request, self._answer(request, path, self.flow.place))
            answer = await self.flow.within(limit_s, work)
        except TimeoutError:
            answer = failure(timed_out())
        self._count(request, path, answer, None if limit_s is None else self.clock.monotonic_s() - start_s)
        return answer

    async def _answered(self, request: Request, work: Coroutine[Any, Any, Answer]) -> Answer:
        try:
            return await work
        except APIError as error:
            return failure(error, request)
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            return failure(InternalError(f"Internal error occurred in {request.method} {request.path}; see the log"))

    async def _answer(self, request: Request, path: ResourcePath | None, placed: Placed) -> Answer:
        user = await self.access.user(request)
        action = action_of(request, path)
        if path is None and (answer := self._public(request)):
            await self.access.authorizer.authorize(user, action)
            return answer
        if placed is not _anybody and not self.flow.follower.fresh():
            await self.flow.follower.catch_up()
        place = placed(request, user, path, action)
        try:
            with place:
                await self.access.authorizer.authorize(user, action)
                answer = await self._dispatch(request, user, path)
        except APIError as error:
            answer = failure(error, request)
        answer.flow = place.headers
        return answer

    async def _dispatch(self, request: Request, user: User, path: ResourcePath | None) -> Answer:
        # What is of the core group is never somebody else's: it need not even be asked.
        if (path is None or path.group) and (remote := await self.aggregator.serving(request, path)):
            return await self.aggregator.answer(remote, request, user)
        if path is None:
            if request.path == "/metrics":
                return self.metrics.answer(await self._objects_by_resource())
            if page := self.pages.get(request.path):
                return await page(request, user)
            return await self.about.answer(request)
        resource = self.registry.by_plural(path.group, path.version, path.plural)
        if resource is None or (path.namespace and not resource.namespaced):
            raise answers.not_served()
        if len(request.body) > BODY_MAX_BYTES:
            raise TooLarge(f"Request entity too large: limit is {BODY_MAX_BYTES}")
        if request.method in WRITING and path.subresource not in CONNECTING:
            # Here, not when the answer is made: by then it would be written.
            many = request.method == "DELETE" and not path.name
            forms.check(forms.accepted(request.headers.get("accept", "")), request.query, many=many)
        call = Call(request, user, resource, self.registry.kept(resource), path, self.registry.versions(resource))
        if not resource.deprecation:
            return await self._served(call)
        try:
            answer = await self._served(call)
        except APIError as error:
            answer = failure(error, request)
        answer.warnings = [resource.deprecation, *answer.warnings]
        return answer

    async def _served(self, call: Call) -> Answer:
        if call.path.subresource:
            return await self._subresource(call)
        return await (self._one(call) if call.path.name else self._collection(call))

    def stop(self) -> None:
        """Tell /readyz that the end has begun; requests are still answered."""
        self.stopping = True

    async def close(self) -> None:
        """Let go of what the server holds besides its store."""
        self.ready = False
        await self.access.close()
        await self.reads.close()
        await self.flow.follower.close()
        await self.proxy.close()
        await self.aggregator.close()

    async def _objects_by_resource(self) -> dict[tuple[str, str], int]:
        found = {}
        for resource in self.registry:
            first = await self.store.range(f"{resource.qualified}/", limit=1)
            found[resource.group, resource.plural] = len(first.records) + first.remaining
        return found

    def _figures(self) -> Iterator[Figure]:
        calls = {(str(code), self.settings.address, method): count for (method, code), count in self.calls.items()}
        text = "Requests of the parts of this process."
        yield Figure("counter", "rest_client_requests_total", text, ("code", "host", "method"), calls)
        text = "What the store takes on the disk."
        values = {("knarr",): self.store.size_bytes()}
        yield Figure("gauge", "apiserver_storage_size_bytes", text, ("storage_cluster_id",), values)

    def _count(self, request: Request, path: ResourcePath | None, answer: Answer, seconds: float | None) -> None:
        """Count an answer. What is not served is not named: names that anybody invents are no series."""
        if path is not None:
            resource = self.registry.by_plural(path.group, path.version, path.plural)
            if resource is None or path.subresource not in ("", *resource.subresources):
                path = None
        series = series_of(request, path)
        self.metrics.answered(series, answer.status, seconds)
        if answer.stream is not None and seconds is None:
            answer.stream = self._counted(answer.stream, series)

    async def _counted(self, stream: AsyncIterator[bytes], series: Series) -> AsyncIterator[bytes]:
        self.metrics.lasting(series, 1)
        try:
            async with aclosing(cast(Any, stream)):
                async for chunk in stream:
                    yield chunk
        finally:
            self.metrics.lasting(series, -1)

    def _public(self, request: Request) -> Answer | None:
        """Health and /version: never refused for lack of a place; open to all as long as a role says so."""
        if request.path.rstrip("/") == "/version" and request.method in ("GET", "HEAD"):
            return answers.plain(discovery.version(), request)
        return self.health.answer(request)

    async def _collection(self, call: Call) -> Answer:
        match call.request.method:
            case "GET" | "HEAD" if asked := self.asked.get(call.resource.type):
                if flag(call.query, "watch"):
                    raise answers.method_not_allowed()
                accepted = forms.accepted(call.request.headers.get("accept", ""))
                return self.reads.listed(call, await asked(call), {}, accepted)
            case "GET" | "HEAD" if "list" in call.resource.verbs:
                if flag(call.query, "watch"):
                    return await self.reads.watch(call)
                return await self.reads.list(call)
            case "POST" if call.resource.type in self.reviews:
                return await self._review(call)
            case "POST" if handler := self.subresources.handler(call.resource.type, ""):
                return await handler(call)
            case "POST" if "create" in call.resource.verbs:
                return await self.writes.create(call)
            case "DELETE" if "deletecollection" in call.resource.verbs:
                return await self.writes.delete_collection(call)
        raise answers.method_not_allowed()

    async def _one(self, call: Call) -> Answer:
        match call.request.method:
            case "GET" | "HEAD" if asked := self.asked.get(call.resource.type):
                return answers.shown(call, (await asked(call))[0], self.clock)
            case "GET" | "HEAD" if "get" in call.resource.verbs:
                if flag(call.query, "watch"):
                    return await self.reads.watch(call)
                return await self.reads.get(call)
            case "PUT" if "update" in call.resource.verbs:
                return await self.writes.update(call)
            case "PATCH" if "patch" in call.resource.verbs:
                return await self.writes.patch(call)
            case "DELETE" if "delete" in call.resource.verbs and not call.path.subresource:
                return await self.writes.delete(call)
        raise answers.method_not_allowed()

    async def _subresource(self, call: Call) -> Answer:
        name, resource = call.path.subresource, call.resource
        if name not in resource.subresources or (call.path.rest and name != "proxy"):
            raise answers.not_served()
        handler = self.subresources.handler(resource.type, name)
        if handler and name in CONNECTING:
            await self.objects.admit("CONNECT", call)
        return await handler(call) if handler else await self._one(call)

    async def _review(self, call: Call) -> Answer:
        accepted = forms.accepted(call.request.headers.get("accept", ""), tables=False)
        obj, warnings = bodies.object_of(call, call.resource.type)
        value = msgspec.json.encode(await self.reviews[call.resource.type](call, obj))
        value = forms.shown(call.resource, value, accepted, self.clock.time_s(), "None")
        answer = answers.encoded(value, call.request, accepted)
        answer.status, answer.warnings = 201, warnings
        return answer


async def whole(answer: Answer, chunks: AsyncIterator[bytes]) -> Answer:
    """An answer with all of its body."""
    found = bytearray()
    try:
        async with aclosing(cast(Any, chunks)):
            async for chunk in chunks:
                found += chunk
                if len(found) > ANSWER_MAX_BYTES:
                    return failure(InternalError(f"the answer is longer than {ANSWER_MAX_BYTES} bytes"))
    except ConnectionError as error:
        return failure(ServiceUnavailable(str(error)))
    answer.body, answer.stream = bytes(found), None
    return answer


def _anybody(request: Request, user: User, path: ResourcePath | None, action: Action) -> Place:
    """No limit: for the parts of this process."""
    return NO_PLACE


class InProcessTransport:
    """A Transport to an API server in this process (see knarr.client.transport)."""

    def __init__(self, server: APIServer) -> None:
        self._server = server

    async def send(self, request: Request) -> Answer:
        answer = await self._server.handle(request)
        self._server.calls[request.method, answer.status] += 1
        return answer

    async def close(self) -> None:
        """Nothing is held."""
