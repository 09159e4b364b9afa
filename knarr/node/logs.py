"""Container logs: files in CRI format, read in whole or followed as they grow.

A line of the file is `<RFC 3339 time> <stdout|stderr> <P|F> <text>`; P marks a part of a line that goes on in the next
entry of the same stream. What is served is the text, with the time before it when asked for.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from io import BytesIO

from msgspec import Struct

from knarr.client.nodes import LogOptions
from knarr.node.inotify import Inotify

BLOCK_BYTES = 64 << 10
"""Read at a time."""


class Entry(Struct, frozen=True):
    """One line of the file."""

    time: bytes
    partial: bool
    text: bytes
    """With its line feed where the line is whole."""

    @property
    def time_s(self) -> float:
        return datetime.fromisoformat(self.time.decode("ascii", "replace")).timestamp()


def parse(line: bytes) -> Entry | None:
    """An entry, or None when the line has another form."""
    parts = line.rstrip(b"\n").split(b" ", 3)
    if len(parts) < 3 or parts[1] not in (b"stdout", b"stderr"):
        return None
    partial = parts[2].split(b":")[0] == b"P"
    text = parts[3] if len(parts) == 4 else b""
    return Entry(parts[0], partial, text if partial else text + b"\n")


class Selection:
    """Which bytes of a log go out, entry by entry."""

    def __init__(self, options: LogOptions) -> None:
        self._since_s = options.since_s
        self._timestamps = options.timestamps
        self._left = options.limit_bytes
        self._inside_line = False

    @property
    def full(self) -> bool:
        """limitBytes is reached."""
        return self._left is not None and self._left <= 0

    def take(self, line: bytes) -> bytes:
        """What to send for a line of the file."""
        entry = parse(line)
        if entry is None:
            return b""
        if self._since_s is not None:
            if entry.time_s < self._since_s:
                return b""
            self._since_s = None  # what comes later is later
        stamped = self._timestamps and not self._inside_line
        self._inside_line = entry.partial
        data = entry.time + b" " + entry.text if stamped else entry.text
        if self._left is not None:
            data = data[: self._left]
            self._left -= len(data)
        return data


async def read(
    path: str, options: LogOptions, inotify: Inotify, ended: Callable[[], bool], wake: asyncio.Event
) -> AsyncIterator[bytes]:
    """The chosen part of the log as it is when asked for; with `follow`, then what comes until the container has ended.

    `ended` says whether nobody writes any more; `wake` is set when that may have changed.
    """
    selection = Selection(options)
    try:
        file = await asyncio.to_thread(open, path, "rb")
    except FileNotFoundError:
        return
    watch = inotify.watch(path, wake) if options.follow else None
    try:
        # What is written meanwhile is not among the last lines, and who writes faster than is read holds up nobody.
        left = os.fstat(file.fileno()).st_size
        if options.tail_lines is not None:
            start = await asyncio.to_thread(tail_offset, path, options.tail_lines, left)
            left -= file.seek(start)
        pending, replaced = b"", False
        while not selection.full:
            wake.clear()
            # Asked before reading: what was written until then is read.
            over = ended()
            wanted = BLOCK_BYTES if options.follow else min(BLOCK_BYTES, left)
            block = await asyncio.to_thread(file.read, wanted)
            if block:
                left -= len(block)
                *lines, pending = (pending + block).split(b"\n")
                data = b"".join(selection.take(line) for line in lines)
                if data:
                    yield data
                continue
            if not options.follow or over:
                return
            if not replaced and _is_another(path, file.fileno()):
                # The log was rotated. Nobody writes to the old file any more: read what is left of it.
                replaced = True
                continue
            if replaced:
                replaced = False
                file.close()
                file = await asyncio.to_thread(open, path, "rb")
                watch, old = inotify.watch(path, wake), watch
                if old is not None:
                    inotify.unwatch(old, wake)
                continue
            await wake.wait()
    finally:
        file.close()
        if watch is not None:
            inotify.unwatch(watch, wake)


def _is_another(path: str, descriptor: int) -> bool:
    """Whether there is another file at `path` than the open one."""
    try:
        return os.stat(path).st_ino != os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False


def tail_offset(path: str, count: int, size: int) -> int:
    """Where the last `count` lines of the first `size` bytes begin (parts of one line are one). Reads from the end."""
    if count <= 0:
        return size
    with open(path, "rb") as file:
        at, kept, seen, end = size, b"", 0, size
        while at > 0:
            step = min(BLOCK_BYTES, at)
            at -= step
            file.seek(at)
            block = file.read(step) + kept
            lines = BytesIO(block).readlines()  # not by splitlines: a carriage return ends no line
            # The first line may be cut; it is looked at together with the block before.
            kept, whole = (lines[0], lines[1:]) if at > 0 and lines else (b"", lines)
            for line in reversed(whole):
                entry = parse(line) if line.endswith(b"\n") else None  # else it is being written
                if entry is not None and not entry.partial:
                    if seen == count:
                        return end
                    seen += 1
                end -= len(line)
    return 0


def last_lines(path: str, lines_max: int, bytes_max: int) -> bytes:
    """The end of a log as text, for termination messages."""
    try:
        with open(path, "rb") as file:
            file.seek(tail_offset(path, lines_max, os.path.getsize(path)))
            entries = [parse(line) for line in file.read(16 * bytes_max + BLOCK_BYTES).split(b"\n")]
    except OSError:
        return b""
    return b"".join(entry.text for entry in entries if entry is not None)[-bytes_max:]
