"""A node with real containers, for tests that need them; it leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from knarr.clock import SystemClock
from knarr.network.podnet import PodNetwork
from knarr.node.config import NodeConfig
from knarr.node.runtime.oci import OciRuntime
from tests import images
from tests.node.cluster import NODE, NodeCluster

IMAGE = "knarr.test/busybox:v1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    lacks = [program for program in ("conmon", "runc", "skopeo", "nft") if shutil.which(program) is None]
    why = "needs root" if os.geteuid() else f"needs {', '.join(lacks)}" if lacks else ""
    for item in items:
        if why and "e2e" in item.keywords:
            item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture(scope="session")
def busybox(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("images") / "busybox.tar")
    images.build(path, IMAGE)
    return path


@pytest.fixture
async def real(tmp_path: Path, busybox: str) -> AsyncIterator[NodeCluster]:
    """A running node with real containers."""
    clock = SystemClock()
    suffix = secrets.token_hex(4)
    cidr = f"10.{200 + secrets.randbelow(40)}.{secrets.randbelow(250)}.0/24"
    network = PodNetwork(
        pod_cidrs=[cidr],
        cluster_cidrs=[cidr],
        state_directory=tmp_path / "network",
        interface=f"kt{suffix}",
        clock=clock,
    )
    runtime = OciRuntime(str(tmp_path / "runtime"), clock, network)
    config = NodeConfig(
        NODE, tmp_path / "node", tmp_path / "logs", network.gateways, pod_cidrs=(cidr,), cluster_dns=("10.96.0.10",)
    )
    await network.start()
    try:
        await runtime.start()
        await runtime.load_image(busybox)
        cluster = NodeCluster(clock, runtime, config)
        async with cluster.running():
            yield cluster
            for pod in list(cluster.pods.all()):
                await cluster.delete(pod.metadata.name or "", 1)
            await cluster.until(lambda: not cluster.pods.all())
            async with asyncio.timeout(60):
                while cluster.agent.pods_held:  # noqa: ASYNC110 (nothing tells)
                    await asyncio.sleep(0.01)
        assert_nothing_left(tmp_path / "node")
    finally:
        await runtime.purge()
        await network.close(remove=True)


def assert_nothing_left(folder: Path) -> None:
    """No file and no mount of any pod."""
    assert not list((folder / "pods").glob("*"))
    assert str(folder) not in Path("/proc/self/mountinfo").read_text()
