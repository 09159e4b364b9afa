"""The control groups of pods: CPU and memory bounds, and what is used.

Works on both hierarchies that Linux hosts have: version 2 (one tree), and version 1 or hybrid (one tree for
each controller). The containers' own groups are made by the OCI runtime below the pod's ("cgroupfs" driver);
this module makes and removes the pod's, and reads. Meant for threads.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Callable

from msgspec import Struct

MOUNT_POINT = "/sys/fs/cgroup"

CPU_PERIOD_US = 100_000
"""The kernel's default period for CPU quotas, and upstream's."""
BEST_EFFORT_SHARES = 2
"""The kernel's least: pods without requests get CPU time that nobody else wants (upstream's QoS level)."""
_BEST_EFFORT = "besteffort"
_MONITORS = "monitors"
_CONTROLLERS_V2 = ("cpu", "memory", "pids", "cpuset", "io")
_LOOKS_MAX = 2_500
_LOOK_MS = 2
"""What is killed is in its group until it has ended, and that needs a core: so it is looked at for 5 s at most."""


class Usage(Struct, frozen=True):
    cpu_ns: int
    memory_bytes: int
    """The working set."""
    total_bytes: int = 0
    rss_bytes: int = 0


class ControlGroups:
    """The groups below `root`, a path like "/knarr"."""

    def __init__(self, root: str, mount_point: str = MOUNT_POINT) -> None:
        self.root = f"/{root.strip('/')}"
        self._mount_point = mount_point
        self.is_v2 = os.path.exists(os.path.join(mount_point, "cgroup.controllers"))
        self.bounds_swap = self.is_v2 or os.path.exists(
            os.path.join(mount_point, "memory", "memory.memsw.limit_in_bytes")
        )
        """Whether the kernel was built and started with swap accounting."""

    def path(self, *below: str) -> str:
        """What the OCI spec's cgroupsPath takes: absolute, so not relative to the agent's own group."""
        return "/".join((self.root, *(part.strip("/") for part in below)))

    def create(
        self,
        pod: str,
        *,
        cpu_shares: int | None = None,
        cpu_quota_us: int | None = None,
        memory_limit_bytes: int | None = None,
    ) -> None:
        """Make the group of a pod and set its bounds."""
        path = self.path(pod)
        if self.is_v2:
            self._create_v2(path)
            self._set(path, "", "cpu.weight", weight(cpu_shares) if cpu_shares is not None else None)
            if cpu_quota_us is not None:
                self._set(path, "", "cpu.max", f"{cpu_quota_us} {CPU_PERIOD_US}")
            self._set(path, "", "memory.max", memory_limit_bytes)
            return
        for controller in ("cpu", "memory"):
            os.makedirs(self._folder(controller, path), exist_ok=True)
        level = pod.strip("/").partition("/")[0]
        if level == _BEST_EFFORT:
            self._set(self.path(level), "cpu", "cpu.shares", BEST_EFFORT_SHARES)
        self._set(path, "cpu", "cpu.shares", cpu_shares)
        if cpu_quota_us is not None:
            self._set(path, "cpu", "cpu.cfs_period_us", CPU_PERIOD_US)
            self._set(path, "cpu", "cpu.cfs_quota_us", cpu_quota_us)
        self._set(path, "memory", "memory.limit_in_bytes", memory_limit_bytes)

    def make(self, group: str) -> list[str]:
        """Make a group without bounds of its own; answers where a process writes itself into it."""
        path = self.path(group)
        if self.is_v2:
            self._create_v2(path)
            return [os.path.join(self._mount_point, path.lstrip("/"), "cgroup.procs")]
        folders = [self._folder(controller, path) for controller in ("cpu", "memory")]
        for folder in folders:
            os.makedirs(folder, exist_ok=True)
        return [os.path.join(folder, "cgroup.procs") for folder in folders]

    def kill(self, group: str) -> None:
        """End all processes of a group, and of those below it."""
        for tree in self._trees():
            _look_until(self._is_empty, tree + self.path(group))

    def remove(self, pod: str) -> bool:
        """Remove a pod's group and all below it, killing what may still run there; True once it is gone. Idempotent."""
        path = self.path(pod).rstrip("/")
        for tree in self._trees():
            _look_until(self._is_removed, tree + path)
        return not any(os.path.isdir(tree + path) for tree in self._trees())

    def _is_removed(self, top: str) -> bool:
        self._is_empty(top)
        for folder, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
        return not os.path.isdir(top)

    def adopt_monitor(self, pid: int) -> None:
        """Take a monitor out of the agent's group: a service manager that stops the agent kills that group."""
        tree = self._mount_point if self.is_v2 else os.path.join(self._mount_point, "systemd")
        if not os.path.isdir(tree):
            return
        folder = tree + self.path(_MONITORS)
        with contextlib.suppress(OSError):
            os.makedirs(folder, exist_ok=True)
            self._write(os.path.join(folder, "cgroup.procs"), str(pid))

    def remove_root(self) -> None:
        """Remove the root group and its levels where they are empty."""
        for tree in self._trees():
            for folder, _, _ in os.walk(tree + self.root, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)

    def usage(self, container: str) -> Usage | None:
        """CPU time and working set of a container's group, None when it's gone."""
        path = self.path(container)
        if self.is_v2:
            cpu = self._fields(path, "", "cpu.stat").get("usage_usec")
            used = self._number(path, "", "memory.current")
            details = self._fields(path, "", "memory.stat")
            inactive, rss = details.get("inactive_file", 0), details.get("anon", 0)
            cpu_ns = None if cpu is None else cpu * 1000
        else:
            cpu_ns = self._number(path, "cpuacct", "cpuacct.usage")
            used = self._number(path, "memory", "memory.usage_in_bytes")
            details = self._fields(path, "memory", "memory.stat")
            inactive, rss = details.get("total_inactive_file", 0), details.get("total_rss", 0)
        if cpu_ns is None or used is None:
            return None
        return Usage(cpu_ns, max(0, used - inactive), used, rss)

    def oom_kills(self, container: str) -> int:
        """How many processes of the group the kernel killed for want of memory."""
        path = self.path(container)
        if self.is_v2:
            return self._fields(path, "", "memory.events").get("oom_kill", 0)
        return self._fields(path, "memory", "memory.oom_control").get("oom_kill", 0)

    # -- files

    def _create_v2(self, path: str) -> None:
        folder = self._mount_point
        for part in path.strip("/").split("/"):
            available = self._read(os.path.join(folder, "cgroup.controllers")) or ""
            for controller in _CONTROLLERS_V2:
                if controller in available.split():
                    with contextlib.suppress(OSError):
                        self._write(os.path.join(folder, "cgroup.subtree_control"), f"+{controller}")
            folder = os.path.join(folder, part)
            os.makedirs(folder, exist_ok=True)

    def _trees(self) -> list[str]:
        if self.is_v2:
            return [self._mount_point]
        with contextlib.suppress(FileNotFoundError):
            return [entry.path for entry in os.scandir(self._mount_point) if entry.is_dir(follow_symlinks=False)]
        return []

    def _is_empty(self, top: str) -> bool:
        """Kills whom it finds."""
        pids = [
            pid
            for folder, _, _ in os.walk(top)
            for pid in (self._read(os.path.join(folder, "cgroup.procs")) or "").split()
        ]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        return not pids

    def _folder(self, controller: str, path: str) -> str:
        return os.path.join(self._mount_point, controller, path.lstrip("/"))

    def _set(self, path: str, controller: str, name: str, value: int | str | None) -> None:
        if value is not None:
            self._write(os.path.join(self._folder(controller, path), name), str(value))

    def _number(self, path: str, controller: str, name: str) -> int | None:
        text = self._read(os.path.join(self._folder(controller, path), name))
        return int(text) if text is not None and text.strip().isdigit() else None

    def _fields(self, path: str, controller: str, name: str) -> dict[str, int]:
        lines = (self._read(os.path.join(self._folder(controller, path), name)) or "").splitlines()
        pairs = (line.split() for line in lines)
        return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}

    def _read(self, path: str) -> str | None:
        try:
            with open(path, encoding="ascii") as file:
                return file.read()
        except OSError:
            return None

    def _write(self, path: str, value: str) -> None:
        with open(path, "w", encoding="ascii") as file:
            file.write(value)


def _look_until(holds: Callable[[str], bool], top: str) -> None:
    for _ in range(_LOOKS_MAX):
        if holds(top):
            return
        select.poll().poll(_LOOK_MS)


def weight(cpu_shares: int) -> int:
    """cpu.shares (2 to 262144) as cpu.weight (1 to 10000), by the formula that KEP-2254 gives."""
    bounded = min(max(cpu_shares, 2), 262144)
    return 1 + ((bounded - 2) * 9999) // 262142
