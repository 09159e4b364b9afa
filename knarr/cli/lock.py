"""One `knarr up` a data folder: the lock, and what it tells about who holds it.

The kernel's flock(2) on <data-dir>/lock is the truth: it ends with the process, however that ends. What is written in
the file is only for people and for `knarr down`.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import suppress
from pathlib import Path

from msgspec import Struct
from msgspec.structs import asdict


class Holder(Struct, frozen=True):
    """Who holds a data folder."""

    pid: int
    since: str
    """RFC 3339."""
    address: str
    """URL of its API server; empty until it listens."""

    def __str__(self) -> str:
        return f"process {self.pid} since {self.since}" + (f" at {self.address}" if self.address else "")


class DataFolderHeld(Exception):
    """Another knarr runs on this data folder."""

    def __init__(self, folder: Path, holder: Holder | None) -> None:
        super().__init__(f"{folder} is held by {holder or 'a process that is just starting'}")
        self.holder = holder


class DataFolderLock:
    """The lock, held from `acquire` until `release` or the end of the process."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.tell("")

    @classmethod
    def acquire(cls, folder: Path) -> DataFolderLock:
        """Raises DataFolderHeld."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held = DataFolderHeld(folder, _read(descriptor))
            os.close(descriptor)
            raise held from None
        return cls(descriptor)

    def tell(self, address: str) -> None:
        """Write down who holds it, and the address of its API server once it is known."""
        text = json.dumps(asdict(Holder(os.getpid(), self.since, address))).encode()
        with suppress(OSError):  # a full disk: it is held all the same
            os.pwrite(self._descriptor, text, 0)
            os.ftruncate(self._descriptor, len(text))

    def release(self) -> None:
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)


def is_held(folder: Path) -> tuple[bool, Holder | None]:
    """Whether somebody holds `folder`, and who, where that is already written."""
    try:
        descriptor = os.open(folder / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False, None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True, _read(descriptor)
    else:
        return False, None
    finally:
        os.close(descriptor)


def _read(descriptor: int) -> Holder | None:
    try:
        return Holder(**json.loads(os.pread(descriptor, 4096, 0)))
    except (ValueError, TypeError):
        return None
