from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.network.lab import IS_ROOT, Lab, Machines, started_lab


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    """A node with a pod network and a client, in network namespaces of their own."""
    if not IS_ROOT:
        pytest.skip("needs root: makes network namespaces and kernel rules")
    async with started_lab(tmp_path / "network") as lab:
        yield lab


@pytest.fixture
async def machines() -> AsyncIterator[Machines]:
    """Two nodes and a client on one LAN, with both address families."""
    if not IS_ROOT:
        pytest.skip("needs root: makes network namespaces and kernel rules")
    machines = Machines()
    try:
        machines.start("node-1", "node-2")
        yield machines
    finally:
        await machines.close()
