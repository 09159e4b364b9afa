"""The chain: who is asked about what, and what a plugin's own index of objects shows."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from knarr.api.core.v1 import ConfigMap, Pod
from knarr.api.errors import ServiceUnavailable
from knarr.api.registry import built_in
from knarr.apiserver.admission import Admission, Attributes, Plugin
from knarr.apiserver.admission.index import Index
from knarr.client.transport import User
from knarr.store import history
from knarr.store.contract import Write
from knarr.store.memory import MemoryStore
from tests.apiserver.pipeline.door import PODS, Door, pod

REGISTRY = built_in()


class Noting(Plugin):
    def __init__(self, name: str, seen: list[str]) -> None:
        self.name, self.seen = name, seen


class Mutating(Noting):
    kinds = (Pod,)
    operations = ("CREATE",)
    subresources = ("",)

    async def mutate(self, attributes: Attributes) -> None:
        self.seen.append(f"{self.name} mutates {attributes.operation}")


class Validating(Noting):
    subresources = ("", "status")

    async def validate(self, attributes: Attributes) -> None:
        self.seen.append(f"{self.name} validates {attributes.operation}")


def about(kind: type[Any], operation: str, subresource: str = "") -> Attributes:
    return Attributes(operation, REGISTRY.of(kind), "default", None, None, User("admin", ()), subresource, name="x")


async def test_a_plugin_is_asked_only_about_what_it_acts_on_and_in_order() -> None:
    seen: list[str] = []
    chain = Admission([Mutating("first", seen), Validating("second", seen), Mutating("third", seen)])
    await chain.admit(about(Pod, "CREATE"))
    assert seen == ["first mutates CREATE", "third mutates CREATE", "second validates CREATE"]
    seen.clear()
    for attributes in (about(Pod, "UPDATE"), about(ConfigMap, "CREATE"), about(Pod, "CONNECT", "exec")):
        await chain.admit(attributes)
    assert seen == ["second validates UPDATE", "second validates CREATE"]
    await Admission([Noting("silent", seen)]).admit(about(Pod, "CREATE"))


def test_a_plugin_that_limits_nothing_is_asked_about_everything() -> None:
    for operation in ("CREATE", "UPDATE", "DELETE", "CONNECT"):
        for subresource in ("", "status", "exec", "approval"):
            assert Plugin().concerns(REGISTRY.of(Pod), operation, subresource)


class Watchful(Plugin):
    """Refuses what it is about, and keeps what it was told."""

    operations = ("CONNECT", "DELETE")
    subresources = ("", "attach", "exec", "portforward", "proxy")

    def __init__(self) -> None:
        self.told: list[tuple[str, str, str, str, str]] = []

    async def validate(self, attributes: Attributes) -> None:
        self.told.append(
            (
                attributes.operation,
                attributes.resource.plural,
                attributes.subresource,
                attributes.namespace,
                attributes.name,
            )
        )
        raise attributes.refused("not today")


async def test_deletions_and_connections_are_asked_about(door: Door) -> None:
    await door.done("POST", PODS, pod("a"))
    watchful = Watchful()
    door.server.objects.admission.add(watchful)
    for method, path, query in (
        ("DELETE", f"{PODS}/a", {}),
        ("GET", f"{PODS}/a/exec", {"command": "true"}),
        ("POST", f"{PODS}/a/attach", {}),
        ("GET", f"{PODS}/a/portforward", {}),
        ("GET", f"{PODS}/a/proxy/x", {}),
    ):
        status, refused = await door(method, path, **query)
        assert (status, refused["message"]) == (403, 'pods "a" is forbidden: not today'), path
    assert watchful.told == [
        ("DELETE", "pods", "", "default", "a"),
        *(("CONNECT", "pods", name, "default", "a") for name in ("exec", "attach", "portforward", "proxy")),
    ]
    assert (await door("GET", f"{PODS}/a/log"))[0] != 403, "a log is read, not connected to"


async def test_plugins_can_be_put_in_before_others() -> None:
    seen: list[str] = []
    chain = Admission([Mutating("first", seen), Validating("last", seen)])
    await chain.admit(about(Pod, "CREATE"))
    seen.clear()
    chain.add(Mutating("between", seen), before=Validating)
    await chain.mutate(about(Pod, "CREATE"))
    assert seen == ["first mutates CREATE", "between mutates CREATE"]


def value(name: str, data: str = "") -> bytes:
    return b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"%b"},"data":{"k":"%b"}}' % (
        name.encode(),
        data.encode(),
    )


async def test_an_index_shows_every_write_at_once() -> None:
    store = MemoryStore()
    await store.commit(Write("configmaps/default/a", value("a", "old"), 0))
    index = Index(store, "configmaps", ConfigMap)
    assert [each.data["k"] for each in await index.all("default")] == ["old"]
    revision = await store.commit(
        Write("configmaps/default/a", value("a", "new")), Write("configmaps/other/b", value("b"))
    )
    found = (await index.entries("default"))["a"]
    assert (found.revision, found.obj.data["k"]) == (revision, "new")
    assert await index.get("other", "b")
    await store.commit(Write("configmaps/other/b", None))
    assert await index.get("other", "b") is None
    assert await index.entries("other") == {}


async def test_an_index_begins_again_when_it_was_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "WATCH_BACKLOG_MAX", 3)
    store = MemoryStore()
    index = Index(store, "configmaps", ConfigMap)
    assert list(await index.all("default")) == []
    for number in range(10):
        await store.commit(Write(f"configmaps/default/c{number}", value(f"c{number}")))
    found = await asyncio.gather(*(index.entries("default") for _ in range(3)))
    assert [len(entries) for entries in found] == [10, 10, 10]


async def test_an_index_of_a_closed_store_is_unavailable() -> None:
    store = MemoryStore()
    index = Index(store, "configmaps", ConfigMap)
    await index.all()
    await store.commit(Write("configmaps/default/a", value("a")))
    await store.close()
    await index.all()  # What was there before can still be read.
    index = Index(store, "configmaps", ConfigMap)
    with pytest.raises(ServiceUnavailable):
        await index.all()
