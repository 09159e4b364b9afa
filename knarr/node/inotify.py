"""Being told when files change (inotify(7)), for all followers of a process by one descriptor."""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct

_IN_MODIFY, _IN_MOVE_SELF, _IN_DELETE_SELF = 0x2, 0x800, 0x400
_IN_CREATE, _IN_MOVED_TO = 0x100, 0x80
_IN_IGNORED = 0x8000
_EVENT = struct.Struct("iIII")
_READ_BYTES = 64 << 10


class Inotify:
    """Sets events when files or folders change. Opened with the first watch, closed with `close`."""

    def __init__(self) -> None:
        self._descriptor = -1
        self._events: dict[int, set[asyncio.Event]] = {}
        self._libc = ctypes.CDLL(None, use_errno=True)

    def watch(self, path: str, changed: asyncio.Event) -> int:
        """Set `changed` whenever `path` changes. OSError when it can't be watched. Answers what `unwatch` takes."""
        if self._descriptor < 0:
            self._open()
        mask = _IN_MODIFY | _IN_MOVE_SELF | _IN_DELETE_SELF | _IN_CREATE | _IN_MOVED_TO
        watch = self._libc.inotify_add_watch(self._descriptor, os.fsencode(path), mask)
        if watch < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)
        self._events.setdefault(watch, set()).add(changed)
        return int(watch)

    def unwatch(self, watch: int, changed: asyncio.Event) -> None:
        waiting = self._events.get(watch)
        if waiting is None:
            return
        waiting.discard(changed)
        if not waiting:
            del self._events[watch]
            self._libc.inotify_rm_watch(self._descriptor, watch)

    def close(self) -> None:
        if self._descriptor >= 0:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
            self._events.clear()

    def _open(self) -> None:
        descriptor = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if descriptor < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        self._descriptor = descriptor
        asyncio.get_running_loop().add_reader(descriptor, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, _READ_BYTES)
        except BlockingIOError:
            return
        at = 0
        while at < len(data):
            watch, mask, _, length = _EVENT.unpack_from(data, at)
            at += _EVENT.size + length
            for changed in self._events.get(watch, ()):
                changed.set()
            if mask & _IN_IGNORED:
                self._events.pop(watch, None)
