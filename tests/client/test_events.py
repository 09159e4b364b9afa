"""Events are counted, combined and limited as client-go's correlator does."""

from __future__ import annotations

from knarr.api.core.v1 import ConfigMap, Event
from knarr.api.meta.v1 import ObjectMeta
from knarr.client.events import BURST_MAX, COMBINED, QUEUE_MAX, SIMILAR_MAX, EventRecorder
from tests.cluster import Cluster, simulate


def about(name: str = "thing") -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name=name, namespace="default", uid=f"uid-{name}"))


async def told(cluster: Cluster, reason: str) -> list[Event]:
    return [event for event in (await cluster.client.list(Event, "default")).items if event.reason == reason]


def recorder(cluster: Cluster) -> EventRecorder:
    """One that a running loop writes out."""
    return cluster.loops[0].events


def test_a_repeat_is_counted() -> None:
    async def scenario(cluster: Cluster) -> None:
        for _ in range(3):
            recorder(cluster).normal(about(), "Again", "the same")
            await cluster.clock.sleep(10)
        (event,) = await told(cluster, "Again")
        assert (event.count, event.type, event.message) == (3, "Normal", "the same")
        assert event.first_timestamp is not None
        assert event.last_timestamp is not None
        assert (event.last_timestamp - event.first_timestamp).total_seconds() == 20
        assert (event.involved_object.kind, event.involved_object.name) == ("ConfigMap", "thing")
        assert event.source is not None
        assert event.source.component == cluster.loops[0].name

    simulate(scenario, nodes=0)


def test_too_many_similar_ones_become_one() -> None:
    async def scenario(cluster: Cluster) -> None:
        for number in range(SIMILAR_MAX + 5):
            recorder(cluster).warning(about(), "Many", f"number {number}")
        await cluster.clock.sleep(1)
        events = await told(cluster, "Many")
        assert len(events) == SIMILAR_MAX + 1
        (combined,) = [event for event in events if (event.message or "").startswith(COMBINED)]
        assert combined.count == 5
        assert combined.message == f"{COMBINED}number {SIMILAR_MAX + 4}"

    simulate(scenario, nodes=0)


def test_an_object_is_not_flooded_and_others_are_not_harmed_by_it() -> None:
    async def scenario(cluster: Cluster) -> None:
        for number in range(200):
            recorder(cluster).normal(about(), f"Flood{number}", "x")
        recorder(cluster).normal(about("other"), "Quiet", "x")
        await cluster.clock.sleep(1)
        events = (await cluster.client.list(Event, "default")).items
        assert sum((event.reason or "").startswith("Flood") for event in events) == BURST_MAX
        assert len(await told(cluster, "Quiet")) == 1
        await cluster.clock.sleep(301)
        recorder(cluster).normal(about(), "Later", "x")
        await cluster.clock.sleep(1)
        assert len(await told(cluster, "Later")) == 1

    simulate(scenario, nodes=0)


def test_what_waits_is_bounded() -> None:
    async def scenario(cluster: Cluster) -> int:
        idle = EventRecorder(cluster.client, cluster.clock, "idle")
        for number in range(QUEUE_MAX * 2):
            idle.normal(about(f"o{number}"), "Reason", "x")
        return len(idle._pending)

    assert simulate(scenario, nodes=0) == QUEUE_MAX


def test_two_components_may_tell_of_objects_of_one_name_at_the_same_moment() -> None:
    async def scenario(cluster: Cluster) -> None:
        for loop in cluster.loops[:2]:
            loop.events.normal(about(), "Told", f"by {loop.name}")
        await cluster.clock.sleep(1)
        assert len(await told(cluster, "Told")) == 2

    simulate(scenario, nodes=0)
