"""The namespaces that the containers of a pod share: network, IPC and host name; processes where the pod asks for it.

Upstream keeps them alive by a pause process in every pod. Here the kernel does: a namespace lives as long as
something is bound to it, so each is bind-mounted on a file of the sandbox. That costs no process and no
memory, and survives the agent. Only shared processes need a process that goes before all others: see pause.py.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence

from knarr.node.runtime import kernel, pause

NETWORK, IPC, UTS, PROCESSES = "net", "ipc", "uts", "pid"

_KINDS = {NETWORK: kernel.CLONE_NEWNET, IPC: kernel.CLONE_NEWIPC, UTS: kernel.CLONE_NEWUTS}
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1
PAUSE_S_MAX = 10.0
"""For the first of shared processes to be there; it takes some 20 ms."""
_INTERFACE_REQUEST = struct.Struct("16sh14x")

DEFAULT_SYSCTLS = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}
"""Any user in a pod may listen on port 80 and ping, as with containerd 2."""
_NETWORK_SYSCTL = "net."
_IPC_SYSCTLS = ("kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue.")


class SysctlNotNamespaced(ValueError):
    """The setting belongs to the whole machine; setting it in a pod would change every pod."""


async def create(
    directory: str, *, hostname: str, host_network: bool, sysctls: Mapping[str, str], host_ipc: bool = False
) -> None:
    """Make the namespaces and bind each to a file in `directory`."""
    wanted = of_sandbox(host_network=host_network, host_ipc=host_ipc)
    check_sysctls(sysctls, host_network=host_network, host_ipc=host_ipc)
    await kernel.in_thread_of_its_own(lambda: _create(directory, wanted, hostname, sysctls))


def share_processes(directory: str, groups: Sequence[str]) -> None:
    """Begin a process namespace for all containers of the pod, in these control groups (cgroup.procs). For threads."""
    empty = os.path.join(directory, "empty")
    os.mkdir(empty, 0o755)
    # -I -S: only what the program itself names is imported; it stays for as long as the pod.
    line, given = [sys.executable, "-I", "-S", pause.__file__], "\n".join((empty, *groups)).encode()
    done = subprocess.run(
        line, input=given, capture_output=True, timeout=PAUSE_S_MAX, start_new_session=True, check=False
    )
    if done.returncode or not done.stdout.strip().isdigit():
        raise OSError(f"shared processes: {done.stderr.decode(errors='replace').strip()[-200:]}")
    target = path(directory, PROCESSES)
    os.close(os.open(target, os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, 0o444))
    kernel.mount(f"/proc/{int(done.stdout)}/ns/pid", target, None, kernel.MS_BIND)


def of_sandbox(*, host_network: bool, host_ipc: bool = False) -> tuple[str, ...]:
    """The kinds that a pod has of its own; with the machine's network it also bears the machine's name."""
    return (*(() if host_network else (NETWORK, UTS)), *(() if host_ipc else (IPC,)))


def check_sysctls(sysctls: Mapping[str, str], *, host_network: bool, host_ipc: bool = False) -> None:
    """Refuse settings that would reach beyond the pod."""
    for name in sysctls:
        network = name.startswith(_NETWORK_SYSCTL) and not host_network
        ipc = name.startswith(_IPC_SYSCTLS) and not host_ipc
        if not (network or ipc) or ".." in name or "/" in name:
            raise SysctlNotNamespaced(f"sysctl {name!r} is not separate for each pod")


def path(directory: str, kind: str) -> str:
    return os.path.join(directory, kind)


def present(directory: str) -> tuple[str, ...]:
    """Which namespaces are bound in `directory`; none after the machine restarted."""
    device = os.stat(directory).st_dev if os.path.isdir(directory) else None
    return tuple(kind for kind in (*_KINDS, PROCESSES) if device is not None and _bound(path(directory, kind), device))


def release(directory: str) -> None:
    """Unbind them; the kernel removes each namespace with its last process. Idempotent."""
    for kind in (*_KINDS, PROCESSES):
        target = path(directory, kind)
        if os.path.exists(target):
            while kernel.unmount(target):
                pass
            os.unlink(target)


def _create(directory: str, wanted: tuple[str, ...], hostname: str, sysctls: Mapping[str, str]) -> None:
    flags = 0
    for kind in wanted:
        flags |= _KINDS[kind]
    kernel.unshare(flags)
    if UTS in wanted:
        socket.sethostname(hostname)
    if NETWORK in wanted:
        _bring_loopback_up()
        for name, value in DEFAULT_SYSCTLS.items():
            with contextlib.suppress(OSError):  # a comfort, which not every kernel has
                _set_sysctl(name, value)
    for name, value in sysctls.items():
        _set_sysctl(name, value)
    for kind in wanted:
        target = path(directory, kind)
        os.close(os.open(target, os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, 0o444))
        kernel.mount(f"/proc/thread-self/ns/{kind}", target, None, kernel.MS_BIND)


def _bring_loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        answer = fcntl.ioctl(control, _SIOCGIFFLAGS, _INTERFACE_REQUEST.pack(b"lo", 0))
        _, flags = _INTERFACE_REQUEST.unpack(answer)
        fcntl.ioctl(control, _SIOCSIFFLAGS, _INTERFACE_REQUEST.pack(b"lo", flags | _IFF_UP))


def _set_sysctl(name: str, value: str) -> None:
    # "." separates. An interface's name with a "." in it is written with "/", which check_sysctls refuses.
    with open(f"/proc/sys/{name.replace('.', '/')}", "w", encoding="ascii") as setting:
        setting.write(value)


def _bound(target: str, device: int) -> bool:
    try:
        return os.stat(target).st_dev != device
    except OSError:
        return False
