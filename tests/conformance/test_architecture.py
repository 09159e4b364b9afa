"""sig-architecture: what a cluster must be for the other tests to make sense."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cluster import Cluster, simulate
from tests.conformance.workloads import pod
from tests.e2e.conftest import Cluster as Process


def test_two_nodes_without_taints_take_pods() -> None:
    """[sig-architecture] Conformance Tests should have at least two untainted nodes"""

    async def scenario(cluster: Cluster) -> None:
        def untainted() -> list[str]:
            return [
                node.metadata.name or ""
                for node in cluster.node_cache.all()
                if node.spec and not node.spec.taints and not node.spec.unschedulable
            ]

        await cluster.until(lambda: len(untainted()) >= 2, within_s=10)
        for name in untainted():
            await cluster.create(pod(f"on-{name}", nodeSelector={"kubernetes.io/hostname": name}))
        await cluster.until(lambda: cluster.ready_pods() == len(untainted()), within_s=60)

    simulate(scenario, nodes=2)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_knarr_up_has_as_many_nodes_as_it_is_asked_for(tmp_path: Path) -> None:
    made = Process(tmp_path)
    made.flags += ["--runtime", "sim", "--sim-nodes", "2"]
    made.up()
    try:
        made.kubectl("wait", "nodes", "--all", "--for=condition=Ready", "--timeout=30s")
        assert [node["spec"].get("taints", []) for node in made.get("nodes")["items"]] == [[], []]
    finally:
        made.knarr("down", "--purge", check=False)
