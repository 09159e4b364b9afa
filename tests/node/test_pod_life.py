"""The life of pods on a node, in virtual time, with hollow containers and a real API server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from knarr.api.coordination.v1 import Lease
from knarr.api.core.v1 import ConfigMap, Node, Pod
from knarr.api.errors import BadRequest
from knarr.api.meta.v1 import ObjectMeta
from knarr.client.nodes import LogOptions
from knarr.node.runtime.contract import Container, PortMapping, Sandbox, SandboxConfig
from knarr.node.runtime.sim import Behaviour, SimRuntime
from knarr.simulate.clock import VirtualClock, run
from tests.node.cluster import NODE, NodeCluster, hollow_config

Scenario = Callable[[NodeCluster], Awaitable[None]]


def simulate(scenario: Scenario, tmp_path: Path) -> None:
    async def main(clock: VirtualClock) -> None:
        cluster = NodeCluster(clock, SimRuntime(clock), hollow_config(tmp_path))
        async with cluster.running():
            await scenario(cluster)

    run(main)


def sim(cluster: NodeCluster) -> SimRuntime:
    assert isinstance(cluster.runtime, SimRuntime)
    return cluster.runtime


def labels(**behaviour: str) -> dict[str, Any]:
    return {"labels": {f"sim.knarr.dev/{key.replace('_', '-')}": value for key, value in behaviour.items()}}


def waiting(cluster: NodeCluster, name: str, container: str = "main") -> tuple[str, str]:
    state = cluster.status(name, container).state
    assert state is not None
    assert state.waiting is not None
    return state.waiting.reason or "", state.waiting.message or ""


def test_the_node_registers_itself_at_once_and_keeps_its_lease(tmp_path: Path) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        node = await cluster.client.get(Node, NODE)
        assert node.status is not None
        conditions = {each.type: (each.status, each.reason) for each in node.status.conditions}
        assert conditions == {
            "MemoryPressure": ("False", "KubeletHasSufficientMemory"),
            "DiskPressure": ("False", "KubeletHasNoDiskPressure"),
            "PIDPressure": ("False", "KubeletHasSufficientPID"),
            "Ready": ("True", "KubeletReady"),
        }
        assert node.metadata.labels["kubernetes.io/hostname"] == NODE
        assert node.spec is not None
        assert node.spec.pod_cidr == "10.244.0.0/24"
        assert node.status.node_info is not None
        assert node.status.node_info.kubelet_version.startswith("v1.36.")
        assert {each.type: each.address for each in node.status.addresses} == {
            "InternalIP": "10.0.0.1",
            "Hostname": NODE,
        }
        assert cluster.clock.monotonic_s() < 0.1
        await cluster.clock.sleep(11)
        lease = await cluster.client.get(Lease, NODE, "kube-node-lease")
        first = lease.spec.renew_time if lease.spec else None
        await cluster.clock.sleep(10)
        lease = await cluster.client.get(Lease, NODE, "kube-node-lease")
        assert lease.spec is not None
        assert (lease.spec.renew_time or "") > (first or "")
        assert lease.spec.holder_identity == NODE

    simulate(scenario, tmp_path)


def test_a_node_status_is_written_only_when_it_changes_or_every_five_minutes(tmp_path: Path) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        await cluster.clock.sleep(1)
        cluster.door.requests.clear()
        await cluster.clock.sleep(280)
        writes = [each for each in cluster.door.requests if each == ("PATCH", f"/api/v1/nodes/{NODE}/status")]
        assert not writes
        await cluster.clock.sleep(40)
        assert ("PATCH", f"/api/v1/nodes/{NODE}/status") in cluster.door.requests

    simulate(scenario, tmp_path)


def test_a_pod_runs_with_one_status_write(tmp_path: Path) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        await cluster.pod("web")
        await cluster.until(lambda: cluster.ready("web"))
        pod = cluster.get("web")
        assert pod is not None
        assert pod.status is not None
        assert pod.status.phase == "Running"
        assert pod.status.pod_ip == pod.status.pod_ips[0].ip == "10.244.0.2"
        assert pod.status.host_ip == "10.0.0.1"
        assert pod.status.observed_generation == pod.metadata.generation
        assert [each.type for each in pod.status.conditions] == [
            "PodReadyToStartContainers",
            "Initialized",
            "Ready",
            "ContainersReady",
            "PodScheduled",
        ]
        status = cluster.status("web")
        assert (status.ready, status.started, status.restart_count) == (True, True, 0)
        assert status.container_id is not None
        assert status.container_id.startswith("knarr://")
        events = await cluster.events("web")
        assert events == [
            ("Pulled", 'Container image "one:v1" already present on machine and can be accessed by the pod'),
            ("Created", "Container created"),
            ("Started", "Container started"),
        ]

    simulate(scenario, tmp_path)


def test_a_deleted_pod_gets_its_grace_period_and_leaves_nothing(tmp_path: Path) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        await cluster.pod("web", metadata=labels(stop_s="7"))
        await cluster.until(lambda: cluster.ready("web"))
        began_s = cluster.clock.monotonic_s()
        await cluster.delete("web")
        await cluster.until(lambda: cluster.get("web") is None)
        assert cluster.clock.monotonic_s() - began_s == pytest.approx(7, abs=0.5)
        assert not await cluster.runtime.containers()
        assert not await cluster.runtime.sandboxes()
        last = cluster.history["web"][-1]
        assert last.status is not None
        state = last.status.container_statuses[0].state
        assert state is not None
        assert state.terminated is not None
        assert state.terminated.exit_code == 143
        assert ("Killing", "Stopping container main") in await cluster.events("web")

    simulate(scenario, tmp_path)


def test_a_container_that_ignores_sigterm_is_killed_at_the_end_of_the_grace_period(tmp_path: Path) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        await cluster.pod("web", metadata=labels(stop_s="1000"), terminationGracePeriodSeconds=4)
        await cluster.until(lambda: cluster.ready("web"))
        began_s = cluster.clock.monotonic_s()
        await cluster.delete("web")
        await cluster.until(lambda: cluster.get("web") is None)
        assert cluster.clock.monotonic_s() - began_s == pytest.approx(4, abs=0.5)
        assert _exit_code(cluster, "web") == 137

    simulate(scenario, tmp_path)


@pytest.mark.parametrize(
    ("hook_s", "stop_s", "grace_s", "took_s", "code"),
    [
        (3, 1, 10, 4, 143),
        # The hook takes from the grace period …
        (3, 100, 10, 10, 137),
        # … but two seconds are left to the container in any case.
        (100, 1, 10, 11, 143),
        (100, 100, 10, 12, 137),
    ],
)
def test_a_pre_stop_hook_takes_its_time_from_the_grace_period(
    hook_s: int, stop_s: int, grace_s: int, took_s: float, code: int, tmp_path: Path
) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        lifecycle = {"preStop": {"sleep": {"seconds": hook_s}}}
        fields = {"terminationGracePeriodSeconds": 200, "metadata": labels(stop_s=str(stop_s))}
        await cluster.pod("web", {"lifecycle": lifecycle}, **fields)
        await cluster.until(lambda: cluster.ready("web"))
        began_s = cluster.clock.monotonic_s()
        await cluster.delete("web", grace_s)
        await cluster.until(lambda: cluster.get("web") is None)
        assert cluster.clock.monotonic_s() - began_s == pytest.approx(took_s, abs=0.5)
        assert _exit_code(cluster, "web") == code

    simulate(scenario, tmp_path)


def test_sidecars_end_after_the_containers_and_in_reverse_order(tmp_path: Path) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        sidecars = [{"name": name, "restartPolicy": "Always"} for name in ("one", "two")]
        await cluster.pod("web", initContainers=sidecars, metadata=labels(stop_s="2"))
        await cluster.until(lambda: cluster.ready("web"))
        await cluster.delete("web")
        await cluster.until(lambda: cluster.get("web") is None)
        last = cluster.history["web"][-1].status
        assert last is not None
        finished = {}
        for status in (*last.init_container_statuses, *last.container_statuses):
            assert status.state is not None
            assert status.state.terminated is not None
            assert status.state.terminated.finished_at is not None
            finished[status.name] = status.state.terminated.finished_at.timestamp()
        assert finished["two"] - finished["main"] == 2
        assert finished["one"] - finished["two"] == 2

    simulate(scenario, tmp_path)


def test_a_pod_deleted_while_its_image_is_pulled_goes_at_once(tmp_path: Path) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        pulling = asyncio.Event()

        async def never(image: str, **options: Any) -> str:
            pulling.set()
            await asyncio.Event().wait()
            return ""

        sim(cluster).pull_image = never  # type: ignore[method-assign]
        await cluster.pod("web", {"imagePullPolicy": "Always"})
        await pulling.wait()
        await cluster.clock.sleep(1)
        began_s = cluster.clock.monotonic_s()
        await cluster.delete("web")
        await cluster.until(lambda: cluster.get("web") is None)
        assert cluster.clock.monotonic_s() - began_s < 1
        assert not await cluster.runtime.sandboxes()

    simulate(scenario, tmp_path)


def test_a_second_delete_shortens_the_grace_period(tmp_path: Path) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        await cluster.pod("web", metadata=labels(stop_s="1000"), terminationGracePeriodSeconds=300)
        await cluster.until(lambda: cluster.ready("web"))
        began_s = cluster.clock.monotonic_s()
        await cluster.delete("web")
        await cluster.clock.sleep(10)
        await cluster.delete("web", 5)
        await cluster.until(lambda: cluster.get("web") is None)
        assert cluster.clock.monotonic_s() - began_s == pytest.approx(15, abs=1)

    simulate(scenario, tmp_path)


def test_a_pod_deleted_by_force_is_ended_all_the_same(tmp_path: Path) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        await cluster.pod("web", metadata=labels(stop_s="1"))
        await cluster.until(lambda: cluster.ready("web"))
        await cluster.delete("web", 0)
        await cluster.until(lambda: cluster.get("web") is None)
        await cluster.clock.sleep(40)
        assert not await cluster.runtime.sandboxes()
        # The same name is free for another pod.
        await cluster.pod("web")
        await cluster.until(lambda: cluster.ready("web"))

    simulate(scenario, tmp_path)


def test_a_crashing_container_backs_off_as_upstream(tmp_path: Path) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        pod = await cluster.pod("web", metadata=labels(exit_after_s="0", exit_code="3"))
        starts: list[float] = []
        for count in range(1, 8):
            await cluster.until(lambda count=count: cluster.status("web").restart_count >= count, 400)
            starts.append(cluster.clock.monotonic_s())
        gaps = [round(after - before) for before, after in pairwise(starts)]
        assert gaps == [10, 20, 40, 80, 160, 300]
        await cluster.until(lambda: waiting(cluster, "web")[0] == "CrashLoopBackOff")
        message = waiting(cluster, "web")[1]
        where = f"web_default({pod.metadata.uid})"
        assert message == f"back-off 5m0s restarting failed container=main pod={where}"
        last = cluster.status("web").last_state
        assert last is not None
        assert last.terminated is not None
        assert (last.terminated.exit_code, last.terminated.reason) == (3, "Error")
        assert cluster.phase("web") == "Running"
        assert cluster.condition("web", "Ready")[:2] == ("False", "ContainersNotReady")
        messages = [message for reason, message in await cluster.events("web") if reason == "BackOff"]
        assert messages == [f"Back-off restarting failed container main in pod {where}"]

    simulate(scenario, tmp_path)


def test_ten_quiet_minutes_forget_the_back_off(tmp_path: Path) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        await cluster.pod("web")
        await cluster.until(lambda: cluster.ready("web"))
        for count in range(1, 4):
            sim(cluster).end(await cluster.container_id("web"), 1)
            await cluster.until(lambda count=count: cluster.status("web").restart_count == count, 400)
            await cluster.until(lambda: cluster.ready("web"))
        await cluster.clock.sleep(650)
        began_s = cluster.clock.monotonic_s()
        sim(cluster).end(await cluster.container_id("web"), 1)
        await cluster.until(lambda: cluster.status("web").restart_count == 4)
        assert cluster.clock.monotonic_s() - began_s < 1

    simulate(scenario, tmp_path)


@pytest.mark.parametrize(
    ("policy", "code", "phase", "restarts"),
    [
        ("Never", "0", "Succeeded", False),
        ("Never", "1", "Failed", False),
        ("OnFailure", "0", "Succeeded", False),
        ("OnFailure", "1", "Running", True),
        ("Always", "0", "Running", True),
    ],
)
def test_restart_policies(policy: str, code: str, phase: str, restarts: bool, tmp_path: Path) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        await cluster.pod("job", restartPolicy=policy, metadata=labels(exit_after_s="2", exit_code=code))
        await cluster.until(lambda: cluster.ready("job"))
        if restarts:
            await cluster.until(lambda: cluster.status("job").restart_count == 2)
        else:
            await cluster.until(lambda: cluster.phase("job") == phase)
            ready = cluster.condition("job", "Ready")
            assert ready[:2] == ("False", "PodCompleted" if phase == "Succeeded" else "PodFailed")
            sandboxes = await cluster.runtime.sandboxes()
            assert [sandbox.ready for sandbox in sandboxes] == [False], "its address is free, its logs are kept"
        assert cluster.phase("job") == phase

    simulate(scenario, tmp_path)


def test_init_containers_run_in_order_before_the_others(tmp_path: Path) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        inits = [{"name": "first"}, {"name": "second"}]
        await cluster.pod("web", initContainers=inits)
        await cluster.until(lambda: cluster.status("web", "first").state.running)  # type: ignore[union-attr]
        assert waiting(cluster, "web", "second")[0] == "PodInitializing"
        assert waiting(cluster, "web")[0] == "PodInitializing"
        assert cluster.phase("web") == "Pending"
        assert cluster.condition("web", "Initialized") == (
            "False",
            "ContainersNotInitialized",
            "containers with incomplete status: [first second]",
        )
        sim(cluster).end(await cluster.container_id("web", "first"), 0)
        await cluster.until(lambda: cluster.status("web", "second").state.running)  # type: ignore[union-attr]
        assert cluster.condition("web", "Initialized")[2] == "containers with incomplete status: [second]"
        sim(cluster).end(await cluster.container_id("web", "second"), 0)
        await cluster.until(lambda: cluster.ready("web"))
        state = cluster.status("web", "first").state
        assert state is not None
        assert state.terminated is not None
        assert state.terminated.reason == "Completed"

    simulate(scenario, tmp_path)


def test_a_failing_init_container_ends_a_pod_that_never_restarts(tmp_path: Path) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        await cluster.pod("web", initContainers=[{"name": "init"}], restartPolicy="Never")
        await cluster.until(lambda: cluster.status("web", "init").state.running)  # type: ignore[union-attr]
        sim(cluster).end(await cluster.container_id("web", "init"), 5)
        await cluster.until(lambda: cluster.phase("web") == "Failed")
        assert waiting(cluster, "web")[0] == "PodInitializing"

    simulate(scenario, tmp_path)


def test_a_sidecar_starts_before_and_ends_after_the_container(tmp_path: Path) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        sidecar = {"name": "proxy", "restartPolicy": "Always"}
        await cluster.pod("job", initContainers=[sidecar, {"name": "init"}], restartPolicy="Never")
        await cluster.until(lambda: cluster.status("job", "init").state.running)  # type: ignore[union-attr]
        assert cluster.status("job", "proxy").state.running  # type: ignore[union-attr]
        sim(cluster).end(await cluster.container_id("job", "init"), 0)
        await cluster.until(lambda: cluster.ready("job"))
        # It is started again even in a pod that never restarts.
        sim(cluster).end(await cluster.container_id("job", "proxy"), 1)
        await cluster.until(lambda: cluster.status("job", "proxy").restart_count == 1 and cluster.ready("job"))
        sim(cluster).end(await cluster.container_id("job"), 0)
        await cluster.until(lambda: cluster.phase("job") == "Succeeded")
        main, proxy = cluster.status("job").state, cluster.status("job", "proxy").state
        assert main is not None
        assert main.terminated is not None
        assert proxy is not None
        assert proxy.terminated is not None, "the sidecar doesn't hold the pod up"

    simulate(scenario, tmp_path)


def test_images_that_cannot_be_pulled(tmp_path: Path) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        await cluster.pod("web", {"image": "does-not-exist:v1"})
        await cluster.until(lambda: waiting(cluster, "web")[0] == "ErrImagePull")
        assert "does-not-exist" in waiting(cluster, "web")[1]
        await cluster.until(lambda: waiting(cluster, "web")[0] == "ImagePullBackOff")
        assert waiting(cluster, "web")[1].startswith('Back-off pulling image "does-not-exist:v1": ErrImagePull: ')
        reasons = [reason for reason, _ in await cluster.events("web")]
        assert reasons[:3] == ["Pulling", "Failed", "Failed"]
        assert "BackOff" in reasons
        await cluster.pod("never", {"image": "does-not-exist:v1", "imagePullPolicy": "Never"})
        await cluster.until(lambda: waiting(cluster, "never")[0] == "ErrImageNeverPull")
        await cluster.pod("bad", {"image": "Not A Name"})
        await cluster.until(lambda: waiting(cluster, "bad")[0] == "InvalidImageName")
        assert cluster.phase("web") == "Pending"
        # None of this keeps them from being deleted.
        for name in ("web", "never", "bad"):
            await cluster.delete(name)
        await cluster.until(lambda: not cluster.pods.all())

    simulate(scenario, tmp_path)


def test_a_container_waits_for_its_config_map_and_starts_when_it_appears(tmp_path: Path) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        key = {"name": "settings", "key": "colour"}
        await cluster.pod("web", {"env": [{"name": "COLOUR", "valueFrom": {"configMapKeyRef": key}}]})
        await cluster.until(lambda: waiting(cluster, "web")[0] == "CreateContainerConfigError")
        assert waiting(cluster, "web")[1] == 'configmap "settings" not found'
        began_s = cluster.clock.monotonic_s()
        config_map = ConfigMap(metadata=ObjectMeta(name="settings", namespace="default"), data={"size": "1"})
        config_map = await cluster.create(config_map)
        await cluster.until(lambda: "couldn't find key" in waiting(cluster, "web")[1])
        assert waiting(cluster, "web")[1] == "couldn't find key colour in ConfigMap default/settings"
        patch = {"data": {"colour": "red"}}
        await cluster.client.patch(ConfigMap, "settings", patch, "default")
        await cluster.until(lambda: cluster.ready("web"))
        assert cluster.clock.monotonic_s() - began_s < 1, "the change is seen, not waited for"

    simulate(scenario, tmp_path)


def test_a_readiness_probe_decides_over_ready(tmp_path: Path) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        probe = {"exec": {"command": ["true"]}, "periodSeconds": 2, "failureThreshold": 2}
        await cluster.pod("web", {"readinessProbe": probe})
        await cluster.until(lambda: cluster.ready("web"))
        container_id = await cluster.container_id("web")
        sim(cluster).behave(container_id, Behaviour(ready=False))
        began_s = cluster.clock.monotonic_s()
        await cluster.until(lambda: not cluster.ready("web"))
        assert 2 <= cluster.clock.monotonic_s() - began_s <= 4.1
        assert cluster.condition("web", "ContainersReady")[2] == "containers with unready status: [main]"
        sim(cluster).behave(container_id, Behaviour())
        await cluster.until(lambda: cluster.ready("web"))
        assert cluster.status("web").restart_count == 0
        assert ("Unhealthy", "Readiness probe failed: simulated: no command was run\n") in await cluster.events("web")

    simulate(scenario, tmp_path)


def test_a_failed_liveness_probe_restarts_the_container(tmp_path: Path) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        probe = {"exec": {"command": ["true"]}, "periodSeconds": 1, "failureThreshold": 3}
        await cluster.pod("web", {"livenessProbe": probe})
        await cluster.until(lambda: cluster.ready("web"))
        sim(cluster).behave(await cluster.container_id("web"), Behaviour(ready=False, stop_s=5))
        began_s = cluster.clock.monotonic_s()
        await cluster.until(lambda: cluster.status("web").restart_count == 1)
        assert cluster.clock.monotonic_s() - began_s == pytest.approx(2.5 + 5, abs=1)
        assert ("Killing", "Container main failed liveness probe, will be restarted") in await cluster.events("web")

    simulate(scenario, tmp_path)


def test_a_startup_probe_gates_the_others(tmp_path: Path) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        command = {"exec": {"command": ["true"]}}
        await cluster.pod(
            "web",
            {
                "startupProbe": {**command, "periodSeconds": 1, "failureThreshold": 100},
                "livenessProbe": {**command, "periodSeconds": 1, "failureThreshold": 1},
            },
            metadata=labels(ready="false"),
        )
        await cluster.until(lambda: cluster.status("web").state.running)  # type: ignore[union-attr]
        await cluster.clock.sleep(20)
        assert cluster.status("web").started is False
        assert cluster.status("web").restart_count == 0
        sim(cluster).behave(await cluster.container_id("web"), Behaviour())
        await cluster.until(lambda: cluster.ready("web"))
        assert cluster.status("web").started is True

    simulate(scenario, tmp_path)


def test_readiness_gates(tmp_path: Path) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        await cluster.pod("web", readinessGates=[{"conditionType": "example.com/routed"}])
        await cluster.until(lambda: cluster.condition("web", "ContainersReady")[0] == "True")
        assert cluster.condition("web", "Ready") == (
            "False",
            "ReadinessGatesNotReady",
            'corresponding condition of pod readiness gate "example.com/routed" does not exist.',
        )
        gate = {"type": "example.com/routed", "status": "True"}
        patch = {"status": {"conditions": [gate]}}
        await cluster.client.patch(Pod, "web", patch, "default", subresource="status")
        await cluster.until(lambda: cluster.ready("web"))
        assert cluster.condition("web", "example.com/routed")[0] == "True"

    simulate(scenario, tmp_path)


def test_an_active_deadline_fails_the_pod(tmp_path: Path) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        await cluster.pod("job", activeDeadlineSeconds=30)
        await cluster.until(lambda: cluster.ready("job"))
        await cluster.until(lambda: cluster.phase("job") == "Failed", 40)
        assert 29 <= cluster.clock.monotonic_s() <= 31.5
        pod = cluster.get("job")
        assert pod is not None
        assert pod.status is not None
        assert pod.status.reason == "DeadlineExceeded"
        assert pod.status.message == "Pod was active on the node longer than the specified deadline"

    simulate(scenario, tmp_path)


def test_a_changed_image_restarts_the_container(tmp_path: Path) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        await cluster.pod("web")
        await cluster.until(lambda: cluster.ready("web"))
        patch = {"spec": {"containers": [{"name": "main", "image": "two:v2"}]}}
        await cluster.client.patch(Pod, "web", patch, "default")
        await cluster.until(lambda: cluster.status("web").restart_count == 1 and cluster.ready("web"))
        assert cluster.status("web").image == "two:v2"
        statuses = [one.status.container_statuses for one in cluster.history["web"] if one.status]
        shown = [one for listed in statuses for one in listed if one.container_id]
        assert {(one.restart_count, one.image) for one in shown} == {(0, shown[0].image), (1, "two:v2")}
        assert shown[0].image != "two:v2", "what ran, until the other ran"
        killings = [message for reason, message in await cluster.events("web") if reason == "Killing"]
        assert killings == ["Container main definition changed, will be restarted"]

    simulate(scenario, tmp_path)


def test_a_container_that_cannot_be_started_says_why(tmp_path: Path) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        await cluster.pod("web", metadata=labels(start_failure="no-such-file"))
        await cluster.until(lambda: waiting(cluster, "web") == ("RunContainerError", "no-such-file"))
        await cluster.until(lambda: cluster.status("web").restart_count == 1)

    simulate(scenario, tmp_path)


def test_a_restarted_agent_finds_its_containers_and_restarts_none(tmp_path: Path) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        probe = {"exec": {"command": ["true"]}, "periodSeconds": 60}
        await cluster.pod("web", {"readinessProbe": probe})
        await cluster.pod("gone")
        await cluster.pod("done", restartPolicy="Never", metadata=labels(exit_after_s="1", exit_code="2"))
        await cluster.pod("crashed")
        await cluster.until(lambda: cluster.ready("web") and cluster.ready("gone") and cluster.ready("crashed"))
        await cluster.until(lambda: cluster.phase("done") == "Failed")
        before = await cluster.container_id("web")
        seen = len(cluster.history["web"])
        await cluster.stop_agent()
        sim(cluster).end(await cluster.container_id("crashed"), 9)
        await cluster.delete("gone", 0)
        await cluster.clock.sleep(5)
        cluster.start_agent()
        await cluster.agent.ready.wait()
        await cluster.until(lambda: cluster.status("crashed").restart_count == 1 and cluster.ready("crashed"))
        last = cluster.status("crashed").last_state
        assert last is not None
        assert last.terminated is not None
        assert last.terminated.exit_code == 9
        await cluster.clock.sleep(5)
        assert await cluster.container_id("web") == before
        assert all(
            condition.status == "True"
            for pod in cluster.history["web"][seen:]
            for condition in (pod.status.conditions if pod.status else [])
        ), "a running pod stays ready"
        assert {sandbox.config.pod_name for sandbox in await cluster.runtime.sandboxes()} == {"web", "done", "crashed"}
        assert cluster.phase("done") == "Failed"
        assert _exit_code(cluster, "done") == 2

    simulate(scenario, tmp_path)


def test_pods_run_on_while_the_api_server_is_away_and_their_status_comes_later(tmp_path: Path) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        await cluster.pod("web")
        await cluster.until(lambda: cluster.ready("web"))
        cluster.door.closed = True
        sim(cluster).end(await cluster.container_id("web"), 1)
        await cluster.clock.sleep(30)
        assert cluster.status("web").restart_count == 0
        running = [container for container in await cluster.runtime.containers() if container.exit_code is None]
        assert [container.attempt for container in running] == [1]
        cluster.door.closed = False
        await cluster.until(lambda: cluster.status("web").restart_count == 1 and cluster.ready("web"))

    simulate(scenario, tmp_path)


def test_what_others_do_to_the_nodes_conditions_is_set_right(tmp_path: Path) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        await cluster.pod("web")
        await cluster.until(lambda: cluster.ready("web"))
        await cluster.clock.sleep(1)
        patch = {"status": {"conditions": [{"type": "Ready", "status": "False", "reason": "NodeNotReady"}]}}
        await cluster.client.patch(Pod, "web", patch, "default", subresource="status")
        await cluster.until(lambda: not cluster.ready("web"))
        await cluster.until(lambda: cluster.ready("web"), 1)
        assert cluster.condition("web", "Ready") == ("True", "", "")
        # And that is all: one write, not a quarrel.
        count = len(cluster.history["web"])
        await cluster.clock.sleep(100)
        assert len(cluster.history["web"]) == count

    simulate(scenario, tmp_path)


class Ports:
    """Host ports that can't always be had."""

    def __init__(self) -> None:
        self.mapped: dict[str, tuple[str, list[int]]] = {}
        self.failures = 1

    async def map_ports(self, sandbox_id: str, addresses: Sequence[str], mappings: Sequence[PortMapping]) -> None:
        if self.failures:
            self.failures -= 1
            raise OSError("the port is taken")
        self.mapped[sandbox_id] = (addresses[0], [mapping.host_port for mapping in mappings])

    async def unmap_ports(self, sandbox_id: str) -> None:
        self.mapped.pop(sandbox_id, None)


