"""Unpack an image layer into a folder that overlayfs can use as a lower layer.

A layer is a tar of what changed against the layers below it (OCI image-spec, layer.md): files, and
*whiteouts*, entries named `.wh.<name>` that delete `<name>` from below. Overlayfs says the same with a 0/0
character device, and an extended attribute on a folder that hides all below it.

A layer comes from a stranger. Nothing in it reaches out of the folder: `..` is refused, links are followed
only as a process with the folder as its root would follow them. Meant to run in a thread.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tarfile
from collections.abc import Sequence
from typing import IO

from knarr.node.runtime import paths

ENTRIES_MAX = 2_000_000
"""More files than any real image has; a tar bomb ends here."""

CONTENT_BYTES_MAX = 64 << 30
"""A layer that unpacks to more is a bomb, not an image."""

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_AUFS_PRIVATE = ".wh..wh."
_OPAQUE_ATTRIBUTE = "trusted.overlay.opaque"
_PAX_ATTRIBUTE = "SCHILY.xattr."
_ATTRIBUTES_KEPT = ("security.capability", "user.")
"""Others either mean nothing in a container or would let a layer speak to overlayfs itself."""
_COPY_BYTES = 1 << 20


class UnsafeLayer(ValueError):
    """The layer tries to write outside of its folder, or is no sound tar."""


def unpack(stream: IO[bytes], target: str, lower: Sequence[str] = ()) -> int:
    """Unpack the uncompressed tar `stream` into `target`, an empty folder. Answers the bytes of file content.

    `lower` are the folders of the layers below, topmost first: folders that the tar needs but doesn't name
    get owner and mode from there, and hard links may point there.
    """
    unpacking = _Unpacking(target, lower)
    try:
        with tarfile.open(fileobj=stream, mode="r|", errorlevel=2) as archive:
            count = 0
            while (entry := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # else it keeps every entry it has seen
                count += 1
                if count > ENTRIES_MAX:
                    raise UnsafeLayer(f"layer has more than {ENTRIES_MAX} entries")
                unpacking.add(archive, entry)
    except tarfile.TarError as error:
        raise UnsafeLayer(f"not a sound tar: {error}") from error
    unpacking.finish()
    return unpacking.size_bytes


class _Unpacking:
    def __init__(self, target: str, lower: Sequence[str]) -> None:
        self.target = target
        self.lower = lower
        self.size_bytes = 0
        self._folder_times: dict[str, float] = {}
        os.chmod(target, 0o755)

    def add(self, archive: tarfile.TarFile, entry: tarfile.TarInfo) -> None:
        parts = _parts(entry.name)
        if not parts:
            if entry.isdir():
                self._describe(entry, self.target)
                self._folder_times[self.target] = entry.mtime
            return
        folder, name = self._folder(parts[:-1]), parts[-1]
        if name == _OPAQUE:
            self._hide_all_below(folder)
        elif name.startswith(_AUFS_PRIVATE):
            return  # housekeeping of the old AUFS driver
        elif name.startswith(_WHITEOUT):
            self._hide(folder, name.removeprefix(_WHITEOUT))
        else:
            self._create(archive, entry, os.path.join(folder, name))

    def finish(self) -> None:
        """Times of folders come last: each file made in them has changed them."""
        for folder, mtime in self._folder_times.items():
            with contextlib.suppress(FileNotFoundError):
                os.utime(folder, (mtime, mtime), follow_symlinks=False)

    def _create(self, archive: tarfile.TarFile, entry: tarfile.TarInfo, path: str) -> None:
        replaced = self._make_way(path, for_folder=entry.isdir())
        if entry.isdir():
            if not os.path.isdir(path):
                os.mkdir(path, 0o700)
            if replaced == "whiteout":
                self._hide_all_below(path)
            self._folder_times[path] = entry.mtime
        elif entry.isreg():
            self.size_bytes += entry.size
            if self.size_bytes > CONTENT_BYTES_MAX:
                raise UnsafeLayer(f"layer unpacks to more than {CONTENT_BYTES_MAX >> 30} GiB")
            content = archive.extractfile(entry)
            assert content is not None
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
                shutil.copyfileobj(content, file, _COPY_BYTES)
        elif entry.issym():
            os.symlink(entry.linkname, path)
        elif entry.islnk():
            self._hard_link(entry, path)
            return
        elif entry.ischr():
            os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(entry.devmajor, entry.devminor))
        elif entry.isblk():
            os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(entry.devmajor, entry.devminor))
        elif entry.isfifo():
            os.mkfifo(path, 0o600)
        else:
            raise UnsafeLayer(f"{entry.name!r}: unknown kind of entry {entry.type!r}")
        self._describe(entry, path)
        if not entry.isdir():
            os.utime(path, (entry.mtime, entry.mtime), follow_symlinks=False)

    def _describe(self, entry: tarfile.TarInfo, path: str) -> None:
        """Owner, mode and attributes; the mode after the owner, for chown takes setuid bits away."""
        os.chown(path, entry.uid, entry.gid, follow_symlinks=False)
        if not entry.issym():
            os.chmod(path, stat.S_IMODE(entry.mode))
        for key, value in entry.pax_headers.items():
            name = key.removeprefix(_PAX_ATTRIBUTE)
            if name != key and name.startswith(_ATTRIBUTES_KEPT):
                try:
                    os.setxattr(path, name, value.encode("utf-8", "surrogateescape"), follow_symlinks=False)
                except OSError as error:
                    if error.errno not in (errno.ENOTSUP, errno.EPERM):
                        raise

    def _make_way(self, path: str, *, for_folder: bool) -> str:
        """Remove what is at `path`; a folder stays for a folder. Answers "whiteout" when that was there."""
        try:
            there = os.lstat(path)
        except FileNotFoundError:
            return ""
        if stat.S_ISDIR(there.st_mode):
            if not for_folder:
                shutil.rmtree(path)
            return ""
        os.unlink(path)
        return "whiteout" if is_whiteout(there) else ""

    def _hide(self, folder: str, name: str) -> None:
        if not name or name in (".", ".."):
            raise UnsafeLayer(f"whiteout of {name!r}")
        path = os.path.join(folder, name)
        if os.path.lexists(path):
            # Both deleted below and made anew in this layer: only what is below goes.
            if os.path.isdir(path) and not os.path.islink(path):
                self._hide_all_below(path)
            return
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(0, 0))

    def _hide_all_below(self, folder: str) -> None:
        os.setxattr(folder, _OPAQUE_ATTRIBUTE, b"y")

    def _hard_link(self, entry: tarfile.TarInfo, path: str) -> None:
        parts = _parts(entry.linkname)
        if not parts:
            raise UnsafeLayer(f"{entry.name!r}: hard link to the root")
        inside = os.path.join(self._folder(parts[:-1]), parts[-1])
        if os.path.lexists(inside):
            if os.path.isdir(inside) and not os.path.islink(inside):
                raise UnsafeLayer(f"{entry.name!r}: hard link to a folder")
            os.link(inside, path, follow_symlinks=False)
            return
        for layer in self.lower:
            below = paths.within(layer, "/".join(parts[:-1]))
            source = os.path.join(below, parts[-1])
            if os.path.isfile(source) and not os.path.islink(source):
                # A link into another layer can only be a copy: layers are shared and never changed.
                shutil.copyfile(source, path)
                shutil.copystat(source, path)
                there = os.stat(source)
                os.chown(path, there.st_uid, there.st_gid)
                os.chmod(path, stat.S_IMODE(there.st_mode))
                return
        raise UnsafeLayer(f"{entry.name!r}: hard link to {entry.linkname!r}, which is not in the image")

    def _folder(self, parts: Sequence[str]) -> str:
        """The folder of this layer that `parts` lead to, made where missing."""
        path = paths.within(self.target, "/".join(parts))
        if os.path.isdir(path):
            return path
        missing = []
        while not os.path.isdir(path):
            missing.append(path)
            path = os.path.dirname(path)
        for folder in reversed(missing):
            replaced = self._make_way(folder, for_folder=True)
            os.mkdir(folder, 0o755)
            if replaced == "whiteout":
                self._hide_all_below(folder)
            else:
                self._copy_description_from_below(folder)
        return missing[0]

    def _copy_description_from_below(self, folder: str) -> None:
        relative = os.path.relpath(folder, self.target)
        for layer in self.lower:
            try:
                there = os.lstat(paths.within(layer, relative))
            except OSError:
                continue
            if stat.S_ISDIR(there.st_mode):
                os.chown(folder, there.st_uid, there.st_gid)
                os.chmod(folder, stat.S_IMODE(there.st_mode))
            return


def is_whiteout(there: os.stat_result) -> bool:
    return stat.S_ISCHR(there.st_mode) and there.st_rdev == os.makedev(0, 0)


def _parts(name: str) -> list[str]:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in name:
        raise UnsafeLayer(f"entry {name!r} leads out of the layer")
    return parts
