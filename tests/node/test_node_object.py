"""What a node tells about itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from knarr.api.core.v1 import Node, NodeSpec
from knarr.api.meta.v1 import ObjectMeta
from knarr.node.node_object import REPORT_S, STATUS_S
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
