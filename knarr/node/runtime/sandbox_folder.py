"""A sandbox on disk: its record, host name, shared memory and bound namespaces. For threads."""

from __future__ import annotations

import os
import shutil

from knarr.node.runtime import kernel, namespaces, records
from knarr.node.runtime.records import SandboxRecord
from knarr.node.runtime.spec import Place

SHARED_MEMORY_BYTES = 64 << 20
"""Size of /dev/shm, as Docker's and containerd's."""
HOST_SHARED_MEMORY = "/dev/shm"
_SHARED_MEMORY, _HOSTNAME = "shm", "hostname"


def create(folder: str, record: SandboxRecord) -> None:
    """The record comes first: from here on a crash leaves nothing that isn't found again."""
    os.mkdir(folder, 0o711)
    records.write(folder, record)
    with open(os.path.join(folder, _HOSTNAME), "w", encoding="utf-8") as file:
        file.write(f"{record.config.hostname}\n")


def mount_shared_memory(folder: str) -> None:
    """/dev/shm, one for all containers of the pod."""
    target = os.path.join(folder, _SHARED_MEMORY)
    os.mkdir(target)
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
    kernel.mount("shm", target, "tmpfs", flags, f"mode=1777,size={SHARED_MEMORY_BYTES}")


def place(
    folder: str, record: SandboxRecord, container_name: str, cgroups_path: str, processes: str | None = None
) -> Place:
    """What the sandbox gives to one of its containers. `processes`: of another process, whose namespace it joins."""
    config = record.config
    shared = {}
    if not config.host_ipc:
        shared["ipc"] = namespaces.path(folder, namespaces.IPC)
    if processes is not None:
        shared["pid"] = processes
    elif config.share_processes:
        shared["pid"] = namespaces.path(folder, namespaces.PROCESSES)
    if not config.host_network:
        shared["network"] = namespaces.path(folder, namespaces.NETWORK)
        shared["uts"] = namespaces.path(folder, namespaces.UTS)
    return Place(
        config.hostname,
        shared,
        HOST_SHARED_MEMORY if config.host_ipc else os.path.join(folder, _SHARED_MEMORY),
        os.path.join(folder, _HOSTNAME),
        cgroups_path,
        {
            "io.kubernetes.pod.namespace": config.pod_namespace,
            "io.kubernetes.pod.name": config.pod_name,
            "io.kubernetes.pod.uid": config.pod_uid,
            "io.kubernetes.container.name": container_name,
        },
        own_processes=not config.host_pid and "pid" not in shared,
    )


def remove(folder: str) -> None:
    """Unbind, unmount and delete all of it. Idempotent."""
    if os.path.isdir(folder):
        namespaces.release(folder)
        kernel.unmount(os.path.join(folder, _SHARED_MEMORY))
        shutil.rmtree(folder, ignore_errors=True)
