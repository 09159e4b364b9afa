"""Real containers: what is only true of the runtime that runs something."""

# ruff: noqa: ASYNC110, ASYNC221, ASYNC240  # a test has its loop for itself, and looks at files as they come

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from knarr.node.runtime import records
from knarr.node.runtime.contract import (
    ContainerConfig,
    ContainerState,
    Mount,
    Resources,
    RuntimeFailure,
    SecurityContext,
    Streams,
)
from knarr.node.runtime.oci import OciRuntime
from tests import images
from tests.node.runtime.conftest import (
    IMAGE,
    WAIT_S_MAX,
    Node,
    assert_nothing_left,
    exit_of,
    log_lines,
    runs,
    script,
    start,
)

pytestmark = pytest.mark.e2e


async def output_of(node: Node, config: ContainerConfig, **sandbox: object) -> list[str]:
    """What a container that ends says on stdout and stderr."""
    pod = await node.runtime.run_sandbox(node.sandbox(f"pod{len(await node.runtime.sandboxes())}", **sandbox))
    container = await exit_of(node.runtime, await start(node.runtime, pod.id, config))
    return [text for _, text in log_lines(container.log_path)]


async def read_all(streams: Streams) -> dict[int, bytes]:
    parts = {1: b"", 2: b""}
    async with asyncio.timeout(WAIT_S_MAX):
        async for number, data in streams.output():
            parts[number] += data
    return parts


async def read_until(streams: Streams, wanted: bytes) -> bytes:
    seen = b""
    async with asyncio.timeout(WAIT_S_MAX):
        async for _, data in streams.output():
            seen += data
            if wanted in seen:
                return seen
    raise AssertionError(f"{wanted!r} never came, only {seen!r}")


# -- logs, environment, users


async def test_output_is_logged_in_cri_format_with_its_stream(oci: Node) -> None:
    sandbox = await oci.runtime.run_sandbox(oci.sandbox())
    config = script("echo err >&2; echo out; printf unended")
    container = await exit_of(oci.runtime, await start(oci.runtime, sandbox.id, config))
    lines = [line.split(" ", 3) for line in Path(container.log_path).read_text().splitlines()]
    said = [(stream, tag, text) for _, stream, tag, text in lines]
    assert [line for line in said if line[0] == "stdout"] == [
        ("stdout", "F", "out"),
        ("stdout", "P", "unended"),
    ]
    assert ("stderr", "F", "err") in said


async def test_a_log_that_was_renamed_is_written_anew_when_reopened(oci: Node) -> None:
    sandbox = await oci.runtime.run_sandbox(oci.sandbox())
    container_id = await start(oci.runtime, sandbox.id, script("while read line; do echo $line; done", stdin=True))
    container = await oci.runtime.container(container_id)
    assert container is not None
    streams = await oci.runtime.attach(container_id)
    await streams.write(b"before\n")
    await read_until(streams, b"before\n")
    os.rename(container.log_path, f"{container.log_path}.1")
    await oci.runtime.reopen_log(container_id)
    async with asyncio.timeout(WAIT_S_MAX):
        while not Path(container.log_path).exists():
            await asyncio.sleep(0.005)
    await streams.write(b"after\n")
    await read_until(streams, b"after\n")
    await streams.close()
    await oci.runtime.stop_container(container_id, 0)
    assert log_lines(f"{container.log_path}.1") == [("stdout", "before")]
    assert log_lines(container.log_path) == [("stdout", "after")]


async def test_environment_command_and_working_folder_are_those_asked_for(oci: Node) -> None:
    config = script(
        "echo $HOSTNAME $COLOUR; pwd; hostname; cat /etc/hostname",
        env=[("COLOUR", "red green")],
        working_dir="/made/for/it",
    )
    assert await output_of(oci, config) == ["pod0 red green", "/made/for/it", "pod0", "pod0"]


async def test_users_come_from_the_image_or_the_security_context(oci: Node, tmp_path: Path) -> None:
    path = str(tmp_path / "user.tar")
    images.build(path, "knarr.test/user:v1", images.Recipe(user="app"))
    await oci.runtime.load_image(path)
    assert await output_of(oci, script("id", image="knarr.test/user:v1")) == [
        "uid=1000(app) gid=1000(app) groups=29(audio),1000(app)"
    ]
    security = SecurityContext(run_as_user=7, run_as_group=8, supplemental_groups=(9,))
    assert await output_of(oci, script("id", security=security)) == ["uid=7 gid=8 groups=8,9"]


