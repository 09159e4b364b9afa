"""Where these tests run: most at an API server of their own, those that need containers in one real cluster.

That has one node, or two with KNARR_TEST_NODES=2; KNARR_TEST_PROXY_MODE chooses how Services reach the kernel.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.apiserver.pipeline.door import Door, open_door
from tests.conformance.image import build_images
from tests.conformance.space import Space
from tests.e2e import two_nodes
from tests.e2e.conftest import Cluster, started

PROGRAMS = ("kubectl", "conmon", "runc", "nft", "busybox", "openssl", "perl")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    lacks = [name for name in PROGRAMS if shutil.which(name) is None]
    why = "needs root" if os.geteuid() else f"needs {', '.join(lacks)}" if lacks else ""
    for item in items:
        if item.path.parent == Path(__file__).parent and "cluster" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.e2e)
            if why:
                item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    async with open_door() as opened:
        yield opened


@pytest.fixture(scope="package")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One real cluster for all of these tests; each makes a namespace of its own."""
    folder = tmp_path_factory.mktemp("conformance")
    archives = build_images(folder)
    proxy_mode = os.environ.get("KNARR_TEST_PROXY_MODE", "nftables")
    if os.environ.get("KNARR_TEST_NODES") == "2":
        run = two_nodes.started(two_nodes.TwoNodes(folder, proxy_mode))
        two = next(run)
        try:
            two.load(*archives)
            two.kubectl("wait", "--for=condition=Ready", *(f"node/{name}" for name in two_nodes.NODES), "--timeout=60s")
            yield two
        finally:
            assert next(run, None) is None
        return
    made = Cluster(folder, proxy_mode)
    made.listen_host = "0.0.0.0"
    yield from started(made, archives)


@pytest.fixture
def space(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Space]:
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name)[:40].strip("-")
    cluster.kubectl("create", "namespace", name)
    cluster.until(lambda: "default" in cluster.kubectl("get", "serviceaccounts", "-n", name), "the account")
    yield Space(cluster, name)
    cluster.kubectl("delete", "namespace", name, "--wait=false")
