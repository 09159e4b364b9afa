"""The client's contract: the same over HTTPS as within the process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from knarr.api.core.v1 import ConfigMap, Pod, ServiceAccount
from knarr.api.errors import (
    AlreadyExists,
    Conflict,
    Expired,
    Forbidden,
    Invalid,
    NotFound,
    ServiceUnavailable,
    Unauthorized,
)
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.types import replace
from knarr.client.client import MERGE_PATCH, Client
from knarr.client.https import HTTPSTransport, client_context
from knarr.client.informer import Informer
from knarr.clock import SystemClock
from tests.apiserver.pipeline.door import ADMINISTRATOR, Door, open_door
from tests.apiserver.pipeline.served import serve


@pytest.fixture(params=["in process", "HTTPS"])
async def way(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Client, Door]]:
    if request.param == "in process":
        async with open_door() as door:
            yield door.client, door
        return
    async with serve(tmp_path) as served:
        transport = served.transport()
        yield Client(transport, served.door.server.registry), served.door
        await transport.close()


def config_map(name: str, **data: str) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name=name, namespace="default"), data=data)


async def test_an_object_is_made_read_changed_and_removed(way: tuple[Client, Door]) -> None:
    client, _ = way
    made = await client.create(config_map("a", x="1"))
    assert await client.get(ConfigMap, "a", "default") == made
    changed = await client.update(replace(made, data={"x": "2"}))
    assert changed.data == {"x": "2"}
    patched = await client.patch(ConfigMap, "a", {"data": {"y": "3"}}, "default", content_type=MERGE_PATCH)
    assert patched.data == {"x": "2", "y": "3"}
    await client.delete(ConfigMap, "a", "default", uid=made.metadata.uid)
    with pytest.raises(NotFound, match='configmaps "a" not found'):
        await client.get(ConfigMap, "a", "default")


async def test_lists_are_typed_selected_and_know_their_moment(way: tuple[Client, Door]) -> None:
    client, door = way
    for name in ("a", "b"):
        labelled = config_map(name)
        labelled.metadata.labels = {"name": name}
        await client.create(labelled)
    found = await client.list(ConfigMap, "default", label_selector="name=b")
    assert [item.metadata.name for item in found.items] == ["b"]
    assert found.resource_version == str(door.store.revision)
    found = await client.list(ConfigMap, field_selector="metadata.name=a")
    assert [item.metadata.name for item in found.items] == ["a"]


async def test_errors_are_the_exceptions_of_the_server(way: tuple[Client, Door]) -> None:
    client, _ = way
    made = await client.create(config_map("a"))
    with pytest.raises(AlreadyExists) as exists:
        await client.create(config_map("a"))
    assert (exists.value.kind, exists.value.name) == ("configmaps", "a")
    await client.update(replace(made, data={"x": "1"}))
    with pytest.raises(Conflict):
        await client.update(replace(made, data={"x": "2"}))
    with pytest.raises(Conflict):
        await client.delete(ConfigMap, "a", "default", uid="other")
    with pytest.raises(Invalid) as invalid:
        await client.create(config_map("Not_A_Name"))
    assert [cause.field for cause in invalid.value.causes] == ["metadata.name"]


async def test_a_large_object_comes_through(way: tuple[Client, Door]) -> None:
    client, _ = way
    made = await client.create(config_map("a", **{f"k{number}": "x" * 100_000 for number in range(10)}))
    assert await client.get(ConfigMap, "a", "default") == made


async def test_a_watch_follows_and_can_be_left(way: tuple[Client, Door]) -> None:
    client, _ = way
    start = (await client.list(ConfigMap, "default")).resource_version
    seen = []
    async with aclosing(client.watch(ConfigMap, "default", resource_version=start)) as events:
        made = await client.create(config_map("a", x="1"))
        await client.update(replace(made, data={"x": "2"}))
        await client.delete(ConfigMap, "a", "default")
        async for event in events:
            seen.append((event.type, event.object.metadata.name))
            if event.type == "DELETED":
                break
    assert seen == [("ADDED", "a"), ("MODIFIED", "a"), ("DELETED", "a")]


async def test_a_watch_from_forgotten_history_has_expired(way: tuple[Client, Door]) -> None:
    client, door = way
    await client.create(config_map("a"))
    await door.store.compact(door.store.revision)
    with pytest.raises(Expired):
        async for _ in client.watch(ConfigMap, "default", resource_version="1"):
            pass


async def test_an_informer_follows(way: tuple[Client, Door]) -> None:
    client, door = way
    await client.create(config_map("a", x="1"))
    informer = Informer(client, ConfigMap, SystemClock())
    task = asyncio.create_task(informer.run())
    try:
        await informer.synced.wait()
        assert informer.get("default/a") is not None
        for number in range(100):
            await client.create(config_map(f"n{number}"))
        async with asyncio.timeout(20):
            await informer.reached(door.store.revision)
        assert len(informer.all("default")) == 101
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_token_is_asked_for_and_says_who_asks(tmp_path: Path) -> None:
    async with serve(tmp_path) as served:
        wanted = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        answered = await served.door.client.post(ServiceAccount, "default", "default", "token", wanted)
        for token, refusal in (
            (answered["status"]["token"], 'User "system:serviceaccount:default:default" cannot list resource "pods"'),
            ("", 'User "system:anonymous" cannot list resource "pods"'),
            ("wrong", "Unauthorized"),
        ):
            transport = served.transport(token, certificate=False)
            try:
                with pytest.raises((Forbidden, Unauthorized), match=refusal):
                    await Client(transport, served.door.server.registry).list(Pod, "default")
            finally:
                await transport.close()


async def test_a_server_that_goes_ends_watches_and_is_unavailable(tmp_path: Path) -> None:
    async with serve(tmp_path) as served:
        transport = served.transport()
        client = Client(transport, served.door.server.registry)
        start = (await client.list(ConfigMap)).resource_version
        events = client.watch(ConfigMap, resource_version=start)
        await client.create(config_map("a"))
        assert (await anext(events)).type == "ADDED"
    with pytest.raises((ServiceUnavailable, StopAsyncIteration)):
        await anext(events)
    with pytest.raises(ServiceUnavailable):
        await client.list(ConfigMap)
    await transport.close()


async def test_a_server_of_another_ca_is_not_trusted(tmp_path: Path) -> None:
    async with serve(tmp_path / "one") as served, serve(tmp_path / "two") as other:
        transport = HTTPSTransport(served.url, client_context(other.ca))
        with pytest.raises(ServiceUnavailable):
            await Client(transport, served.door.server.registry, ADMINISTRATOR).list(ConfigMap)
        await transport.close()
