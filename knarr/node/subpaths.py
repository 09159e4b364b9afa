"""subPath: a part of a volume in a container, which must not lead out of the volume.

A container that writes to the volume may place symbolic links there, and may change them at any time. So the path is
resolved once, checked to be inside, opened part by part without following links, and what was opened is bound to a
place that only the node can change (upstream's answer to CVE-2017-1002101 and CVE-2021-25741). Meant for threads.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from knarr.node.runtime import kernel

_FOLDER_MODE = 0o750


class Escape(Exception):
    """The path leads out of its volume."""


def bind(volume: str, sub_path: str, target: str) -> None:
    """Bind `sub_path` of `volume` to the path `target`; a folder is made where nothing is. Idempotent."""
    if os.path.lexists(target):
        kernel.unmount(target)
    descriptor = opened(volume, sub_path)
    try:
        _make_target(target, is_folder=stat.S_ISDIR(os.fstat(descriptor).st_mode))
        kernel.mount(f"/proc/self/fd/{descriptor}", target, None, kernel.MS_BIND)
        # Where mounts are shared (as systemd has them), unmounting the bind would also unmount on the host what is
        # mounted there below the same folder.
        kernel.mount("none", target, None, kernel.MS_PRIVATE)
    finally:
        os.close(descriptor)


def opened(volume: str, sub_path: str) -> int:
    """A descriptor (O_PATH) of `sub_path`, which is certainly inside of `volume`. Raises Escape."""
    if sub_path.startswith("/") or ".." in sub_path.split("/"):
        raise Escape(f"subpath {sub_path!r} must be relative and must not contain '..'")
    base = os.path.realpath(volume)
    resolved = os.path.realpath(os.path.join(base, sub_path))
    if os.path.commonpath([base, resolved]) != base:
        raise Escape(f"subpath {sub_path!r} is outside of its volume")
    descriptor = os.open(base, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for part in os.path.relpath(resolved, base).split("/"):
        if part == ".":
            continue
        try:
            inner = _step(descriptor, part)
        finally:
            os.close(descriptor)
        descriptor = inner
    return descriptor


def release_all(folder: str) -> None:
    """Unbind the targets below `folder`: <volume>/<container>/<number>.

    Never what is deeper: that is the volume's own, and may be the whole disk of the host.
    """
    for target in Path(folder).glob("*/*/*"):
        kernel.unmount(str(target))


def _step(descriptor: int, part: str) -> int:
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        inner = os.open(part, flags, dir_fd=descriptor)
    except FileNotFoundError:
        os.mkdir(part, _FOLDER_MODE, dir_fd=descriptor)
        inner = os.open(part, flags, dir_fd=descriptor)
    if stat.S_ISLNK(os.fstat(inner).st_mode):
        os.close(inner)
        raise Escape(f"{part!r} became a symbolic link while it was looked at")
    return inner


def _make_target(target: str, *, is_folder: bool) -> None:
    if os.path.isdir(target) and not is_folder:
        os.rmdir(target)
    elif os.path.isfile(target) and is_folder:
        os.unlink(target)
    os.makedirs(target if is_folder else os.path.dirname(target), mode=0o750, exist_ok=True)
    if not is_folder:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o640))