async def test_run_as_non_root_refuses_an_image_of_root(oci: Node) -> None:
    sandbox = await oci.runtime.run_sandbox(oci.sandbox())
    with pytest.raises(RuntimeFailure, match="image will run as root") as refusal:
        await oci.runtime.create_container(sandbox.id, runs(security=SecurityContext(run_as_non_root=True)))
    assert refusal.value.reason == "CreateContainerConfigError"
    assert os.listdir(oci.directory / "root" / "containers") == []


async def test_the_security_context_is_what_the_kernel_enforces(oci: Node) -> None:
    text = "grep -E 'CapEff|NoNewPrivs' /proc/self/status; touch /x 2>&1; echo 1 2>&1 > /proc/sys/kernel/hostname"
    plain = await output_of(oci, script(text))
    assert plain[:2] == ["CapEff:\t00000000a80425fb", "NoNewPrivs:\t0"]
    assert "Read-only file system" in plain[2]
    security = SecurityContext(
        drop_capabilities=("ALL",), add_capabilities=("NET_BIND_SERVICE",), no_new_privileges=True, read_only_root=True
    )
    assert (await output_of(oci, script(text, security=security)))[:3] == [
        "CapEff:\t0000000000000400",
        "NoNewPrivs:\t1",
        "touch: /x: Read-only file system",
    ]
    text = "touch /sys/fs/cgroup && [ -e /dev/kmsg ] && grep CapEff /proc/self/status"
    (privileged,) = await output_of(oci, script(text, security=SecurityContext(privileged=True)))
    own = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapPrm"))
    assert privileged.split()[1] == own.split()[1]


async def test_mounts_are_read_only_where_asked_also_below(oci: Node, tmp_path: Path) -> None:
    (tmp_path / "data" / "inner").mkdir(parents=True)
    (tmp_path / "data" / "file").write_text("kept")
    subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path / "data" / "inner"], check=True)
    try:
        text = "cat /ro/file; echo; touch /ro/a 2>&1; touch /ro/inner/b 2>&1; touch /rw/c && echo written"
        mounts = [Mount(str(tmp_path / "data"), "/ro", read_only=True), Mount(str(tmp_path / "data"), "/rw")]
        assert await output_of(oci, script(text, mounts=mounts)) == [
            "kept",
            "touch: /ro/a: Read-only file system",
            "touch: /ro/inner/b: Read-only file system",
            "written",
        ]
        assert (tmp_path / "data" / "c").exists()
    finally:
        subprocess.run(["umount", tmp_path / "data" / "inner"], check=True)


async def test_a_mount_without_a_source_is_refused(oci: Node) -> None:
    sandbox = await oci.runtime.run_sandbox(oci.sandbox())
    with pytest.raises(RuntimeFailure, match="does not exist") as refusal:
        await oci.runtime.create_container(sandbox.id, runs(mounts=[Mount("/no/such/path", "/x")]))
    assert refusal.value.reason == "CreateContainerError"


# -- what a pod shares


async def test_containers_of_a_pod_share_network_and_shared_memory_and_others_do_not(oci: Node) -> None:
    first = await oci.runtime.run_sandbox(oci.sandbox("first"))
    second = await oci.runtime.run_sandbox(oci.sandbox("second"))
    ids = [
        await start(oci.runtime, sandbox_id, runs(name))
        for sandbox_id, name in ((first.id, "a"), (first.id, "b"), (second.id, "c"))
    ]
    look = ["sh", "-c", "for n in net ipc uts pid mnt; do readlink /proc/self/ns/$n; done"]
    a, b, c = [(await oci.runtime.exec_sync(one, look, WAIT_S_MAX)).output.split() for one in ids]
    assert a[:3] == b[:3]
    assert all(mine != other for mine, other in zip(a, c, strict=True))
    assert a[3:] != b[3:]
    assert (await oci.runtime.exec_sync(ids[0], ["touch", "/dev/shm/here"], WAIT_S_MAX)).exit_code == 0
    assert (await oci.runtime.exec_sync(ids[1], ["ls", "/dev/shm"], WAIT_S_MAX)).output == b"here\n"
    assert (await oci.runtime.exec_sync(ids[2], ["ls", "/dev/shm"], WAIT_S_MAX)).output == b""


