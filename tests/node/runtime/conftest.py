"""What the runtime's tests share: a clock that is moved by hand, and runtimes that leave nothing behind."""

# ruff: noqa: ASYNC240  # a test has its loop for itself, and looks at files as they come

from __future__ import annotations

import asyncio
import os
import random
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from knarr.clock import SystemClock
from knarr.node.runtime.contract import ContainerConfig, Runtime, SandboxConfig
from knarr.node.runtime.oci import OciRuntime
from knarr.node.runtime.sim import LABEL, SimRuntime
from tests import images

IMAGE = "knarr.test/busybox:v1"
WAIT_S_MAX = 60.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    lacks = [program for program in ("conmon", "runc", "skopeo") if shutil.which(program) is None]
    why = "needs root" if os.geteuid() else f"needs {', '.join(lacks)}" if lacks else ""
    for item in items:
        if why and "e2e" in item.keywords:
            item.add_marker(pytest.mark.skip(reason=why))


class NoNetwork:
    """A pod network that gives nothing, and remembers who asked."""

    def __init__(self) -> None:
        self.attached: dict[str, str] = {}

    async def attach(self, sandbox_id: str, network_namespace: str) -> tuple[str, ...]:
        assert os.path.exists(network_namespace)
        self.attached[sandbox_id] = network_namespace
        return ()

    async def detach(self, sandbox_id: str, network_namespace: str) -> None:
        self.attached.pop(sandbox_id, None)


class HandClock:
    """Time stands still until `advance`."""

    def __init__(self) -> None:
        self.random = random.Random(1)
        self.now_s = 1_000.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []
        self._timeouts: list[tuple[float, asyncio.Timeout]] = []

    def time_s(self) -> float:
        return self.now_s

    def monotonic_s(self) -> float:
        return self.now_s

    async def sleep(self, delay_s: float) -> None:
        woken = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.now_s + delay_s, woken))
        await woken

    def timeout(self, delay_s: float | None) -> asyncio.Timeout:
        timeout = asyncio.timeout(None)
        if delay_s is not None:
            self._timeouts.append((self.now_s + delay_s, timeout))
        return timeout

    async def advance(self, by_s: float) -> None:
        await self.settle()
        self.now_s += by_s
        for due_s, sleeper in self._sleepers:
            if due_s <= self.now_s and not sleeper.done():
                sleeper.set_result(None)
        for due_s, timeout in self._timeouts:
            if due_s <= self.now_s and not timeout.expired():
                timeout.reschedule(asyncio.get_running_loop().time())
        self._timeouts = [entry for entry in self._timeouts if entry[0] > self.now_s]
        await self.settle()

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)


class Node:
    """A runtime under test, and how to restart the agent that holds it."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.kind = kind
        self.directory = directory
        self.network = NoNetwork()
        self.runtime: Runtime = self._new()

    def _new(self) -> Any:
        if self.kind == "sim":
            return SimRuntime(SystemClock())
        return OciRuntime(str(self.directory / "root"), SystemClock(), self.network)

    async def restart_agent(self) -> Runtime:
        await self.runtime.close()
        if self.kind == "oci":
            self.runtime = self._new()
        await self.runtime.start()
        return self.runtime

    def sandbox(self, name: str = "pod", **fields: Any) -> SandboxConfig:
        return SandboxConfig(
            pod_uid=f"uid-{name}",
            pod_name=name,
            pod_namespace="default",
            attempt=0,
            hostname=name,
            log_directory=str(self.directory / "logs" / name),
            cgroup_parent=f"burstable/pod-{name}",
            **fields,
        )


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("images") / "busybox.tar")
    images.build(path, IMAGE)
    return path


async def _node(kind: str, directory: Path, archive: str) -> AsyncIterator[Node]:
    node = Node(kind, directory)
    await node.runtime.start()
    await node.runtime.load_image(archive)
    yield node
    if isinstance(node.runtime, OciRuntime):
        await node.runtime.purge()
        assert_nothing_left(directory)
    else:
        await node.runtime.close()


def assert_nothing_left(directory: Path) -> None:
    """No mount, no process of a container."""
    assert str(directory) not in Path("/proc/self/mountinfo").read_text()
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert str(directory / "root").encode() not in process.read_bytes()
        except OSError:
            continue


@pytest.fixture(params=["sim", pytest.param("oci", marks=pytest.mark.e2e)])
async def node(request: pytest.FixtureRequest, tmp_path: Path, archive: str) -> AsyncIterator[Node]:
    async for node in _node(request.param, tmp_path, archive):
        yield node


@pytest.fixture
async def oci(tmp_path: Path, archive: str) -> AsyncIterator[Node]:
    async for node in _node("oci", tmp_path, archive):
        yield node


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


Container = Callable[..., ContainerConfig]


def runs(name: str = "main", **fields: Any) -> ContainerConfig:
    """A container that runs until it is told to end, and then ends at once."""
    script = "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done"
    return ContainerConfig(**{"name": name, "attempt": 0, "image": IMAGE, "command": ["sh", "-c", script], **fields})


def script(text: str, name: str = "main", **fields: Any) -> ContainerConfig:
    """A container that runs a shell script."""
    return ContainerConfig(**{"name": name, "attempt": 0, "image": IMAGE, "command": ["sh", "-c", text], **fields})


def ends_with(code: int) -> tuple[dict[str, str], ContainerConfig]:
    """Labels of a sandbox and a container that together end with `code`, on either runtime."""
    return {f"{LABEL}exit-after-s": "0", f"{LABEL}exit-code": str(code)}, script(f"exit {code}")


async def start(runtime: Runtime, sandbox_id: str, config: ContainerConfig) -> str:
    container_id = await runtime.create_container(sandbox_id, config)
    await runtime.start_container(container_id)
    return container_id


async def exit_of(runtime: Runtime, container_id: str) -> Any:
    """Wait until the runtime tells that the container has ended."""
    async with asyncio.timeout(WAIT_S_MAX):
        async for ended in runtime.exits():
            if ended == container_id:
                return await runtime.container(container_id)
    raise AssertionError("unreachable")


def log_lines(path: str) -> list[tuple[str, str]]:
    """(stream, text) of a log in CRI format, the parts of a line joined."""
    lines: list[tuple[str, str]] = []
    parts: dict[str, str] = {}
    for line in Path(path).read_text().splitlines():
        _, stream, tag, text = line.split(" ", 3)
        parts[stream] = parts.get(stream, "") + text
        if tag == "F":
            lines.append((stream, parts.pop(stream)))
    return lines + list(parts.items())
