"""Events are forgotten after an hour without a repeat, and nothing else is."""

from __future__ import annotations

from knarr.api.core.v1 import ConfigMap, Event, ObjectReference
from knarr.api.meta.v1 import ObjectMeta
from knarr.apiserver.event_expiry import LIFETIME_S, EventExpiry
from knarr.clock import utc
from tests.cluster import Cluster, simulate


def event(name: str, at_s: float) -> Event:
    return Event(
        metadata=ObjectMeta(name=name, namespace="default"),
        involved_object=ObjectReference(kind="Pod", name="p", namespace="default"),
        reason="Told",
        first_timestamp=utc(at_s),
        last_timestamp=utc(at_s),
        count=1,
    )


def test_old_events_go_and_those_counted_again_stay() -> None:
    async def scenario(cluster: Cluster) -> None:
        for name in ("once", "again"):
            await cluster.client.create(event(name, cluster.clock.time_s()))
        await cluster.create(ConfigMap(metadata=ObjectMeta(name="kept", namespace="default")))
        await cluster.clock.sleep(LIFETIME_S - 60)
        patch = {"lastTimestamp": utc(cluster.clock.time_s()), "count": 2}
        await cluster.client.patch(Event, "again", patch, "default")
        expiry = EventExpiry(cluster.store, cluster.clock)
        await expiry.expire()
        assert len(await cluster.events("Told")) == 2
        await cluster.clock.sleep(120)
        await expiry.expire()
        found = [each.metadata.name for each in (await cluster.client.list(Event)).items if each.reason == "Told"]
        assert found == ["again"]
        assert await cluster.client.get(ConfigMap, "kept", "default")

    simulate(scenario, nodes=0)


def test_more_events_than_a_page_holds() -> None:
    async def scenario(cluster: Cluster) -> None:
        for number in range(1200):
            await cluster.client.create(event(f"e{number}", cluster.clock.time_s()))
        await cluster.clock.sleep(LIFETIME_S + 60)
        await EventExpiry(cluster.store, cluster.clock).expire()
        assert not await cluster.events("Told")

    simulate(scenario, nodes=0)