async def test_loopback_is_up_and_any_user_may_listen_on_port_80(oci: Node) -> None:
    text = """nc -l -p 80 -e echo hello &
        until said=$(nc 127.0.0.1 80 </dev/null 2>/dev/null) && [ "$said" ]; do :; done; echo $said"""
    security = SecurityContext(run_as_user=1000, run_as_group=1000)
    assert await output_of(oci, script(text, security=security)) == ["hello"]


async def test_sysctls_are_set_in_the_pod_and_those_of_the_machine_refused(oci: Node) -> None:
    said = await output_of(oci, script("cat /proc/sys/net/core/somaxconn"), sysctls={"net.core.somaxconn": "321"})
    assert said == ["321"]
    with pytest.raises(RuntimeFailure, match=r"kernel\.panic"):
        await oci.runtime.run_sandbox(oci.sandbox("bad", sysctls={"kernel.panic": "1"}))
    assert len(os.listdir(oci.directory / "root" / "sandboxes")) == 1


async def test_host_network_is_the_machines_own(oci: Node) -> None:
    said = await output_of(oci, script("readlink /proc/self/ns/net; readlink /proc/self/ns/uts"), host_network=True)
    assert said == [os.readlink("/proc/self/ns/net"), os.readlink("/proc/self/ns/uts")]
    assert oci.network.attached == {}