def test_host_ports_are_mapped_before_the_containers_start_and_taken_back(tmp_path: Path) -> None:
    ports = Ports()

    async def main(clock: VirtualClock) -> None:
        cluster = NodeCluster(clock, SimRuntime(clock), hollow_config(tmp_path), ports)
        async with cluster.running():
            await cluster.pod("web", {"ports": [{"containerPort": 80, "hostPort": 8080}]})
            await cluster.until(lambda: cluster.ready("web"))
            assert list(ports.mapped.values()) == [("10.244.0.3", [8080])]
            assert len(await cluster.runtime.sandboxes()) == 1, "one without its ports doesn't stay"
            message = "failed to map host ports: the port is taken"
            assert ("FailedCreatePodSandBox", message) in await cluster.events("web")
            await cluster.delete("web")
            await cluster.until(lambda: cluster.get("web") is None)
            assert not ports.mapped

    run(main)


class SlowPorts(Ports):
    """Host ports that take their time."""

    def __init__(self) -> None:
        super().__init__()
        self.failures = 0
        self.asked = 0

    async def map_ports(self, sandbox_id: str, addresses: Sequence[str], mappings: Sequence[PortMapping]) -> None:
        self.asked += 1
        await asyncio.sleep(5)
        await super().map_ports(sandbox_id, addresses, mappings)


