"""An API server of a test's own, over memory, with what a cluster has from the start; and how to ask it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from ipaddress import ip_network
from typing import Any, cast

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from knarr.api.registry import built_in
from knarr.apiserver.authenticate import Tokens
from knarr.apiserver.bootstrap import bootstrap
from knarr.apiserver.server import APIServer, InProcessTransport, Settings
from knarr.client.client import Client
from knarr.client.transport import Answer, Request, User
from knarr.clock import SystemClock
from knarr.store.contract import Write
from knarr.store.memory import MemoryStore

ADMINISTRATOR = User("admin", ("system:masters", "system:authenticated"))
ISSUER = "https://kubernetes.default.svc.cluster.local"
PODS = "/api/v1/namespaces/default/pods"
CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
SERVICES = "/api/v1/namespaces/default/services"


class Asking:
    """Requests as plain data, to an API server."""

    def __init__(self, server: APIServer) -> None:
        self.server = server

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        accept: str = "application/json",
        user: User | None = ADMINISTRATOR,
        token: str = "",
        **query: str,
    ) -> Answer:
        headers = {"accept": accept}
        data = b""
        if body is not None:
            data = body if isinstance(body, bytes) else msgspec.json.encode(body)
            headers["content-type"] = content_type
        if token:
            headers["authorization"] = f"Bearer {token}"
        return await self.server.handle(Request(method, path, query, headers, data, user))

    async def __call__(self, method: str, path: str, body: Any = None, **more: Any) -> tuple[int, Any]:
        """Status and decoded JSON."""
        answer = await self.ask(method, path, body, **more)
        assert answer.stream is None
        return answer.status, msgspec.json.decode(answer.body)

    async def done(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """Decoded JSON of what must succeed."""
        status, data = await self(method, path, body, **more)
        assert status < 300, data
        return data

    @asynccontextmanager
    async def watch(self, path: str, **query: str) -> AsyncIterator[Events]:
        answer = await self.ask("GET", path, watch="true", **query)
        assert answer.stream is not None, answer.body
        async with aclosing(cast(Any, answer.stream)) as stream:
            yield Events(stream)


class NotingStore(MemoryStore):
    """Knows what was written, commit by commit."""

    def __init__(self) -> None:
        super().__init__()
        self.commits: list[tuple[Write, ...]] = []

    async def commit(self, *writes: Write) -> int:
        revision = await super().commit(*writes)
        self.commits.append(writes)
        return revision


class Door(Asking):
    """An API server of its own."""

    def __init__(self, nodes: Any = None, **settings: Any) -> None:
        clock = SystemClock(seed=1)
        self.store = NotingStore()
        self.clock = clock
        self.tokens = Tokens(self.store, clock, ec.generate_private_key(ec.SECP256R1()), ISSUER, [ISSUER])
        super().__init__(
            APIServer(self.store, built_in(), clock, Settings(**settings), tokens=self.tokens, nodes=nodes)
        )
        self.client = Client(InProcessTransport(self.server), self.server.registry, ADMINISTRATOR)


class Events:
    """The events of a watch, one by one."""

    def __init__(self, stream: AsyncIterator[bytes]) -> None:
        self._stream = stream
        self._lines: list[bytes] = []

    async def next(self) -> tuple[str, Any]:
        while not self._lines:
            self._lines += (await anext(self._stream)).splitlines()
        event = msgspec.json.decode(self._lines.pop(0))
        return event["type"], event["object"]

    async def take(self, count: int) -> list[tuple[str, str]]:
        """Types and names of the next events."""
        found = [await self.next() for _ in range(count)]
        return [(kind, obj["metadata"]["name"]) for kind, obj in found]


_beginnings: dict[tuple[str, ...], tuple[list[tuple[Write, ...]], Any]] = {}
"""What the first door with these ranges wrote before its test began, and where its chance was then."""


@asynccontextmanager
async def open_door(nodes: Any = None, **settings: Any) -> AsyncIterator[Door]:
    door = Door(nodes, **settings)
    ranges = tuple(door.server.settings.service_cidrs)
    if ranges not in _beginnings:
        await begin(door, ranges)
        _beginnings[ranges] = list(door.store.commits), door.clock.random.getstate()
    else:
        # The same writes at the same revisions: to ask for all that anew takes longer than most tests.
        commits, chance = _beginnings[ranges]
        for writes in commits:
            await door.store.commit(*writes)
        door.clock.random.setstate(chance)
    yield door
    await door.store.close()


async def begin(door: Door, ranges: Sequence[str]) -> None:
    """Make what every cluster has."""
    dns = [str(ip_network(each)[10]) for each in ranges]
    await bootstrap(door.client, ranges, dns, "127.0.0.1", 6443)
    await door.done("POST", "/api/v1/namespaces/default/serviceaccounts", account("default"))


def account(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}


def config_map(name: str, labels: dict[str, str] | None = None, **data: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name}
    if labels:
        metadata["labels"] = labels
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def namespace(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def pod(name: str, *containers: str, **spec: Any) -> dict[str, Any]:
    listed = [{"name": each, "image": "busybox"} for each in containers or ("c",)]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": listed, **spec}}


def deployment(name: str = "web", replicas: int = 3) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "c", "image": "one"}, {"name": "side", "image": "two"}]},
            },
        },
    }


def service(name: str, ports: Sequence[int] = (80,), **spec: Any) -> dict[str, Any]:
    listed = [{"name": f"p{port}", "port": port} for port in ports]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": listed, **spec},
    }


def causes(status: Any) -> list[str]:
    """The fields that a Status names."""
    return [cause.get("field", "") for cause in status["details"].get("causes", ())]
