"""What Envoy is told, and what it answers: incremental xDS on one aggregated stream (delta ADS) over a unix socket.

`Conversation` is the pure part: it knows what is wanted, what was sent and what Envoy confirmed, and says what to send
next. What is added goes out from the back to the front (clusters, their endpoints, certificates, listeners, routes),
and what is in front waits until Envoy has confirmed what is behind; what is no longer used is removed only after that.
Nothing is ever routed to what Envoy does not have yet. One message of each kind is under way at a time. (Not one in
all: Envoy confirms a new cluster only when it has its endpoints.)

https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol: incremental, eventual consistency considerations.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from knarr.edge.ingress.wire import TYPE_URL, any_of, decode, encode

log = logging.getLogger(__name__)

CLUSTER = "envoy.config.cluster.v3.Cluster"
ENDPOINTS = "envoy.config.endpoint.v3.ClusterLoadAssignment"
SECRET = "envoy.extensions.transport_sockets.tls.v3.Secret"
LISTENER = "envoy.config.listener.v3.Listener"
ROUTES = "envoy.config.route.v3.RouteConfiguration"
ORDER = (CLUSTER, ENDPOINTS, SECRET, LISTENER, ROUTES)
WILDCARD = (CLUSTER, LISTENER)
"""Kinds of which Envoy wants all there are; of the others it names those that it needs."""

METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
REQUEST = "envoy.service.discovery.v3.DeltaDiscoveryRequest"
RESPONSE = "envoy.service.discovery.v3.DeltaDiscoveryResponse"


class Built(Struct, frozen=True):
    """A resource as it is sent. The version is a digest of the body: equal bodies are never sent twice."""

    version: str
    body: dict[str, Any]
    """A google.protobuf.Any."""


def built(kind: str, resource: Mapping[str, Any]) -> Built:
    body = any_of({"@type": kind, **resource})
    return Built(hashlib.blake2b(body["value"], digest_size=8).hexdigest(), body)


Wanted = Mapping[str, Mapping[str, Built]]
"""Kind → name → resource. Endpoints have their cluster's name."""


class Rejection(Struct, frozen=True):
    """Envoy keeps what it had instead of these."""

    kind: str
    names: tuple[str, ...]
    reason: str


class _Sent(Struct):
    """A message under way."""

    nonce: str
    versions: dict[str, str]


class Conversation:
    """One stream's state."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.rejected: dict[tuple[str, str], str] = {}
        """Kind and name → the version that Envoy refused."""
        self._known: dict[str, dict[str, str]] = {kind: {} for kind in ORDER}
        """Kind → name → the version that was sent last."""
        self._subscribed: dict[str, set[str]] = {kind: set() for kind in ORDER}
        self._owed: set[str] = set()
        """Kinds of which Envoy waits for a first answer, be it empty."""
        self._heard: set[str] = set()
        self._under_way: dict[str, _Sent] = {}
        self._nonce = 0

    @property
    def settled(self) -> bool:
        """Envoy has everything that is wanted, or has refused it."""
        return not self._under_way and LISTENER in self._heard and not self._awaited() and self._due() is None

    def hear(self, request: Mapping[str, Any]) -> Rejection | None:
        """A request of Envoy's: it subscribes, confirms or refuses."""
        kind = str(request.get("type_url", "")).removeprefix(TYPE_URL)
        if kind not in ORDER:
            return None
        if kind not in self._heard:
            self._heard.add(kind)
            if kind in WILDCARD:
                self._owed.add(kind)
            self._known[kind] = dict(request.get("initial_resource_versions", {}))
        gone = set(request.get("resource_names_unsubscribe", ()))
        self._subscribed[kind] -= gone
        for name in gone:
            self._known[kind].pop(name, None)
        for name in request.get("resource_names_subscribe", ()):
            if name != "*":
                self._subscribed[kind].add(name)
                if name not in request.get("initial_resource_versions", {}):
                    self._known[kind].pop(name, None)  # it asks, so it doesn't have it
        return self._confirmed(kind, request)

    def _confirmed(self, kind: str, request: Mapping[str, Any]) -> Rejection | None:
        sent = self._under_way.get(kind)
        if sent is None or request.get("response_nonce") != sent.nonce:
            return None
        del self._under_way[kind]
        error = request.get("error_detail")
        if error is None:
            for name in sent.versions:
                self.rejected.pop((kind, name), None)
            return None
        reason = str(error.get("message", ""))
        named = [name for name in sent.versions if name in reason]
        for name in named or sent.versions:
            self.rejected[kind, name] = sent.versions[name]
        return Rejection(kind, tuple(named or sent.versions), reason)

    def next(self) -> dict[str, Any] | None:
        """The next message, or None while there is nothing to say or an answer is awaited."""
        due = self._due()
        if due is None:
            return None
        kind, names, removed = due
        self._owed.discard(kind)
        self._nonce += 1
        wanted, known = self.wanted.get(kind, {}), self._known[kind]
        versions = {name: wanted[name].version for name in names}
        known.update(versions)
        for name in removed:
            known.pop(name, None)
        if kind == CLUSTER:
            # A cluster that changes is made anew in Envoy, and waits until it is told its endpoints again.
            for name in names:
                self._known[ENDPOINTS].pop(name, None)
        self._under_way[kind] = _Sent(str(self._nonce), versions)
        resources = [{"name": name, "version": wanted[name].version, "resource": wanted[name].body} for name in names]
        return {
            "type_url": TYPE_URL + kind,
            "nonce": str(self._nonce),
            "resources": resources,
            "removed_resources": removed,
        }

    def forget(self, kind: str, names: Iterable[str]) -> None:
        """As if these had never been sent."""
        for name in names:
            self._known[kind].pop(name, None)
            self.rejected.pop((kind, name), None)

    def _due(self) -> tuple[str, list[str], list[str]] | None:
        """The next kind of which something must be said: names to send, names to remove."""
        for kind in ORDER:
            if kind in (LISTENER, ROUTES) and (self._awaited() or self._under_way.keys() & {CLUSTER, ENDPOINTS}):
                return None
            if kind not in self._heard or kind in self._under_way:
                continue
            changed = self._changed(kind)
            if kind == SECRET:
                changed = changed[:1]  # a refusal doesn't say of which
            if changed or kind in self._owed:
                return kind, changed, []
        if self._under_way or self._awaited():
            return None
        for kind in (LISTENER, CLUSTER):
            removed = [name for name in self._known[kind] if name not in self.wanted.get(kind, {})]
            if removed and kind in self._heard:
                return kind, [], removed
        return None

    def _changed(self, kind: str) -> list[str]:
        wanted, known = self.wanted.get(kind, {}), self._known[kind]
        names = wanted if kind in WILDCARD else [name for name in self._subscribed[kind] if name in wanted]
        return [name for name in names if known.get(name) != wanted[name].version]

    def _awaited(self) -> set[str]:
        """Clusters that Envoy took and whose endpoints it is about to ask for."""
        there = self._known[CLUSTER].keys() & self.wanted.get(CLUSTER, {}).keys()
        refused = {name for kind, name in self.rejected if kind == CLUSTER}
        return there - self._subscribed[ENDPOINTS] - refused


