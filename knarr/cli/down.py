"""`knarr down`: end the cluster on a data folder, whether its process is well, stuck or long dead.

A process that runs is asked to end in order, by its control socket, and by SIGTERM where that does not answer. Where
there is none (it was killed) this command itself removes what it left, from the state on disk. Either way, afterwards
there is no process, mount, network namespace, interface, cgroup or kernel rule of it; with --keep the containers and
their network stay.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from knarr.cli import kubeconfig as kubeconfigs
from knarr.cli.control import ControlError, NotRunning, call
from knarr.cli.exit_codes import FAILED, OK
from knarr.cli.lock import DataFolderHeld, DataFolderLock, is_held
from knarr.cli.lost import holds, process_of, record_of
from knarr.config import default_data_dir

ORDERLY_END_S_MAX = 60.0
"""How long the process gets: its containers' grace periods at shutdown are far below that."""
KILLED_END_S_MAX = 5.0
POLL_S = 0.02


def down(parsed: argparse.Namespace) -> int:
    """Answers the exit code: 0 when nothing is left that was to go."""
    folder = Path(parsed.data_dir or default_data_dir())
    purged = parsed.purge or not folder.is_dir()  # who deleted it by hand has purged it
    lost = process_of(folder)
    if lost is not None and not stop_lost(folder, lost):
        return FAILED
    if not folder.is_dir() and not record_of(folder).exists():
        if lost is None:
            print(f"knarr: nothing to stop: {folder} does not exist", file=sys.stderr)
        return OK
    if not stop(folder, keep=parsed.keep):
        return FAILED
    try:
        lock = DataFolderLock.acquire(folder)
    except DataFolderHeld as error:
        print(f"knarr: {error}", file=sys.stderr)
        return FAILED
    left = [] if parsed.keep else clean(folder)
    for each in left:
        print(f"knarr: still there: {each}", file=sys.stderr)
    if purged and not left:
        try:
            purge(folder)
        except OSError as error:
            print(f"knarr: {folder} could not be deleted: {error}", file=sys.stderr)
            left = [str(error)]
    lock.release()
    return FAILED if left else OK


def stop_lost(folder: Path, pid: int) -> bool:
    """End the process whose folder was deleted under it; True when it has ended."""
    print(f"knarr: {folder} was deleted while process {pid} runs on it; the process is told to end", file=sys.stderr)
    for number, wait_s in ((signal.SIGTERM, ORDERLY_END_S_MAX), (signal.SIGKILL, KILLED_END_S_MAX)):
        _kill(pid, number)
        if _until(lambda: not holds(folder, pid), wait_s):
            return True
    print(f"knarr: process {pid} does not end", file=sys.stderr)
    return False


def stop(folder: Path, *, keep: bool) -> bool:
    """End the process that holds `folder`; True when nobody holds it any more."""
    held, holder = is_held(folder)
    if not held:
        return True
    try:
        call(folder, "POST", "/stop", {"keep": keep})
    except (NotRunning, ControlError):
        if holder is not None:
            _kill(holder.pid, signal.SIGTERM)
    if _let_go(folder, ORDERLY_END_S_MAX):
        return True
    _, holder = is_held(folder)
    if holder is not None:
        print(f"knarr: process {holder.pid} did not end in {ORDERLY_END_S_MAX:.0f} s and is killed", file=sys.stderr)
        _kill(holder.pid, signal.SIGKILL)
    return _let_go(folder, KILLED_END_S_MAX)


def clean(folder: Path) -> list[str]:
    """Remove what a process on `folder` left in the kernel; answers what could not be removed."""
    import asyncio

    from msgspec.structs import replace

    from knarr.cli import teardown

    running = teardown.read_record(folder)
    if running is None or running.clean or running.node is None:
        return []
    left = asyncio.run(teardown.teardown(running.node))
    if not left:
        teardown.write_record(replace(running, clean=True))
    return left


def purge(folder: Path) -> None:
    """Delete the data, and the entries in the kubeconfig that point to this cluster."""
    from knarr.cli import teardown

    running = teardown.read_record(folder)
    if running is not None and running.kubeconfig:
        kubeconfigs.remove(Path(running.kubeconfig), running.server)
    record_of(folder).unlink(missing_ok=True)
    # The lock goes last: nobody starts on a folder that is half gone.
    for entry in folder.iterdir():
        if entry.name != "lock":
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    shutil.rmtree(folder)


def _kill(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # it has just ended by itself
        os.kill(pid, number)


def _let_go(folder: Path, wait_s: float) -> bool:
    return _until(lambda: not is_held(folder)[0], wait_s)


def _until(so: Callable[[], bool], wait_s: float) -> bool:
    until_s = time.monotonic() + wait_s
    while not so():
        if time.monotonic() > until_s:
            return False
        time.sleep(POLL_S)
    return True