def test_a_sandbox_that_is_seen_while_it_is_being_made_is_not_used_yet_and_not_taken_for_an_old_one(
    tmp_path: Path,
) -> None:
    ports = SlowPorts()

    async def main(clock: VirtualClock) -> None:
        cluster = NodeCluster(clock, SimRuntime(clock), hollow_config(tmp_path), ports)
        async with cluster.running():
            await cluster.pod("web", {"ports": [{"containerPort": 80, "hostPort": 8080}]})
            await cluster.clock.sleep(1)
            await cluster.client.patch(Pod, "web", {"metadata": {"labels": {"look": "again"}}}, "default")
            await cluster.clock.sleep(1)
            assert not await cluster.runtime.containers(), "none before its ports are there"
            await cluster.until(lambda: cluster.ready("web"), 5)
            assert [sandbox.id for sandbox in await cluster.runtime.sandboxes()] == list(ports.mapped)
            assert ports.asked == 1
            assert "Failed" not in {reason for reason, _ in await cluster.events("web")}

    run(main)


def test_a_container_starts_when_the_post_start_hook_of_the_one_before_it_is_through(tmp_path: Path) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        hook = {"lifecycle": {"postStart": {"sleep": {"seconds": 10}}}}
        await cluster.pod("web", {"name": "first", **hook}, {"name": "second"})
        await cluster.clock.sleep(5)
        await cluster.client.patch(Pod, "web", {"metadata": {"labels": {"look": "again"}}}, "default")
        await cluster.clock.sleep(1)
        assert [container.name for container in await cluster.runtime.containers()] == ["first"]
        await cluster.until(lambda: cluster.ready("web"), 5)

    simulate(scenario, tmp_path)


