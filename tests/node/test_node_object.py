"""What a node tells about itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from knarr.api.core.v1 import Node
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
