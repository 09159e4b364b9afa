"""Which addresses the status of an Ingress has, by the Leases of the nodes' Envoys; in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from knarr.api.coordination.v1 import Lease
from knarr.api.core.v1 import Node
from knarr.client.informer import Informers
from knarr.edge.ingress.serving_nodes import ServingNodes, addresses_of
from knarr.simulate.clock import VirtualClock, run
from tests.network.feed import Feed

DURATION_S = 15


def node(number: int, *, external: str = "", age_s: int = 0, second: str = "", excluded: bool = False) -> Node:
    addresses = [{"type": "InternalIP", "address": f"192.0.2.{number}"}]
    addresses += [{"type": "InternalIP", "address": second}] if second else []
    addresses += [{"type": "ExternalIP", "address": external}] if external else []
    created = datetime(2026, 1, 1, tzinfo=UTC) - timedelta(seconds=age_s)
    metadata = {"name": f"n{number}", "creationTimestamp": created, "labels": {"excluded": ""} if excluded else {}}
    return msgspec.convert({"metadata": metadata, "status": {"addresses": addresses}}, Node)


def lease(number: int, ports: str = "80,443", *, kind: str = "edge") -> Lease:
    metadata = {
        "name": f"{kind}.n{number}",
        "namespace": "kube-system",
        "annotations": {"knarr.dev/served-ports": ports},
    }
    return msgspec.convert({"metadata": metadata, "spec": {"leaseDurationSeconds": DURATION_S}}, Lease)


class Rig:
    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.feed = Feed()
        informers = Informers(self.feed.client, clock)
        self.changes: list[list[str] | None] = []
        self.nodes = ServingNodes(
            informers,
            clock,
            lambda node: "excluded" not in node.metadata.labels,
            lambda: self.changes.append(self.nodes.addresses()),
        )
        self.tasks = [asyncio.create_task(each()) for each in (informers.run, self.nodes.run)]

    async def told(self, *changes: list[str]) -> None:
        """These were told since the last time."""
        await self.clock.sleep(0.5)
        assert self.changes == list(changes)
        self.changes.clear()


def scenario(body: Callable[[Rig], Awaitable[None]]) -> None:
    async def whole(clock: VirtualClock) -> None:
        rig = Rig(clock)
        await body(rig)
        for task in rig.tasks:
            task.cancel()
        await asyncio.gather(*rig.tasks, return_exceptions=True)

    run(whole)


def test_a_node_is_named_from_when_it_listens_until_it_is_no_longer_heard_of() -> None:
    async def body(rig: Rig) -> None:
        rig.feed.put(node(1, age_s=9))
        rig.feed.put(node(2))
        rig.feed.put(lease(1))
        await rig.told(["192.0.2.1"])
        rig.feed.put(lease(2, ports=""))
        rig.feed.put(lease(2, kind="data-plane"))
        await rig.told()
        rig.feed.put(lease(2))
        await rig.told(["192.0.2.1", "192.0.2.2"])
        for _ in range(8):
            await rig.clock.sleep(5)
            rig.feed.put(lease(1))
        await rig.told(["192.0.2.1"])

    scenario(body)


def test_while_the_leases_are_not_known_nothing_is_said() -> None:
    async def whole(clock: VirtualClock) -> None:
        feed = Feed()
        feed.put(node(1))
        feed.put(lease(1))
        informers = Informers(feed.client, clock)
        nodes = ServingNodes(informers, clock, lambda node: True, lambda: None)
        before = nodes.addresses()
        running = asyncio.create_task(informers.run())
        await clock.sleep(1)
        assert (before, nodes.addresses()) == (None, ["192.0.2.1"])
        running.cancel()

    run(whole)


def test_one_that_is_heard_of_in_time_never_comes_and_goes() -> None:
    async def body(rig: Rig) -> None:
        rig.feed.put(node(1))
        rig.feed.put(lease(1))
        await rig.told(["192.0.2.1"])
        for _ in range(20):
            await rig.clock.sleep(DURATION_S - 1)
            rig.feed.put(lease(1))
            rig.feed.put(node(1))
        await rig.told()

    scenario(body)


def test_one_that_takes_its_lease_with_it_is_gone_at_once() -> None:
    async def body(rig: Rig) -> None:
        rig.feed.put(node(1))
        rig.feed.put(lease(1))
        await rig.told(["192.0.2.1"])
        rig.feed.delete(lease(1))
        await rig.told([])
        rig.feed.put(lease(1))
        await rig.told(["192.0.2.1"])
        rig.feed.delete(node(1))
        await rig.told([])

    scenario(body)


def test_one_that_is_not_to_serve_any_more_is_gone_before_its_envoy_has_heard_of_it() -> None:
    async def body(rig: Rig) -> None:
        rig.feed.put(node(1))
        rig.feed.put(lease(1))
        await rig.told(["192.0.2.1"])
        rig.feed.put(node(1, excluded=True))
        await rig.told([])

    scenario(body)


def test_the_oldest_comes_first_external_addresses_win_and_no_address_comes_twice() -> None:
    nodes: list[Any] = [
        node(3, age_s=1, second="2001:db8::3"),
        node(2, age_s=5, external="203.0.113.2"),
        node(1, age_s=1),
        node(4, external="203.0.113.2"),
    ]
    assert addresses_of(nodes) == ["203.0.113.2", "192.0.2.1", "192.0.2.3", "2001:db8::3"]
