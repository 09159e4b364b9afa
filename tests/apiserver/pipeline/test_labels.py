"""Lists by label from the index show just what looking at each object would show."""

from __future__ import annotations

import random

import pytest

from knarr.apiserver import labels
from tests.apiserver.pipeline.door import CONFIG_MAPS, Door

ROUNDS = 60
SELECTORS = (
    "app",
    "app=web",
    "app==db,tier=1",
    "app in (web,db)",
    "app in (web,none),tier in (1,2)",
    "app,tier!=1",
    "app=web,!tier",
    "tier>1,app",
    "!app",
    "app!=web",
    "none=at-all",
)


def labelled(name: str, chosen: dict[str, str]) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": chosen}}


async def selected(door: Door, selector: str, path: str = CONFIG_MAPS, **more: str) -> list[str]:
    found = await door.done("GET", path, labelSelector=selector, **more)
    return [item["metadata"]["name"] for item in found["items"]]


async def test_the_index_agrees_with_a_look_at_each_object_whatever_happens(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(7)
    there: set[str] = set()
    for _ in range(ROUNDS):
        name = f"c{chance.randrange(8)}"
        chosen = {
            key: chance.choice(values)
            for key, values in {"app": ["web", "db"], "tier": ["1", "2"]}.items()
            if chance.random() < 0.7
        }
        if name not in there:
            await door.done("POST", CONFIG_MAPS, labelled(name, chosen))
            there.add(name)
        elif chance.random() < 0.4:
            await door.done("DELETE", f"{CONFIG_MAPS}/{name}")
            there.discard(name)
        else:
            await door.done("PUT", f"{CONFIG_MAPS}/{name}", labelled(name, chosen))
        selector = chance.choice(SELECTORS)
        monkeypatch.setattr(labels, "INDEXED_FROM", 10_000)
        looked_at = await selected(door, selector)
        monkeypatch.setattr(labels, "INDEXED_FROM", 1)
        assert await selected(door, selector) == looked_at, selector


async def test_an_index_keeps_to_namespace_field_limit_and_revision(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labels, "INDEXED_FROM", 1)
    for name in "abc":
        await door.done("POST", CONFIG_MAPS, labelled(name, {"app": "web"}))
    elsewhere = CONFIG_MAPS.replace("default", "kube-public")
    await door.done("POST", elsewhere, labelled("d", {"app": "web"}))
    assert await selected(door, "app=web") == ["a", "b", "c"]
    assert await selected(door, "app=web", "/api/v1/configmaps") == ["a", "b", "c", "d"]
    assert await selected(door, "app=web", fieldSelector="metadata.name=b") == ["b"]
    page = await door.done("GET", CONFIG_MAPS, labelSelector="app=web", limit="2")
    await door.done("DELETE", f"{CONFIG_MAPS}/c")
    assert await selected(door, "app=web", limit="2", **{"continue": page["metadata"]["continue"]}) == ["c"]
    assert await selected(door, "app=web") == ["a", "b"]


async def test_the_number_of_indexes_is_bounded(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "INDEXED_FROM", 1)
    monkeypatch.setattr(labels, "INDEXES_MAX", 1)
    await door.done("POST", CONFIG_MAPS, labelled("a", {"app": "web"}))
    for path in (CONFIG_MAPS, "/api/v1/namespaces", CONFIG_MAPS):
        await selected(door, "app=web", path)
    assert list(door.server.reads._labels._indexes) == ["configmaps"]
    assert await selected(door, "app=web") == ["a"]
