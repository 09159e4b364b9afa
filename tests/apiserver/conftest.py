"""One API server, reached in both ways: in process and over HTTPS."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from knarr import pki
from knarr.api.core.v1 import Namespace, ServiceAccount
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.registry import built_in
from knarr.apiserver.authenticate import Tokens
from knarr.apiserver.listener import Listener, tls_context
from knarr.apiserver.reconcile_roles import reconcile_roles
from knarr.apiserver.server import APIServer, InProcessTransport
from knarr.client.client import Client
from knarr.client.https import HTTPSTransport, client_context
from knarr.client.transport import Request, Transport, User
from knarr.clock import SystemClock
from knarr.store.memory import MemoryStore

ADMIN = User("kubernetes-admin", ("system:masters", "system:authenticated"))
ISSUER = "https://kubernetes.default.svc.cluster.local"


@dataclass
class Door:
    """A server, and a way to it."""

    server: APIServer
    transport: Transport
    client: Client
    user: User | None
    pki: pki.Pki
    base_url: str = ""

    async def raw(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        accept: str = "application/json",
        **query: str,
    ) -> tuple[int, Any]:
        """Status and decoded answer of one request. `body` may be bytes."""
        if body is not None and not isinstance(body, bytes):
            body = msgspec.json.encode(body)
        headers = {"accept": accept} | ({"content-type": content_type} if body is not None else {})
        answer = await self.transport.send(Request(method, path, query, headers, body or b"", self.user))
        self.warnings = answer.warnings
        if "json" not in {name.lower(): value for name, value in answer.headers.items()}.get("content-type", ""):
            return answer.status, answer.body
        return answer.status, msgspec.json.decode(answer.body) if answer.body else None


@pytest.fixture(params=["in-process", "https"])
async def door(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Door]:
    clock = SystemClock(36)
    keys = pki.ensure(tmp_path / "pki", clock, dns_names=["localhost"], addresses=["127.0.0.1"])
    store = MemoryStore()
    tokens = Tokens(store, clock, load_pem_private_key(keys.service_account_key_pem, None), ISSUER, [ISSUER])
    server = APIServer(store, built_in(), clock, tokens=tokens)
    inside = InProcessTransport(server)
    first = Client(inside, server.registry, ADMIN)
    await first.create(Namespace(metadata=ObjectMeta(name="default")))
    await first.create(Namespace(metadata=ObjectMeta(name="kube-system")))
    await first.create(Namespace(metadata=ObjectMeta(name="kube-public")))
    await reconcile_roles(first)
    await first.create(ServiceAccount(metadata=ObjectMeta(name="default", namespace="default")))
    if request.param == "in-process":
        yield Door(server, inside, first, ADMIN, keys)
        await store.close()
        return
    listener = Listener(server, tls_context(keys.apiserver, keys.ca), "127.0.0.1", 0)
    url = f"https://127.0.0.1:{await listener.start()}"
    admin = keys.admin
    context = client_context(str(keys.ca.certificate_path), str(admin.certificate_path), str(admin.key_path))
    transport = HTTPSTransport(url, context)
    yield Door(server, transport, Client(transport, server.registry), None, keys, url)
    await transport.close()
    await listener.close()
    await store.close()
