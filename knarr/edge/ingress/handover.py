"""How a machine that joined comes to what it needs to serve Ingress and may not read itself: keys, and leave to serve.

A node reads Ingress, Service and EndpointSlice objects as everybody's; Secrets it can't read but those of its own pods
(node authorizer). What Envoy is to show there is handed over by the API server's process at PATH, to nodes that are to
serve and nobody else: the key pairs that Ingress objects of ours name, as long as they are Secrets of type
kubernetes.io/tls. One request lasts as long as both are there; it answers lines of JSON:

    {"terms": …}                                   first: on which ports to serve, and where the API server is
    {"name": "shop/web", "version": "41", "chain": …, "key": …}        this one is new, or another now
    {"name": "shop/web"}                           this one is not shown any more
    {"complete": true}                             that is all for now: others are not shown any more
    {}                                             the connection still stands

While the API server is away a node goes on with what it has. It keeps keys in memory only.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing

import msgspec
from msgspec import Struct

from knarr.api.certificates.kubelet import NODE, NODES
from knarr.api.core.v1 import Node, Secret
from knarr.api.errors import APIError, Forbidden, MethodNotAllowed, NotFound, ServiceUnavailable
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.networking.v1 import Ingress, IngressClass
from knarr.client.client import Client
from knarr.client.informer import Informer, Informers, key_of
from knarr.client.transport import Answer, Request, User
from knarr.clock import Clock
from knarr.edge.ingress.certificates import CERTIFICATE, KEY, TLS_TYPE
from knarr.edge.ingress.classes import is_ours
from knarr.edge.ingress.terms import PATH, Terms

log = logging.getLogger(__name__)

HEARTBEAT_S = 20.0
SILENCE_MAX_S = 60.0
"""A connection on which nothing comes for so long is none any more."""
PAUSE_S = 0.02
"""Between two answers: a burst of changes is taken together."""
LINES_AT_ONCE = 64
RETRY_MIN_S, RETRY_MAX_S = 0.1, 10.0
REFUSED_RETRY_MAX_S = 60.0
"""Who is not to serve asks seldom; labels that change are a reason to ask at once."""


class Line(Struct, omit_defaults=True):
    """One line of the answer; see above."""

    terms: Terms | None = None
    name: str = ""
    version: str = ""
    chain: bytes = b""
    key: bytes = b""
    complete: bool = False


class Handover:
    """The API server's end: answers nodes that are to serve."""

    def __init__(self, informers: Informers, clock: Clock, terms: Terms, serves: Callable[[Node], bool]) -> None:
        self._informers = informers
        self._clock = clock
        self._terms = terms
        self._serves = serves
        self._watching: set[asyncio.Event] = set()
        self._nodes: Informer[Node] = informers.of(Node)
        self._ingresses: Informer[Ingress] = informers.of(Ingress)
        self._classes: Informer[IngressClass] = informers.of(IngressClass)
        self._secrets: Informer[Secret] | None = None
        """From when the first node asks: who has none needs no copy of all Secrets."""
        self._shown: dict[str, Secret] | None = None
        self._named: frozenset[str] = frozenset()

    async def answer(self, request: Request, user: User) -> Answer:
        """Raises Forbidden, MethodNotAllowed."""
        if request.method != "GET":
            raise MethodNotAllowed("the server does not allow this method on the requested resource")
        node = user.name.removeprefix(NODE) if user.name.startswith(NODE) and NODES in user.groups else ""
        await self._nodes.synced.wait()
        if not self._may(node):
            raise Forbidden("certificates of Ingress are for nodes that are to serve it")
        await self._begin()
        return Answer(200, {"content-type": "application/json"}, stream=self._lines(node))

    def _may(self, name: str) -> bool:
        node = self._nodes.get(name) if name else None
        return node is not None and self._serves(node)

    async def _begin(self) -> None:
        if self._secrets is None:
            self._secrets = self._informers.of(Secret)
            self._nodes.add_handler(self._node_changed)
            self._ingresses.add_handler(lambda old, new: self._changed())
            self._classes.add_handler(lambda old, new: self._changed())
            self._secrets.add_handler(self._secret_changed)
        for informer in (self._ingresses, self._classes, self._secrets):
            await informer.synced.wait()

    async def _lines(self, node: str) -> AsyncIterator[bytes]:
        """Until the node is to serve no longer."""
        news = asyncio.Event()
        self._watching.add(news)
        sent: dict[str, str] = {}
        first = [Line(terms=self._terms)]
        last = [Line(complete=True)]
        try:
            while self._may(node):
                news.clear()
                shown = self._certificates()
                lines = [*first, *_differences(sent, shown), *last]
                sent = {name: secret.metadata.resource_version or "" for name, secret in shown.items()}
                first, last = [], []
                for at in range(0, len(lines), LINES_AT_ONCE):
                    yield b"".join(msgspec.json.encode(line) + b"\n" for line in lines[at : at + LINES_AT_ONCE])
                await self._clock.sleep(PAUSE_S)
                while not await self._is_told(news):
                    yield msgspec.json.encode(Line()) + b"\n"
        finally:
            self._watching.discard(news)

    async def _is_told(self, news: asyncio.Event) -> bool:
        """Whether there is anything new, before the next heartbeat is due."""
        try:
            async with self._clock.timeout(HEARTBEAT_S):
                await news.wait()
        except TimeoutError:
            return False
        return True

    def _certificates(self) -> dict[str, Secret]:
        """By name, those that Ingress objects of ours name and that are what they should be."""
        if self._shown is None:
            assert self._secrets is not None
            ours = [each for each in self._ingresses.all() if is_ours(each, self._classes)]
            self._named = frozenset(_named_by(ours))
            found = {name: self._secrets.get(name) for name in self._named}
            self._shown = {name: secret for name, secret in found.items() if secret is not None and _is_pair(secret)}
        return self._shown

    # What changed

    def _changed(self) -> None:
        self._shown = None
        for news in self._watching:
            news.set()

    def _secret_changed(self, old: Secret | None, new: Secret | None) -> None:
        either = new or old
        assert either is not None
        if key_of(either) in self._named:
            self._changed()

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        if old is None or new is None or old.metadata.labels != new.metadata.labels:
            for news in self._watching:
                news.set()