async def test_a_sandbox_that_gets_no_address_leaves_nothing(oci: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(sandbox_id: str, network_namespace: str) -> tuple[str, ...]:
        raise OSError("no address is free")

    monkeypatch.setattr(oci.network, "attach", refuse)
    with pytest.raises(RuntimeFailure, match="no address is free") as refusal:
        await oci.runtime.run_sandbox(oci.sandbox())
    assert refusal.value.reason == "FailedCreatePodSandBox"
    assert await oci.runtime.sandboxes() == []
    assert os.listdir(oci.directory / "root" / "sandboxes") == []


# -- bounds


async def test_memory_limits_kill_and_the_kill_is_told(oci: Node) -> None:
    sandbox = await oci.runtime.run_sandbox(oci.sandbox())
    config = script("tail /dev/zero", resources=Resources(memory_limit_bytes=16 << 20))
    container = await exit_of(oci.runtime, await start(oci.runtime, sandbox.id, config))
    assert container.oom_killed
    assert container.exit_code == 137


async def test_cpu_bounds_and_usage_are_those_of_the_cgroup(oci: Node) -> None:
    assert isinstance(oci.runtime, OciRuntime)
    sandbox = await oci.runtime.run_sandbox(oci.sandbox(cpu_shares=512, memory_limit_bytes=64 << 20))
    config = script("while :; do :; done", resources=Resources(cpu_shares=128, cpu_quota_us=10_000))
    container = await start(oci.runtime, sandbox.id, config)
    groups = oci.runtime._ground.cgroups
    if not groups.is_v2:
        pod = Path("/sys/fs/cgroup/cpu" + groups.path("burstable/pod-pod"))
        assert (pod / "cpu.shares").read_text() == "512\n"
        assert (pod / container / "cpu.shares").read_text() == "128\n"
        assert (pod / container / "cpu.cfs_quota_us").read_text() == "10000\n"
    used = []
    while len(used) < 2 or used[-1].cpu_ns == used[0].cpu_ns:
        usage = await oci.runtime.usage(container)
        assert usage is not None
        used.append(usage)
    share = (used[-1].cpu_ns - used[0].cpu_ns) / 1e9
    assert share > 0
    assert 0 < usage.memory_bytes < 16 << 20


# -- starting and stopping


async def test_a_command_that_is_not_there_is_a_start_error(oci: Node) -> None:
    sandbox = await oci.runtime.run_sandbox(oci.sandbox())
    container_id = await oci.runtime.create_container(sandbox.id, runs(command=["nope"]))
    with pytest.raises(RuntimeFailure) as failure:
        await oci.runtime.start_container(container_id)
    assert failure.value.reason == "RunContainerError"
    assert 'exec: "nope": executable file not found in $PATH' in failure.value.message
    assert failure.value.message.startswith("OCI runtime create failed: runc create failed: ")
    container = await oci.runtime.container(container_id)
    assert container is not None
    assert (container.state, container.exit_code) == (ContainerState.EXITED, 128)
    assert container.message == failure.value.message
    assert os.listdir(oci.directory / "root" / "runtime") == []


async def test_the_images_stop_signal_is_sent(oci: Node, tmp_path: Path) -> None:
    path = str(tmp_path / "signal.tar")
    images.build(path, "knarr.test/signal:v1", images.Recipe(stop_signal="SIGUSR1"))
    await oci.runtime.load_image(path)
    sandbox = await oci.runtime.run_sandbox(oci.sandbox())
    text = "trap 'exit 5' USR1; echo ready; while :; do sleep 3600 & wait $!; done"
    container_id = await start(oci.runtime, sandbox.id, script(text, image="knarr.test/signal:v1"))
    await _log_has(oci, container_id, "ready")
    await oci.runtime.stop_container(container_id, 20)
    container = await oci.runtime.container(container_id)
    assert container is not None
    assert container.exit_code == 5


async def test_what_does_not_stop_is_killed_with_all_it_started(oci: Node) -> None:
    sandbox = await oci.runtime.run_sandbox(oci.sandbox())
    text = "trap '' TERM; sleep 3600 & sleep 3600 & echo ready; wait; wait"
    container_id = await start(oci.runtime, sandbox.id, script(text))
    await _log_has(oci, container_id, "ready")
    container = await oci.runtime.container(container_id)
    assert container is not None
    namespace = os.readlink(f"/proc/{container.pid}/ns/pid")
    assert len(_processes_in(namespace)) == 3
    await oci.runtime.stop_container(container_id, 0.2)
    after = await oci.runtime.container(container_id)
    assert after is not None
    assert after.exit_code == 137
    assert _processes_in(namespace) == []


async def _log_has(node: Node, container_id: str, wanted: str) -> None:
    container = await node.runtime.container(container_id)
    assert container is not None
    async with asyncio.timeout(WAIT_S_MAX):
        while wanted not in Path(container.log_path).read_text():
            await asyncio.sleep(0.005)


def _processes_in(pid_namespace: str) -> list[str]:
    found = []
    for link in Path("/proc").glob("[0-9]*/ns/pid"):
        try:
            if os.readlink(link) == pid_namespace:
                found.append(link.parts[2])
        except OSError:
            continue
    return found


# -- surviving


async def test_containers_logs_and_exit_codes_survive_a_killed_agent(tmp_path: Path, archive: str) -> None:
    text = "trap 'echo end; exit 9' TERM; while :; do sleep 3600 & wait $!; done"
    command = [sys.executable, "-m", "tests.node.runtime.agent", "run", str(tmp_path), archive, text]
    agent = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, start_new_session=True)
    assert agent.stdout is not None
    container_id = (await agent.stdout.readline()).decode().strip()
    os.killpg(agent.pid, signal.SIGKILL)
    await agent.wait()

    node = Node("oci", tmp_path)
    await node.runtime.start()
    try:
        found = await node.runtime.container(container_id)
        assert found is not None
        assert found.state is ContainerState.RUNNING
        assert found.pid is not None
        assert Path(f"/proc/{found.pid}").exists()
        assert (await node.runtime.exec_sync(container_id, ["echo", "still"], WAIT_S_MAX)).output == b"still\n"

        # It ends while no agent is there; the next one tells.
        await node.runtime.close()
        os.kill(found.pid, signal.SIGTERM)
        async with asyncio.timeout(WAIT_S_MAX):
            while not (tmp_path / "root" / "exits" / container_id).exists():
                await asyncio.sleep(0.005)
        runtime = await node.restart_agent()
        ended = await exit_of(runtime, container_id)
        assert ended.exit_code == 9
        assert log_lines(ended.log_path) == [("stdout", "end")]
        assert ended.finished_at_s >= ended.started_at_s
    finally:
        assert isinstance(node.runtime, OciRuntime)
        await node.runtime.purge()


