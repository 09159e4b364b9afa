"""Settings of the kernel are put back as they were found, in a network namespace of the test's own."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from knarr.clock import SystemClock
from knarr.network import netlink as kernel
from knarr.network import settings
from knarr.network.podnet import PodNetwork
from tests.network.lab import IS_ROOT

FORWARD, REDIRECTS, LOOPBACK = "ipv4/ip_forward", "ipv4/conf/all/accept_redirects", "ipv4/conf/all/route_localnet"


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where everything of a test happens."""
    if not IS_ROOT:
        pytest.skip("needs root: makes network namespaces")
    monkeypatch.setattr(settings, "FOLDER", tmp_path / "run")
    name = f"ks{uuid.uuid4().hex[:8]}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        with kernel.entered(f"/run/netns/{name}"):
            for setting in (FORWARD, LOOPBACK):
                kernel.write_setting(setting, "0")
            yield f"/run/netns/{name}"
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.mark.parametrize("found", ["0", "1"])
def test_what_was_found_comes_back(found: str) -> None:
    kernel.write_setting(LOOPBACK, found)
    settings.need(LOOPBACK, "1", "a")
    settings.need(LOOPBACK, "1", "a")
    assert kernel.read_setting(LOOPBACK) == "1"
    settings.release("a")
    settings.release("a")
    assert kernel.read_setting(LOOPBACK) == found
    assert [each.name for each in settings.FOLDER.iterdir()] == ["settings.lock"]


def test_it_stays_for_as_long_as_anybody_needs_it() -> None:
    settings.need(FORWARD, "1", "a")
    settings.need(FORWARD, "1", "b")
    settings.release("a")
    assert kernel.read_setting(FORWARD) == "1"
    settings.release("b")
    assert kernel.read_setting(FORWARD) == "0"


def test_what_somebody_set_meanwhile_is_left() -> None:
    settings.need("ipv4/conf/all/rp_filter", "1", "a")
    kernel.write_setting("ipv4/conf/all/rp_filter", "2")
    settings.release("a")
    assert kernel.read_setting("ipv4/conf/all/rp_filter") == "2"


def test_what_the_kernel_changes_along_with_it_comes_back_too() -> None:
    """A machine that stops to forward accepts redirects again, however its administrator had it."""
    kernel.write_setting(REDIRECTS, "0")
    settings.need(FORWARD, "1", "a", along=[REDIRECTS])
    settings.release("a")
    assert (kernel.read_setting(FORWARD), kernel.read_setting(REDIRECTS)) == ("0", "0")


def test_a_setting_that_went_with_its_interface_is_no_trouble() -> None:
    subprocess.run(["ip", "link", "add", "br9", "type", "bridge"], check=True)
    settings.need("ipv6/conf/br9/accept_ra", "2", "a")
    settings.need(LOOPBACK, "1", "a")
    subprocess.run(["ip", "link", "del", "br9"], check=True)
    settings.release("a")
    assert kernel.read_setting(LOOPBACK) == "0"


async def test_a_pod_network_leaves_forwarding_as_it_was(inside: str, tmp_path: Path) -> None:
    """Between its start and its end the machine forwards."""
    kernel.write_setting("ipv6/conf/all/forwarding", "0")
    kernel.write_setting("ipv6/conf/lo/accept_ra", "1")
    read = ("ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv6/conf/lo/accept_ra")
    for found in (["1", "1", "2"], ["0", "0", "1"]):
        network = PodNetwork(
            pod_cidrs=("10.244.0.0/24", "fd00:244::/64"),
            cluster_cidrs=("10.244.0.0/16", "fd00:244::/48"),
            state_directory=tmp_path,
            clock=SystemClock(),
            network_namespace=inside,
        )
        await network.start()
        assert [kernel.read_setting(each) for each in read] == ["1", "1", "2"]
        # The first one is killed.
        await network.close(remove=found[0] == "0")
        assert [kernel.read_setting(each) for each in read] == found
