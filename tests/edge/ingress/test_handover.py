"""What nodes are handed to serve Ingress, and what nobody gets: over a real API server, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from msgspec.structs import replace

from knarr.api.core.v1 import Node, Secret
from knarr.api.errors import APIError, Forbidden, ServiceUnavailable
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.networking.v1 import Ingress
from knarr.api.registry import built_in
from knarr.api.selectors import parse_selector
from knarr.apiserver.bootstrap import bootstrap
from knarr.apiserver.server import APIServer, InProcessTransport
from knarr.client.client import MERGE_PATCH, Client
from knarr.client.informer import Informers
from knarr.client.transport import Answer, Request, User
from knarr.edge.ingress.handover import LINES_AT_ONCE, RETRY_MAX_S, SILENCE_MAX_S, Handed, Handover
from knarr.edge.ingress.terms import PATH, Terms
from knarr.simulate.clock import VirtualClock, run
from knarr.store.memory import MemoryStore
from tests.edge.ingress.objects import ingress, tls_secret

ADMINISTRATOR = User("admin", ("system:masters", "system:authenticated"))
TERMS = Terms(http_port=80, https_port=443, metrics_port=0, api_server=("192.0.2.1", 6443))
LABEL = "node-restriction.kubernetes.io/edge"
SHOP = [("shop.example", "Prefix", "/", "web")]


def node_user(name: str) -> User:
    return User(f"system:node:{name}", ("system:nodes", "system:authenticated"))


class Line:
    """A node's way to the API server, which may be cut, or go dumb."""

    def __init__(self, server: APIServer) -> None:
        self._inner = InProcessTransport(server)
        self.is_cut = False
        self.dumb = asyncio.Event()
        self.asked = 0
        self.tried = 0

    async def send(self, request: Request) -> Answer:
        if self.is_cut:
            raise ServiceUnavailable("cut")
        answer = await self._inner.send(request)
        self.tried += request.path == PATH
        if request.path == PATH and answer.stream is not None:
            self.asked += 1
            answer.stream = self._until_dumb(answer.stream)
        return answer

    async def _until_dumb(self, stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in stream:
            if self.dumb.is_set():
                await asyncio.Event().wait()
            yield chunk

    async def close(self) -> None:
        return


class Rig:
    """An API server that hands over, and node `one`, which has the label."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.server = APIServer(MemoryStore(), built_in(), clock)
        self.client = self.as_user(ADMINISTRATOR)
        self.informers = Informers(self.client, clock)
        selector = parse_selector(LABEL)
        self.handover = Handover(self.informers, clock, TERMS, lambda node: selector.matches(node.metadata.labels))
        self.server.pages[PATH] = self.handover.answer
        self.line = Line(self.server)
        self.node = Client(self.line, built_in(), node_user("one"))
        self.told: list[str] = []
        self.leave: list[bool] = []

    def as_user(self, user: User) -> Client:
        return Client(InProcessTransport(self.server), built_in(), user)

    async def start(self) -> Handed:
        await bootstrap(self.client, ["10.96.0.0/16"], ["10.96.0.10"], "192.0.2.1", 6443, ingress_class="default")
        await self.client.create(Node(metadata=ObjectMeta(name="one", labels={LABEL: "yes"})))
        await self.client.create(Node(metadata=ObjectMeta(name="two")))
        informers = Informers(self.node, self.clock)
        handed = Handed(self.node, informers, self.clock, "one")
        handed.add_handler(lambda old, new: self.told.append(f"{'+' if new else '-'}{(new or old).metadata.name}"))  # type: ignore[union-attr]
        handed.add_leave_handler(lambda: self.leave.append(handed.terms is not None))
        self.tasks = [asyncio.create_task(each()) for each in (self.informers.run, informers.run, handed.run)]
        return handed

    async def shows(self, *changed: str) -> None:
        """Just these were told since the last time."""
        await self.clock.sleep(1.0)
        assert sorted(self.told) == sorted(changed)
        self.told.clear()


def scenario(body: Callable[[Rig, Handed], Awaitable[None]]) -> None:
    async def whole(clock: VirtualClock) -> None:
        rig = Rig(clock)
        handed = await rig.start()
        await body(rig, handed)
        for task in rig.tasks:
            task.cancel()
        await asyncio.gather(*rig.tasks, return_exceptions=True)

    run(whole)


def test_a_node_gets_what_ingresses_name_and_nothing_else() -> None:
    async def body(rig: Rig, handed: Handed) -> None:
        for name in ("web", "unnamed"):
            await rig.client.create(tls_secret(name, "shop.example"))
        opaque = tls_secret("opaque", "shop.example")
        opaque.type = "Opaque"
        await rig.client.create(opaque)
        named = [(name, ["shop.example"]) for name in ("web", "opaque", "missing")]
        await rig.client.create(ingress("web", SHOP, tls=named, created=False))
        await rig.client.create(ingress("others", SHOP, tls=[("unnamed", [])], class_name="others", created=False))
        await rig.shows("+web")
        assert handed.synced.is_set()
        assert handed.terms == TERMS
        found = handed.get("default/web")
        assert found is not None
        kept = await rig.client.get(Secret, "web", "default")
        assert (found.type, dict(found.data)) == (kept.type, dict(kept.data))
        for name in ("unnamed", "opaque", "missing"):
            assert handed.get(f"default/{name}") is None

    scenario(body)


def test_many_come_whole() -> None:
    async def body(rig: Rig, handed: Handed) -> None:
        pair = tls_secret("web", "shop.example")
        names = [f"web-{number}" for number in range(3 * LINES_AT_ONCE)]
        for name in names:
            pair.metadata.name = name
            await rig.client.create(pair)
        await rig.client.create(ingress("web", SHOP, tls=[(name, []) for name in names], created=False))
        await rig.shows(*(f"+{name}" for name in names))

    scenario(body)


def test_it_is_told_of_each_change_once() -> None:
    async def body(rig: Rig, handed: Handed) -> None:
        await rig.client.create(tls_secret("web", "shop.example"))
        made = await rig.client.create(ingress("web", SHOP, tls=[("web", [])], created=False))
        await rig.shows("+web")
        rotated = tls_secret("web", "shop.example")
        await rig.client.patch(Secret, "web", {"data": rotated.data}, "default")
        await rig.shows("+web")
        found = handed.get("default/web")
        assert found is not None
        assert dict(found.data) == dict(rotated.data)
        await rig.client.patch(Ingress, "web", {"metadata": {"labels": {"a": "b"}}}, "default")
        await rig.shows()
        await rig.client.delete(Ingress, made.metadata.name or "", "default")
        await rig.shows("-web")
        assert handed.get("default/web") is None

    scenario(body)


@pytest.mark.parametrize(
    ("user", "status"),
    [
        (node_user("two"), 403),
        (node_user("three"), 403),
        (ADMINISTRATOR, 403),
        (User("system:node:one", ("system:authenticated",)), 403),
        (User("jane", ("system:nodes", "system:authenticated")), 403),
        (User("system:serviceaccount:default:default", ("system:serviceaccounts", "system:authenticated")), 403),
        (User("system:anonymous", ("system:unauthenticated",)), 403),
    ],
)
def test_only_nodes_that_are_to_serve_get_anything(user: User, status: int) -> None:
    async def body(rig: Rig, handed: Handed) -> None:
        answer = await InProcessTransport(rig.server).send(Request("GET", PATH, {"watch": "true"}, user=user))
        assert (answer.status, answer.stream) == (status, None)

    scenario(body)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "HEAD"])
def test_there_is_nothing_to_write(method: str) -> None:
    async def body(rig: Rig, handed: Handed) -> None:
        answer = await InProcessTransport(rig.server).send(Request(method, PATH, user=node_user("one")))
        assert answer.status in (403, 405)
        assert answer.stream is None

    scenario(body)


def test_what_is_handed_over_can_not_be_read_as_a_secret() -> None:
    async def body(rig: Rig, handed: Handed) -> None:
        await rig.client.create(tls_secret("web", "shop.example"))
        await rig.client.create(ingress("web", SHOP, tls=[("web", [])], created=False))
        await rig.shows("+web")
        with pytest.raises(Forbidden):
            await rig.node.get(Secret, "web", "default")
        with pytest.raises(Forbidden):
            await rig.node.list(Secret)

    scenario(body)


def test_a_node_that_is_not_to_serve_any_more_keeps_nothing_and_may_come_again() -> None:
    async def body(rig: Rig, handed: Handed) -> None:
        await rig.client.create(tls_secret("web", "shop.example"))
        await rig.client.create(ingress("web", SHOP, tls=[("web", [])], created=False))
        await rig.shows("+web")
        for labels, changed, serves in (({LABEL: None}, "-web", False), ({LABEL: "again"}, "+web", True)):
            patch = {"metadata": {"labels": labels}}
            await rig.client.patch(Node, "one", patch, content_type=MERGE_PATCH)
            await rig.shows(changed)
            assert (handed.terms is not None, handed.synced.is_set()) == (serves, serves)
        assert rig.leave == [True, False, True]

    scenario(body)


def test_a_node_goes_on_with_what_it_has_while_the_api_server_is_away() -> None:
    async def body(rig: Rig, handed: Handed) -> None:
        await rig.client.create(tls_secret("web", "shop.example"))
        await rig.client.create(ingress("web", SHOP, tls=[("web", [])], created=False))
        await rig.shows("+web")
        rig.line.is_cut = True
        rig.line.dumb.set()
        await rig.clock.sleep(10 * SILENCE_MAX_S)
        assert handed.get("default/web") is not None
        assert handed.terms == TERMS
        await rig.client.create(tls_secret("new", "new.example"))
        await rig.client.create(ingress("new", [("new.example", "Prefix", "/", "web")], tls=[("new", [])]))
        await rig.client.delete(Ingress, "web", "default")
        await rig.shows()
        rig.line.dumb.clear()
        rig.line.is_cut = False
        await rig.clock.sleep(2 * RETRY_MAX_S)
        await rig.shows("+new", "-web")

    scenario(body)


def test_a_node_follows_the_ports_of_a_server_that_was_started_again_with_others() -> None:
    async def body(rig: Rig, handed: Handed) -> None:
        await rig.client.create(ingress("web", SHOP, created=False))
        await rig.clock.sleep(1.0)
        assert handed.terms == TERMS
        others = replace(TERMS, http_port=8081, https_port=0)
        rig.server.pages[PATH] = Handover(rig.informers, rig.clock, others, lambda node: True).answer
        rig.line.dumb.set()
        await rig.clock.sleep(2 * SILENCE_MAX_S)
        rig.line.dumb.clear()
        await rig.clock.sleep(2 * SILENCE_MAX_S)
        assert handed.terms == others
        assert rig.leave == [True, True]

    scenario(body)


def test_a_connection_on_which_nothing_comes_is_made_anew_and_a_quiet_one_is_not() -> None:
    async def body(rig: Rig, handed: Handed) -> None:
        await rig.client.create(ingress("web", SHOP, created=False))
        await rig.clock.sleep(10 * SILENCE_MAX_S)
        assert rig.line.asked == 1
        rig.line.dumb.set()
        await rig.clock.sleep(1.5 * SILENCE_MAX_S)
        assert rig.line.asked > 1

    scenario(body)


def test_who_is_not_to_serve_asks_seldom() -> None:
    async def body(rig: Rig, handed: Handed) -> None:
        await rig.client.patch(Node, "one", {"metadata": {"labels": {LABEL: None}}}, content_type=MERGE_PATCH)
        await rig.clock.sleep(3600.0)
        assert 60 < rig.line.tried < 130
        await rig.client.patch(Node, "one", {"metadata": {"labels": {LABEL: ""}}}, content_type=MERGE_PATCH)
        await rig.clock.sleep(1.0)
        assert handed.terms == TERMS

    scenario(body)


def test_a_server_that_hands_nothing_over_makes_no_node_serve() -> None:
    async def body(rig: Rig, handed: Handed) -> None:
        del rig.server.pages[PATH]
        await rig.client.create(ingress("web", SHOP, created=False))
        rig.line.dumb.set()
        await rig.clock.sleep(3 * SILENCE_MAX_S)
        assert (handed.terms, handed.synced.is_set()) == (None, False)
        with pytest.raises(APIError):
            async for _ in rig.node.lines(PATH, {"watch": "true"}):
                pass

    scenario(body)
