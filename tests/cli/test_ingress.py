"""What a user sets about Ingress, and what it becomes."""

from __future__ import annotations

import pytest

from knarr.api.errors import NotFound
from knarr.api.networking.v1 import IngressClass
from knarr.api.registry import built_in
from knarr.apiserver.bootstrap import bootstrap
from knarr.apiserver.server import APIServer, InProcessTransport
from knarr.cli.ingress import refusing
from knarr.client.client import Client
from knarr.client.transport import User
from knarr.clock import SystemClock
from knarr.config import Config
from knarr.edge.ingress.model import Endpoint
from knarr.store.memory import MemoryStore

DEFAULT = "ingressclass.kubernetes.io/is-default-class"


async def started(client: Client, ingress_class: str) -> None:
    await bootstrap(client, ["10.96.0.0/16"], ["10.96.0.10"], "192.0.2.1", 6443, ingress_class=ingress_class)


def client_of_a_new_cluster() -> Client:
    user = User("system:apiserver", ("system:masters", "system:authenticated"))
    return Client(InProcessTransport(APIServer(MemoryStore(), built_in(), SystemClock())), built_in(), user)


@pytest.mark.parametrize(("setting", "annotations"), [("default", {DEFAULT: "true"}), ("named", {})])
async def test_a_new_cluster_has_our_class_and_whoever_removes_it_is_rid_of_it(
    setting: str, annotations: dict[str, str]
) -> None:
    client = client_of_a_new_cluster()
    await started(client, setting)
    found = await client.get(IngressClass, "knarr")
    assert found.metadata.annotations == annotations
    assert found.spec
    assert found.spec.controller == "knarr.dev/ingress"
    await client.delete(IngressClass, "knarr")
    await started(client, setting)
    with pytest.raises(NotFound):
        await client.get(IngressClass, "knarr")


async def test_without_ingress_there_is_no_class() -> None:
    client = client_of_a_new_cluster()
    await started(client, "none")
    assert (await client.list(IngressClass)).items == []


@pytest.mark.parametrize(
    ("address", "port", "refused"),
    [
        ("10.244.0.7", 8080, False),
        ("192.0.2.1", 8080, False),
        ("192.0.2.1", 6443, True),
        ("192.0.2.1", 10250, True),
        ("10.244.0.1", 10250, True),
        ("10.96.0.1", 443, True),
        ("127.0.0.1", 8080, True),
        ("169.254.169.254", 80, True),
        ("::1", 80, True),
        ("::ffff:127.0.0.1", 80, True),
        ("not an address", 80, True),
    ],
)
def test_which_endpoints_nobody_reaches_through_us(address: str, port: int, refused: bool) -> None:
    refuse = refusing(Config(advertise_address="192.0.2.1"))
    assert refuse(Endpoint(address, port)) is refused
