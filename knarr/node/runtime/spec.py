"""What the OCI runtime is told about a container: its config.json (OCI runtime-spec 1.0).

The defaults are those that containerd gives to Kubernetes containers: the same capabilities, hidden parts of
/proc and /sys, mounts and devices; so an image that runs upstream runs here. All of this is computed from
values: `Host` holds what depends on the machine.
"""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from knarr.node.runtime.archives import ImageSettings
from knarr.node.runtime.contract import ContainerConfig, Mount, Resources, RuntimeFailure
from knarr.node.runtime.users import User

CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP",
    "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE",
)  # fmt: skip
"""What root in a container may do, unless its security context says otherwise."""

ALL_CAPABILITIES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
)  # fmt: skip
"""By number, as in linux/capability.h."""

MASKED_PATHS = (
    "/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
    "/sys/devices/virtual/powercap",
)  # fmt: skip
READ_ONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_DEVICE_FOLDERS_SKIPPED = {"pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"}


class Host(Struct, frozen=True):
    """What of the machine matters to a spec."""

    cgroup_v2: bool
    capabilities: frozenset[str]
    """That this process may hand on at all."""
    oom_score_adj: int
    """This process's own; lower is refused without CAP_SYS_RESOURCE."""
    recursive_read_only: bool
    """Linux 5.12 and later."""
    bounds_swap: bool = False
    """Whether memory and swap together can be bounded."""

    @property
    def may_lower_oom_score_adj(self) -> bool:
        return "SYS_RESOURCE" in self.capabilities


class Place(Struct, frozen=True):
    """Where a container is put: what the sandbox gives."""

    hostname: str
    namespaces: Mapping[str, str]
    """Kind of namespace (OCI's names: network, ipc, uts, pid) to its path; those not named are the host's."""
    shm: str
    hostname_file: str
    cgroups_path: str
    annotations: Mapping[str, str]
    own_processes: bool = True
    """It has a process namespace to itself."""


def build(config: ContainerConfig, settings: ImageSettings, user: User, place: Place, host: Host) -> dict[str, Any]:
    """The whole config.json."""
    privileged = config.security.privileged
    linux: dict[str, Any] = {
        "cgroupsPath": place.cgroups_path,
        "namespaces": _namespaces(place, host),
        "resources": _resources(config.resources, privileged, host),
        "maskedPaths": [] if privileged else list(MASKED_PATHS),
        "readonlyPaths": [] if privileged else list(READ_ONLY_PATHS),
    }
    if privileged:
        linux["devices"] = host_devices()
    return {
        "ociVersion": "1.0.2",
        "process": _process(config, settings, user, place, host),
        "root": {"path": "rootfs", "readonly": config.security.read_only_root},
        "mounts": mounts(config, place, host),
        "annotations": dict(place.annotations),
        "linux": linux,
    }


def arguments(config: ContainerConfig, settings: ImageSettings) -> list[str]:
    """`command` replaces the image's Entrypoint and, with it, its Cmd; `args` replaces Cmd alone."""
    if config.command:
        line = [*config.command, *config.args]
    elif config.args:
        line = [*(settings.entrypoint or ()), *config.args]
    else:
        line = [*(settings.entrypoint or ()), *(settings.cmd or ())]
    if not line:
        raise RuntimeFailure("CreateContainerError", "no command specified")
    return line


def stop_signal(settings: ImageSettings) -> int:
    """An image's StopSignal: SIGQUIT, QUIT, 3 or SIGRTMIN+3; SIGTERM when there is none."""
    text = (settings.stop_signal or "").strip().upper()
    if not text:
        return signal.SIGTERM
    if text.isdigit():
        return int(text)
    name = text if text.startswith("SIG") else f"SIG{text}"
    base, sign, offset = name.partition("+") if "+" in name else name.partition("-")
    try:
        number = int(signal.Signals[base])
        return number + int(f"{sign}{offset}") if sign else number
    except (KeyError, ValueError) as error:
        raise RuntimeFailure("CreateContainerError", f"unknown stop signal {text!r}") from error


def environment(config: ContainerConfig, settings: ImageSettings, hostname: str) -> list[str]:
    """Defaults, overlaid by the image's, overlaid by the pod's; each name once, at its first place."""
    values: dict[str, str] = {}
    defaults = [DEFAULT_PATH, f"HOSTNAME={hostname}", *(["TERM=xterm"] if config.tty else [])]
    for pair in (*defaults, *(settings.env or ())):
        name, _, value = pair.partition("=")
        values[name] = value
    values.update(config.env)
    return [f"{name}={value}" for name, value in values.items()]


def capabilities(config: ContainerConfig, host: Host) -> list[str]:
    """The default set with what the security context adds and drops; ALL means every one."""
    security = config.security
    if security.privileged:
        wanted = set(ALL_CAPABILITIES)
    else:
        add = {_capability(name) for name in security.add_capabilities}
        drop = {_capability(name) for name in security.drop_capabilities}
        # ALL first, single names after it: `drop: [ALL], add: [NET_BIND_SERVICE]` leaves that one.
        wanted = set() if "ALL" in drop else set(CAPABILITIES)
        if "ALL" in add:
            wanted = set(ALL_CAPABILITIES)
        wanted |= add - {"ALL"}
        wanted -= drop - {"ALL"}
        unknown = sorted((add | drop) - {"ALL"} - set(ALL_CAPABILITIES))
        if unknown:
            raise RuntimeFailure("CreateContainerError", f'unknown capability "CAP_{unknown[0]}"')
    return [f"CAP_{name}" for name in ALL_CAPABILITIES if name in wanted & host.capabilities]


