"""A container's file tree: the image's layers below, an empty layer of its own on top (overlayfs).

Meant for a thread of its own: the mount is made relative to the container's folder, so that the names of a
hundred layers fit in one page, the kernel's limit for mount options.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence

from knarr.node.runtime import kernel


def prepare(folder: str, layers: Sequence[str]) -> str:
    """Mount the tree of `layers` (lowest first) in the container's `folder`; answers its path."""
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
        lower = ":".join(f"lower/{number}" for number in range(len(layers)))
    else:
        os.mkdir("lower/0")
        lower = "lower/0"
    kernel.mount("overlay", "rootfs", "overlay", 0, f"lowerdir={lower},upperdir=upper,workdir=work")
    return os.path.join(folder, "rootfs")


def release(folder: str) -> None:
    """Unmount the tree and remove the container's folder. Idempotent."""
    rootfs = os.path.join(folder, "rootfs")
    while os.path.isdir(rootfs) and kernel.unmount(rootfs):
        pass
    shutil.rmtree(folder, ignore_errors=True)