def _named_by(ingresses: list[Ingress]) -> Iterator[str]:
    for ingress in ingresses:
        for tls in ingress.spec.tls if ingress.spec else ():
            if tls.secret_name:
                yield f"{ingress.metadata.namespace}/{tls.secret_name}"


def _is_pair(secret: Secret) -> bool:
    return secret.type == TLS_TYPE and bool(secret.data.get(CERTIFICATE)) and bool(secret.data.get(KEY))


def _differences(sent: Mapping[str, str], shown: Mapping[str, Secret]) -> Iterator[Line]:
    for name, secret in shown.items():
        version = secret.metadata.resource_version or ""
        if sent.get(name) != version:
            yield Line(name=name, version=version, chain=secret.data[CERTIFICATE], key=secret.data[KEY])
    for name in sent.keys() - shown.keys():
        yield Line(name=name)


class Handed:
    """A node's end: what an informer of Secrets would be, for certificates of Ingress alone; and leave to serve."""

    def __init__(self, client: Client, informers: Informers, clock: Clock, node_name: str) -> None:
        self._client = client
        self._clock = clock
        self._node_name = node_name
        self._secrets: dict[str, Secret] = {}
        self._handlers: list[Callable[[Secret | None, Secret | None], None]] = []
        self._leave_handlers: list[Callable[[], None]] = []
        self._wake = asyncio.Event()
        self.terms: Terms | None = None
        """None while this node is not to serve."""
        self.synced = asyncio.Event()
        """Leave was given, and all certificates have come."""
        informers.of(Node).add_handler(self._node_changed)

    def get(self, key: str, /) -> Secret | None:
        return self._secrets.get(key)

    def add_handler(self, handler: Callable[[Secret | None, Secret | None], None]) -> None:
        self._handlers.append(handler)
        for secret in self._secrets.values():
            handler(None, secret)

    def add_leave_handler(self, changed: Callable[[], None]) -> None:
        """Call it when this node is to serve, or not any more, or otherwise."""
        self._leave_handlers.append(changed)

    async def run(self) -> None:
        """Until cancelled. What fails is tried again; who is away changes nothing."""
        delay_s = RETRY_MIN_S
        while True:
            self._wake.clear()
            longest_s = RETRY_MAX_S
            try:
                await self._follow()
                delay_s = RETRY_MIN_S
            except (Forbidden, NotFound) as refusal:
                log.info("this node serves no Ingress: %s", refusal)
                self._end()
                longest_s = REFUSED_RETRY_MAX_S
            except (APIError, msgspec.MsgspecError) as error:
                log.warning("certificates of Ingress: %s; trying again", error)
            try:
                async with self._clock.timeout(delay_s * (0.5 + self._clock.random.random())):
                    await self._wake.wait()
                    delay_s = RETRY_MIN_S
            except TimeoutError:
                delay_s = min(delay_s * 2, longest_s)

    async def _follow(self) -> None:
        """Until the server ends it. Raises APIError."""
        seen: set[str] = set()
        async with aclosing(self._client.lines(PATH, {"watch": "true"})) as pieces:
            while True:
                try:
                    async with self._clock.timeout(SILENCE_MAX_S):
                        lines = await anext(pieces, None)
                except TimeoutError:
                    raise ServiceUnavailable(f"nothing was heard for {SILENCE_MAX_S:g} s") from None
                if lines is None:
                    return
                for line in lines:
                    self._take(msgspec.json.decode(line, type=Line), seen)

    def _take(self, line: Line, seen: set[str]) -> None:
        if line.terms is not None and line.terms != self.terms:
            self.terms = line.terms
            self._tell_leave()
        if line.name:
            seen.add(line.name)
            self._put(line.name, _secret(line) if line.version else None)
        if line.complete:
            for name in self._secrets.keys() - seen:
                self._put(name, None)
            self.synced.set()

    def _put(self, name: str, new: Secret | None) -> None:
        old = self._secrets.pop(name, None)
        if new is not None:
            self._secrets[name] = new
        if old is None and new is None:
            return
        if old is None or new is None or old.metadata.resource_version != new.metadata.resource_version:
            for handler in self._handlers:
                handler(old, new)

    def _end(self) -> None:
        """Nothing is kept of what was handed over."""
        self.synced.clear()
        if self.terms is not None:
            self.terms = None
            self._tell_leave()
        for name in list(self._secrets):
            self._put(name, None)

    def _tell_leave(self) -> None:
        for changed in self._leave_handlers:
            changed()

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        """Its labels may say now that it is to serve."""
        if old is None or new is None or new.metadata.name != self._node_name:
            return
        if old.metadata.labels != new.metadata.labels:
            self._wake.set()


def _secret(line: Line) -> Secret:
    namespace, _, name = line.name.partition("/")
    metadata = ObjectMeta(namespace=namespace, name=name, resource_version=line.version)
    return Secret(metadata=metadata, type=TLS_TYPE, data={CERTIFICATE: line.chain, KEY: line.key})