def mounts(config: ContainerConfig, place: Place, host: Host) -> list[dict[str, Any]]:
    """The system's mounts, then the pod's, outer ones first; the pod's replace the system's."""
    access = "rw" if config.security.privileged else "ro"
    plain = ["nosuid", "noexec", "nodev"]
    system: list[dict[str, Any]] = [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": plain},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
         "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
         "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": plain},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*plain, access]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
         "options": [*plain, "relatime", access]},
        {"destination": "/dev/shm", "type": "bind", "source": place.shm,
         "options": ["rbind", "rprivate", "rw"]},
        {"destination": "/etc/hostname", "type": "bind", "source": place.hostname_file,
         "options": ["rbind", "rprivate", "ro" if config.security.read_only_root else "rw"]},
    ]  # fmt: skip
    theirs = {os.path.normpath(mount.container_path) for mount in config.mounts}
    kept = [mount for mount in system if mount["destination"] not in theirs]
    added = [_bind(mount, host) for mount in config.mounts]
    return kept + sorted(added, key=lambda mount: str(mount["destination"]).count("/"))


def host_devices(folder: str = "/dev") -> list[dict[str, Any]]:
    """Every device of the machine, for privileged containers."""
    found: list[dict[str, Any]] = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_symlink():
            continue
        if entry.is_dir():
            if entry.name not in _DEVICE_FOLDERS_SKIPPED:
                found.extend(host_devices(entry.path))
            continue
        try:
            there = entry.stat(follow_symlinks=False)
        except FileNotFoundError:  # unplugged meanwhile
            continue
        kind = {stat.S_IFCHR: "c", stat.S_IFBLK: "b"}.get(stat.S_IFMT(there.st_mode))
        if kind is None or entry.path == "/dev/console":
            continue
        found.append(
            {
                "path": entry.path,
                "type": kind,
                "major": os.major(there.st_rdev),
                "minor": os.minor(there.st_rdev),
                "fileMode": stat.S_IMODE(there.st_mode),
                "uid": there.st_uid,
                "gid": there.st_gid,
            }
        )
    return found


def this_host(*, cgroup_v2: bool, bounds_swap: bool) -> Host:
    """Look at the machine once; blocks a moment."""
    with open("/proc/self/status", encoding="ascii") as file:
        fields = dict(line.split(":", 1) for line in file.read().splitlines() if ":" in line)
    bits = int(fields["CapPrm"], 16) & int(fields["CapBnd"], 16)
    with open("/proc/self/oom_score_adj", encoding="ascii") as file:
        own = int(file.read())
    major, minor = (int(part) for part in os.uname().release.split(".")[:2])
    return Host(
        cgroup_v2,
        frozenset(name for number, name in enumerate(ALL_CAPABILITIES) if bits >> number & 1),
        own,
        (major, minor) >= (5, 12),
        bounds_swap,
    )


def _process(config: ContainerConfig, settings: ImageSettings, user: User, place: Place, host: Host) -> dict[str, Any]:
    granted = capabilities(config, host)
    process: dict[str, Any] = {
        "terminal": config.tty,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.groups)},
        "args": arguments(config, settings),
        "env": environment(config, settings, place.hostname),
        "cwd": config.working_dir or settings.working_dir or "/",
        # None inheritable: a program that drops to another user must not carry them along (CVE-2022-24769).
        "capabilities": {"bounding": granted, "effective": granted, "permitted": granted},
        "noNewPrivileges": config.security.no_new_privileges,
    }
    if config.oom_score_adj is not None:
        least = config.oom_score_adj if host.may_lower_oom_score_adj else host.oom_score_adj
        process["oomScoreAdj"] = max(config.oom_score_adj, least)
    return process


def _namespaces(place: Place, host: Host) -> list[dict[str, str]]:
    new = [*([{"type": "pid"}] if place.own_processes else []), {"type": "mount"}]
    if host.cgroup_v2:
        new.append({"type": "cgroup"})
    return new + [{"type": kind, "path": path} for kind, path in place.namespaces.items()]


def _resources(resources: Resources, privileged: bool, host: Host) -> dict[str, Any]:
    return {"devices": [{"allow": privileged, "access": "rwm"}], **bounds(resources, host)}


def bounds(resources: Resources, host: Host) -> dict[str, Any]:
    """CPU and memory, as the OCI runtime takes them at the start and when they change."""
    cpu: dict[str, Any] = {}
    if resources.cpu_shares is not None:
        cpu["shares"] = resources.cpu_shares
    if resources.cpu_quota_us is not None:
        cpu["quota"], cpu["period"] = resources.cpu_quota_us, resources.cpu_period_us
    answer: dict[str, Any] = {}
    if cpu:
        answer["cpu"] = cpu
    if resources.memory_limit_bytes is not None:
        answer["memory"] = {"limit": resources.memory_limit_bytes}
        if host.bounds_swap:
            # "swap" is memory and swap together: the limit is a limit, none of it is swapped out instead.
            answer["memory"]["swap"] = resources.memory_limit_bytes
    return answer


def _bind(mount: Mount, host: Host) -> dict[str, Any]:
    read_only = "rro" if host.recursive_read_only else "ro"
    return {
        "destination": os.path.normpath(os.path.join("/", mount.container_path)),
        "type": "bind",
        "source": mount.host_path,
        "options": ["rbind", "rprivate", read_only if mount.read_only else "rw"],
    }


def _capability(name: str) -> str:
    return name.upper().removeprefix("CAP_")


def sources_missing(config: ContainerConfig) -> Sequence[str]:
    """Mounts whose host path isn't there."""
    return [mount.host_path for mount in config.mounts if not os.path.lexists(mount.host_path)]
