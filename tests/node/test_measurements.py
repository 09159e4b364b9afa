"""What nodes say that their containers use."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from knarr.client.nodes import NodeUsage, PodUsage, Usage
from knarr.node.measurements import (
    ASKED_FOR_S,
    ASKED_RESOLUTION_S,
    RESOLUTION_S,
    WINDOW_S,
    Measurements,
    between,
    machine_usage,
)
from knarr.node.pages import figures_page, page, resource_metrics
from knarr.node.runtime.contract import ContainerState, ContainerUsage
from knarr.node.runtime.sim import Behaviour, SimRuntime
from knarr.simulate.clock import VirtualClock, run
from tests.node.cluster import NodeCluster, hollow_config
from tests.node.test_real_pods import script, soon, started


@pytest.mark.parametrize(
    ("before", "last", "window_s", "nano_cores"),
    [
        (ContainerUsage(10, 0, 0), ContainerUsage(25, 3_000_000_000, 5), 15, 200_000_000),
        (ContainerUsage(10, 0, 0), ContainerUsage(10.5, 500_000_000, 5), 0, 0),  # too short to say
        (ContainerUsage(10, 9, 0), ContainerUsage(25, 3, 5), 15, 0),  # counted anew
    ],
)
def test_a_rate_is_what_was_used_between_two_measurements(
    before: ContainerUsage, last: ContainerUsage, window_s: float, nano_cores: int
) -> None:
    found = between(before, last, 1.0)
    assert (found.window_s, found.cpu_nano_cores, found.working_set_bytes) == (window_s, nano_cores, 5)


def test_a_new_container_is_measured_when_asked_and_an_older_one_by_its_last_period(tmp_path: Path) -> None:
    async def scenario(clock: VirtualClock) -> None:
        runtime = SimRuntime(clock, behaviour=lambda sandbox, container: Behaviour(cpu_cores=1.0, memory_bytes=7 << 20))
        cluster = NodeCluster(clock, runtime, hollow_config(tmp_path))
        async with cluster.running():
            await cluster.pod("web")
            await cluster.until(lambda: cluster.ready("web"))
            measurements = Measurements(runtime, clock, hollow=False)
            measuring = asyncio.create_task(measurements.run())
            await clock.sleep(0.5)
            early = (await measurements.usage()).pods[0].containers["main"]
            assert early.window_s == 0  # half a second says nothing
            await clock.sleep(1)
            young = (await measurements.usage()).pods[0].containers["main"]
            assert young.window_s == pytest.approx(1.5, abs=0.2)  # its life so far
            assert young.cpu_nano_cores == pytest.approx(10**9, rel=0.01)
            await clock.sleep(ASKED_FOR_S + 3 * RESOLUTION_S)
            runtime.behave(await cluster.container_id("web"), Behaviour(cpu_cores=0.0, memory_bytes=3 << 20))
            old = (await measurements.usage()).pods[0].containers["main"]
            assert old.window_s == pytest.approx(RESOLUTION_S, abs=0.5)
            assert old.working_set_bytes == 7 << 20  # as it was at the last measurement
            await clock.sleep(WINDOW_S + 2 * ASKED_RESOLUTION_S)
            now = (await measurements.usage()).pods[0].containers["main"]
            assert (now.window_s, now.cpu_nano_cores) == (pytest.approx(WINDOW_S, abs=0.5), 0)
            assert now.working_set_bytes == 3 << 20  # whoever asks is answered anew every 2 s
            measuring.cancel()
            await runtime.stop_container(await cluster.container_id("web"), 0)
            assert not [pod for pod in (await measurements.usage()).pods if pod.containers.get("main") == now]

    run(scenario)


def test_a_young_container_that_is_asked_for_all_the_time_soon_has_a_window_after_its_start(tmp_path: Path) -> None:
    """Autoscalers leave out CPU from before a pod was ready."""

    async def scenario(clock: VirtualClock) -> None:
        runtime = SimRuntime(clock, behaviour=lambda sandbox, container: Behaviour(cpu_cores=1.0))
        cluster = NodeCluster(clock, runtime, hollow_config(tmp_path))
        async with cluster.running():
            await cluster.pod("web")
            await cluster.until(lambda: cluster.ready("web"))
            measurements = Measurements(runtime, clock, hollow=False)
            measuring = asyncio.create_task(measurements.run())
            for _ in range(10):
                await clock.sleep(1)
                last = (await measurements.usage()).pods[0].containers["main"]
            assert WINDOW_S <= last.window_s <= WINDOW_S + ASKED_RESOLUTION_S
            measuring.cancel()

    run(scenario)


def test_who_asks_in_step_with_the_measuring_has_a_window_after_the_start_as_soon(tmp_path: Path) -> None:
    """An autoscaler that looks every 2 s, as often as is measured, and each time just before."""

    async def scenario(clock: VirtualClock) -> None:
        runtime = SimRuntime(clock, behaviour=lambda sandbox, container: Behaviour(cpu_cores=1.0))
        cluster = NodeCluster(clock, runtime, hollow_config(tmp_path))
        async with cluster.running():
            measurements = Measurements(runtime, clock, hollow=False)
            await measurements.usage()
            measuring = asyncio.create_task(measurements.run())
            await clock.sleep(1.0)
            await cluster.pod("web")
            await cluster.until(lambda: cluster.ready("web"))
            ready_s = clock.time_s()
            await clock.sleep(ASKED_RESOLUTION_S - 1.5)
            for _ in range(4):
                last = (await measurements.usage()).pods[0].containers["main"]
                await clock.sleep(ASKED_RESOLUTION_S)
            assert last.at_s - last.window_s > ready_s
            measuring.cancel()

    run(scenario)


def test_a_node_that_is_asked_at_its_very_start_has_an_answer_a_second_later(tmp_path: Path) -> None:
    async def scenario(clock: VirtualClock) -> None:
        measurements = Measurements(SimRuntime(clock), clock, hollow=False)
        assert (await measurements.usage()).whole is None
        measuring = asyncio.create_task(measurements.run())
        await clock.sleep(1.01)
        whole = (await measurements.usage()).whole
        assert whole is not None
        assert whole.window_s == pytest.approx(1.01)
        measuring.cancel()

    run(scenario)


def test_hollow_containers_use_what_their_labels_say(tmp_path: Path) -> None:
    async def scenario(clock: VirtualClock) -> None:
        cluster = NodeCluster(clock, SimRuntime(clock), hollow_config(tmp_path))
        async with cluster.running():
            labels = {"sim.knarr.dev/cpu": "250m", "sim.knarr.dev/memory": "64Mi"}
            await cluster.pod("web", {}, {"name": "other"}, metadata={"labels": labels})
            await cluster.until(lambda: cluster.ready("web"))
            await clock.sleep(10)
            found = await cluster.backend.usage("node-1")
            assert [(pod.name, sorted(pod.containers)) for pod in found.pods] == [("web", ["main", "other"])]
            assert found.whole is not None
            assert found.whole.cpu_nano_cores == 500_000_000
            assert found.whole.working_set_bytes == 128 << 20
            summary = json.loads((await cluster.backend.page("node-1", "/stats/summary")).body)
            assert summary["node"]["nodeName"] == "node-1"
            assert summary["pods"][0]["podRef"]["name"] == "web"
            assert summary["pods"][0]["cpu"]["usageNanoCores"] == 500_000_000
            pods = json.loads((await cluster.backend.page("node-1", "pods")).body)
            assert [pod["metadata"]["name"] for pod in pods["items"]] == ["web"]
            assert (await cluster.backend.page("node-1", "healthz")).body == b"ok"
            assert (await cluster.backend.page("node-1", "../etc/passwd")).status == 404

    run(scenario)


def test_the_resource_metrics_are_text_that_prometheus_reads(tmp_path: Path) -> None:
    one = Usage(at_s=100.5, window_s=15, cpu_nano_cores=10**8, cpu_ns=1234567890123, working_set_bytes=4096, since_s=50)
    usage = NodeUsage(one, (PodUsage("default", "web", "uid", 49, {"main": one}),))
    lines = list(resource_metrics(usage))
    assert (
        'container_cpu_usage_seconds_total{container="main",namespace="default",pod="web"} 1234.567890123 100500'
        in (lines)
    )
    assert "node_memory_working_set_bytes 4096 100500" in lines
    assert 'pod_memory_working_set_bytes{namespace="default",pod="web"} 4096 100500' in lines
    names = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(names) == len(set(names)) == 8
    assert page("metrics/resource", hollow_config(tmp_path), usage, []).content_type.startswith("text/plain; version=")


def test_the_agent_tells_how_much_it_runs() -> None:
    lines = figures_page(3, {ContainerState.RUNNING: 4, ContainerState.EXITED: 0}).body.decode().splitlines()
    assert "kubelet_running_pods 3" in lines
    assert 'kubelet_running_containers{container_state="running"} 4' in lines
    assert 'kubelet_running_containers{container_state="exited"} 0' in lines


def test_a_machine_uses_something() -> None:
    found = machine_usage(1.0)
    assert found.cpu_ns > 0
    assert 0 < found.memory_bytes <= found.total_bytes


@pytest.mark.e2e
async def test_a_busy_container_uses_more_than_an_idle_one(real: NodeCluster) -> None:
    busy, idle = script("while :; do :; done"), script("sleep 1000", name="idle")
    await started(real, "web", busy, idle, terminationGracePeriodSeconds=1)

    async def is_told() -> bool:
        [pod] = (await real.backend.usage("node-1")).pods
        assert all(each.working_set_bytes > 0 for each in pod.containers.values())
        return pod.containers["main"].cpu_nano_cores > 5 * pod.containers["idle"].cpu_nano_cores

    await soon(is_told)
