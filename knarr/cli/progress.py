"""What `knarr up` tells while it starts, to a terminal or, detached, to the command that waits for it.

A detached process writes one JSON object a line into a pipe: {"say": text} to print, and last {"exit": code}.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from time import CLOCK_BOOTTIME, clock_gettime
from typing import Protocol


class Progress(Protocol):
    """Where progress goes."""

    def say(self, text: str) -> None:
        """One line for a person."""

    def settle(self, exit_code: int) -> None:
        """The start is over: 0 ready, else failed. Nothing but `say` of the log's kind comes after."""


class TerminalProgress:
    """Lines on standard error, where programs that read standard output don't stumble over them."""

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def settle(self, exit_code: int) -> None:
        pass


class PipeProgress:
    """Lines to the waiting parent; after `settle` to the log, which is this process's standard error."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def say(self, text: str) -> None:
        self._send({"say": text})
        with suppress(OSError):  # the disk of the log is full
            print(text, file=sys.stderr, flush=True)

    def settle(self, exit_code: int) -> None:
        self._send({"exit": exit_code})
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = None

    def _send(self, message: dict[str, object]) -> None:
        if self._descriptor is None:
            return
        try:
            os.write(self._descriptor, json.dumps(message).encode() + b"\n")
        except BrokenPipeError:  # the parent was interrupted: go on without it
            os.close(self._descriptor)
            self._descriptor = None


def process_start_s() -> float:
    """When this process began, on CLOCK_BOOTTIME, to the kernel's 10 ms: before Python was loaded."""
    with open("/proc/self/stat") as file:
        after_name = file.read().rpartition(")")[2].split()
    return int(after_name[19]) / os.sysconf("SC_CLK_TCK")


def since_ms(start_s: float) -> int:
    """Milliseconds from `start_s` of CLOCK_BOOTTIME until now."""
    return round((clock_gettime(CLOCK_BOOTTIME) - start_s) * 1000)
