"""Control groups, on trees of plain files: both versions, on any machine."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest

from knarr.node.runtime.cgroups import ControlGroups, Usage, weight


@pytest.fixture
def version_1(tmp_path: Path) -> ControlGroups:
    for controller in ("cpu", "cpuacct", "memory", "pids"):
        (tmp_path / controller).mkdir()
    return ControlGroups("/knarr", str(tmp_path))


@pytest.fixture
def version_2(tmp_path: Path) -> ControlGroups:
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids")
    return ControlGroups("knarr", str(tmp_path))


def test_version_1_bounds(version_1: ControlGroups, tmp_path: Path) -> None:
    version_1.create("besteffort/podx", cpu_shares=2, cpu_quota_us=5000, memory_limit_bytes=1 << 20)
    assert (tmp_path / "cpu/knarr/besteffort/cpu.shares").read_text() == "2"
    pod = tmp_path / "cpu/knarr/besteffort/podx"
    assert (pod / "cpu.cfs_quota_us").read_text() == "5000"
    assert (pod / "cpu.cfs_period_us").read_text() == "100000"
    assert (tmp_path / "memory/knarr/besteffort/podx/memory.limit_in_bytes").read_text() == str(1 << 20)


def test_version_2_bounds(version_2: ControlGroups, tmp_path: Path) -> None:
    version_2.create("podx", cpu_shares=1024, cpu_quota_us=5000, memory_limit_bytes=1 << 20)
    pod = tmp_path / "knarr/podx"
    assert (pod / "cpu.weight").read_text() == "39"
    assert (pod / "cpu.max").read_text() == "5000 100000"
    assert (pod / "memory.max").read_text() == str(1 << 20)


def test_no_bound_is_no_write(version_2: ControlGroups, tmp_path: Path) -> None:
    version_2.create("podx")
    assert not (tmp_path / "knarr/podx/cpu.weight").exists()
    assert not (tmp_path / "knarr/podx/memory.max").exists()


def test_working_set_is_usage_less_inactive_file_pages(version_1: ControlGroups, tmp_path: Path) -> None:
    (tmp_path / "memory/knarr/p/c").mkdir(parents=True)
    (tmp_path / "cpuacct/knarr/p/c").mkdir(parents=True)
    (tmp_path / "cpuacct/knarr/p/c/cpuacct.usage").write_text("123456\n")
    (tmp_path / "memory/knarr/p/c/memory.usage_in_bytes").write_text("5000\n")
    (tmp_path / "memory/knarr/p/c/memory.stat").write_text("cache 1\ntotal_inactive_file 1000\ntotal_rss 300\n")
    (tmp_path / "memory/knarr/p/c/memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    assert version_1.usage("p/c") == Usage(123456, 4000, 5000, 300)
    assert version_1.oom_kills("p/c") == 2
    assert version_1.usage("p/gone") is None
    assert version_1.oom_kills("p/gone") == 0


def test_usage_of_version_2(version_2: ControlGroups, tmp_path: Path) -> None:
    group = tmp_path / "knarr/p/c"
    group.mkdir(parents=True)
    (group / "cpu.stat").write_text("usage_usec 7\nuser_usec 3\n")
    (group / "memory.current").write_text("5000\n")
    (group / "memory.stat").write_text("anon 2000\ninactive_file 6000\n")
    (group / "memory.events").write_text("low 0\noom 1\noom_kill 1\n")
    assert version_2.usage("p/c") == Usage(7000, 0, 5000, 2000)
    assert version_2.oom_kills("p/c") == 1


def test_a_group_goes_once_what_was_killed_in_it_has_ended(
    version_2: ControlGroups, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That takes a moment, and longer while the machine is busy."""
    group = tmp_path / "knarr/p/c"
    group.mkdir(parents=True)
    rmdir, tries = os.rmdir, 0

    def busy(path: str) -> None:
        nonlocal tries
        tries += 1
        if tries < 20:
            raise OSError(errno.EBUSY, "Device or resource busy")
        rmdir(path)

    monkeypatch.setattr(os, "rmdir", busy)
    version_2.remove("p")
    assert not (tmp_path / "knarr/p").exists()


def test_who_is_told_that_a_group_is_killed_finds_nobody_in_it(
    version_2: ControlGroups, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = tmp_path / "knarr/p"
    group.mkdir(parents=True)
    (group / "cgroup.procs").write_text("4711\n")
    looks = 0

    def kill(pid: int, number: int) -> None:
        nonlocal looks
        looks += 1
        assert (pid, number) == (4711, signal.SIGKILL)
        if looks == 5:
            (group / "cgroup.procs").write_text("")

    monkeypatch.setattr(os, "kill", kill)
    version_2.kill("p")
    assert looks == 5


@pytest.mark.parametrize(("shares", "expected"), [(0, 1), (2, 1), (1024, 39), (262144, 10000), (10**9, 10000)])
def test_weight_follows_the_formula_of_kep_2254(shares: int, expected: int) -> None:
    assert weight(shares) == expected
