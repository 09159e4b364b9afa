"""sig-architecture: what a cluster must be for the other tests to make sense."""

from __future__ import annotations

from tests.cluster import Cluster, simulate
from tests.conformance.workloads import pod


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
