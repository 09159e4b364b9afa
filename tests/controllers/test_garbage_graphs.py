"""Random graphs of owners, circles and all, from which objects are deleted in the three modes.

What must be there in the end is worked out by a model: who has owners, and none of them left, goes; whose owners let
it go, stays. On the way, an owner that goes in the foreground goes after those that block it.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from knarr.api.core.v1 import ConfigMap
from knarr.api.errors import NotFound
from knarr.api.meta.v1 import ObjectMeta, OwnerReference
from tests.cluster import Cluster, simulate

SIZE = 8
DELETIONS = 3
POLICIES = ("Background", "Foreground", "Orphan")
SETTLE_S = 20.0
SEEDS = 40


@dataclass
class Model:
    """Names → the names of their owners."""

    owners: dict[str, set[str]]
    blocking: set[tuple[str, str]] = field(default_factory=set)
    """(owner, dependent)"""

    def delete(self, name: str, policy: str) -> None:
        if policy == "Orphan":
            for owners in self.owners.values():
                owners.discard(name)
        del self.owners[name]
        while lost := [one for one, owners in self.owners.items() if owners and not owners & self.owners.keys()]:
            for one in lost:
                del self.owners[one]
        for owners in self.owners.values():
            owners.intersection_update(self.owners)


def graph(chance: random.Random) -> Model:
    names = [f"m{number}" for number in range(SIZE)]
    owners = {name: {other for other in names if chance.random() < 0.2} for name in names}
    edges = [(owner, name) for name, listed in owners.items() for owner in sorted(listed)]
    return Model(owners, {edge for edge in edges if chance.random() < 0.7})


def shown(cluster: Cluster) -> Iterator[ConfigMap]:
    for one in cluster.informers.of(ConfigMap).all("default"):
        if (one.metadata.name or "").startswith("m"):
            yield one


async def made(cluster: Cluster, model: Model) -> None:
    uids = {}
    for name in model.owners:
        created = await cluster.create(ConfigMap(metadata=ObjectMeta(name=name, namespace="default")))
        uids[name] = created.metadata.uid or ""
    for name, owners in model.owners.items():
        references = [
            OwnerReference(
                api_version="v1",
                kind="ConfigMap",
                name=owner,
                uid=uids[owner],
                block_owner_deletion=True if (owner, name) in model.blocking else None,
            )
            for owner in sorted(owners)
        ]
        await cluster.patch(ConfigMap, name, {"metadata": {"ownerReferences": references}})


def told_early(cluster: Cluster) -> list[str]:
    """Filled with owners that went in the foreground before a dependent that blocked them."""
    early: list[str] = []

    def gone(old: ConfigMap | None, new: ConfigMap | None) -> None:
        if new is not None or old is None or "foregroundDeletion" not in old.metadata.finalizers:
            return
        early.extend(
            f"{old.metadata.name} before {one.metadata.name}"
            for one in shown(cluster)
            for owner in one.metadata.owner_references
            if owner.uid == old.metadata.uid and owner.block_owner_deletion
        )

    cluster.informers.of(ConfigMap).add_handler(gone)
    return early


def left(cluster: Cluster) -> dict[str, set[str]]:
    """Names → the names of their owners, of those that are there."""
    return {one.metadata.name or "": {owner.name for owner in one.metadata.owner_references} for one in shown(cluster)}


@pytest.mark.parametrize("seed", range(SEEDS))
def test_what_is_left_is_what_the_owners_leave(seed: int) -> None:
    chance = random.Random(seed)
    model = graph(chance)

    async def scenario(cluster: Cluster) -> None:
        await made(cluster, model)
        early = told_early(cluster)
        for _ in range(DELETIONS):
            if not model.owners:
                break
            name, policy = chance.choice(sorted(model.owners)), chance.choice(POLICIES)
            await cluster.client.delete(ConfigMap, name, "default", propagation_policy=policy)
            model.delete(name, policy)
            await cluster.clock.sleep(SETTLE_S)
            there = left(cluster)
            assert {one: owners & there.keys() for one, owners in there.items()} == model.owners, f"{policy} of {name}"
        assert early == []

    simulate(scenario, seed=seed)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_deletions_at_once_leave_nothing_stuck_and_nothing_without_owners(seed: int) -> None:
    chance = random.Random(seed)
    model = graph(chance)

    async def scenario(cluster: Cluster) -> None:
        await made(cluster, model)
        early = told_early(cluster)
        for _ in range(2 * DELETIONS):
            names = sorted(one.metadata.name or "" for one in shown(cluster) if not one.metadata.deletion_timestamp)
            if not names:
                break
            policy = chance.choice(POLICIES)
            with contextlib.suppress(NotFound):
                await cluster.client.delete(ConfigMap, chance.choice(names), "default", propagation_policy=policy)
            await cluster.clock.sleep(chance.choice([0.0, 0.01, 0.1]))
        await cluster.clock.sleep(SETTLE_S)
        assert [one.metadata.name for one in shown(cluster) if one.metadata.deletion_timestamp] == []
        there = left(cluster)
        assert [one for one, owners in there.items() if owners and not owners & there.keys()] == []
        assert early == []

    simulate(scenario, seed=seed)