@pytest.mark.parametrize("seed", range(6))
async def test_an_agent_killed_at_any_moment_leaves_only_whole_things(tmp_path: Path, archive: str, seed: int) -> None:
    command = [sys.executable, "-m", "tests.node.runtime.agent", "churn", str(tmp_path), archive]
    agent = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, start_new_session=True)
    assert agent.stdout is not None
    for _ in range(seed + 1):
        assert await agent.stdout.readline()
    await asyncio.sleep(random.Random(seed).uniform(0, 0.06))  # not to wait for something: to hit any moment
    os.killpg(agent.pid, signal.SIGKILL)
    await agent.wait()

    node = Node("oci", tmp_path)
    await node.runtime.start()
    assert isinstance(node.runtime, OciRuntime)
    try:
        ready = {sandbox.id for sandbox in await node.runtime.sandboxes() if sandbox.ready}
        for container in await node.runtime.containers():
            if container.state is ContainerState.RUNNING:
                assert container.sandbox_id in ready
                await _works_or_ends(node, container.id)
            elif container.state is ContainerState.CREATED:
                await node.runtime.start_container(container.id)
            else:
                assert container.exit_code is not None
    finally:
        group = node.runtime._ground.cgroups.root
        await node.runtime.purge()
    assert_nothing_left(tmp_path)
    assert list(Path("/sys/fs/cgroup").glob(f"*{group}")) == []


async def _works_or_ends(node: Node, container_id: str) -> None:
    """Told to end before its agent was killed, a container may end only now; what goes on does so as a whole."""
    async with asyncio.timeout(WAIT_S_MAX):
        while True:
            with contextlib.suppress(RuntimeFailure):
                if (await node.runtime.exec_sync(container_id, ["true"], WAIT_S_MAX)).exit_code == 0:
                    return
            found = await node.runtime.container(container_id)
            assert found is not None
            if found.state is ContainerState.EXITED:
                assert found.exit_code is not None
                return
            await asyncio.sleep(0.005)


async def test_a_killed_monitor_ends_its_container(oci: Node) -> None:
    assert isinstance(oci.runtime, OciRuntime)
    sandbox = await oci.runtime.run_sandbox(oci.sandbox())
    container_id = await start(oci.runtime, sandbox.id, runs())
    record = oci.runtime._inventory.containers[container_id].record
    assert record.monitor is not None
    assert record.process is not None
    record.monitor.kill(signal.SIGKILL)
    container = await exit_of(oci.runtime, container_id)
    assert container.exit_code == 137
    assert "conmon" in container.message
    async with asyncio.timeout(WAIT_S_MAX):
        while record.process.exists():
            await asyncio.sleep(0.005)


async def test_after_a_restart_of_the_machine_all_counts_as_exited(oci: Node) -> None:
    assert isinstance(oci.runtime, OciRuntime)
    sandbox = await oci.runtime.run_sandbox(oci.sandbox())
    container_id = await start(oci.runtime, sandbox.id, runs())
    held = oci.runtime._inventory.containers[container_id].record
    assert held.process is not None
    await oci.runtime.close()
    # What a restart leaves: records of another boot, and nothing that runs.
    held.process.kill(signal.SIGKILL)
    async with asyncio.timeout(WAIT_S_MAX):
        while not (exit_file := oci.directory / "root" / "exits" / container_id).exists():
            await asyncio.sleep(0.005)
    exit_file.unlink()
    held.boot_id = "another"
    records.write(str(oci.directory / "root" / "containers" / container_id), held)
    pod = records.read(str(oci.directory / "root" / "sandboxes" / sandbox.id), records.SandboxRecord)
    assert pod is not None
    pod.boot_id = "another"
    records.write(str(oci.directory / "root" / "sandboxes" / sandbox.id), pod)

    runtime = await oci.restart_agent()
    container = await exit_of(runtime, container_id)
    assert container.exit_code == 255
    assert [seen.ready for seen in await runtime.sandboxes()] == [False]


async def test_what_a_crash_left_half_made_is_removed_at_start(oci: Node) -> None:
    assert isinstance(oci.runtime, OciRuntime)
    sandbox = await oci.runtime.run_sandbox(oci.sandbox())
    container_id = await oci.runtime.create_container(sandbox.id, runs())
    root = oci.directory / "root"
    half = oci.runtime._inventory.containers[container_id].record
    half.phase = records.ContainerPhase.CREATING
    records.write(str(root / "containers" / container_id), half)
    whole = oci.runtime._inventory.sandboxes[sandbox.id]
    whole.phase = records.SandboxPhase.CREATING
    records.write(str(root / "sandboxes" / sandbox.id), whole)
    (root / "sandboxes" / "torn").mkdir()
    (root / "sandboxes" / "torn" / "record.json").write_bytes(b'{"id":')
    runtime = await oci.restart_agent()
    assert await runtime.sandboxes() == []
    assert await runtime.containers() == []
    assert os.listdir(root / "sandboxes") == os.listdir(root / "containers") == []
    assert str(root) not in Path("/proc/self/mountinfo").read_text()