def test_logs_of_a_container_that_waits_say_so(tmp_path: Path) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        pod = await cluster.pod("web", {"image": "does-not-exist:v1"})
        await cluster.until(lambda: waiting(cluster, "web")[0] == "ImagePullBackOff")
        with pytest.raises(BadRequest, match='container "main" in pod "web" is waiting to start: trying and failing'):
            async for _ in cluster.backend.logs(pod, LogOptions("main")):
                pass
        with pytest.raises(BadRequest, match='previous terminated container "main" in pod "web" not found'):
            async for _ in cluster.backend.logs(pod, LogOptions("main", previous=True)):
                pass

    simulate(scenario, tmp_path)


def _exit_code(cluster: NodeCluster, name: str) -> int:
    status = cluster.history[name][-1].status
    assert status is not None
    state = status.container_statuses[0].state
    assert state is not None
    assert state.terminated is not None
    return state.terminated.exit_code


class SlowLook(SimRuntime):
    """A runtime whose sandboxes come up while it is still listing the containers."""

    async def run_sandbox(self, config: SandboxConfig) -> Sandbox:
        await self._clock.sleep(0.01)
        self.made = [*getattr(self, "made", []), config.pod_name]
        return await super().run_sandbox(config)

    async def containers(self) -> list[Container]:
        seen = await super().containers()
        await self._clock.sleep(0.02)
        return seen


def test_a_look_that_began_before_the_sandbox_was_there_makes_no_second_one(tmp_path: Path) -> None:
    async def main(clock: VirtualClock) -> None:
        runtime = SlowLook(clock)
        cluster = NodeCluster(clock, runtime, hollow_config(tmp_path))
        async with cluster.running():
            await cluster.pod("web")
            await cluster.until(lambda: cluster.ready("web"))
        assert runtime.made == ["web"]

    run(main)
