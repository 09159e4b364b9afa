"""The few system calls that Python 3.11 has no function for: mounts, namespaces, syncfs.

Called in threads, never on the event loop: ctypes lets go of the interpreter lock meanwhile.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import threading
from collections.abc import Callable
from typing import TypeVar

_libc = ctypes.CDLL(None, use_errno=True)
_Result = TypeVar("_Result")

CLONE_FS = 0x00000200
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWNET = 0x40000000

MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_BIND = 0x1000
MS_PRIVATE = 0x40000

_MNT_DETACH = 0x2
_UMOUNT_NOFOLLOW = 0x8


def mount(source: str, target: str, kind: str | None, flags: int = 0, options: str = "") -> None:
    """mount(2)."""
    result = _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        kind.encode() if kind else None,
        ctypes.c_ulong(flags),
        options.encode() if options else None,
    )
    if result:
        _raise(target)


def unmount(target: str) -> bool:
    """Unmount what is mounted at `target`, lazily where it's in use. False when nothing was mounted."""
    if _libc.umount2(os.fsencode(target), _MNT_DETACH | _UMOUNT_NOFOLLOW):
        if ctypes.get_errno() in (errno.EINVAL, errno.ENOENT):
            return False
        _raise(target)
    return True


def unshare(flags: int) -> None:
    """unshare(2) for the calling thread."""
    if _libc.unshare(flags):
        _raise("unshare")


def enter(namespace: str) -> None:
    """setns(2) for the calling thread: into the namespace at this path, for good."""
    descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(descriptor, 0):
            _raise(namespace)
    finally:
        os.close(descriptor)


def sync_file_system(directory: str) -> None:
    """syncfs(2): everything written to the file system of `directory` is durable on return."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if _libc.syncfs(descriptor):
            _raise(directory)
    finally:
        os.close(descriptor)


async def in_thread_of_its_own(function: Callable[[], _Result]) -> _Result:
    """Run `function` in a thread that ends with it: for work that changes the thread (namespaces, folder)."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_Result] = loop.create_future()

    def settle(result: _Result | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        try:
            result, error = function(), None
        except BaseException as failure:
            result, error = None, failure
        loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, daemon=True).start()
    return await done


def _raise(what: str) -> None:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), what)
