"""The life of a process that runs for as long as nobody stops it: starting, ready, stopping.

What is run differs: a whole cluster (`process`), or a node of one that is elsewhere (`node_process`). How it lives does
not: the parts start in order, each saying what it waits for; then loops run side by side in one task group, so the
failure of one ends all: something half dead is worse than nothing. At the end the parts close in reverse order. An
orderly end removes containers and kernel rules (unless they are to be kept), a failure leaves them: the next start
finds them again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from knarr import __version__
from knarr.api.core.v1 import Node
from knarr.cli.control import ControlServer
from knarr.cli.exit_codes import FAILED, OK
from knarr.cli.failures import described
from knarr.cli.lock import DataFolderLock
from knarr.cli.progress import Progress, since_ms
from knarr.client.informer import Informer
from knarr.clock import Clock, SystemClock
from knarr.node.runtime.contract import Runtime

log = logging.getLogger("knarr")
T = TypeVar("T")

Loop = Callable[[], Awaitable[None]]


def write_logs(verbosity: int) -> None:
    """Log lines to standard error: warnings always, each step from 2 on, everything from 4 on, as klog's -v."""
    level = logging.WARNING if verbosity < 2 else logging.INFO if verbosity < 4 else logging.DEBUG
    form = "%(asctime)s %(levelname).1s %(name)s: %(message)s"
    logging.basicConfig(stream=sys.stderr, level=level, format=form)
    logging.captureWarnings(True)


class Life:
    """The moments of a process's life. Whoever lives says what is started, and when it is of use."""

    def __init__(self, folder: Path, lock: DataFolderLock, progress: Progress, start_s: float) -> None:
        """`start_s` is when the process began (CLOCK_BOOTTIME)."""
        self.folder = folder
        self.clock: Clock = SystemClock()
        self.runtime: Runtime | None = None
        self._lock = lock
        self._progress = progress
        self._start_s = start_s
        self._state = "starting"
        self._waiting_for: list[str] = []
        self.address = ""
        """Of the API server, once it is known."""
        self._stop_asked = asyncio.Event()
        self._keep = False
        self._stopping: list[Callable[[], None]] = []
        """Told at once when the end begins."""
        self._closing: list[tuple[str, Callable[[], Awaitable[Any]]]] = []
        """What the start has opened: a name and how to close it, in the order of opening."""

    # -- what lives

    async def start(self) -> list[tuple[str, Loop]]:
        """Open the parts in order; answers what is to run side by side."""
        raise NotImplementedError

    async def usable(self) -> None:
        """While the loops run: wait until this is of use to anybody."""
        raise NotImplementedError

    # -- how it lives

    async def run(self) -> int:
        """From the first part's start to the last part's end; answers the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, lambda: self.stop(keep=False))
        code = OK
        life = asyncio.create_task(self._live(), name="life")
        stop = asyncio.create_task(self._stop_asked.wait(), name="stop")
        await asyncio.wait([life, stop], return_when=asyncio.FIRST_COMPLETED)
        if life.done():
            code = FAILED
            self._keep = True
            stop.cancel()
        else:
            life.cancel()
        for failure in _failures(await asyncio.gather(life, return_exceptions=True)):
            code = FAILED
            self._progress.say(f"knarr: {described(failure)}")
            log.debug("it failed", exc_info=failure)
        code = max(code, await self._close())
        self._progress.settle(code)
        return code

    def stop(self, *, keep: bool) -> None:
        """Begin the orderly end; with `keep`, containers and their network stay."""
        if not self._stop_asked.is_set():
            self._keep = keep
            self._stop_asked.set()

    async def _live(self) -> None:
        """Start everything, then run the loops until cancelled."""
        control = ControlServer(self.folder, self)
        await control.start()
        self._closing.append(("control socket", control.close))
        self._progress.say(f"knarr {__version__} on {self.folder}")
        loops = await self.start()
        async with asyncio.TaskGroup() as group:
            for name, run in loops:
                group.create_task(_running(run), name=name)
            await self.usable()
            self._state = "ready"
            self._progress.say(f"ready in {since_ms(self._start_s)} ms")
            self._progress.settle(OK)
            await asyncio.Event().wait()  # until cancelled, or a loop fails

    def _found(self, address: str) -> None:
        """Note, and tell who looks, at which address the API server is."""
        self.address = address
        self._lock.tell(address)

    async def _close(self) -> int:
        """Close the parts in reverse order, each whatever became of the others; answers the exit code."""
        self._state = "stopping"
        for told in self._stopping:
            told()
        code = OK
        while self._closing:
            name, close = self._closing.pop()
            try:
                left = await close()
            except Exception as failure:
                left = [f"{name}: {described(failure)}"]
                log.exception("closing %s", name)
            for each in left or ():
                code = FAILED
                self._progress.say(f"knarr: {each}")
        return code

    @contextmanager
    def _waiting(self, what: str) -> Iterator[None]:
        """Say, to `knarr status` and to who looks on, what the start waits for."""
        self._waiting_for.append(what)
        began_s = self.clock.monotonic_s()
        try:
            yield
        finally:
            self._waiting_for.remove(what)
        self._progress.say(f"  {what:<32}{(self.clock.monotonic_s() - began_s) * 1000:6.0f} ms")

    async def status(self) -> dict[str, Any]:
        """For `knarr status`."""
        runtime = self.runtime
        return {
            "state": self._state,
            "waitingFor": self._waiting_for,
            "version": __version__,
            "server": self.address or None,
            "dataDir": str(self.folder),
            "pid": os.getpid(),
            "since": self._lock.since,
            "runtime": f"{runtime.name.removeprefix('knarr-')} ({runtime.version})" if runtime else "oci",
            "memoryBytes": await asyncio.to_thread(_memory_bytes),
        }


async def _running(run: Loop) -> None:
    await run()


async def seen(informer: Informer[T], wanted: Callable[[T], bool]) -> None:
    """Wait until an informer shows an object that is `wanted`."""
    seen = asyncio.Event()

    def look(old: T | None, new: T | None) -> None:
        if new is not None and wanted(new):
            seen.set()

    informer.add_handler(look)
    await seen.wait()


def node_is_ready(node: Node) -> bool:
    conditions = node.status.conditions if node.status else []
    return any(condition.type == "Ready" and condition.status == "True" for condition in conditions)


def _memory_bytes() -> int:
    """Proportional set size of this process."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def _failures(results: Iterable[object]) -> Iterator[BaseException]:
    """The single failures of (groups of) failures; a cancelled task is none."""
    for result in results:
        if isinstance(result, BaseExceptionGroup):
            yield from _failures(result.exceptions)
        elif isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
            yield result
