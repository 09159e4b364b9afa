"""How a data plane acknowledges, in virtual time, over a real API server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from knarr.api.coordination import data_planes
from knarr.api.coordination.v1 import Lease
from knarr.api.core.v1 import Namespace, Node
from knarr.api.discovery.v1 import Endpoint, EndpointConditions, EndpointSlice
from knarr.api.errors import NotFound, ServiceUnavailable
from knarr.api.meta.v1 import ObjectMeta
from knarr.api.registry import built_in
from knarr.apiserver.server import APIServer, InProcessTransport
from knarr.client.client import Client
from knarr.client.informer import Informer, Informers, version_of
from knarr.client.transport import Answer, Request, User
from knarr.network.acknowledgement import GIVE_UP_S, LEASE_S, RENEW_S, Acknowledgement, withdraw
from knarr.simulate.clock import VirtualClock, run
from knarr.store.memory import MemoryStore

NODE = User("system:node:one", ("system:nodes", "system:authenticated"))
ADMINISTRATOR = User("admin", ("system:masters", "system:authenticated"))


class FakeDataPlane:
    """It takes over a revision `delay_s` after it has seen it, or never while it hangs."""

    def __init__(self, informer: Informer[EndpointSlice], clock: VirtualClock, delay_s: float = 0.05) -> None:
        self.applied_revision = 0
        self.works = asyncio.Event()
        self.works.set()
        self._informer = informer
        self._clock = clock
        self._delay_s = delay_s

    async def synced(self, revision: int) -> None:
        await self._informer.reached(revision)
        if self.applied_revision < revision:
            await self._clock.sleep(self._delay_s)
            await self.works.wait()
            self.applied_revision = max(self.applied_revision, revision)


class Rig:
    """An API server, a data plane on node one, and its acknowledgement."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.server = APIServer(MemoryStore(), built_in(), clock)
        self.refused = False
        self.hangs = False
        self.writes = 0
        self.client = Client(InProcessTransport(self.server), built_in(), ADMINISTRATOR)
        informers = self.informers = Informers(self.client, clock)
        self.data_plane = FakeDataPlane(informers.of(EndpointSlice), clock)
        client = Client(self, built_in(), NODE)
        self.also = {"knarr.dev/served-ports": "80"}
        self.told = Acknowledgement(client, informers, clock, self.data_plane, node_name="one", also=lambda: self.also)

    async def send(self, request: Request) -> Answer:
        """The node's own way to the API server."""
        self.writes += request.method != "GET"
        if self.refused:
            raise ServiceUnavailable("refused")
        if self.hangs:
            await asyncio.Event().wait()
        return await InProcessTransport(self.server).send(request)

    async def close(self) -> None:
        return None

    async def slice(self, name: str, *, ready: bool = True) -> int:
        """Write a slice; answers the revision."""
        metadata = ObjectMeta(name=name, namespace="default")
        endpoint = Endpoint(addresses=["10.244.0.9"], conditions=EndpointConditions(ready=ready))
        wanted = EndpointSlice(metadata=metadata, address_type="IPv4", endpoints=[endpoint])
        try:
            found = await self.client.get(EndpointSlice, name, "default")
        except NotFound:
            return version_of(await self.client.create(wanted))
        wanted.metadata = found.metadata
        return version_of(await self.client.update(wanted))

    async def lease(self) -> Lease:
        return await self.client.get(Lease, "data-plane.one", data_planes.NAMESPACE)

    async def acknowledged(self) -> int:
        return int((await self.lease()).metadata.annotations[data_planes.APPLIED_REVISION])

    async def acknowledges(self, revision: int, within_s: float = 1.0) -> None:
        async with self.clock.timeout(within_s):
            while await self.acknowledged() < revision:
                await self.clock.sleep(0.01)


