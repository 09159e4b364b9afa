"""Publishing files in a volume at once: readers see all of the old or all of the new, as upstream's atomic writer.

    <volume>/..2026_01_31_12_00_00.1234567890/   the files of one moment
    <volume>/..data -> ..2026_…                  moved by rename(2): the moment that all of them change
    <volume>/key -> ..data/key                   what the container reads

Meant for threads.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping

from msgspec import Struct

_DATA = "..data"
_STAGED = "..data_tmp"


class PublishedFile(Struct, frozen=True):
    """One file of a volume."""

    data: bytes
    mode: int
    user: int | None = None


def publish(folder: str, files: Mapping[str, PublishedFile], stamp: str, group: int | None = None) -> bool:
    """Make `folder` show exactly `files` (by relative path); False when it does already.

    `stamp` names the new moment: no two calls use the same. `group` owns and may read them (fsGroup).
    """
    for path in files:
        _check(path)
    before = _now_shown(folder)
    if before is not None and _same(os.path.join(folder, before), files, group):
        return False
    fresh = f"..{stamp}"
    _write_all(os.path.join(folder, fresh), files, group)
    staged = os.path.join(folder, _STAGED)
    if os.path.lexists(staged):
        os.unlink(staged)
    os.symlink(fresh, staged)
    os.rename(staged, os.path.join(folder, _DATA))
    _link_names(folder, {path.split("/")[0] for path in files})
    if before is not None:
        shutil.rmtree(os.path.join(folder, before), ignore_errors=True)
    return True


def _check(path: str) -> None:
    parts = path.split("/")
    if path.startswith("/") or ".." in parts or parts[0].startswith("..") or not all(parts):
        raise ValueError(f"invalid path {path!r} in a volume")


def _now_shown(folder: str) -> str | None:
    try:
        return os.readlink(os.path.join(folder, _DATA))
    except OSError:
        return None


def _same(shown: str, files: Mapping[str, PublishedFile], group: int | None) -> bool:
    present = {
        os.path.relpath(os.path.join(parent, name), shown) for parent, _, names in os.walk(shown) for name in names
    }
    if present != set(files):
        return False
    for path, file in files.items():
        there = os.stat(os.path.join(shown, path))
        if there.st_size != len(file.data) or there.st_mode & 0o7777 != _mode(file, group):
            return False
        with open(os.path.join(shown, path), "rb") as opened:
            if opened.read() != file.data:
                return False
    return True


def _write_all(folder: str, files: Mapping[str, PublishedFile], group: int | None) -> None:
    _make_folder(folder, group)
    for path, file in files.items():
        parent = folder
        for part in path.split("/")[:-1]:
            parent = os.path.join(parent, part)
            if not os.path.isdir(parent):
                _make_folder(parent, group)
        descriptor = os.open(os.path.join(folder, path), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as opened:
            opened.write(file.data)
            if file.user is not None or group is not None:
                os.fchown(descriptor, -1 if file.user is None else file.user, -1 if group is None else group)
            os.fchmod(descriptor, _mode(file, group))


def _mode(file: PublishedFile, group: int | None) -> int:
    return file.mode | 0o440 if group is not None else file.mode


def _make_folder(path: str, group: int | None) -> None:
    os.mkdir(path)
    os.chmod(path, 0o755)
    if group is not None:
        os.chown(path, -1, group)
        os.chmod(path, 0o2775)


def _link_names(folder: str, names: set[str]) -> None:
    for name in sorted(names):
        path = os.path.join(folder, name)
        if not os.path.lexists(path):
            os.symlink(os.path.join(_DATA, name), path)
    for entry in list(os.scandir(folder)):
        if not entry.name.startswith("..") and entry.is_symlink() and entry.name not in names:
            os.unlink(entry.path)
