"""A container on disk: its record, its file tree (overlayfs), its config.json, and in the end its exit code.

The tree is the image's layers below, and an empty layer of the container's own on top.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Sequence

from msgspec import Struct

from knarr.node.runtime import files, kernel, records, spec, users
from knarr.node.runtime.archives import ImageSettings
from knarr.node.runtime.contract import RuntimeFailure
from knarr.node.runtime.records import ContainerPhase, ContainerRecord

EXIT_UNKNOWN = 255
"""Exit code where none was kept: the machine went down, or somebody killed conmon."""
EXIT_KILLED = 128 + signal.SIGKILL


class Exit(Struct, frozen=True):
    """How a container ended."""

    code: int
    at_s: float | None = None
    """When, as far as anybody knows."""
    message: str = ""


def create(
    folder: str,
    record: ContainerRecord,
    layers: Sequence[str],
    settings: ImageSettings,
    place: spec.Place,
    host: spec.Host,
) -> None:
    """Prepare all that the OCI runtime needs. For a thread of its own, see `mount_tree`."""
    config = record.config
    users.check_non_root(settings.user or "", config.security)
    for missing in spec.sources_missing(config):
        raise RuntimeFailure(
            "CreateContainerError",
            f'failed to generate container "{record.id}" spec: mount source "{missing}" does not exist',
        )
    os.mkdir(folder, 0o711)
    records.write(folder, record)
    os.makedirs(os.path.dirname(record.log_path), mode=0o755, exist_ok=True)
    tree = mount_tree(folder, layers)
    user = users.resolve(tree, settings.user or "", config.security)
    document = spec.build(config, settings, user, place, host)
    files.write(os.path.join(folder, "config.json"), json.dumps(document).encode())
    record.phase = ContainerPhase.CREATED
    records.write(folder, record)


def mount_tree(folder: str, layers: Sequence[str]) -> str:
    """Mount the tree of `layers` (lowest first); answers its path.

    The mount is made relative to the container's folder, so that the names of a hundred layers fit in one page, the
    kernel's limit for mount options. So the thread's working folder is changed: it must be a thread of its own.
    """
    kernel.unshare(kernel.CLONE_FS)  # the working folder is this thread's alone from here
    os.chdir(folder)
    for name in ("upper", "work", "rootfs", "lower"):
        os.mkdir(name, 0o755)
    for number, layer in enumerate(reversed(layers)):
        os.symlink(layer, f"lower/{number}")
    if layers:
        there = os.stat("lower/0/")
        os.chown("upper", there.st_uid, there.st_gid)
        os.chmod("upper", there.st_mode & 0o7777)
    else:
        os.mkdir("lower/0")
    lower = ":".join(f"lower/{number}" for number in range(max(1, len(layers))))
    kernel.mount("overlay", "rootfs", "overlay", 0, f"lowerdir={lower},upperdir=upper,workdir=work")
    return os.path.join(folder, "rootfs")


def read_exit(path: str, record: ContainerRecord, boot_id: str) -> Exit:
    """What conmon wrote when the container ended; without it, what can be said. Leaves nothing running."""
    text = (files.read(path) or b"").strip()
    if text.isdigit():
        return Exit(int(text), os.stat(path).st_mtime)
    if record.boot_id != boot_id:
        return Exit(EXIT_UNKNOWN, message="the machine was restarted")
    # Without its monitor nobody would read its output or learn of its end.
    killed = record.process is not None and record.process.kill(signal.SIGKILL)
    return Exit(EXIT_KILLED if killed else EXIT_UNKNOWN, message="its monitor (conmon) was killed")


def remove(folder: str) -> None:
    """Unmount the tree and remove the folder. Idempotent."""
    rootfs = os.path.join(folder, "rootfs")
    while os.path.isdir(rootfs) and kernel.unmount(rootfs):
        pass
    shutil.rmtree(folder, ignore_errors=True)