def simulate(scenario: Callable[[Rig], Awaitable[None]]) -> None:
    async def main(clock: VirtualClock) -> None:
        rig = Rig(clock)
        for name in ("default", "kube-system"):
            await rig.client.create(Namespace(metadata=ObjectMeta(name=name)))
        await rig.client.create(Node(metadata=ObjectMeta(name="one")))
        tasks = [asyncio.ensure_future(each.run()) for each in (rig.informers, rig.told)]
        await clock.sleep(0.5)
        await scenario(rig)
        assert not any(task.done() for task in tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    run(main)


def test_a_data_plane_has_a_lease_that_goes_with_its_node() -> None:
    async def scenario(rig: Rig) -> None:
        lease = await rig.lease()
        assert lease.spec is not None
        assert (lease.spec.holder_identity, lease.spec.lease_duration_seconds) == ("one", LEASE_S)
        assert lease.metadata.labels == {data_planes.LABEL: "data-plane"}
        assert [(owner.kind, owner.name) for owner in lease.metadata.owner_references] == [("Node", "one")]

    simulate(scenario)


def test_a_node_that_leaves_takes_its_leases_along_if_it_can() -> None:
    async def main(clock: VirtualClock) -> None:
        rig = Rig(clock)
        await rig.client.create(Namespace(metadata=ObjectMeta(name="kube-system")))
        names = ("data-plane.one", "edge.one", "data-plane.two", "one")
        for name in names:
            await rig.client.create(Lease(metadata=ObjectMeta(name=name, namespace="kube-system")))
        node = Client(rig, built_in(), NODE)

        async def left() -> list[str]:
            return [each.metadata.name or "" for each in (await rig.client.list(Lease, "kube-system")).items]

        rig.refused = True
        await withdraw(node, clock, "one")
        assert sorted(await left()) == sorted(names)
        rig.refused = False
        await withdraw(node, clock, "one")
        assert sorted(await left()) == ["data-plane.two", "one"]
        await withdraw(node, clock, "one")

        rig.hangs = True
        began_s = clock.monotonic_s()
        await withdraw(node, clock, "one")
        assert clock.monotonic_s() - began_s == GIVE_UP_S

    run(main)


def test_a_change_is_acknowledged_once_it_is_in_force_and_not_before() -> None:
    async def scenario(rig: Rig) -> None:
        rig.data_plane.works.clear()
        revision = await rig.slice("web")
        await rig.clock.sleep(3.0)
        assert await rig.acknowledged() < revision
        rig.data_plane.works.set()
        await rig.acknowledges(revision, within_s=0.2)
        await rig.acknowledges(await rig.slice("web", ready=False), within_s=0.2)

    simulate(scenario)


def test_many_changes_share_a_write() -> None:
    async def scenario(rig: Rig) -> None:
        before = rig.writes
        for number in range(50):
            revision = await rig.slice(f"web-{number}")
        await rig.acknowledges(revision)
        assert rig.writes - before <= 3

    simulate(scenario)


def test_the_heartbeat_goes_on_while_nothing_changes_and_while_a_change_hangs() -> None:
    async def scenario(rig: Rig) -> None:
        async def renewed_at() -> str:
            spec = (await rig.lease()).spec
            assert spec is not None
            return spec.renew_time or ""

        for hangs in (False, True):
            if hangs:
                rig.data_plane.works.clear()
                revision = await rig.slice("web")
            seen = {await renewed_at()}
            for _ in range(3):
                await rig.clock.sleep(RENEW_S + 0.1)
                seen.add(await renewed_at())
            assert len(seen) == 4
        assert await rig.acknowledged() < revision

    simulate(scenario)


def test_what_the_api_server_did_not_take_is_told_when_it_is_back() -> None:
    async def scenario(rig: Rig) -> None:
        rig.refused = True
        revision = await rig.slice("web")
        await rig.clock.sleep(20.0)
        assert await rig.acknowledged() < revision
        rig.refused = False
        await rig.acknowledges(revision, within_s=10.0)

    simulate(scenario)


def test_what_else_is_to_be_told_is_told_at_once() -> None:
    async def scenario(rig: Rig) -> None:
        assert (await rig.lease()).metadata.annotations["knarr.dev/served-ports"] == "80"
        rig.also["knarr.dev/served-ports"] = "80,443"
        rig.told.tell()
        await rig.clock.sleep(0.2)
        assert (await rig.lease()).metadata.annotations["knarr.dev/served-ports"] == "80,443"

    simulate(scenario)


def test_a_lease_that_somebody_deleted_is_there_again_with_the_next_word() -> None:
    async def scenario(rig: Rig) -> None:
        await rig.client.delete(Lease, "data-plane.one", data_planes.NAMESPACE)
        await rig.clock.sleep(RENEW_S + 0.1)
        await rig.lease()

    simulate(scenario)


def test_a_restarted_data_plane_says_nothing_until_its_rules_are_in_force() -> None:
    async def scenario(rig: Rig) -> None:
        before = await rig.acknowledged()
        fresh = FakeDataPlane(rig.informers.of(EndpointSlice), rig.clock)
        fresh.works.clear()
        again = Acknowledgement(rig.told._client, rig.informers, rig.clock, fresh, node_name="one")
        task = asyncio.ensure_future(again.run())
        await rig.clock.sleep(1.0)
        assert await rig.acknowledged() == before
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    simulate(scenario)