class Generation(Struct):
    """What is wanted, and its number: the count of changes."""

    number: int = 0
    wanted: Wanted = field(default_factory=dict)


class XdsServer:
    """Serves one Envoy on a unix socket that nobody else can reach."""

    def __init__(self, rejected: Callable[[Rejection], None], settled: Callable[[int], None]) -> None:
        """`rejected` and `settled` are called in the event loop; `settled` with a generation that Envoy has whole."""
        self._path: Path | None = None
        self._rejected = rejected
        self._settled = settled
        self._generation = Generation()
        self._conversation: Conversation | None = None
        self._wake = asyncio.Event()
        self._server: Any = None
        self.messages_sent = 0

    @property
    def connected(self) -> bool:
        return self._conversation is not None

    @property
    def refused(self) -> Mapping[tuple[str, str], str]:
        """Kind and name → version that Envoy refused and that is still wanted."""
        if self._conversation is None:
            return {}
        wanted = self._generation.wanted
        return {
            (kind, name): version
            for (kind, name), version in self._conversation.rejected.items()
            if name in wanted.get(kind, {}) and wanted[kind][name].version == version
        }

    @property
    def generation(self) -> int:
        """The newest one that was wanted."""
        return self._generation.number

    def again(self, kind: str, names: Iterable[str]) -> None:
        """Send these once more: why they were refused may have passed."""
        if self._conversation is not None:
            self._conversation.forget(kind, names)
        self._wake.set()

    def want(self, wanted: Wanted) -> int:
        """Let Envoy have this from now on; answers the generation's number."""
        self._generation = Generation(self._generation.number + 1, wanted)
        if self._conversation is not None:
            self._conversation.wanted = wanted
        self._wake.set()
        return self._generation.number

    async def start(self, path: Path) -> None:
        """`path` is free."""
        from grpclib.const import Cardinality, Handler  # only who has an Ingress pays for it
        from grpclib.server import Server

        handler = Handler(self._talk, Cardinality.STREAM_STREAM, dict, dict)
        codec: Any = _Codec()
        self._server = Server([_Service({METHOD: handler})], codec=codec)
        self._path = path
        await self._server.start(path=str(path))

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    async def _talk(self, stream: Any) -> None:
        conversation = self._conversation = Conversation(self._generation.wanted)
        listening = asyncio.create_task(self._listen(stream, conversation), name="xds requests")
        try:
            while not listening.done() and self._conversation is conversation:
                self._wake.clear()
                message = conversation.next()
                if message is not None:
                    self.messages_sent += 1
                    await stream.send_message(message)
                    continue
                if conversation.settled:
                    self._settled(self._generation.number)
                waking = asyncio.create_task(self._wake.wait())
                try:
                    await asyncio.wait((waking, listening), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    waking.cancel()
        finally:
            listening.cancel()
            if self._conversation is conversation:
                self._conversation = None

    async def _listen(self, stream: Any, conversation: Conversation) -> None:
        async for request in stream:
            rejection = conversation.hear(request)
            if rejection is not None:
                log.warning("Envoy refused %s %s: %s", rejection.kind, ", ".join(rejection.names), rejection.reason)
                self._rejected(rejection)
            self._wake.set()


class _Service:
    def __init__(self, mapping: Mapping[str, Any]) -> None:
        self._mapping = mapping

    def __mapping__(self) -> Mapping[str, Any]:
        return self._mapping


class _Codec:
    """As grpclib.encoding.base.CodecBase, which is imported when it is needed."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return encode(RESPONSE, message)

    def decode(self, data: bytes, message_type: Any) -> Any:
        return decode(REQUEST, data)