async def test_a_leftover_that_the_network_does_not_let_go_does_not_keep_the_node_from_starting(
    oci: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(oci.runtime, OciRuntime)
    sandbox = await oci.runtime.run_sandbox(oci.sandbox())
    record = oci.runtime._inventory.sandboxes[sandbox.id]
    record.phase = records.SandboxPhase.CREATING
    records.write(str(oci.directory / "root" / "sandboxes" / sandbox.id), record)

    async def refuse(sandbox_id: str, network_namespace: str) -> None:
        raise OSError("not now")

    with monkeypatch.context() as patch:
        patch.setattr(oci.network, "detach", refuse)
        runtime = await oci.restart_agent()
    assert [left.ready for left in await runtime.sandboxes()] == [False]
    await runtime.remove_sandbox(sandbox.id)
    assert await runtime.sandboxes() == []


async def test_a_container_whose_sandbox_is_lost_is_removed_at_start(oci: Node) -> None:
    assert isinstance(oci.runtime, OciRuntime)
    sandbox = await oci.runtime.run_sandbox(oci.sandbox())
    container_id = await start(oci.runtime, sandbox.id, runs())
    process = oci.runtime._inventory.containers[container_id].record.process
    assert process is not None
    (oci.directory / "root" / "sandboxes" / sandbox.id / "record.json").write_bytes(b"")
    runtime = await oci.restart_agent()
    assert await runtime.containers() == await runtime.sandboxes() == []
    assert not process.exists()
    assert os.listdir(oci.directory / "root" / "sandboxes") == []


async def test_a_container_caught_while_starting_counts_as_failed(oci: Node) -> None:
    assert isinstance(oci.runtime, OciRuntime)
    sandbox = await oci.runtime.run_sandbox(oci.sandbox())
    container_id = await start(oci.runtime, sandbox.id, runs())
    record = oci.runtime._inventory.containers[container_id].record
    process = record.process
    assert process is not None
    await oci.runtime.close()
    record.phase, record.process, record.monitor = records.ContainerPhase.STARTING, None, None
    records.write(str(oci.directory / "root" / "containers" / container_id), record)
    runtime = await oci.restart_agent()
    container = await exit_of(runtime, container_id)
    assert container.exit_code == 128
    assert "starting" in container.message
    assert not process.exists()


async def test_removing_a_sandbox_leaves_no_mount_group_or_namespace(oci: Node) -> None:
    assert isinstance(oci.runtime, OciRuntime)
    sandbox = await oci.runtime.run_sandbox(oci.sandbox())
    container_id = await start(oci.runtime, sandbox.id, runs())
    log = (await oci.runtime.containers())[0].log_path
    await oci.runtime.remove_sandbox(sandbox.id)
    root = oci.directory / "root"
    for folder in ("sandboxes", "containers", "exits", "runtime"):
        assert os.listdir(root / folder) == []
    assert str(root) not in Path("/proc/self/mountinfo").read_text()
    group = oci.runtime._ground.cgroups.path("burstable/pod-pod")
    assert list(Path("/sys/fs/cgroup").glob(f"*{group}")) == []
    assert oci.network.attached == {}
    assert Path(log).exists()
    assert await oci.runtime.container(container_id) is None


async def test_an_asker_that_goes_away_does_not_stop_a_change_half_way(oci: Node) -> None:
    asker = asyncio.create_task(oci.runtime.run_sandbox(oci.sandbox()))
    while not os.listdir(oci.directory / "root" / "sandboxes"):
        await asyncio.sleep(0)
    asker.cancel()
    await asyncio.gather(asker, return_exceptions=True)
    runtime = await oci.restart_agent()
    assert [sandbox.ready for sandbox in await runtime.sandboxes()] == [True]


# -- exec and attach


async def test_exec_sync_answers_code_and_output(oci: Node) -> None:
    sandbox = await oci.runtime.run_sandbox(oci.sandbox())
    container = await start(oci.runtime, sandbox.id, runs())
    result = await oci.runtime.exec_sync(container, ["sh", "-c", "echo out; echo err >&2; exit 3"], WAIT_S_MAX)
    assert result.exit_code == 3
    assert sorted(result.output.split()) == [b"err", b"out"]
    flood = await oci.runtime.exec_sync(container, ["sh", "-c", "yes | head -c 1000000"], WAIT_S_MAX)
    assert flood.exit_code == 0
    assert len(flood.output) == 16 << 10


async def test_exec_of_a_command_that_is_not_there_has_code_127(oci: Node) -> None:
    sandbox = await oci.runtime.run_sandbox(oci.sandbox())
    container = await start(oci.runtime, sandbox.id, runs())
    result = await oci.runtime.exec_sync(container, ["nope"], WAIT_S_MAX)
    assert result.exit_code == 127
    assert b'"nope": executable file not found in $PATH' in result.output
    assert (await oci.runtime.exec_sync(container, ["/etc/passwd"], WAIT_S_MAX)).exit_code == 126
    assert (await oci.runtime.exec_sync(container, ["sh", "-c", "exit 255"], WAIT_S_MAX)).exit_code == 255


async def test_exec_sync_kills_what_takes_too_long(oci: Node) -> None:
    sandbox = await oci.runtime.run_sandbox(oci.sandbox())
    container = await start(oci.runtime, sandbox.id, runs())
    with pytest.raises(TimeoutError):
        await oci.runtime.exec_sync(container, ["sh", "-c", "sleep 4321 & sleep 4321"], 0.5)
    said = await oci.runtime.exec_sync(container, ["ps"], WAIT_S_MAX)
    assert b"4321" not in said.output


async def test_exec_passes_stdin_and_keeps_stdout_and_stderr_apart(oci: Node) -> None:
    sandbox = await oci.runtime.run_sandbox(oci.sandbox())
    container = await start(oci.runtime, sandbox.id, runs())
    command = ["sh", "-c", "cat; echo err >&2; exit 4"]
    streams = await oci.runtime.exec(container, command, tty=False, stdin=True)
    data = os.urandom(1 << 20)
    reading = asyncio.create_task(read_all(streams))
    await streams.write(data)
    await streams.close_stdin()
    assert await reading == {1: data, 2: b"err\n"}
    assert await streams.exit_code() == 4
    await streams.close()


async def test_exec_with_a_terminal_echoes_resizes_and_ends(oci: Node) -> None:
    sandbox = await oci.runtime.run_sandbox(oci.sandbox())
    container = await start(oci.runtime, sandbox.id, runs())
    streams = await oci.runtime.exec(container, ["sh"], tty=True, stdin=True)
    await streams.write(b"tty; echo one$((1+1))two\n")
    seen = await read_until(streams, b"one2two")
    assert b"/dev/pts/" in seen
    await streams.resize(101, 37)
    await streams.write(b"until stty size | grep -q '37 101'; do :; done; echo re''sized\n")
    await read_until(streams, b"resized")
    await streams.write(b"exit 6\n")
    async with asyncio.timeout(WAIT_S_MAX):
        assert await streams.exit_code() == 6
    await read_all(streams)
    await streams.close()


async def test_closing_an_exec_session_kills_its_command(oci: Node) -> None:
    sandbox = await oci.runtime.run_sandbox(oci.sandbox())
    container = await start(oci.runtime, sandbox.id, runs())
    for terminal in (False, True):
        streams = await oci.runtime.exec(container, ["sh", "-c", "echo up; sleep 9876"], tty=terminal, stdin=False)
        await read_until(streams, b"up")
        await streams.close()
        assert b"9876" not in (await oci.runtime.exec_sync(container, ["ps"], WAIT_S_MAX)).output


async def test_attach_reads_and_writes_the_first_process(oci: Node) -> None:
    sandbox = await oci.runtime.run_sandbox(oci.sandbox())
    text = "while read line; do echo got $line; [ $line = quit ] && exit 8; done"
    container = await start(oci.runtime, sandbox.id, script(text, stdin=True))
    for _ in range(2):  # stdin stays open for the next who attaches
        streams = await oci.runtime.attach(container)
        await streams.write(b"hello\n")
        assert await read_until(streams, b"got hello\n")
        await streams.close()
    streams = await oci.runtime.attach(container)
    await streams.write(b"quit\n")
    assert b"got quit" in (await read_all(streams))[1]
    async with asyncio.timeout(WAIT_S_MAX):
        assert await streams.exit_code() == 8
    await streams.close()


async def test_attach_to_a_terminal_can_be_resized(oci: Node) -> None:
    sandbox = await oci.runtime.run_sandbox(oci.sandbox())
    container = await start(oci.runtime, sandbox.id, runs(command=["sh"], tty=True, stdin=True))
    streams = await oci.runtime.attach(container)
    await streams.resize(99, 33)
    await streams.write(b"until stty size | grep -q '33 99'; do :; done; echo re''sized\n")
    assert await read_until(streams, b"resized")
    await streams.close()


async def test_of_two_sizes_in_a_row_the_second_counts_however_late_conmon_reads_them(oci: Node) -> None:
    """kubectl attach tells two, so that the screen is drawn anew."""
    sandbox = await oci.runtime.run_sandbox(oci.sandbox())
    container = await start(oci.runtime, sandbox.id, runs(command=["sh"], tty=True, stdin=True))
    streams = await oci.runtime.attach(container)
    assert isinstance(oci.runtime, OciRuntime)
    monitor = oci.runtime._inventory.containers[container].record.monitor
    assert monitor is not None
    monitor.kill(signal.SIGSTOP)
    await streams.resize(78, 34)
    second = asyncio.create_task(streams.resize(77, 33))
    await asyncio.wait({second}, timeout=0.2)
    monitor.kill(signal.SIGCONT)
    await second
    await streams.write(b"until stty size | grep -q '33 77'; do :; done; echo re''sized\n")
    assert await read_until(streams, b"resized")
    await streams.close()


async def test_stdin_once_ends_with_the_first_who_attached(oci: Node) -> None:
    sandbox = await oci.runtime.run_sandbox(oci.sandbox())
    container = await start(oci.runtime, sandbox.id, script("cat; exit 3", stdin=True, stdin_once=True))
    streams = await oci.runtime.attach(container)
    await streams.write(b"all\n")
    assert await read_until(streams, b"all\n")
    await streams.close()
    assert (await exit_of(oci.runtime, container)).exit_code == 3


# -- images in use


async def test_an_image_of_a_hundred_layers_runs(oci: Node, tmp_path: Path) -> None:
    path = str(tmp_path / "deep.tar")
    layers = [images.tar({f"/deep/{number}": str(number).encode()}) for number in range(100)]
    images.build(path, "knarr.test/deep:v1", images.Recipe(layers=layers))
    await oci.runtime.load_image(path)
    assert await output_of(oci, script("ls /deep | wc -l; cat /deep/99; echo", image="knarr.test/deep:v1")) == [
        "100",
        "99",
    ]


async def test_the_layers_of_a_removed_image_stay_while_a_container_uses_them(oci: Node) -> None:
    sandbox = await oci.runtime.run_sandbox(oci.sandbox())
    container = await start(oci.runtime, sandbox.id, runs())
    await oci.runtime.remove_image(IMAGE)
    assert await oci.runtime.image(IMAGE) is None
    assert (await oci.runtime.exec_sync(container, ["ls", "/bin/busybox"], WAIT_S_MAX)).exit_code == 0
    await oci.runtime.remove_sandbox(sandbox.id)
    await oci.restart_agent()
    assert os.listdir(oci.directory / "root" / "images" / "layers") == []


async def test_what_one_container_writes_no_other_sees(oci: Node) -> None:
    sandbox = await oci.runtime.run_sandbox(oci.sandbox())
    first = await start(oci.runtime, sandbox.id, runs("first"))
    await oci.runtime.exec_sync(first, ["sh", "-c", "echo x > /tmp/x; rm /bin/wget"], WAIT_S_MAX)
    second = await start(oci.runtime, sandbox.id, runs("second"))
    assert (await oci.runtime.exec_sync(second, ["cat", "/tmp/x"], WAIT_S_MAX)).exit_code == 1
    assert (await oci.runtime.exec_sync(second, ["ls", "/bin/wget"], WAIT_S_MAX)).exit_code == 0


async def test_a_runtime_that_does_not_work_here_is_named_with_its_reason(tmp_path: Path) -> None:
    broken = tmp_path / "crun"
    broken.write_text("#!/bin/sh\necho 'invalid file system type' >&2; exit 1\n")
    broken.chmod(0o755)
    node = Node("oci", tmp_path)
    runtime = OciRuntime(str(tmp_path / "root"), node.runtime._clock, node.network, str(broken))  # type: ignore[attr-defined]
    with pytest.raises(RuntimeFailure, match="invalid file system type"):
        await runtime.start()
