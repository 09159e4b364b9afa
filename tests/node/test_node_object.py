"""What a node tells about itself."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from knarr.api.core.v1 import Event, Node, NodeCondition, NodeSpec
from knarr.api.meta.v1 import ObjectMeta
from knarr.client.events import EventRecorder
from knarr.client.informer import Informer
from knarr.node.node_object import REPORT_S, STATUS_S, TOLD, NodeObject
from knarr.node.runtime.sim import SimRuntime
from knarr.simulate.clock import VirtualClock, run
from tests.node.cluster import NODE, NodeCluster, hollow_config


def test_a_node_of_two_families_keeps_both_addresses_with_every_report(tmp_path: Path) -> None:
    async def main(clock: VirtualClock) -> None:
        config: Any = hollow_config(tmp_path)
        cluster = NodeCluster(
            clock, SimRuntime(clock), msgspec.structs.replace(config, internal_ips=("10.0.0.1", "fd00::1"))
        )
        async with cluster.running():
            for until_next_s in (STATUS_S / 2, REPORT_S, REPORT_S):
                await clock.sleep(until_next_s)
                node = await cluster.client.get(Node, NODE)
                assert node.status is not None
                told = [(each.type, each.address) for each in node.status.addresses]
                assert told == [("InternalIP", "10.0.0.1"), ("InternalIP", "fd00::1"), ("Hostname", NODE)]

    run(main)


@pytest.mark.parametrize(
    ("there", "told"),
    [
        (None, "aws:///z/i-1"),
        (NodeSpec(), "aws:///z/i-1"),
        (NodeSpec(provider_id="aws:///z/i-0"), "aws:///z/i-0"),
    ],
)
def test_a_machines_name_at_its_cloud_is_given_once(there: NodeSpec | None, told: str, tmp_path: Path) -> None:
    async def main(clock: VirtualClock) -> None:
        config = msgspec.structs.replace(hollow_config(tmp_path), provider_id="aws:///z/i-1")
        cluster = NodeCluster(clock, SimRuntime(clock), config)
        if there is not None:
            await cluster.client.create(Node(metadata=ObjectMeta(name=NODE), spec=there))
        async with cluster.running():
            await clock.sleep(STATUS_S / 2)
            node = await cluster.client.get(Node, NODE)
            assert node.spec is not None
            assert node.spec.provider_id == told

    run(main)


async def patched_status(cluster: NodeCluster, patch: dict[str, Any]) -> Node:
    return await cluster.client.patch(Node, NODE, {"status": patch}, subresource="status")


def condition(node: Node, kind: str) -> NodeCondition:
    assert node.status is not None
    return next(each for each in node.status.conditions if each.type == kind)


def test_a_node_that_was_taken_for_lost_says_soon_that_it_is_ready(tmp_path: Path) -> None:
    """The node lifecycle loop wrote Unknown while nothing was heard of it."""

    async def main(clock: VirtualClock) -> None:
        cluster = NodeCluster(clock, SimRuntime(clock), hollow_config(tmp_path))
        async with cluster.running():
            await clock.sleep(STATUS_S / 2)
            unknown = {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown", "message": "silent"}
            lost = await patched_status(cluster, {"conditions": [unknown]})
            await clock.sleep(STATUS_S)
            ready = condition(await cluster.client.get(Node, NODE), "Ready")
            assert (ready.status, ready.reason) == ("True", "KubeletReady")
            assert ready.last_transition_time != condition(lost, "Ready").last_transition_time

    run(main)


def test_what_others_say_of_a_node_stays_and_is_no_reason_to_write(tmp_path: Path) -> None:
    async def main(clock: VirtualClock) -> None:
        cluster = NodeCluster(clock, SimRuntime(clock), hollow_config(tmp_path))
        async with cluster.running():
            broken = {"type": "KernelDeadlock", "status": "False", "reason": "KernelHasNoDeadlock", "message": "fine"}
            told = await patched_status(
                cluster, {"conditions": [broken], "capacity": {"example.com/dongle": "4", "kubernetes.io/own": "1"}}
            )
            await clock.sleep(1.5 * STATUS_S)
            seen = await cluster.client.get(Node, NODE)
            assert seen.status is not None
            assert seen.status.allocatable["example.com/dongle"] == "4"
            assert "kubernetes.io/own" not in seen.status.allocatable
            assert condition(seen, "KernelDeadlock") == condition(told, "KernelDeadlock")
            await clock.sleep(5 * STATUS_S)
            assert (await cluster.client.get(Node, NODE)).metadata.resource_version == seen.metadata.resource_version

    run(main)


def test_a_node_tells_by_events_how_it_is_and_when_it_is_cordoned(tmp_path: Path) -> None:
    async def main(clock: VirtualClock) -> None:
        cluster = NodeCluster(clock, SimRuntime(clock), hollow_config(tmp_path))
        config = msgspec.structs.replace(cluster.config, name="real", hollow=False)
        nodes: Informer[Node] = Informer(cluster.client, Node, clock)
        events = EventRecorder(cluster.client, clock, "kubelet", "real")
        node = NodeObject(cluster.client, clock, cluster.runtime, config, nodes, events)

        async def told() -> list[str]:
            found = (await cluster.client.list(Event, "default")).items
            assert all(each.involved_object.uid == "real" for each in found if each.involved_object.name == "real")
            return [each.reason or "" for each in found if each.involved_object.name == "real"]

        async with cluster.running(), asyncio.TaskGroup() as group:
            tasks = [group.create_task(each.run()) for each in (nodes, events, node)]
            await clock.sleep(STATUS_S / 2)
            shown = await cluster.client.get(Node, "real")
            assert shown.status is not None
            states = {TOLD[each.type, each.status] for each in shown.status.conditions}
            assert sorted(await told()) == sorted({"Starting", "NodeReady", *states})
            for unschedulable, reason in ((True, "NodeNotSchedulable"), (False, "NodeSchedulable")):
                await cluster.client.patch(Node, "real", {"spec": {"unschedulable": unschedulable}})
                await clock.sleep(2 * STATUS_S)
                assert (await told()).count(reason) == 1
            await cluster.client.patch(Node, "real", {"status": {"nodeInfo": {"bootID": "old"}}}, subresource="status")
            await node.register()
            await clock.sleep(1)
            assert "Rebooted" in await told()
            for task in tasks:
                task.cancel()

    run(main)
