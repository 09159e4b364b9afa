"""What a user sets about Ingress, and what it becomes."""

from __future__ import annotations

import pytest

from knarr.api.errors import NotFound
from knarr.api.networking.v1 import IngressClass
from knarr.api.registry import built_in
from knarr.apiserver.bootstrap import bootstrap
from knarr.apiserver.server import APIServer, InProcessTransport
from knarr.client.client import Client
from knarr.client.transport import User
from knarr.clock import SystemClock
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
