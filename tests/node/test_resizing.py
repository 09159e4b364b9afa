"""A running pod gets other bounds in place (KEP-1287)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from knarr.api.core.v1 import Container, Pod
from knarr.node.resizing import needs_restart
from knarr.node.resources import container_resources
from knarr.node.runtime.sim import SimRuntime
from knarr.simulate.clock import VirtualClock, run
from tests.node.cluster import NodeCluster, hollow_config
from tests.node.test_real_pods import RUN, out, script, started


def sized(cpu: str, memory: str, **fields: Any) -> dict[str, Any]:
    amounts = {"cpu": cpu, "memory": memory}
    return {"resources": {"requests": amounts, "limits": amounts}, **fields}


async def resize(cluster: NodeCluster, name: str, cpu: str, memory: str) -> None:
    patch = {"spec": {"containers": [{"name": "main", **sized(cpu, memory)}]}}
    await cluster.client.patch(Pod, name, patch, "default", subresource="resize")


def limits(cluster: NodeCluster, name: str) -> dict[str, Any]:
    resources = cluster.status(name).resources
    assert resources is not None
    return dict(resources.limits)


def has(cluster: NodeCluster, name: str, kind: str) -> bool:
    return cluster.condition(name, kind)[0] == "True"


def scenario(tmp_path: Path, play: Any) -> None:
    async def main(clock: VirtualClock) -> None:
        cluster = NodeCluster(clock, SimRuntime(clock), hollow_config(tmp_path))
        async with cluster.running():
            await play(cluster)

    run(main)


def test_bounds_change_without_a_restart(tmp_path: Path) -> None:
    async def play(cluster: NodeCluster) -> None:
        await cluster.pod("web", sized("1", "1Gi"))
        await cluster.until(lambda: cluster.ready("web"))
        await resize(cluster, "web", "2", "2Gi")
        await cluster.until(lambda: limits(cluster, "web") == {"cpu": "2", "memory": "2Gi"})
        await cluster.until(lambda: not has(cluster, "web", "PodResizeInProgress"))
        [container] = await cluster.runtime.containers()
        assert container.resources.memory_limit_bytes == 2 << 30
        assert container.resources.cpu_quota_us == 200_000
        [sandbox] = await cluster.runtime.sandboxes()
        assert sandbox.config.memory_limit_bytes == 2 << 30
        status = cluster.status("web")
        assert status.restart_count == 0
        assert status.allocated_resources == {"cpu": "2", "memory": "2Gi"}
        reasons = [reason for reason, _ in await cluster.events("web")]
        assert reasons[-2:] == ["ResizeStarted", "ResizeCompleted"]

    scenario(tmp_path, play)


def test_more_than_the_node_has_is_infeasible_until_less_is_asked_for(tmp_path: Path) -> None:
    async def play(cluster: NodeCluster) -> None:
        await cluster.pod("web", sized("1", "1Gi"))
        await cluster.until(lambda: cluster.ready("web"))
        await resize(cluster, "web", "9", "1Gi")
        text = "Node didn't have enough capacity: cpu, requested: 9000, capacity: 8000"
        await cluster.until(lambda: cluster.condition("web", "PodResizePending") == ("True", "Infeasible", text))
        assert limits(cluster, "web") == {"cpu": "1", "memory": "1Gi"}
        await cluster.stop_agent()
        cluster.start_agent()
        await cluster.agent.ready.wait()
        await cluster.clock.sleep(30)
        assert limits(cluster, "web") == {"cpu": "1", "memory": "1Gi"}  # a new agent grants no more
        assert has(cluster, "web", "PodResizePending")
        await resize(cluster, "web", "3", "1Gi")
        await cluster.until(lambda: not has(cluster, "web", "PodResizePending"))
        await cluster.until(lambda: limits(cluster, "web")["cpu"] == "3")

    scenario(tmp_path, play)


def test_what_others_have_is_waited_for(tmp_path: Path) -> None:
    async def play(cluster: NodeCluster) -> None:
        await cluster.pod("other", sized("4", "1Gi"))
        await cluster.pod("web", sized("1", "1Gi"))
        await cluster.until(lambda: cluster.ready("web") and cluster.ready("other"))
        await resize(cluster, "web", "5", "1Gi")
        text = "Node didn't have enough resource: cpu, requested: 5000, used: 4000, capacity: 8000"
        await cluster.until(lambda: cluster.condition("web", "PodResizePending") == ("True", "Deferred", text))
        await cluster.delete("other", 0)
        await cluster.until(lambda: limits(cluster, "web")["cpu"] == "5", within_s=5)
        await cluster.until(lambda: not has(cluster, "web", "PodResizePending"))

    scenario(tmp_path, play)


def test_a_container_is_restarted_where_its_policy_says_so(tmp_path: Path) -> None:
    async def play(cluster: NodeCluster) -> None:
        policy = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]
        await cluster.pod("web", sized("1", "1Gi", resizePolicy=policy))
        await cluster.until(lambda: cluster.ready("web"))
        await resize(cluster, "web", "2", "1Gi")
        await cluster.until(lambda: limits(cluster, "web")["cpu"] == "2")
        assert cluster.status("web").restart_count == 0
        await resize(cluster, "web", "2", "2Gi")
        await cluster.until(lambda: cluster.status("web").restart_count == 1)
        [container] = [each for each in await cluster.runtime.containers() if each.state == "running"]
        assert container.resources.memory_limit_bytes == 2 << 30
        assert ("Killing", "Container main resize requires restart") in await cluster.events("web")

    scenario(tmp_path, play)


@pytest.mark.parametrize(("cpu", "memory", "restart"), [("1", "1Gi", False), ("2", "1Gi", False), ("1", "2Gi", True)])
def test_only_a_change_of_what_the_policy_names_needs_a_restart(cpu: str, memory: str, restart: bool) -> None:
    policy = [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]
    has = container_resources(msgspec.convert({"name": "main", **sized("1", "1Gi")}, Container))
    wanted = msgspec.convert({"name": "main", **sized(cpu, memory, resizePolicy=policy)}, Container)
    assert needs_restart(wanted, has) is restart


@pytest.mark.e2e
async def test_the_kernel_has_the_new_bounds(real: NodeCluster) -> None:
    await started(real, "web", script(RUN, **sized("100m", "64Mi")), terminationGracePeriodSeconds=1)

    async def quota(of: str) -> str:
        version_2 = await out(real, "web", "sh", "-c", "cat /sys/fs/cgroup/cpu.max 2>/dev/null")
        if version_2:
            return version_2.split()[0] if of == "cpu" else await out(real, "web", "cat", "/sys/fs/cgroup/memory.max")
        name = "cpu/cpu.cfs_quota_us" if of == "cpu" else "memory/memory.limit_in_bytes"
        return await out(real, "web", "cat", f"/sys/fs/cgroup/{name}")

    assert ((await quota("cpu")).strip(), int(await quota("memory"))) == ("10000", 64 << 20)
    for cpu, memory, expected in (("300m", "128Mi", ("30000", 128 << 20)), ("50m", "32Mi", ("5000", 32 << 20))):
        await resize(real, "web", cpu, memory)
        await real.until(lambda cpu=cpu, memory=memory: limits(real, "web") == {"cpu": cpu, "memory": memory})
        await real.until(lambda: not has(real, "web", "PodResizeInProgress"))
        assert ((await quota("cpu")).strip(), int(await quota("memory"))) == expected
    assert real.status("web").restart_count == 0
