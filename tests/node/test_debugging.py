"""Ephemeral containers, and pods whose processes are not each container's own: what `kubectl debug` builds on."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from knarr.api.core.v1 import ContainerStatus, Pod
from knarr.node.runtime import pause
from knarr.node.runtime.sim import SimRuntime
from knarr.simulate.clock import VirtualClock, run
from tests.node.cluster import NodeCluster, hollow_config
from tests.node.test_real_pods import RUN, out, script, soon, started

real_containers = pytest.mark.e2e


async def add(cluster: NodeCluster, pod: str, /, **container: Any) -> None:
    """As `kubectl debug` does it."""
    added = {"image": "one:v1", "terminationMessagePolicy": "File", **container}
    patch = {"spec": {"ephemeralContainers": [added]}}
    await cluster.client.patch(Pod, pod, patch, "default", subresource="ephemeralcontainers")


def added_status(cluster: NodeCluster, name: str, container: str) -> ContainerStatus:
    found = cluster.get(name)
    assert found is not None
    assert found.status is not None
    return next(each for each in found.status.ephemeral_container_statuses if each.name == container)


def test_an_ephemeral_container_runs_once_and_says_nothing_about_its_pod(tmp_path: Path) -> None:
    async def scenario(cluster: NodeCluster) -> None:
        await cluster.pod("web")
        await cluster.until(lambda: cluster.ready("web"))
        await add(cluster, "web", name="debugger")

        def state() -> Any:
            found = added_status(cluster, "web", "debugger").state
            assert found is not None
            return found

        await cluster.until(lambda: state().running is not None)
        status = added_status(cluster, "web", "debugger")
        assert (status.ready, status.started) == (False, None)
        assert cluster.ready("web")
        assert ("Started", "Container started") in await cluster.events("web")
        await cluster.runtime.stop_container((status.container_id or "").removeprefix("knarr://"), 0)
        await cluster.until(lambda: state().terminated is not None)
        await cluster.clock.sleep(600)
        after = added_status(cluster, "web", "debugger")
        assert after.restart_count == 0
        assert after.state is not None
        assert after.state.terminated is not None
        assert cluster.phase("web") == "Running"
        assert cluster.ready("web")
        await cluster.delete("web", 0)
        await cluster.until(lambda: cluster.get("web") is None)

    async def main(clock: VirtualClock) -> None:
        cluster = NodeCluster(clock, SimRuntime(clock), hollow_config(tmp_path))
        async with cluster.running():
            await scenario(cluster)

    run(main)


@real_containers
async def test_an_ephemeral_container_sees_the_processes_of_its_target_alone(real: NodeCluster) -> None:
    main, other = script("sleep 1111"), script("sleep 2222", name="other")
    pod = await started(real, "web", main, other, terminationGracePeriodSeconds=1)
    await add(real, "web", name="beside", image=main["image"], command=["sleep", "3333"])
    aimed = {"name": "inside", "targetContainerName": "main", "image": main["image"], "command": ["sleep", "4444"]}
    await add(real, "web", **aimed)

    def runs(container: str) -> bool:
        state = added_status(real, "web", container).state
        return state is not None and state.running is not None

    await real.until(lambda: runs("beside") and runs("inside"))

    async def processes(container: str) -> set[str]:
        id_ = (added_status(real, "web", container).container_id or "").removeprefix("knarr://")
        result = await real.runtime.exec_sync(id_, ["ps", "-o", "args"], 10)
        return {line for line in result.output.decode().splitlines() if line.startswith("sleep")}

    async def all_run() -> bool:
        beside, inside = await processes("beside"), await processes("inside")
        return (beside, inside) == ({"sleep 3333"}, {"sleep 1111", "sleep 4444"})

    await soon(all_run)  # a container counts as running just before it becomes its command
    session = await real.backend.exec(pod, "inside", ["echo", "here"], tty=False, stdin=False)
    assert b"".join([data async for _, data in session.output()]) == b"here\n"
    await session.close()


@real_containers
async def test_containers_that_share_their_processes_see_each_other_and_nothing_of_the_machine(
    real: NodeCluster,
) -> None:
    trusted = {"securityContext": {"capabilities": {"add": ["SYS_PTRACE"]}}}
    main = script("sleep 1111 & sleep 2222", **trusted)
    other = script("sleep 3333", name="other")
    await started(real, "web", main, other, shareProcessNamespace=True, terminationGracePeriodSeconds=1)

    async def all_run() -> bool:
        seen = await out(real, "web", "ps", "-o", "args", container="other")
        return {"sleep 1111", "sleep 2222", "sleep 3333"} <= set(seen.splitlines())

    await soon(all_run)
    first = await out(real, "web", "cat", "/proc/1/comm")
    assert first.startswith("python")
    # Whoever may look into the first process finds an empty root, with nothing above it.
    assert await out(real, "web", "ls", "/proc/1/root/", "/proc/1/root/../../../") == (
        "/proc/1/root/:\nnull\n\n/proc/1/root/../../../:\nnull\n"
    )
    assert "CapEff:\t0000000000000000" in await out(real, "web", "cat", "/proc/1/status")


@real_containers
async def test_a_container_that_ends_takes_only_its_own_of_the_shared_processes_along(real: NodeCluster) -> None:
    main = script("sleep 1111 & until [ -e /dev/shm/go ]; do sleep 0.1; done; exit 3")
    other = script("sleep 3333", name="other")
    pod = await real.pod("web", main, other, shareProcessNamespace=True, restartPolicy="Never")

    async def seen() -> set[str]:
        return set((await out(real, "web", "ps", "-o", "args", container="other")).splitlines())

    async def all_run() -> bool:
        return {"sleep 1111", "sleep 3333"} <= await seen()

    await real.until(lambda: real.ready("web"))
    await soon(all_run)
    await out(real, "web", "touch", "/dev/shm/go", container="other")

    def code() -> int | None:
        state = real.status("web").state
        assert state is not None
        assert state.terminated is not None
        return state.terminated.exit_code

    await real.until(lambda: code() == 3)
    assert {"sleep 1111", "sleep 3333"} & await seen() == {"sleep 3333"}
    await real.delete("web", 1)
    await real.until(lambda: real.get("web") is None)
    assert not await asyncio.to_thread(_pauses, pod.metadata.uid)


@real_containers
async def test_a_pod_may_see_the_processes_and_the_ipc_of_the_machine(real: NodeCluster) -> None:
    await started(real, "web", script(RUN), hostPID=True, hostIPC=True, terminationGracePeriodSeconds=1)
    for kind in ("pid", "ipc"):
        inside = int(await out(real, "web", "stat", "-L", "-c", "%i", f"/proc/self/ns/{kind}"))
        assert inside == (await asyncio.to_thread(os.stat, f"/proc/self/ns/{kind}")).st_ino
    assert await out(real, "web", "cat", f"/proc/{os.getpid()}/comm")


def _pauses(uid: str | None) -> list[Path]:
    """The first processes of a pod that there are."""
    assert uid
    pauses = [path for path in Path("/proc").glob("[0-9]*/cmdline") if pause.__file__.encode() in _read(path)]
    return [path for path in pauses if uid.encode() in _read(path.parent / "cgroup")]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
